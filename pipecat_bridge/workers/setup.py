"""What a worker is told when it is started."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from pipecat_bridge.config.ports import filled
from pipecat_bridge.options import Options, RunnerOptions

NOWHERE = "tcp:0:interface=127.0.0.1"
"""Where a worker does not listen: its supervisor does."""


class Setup(Struct, frozen=True):
    """One worker's number, its options, the module of its reactor.

    `listens`: it inherits a socket that listens for its bots; `proxied`: phones begin with a PROXY
    header; `embedded`: its runner is the embedded one, whose URL the supervisor tells.
    """

    number: int
    options: Options
    reactor: str
    listens: bool
    proxied: bool
    embedded: bool


def worker_options(options: Options, number: int, port: int) -> Options:
    """The options of worker `number` (from 1 on), whose bots dial back to `port`.

    What is limited in all is shared out, but for calls, which the supervisor counts.
    """
    runner = options.runner
    embedded = runner.mode == "embedded"
    return replace(
        options,
        service=replace(options.service, workers=1),
        calls=replace(options.calls, drain_timeout=0.0),  # the supervisor waits
        audiosocket=replace(options.audiosocket, listen=NOWHERE),
        api=replace(options.api, listen=NOWHERE, linger=0.0),
        runner=replace(
            _shared(runner, options.service.workers),
            mode="dialback" if embedded else runner.mode,
            url="http://127.0.0.1" if embedded else runner.url,
            dialback_url=filled(runner.dialback_url, number, port),
        ),
    )


def _shared(runner: RunnerOptions, workers: int) -> RunnerOptions:
    return replace(
        runner,
        max_requests=max(1, runner.max_requests // workers),
        max_idle_connections=max(1, runner.max_idle_connections // workers),
        max_idle_per_host=max(1, runner.max_idle_per_host // workers),
    )
