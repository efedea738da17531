"""The WebSocket that the bridge dials."""

from __future__ import annotations

from typing import NamedTuple

from pipecat_bridge.net.redaction import Redaction


class Target(NamedTuple):
    """A bot's WebSocket. `headers` carry the bot's token, or are the configured ones.

    `redact` takes these and other secrets out of the bot's texts.
    """

    url: str
    headers: dict[str, str]
    redact: Redaction = Redaction()
