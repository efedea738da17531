"""The options of `[websocket]` as Autobahn takes them."""

from __future__ import annotations

from typing import Any, Final

from pipecat_bridge.options import WebSocketOptions

ROUNDED_DOWN: Final = 1.0
"""Seconds that are added to Autobahn's timeouts. Autobahn rounds their end down to a whole second
of the clock, so a timeout of 1 s would take between 0 and 1 s."""


def protocol_options(options: WebSocketOptions) -> dict[str, Any]:
    """Options for Autobahn's factories, client and server.

    Compression is not offered or accepted (Autobahn's default): it would cost more processor time
    than the audio.
    """
    return {
        "maxFramePayloadSize": options.max_frame,
        "maxMessagePayloadSize": options.max_message,
        "openHandshakeTimeout": options.handshake_timeout + ROUNDED_DOWN,
        "closeHandshakeTimeout": options.close_timeout + ROUNDED_DOWN,
        "failByDrop": False,  # a bot that breaks the protocol is told how
        "tcpNoDelay": True,
    }
