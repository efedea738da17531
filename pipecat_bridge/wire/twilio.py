"""Twilio Media Streams, as Twilio speaks it to a bot: JSON in text messages, mu-law in base64.

Messages and fields are those of Twilio's documentation, "Media Streams - WebSocket Messages", for a
stream in both directions (`<Connect><Stream>`). Pipecat's `TwilioFrameSerializer` and
`parse_telephony_websocket` show which of them bots read.
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
from pipecat_bridge.wire.frames import (
    Audio,
    BotFrame,
    Interruption,
    Mark,
    Message,
    Nothing,
    check_length,
)
from pipecat_bridge.wire.nesting import MAX_DEPTH, too_deep

RATE: Final = 8000

FRAME_BYTES: Final = 320
"""Bytes of PCM16 in a `media` message: 20 ms, as Twilio sends it."""

ACCOUNT: Final = "AC" + 32 * "0"
"""A placeholder: calls do not come from Twilio, so there is no account."""

LONGEST_MARK: Final = 256
"""Characters of a mark's name. A thousand of them may wait, and each is sent back."""

_PER_MS: Final = RATE // 1000

_CONTENTS: Final = {
    "media": '{"event": "media", "media": {"payload": "..."}}',
    "mark": '{"event": "mark", "mark": {"name": "..."}}',
}

_NUMBERS: Final = (
    ("from", "from_number", "caller"),
    ("to", "to_number", "called", "dialled"),
)
"""Names for the number of the caller, and for the called number. Bots read the first two names of
each row. Dialplans and clients of the API use any of them."""

Codec = Callable[[bytes], bytes]


class TwilioError(FormatError):
    """A message that a bot cannot send in this dialect."""


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
    """The stream of one bot, in the call with the UUID `call_id`.

    `encode` turns mono PCM16 into mu-law, `decode` turns mu-law into PCM16. Messages are numbered
    when they are made, so they must be sent in that order. The timestamp of a `media` message is
    the length of the audio before it, in ms. Each bot of a call has a stream id of its own, which
    follows from `resumption`.
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
        """The messages `connected` and `start`."""
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
        """A `media` message with `pcm`, which may have any length."""
        octets = self._encode(pcm)
        self._sent = sent = self._sent + 1
        self._chunks = chunk = self._chunks + 1
        at = self._samples
        self._samples = at + len(octets)
        return self._media % (sent, chunk, at // _PER_MS, b2a_base64(octets, newline=False))

    def digit(self, digit: str) -> list[bytes]:
        """A `dtmf` message."""
        return [self._message("dtmf", {"track": "inbound_track", "digit": digit})]

    def text(self, content: str, run_immediately: bool, audio_response: bool) -> None:
        """None: Twilio's protocol cannot carry text to a bot."""
        return

    def played(self, mark: str) -> list[bytes]:
        """The bot's `mark`, sent back."""
        return [self._message("mark", {"name": mark})]

    def closing(self) -> list[bytes]:
        """A `stop` message."""
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
        """The frame in one message from the bot. Raises TwilioError.

        RTVI and commands, which have no `event`, become a `Message`: bots send them beside Twilio's
        messages (Pipecat writes every message frame unchanged).
        """
        try:
            message = _read(payload)
            event = message.event
            if event == "media" and message.media is not None:
                return Audio(self._decode(message.media.payload), RATE, 1)
            check_length(len(payload))
            if not event:
                return _beside(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TwilioError(f"not a message of Twilio Media Streams: {error}") from None
        except RecursionError:
            raise TwilioError("not a message of Twilio Media Streams: nested too deep") from None
        if event == "clear":
            return Interruption()
        if event == "mark" and message.mark is not None:
            return _mark(message.mark.name)
        if event in _CONTENTS:
            raise TwilioError(f'a {event} message without "{event}": expected {_CONTENTS[event]}')
        return Nothing()


def _mark(name: str) -> Mark:
    if len(name) > LONGEST_MARK:
        raise TwilioError(f"a mark with a name of {len(name)} characters: at most {LONGEST_MARK}")
    return Mark(name)


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
    """What a bot gets to know about its call. All values are strings: Twilio has no other type.

    Keys of services (`llm_key` ...) are left out. The numbers of the caller and of the called party
    are there under all names that bots read.
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
    """`value` as a string: text unchanged, None as "", anything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else _write(value).decode()
