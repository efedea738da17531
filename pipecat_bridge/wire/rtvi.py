"""RTVI, the JSON messages beside the audio: decodes those of bots, and encodes ours.

Types and fields are those of Pipecat's `processors/frameworks/rtvi/models.py`, protocol 1.x and
2.x.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import msgspec
from msgspec import Struct

from pipecat_bridge.errors import FormatError
from pipecat_bridge.wire.nesting import MAX_DEPTH, too_deep

LABEL: Final = "rtvi-ai"

VERSION: Final = "1.2.0"
"""The protocol version that the bridge announces. Bots of protocol 1 and 2 accept 1.x."""


class RTVIError(FormatError):
    """A message that is not RTVI."""


class Event(Struct, frozen=True):
    """An event that the bot reports. Subclasses are named after the type of the message."""


class BotReady(Event, frozen=True):
    """The pipeline runs: audio may be sent."""

    version: str = ""


class BotInterrupted(Event, frozen=True):
    """The caller barged in: bot audio sent before this is stale."""


class UserTranscription(Event, frozen=True):
    """What the caller said. `final`: the text will not change any more."""

    text: str
    final: bool = True
    timestamp: str = ""
    user_id: str = ""


class BotTranscription(Event, frozen=True):
    """A sentence of what the bot says."""

    text: str


class BotOutput(Event, frozen=True):
    """Text that the bot outputs, spoken or not."""

    text: str
    spoken: bool = False


class BotLLMText(Event, frozen=True):
    """A token of the language model's answer."""

    text: str


class BotLLMStarted(Event, frozen=True):
    """The language model begins to answer."""


class BotLLMStopped(Event, frozen=True):
    """The language model has finished its answer."""


class BotStartedSpeaking(Event, frozen=True):
    """The bot begins to speak."""


class BotStoppedSpeaking(Event, frozen=True):
    """The bot stops speaking."""


class UserStartedSpeaking(Event, frozen=True):
    """The bot hears that the caller begins to speak."""


class UserStoppedSpeaking(Event, frozen=True):
    """The bot hears that the caller stops speaking."""


class Metrics(Event, frozen=True):
    """The bot's own measurements, unchanged."""

    values: dict[str, Any]


class BotError(Event, frozen=True):
    """An error in the bot. After a fatal error, its pipeline has stopped."""

    error: str
    fatal: bool = False


class ServerMessage(Event, frozen=True):
    """A message that the author of the bot defines."""

    data: Any


class Other(Event, frozen=True):
    """A message of a type that has no class here."""

    type: str
    data: Any


_EVENTS: Final[dict[str, type[Event]]] = {
    "bot-ready": BotReady,
    "bot-interrupted": BotInterrupted,
    "user-transcription": UserTranscription,
    "bot-transcription": BotTranscription,
    "bot-output": BotOutput,
    "bot-llm-text": BotLLMText,
    "bot-llm-started": BotLLMStarted,
    "bot-llm-stopped": BotLLMStopped,
    "bot-started-speaking": BotStartedSpeaking,
    "bot-stopped-speaking": BotStoppedSpeaking,
    "user-started-speaking": UserStartedSpeaking,
    "user-stopped-speaking": UserStoppedSpeaking,
    "error": BotError,
}


class _Envelope(Struct):
    type: str
    label: str = ""
    data: Any = None


_decode = msgspec.json.Decoder().decode


def parse(text: str) -> Event:
    """The event in one message. Raises `RTVIError`."""
    try:
        return read(_decode(text))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise RTVIError(f"not an RTVI message: {error}") from None


def read(value: object) -> Event:
    """The event in a message, which is decoded already. Raises `RTVIError`."""
    try:
        envelope = msgspec.convert(value, _Envelope)
    except msgspec.ValidationError as error:
        raise RTVIError(f"not an RTVI message: {error}") from None
    if envelope.label != LABEL:
        raise RTVIError(f'label "{envelope.label[:40]}" where "{LABEL}" is expected')
    if too_deep(envelope.data):
        raise RTVIError(f"RTVI data nested deeper than {MAX_DEPTH} levels")
    return _event(envelope.type, envelope.data)


def _event(kind: str, data: Any) -> Event:
    if kind == "metrics" and isinstance(data, dict):
        return Metrics(data)
    if kind == "server-message":
        return ServerMessage(data)
    shape = _EVENTS.get(kind)
    if shape is None:
        return Other(kind, data)
    if isinstance(data, dict):  # Pipecat sends a missing value as null, or leaves it out
        data = {name: value for name, value in data.items() if value is not None}
    try:
        return msgspec.convert(data or {}, shape)
    except msgspec.ValidationError as error:
        raise RTVIError(f"RTVI message {kind}: {error}") from None


_numbers = itertools.count(1)


def _build(kind: str, data: Any = None) -> str:
    message = {"label": LABEL, "type": kind, "id": str(next(_numbers)), "data": data}
    return msgspec.json.encode(message).decode()


def client_ready(library_version: str) -> str:
    """The first message to a bot, which answers with `bot-ready` once its pipeline runs."""
    about = {"library": "pipecat-bridge", "library_version": library_version}
    return _build("client-ready", {"version": VERSION, "about": about})


def send_text(content: str, *, run_immediately: bool = True, audio_response: bool = True) -> str:
    """Text for the bot, as if the caller had typed it."""
    options = {"run_immediately": run_immediately, "audio_response": audio_response}
    return _build("send-text", {"content": content, "options": options})


def dtmf(digit: str) -> str:
    """A key that the caller pressed: `buttons` is for Pipecat 1.6 and later, `button` for 1.5."""
    return _build("dtmf", {"buttons": [digit], "button": digit})


def client_message(kind: str, data: Any) -> str:
    """A message of type `kind`, which the bridge defines and the code of the bot can read."""
    return _build("client-message", {"t": kind, "d": data})


def disconnect_bot() -> str:
    """Asks the bot to end normally."""
    return _build("disconnect-bot")
