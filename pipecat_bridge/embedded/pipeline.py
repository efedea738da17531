"""Builds the pipeline of a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from pipecat.frames.frames import Frame, InputAudioRawFrame, LLMRunFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext, LLMContextMessage
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.websocket.client import WebsocketClientParams
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies

from . import services
from .local_llm import KeyPresses
from .spec import CallSpec
from .transport import CallOutput, CallTransport, EchoOutput
from .vad import voice_activity

INPUT_RATE = 16000
_CANCEL_TIMEOUT = 3.0  # seconds for a processor that does not end; Pipecat's default is 20 s


@dataclass(frozen=True)
class CallPipeline:
    """A worker that is ready to run, and its transport. `greets`: the bot speaks first."""

    worker: PipelineWorker
    transport: CallTransport
    greets: bool

    async def greet(self) -> None:
        """Let the bot speak its greeting, if it has one."""
        if self.greets:
            await self.worker.queue_frame(LLMRunFrame())


class Echo(FrameProcessor):
    """Sends back all audio that comes in."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)


def build(spec: CallSpec) -> CallPipeline:
    """The pipeline for a call. Raises RefusedError if a service is not available."""
    rate = INPUT_RATE if spec.is_echo else services.output_rate(spec)
    transport = _transport(spec, rate)

    async def hang_up() -> None:
        await worker.stop_when_done()  # type: ignore[no-untyped-call]  # Pipecat's

    worker = PipelineWorker(
        Pipeline(_echo(transport) if spec.is_echo else _conversation(spec, transport, hang_up)),
        params=PipelineParams(audio_in_sample_rate=INPUT_RATE, audio_out_sample_rate=rate),
        cancel_timeout_secs=_CANCEL_TIMEOUT,
        idle_timeout_secs=None,  # a call lasts as long as its socket
        enable_turn_tracking=False,
    )
    return CallPipeline(worker, transport, greets=not spec.is_echo)


def _echo(transport: CallTransport) -> list[FrameProcessor]:
    return [transport.input(), Echo(), transport.output()]


def _conversation(
    spec: CallSpec, transport: CallTransport, hang_up: Callable[[], Awaitable[None]]
) -> list[FrameProcessor]:
    aggregators = _aggregators(spec)
    return [
        transport.input(),
        VADProcessor(vad_analyzer=voice_activity(INPUT_RATE, _pauses(spec)[0])),
        services.speech_to_text(spec),
        KeyPresses(),
        aggregators.user(),
        services.language_model(spec, hang_up),
        services.text_to_speech(spec),
        transport.output(),
        aggregators.assistant(),
    ]


def _transport(spec: CallSpec, rate: int) -> CallTransport:
    params = WebsocketClientParams(
        audio_in_enabled=True,
        audio_in_sample_rate=INPUT_RATE,
        audio_out_enabled=True,
        audio_out_sample_rate=rate,
        audio_out_end_silence_secs=0,  # the bridge plays all audio before it hangs up
        add_wav_header=False,
    )
    return CallTransport(spec.urls, params, EchoOutput if spec.is_echo else CallOutput)


def _pauses(spec: CallSpec) -> tuple[float, float]:
    """Seconds of silence that end a segment of speech, and further seconds that end the turn."""
    return (0.4, 0.05) if spec.stt_type == "local" else (0.2, 0.4)


def _aggregators(spec: CallSpec) -> LLMContextAggregatorPair:
    """Aggregators that find turns by voice activity only: Pipecat then loads no turn model."""
    strategies = UserTurnStrategies(
        start=[VADUserTurnStartStrategy()],
        stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=_pauses(spec)[1])],
    )
    return LLMContextAggregatorPair(
        LLMContext(cast(list[LLMContextMessage], list(spec.llm_messages))),
        user_params=LLMUserAggregatorParams(user_turn_strategies=strategies),
    )
