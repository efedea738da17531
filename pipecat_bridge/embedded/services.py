"""Makes the services that `stt_type`, `llm_type` and `tts_type` of a call name.

`local` needs no key and no package. The others are services of Pipecat, imported when a call first
needs them. If a key or a package is missing, the answer to `/run` says so.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

from pipecat.processors.frame_processor import FrameProcessor

from .espeak import Espeak, SpeechError
from .spec import CallSpec, RefusedError

LOCAL_RATE = 22050  # espeak-ng's rate
CLOUD_RATE = 24000  # Pipecat's default
_ENGLISH = ("", "en", "en-us", "en-gb")


def load_local() -> None:
    """Load the models of the local services, so that the first call starts as fast as others."""
    from .local_stt import LocalSTTService
    from .local_tts import LocalTTSService
    from .recogniser import MODEL_RATE
    from .vad import voice_activity

    LocalSTTService()
    LocalTTSService()
    voice_activity(MODEL_RATE, stop_seconds=0.0)


def speech_to_text(spec: CallSpec) -> FrameProcessor:
    """The recogniser of a call. Raises RefusedError."""
    if spec.stt_type == "local":
        if spec.stt_language.lower() not in _ENGLISH:
            raise RefusedError(
                400,
                f'stt_language is "{spec.stt_language}" and the local recogniser knows English '
                "only; use en, or another stt_type",
            )
        return _class("local_stt", "LocalSTTService", package=__package__)()
    if spec.stt_type == "deepgram":
        key = _key("DEEPGRAM_API_KEY", "stt_type", "deepgram")
        service = _class("pipecat.services.deepgram.stt", "DeepgramSTTService", extra="deepgram")
        return service(api_key=key, **_settings(service, language=spec.stt_language))
    raise _unknown("stt_type", spec.stt_type, "local or deepgram")


def language_model(spec: CallSpec, hang_up: Callable[[], Awaitable[None]]) -> FrameProcessor:
    """The language model of a call. The local bot calls `hang_up` to end the call. Raises
    RefusedError."""
    if spec.llm_type == "local":
        from .receptionist import Receptionist

        name = spec.metadata.get("caller_name")
        receptionist = Receptionist(caller_name=name if isinstance(name, str) else None)
        service = _class("local_llm", "LocalLLM", package=__package__)
        return service(receptionist, hang_up)
    vendor, _, model = spec.llm_type.partition(".")
    if vendor == "openai" and model:
        key = spec.llm_key or _key("OPENAI_API_KEY", "llm_type", spec.llm_type)
        service = _class("pipecat.services.openai.llm", "OpenAILLMService", extra="openai")
        return service(api_key=key, **_settings(service, model=model))
    raise _unknown("llm_type", spec.llm_type, "local, echo or openai.MODEL")


def text_to_speech(spec: CallSpec) -> FrameProcessor:
    """The voice of a call. Raises RefusedError."""
    if spec.tts_type == "local":
        return _class("local_tts", "LocalTTSService", package=__package__)(_local_voice(spec))
    voice = {"voice": spec.tts_voice_id, "language": spec.tts_language}
    if spec.tts_type == "cartesia":
        key = _key("CARTESIA_API_KEY", "tts_type", "cartesia")
        service = _class("pipecat.services.cartesia.tts", "CartesiaTTSService", extra="cartesia")
    elif spec.tts_type == "elevenlabs":
        key = _key("ELEVENLABS_API_KEY", "tts_type", "elevenlabs")
        module = "pipecat.services.elevenlabs.tts"
        service = _class(module, "ElevenLabsTTSService", extra="elevenlabs")
    else:
        raise _unknown("tts_type", spec.tts_type, "local, cartesia or elevenlabs")
    if not spec.tts_voice_id:
        sentence = f"tts_voice_id is missing; {spec.tts_type} needs one of its voice ids"
        raise RefusedError(400, sentence)
    return service(api_key=key, **_settings(service, **voice))


def output_rate(spec: CallSpec) -> int:
    """Samples per second that the bot sends. It is the rate of the voice, so the runner does not
    resample."""
    return LOCAL_RATE if spec.tts_type == "local" else CLOUD_RATE


def _local_voice(spec: CallSpec) -> str:
    voice = spec.tts_voice_id or spec.tts_language.lower() or "en-us"
    try:
        Espeak().check_voice(voice)
    except SpeechError as error:
        raise RefusedError(400, str(error)) from error
    return voice


def _key(variable: str, name: str, value: str) -> str:
    if key := os.environ.get(variable, "").strip():
        return key
    raise RefusedError(
        424, f"{name} {value} needs a key; set {variable} in the environment of the runner"
    )


def _class(
    module: str, name: str, *, package: str | None = None, extra: str = "bot"
) -> Callable[..., FrameProcessor]:
    """Import the class of a service. Raises RefusedError with the extra to install if a package is
    missing."""
    try:
        found = importlib.import_module(f".{module}" if package else module, package)
    except ImportError as error:
        source = "pipecat-bridge" if package else "pipecat-ai"
        raise RefusedError(
            424, f"{name} cannot be loaded ({error}); pip install '{source}[{extra}]'"
        ) from error
    service: Callable[..., FrameProcessor] = getattr(found, name)
    return service


def _settings(service: Any, **values: str) -> dict[str, Any]:
    """The `settings` argument of a Pipecat service, without empty values."""
    given = {name: value for name, value in values.items() if value}
    return {"settings": service.Settings(**given)} if given else {}


def _unknown(name: str, value: str, expected: str) -> RefusedError:
    return RefusedError(400, f'{name} is "{value}"; expected {expected}')
