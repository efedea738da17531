"""Hides keys of the caller where a bot tells them as words."""

from __future__ import annotations

import re
from typing import Final

from msgspec.structs import replace

from pipecat_bridge.wire.rtvi import UserTranscription

_TOLD: Final = re.compile(r"^DTMF:\s*(.+)", re.DOTALL)
"""How Pipecat's DTMFAggregator tells keys, by its `prefix` if that was not changed."""


def without_keys(said: UserTranscription) -> UserTranscription:
    """The words of the caller, with "?" for each key."""
    found = _TOLD.match(said.text)
    if found is None:
        return said
    return replace(said, text=f"DTMF: {'?' * len(found[1].rstrip())}")
