"""Changes inputs of a corpus at random. Without coverage a target is some ten times as fast, so
this gives it many more inputs that are like those which a guided run has found."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from tests.fuzz.harness import LONGEST_INPUT

EXTREMES: Final = (
    b"\0",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x80\0\0\0\0\0\0\0",
)
"""Numbers at the edges of what bytes can hold, and beyond what is allowed."""

MOST_CHANGES: Final = 4


def mutations(corpus: Sequence[bytes], seed: int) -> Callable[[], bytes]:
    """A function that returns an input of `corpus` with one change, or a few."""
    chance = random.Random(seed)
    below, choice = chance.randrange, chance.choice

    def flip(data: bytes) -> bytes:
        at = below(len(data))
        return data[:at] + bytes((data[at] ^ 1 << below(8),)) + data[at + 1 :]

    def set_byte(data: bytes) -> bytes:
        at = below(len(data))
        return data[:at] + bytes((below(256),)) + data[at + 1 :]

    def set_extreme(data: bytes) -> bytes:
        at, extreme = below(len(data)), choice(EXTREMES)
        return data[:at] + extreme + data[at + len(extreme) :]

    def insert(data: bytes) -> bytes:
        at = below(len(data))
        return data[:at] + chance.randbytes(1 + below(8)) + data[at:]

    def cut(data: bytes) -> bytes:
        start = below(len(data))
        return data[:start] + data[start + 1 + below(16) :]

    def repeat(data: bytes) -> bytes:
        start = below(len(data))
        piece = data[start : start + 1 + below(64)]
        return data[:start] + piece * (1 + below(4)) + data[start:]

    def splice(data: bytes) -> bytes:
        other = choice(corpus)
        return data[: below(len(data))] + other[below(len(other) + 1) :]

    changes = (flip, set_byte, set_extreme, insert, cut, repeat, splice)

    def mutation() -> bytes:
        data = choice(corpus)
        for _ in range(1 + below(MOST_CHANGES)):
            data = choice(changes)(data or b"\0")
        return data[:LONGEST_INPUT]

    return mutation
