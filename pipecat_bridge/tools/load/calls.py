"""What both sides of a load know of a call: its number and its role, which its UUID says."""

from __future__ import annotations

import os
from enum import IntEnum
from typing import Final
from uuid import UUID

_NUMBER: Final = slice(1, 5)


class Role(IntEnum):
    """What a call's bot does, besides sending back what it hears."""

    STEADY = 0
    STALLED = 1  # reads nothing for 5 s, again and again
    BURSTING = 2  # sends 10 s of audio at once, again and again
    DYING = 3  # breaks its connection after a second


def duties(calls: int, stalled: int = 0, bursting: int = 0, dying: int = 0) -> list[Role]:
    """A role for each call; those out of the ordinary first."""
    roles = [Role.STALLED] * stalled + [Role.BURSTING] * bursting + [Role.DYING] * dying
    return [*roles, *[Role.STEADY] * (calls - len(roles))]


def call_id(role: Role, number: int) -> UUID:
    """An id of its own for a call."""
    return UUID(bytes=bytes((role,)) + number.to_bytes(4, "big") + os.urandom(11))


def read_id(text: str) -> tuple[Role, int]:
    """Role and number of a call from its id; ValueError for an id that no load has made."""
    data = UUID(text).bytes
    return Role(data[0]), int.from_bytes(data[_NUMBER], "big")
