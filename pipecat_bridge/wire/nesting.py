"""How deep JSON from outside may be nested."""

from __future__ import annotations

from typing import Any, Final

MAX_DEPTH: Final = 32
"""Levels of objects and arrays. Reading and writing both go as deep into Python's stack, so what
could just be read, a thousand levels, could not be written again where the stack is deeper.
"""


def too_deep(value: Any, levels: int = MAX_DEPTH) -> bool:
    """True when `value`, as decoded from JSON, has more levels than `levels`."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return levels == 0 or any(too_deep(each, levels - 1) for each in value)
