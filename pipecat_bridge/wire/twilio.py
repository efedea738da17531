"""Twilio Media Streams, as Twilio speaks it to a bot: JSON in text messages, mu-law in base64.

Messages and fields: Twilio's documentation, "Media Streams - WebSocket Messages", of a stream in
both directions (`<Connect><Stream>`); what bots read of it: Pipecat's `TwilioFrameSerializer` and
`parse_telephony_websocket`.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID, uuid5

import msgspec
from msgspec import Struct

from pipecat_bridge.errors import FormatError
from pipecat_bridge.wire import commands, rtvi
from pipecat_bridge.wire.frames import Audio, BotFrame, Interruption, Mark, Message, Nothing
from pipecat_bridge.wire.nesting import MAX_DEPTH, too_deep

RATE: Final = 8000

FRAME_BYTES: Final = 320
"""Of the PCM16 of a `media` message: 20 ms, as Twilio sends them."""

ACCOUNT: Final = "AC" + 32 * "0"
"""There is no account: calls do not come from Twilio."""

_PER_MS: Final = RATE // 1000

_CONTENTS: Final = {
    "media": '{"event": "media", "media": {"payload": "..."}}',
    "mark": '{"event": "mark", "mark": {"name": "..."}}',
}

_NUMBERS: Final = (
    ("from", "from_number", "caller"),
    ("to", "to_number", "called", "dialled"),
)
"""Names of who calls whom: what bots read, by custom and in Pipecat, and what callers write."""

Codec = Callable[[bytes], bytes]


class TwilioError(FormatError):
    """A message that is not one of a bot's in this dialect."""


class _Media(Struct, gc=False):
    payload: bytes  # decoded from base64


class _Named(Struct, gc=False):
    name: str


class _FromBot(Struct):
    event: str = ""
    media: _Media | None = None
    mark: _Named | None = None


_read = msgspec.json.Decoder(_FromBot).decode
_read_any = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode


class TwilioDialect:
    """One stream, of the call with the UUID `call_id`.

    `encode` makes mu-law of mono PCM16, `decode` PCM16 of mu-law. Messages are numbered as they
    are made, so they are to be sent in that order; a `media` message's timestamp, in ms, counts
    the audio before it. `resumption` is that of the bot: each has a stream of its own.
    """

    rate = RATE
    frame_bytes = FRAME_BYTES
    binary = False
    awaits_ready = False

    def __init__(
        self,
        call_id: str,
        metadata: Mapping[str, Any],
        parameters: Mapping[str, Any],
        resumption: int,
        *,
        encode: Codec,
        decode: Codec,
    ) -> None:
        call = UUID(call_id)
        self.call_sid = f"CA{call.hex}"
        self.stream_sid = f"MZ{uuid5(call, f'stream {resumption}').hex}"
        self._custom = custom_parameters(call_id, metadata, parameters, resumption)
        self._encode = encode
        self._decode = decode
        self._sent = 0  # messages that have a number
        self._chunks = 0
        self._samples = 0
        self._media = (
            b'{"event":"media","sequenceNumber":"%%d","media":{"track":"inbound","chunk":"%%d",'
            b'"timestamp":"%%d","payload":"%%b"},"streamSid":"%b"}' % self.stream_sid.encode()
        )

    def opening(self) -> list[bytes]:
        """`connected` and `start`."""
        start = {
            "accountSid": ACCOUNT,
            "streamSid": self.stream_sid,
            "callSid": self.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1},
            "customParameters": self._custom,
        }
        connected = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        return [_write(connected), self._message("start", start)]

    def audio(self, pcm: bytes) -> bytes:
        """A `media` message, of any length."""
        octets = self._encode(pcm)
        self._sent = sent = self._sent + 1
        self._chunks = chunk = self._chunks + 1
        at = self._samples
        self._samples = at + len(octets)
        return self._media % (sent, chunk, at // _PER_MS, b2a_base64(octets, newline=False))

    def digit(self, digit: str) -> list[bytes]:
        """`dtmf`."""
        return [self._message("dtmf", {"track": "inbound_track", "digit": digit})]

    def text(self, content: str, run_immediately: bool, audio_response: bool) -> None:
        """None: Twilio has no way to say it."""
        return

    def played(self, mark: str) -> list[bytes]:
        """The bot's `mark`, sent back."""
        return [self._message("mark", {"name": mark})]

    def closing(self) -> list[bytes]:
        """`stop`."""
        return [self._message("stop", {"accountSid": ACCOUNT, "callSid": self.call_sid})]

    def _message(self, event: str, content: dict[str, Any]) -> bytes:
        self._sent += 1
        return _write(
            {
                "event": event,
                "sequenceNumber": str(self._sent),
                event: content,
                "streamSid": self.stream_sid,
            }
        )

    def decode(self, payload: bytes) -> BotFrame:
        """The frame in one message of the bot's; raises TwilioError.

        JSON without an event that is RTVI or a command is a `Message`: bots send those beside
        Twilio's own (Pipecat writes every message frame as it is).
        """
        try:
            message = _read(payload)
            event = message.event
            if event == "media" and message.media is not None:
                return Audio(self._decode(message.media.payload), RATE, 1)
            if not event:
                return _beside(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TwilioError(f"not a message of Twilio Media Streams: {error}") from None
        except RecursionError:
            raise TwilioError("not a message of Twilio Media Streams: nested too deep") from None
        if event == "clear":
            return Interruption()
        if event == "mark" and message.mark is not None:
            return Mark(message.mark.name)
        if event in _CONTENTS:
            raise TwilioError(f'a {event} message without "{event}": expected {_CONTENTS[event]}')
        return Nothing()


def _beside(payload: bytes) -> Message:
    value = _read_any(payload)
    if value.get("label") != rtvi.LABEL and not commands.is_command(value):
        raise TwilioError(
            'JSON that has no "event" and is neither RTVI nor a command: '
            'expected an "event" of media, mark or clear'
        )
    if too_deep(value):
        raise TwilioError(f"JSON nested deeper than {MAX_DEPTH} levels")
    return Message(payload.decode())


def custom_parameters(
    call_id: str, metadata: Mapping[str, Any], parameters: Mapping[str, Any], resumption: int
) -> dict[str, str]:
    """What a call's bot is to know, as names and strings: Twilio has no other values.

    Keys of services (`llm_key` ...) are left out; who calls whom is there under all names that
    bots read.
    """
    custom = {name: value for name, value in parameters.items() if not name.endswith("_key")}
    custom |= metadata
    for names in _NUMBERS:
        known = next((custom[name] for name in names if custom.get(name)), None)
        if known is not None:
            for name in names[:2]:
                custom[name] = custom.get(name) or known
    custom["call_id"] = call_id
    if resumption:
        custom["resumption"] = resumption
    return {name: _string(value) for name, value in custom.items()}


def _string(value: Any) -> str:
    """`value` in words: text as it is, nothing as nothing, all else in JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else _write(value).decode()
