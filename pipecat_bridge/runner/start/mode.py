"""The description of a runner mode. `pipecat_bridge.runner.modes` has all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pipecat_bridge.contracts import BotRequest
from pipecat_bridge.net.http import HTTPClient
from pipecat_bridge.options import Options
from pipecat_bridge.runner.socket.dialback_server import DialbackServer
from pipecat_bridge.runner.socket.dialler import Dialler
from pipecat_bridge.runner.start.start import Starter
from pipecat_bridge.wire.dialect import Dialect


class Means(NamedTuple):
    """What a mode may use to start bots. `dialback_url` returns the URL where bots dial back."""

    options: Options
    client: HTTPClient
    dialback_server: DialbackServer
    dialler: Dialler
    dialback_url: Callable[[], str]


@dataclass(frozen=True, slots=True)
class RunnerMode:
    """One way to start bots and to speak with them, for `[runner] mode`.

    `summary`: one line for people. `schemes`: the allowed schemes of `[runner] url`. `example`: an
    example of `[runner] url`. `health_path`: the path of health checks if `[runner] health_path` is
    not set; "" for none. `listens`: bots dial the bridge, at `[runner] listen`. `supervised`: the
    bridge starts the runner itself. `takes_text`: the dialect has a message for text.
    """

    name: str
    summary: str
    schemes: tuple[str, ...]
    example: str
    health_path: str
    dialect: Callable[[BotRequest, Options], Dialect]
    starter: Callable[[Means], Starter]
    listens: bool = False
    supervised: bool = False
    takes_text: bool = True
