"""Hostile phones."""

from __future__ import annotations

import time

from tests.hostile import plain
from tests.hostile.bots import block
from tests.hostile.peer import Attack, table
from tests.hostile.plain import AUDIO, AUDIO_192K, DTMF

PEERS, hostile = table("phone")

_ID = "11111111-2222-4333-8444-555555555555"


@hostile
def alternating_kinds(attack: Attack) -> None:
    """Audio at 8 and at 192 kHz in turn, while 30 s of the bot's audio wait."""
    phone = attack.phone(_ID)
    bot = attack.bot(call_id=_ID)
    bot.send(plain.frame(plain.audio(b"\0\x10" * 320)) * (50 * 30))
    phone.drain()
    phone.flood(block(plain.phone(AUDIO_192K, bytes(2)) + plain.phone(AUDIO, bytes(2)), 250))


@hostile
def alternating_before_ready(attack: Attack) -> None:
    """Tiny audio at alternating sample rates, and then the bot is ready."""
    phone = attack.phone(_ID)
    bot = attack.bot(ready=False, call_id=_ID)
    phone.drain()
    phone.send(block(plain.phone(AUDIO_192K, bytes(2)) + plain.phone(AUDIO, bytes(2)), 400_000))
    bot.send(plain.frame(plain.READY))
    phone.flood(block(plain.phone(AUDIO, bytes(2))))


@hostile
def keys(attack: Attack) -> None:
    """A flood of DTMF keys to a bot that is there."""
    phone = attack.phone(_ID)
    attack.bot(call_id=_ID)
    phone.drain()
    phone.flood(block(plain.phone(DTMF, b"5"), 80_000))


@hostile(also=True)
def wrong_keys(attack: Attack) -> None:
    """A flood of DTMF keys that do not exist."""
    phone = attack.phone()
    phone.drain()
    phone.flood(block(plain.phone(DTMF, b"\x1b")))


@hostile
def tiny_audio(attack: Attack) -> None:
    """A flood of audio messages of one sample, to a bot that is there."""
    phone = attack.phone(_ID)
    attack.bot(call_id=_ID)
    phone.drain()
    phone.flood(block(plain.phone(AUDIO, b"\1\1")))


@hostile(also=True)
def odd_audio(attack: Attack) -> None:
    """A flood of audio messages of one byte, and of none."""
    phone = attack.phone()
    phone.drain()
    phone.flood(block(plain.phone(AUDIO, b"x") + plain.phone(AUDIO)))


@hostile
def unknown_kinds(attack: Attack) -> None:
    """A flood of messages of unknown kinds."""
    phone = attack.phone()
    phone.drain()
    phone.flood(block(plain.phone(0x42)))


@hostile
def long_messages(attack: Attack) -> None:
    """Messages of 64 KiB, of an unknown kind and of audio."""
    phone = attack.phone()
    phone.drain()
    phone.flood(plain.phone(0x42, bytes(65_535)) + plain.phone(AUDIO_192K, bytes(65_534)))


@hostile
def too_long_audio(attack: Attack) -> None:
    """Audio messages above the limit, call after call."""
    phone = attack.phone()
    phone.send(plain.phone(AUDIO, bytes(65_534)))
    phone.receive()


@hostile(also=True)
def audio_faster_than_time(attack: Attack) -> None:
    """Audio as fast as it is taken, to a bot that is there."""
    phone = attack.phone(_ID)
    attack.bot(call_id=_ID)
    phone.drain()
    phone.flood(block(plain.phone(AUDIO, bytes(320))))


@hostile
def no_uuid(attack: Attack) -> None:
    """300 phones that say nothing."""
    phones = [attack.wire(attack.ports.phone) for _ in range(300)]
    for phone in phones:
        phone.drain()
    while True:
        phones[0].wait(0.5)


@hostile
def same_uuid(attack: Attack) -> None:
    """The same UUID on new connections in a loop."""
    first = attack.phone(_ID)
    first.drain()
    while True:
        phone = attack.phone(_ID)
        phone.receive()
        phone.close()


@hostile
def does_not_read(attack: Attack) -> None:
    """A phone that reads nothing of its bot's audio."""
    phone = attack.phone(_ID)
    bot = attack.bot(call_id=_ID)
    bot.send(plain.frame(plain.audio(b"\0\x10" * 320)) * (50 * 30))
    while True:
        phone.wait(1.0)


@hostile
def storm(attack: Attack) -> None:
    """Calls that hang up at once, as fast as they are taken."""
    while True:
        phone = attack.phone()
        phone.wait(0.001)
        phone.close()


@hostile(also=True)
def byte_by_byte(attack: Attack) -> None:
    """Audio that comes byte by byte, on 20 phones."""
    phones = [attack.phone() for _ in range(20)]
    for phone in phones:
        phone.drain()
    begun = time.monotonic()
    while begun:
        for byte in plain.phone(AUDIO, bytes(320)):
            for phone in phones:
                phone.send(bytes((byte,)))
