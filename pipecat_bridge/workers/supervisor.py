"""The daemon as several processes: the supervisor owns the ports, the workers carry the calls."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks

from pipecat_bridge.net.daemon import STOP_GRACE, Daemon
from pipecat_bridge.net.descriptors import Descriptors, limit
from pipecat_bridge.net.limit import ConnectionLimit
from pipecat_bridge.net.listener import Listener, ReservedPort
from pipecat_bridge.net.ports import shifted
from pipecat_bridge.net.process import warn_if_not_compiled
from pipecat_bridge.net.proxied import PREFIX
from pipecat_bridge.options import Options
from pipecat_bridge.runner.modes import MODES
from pipecat_bridge.runner.start.embedded import EmbeddedRunner
from pipecat_bridge.web.api import ApiSite
from pipecat_bridge.workers.api import WorkersApi
from pipecat_bridge.workers.commands import RunnerIs
from pipecat_bridge.workers.own_metrics import own_registry
from pipecat_bridge.workers.phones import PhonePort
from pipecat_bridge.workers.places import PreparedElsewhere
from pipecat_bridge.workers.setup import Setup, worker_options
from pipecat_bridge.workers.switchboard import Switchboard
from pipecat_bridge.workers.worker import Worker


class Supervisor(Daemon):
    """Starts the workers, watches them, and ends them together.

    The supervisor has all ports, so they stay open when a worker ends: the AudioSocket port, the
    port of the API, and one port for the bots of each worker.
    """

    def __init__(self, options: Options, reactor: Any) -> None:
        super().__init__(reactor)
        self.options = options
        mode = MODES[options.runner.mode]
        self.switchboard = Switchboard(reactor, options, self._prepare)
        self.descriptors = Descriptors(reactor)
        self.descriptors.setServiceParent(self)
        self.phones = PhonePort(reactor, options.audiosocket, self.switchboard, self.descriptors)
        self.bot_ports: list[ReservedPort] = []
        if mode.listens:
            listen, workers = options.runner.listen, range(options.service.workers)
            self.bot_ports = [ReservedPort(reactor, shifted(listen, number)) for number in workers]
        self.embedded: EmbeddedRunner | None = None
        if mode.supervised:
            self.embedded = EmbeddedRunner(reactor, options.embedded)
            self.embedded.on_change = self._runner_is
        own = own_registry(self.switchboard, self.descriptors, self.embedded, lambda: self.limits)
        self._api = WorkersApi(reactor, self.switchboard, self.descriptors, options, own)
        self.api_site = ApiSite(reactor, self._api, options.api.hosts)
        self.api_listener = Listener(reactor, options.api.listen, self.api_site)
        services: list[Service] = [*self.bot_ports, self.api_listener, self.phones]
        for service in services:
            service.setServiceParent(self)

    @property
    def limits(self) -> list[ConnectionLimit[Any]]:
        """The limits of connections that wait, at the ports of this process."""
        return [self.api_site.connections, *self.api_listener.limits, self.phones.unknown]

    def startService(self) -> None:
        super().startService()
        if self.embedded is not None:
            self.embedded.start()
        self.switchboard.workers = [
            self._worker(number) for number in range(1, self.options.service.workers + 1)
        ]
        for worker in self.switchboard.workers:
            worker.start()
        self._log.info(
            "AudioSocket on {phones}, API on {api}, runner mode {mode}, {workers} workers",
            phones=self.phones.listener.place,
            api=self.api_listener.place,
            mode=self.options.runner.mode,
            workers=self.options.service.workers,
        )
        self._log.info(
            "each process may have {limit} file descriptors, and a call takes two or three",
            limit=limit(),
        )
        warn_if_not_compiled(self._log)

    def _worker(self, number: int) -> Worker:
        bots = self.bot_ports[number - 1] if self.bot_ports else None
        options = worker_options(self.options, number, bots.number if bots else 0)
        setup = Setup(
            number,
            options,
            type(self.reactor).__module__,
            listens=bots is not None,
            proxied=self.options.audiosocket.listen.startswith(PREFIX),
        )
        return Worker(self.reactor, setup, bots.fileno() if bots else None, self)

    def _prepare(
        self, worker: Worker, call_id: str, preparation: PreparedElsewhere[Worker]
    ) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._api.prepare(worker, call_id, preparation))

    # From the workers

    def worker_ready(self, worker: Worker) -> None:
        """The worker takes calls."""
        if self.embedded is not None:
            worker.tell(RunnerIs, url=self.embedded.base)
        self.switchboard.worker_ready(worker)

    def worker_lost(self, worker: Worker) -> None:
        """The worker takes no calls any more."""
        self._api.page.end(str(worker.number))
        self.switchboard.worker_lost(worker)

    def call_ended(self, phone: int) -> None:
        """The call of the phone with this number is over."""
        self.switchboard.call_ended(phone)

    def _runner_is(self, base: str) -> None:
        for worker in self.switchboard.workers:
            worker.tell(RunnerIs, url=base)

    # The end

    def reopen(self) -> None:
        """Open files again that another program may have moved away."""
        self.switchboard.reopen()

    def end_calls(self) -> None:
        """End all calls now."""
        self.switchboard.end_calls()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Let the calls end, as one process does. Then end the workers, and close the ports."""
        self.switchboard.drain()
        timeout = self.options.calls.drain_timeout
        running = self.switchboard.places.calls
        if running:
            self._log.info(
                "draining: {running} calls may go on for {timeout:g} s",
                running=running,
                timeout=timeout,
            )
        yield self.within(timeout, self.switchboard.on_phones.idle())
        self.switchboard.end_calls()
        yield self.within(STOP_GRACE, self.switchboard.on_phones.idle())
        yield self.linger(self.switchboard.last_end, self.options.api.linger)
        self.switchboard.end()
        yield gatherResults([worker.stop() for worker in self.switchboard.workers])
        if self.embedded is not None:
            yield self.embedded.stop()
        yield super().stopService()
