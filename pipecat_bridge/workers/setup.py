"""What a worker is told when it is started."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from pipecat_bridge.net.ports import filled
from pipecat_bridge.options import Options, RunnerOptions


class Setup(Struct, frozen=True):
    """One worker's number, its options, the module of its reactor.

    `listens`: it inherits a socket that listens for its bots; `proxied`: phones begin with a PROXY
    header.
    """

    number: int
    options: Options
    reactor: str
    listens: bool
    proxied: bool


def worker_options(options: Options, number: int, port: int) -> Options:
    """The options of worker `number` (from 1 on), whose bots dial back to `port`.

    What is limited in all is shared out, but for calls, which the supervisor counts.
    """
    runner = options.runner
    return replace(
        options,
        service=replace(options.service, workers=1),
        calls=replace(options.calls, drain_timeout=0.0),  # the supervisor waits
        api=replace(options.api, linger=0.0),  # as above
        runner=replace(
            _shared(runner, options.service.workers),
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
