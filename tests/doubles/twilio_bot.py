"""A bot written for Twilio Media Streams, strict about what Twilio's documentation promises it."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.doubles.bot_socket import BotAudio, WebSocketBot

RATE = 8000
FRAME = 160  # octets of 20 ms

GARBAGE: dict[str, tuple[bytes, bool]] = {
    "binary": (b'{"event": "media"}', True),
    "empty": (b"", False),
    "not-json": (b'{"event": "media", ', False),
    "not-object": (b'["media"]', False),
    "event-of-no-string": (b'{"event": 7}', False),
    "media-without-payload": (b'{"event": "media", "media": {}}', False),
    "media-of-no-object": (b'{"event": "media", "media": "AAAA"}', False),
    "bad-base64": (b'{"event": "media", "media": {"payload": "*not base64*"}}', False),
    "mark-without-name": (b'{"event": "mark", "mark": {}}', False),
    "no-event": (b'{"hello": "world"}', False),
    "deep": (b'{"label": "rtvi-ai", "data": ' + b"[" * 3000 + b"]" * 3000 + b"}", False),
    "deeper": (b'{"event": "media", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", False),
    "unknown-command": (b'{"type": "reboot"}', False),
    "wrong-command": (b'{"type": "play_dtmf", "digits": 12}', False),
}
"""Name -> (payload, binary?) of messages that no bot should send."""


def _levels() -> npt.NDArray[np.int16]:
    """The sample of each octet of mu-law, after G.711's formula."""
    bits = ~np.arange(256) & 0xFF
    magnitude = (((bits & 15) * 2 + 33) << (bits >> 4 & 7)) - 33
    return np.where(bits & 0x80, -magnitude * 4, magnitude * 4).astype(np.int16)


LEVELS = _levels()
_ORDER = np.argsort(LEVELS, kind="stable")
_LIMITS = (LEVELS[_ORDER][1:].astype(np.int32) + LEVELS[_ORDER][:-1]) / 2


def to_pcm(octets: bytes) -> bytes:
    """PCM16 of mu-law."""
    return LEVELS[np.frombuffer(octets, np.uint8)].astype("<i2").tobytes()


def to_octets(pcm: bytes) -> bytes:
    """Mu-law of PCM16: for each sample the octet whose level is nearest."""
    return (
        _ORDER[np.searchsorted(_LIMITS, np.frombuffer(pcm, "<i2"), "right")]
        .astype(np.uint8)
        .tobytes()
    )


class TwilioBot(WebSocketBot):
    """A bot on one WebSocket, which the bridge dials. Options are those of WebSocketBot.

    What it was sent is in `start` (its content), `audio` (decoded), `octets` (as they came),
    `digits`, `marks` (those that came back), `beside` (messages without an event), `order` (the
    events); what is not as Twilio has it, in `faults`.
    """

    def __init__(self, reactor: Any, **socket_options: Any) -> None:
        super().__init__(reactor, **socket_options)
        self.start: dict[str, Any] = {}
        self.octets = b""
        self.digits = ""
        self.marks: list[tuple[float, str]] = []
        self.beside: list[dict[str, Any]] = []
        self.order: list[str] = []
        self.stopped = False
        self._awaited: list[str] = []  # marks
        self._sequence = 0
        self._chunk = 0

    @property
    def ready_sent(self) -> bool:
        """Whether it takes audio: there is no other word for it than `start`."""
        return bool(self.start)

    @property
    def stream_sid(self) -> str:
        """As the bridge has named the stream."""
        return str(self.start.get("streamSid", ""))

    @property
    def told(self) -> dict[str, Any]:
        """The custom parameters."""
        told: dict[str, Any] = self.start.get("customParameters", {})
        return told

    @property
    def call_id(self) -> str:
        """The call's id among the custom parameters, else empty."""
        return str(self.told.get("call_id", ""))

    # To the bridge

    def send_json(self, message: Any) -> None:
        """Send any JSON."""
        self.send(json.dumps(message).encode(), False)

    def send_event(self, event: str, **content: Any) -> None:
        """Send an event of the stream, as bots write them."""
        self.send_json({"event": event, "streamSid": self.stream_sid, **content})

    def send_octets(self, octets: bytes) -> None:
        """Send one `media` message, of any length."""
        payload = base64.b64encode(octets).decode()
        self.send_event("media", media={"payload": payload})

    def send_audio(self, pcm: bytes, rate: int = RATE) -> None:
        """Send one `media` message; its rate is Twilio's and cannot be another."""
        if rate != RATE:
            raise ValueError(f"{rate} Hz: expected {RATE}")
        self.send_octets(to_octets(pcm))

    def burst(self, pcm: bytes, rate: int = RATE) -> None:
        """Send `pcm` all at once, in messages of 20 ms."""
        for start in range(0, len(pcm), 2 * FRAME):
            self.send_audio(pcm[start : start + 2 * FRAME], rate)

    def mark(self, name: str) -> None:
        """Ask to be told when what was sent before this has been played."""
        self._awaited.append(name)
        self.send_event("mark", mark={"name": name})

    def interrupt(self) -> None:
        """Barge-in: `clear`."""
        self.send_event("clear")

    def garbage(self, name: str | None = None) -> None:
        """Send one kind of `GARBAGE`, or all of it."""
        for payload, binary in [GARBAGE[name]] if name else GARBAGE.values():
            self.send(payload, binary)

    # From the bridge

    def received(self, source: Any, payload: bytes, binary: bool) -> None:
        """Called by the socket for every message."""
        try:
            if binary:
                raise ValueError("a binary message, where Twilio sends text")
            message = json.loads(payload)
            if not isinstance(message, dict):
                raise ValueError(f"a message that is not an object: {payload[:80]!r}")
            self._got(message)
        except (ValueError, KeyError, TypeError) as error:
            self.faults.append(f"{error} ({payload[:80]!r})")
        self.changed()

    def _got(self, message: dict[str, Any]) -> None:
        event = message.get("event")
        if event is None:
            self.beside.append(message)
            return
        self.order.append(event)
        if self.stopped:
            raise ValueError(f"{event} after stop")
        if len(self.order) == 1:
            _same("the first message", event, "connected")
            _same("protocol", (message["protocol"], message["version"]), ("Call", "1.0.0"))
            return
        if len(self.order) == 2:
            _same("the second message", event, "start")
        self._check_number(message)
        take = getattr(self, f"_got_{event}", None)
        if take is None:
            raise ValueError(f"the event {event}, which Twilio does not send")
        take(message)
        _same("streamSid", message["streamSid"], self.stream_sid)

    def _check_number(self, message: dict[str, Any]) -> None:
        self._sequence += 1
        _same("sequenceNumber", message["sequenceNumber"], str(self._sequence))

    def _got_connected(self, _: dict[str, Any]) -> None:
        raise ValueError("connected once more")

    def _got_start(self, message: dict[str, Any]) -> None:
        if self.start:
            raise ValueError("start once more")
        start = self.start = message["start"]
        _same("tracks", start["tracks"], ["inbound"])
        audio = {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1}
        _same("mediaFormat", start["mediaFormat"], audio)
        for key, begin in (("accountSid", "AC"), ("callSid", "CA"), ("streamSid", "MZ")):
            if not start[key].startswith(begin) or len(start[key]) != 34:
                raise ValueError(f"{key} {start[key]}: expected {begin} and 32 hex digits")
            int(start[key][2:], 16)
        for name, value in start["customParameters"].items():
            _same(f"the type of the parameter {name}", type(value), str)

    def _got_media(self, message: dict[str, Any]) -> None:
        media = message["media"]
        _same("track", media["track"], "inbound")
        _same("timestamp", media["timestamp"], str(self._chunk * 20))
        self._chunk += 1
        _same("chunk", media["chunk"], str(self._chunk))
        try:
            octets = base64.b64decode(media["payload"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"a payload that is not base64: {error}") from None
        self.octets += octets
        self.audio.append(BotAudio(self.clock.seconds(), RATE, 1, to_pcm(octets)))
        if self.echo:
            self.send_octets(octets)
        _same("octets of a payload", len(octets), FRAME)

    def _got_dtmf(self, message: dict[str, Any]) -> None:
        _same("track", message["dtmf"]["track"], "inbound_track")
        self.digits += message["dtmf"]["digit"]

    def _got_mark(self, message: dict[str, Any]) -> None:
        name = message["mark"]["name"]
        self.marks.append((self.clock.seconds(), name))
        expected = self._awaited.pop(0) if self._awaited else "none"
        _same("mark", name, expected)

    def _got_stop(self, message: dict[str, Any]) -> None:
        self.stopped = True
        for key in ("accountSid", "callSid"):
            _same(key, message["stop"][key], self.start[key])
        self.asked_to_end()


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise ValueError(f"{what} {found!r}: expected {expected!r}")
