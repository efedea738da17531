"""What the bridge dials."""

from __future__ import annotations

from typing import NamedTuple

from pipecat_bridge.net.redaction import Redaction


class Target(NamedTuple):
    """A bot's WebSocket. The headers are the bot's token, or the configured ones.

    `redact` takes these and other secrets out of what the bot says.
    """

    url: str
    headers: dict[str, str]
    redact: Redaction = Redaction()
