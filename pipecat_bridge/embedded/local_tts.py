"""A Pipecat service for text to speech without key and network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from pipecat.frames.frames import Frame, TTSAudioRawFrame
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService

from .espeak import Espeak

DEFAULT_VOICE = "en-us"
_CHUNK_SECONDS = 0.2


class LocalTTSService(TTSService):
    """Speaks one sentence at a time with espeak-ng, in a thread: 4 s of speech take 20 ms."""

    def __init__(self, voice: str = DEFAULT_VOICE) -> None:
        self._espeak = Espeak()
        self._voice = voice
        super().__init__(
            sample_rate=self._espeak.rate,
            push_start_frame=True,
            push_stop_frames=True,
            settings=TTSSettings(model=None, voice=voice, language=None),
        )

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame, None]:
        pcm16, rate = await asyncio.to_thread(self._espeak.synthesize, text, self._voice)
        size = int(rate * _CHUNK_SECONDS) * 2
        for start in range(0, len(pcm16), size):
            chunk = pcm16[start : start + size]
            yield TTSAudioRawFrame(chunk, rate, 1, context_id=context_id)
