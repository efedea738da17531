"""Hostile bots."""

from __future__ import annotations

import itertools
import json
import socket
import struct
from typing import Final

from tests.hostile import plain
from tests.hostile.peer import Attack, table
from tests.hostile.plain import CONTINUATION, PING, TEXT, frame

PEERS, hostile = table("bot")

READ: Final = 1 << 16
"""What the bridge reads at once, in bytes."""

LARGEST_FRAME: Final = 1 << 20
LARGEST_MESSAGE: Final = 1 << 22


def block(one: bytes, size: int = READ) -> bytes:
    """`one` again and again, about `size` bytes."""
    return one * max(1, size // len(one))


def in_pieces(payload: bytes, opcode: int = plain.BINARY, size: int = 1 << 19) -> bytes:
    """A message in fragments."""
    starts = range(0, len(payload), size)
    pieces = [payload[start : start + size] for start in starts]
    return b"".join(
        frame(
            piece,
            CONTINUATION if number else opcode,
            plain.FINAL if number == len(pieces) - 1 else 0,
        )
        for number, piece in enumerate(pieces)
    )


# Many


@hostile
def empty_pings(attack: Attack) -> None:
    """A flood of empty pings."""
    attack.bot().flood(block(frame(opcode=PING)))


@hostile
def pings_unread(attack: Attack) -> None:
    """Pings of 125 bytes, and no pong is read."""
    attack.bot(reads=False).flood(block(frame(bytes(125), PING)))


@hostile(also=True)
def pongs(attack: Attack) -> None:
    """A flood of pongs that nobody has asked for."""
    attack.bot().flood(block(frame(b"1", plain.PONG)))


@hostile
def one_byte_texts(attack: Attack) -> None:
    """A flood of text messages of one byte, a kind that the dialect does not have."""
    attack.bot().flood(block(frame(b"x", TEXT)))


@hostile(also=True)
def tiny_binary(attack: Attack) -> None:
    """A flood of binary messages of one byte, which are no protobuf."""
    attack.bot().flood(block(frame(b"\xff")))


@hostile
def tiny_frames(attack: Attack) -> None:
    """A flood of protobuf frames with a text of one letter."""
    attack.bot().flood(block(frame(plain.text("x"))))


@hostile(also=True)
def tiny_audio(attack: Attack) -> None:
    """A flood of audio frames of one sample."""
    attack.bot().flood(block(frame(plain.audio(b"\1\1"))))


@hostile
def interruptions(attack: Attack) -> None:
    """A flood of interruptions."""
    attack.bot().flood(block(frame(plain.INTERRUPTION)))


@hostile(also=True)
def interruptions_and_audio(attack: Attack) -> None:
    """Interruptions, each with a little audio before it."""
    attack.bot().flood(block(frame(plain.audio(bytes(640))) + frame(plain.INTERRUPTION)))


@hostile
def empty_fragments(attack: Attack) -> None:
    """A message of empty fragments without an end."""
    bot = attack.bot()
    bot.send(frame(b"", first=0))
    bot.flood(block(frame(b"", CONTINUATION, 0)))


@hostile(also=True)
def empty_messages(attack: Attack) -> None:
    """A flood of empty messages."""
    attack.bot().flood(block(frame()))


@hostile
def commands(attack: Attack) -> None:
    """A flood of commands: variables with ever new names, and keys to play."""
    bot = attack.bot()
    for number in itertools.count():
        names = {f"NAME_{number}_{each}": "v" * 1000 for each in range(50)}
        bot.send(frame(plain.message({"type": "set", "variables": names})))
        bot.send(block(frame(plain.message({"type": "play_dtmf", "digits": "1" * 64})), 4096))


@hostile(also=True)
def wrong_commands(attack: Attack) -> None:
    """A flood of commands that are misspelt."""
    attack.bot().flood(block(frame(plain.message({"type": "hang_upp", "variables": "x"}))))


@hostile
def escapes_in_labels(attack: Attack) -> None:
    """RTVI messages whose label has terminal escapes, and 35,000 interruptions."""
    bot = attack.bot()
    bot.send(block(frame(plain.message({"label": "\x1b[2J\x1b]0;x\x07", "type": "x"}))))
    bot.send(frame(plain.INTERRUPTION) * 35_000)


@hostile(also=True)
def transcripts(attack: Attack) -> None:
    """A flood of RTVI transcripts of the bot, each of 100 letters."""
    said = {"label": "rtvi-ai", "type": "bot-transcription", "data": {"text": "x" * 100}}
    attack.bot().flood(block(frame(plain.message(said))))


# Large


@hostile
def largest_frame(attack: Attack) -> None:
    """Audio in frames of as many bytes as are allowed, 1 MiB, again and again."""
    pcm = bytes(LARGEST_FRAME - 64)
    attack.bot().flood(frame(plain.audio(pcm)))


@hostile
def largest_message(attack: Attack) -> None:
    """Audio in messages of as many bytes as are allowed, 4 MiB in fragments."""
    attack.bot().flood(in_pieces(plain.audio(bytes(LARGEST_MESSAGE - 64))))


@hostile
def too_large(attack: Attack) -> None:
    """A frame of one byte more than is allowed."""
    attack.bot().flood(frame(bytes(LARGEST_FRAME + 1)))


@hostile
def too_large_and_pings(attack: Attack) -> None:
    """The same, and behind it a flood of empty pings."""
    attack.bot().flood(frame(bytes(LARGEST_FRAME + 1)) + block(frame(opcode=PING)))


@hostile(also=True)
def too_large_in_pieces(attack: Attack) -> None:
    """A message of fragments without an end, each of 64 KiB."""
    bot = attack.bot()
    bot.send(frame(b"x", first=0))
    bot.flood(frame(bytes(READ), CONTINUATION, 0))


@hostile
def frames_of_all_kinds(attack: Attack) -> None:
    """A message with a million frames in it, each in place of the one before."""
    attack.bot().flood(in_pieces(b"\x12\0\x0a\0" * (LARGEST_MESSAGE // 4)))


@hostile
def byte_by_byte(attack: Attack) -> None:
    """Messages in fragments of one byte, each byte sent alone."""
    bot = attack.bot()
    stream = in_pieces(plain.audio(bytes(64)), size=1)
    while True:
        for byte in stream:
            bot.send(bytes((byte,)))


@hostile
def long_audio(attack: Attack) -> None:
    """Audio of 120 s at once, in messages of 20 ms, interrupted, and again."""
    bot = attack.bot()
    one = frame(plain.audio(b"\x00\x10" * 320))
    bot.flood(one * (50 * 120) + frame(plain.INTERRUPTION))


@hostile
def numbers_in_a_message(attack: Attack) -> None:
    """Messages of 1 and of 4 MB of JSON numbers."""
    small, large = ("[" + "1," * (size // 2) + "1]" for size in (1_000_000, 4_000_000))
    message = frame(plain.message(small)) + in_pieces(plain.message(large))
    attack.bot().flood(message)


@hostile
def numbers_in_a_text(attack: Attack) -> None:
    """Texts of 1 and of 4 MB of JSON numbers."""
    small, large = ("[" + "1," * (size // 2) + "1]" for size in (1_000_000, 4_000_000))
    attack.bot().flood(frame(plain.text(small)) + in_pieces(plain.text(large)))


@hostile
def numbers_up_to_the_bound(attack: Attack) -> None:
    """Messages of JSON numbers that are just as long as a text may be, 64 Ki characters."""
    numbers = '{"label":"rtvi-ai","type":"server-message","data":[' + "1," * 32_000 + "1]}"
    attack.bot().flood(frame(plain.message(numbers)))


@hostile
def deep_nesting(attack: Attack) -> None:
    """JSON that is nested 200,000 deep, and 30,000 deep."""
    attack.bot().flood(
        frame(plain.message("[" * 200_000 + "]" * 200_000))
        + frame(plain.message("[" * 30_000 + "]" * 30_000))
        + frame(plain.text('{"type":' * 8_000))
    )


# Wrong


@hostile
def four_billion_channels(attack: Attack) -> None:
    """Audio of 4,000,000,000 channels."""
    attack.bot().flood(block(frame(plain.audio(bytes(640), channels=4_000_000_000))))


@hostile
def nine_channels(attack: Attack) -> None:
    """Audio of nine channels, and of one to eight in turn."""
    one = b"".join(frame(plain.audio(bytes(721), channels=each)) for each in range(1, 10))
    attack.bot().flood(block(one))


@hostile
def wave_of_65535_channels(attack: Attack) -> None:
    """WAVE headers that name 65,535 channels."""
    attack.bot().flood(block(frame(plain.audio(plain.wave(65_535)))))


@hostile
def wave_of_empty_chunks(attack: Attack) -> None:
    """WAVE headers with 64 KiB, and 1 MB, of chunks of no bytes."""
    chunk = b"LIST" + bytes(4)
    short, long = (plain.wave(1, chunk * (size // 8)) for size in (READ - 256, 1_000_000))
    attack.bot().flood(block(frame(plain.audio(short))) * 16 + frame(plain.audio(long)))


@hostile(also=True)
def wave_in_rows_of_data(attack: Attack) -> None:
    """Audio whose data chunk is followed by 1 MB of chunks of no bytes."""
    audio = plain.wave(1, pcm=bytes(64)) + (b"LIST" + bytes(4)) * 125_000
    attack.bot().flood(frame(plain.audio(audio)))


@hostile
def sample_rates(attack: Attack) -> None:
    """Audio at 470 sample rates in turn."""
    rates = range(8000, 8000 + 470 * 97, 97)
    attack.bot().flood(b"".join(frame(plain.audio(bytes(640), rate)) for rate in rates))


@hostile(also=True)
def odd_sample_rates(attack: Attack) -> None:
    """Audio at sample rates that share no factor with the phone's, and at absurd ones."""
    rates = (1, 7, 7993, 44101, 47999, 191_999, 4_000_000_000)
    attack.bot().flood(block(b"".join(frame(plain.audio(bytes(640), rate)) for rate in rates)))


@hostile
def bad_utf8(attack: Attack) -> None:
    """Text messages that are not UTF-8."""
    attack.bot().flood(block(frame(b"\xff\xfe", TEXT)))


@hostile
def reserved_bits(attack: Attack) -> None:
    """Frames with reserved bits."""
    attack.bot().flood(block(frame(b"x", first=0xF0)))


@hostile
def not_masked(attack: Attack) -> None:
    """Frames of a client that are not masked."""
    attack.bot().flood(block(frame(b"x", masks=False)))


@hostile
def close_then_audio(attack: Attack) -> None:
    """A close, and audio after it."""
    bot = attack.bot()
    bot.send(frame(struct.pack(">H", 1000), plain.CLOSE))
    bot.flood(block(frame(plain.audio(bytes(640)))))


# Waiting


@hostile
def does_not_read(attack: Attack) -> None:
    """A bot that reads nothing of what it gets."""
    bot = attack.bot(reads=False)
    while True:
        bot.wait(1.0)


@hostile
def half_open(attack: Attack) -> None:
    """A bot that has closed its way to the bridge, and stays; 20 at once."""
    bots = [attack.bot() for _ in range(20)]
    for bot in bots:
        bot.socket.shutdown(socket.SHUT_WR)
    while True:
        bots[0].wait(0.5)


@hostile(also=True)
def half_a_frame(attack: Attack) -> None:
    """Headers that announce a frame of 1 MiB, and a byte of it every 10 ms, on 20 calls."""
    bots = [attack.bot() for _ in range(20)]
    for bot in bots:
        bot.send(frame(bytes(LARGEST_FRAME))[:14])
    while True:
        for bot in bots:
            bot.send(b"x")
        bots[0].wait(0.01)


@hostile
def texts_before_ready(attack: Attack) -> None:
    """A flood of texts by a bot that is not ready."""
    attack.bot(ready=False).flood(block(frame(plain.text("word"))))


@hostile
def lists_before_ready(attack: Attack) -> None:
    """As many empty lists as are held of a bot that is not ready, and then it is ready."""
    lists = json.dumps({"label": "rtvi-ai", "type": "x", "id": "1", "data": [[]] * 13_000})
    while True:
        bot = attack.bot(ready=False)
        bot.send(frame(plain.message(lists)) * 40 + frame(plain.READY))
        bot.wait(0.5)
        bot.close()


@hostile(also=True)
def numbers_before_ready(attack: Attack) -> None:
    """Long messages by a bot that is not ready."""
    numbers = "[" + "1," * 450_000 + "1]"
    attack.bot(ready=False).flood(frame(plain.message(numbers)) + frame(plain.text(numbers)))


# Handshakes


@hostile
def reconnects(attack: Attack) -> None:
    """Connects to the URL of its call in a loop, while it is connected."""
    url = attack.bot_url()
    while True:
        bot = attack.wire(attack.ports.dialback)
        bot.send(plain.request(url))
        bot.head()
        bot.close()


@hostile(also=True)
def reconnects_to_nowhere(attack: Attack) -> None:
    """Connects to URLs of no call, with terminal escapes in them, in a loop."""
    for number in itertools.count():
        bot = attack.wire(attack.ports.dialback)
        bot.send(plain.request(f"ws://127.0.0.1/%1b[2J{number}/ws/{'x' * 200}"))
        bot.head()
        bot.close()


@hostile
def endless_request(attack: Attack) -> None:
    """Opening handshakes without an end, on 12 sockets."""
    wires = []
    line = b"X-Padding: " + b"x" * 1000 + b"\r\n"
    for _ in range(12):
        wires.append(attack.wire(attack.ports.dialback))
        wires[-1].send(b"GET / HTTP/1.1\r\n")
    while True:
        for wire in wires:
            wire.send(line * 60)


@hostile
def request_byte_by_byte(attack: Attack) -> None:
    """Opening handshakes that come byte by byte, on 50 sockets."""
    wires = [attack.wire(attack.ports.dialback) for _ in range(50)]
    for byte in itertools.cycle(plain.request("ws://127.0.0.1/x/ws")[:-2]):
        for wire in wires:
            wire.send(bytes((byte,)))


@hostile(mode="twilio")
def endless_answer(attack: Attack) -> None:
    """An answer to the bridge's opening handshake without an end."""
    wire = attack.dialled()
    wire.send(b"HTTP/1.1 101 Switching Protocols\r\n")
    wire.flood((b"X-Padding: " + b"x" * 1000 + b"\r\n") * 60)


@hostile(mode="twilio", also=True)
def answer_byte_by_byte(attack: Attack) -> None:
    """An answer to the bridge's opening handshake that comes byte by byte."""
    wires = [attack.dialled() for _ in range(10)]
    for byte in itertools.cycle(b"HTTP/1.1 101 Switching Protocols\r\nX: x\r\n"):
        for wire in wires:
            wire.send(bytes((byte,)))


# Twilio's dialect


def _texts(*messages: object) -> bytes:
    return b"".join(frame(json.dumps(each).encode(), TEXT, masks=False) for each in messages)


@hostile(mode="twilio")
def endless_marks(attack: Attack) -> None:
    """Marks with long names behind 100 s of audio, in Twilio's dialect."""
    bot = attack.bot()
    media = {"event": "media", "media": {"payload": "gICA" * 2000}}
    bot.send(_texts(media) * 130)
    for number in itertools.count():
        name = f"{number} " + "x" * 10_000
        bot.send(_texts({"event": "mark", "mark": {"name": name}}))


@hostile(mode="twilio", also=True)
def marks_unread(attack: Attack) -> None:
    """Marks that are played at once by a bot that reads nothing."""
    name = {"event": "mark", "mark": {"name": "x" * 1000}}
    attack.bot(reads=False).flood(block(_texts(name)))


@hostile(mode="twilio", also=True)
def clears(attack: Attack) -> None:
    """A flood of `clear`."""
    attack.bot().flood(block(_texts({"event": "clear"})))


@hostile(mode="twilio", also=True)
def tiny_media(attack: Attack) -> None:
    """A flood of media of three octets."""
    attack.bot().flood(block(_texts({"event": "media", "media": {"payload": "gICA"}})))


@hostile(mode="twilio", also=True)
def unknown_events(attack: Attack) -> None:
    """A flood of events that Twilio does not have, and of JSON that has none."""
    attack.bot().flood(block(_texts({"event": "x"}, {"x": 1}, [])))


@hostile(mode="twilio")
def numbers_in_an_event(attack: Attack) -> None:
    """Messages of 1 MB of JSON numbers, with an event and without."""
    numbers = [1] * 300_000
    attack.bot().flood(_texts({"event": "media", "x": numbers}, {"label": "rtvi-ai", "x": numbers}))


@hostile(also=True)
def calls_in_a_loop(attack: Attack) -> None:
    """Bots that say that they are ready and leave, call after call."""
    while True:
        bot = attack.bot()
        bot.wait(0.01)
        bot.close()
