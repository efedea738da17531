"""What a runner is told of a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BotRequest:
    """What is told to the runner about a call.

    `resumption` is 0 for a call's first bot and n for the n-th that takes the place of a lost one.
    """

    call_id: str
    parameters: dict[str, Any]
    metadata: dict[str, Any]
    resumption: int = 0

    def described(self) -> dict[str, Any]:
        """The call's id, its metadata and, for a later bot, that it is one."""
        described = {"id": self.call_id, "metadata": self.metadata}
        return {**described, "resumption": self.resumption} if self.resumption else described
