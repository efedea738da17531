"""The decoders alone, without a connection: ten times as many inputs in a second as with one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from pipecat_bridge.audio import g711
from pipecat_bridge.audio.pcm import strip_riff
from pipecat_bridge.errors import FormatError
from pipecat_bridge.wire import audiosocket, commands, frames, proxy, rtvi, websocket
from pipecat_bridge.wire.twilio import TwilioDialect
from tests.fuzz import bot
from tests.fuzz.harness import FindingError
from tests.hostile import plain
from tests.unit.bot_side import CALL

_LIMIT: Final = 3000
_TWILIO: Final = TwilioDialect(
    CALL,
    {},
    {},
    0,
    encode=partial(g711.encode, "ulaw"),
    decode=partial(g711.decode, "ulaw"),
)


def _in_two(data: bytes) -> tuple[bytes, bytes]:
    """Where the first byte says."""
    at = (data[:1] or b"\0")[0]
    return data[1 : 1 + at], data[1 + at :]


def _audiosocket(data: bytes) -> None:
    def decoded(*pieces: bytes, most: int = sys.maxsize) -> tuple[list[Any], str]:
        decoder, messages = audiosocket.Decoder(uuid_first=True), []
        try:
            for piece in pieces:
                messages += decoder.feed(piece, most)
                while decoder.more:
                    messages += decoder.feed(b"", most)
        except audiosocket.DecodeError as error:
            return messages + error.messages, str(error)
        return messages, ""

    whole, most = decoded(data[1:]), (sys.maxsize, 1)[len(data) & 1]
    in_pieces = decoded(*_in_two(data), most=most)
    if in_pieces != whole:
        raise FindingError(f"in pieces: {in_pieces}, whole: {whole}")


def _websocket(data: bytes) -> None:
    masked, opcode = bool(data[:1] > b"\x7f"), (websocket.BINARY, websocket.TEXT)[len(data) & 1]

    def plain_frames(*pieces: bytes, most: int = sys.maxsize) -> tuple[bytes, list[bytes]]:
        found: list[websocket.Piece] = []
        decoder = websocket.PlainFrames(_LIMIT, masked, opcode)
        for piece in pieces:
            found += decoder.feed(piece, most)
            while decoder.more:
                found += decoder.feed(b"", most)
        others = b"".join(piece for message, piece in found if not message)
        return others, [piece for message, piece in found if message]

    if len(data) & 2:  # a text of which a part has come goes to Autobahn, so this may differ
        plain_frames(*_in_two(data))
        return
    whole, one_by_one = plain_frames(data[1:]), plain_frames(data[1:], most=1)
    if one_by_one != whole:
        raise FindingError(f"one by one: {one_by_one}, whole: {whole}")


def _frames(data: bytes) -> None:
    frame = frames.decode(data)
    if isinstance(frame, frames.Audio):
        strip_riff(frame.audio)


def _rtvi(data: bytes) -> None:
    rtvi.parse(data.decode("utf-8", "surrogateescape"))


def _commands(data: bytes) -> None:
    value = commands.json_of(data.decode("utf-8", "surrogateescape"))
    told = commands.near_miss(value)
    if len(told) > 500:
        raise FindingError(f"a sentence of {len(told)} characters")
    commands.parse(value)


def _mask(data: bytes) -> None:
    key, payload = data[:4].ljust(4, b"k"), data[4:]
    once = websocket.mask_in_python(payload, key)
    if websocket.mask_in_python(once, key) != payload:
        raise FindingError("masked twice is not what it was")


def _g711(data: bytes) -> None:
    law: Any = g711.CODECS[len(data) % len(g711.CODECS)]
    if len(g711.encode(law, g711.decode(law, data))) != len(data):
        raise FindingError("another length")


DECODERS: Final[tuple[Callable[[bytes], Any], ...]] = (
    _audiosocket,
    _websocket,
    _frames,
    _rtvi,
    _commands,
    _TWILIO.decode,
    proxy.read_header,
    strip_riff,
    _mask,
    _g711,
)

SEEDS: Final = (
    b"\0\1" + plain.phone(1, bytes(16)) + plain.phone(3, b"5") + plain.phone(plain.AUDIO, b"\1\2"),
    b"\1\x81" + plain.frame(b"hello") + plain.frame(b"x" * 300) + plain.frame(b"", plain.PING),
    b"\1\1"
    + plain.frame("\u00e9".encode(), plain.TEXT, masks=False)
    + plain.frame(b"", masks=False),
    b"\2" + plain.audio(bytes(64), 24000),
    b"\2" + plain.audio(plain.wave(2), 8000),
    b"\2" + plain.text("x"),
    b"\2" + plain.transcript("x"),
    *(b"\3" + each for each in bot.RTVI),
    *(b"\4" + each for each in bot.COMMANDS),
    *(b"\5" + each for each in bot.TWILIO),
    b"\6PROXY TCP4 192.0.2.1 192.0.2.2 1024 9092\r\n",
    b"\6\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12),
    b"\7" + plain.wave(2),
    b"\x08key!payload",
    b"\x09\0\xff\x80",
)


def one_input(data: bytes) -> None:
    """The first byte: which decoder. The rest is for it."""
    with suppress(FormatError):
        DECODERS[(data[:1] or b"\0")[0] % len(DECODERS)](data[1:])
