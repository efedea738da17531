"""A bot that sends any messages to its link, in both dialects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from twisted.internet.task import Clock

from pipecat_bridge.audio import g711
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.options import CallerAudioOptions
from pipecat_bridge.runner.link.early import Early
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.wire.pipecat import PipecatDialect
from pipecat_bridge.wire.twilio import TwilioDialect
from tests.fuzz.harness import FindingError, settle
from tests.hostile import plain
from tests.unit.bot_side import CALL, Heard

MOST: Final = 500
"""Messages of an input: that many take time is no fault, `pipecat_bridge.net.slices` sees to it."""


def _field(kind: int, body: bytes) -> bytes:
    """A message of one input: its kind, its length and its body."""
    return bytes((kind,)) + len(body).to_bytes(2, "big") + body


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


RTVI: Final = tuple(
    _json({"label": "rtvi-ai", "type": kind, "id": "1", "data": data})
    for kind, data in {
        "bot-ready": {"version": "1.0.0"},
        "error": {"error": "x", "fatal": True},
        "user-transcription": {"text": "x", "final": True, "timestamp": "", "user_id": ""},
        "bot-output": {"text": "x", "spoken": True, "aggregated_by": "word"},
        "bot-transcription": {"text": "x"},
        "server-message": {"type": "transfer", "target": "support"},
        "bot-started-speaking": {},
        "user-started-speaking": {},
        "metrics": {"ttfb": [{"processor": "x", "value": 0.1}]},
    }.items()
)
COMMANDS: Final = tuple(
    _json(each)
    for each in (
        {"type": "hangup", "reason": "x"},
        {"type": "transfer", "target": "x"},
        {"type": "set", "variables": {"A": "b"}},
        {"type": "play_dtmf", "digits": "12,#"},
        {"type": "setvariable", "x": [[[]]]},
    )
)

TWILIO: Final = tuple(
    _json(each)
    for each in (
        {"event": "media", "media": {"payload": "gICA"}},
        {"event": "mark", "mark": {"name": "x"}},
        {"event": "clear"},
    )
)

SEEDS: Final = (
    b"\1" + b"".join(_field(3, each) for each in (*RTVI, *COMMANDS)),
    b"\0" + b"".join(_field(2, each) for each in COMMANDS),
    b"\1" + _field(1, b"\x3e\x80\0\1" + b"\1\2" * 640) * 3 + _field(5, b""),
    b"\1" + _field(1, b"\x1f\x40\0\2" + plain.wave(2)) + _field(4, b"said"),
    # As much as there may be of it.
    b"\1" + _field(3, b'{"label":"rtvi-ai","type":"x","data":[' + b"1," * 30_000 + b"1]}"),
    b"\0" + _field(2, b"[" * 30_000 + b"]" * 30_000),
    b"\1" + _field(3, b'{"type":' * 8_000),
    b"\1" + _field(1, b"\x3e\x80\0\1" + plain.wave(1, (b"LIST" + bytes(4)) * 8_000)),
    b"\1" + _field(1, b"\0\1\0\1" + bytes(2)) * MOST,
    b"\2" + _field(0, _json({"event": "mark", "mark": {"name": "x"}})) * MOST,
    b"\1" + _field(0, plain.audio(bytes(64), 24000)) + _field(0, plain.text("x")),
    b"\2"
    + b"".join(_field(0, each) for each in TWILIO)
    + b"".join(_field(0, each) for each in (*RTVI, *COMMANDS)),
)


class _Socket:
    """An open WebSocket that takes all."""

    congested = False

    @property
    def outlet(self) -> _Socket:
        return self

    def send(self, payload: bytes) -> None:
        pass

    ping = send

    def pause(self) -> None:
        pass

    resume = pause

    def close(self, code: int, reason: str) -> None:
        if len(reason.encode()) > 123:
            raise ValueError(f"a reason of {len(reason)} characters")


def _messages(data: bytes) -> Iterator[bytes]:
    """Messages as `_field` writes them: as they are, or in one of Pipecat's frames."""
    at = 0
    for _ in range(MOST):
        if at + 3 > len(data):
            return
        kind, size = data[at] % 6, int.from_bytes(data[at + 1 : at + 3], "big")
        body = data[at + 3 : at + 3 + size]
        at += 3 + size
        text = body.decode("utf-8", "replace")
        if kind == 1:
            rate, channels = int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big")
            yield plain.audio(body[4:], rate, channels)
        elif kind == 5:
            yield plain.INTERRUPTION
        else:
            yield (body, b"", plain.text(text), plain.message(text), plain.transcript(text))[kind]


def _dialect(first: int) -> Any:
    if first & 2:
        codecs = {"encode": partial(g711.encode, "ulaw"), "decode": partial(g711.decode, "ulaw")}
        return TwilioDialect(CALL, {}, {}, 0, **codecs)
    return PipecatDialect(16000, "0")


def one_input(data: bytes) -> None:
    """The first byte: the dialect, and whether the bot is ready. The rest: messages."""
    first = (data[:1] or b"\0")[0]
    clock, heard, playout = Clock(), Heard(), Playout()
    early = Early(0.5)
    listener: Any = heard
    link = BotLink(
        CALL,
        clock,
        playout,
        listener,
        listener,
        _dialect(first),
        CallerAudioOptions(),
        early,
        5.0,
        clock.seconds,
    )
    socket: Any = _Socket()
    link.attach(socket, "both")
    if first & 1:
        link.received(plain.READY)
    for message in _messages(data[1:]):
        link.received(message)
        playout.read(clock.seconds())
        clock.advance(0.02)
    link.close()
    settle(clock)
    if "broken" in heard.names:
        raise FindingError(f"the link is broken: {heard.reasons}")
