"""The variables that a bot sets for the dialplan."""

from __future__ import annotations

import msgspec

from pipecat_bridge.wire.commands import CommandError

MAX_BYTES = 2000
"""Most bytes of a call's variables as JSON. `/v1/calls/{id}/outcome` shows them together with
reason and target, and Asterisk cuts the value of a function such as CURL() after 4095 bytes
(VAR_BUF_SIZE)."""


class Variables(dict[str, str]):
    """Names and values of the variables of one call."""

    def set(self, variables: dict[str, str]) -> None:
        """Set `variables`. If that would exceed `MAX_BYTES`, set none and raise CommandError."""
        size = len(msgspec.json.encode({**self, **variables}))
        if size > MAX_BYTES:
            raise CommandError(
                f"a set command that makes the call's variables {size} bytes of JSON: "
                f"expected up to {MAX_BYTES}"
            )
        self.update(variables)
