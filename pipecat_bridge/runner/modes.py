"""All runner modes. A new mode needs a record here and no change elsewhere."""

from __future__ import annotations

from functools import partial
from typing import Final

from pipecat_bridge.runner.start import dial, dialback
from pipecat_bridge.runner.start.mode import RunnerMode

MODES: Final[dict[str, RunnerMode]] = {
    mode.name: mode
    for mode in (
        RunnerMode(
            "embedded",
            "the bridge starts the runner that comes with it",
            ("http", "https"),
            "http://127.0.0.1:8000",
            "/health",
            dialback.dialect,
            dialback.DialBack,
            listens=True,
            supervised=True,
        ),
        RunnerMode(
            "dialback",
            "POST {url}/run, and the bot dials back to the bridge",
            ("http", "https"),
            "http://127.0.0.1:8000",
            "/health",
            dialback.dialect,
            dialback.DialBack,
            listens=True,
        ),
        RunnerMode(
            "dial",
            "POST {url}/start, and the bridge dials the bot: Pipecat's own runners",
            ("http", "https"),
            "http://127.0.0.1:7860",
            "/status",
            dial.pipecat_dialect,
            partial(dial.Dial, transport="websocket"),
        ),
        RunnerMode(
            "direct",
            "the bridge dials the WebSocket of a bot that runs already",
            ("ws", "wss"),
            "ws://127.0.0.1:7860/ws-client",
            "",
            dial.pipecat_dialect,
            partial(dial.Dial, transport="websocket"),
        ),
        RunnerMode(
            "twilio",
            "as dial or direct, with a bot that was written for Twilio Media Streams",
            ("http", "https", "ws", "wss"),
            "ws://127.0.0.1:7860/ws",
            "/status",
            dial.twilio_dialect,
            partial(dial.Dial, transport="twilio"),
            takes_text=False,
        ),
    )
}
"""Modes by name. The options, their checks, the ports, the health checks and a test of the
documentation read this."""
