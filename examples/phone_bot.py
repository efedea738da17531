"""An echo bot for keys 1, 2, 3 and 9. Run it: python phone_bot.py -t websocket"""

from pipecat.frames.frames import Frame, InputAudioRawFrame, InputDTMFFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.run import main
from pipecat.runner.types import RunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from pipecat.workers.runner import WorkerRunner

from pipecat_bridge.bot.phone_line import CallMetadata, PhoneLine


class EchoWithKeys(FrameProcessor):
    def __init__(self, line: PhoneLine):
        super().__init__()
        self.actions = {
            "1": lambda: line.play_dtmf("12#"),
            "2": lambda: line.transfer("support"),
            "3": lambda: line.set_variables(language="de", calls=1),
            "9": lambda: line.hangup("the caller pressed 9"),
        }

    async def process_frame(self, frame: Frame, direction: FrameDirection):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        elif isinstance(frame, InputDTMFFrame) and (action := self.actions.get(frame.button.value)):
            await action()
        await self.push_frame(frame, direction)


async def bot(runner_args: RunnerArguments):
    params = FastAPIWebsocketParams(
        audio_in_enabled=True, audio_out_enabled=True, serializer=ProtobufFrameSerializer()
    )
    transport = await create_transport(runner_args, {"websocket": lambda: params})
    line = PhoneLine()
    pipeline = Pipeline([transport.input(), line, EchoWithKeys(line), transport.output()])
    worker = PipelineWorker(pipeline)

    @line.event_handler("on_call")
    async def on_call(line: PhoneLine, call: CallMetadata):
        await worker.rtvi.send_server_message({"hello": call.caller or "stranger", "id": call.id})

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    main()
