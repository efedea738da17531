"""A Pipecat service for speech recognition without key and network."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncGenerator
from pathlib import Path

from pipecat.frames.frames import Frame, TranscriptionFrame
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.utils.time import time_now_iso8601

from .receptionist import UNCLEAR
from .recogniser import MODEL_RATE, recogniser_for

GRAMMAR = Path(__file__).with_name("receptionist.gram")
_SLOWEST_ANSWER = 1.0  # seconds from the end of a segment to its transcript, on a busy machine


class LocalSTTService(SegmentedSTTService):
    """Recognises speech with pocketsphinx and the receptionist's grammar. The VAD cuts the speech.

    Speech outside the grammar gives the transcript UNCLEAR. Without a transcript the bot would not
    answer, and the caller would wait.
    """

    def __init__(self) -> None:
        super().__init__(
            sample_rate=MODEL_RATE,
            ttfs_p99_latency=_SLOWEST_ANSWER,
            settings=STTSettings(model="en-us", language="en"),
        )
        self._recogniser = recogniser_for(GRAMMAR.read_text())

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame, None]:
        pcm16 = _without_header(audio)
        # In a thread, because recognition of two seconds of speech takes 150 ms of one core.
        text = await asyncio.to_thread(self._recogniser.transcribe, pcm16, self.sample_rate)
        yield TranscriptionFrame(text or UNCLEAR, self._user_id, time_now_iso8601())


def _without_header(audio: bytes) -> bytes:
    """The samples of a segment. Pipecat hands a segment over as a WAV file in memory."""
    if audio[:4] != b"RIFF":
        return audio
    with wave.open(io.BytesIO(audio)) as segment:
        return bytes(segment.readframes(segment.getnframes()))
