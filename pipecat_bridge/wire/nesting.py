"""How deep JSON from outside may be nested."""

from __future__ import annotations

from typing import Any, Final

MAX_DEPTH: Final = 32
"""Most levels of objects and arrays. Reading and writing JSON use Python's stack for each level.
Without this limit, a value that could be read could be too deep to be written again, where the
stack is deeper.
"""


_DEEP: Final = (dict, list)


def too_deep(value: Any, levels: int = MAX_DEPTH) -> bool:
    """True if `value`, a decoded JSON value, has more than `levels` levels."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    if levels == 0:
        return True
    # Only what may be deep costs a call: a list of a million numbers is 10 ms of one otherwise.
    return any(isinstance(each, _DEEP) and too_deep(each, levels - 1) for each in value)
