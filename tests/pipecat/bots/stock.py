"""A bot as people have it: Pipecat and nothing else, for WebSocket and for Twilio alike.

It echoes, until a text or a key gives a cue: 1 `long` (20 s of a tone), 2 `interrupt`, 3 `goodbye`
(0.6 s of another tone, then the end). What it sees it prints, one JSON object a line.
"""

import json
import math
from array import array

from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    LLMMessagesAppendFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.run import main
from pipecat.runner.types import WebSocketRunnerArguments
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

RATE = 24000
CUES = {"1": "long", "2": "interrupt", "3": "goodbye"}


def saw(what: str, value: object = None) -> None:
    print(json.dumps({"saw": what, "value": value}), flush=True)


def tone(frequency: float, seconds: float) -> OutputAudioRawFrame:
    turn = 2 * math.pi * frequency / RATE
    samples = array("h", (round(8000 * math.sin(turn * n)) for n in range(int(seconds * RATE))))
    return OutputAudioRawFrame(samples.tobytes(), RATE, 1)


class Echo(FrameProcessor):
    def __init__(self, stream_sid: str | None) -> None:
        super().__init__()
        self.stream_sid = stream_sid
        self.echoes = True

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            if self.echoes:
                echo = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
                await self.push_frame(echo)
            return
        if isinstance(frame, InputDTMFFrame):
            saw("key", frame.button.value)
            await self.obey(CUES.get(frame.button.value, ""))
        elif isinstance(frame, LLMMessagesAppendFrame):
            saw("text", frame.messages[-1]["content"])
            await self.obey(frame.messages[-1]["content"])
        elif isinstance(frame, InterruptionFrame | EndFrame):
            saw(type(frame).__name__)
        await self.push_frame(frame, direction)

    async def obey(self, cue: str) -> None:
        self.echoes = self.echoes and cue not in CUES.values()
        if cue == "long":
            await self.push_frame(tone(440, 20))
        elif cue == "interrupt":
            await self.broadcast_interruption()
        elif cue == "goodbye":
            await self.push_frame(tone(880, 0.6))
            if self.stream_sid:
                mark = {"event": "mark", "streamSid": self.stream_sid, "mark": {"name": "said"}}
                await self.push_frame(OutputTransportMessageFrame(message=mark))
            await self.pipeline_worker.queue_frame(EndFrame())


async def connect(
    runner_args: WebSocketRunnerArguments,
) -> tuple[FastAPIWebsocketTransport, str | None]:
    """The transport of a call, and what Twilio calls its stream."""
    stream_sid = None
    params = FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True)
    if runner_args.transport_type == "websocket":
        params.serializer = ProtobufFrameSerializer()
        params.add_wav_header = True
    else:
        kind, call = await parse_telephony_websocket(runner_args.websocket)
        saw("call", {"kind": kind, "id": call["call_id"], "body": call["body"]})
        stream_sid = call["stream_id"]
        params.serializer = TwilioFrameSerializer(
            stream_sid,
            call["call_id"],
            params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
        )
    return FastAPIWebsocketTransport(runner_args.websocket, params), stream_sid


async def bot(runner_args: WebSocketRunnerArguments) -> None:
    transport, stream_sid = await connect(runner_args)
    worker = PipelineWorker(Pipeline([transport.input(), Echo(stream_sid), transport.output()]))

    @worker.rtvi.event_handler("on_client_message")
    async def on_client_message(rtvi: object, message: object) -> None:
        saw(message.type, message.data)

    @transport.event_handler("on_client_connected")
    async def on_client_connected(transport: object, client: object) -> None:
        saw("connected")

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport: object, client: object) -> None:
        saw("disconnected")
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
    saw("over")


if __name__ == "__main__":
    main()
