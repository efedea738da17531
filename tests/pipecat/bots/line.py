"""A bot with a PhoneLine: key 1 says 0.6 s and hangs up, 2 says 20 s and transfers, 3 interrupts.

The commands are given while the audio still waits in Pipecat.
"""

from pipecat.frames.frames import Frame, InputDTMFFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.run import main
from pipecat.runner.types import WebSocketRunnerArguments
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner
from stock import tone

from pipecat_bridge.bot.phone_line import PhoneLine


class Keys(FrameProcessor):
    def __init__(self, line: PhoneLine) -> None:
        super().__init__()
        self.line = line

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        key = frame.button.value if isinstance(frame, InputDTMFFrame) else ""
        if key == "1":
            await self.push_frame(tone(880, 0.6))
            await self.line.hangup("said")
        elif key == "2":
            await self.push_frame(tone(440, 20))
            await self.line.transfer("support")
        elif key == "3":
            await self.broadcast_interruption()


async def bot(runner_args: WebSocketRunnerArguments) -> None:
    params = FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True)
    params.serializer = ProtobufFrameSerializer()
    transport = FastAPIWebsocketTransport(runner_args.websocket, params)
    line = PhoneLine()
    worker = PipelineWorker(Pipeline([transport.input(), line, Keys(line), transport.output()]))

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport: object, client: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    main()
