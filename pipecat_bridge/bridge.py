"""The bridge: creates its parts, connects them, and stops them in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks

from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.audio.resample import make_resampler
from pipecat_bridge.call.record import record
from pipecat_bridge.call.registry import Calls
from pipecat_bridge.contracts import AnswerCall
from pipecat_bridge.events.events import Events
from pipecat_bridge.events.kinds import Turn
from pipecat_bridge.events.log import EventLog
from pipecat_bridge.events.record import Record
from pipecat_bridge.net.daemon import STOP_GRACE, Daemon
from pipecat_bridge.net.descriptors import EXHAUSTED_HELP, Descriptors, limit
from pipecat_bridge.net.limit import ConnectionLimit
from pipecat_bridge.net.listener import Listen
from pipecat_bridge.net.process import warn_if_not_compiled
from pipecat_bridge.net.tally import Tally
from pipecat_bridge.options import Options
from pipecat_bridge.records import MakeRecords, without_records
from pipecat_bridge.runner.pool.address import RunnerAddress, without_secrets
from pipecat_bridge.runner.side import RunnerSide
from pipecat_bridge.web.api import ApiSite, api_site
from pipecat_bridge.web.health import ProcessHealth
from pipecat_bridge.web.metrics import (
    CallCollector,
    ConnectionCollector,
    RunnerCollector,
    collectors_of,
    registry,
)


class PhoneSide(Protocol):
    """The service that phones connect to, over AudioSocket or another protocol."""

    @property
    def open(self) -> Tally:
        """The phones that are connected."""
        ...

    @property
    def refused(self) -> int:
        """How many phones were not allowed to connect."""
        ...

    @property
    def limits(self) -> Sequence[ConnectionLimit[Any]]:
        """The limits of connections that wait."""
        ...

    @property
    def place(self) -> str:
        """The address that phones connect to, as text for people; "" without a listener."""
        ...

    def setServiceParent(self, parent: Any) -> None:
        """Start and stop with `parent`."""


MakePhoneSide = Callable[[AnswerCall, FrameClock], PhoneSide]
"""Makes a phone side, from the function that begins calls and the bridge's clock."""


class Bridge(Daemon):
    """Joins phones and bots.

    `phones`, `bots` and `api` make the three listeners. `bots` is used only in runner modes in
    which bots dial the bridge. `runner_address` is the address of the embedded runner if another
    process starts it. `now` is the monotonic clock of all audio, in seconds.
    """

    def __init__(
        self,
        options: Options,
        reactor: Any,
        phones: MakePhoneSide,
        bots: Listen,
        api: Listen,
        runner_address: RunnerAddress | None = None,
        now: Callable[[], float] = time.monotonic,
        handles_signals: bool = True,
        make_records: MakeRecords = without_records,
    ) -> None:
        super().__init__(reactor, handles_signals)
        self.options = options
        self.events = Events()
        self.events.subscribe(EventLog())
        self.clock = FrameClock(reactor, now)
        self.descriptors = Descriptors(reactor)
        self.descriptors.setServiceParent(self)
        self.runner = RunnerSide(reactor, options, self.descriptors, now, bots, runner_address)
        records = make_records(self.events, self._snapshot)
        self.records = records
        self.store = records.store if records is not None else None
        self.calls = Calls(
            self.runner.bots,
            self.events,
            reactor,
            options.calls,
            options.bot_audio,
            node=records.node if records is not None else "",
            plan=records.plan if records is not None else None,
            hide_keys=options.privacy.hide_keys,
        )
        if records is not None:
            records.on_recording = self.calls.note_recording
        if self.store is not None:
            self.store.on_expired = self.calls.expire
        self.health = ProcessHealth(reactor)
        self.health.setServiceParent(self)
        self.phones = phones(self.calls.answer, self.clock)
        self.site = self._site()
        self.api = api(self.site)
        # Services start in this order. Phones come last, when all else runs.
        kept = records.services if records is not None else ()
        for service in (*kept, self.runner, self.api, self.phones):
            service.setServiceParent(self)

    def _snapshot(self, call_id: str) -> tuple[Record, Sequence[Turn]]:
        call = self.calls.get(call_id)
        return record(call), list(call.transcript)

    @property
    def limits(self) -> list[ConnectionLimit[Any]]:
        """The limits of connections that wait, at all ports."""
        return [
            self.site.connections,
            *self.api.limits,
            *self.runner.limits,
            *self.phones.limits,
        ]

    def _site(self) -> ApiSite:
        extra: dict[str, tuple[str, Callable[[], int]]] = {
            "ticks_skipped": (
                "Frames not sent because the daemon had stalled",
                lambda: self.clock.skipped,
            ),
            "phones_refused": (
                "AudioSocket connections from networks that are not allowed",
                lambda: self.phones.refused,
            ),
            "descriptors_exhausted": (
                EXHAUSTED_HELP,
                lambda: self.descriptors.exhausted,
            ),
            "bot_sockets_refused": (
                "WebSockets from bots that were refused",
                lambda: self.runner.dialback_server.refused,
            ),
        }
        embedded = self.runner.embedded
        if embedded is not None:
            extra["runner_restarts"] = (
                "Restarts of the embedded runner",
                lambda: embedded.restarts,
            )
        metrics = registry(CallCollector(self.calls, extra))
        metrics.register(RunnerCollector(self.runner.pool.upstreams))
        metrics.register(self.health)
        metrics.register(ConnectionCollector(lambda: self.limits))
        if self.records is not None:
            for collector in collectors_of(self.records):
                metrics.register(collector)
        return api_site(
            self.reactor,
            self.calls,
            self.records,
            lambda: Deferred.fromCoroutine(self.runner.reachable()),
            self.descriptors,
            metrics,
            self.options.api.hosts,
        )

    def startService(self) -> None:
        super().startService()
        prepare_filters(self.options)
        if self.phones.place:
            self._announce()
        self._warn_of_far_runners()

    def _announce(self) -> None:
        self._log.info(
            "AudioSocket on {phones}, API on {api}, runner mode {mode}",
            phones=self.phones.place,
            api=self.api.place,
            mode=self.options.runner.mode,
        )
        self._log.info(
            "this process may have {limit} file descriptors, and a call takes two or three",
            limit=limit(),
        )
        warn_if_not_compiled(self._log)

    def _warn_of_far_runners(self) -> None:
        """Warn if a runner on another machine cannot dial back without more options."""
        runner, mode = self.options.runner, self.runner.mode
        far = [url for url in runner.urls if not _local(url)]
        if mode.listens and not mode.supervised and not runner.dialback_url and far:
            self._log.warn(
                "the runner {url} is on another machine and is told to dial {dialback}: set"
                " [runner] dialback_url to a URL that it can reach, and listen to the address of"
                " that URL",
                url=without_secrets(far[0]),
                dialback=self.runner.dialback_url(),
            )

    def reopen(self) -> None:
        """Open files again that another program may have moved away."""
        if self.records is not None:
            self.records.reopen()

    def end_calls(self) -> None:
        """End all running calls at once."""
        self.calls.stop_all()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Drain: take no new calls, wait for running calls until the deadline, then end them.

        The ports are closed last: dialplans of the last calls ask the API for the outcome, and a
        phone that connects meanwhile is told to hang up. If the port were closed, Asterisk 22.10
        would close the socket of the refused connection twice (res_audiosocket.c), and the second
        close can hit the socket of another call.
        """
        self.calls.drain()
        timeout = self.options.calls.drain_timeout
        running = len(self.calls.running)
        if running:
            self._log.info(
                "draining: {running} calls may go on for {timeout:g} s",
                running=running,
                timeout=timeout,
            )
        yield self.within(timeout, self.calls.idle())
        self.calls.stop_all()
        yield self.within(
            STOP_GRACE,
            gatherResults(
                [self.runner.bots.stopping.idle(), self.phones.open.idle()], consumeErrors=True
            ),
        )
        yield self.linger(self.calls.last_end, self.options.api.linger)
        yield super().stopService()


def _local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def prepare_filters(options: Options) -> None:
    """Design the usual filters now. Else the first call would wait some milliseconds for each."""
    bot_rate = options.caller_audio.sample_rate
    for phone_rate in (8000, 16000):
        make_resampler(phone_rate, bot_rate, options.caller_audio.resampler)
        for rate in {bot_rate, 24000}:
            make_resampler(rate, phone_rate, options.bot_audio.resampler)
