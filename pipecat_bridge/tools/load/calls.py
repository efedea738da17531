"""What both sides of a load know about a call: its number and its role. Both are in its UUID."""

from __future__ import annotations

import os
from enum import IntEnum
from typing import Final
from uuid import UUID

_NUMBER: Final = slice(1, 5)


class Role(IntEnum):
    """The fault of a call's bot. Every bot sends back what it hears."""

    STEADY = 0
    STALLED = 1  # reads nothing for 5 s, again and again
    BURSTING = 2  # sends 10 s of audio at once, again and again
    DYING = 3  # breaks its connection after a second


def duties(calls: int, stalled: int = 0, bursting: int = 0, dying: int = 0) -> list[Role]:
    """A role for each call. The roles with a fault come first."""
    roles = [Role.STALLED] * stalled + [Role.BURSTING] * bursting + [Role.DYING] * dying
    return [*roles, *[Role.STEADY] * (calls - len(roles))]


def call_id(role: Role, number: int) -> UUID:
    """A unique id for a call, with its role and number inside."""
    return UUID(bytes=bytes((role,)) + number.to_bytes(4, "big") + os.urandom(11))


def read_id(text: str) -> tuple[Role, int]:
    """Role and number of a call, from its id. Raises ValueError if the id is not from a load."""
    data = UUID(text).bytes
    return Role(data[0]), int.from_bytes(data[_NUMBER], "big")
