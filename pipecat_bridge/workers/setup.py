"""The setup of a worker. The supervisor sends it when it starts the worker."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from pipecat_bridge.net.ports import filled
from pipecat_bridge.options import Options, RunnerOptions


class Setup(Struct, frozen=True):
    """Number and options of one worker.

    `reactor`: the module of its reactor. `listens`: the worker inherits a socket that listens for
    its bots. `proxied`: connections of phones begin with a PROXY header.
    """

    number: int
    options: Options
    reactor: str
    listens: bool
    proxied: bool


def worker_options(options: Options, number: int, port: int) -> Options:
    """The options of worker `number` (1 is the first), whose bots dial back to `port`.

    Each worker gets an equal share of the limits of requests and connections. The limit of calls
    stays whole, because the supervisor counts the calls of all workers.
    """
    runner = options.runner
    return replace(
        options,
        service=replace(options.service, workers=1),
        calls=replace(options.calls, drain_timeout=0.0),  # the supervisor waits
        api=replace(options.api, linger=0.0),  # the supervisor waits
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
