"""A bot that is never silent: Pipecat mixes a hum under all it says, and under its silence."""

import math
from array import array

from pipecat.audio.mixers.base_audio_mixer import BaseAudioMixer
from pipecat.frames.frames import MixerControlFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.runner.run import main
from pipecat.runner.types import WebSocketRunnerArguments
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner


class Hum(BaseAudioMixer):
    """A tone of 150 Hz."""

    def __init__(self) -> None:
        self._rate = 0
        self._at = 0

    async def start(self, sample_rate: int) -> None:
        self._rate = sample_rate

    async def stop(self) -> None:
        """Nothing to end."""

    async def process_frame(self, frame: MixerControlFrame) -> None:
        """It cannot be changed."""

    async def mix(self, audio: bytes) -> bytes:
        samples = array("h", audio)
        turn = 2 * math.pi * 150 / self._rate
        for number, sample in enumerate(samples):
            samples[number] = sample + round(3000 * math.sin(turn * (self._at + number)))
        self._at += len(samples)
        return samples.tobytes()


async def bot(runner_args: WebSocketRunnerArguments) -> None:
    params = FastAPIWebsocketParams(
        audio_in_enabled=True,
        audio_out_enabled=True,
        audio_out_mixer=Hum(),
        serializer=ProtobufFrameSerializer(),
    )
    transport = FastAPIWebsocketTransport(runner_args.websocket, params)
    worker = PipelineWorker(Pipeline([transport.input(), transport.output()]))

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport: object, client: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    main()
