"""Text to speech with espeak-ng, from the library in the package espeakng-loader.

This module does not use Pipecat: the demonstration uses the same voice for its caller.
"""

from __future__ import annotations

import ctypes
import threading
from typing import ClassVar

_RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL: samples go to the callback, nothing is played
_UTF8 = 1  # espeakCHARS_UTF8
_OK = 0
_RATE_PARAMETER = 1  # espeakRATE
_BUFFER_MILLISECONDS = 200
_MIN_WPM, _MAX_WPM = 80, 450  # the limits of espeakRATE

_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class SpeechError(Exception):
    """espeak-ng is missing, or refused a voice or a text."""


class Espeak:
    """The espeak-ng library of this process.

    The library keeps its state in globals, so one lock guards every use. Instances are cheap and
    share the loaded library. Other threads can run Python code while a call synthesises.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _library: ClassVar[ctypes.CDLL | None] = None
    _rate: ClassVar[int] = 0
    _chunks: ClassVar[list[bytes]] = []

    def __init__(self) -> None:
        with self._lock:
            if Espeak._library is None:
                Espeak._library = self._load()

    @property
    def rate(self) -> int:
        """Samples per second that `synthesize` returns: 22050 for every voice in the package."""
        return self._rate

    def synthesize(self, text: str, voice: str = "en", rate_wpm: int = 160) -> tuple[bytes, int]:
        """Return mono 16-bit little-endian samples that speak `text`, and their rate in Hz.

        `voice`: an espeak-ng voice or language ("en", "en-us", "de", "en+f3"). `rate_wpm`: words
        per minute, 80 to 450. Raises SpeechError if the voice does not exist, and ValueError if
        `rate_wpm` is outside the limits.
        """
        if not _MIN_WPM <= rate_wpm <= _MAX_WPM:
            raise ValueError(f"rate_wpm is {rate_wpm}; expected {_MIN_WPM} to {_MAX_WPM}")
        with self._lock:
            library = self._with_voice(voice)
            library.espeak_SetParameter(_RATE_PARAMETER, rate_wpm, 0)
            return self._speak(library, text), self._rate

    def check_voice(self, voice: str) -> None:
        """Raise SpeechError if espeak-ng has no such voice."""
        with self._lock:
            self._with_voice(voice)

    @classmethod
    def _with_voice(cls, voice: str) -> ctypes.CDLL:
        """Set the library to a voice, and return the library. The caller must hold the lock."""
        if cls._library is None:
            raise SpeechError("espeak-ng is not loaded")
        if cls._library.espeak_SetVoiceByName(voice.encode()) != _OK:
            raise SpeechError(
                f'espeak-ng has no voice "{voice}"; expected a language such as "en" or "de"'
            )
        return cls._library

    @classmethod
    def _load(cls) -> ctypes.CDLL:
        try:
            import espeakng_loader
        except ImportError as error:
            raise SpeechError(
                "the package espeakng-loader is missing: pip install '.[bot]' in the checkout"
            ) from error
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        rate = library.espeak_Initialize(_RETRIEVAL, _BUFFER_MILLISECONDS, data, 0)
        if rate <= 0:
            raise SpeechError(f"espeak-ng did not start with the voices in {data.decode()}")
        cls._rate = rate
        library.espeak_SetSynthCallback(_keep_callback)
        return library

    @classmethod
    def _speak(cls, library: ctypes.CDLL, text: str) -> bytes:
        data = text.encode()
        cls._chunks.clear()
        result = library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        if result != _OK:
            raise SpeechError(
                f"espeak-ng failed with status {result} on a text of {len(data)} bytes"
            )
        pcm = b"".join(cls._chunks)
        cls._chunks.clear()
        return pcm


def _keep(samples: int | None, count: int, _events: int | None) -> int:
    """Keep the samples that espeak-ng hands over. Returns 0: espeak-ng should go on."""
    if samples and count > 0:
        Espeak._chunks.append(ctypes.string_at(samples, count * 2))
    return 0


_keep_callback = _SynthCallback(_keep)  # must not be freed before the library
