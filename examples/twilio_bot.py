"""An echo bot for Twilio Media Streams. Run it: python twilio_bot.py -t twilio"""

from pipecat.frames import frames
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.run import main
from pipecat.runner.types import WebSocketRunnerArguments
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner


class EchoWithKeys(FrameProcessor):
    async def process_frame(self, frame: frames.Frame, direction: FrameDirection):
        await super().process_frame(frame, direction)
        if isinstance(frame, frames.InputAudioRawFrame):
            frame = frames.OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        elif isinstance(frame, frames.InputDTMFFrame) and frame.button.value == "2":
            # The serializer sends the message unchanged, after the audio before it.
            transfer = {"type": "transfer", "target": "support"}
            await self.push_frame(frames.OutputTransportMessageFrame(message=transfer))
        elif isinstance(frame, frames.InputDTMFFrame) and frame.button.value == "9":
            await self.pipeline_worker.queue_frame(frames.EndFrame())
        await self.push_frame(frame, direction)


async def bot(runner_args: WebSocketRunnerArguments):
    _, call = await parse_telephony_websocket(runner_args.websocket)
    print("a call from", call["body"].get("from_number", "a stranger"), flush=True)
    # With auto_hang_up Pipecat would ask Twilio to end the call, but Twilio does not have it.
    serializer = TwilioFrameSerializer(
        stream_sid=call["stream_id"],
        call_sid=call["call_id"],
        params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
    )
    transport = FastAPIWebsocketTransport(
        websocket=runner_args.websocket,
        params=FastAPIWebsocketParams(
            audio_in_enabled=True, audio_out_enabled=True, serializer=serializer
        ),
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), EchoWithKeys(), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=8000, audio_out_sample_rate=8000),
    )

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    main()
