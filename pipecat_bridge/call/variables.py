"""What a bot wants the dialplan to know."""

from __future__ import annotations

import msgspec

from pipecat_bridge.wire.commands import CommandError

MAX_BYTES = 2000
"""Of a call's variables as JSON. `/v1/calls/{id}/outcome` shows them beside a reason and a target,
and Asterisk cuts what a function such as CURL returns after 4095 bytes (VAR_BUF_SIZE)."""


class Variables(dict[str, str]):
    """Names and values, bounded; the later value wins."""

    def set(self, variables: dict[str, str]) -> None:
        """Add them, or none of them: raises CommandError when they would be too many."""
        size = len(msgspec.json.encode({**self, **variables}))
        if size > MAX_BYTES:
            raise CommandError(
                f"a set command that makes the call's variables {size} bytes of JSON: "
                f"expected up to {MAX_BYTES}"
            )
        self.update(variables)
