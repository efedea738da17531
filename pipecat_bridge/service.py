"""Wires everything: `makeService` builds all and starts nothing."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions
from twisted.web.client import Agent

from pipecat_bridge import config
from pipecat_bridge.asterisk.clock import FrameClock, keep_time
from pipecat_bridge.asterisk.connection import AudioSocketConnection, LineOptions
from pipecat_bridge.asterisk.server import AudioSocketFactory
from pipecat_bridge.audio.resample import make_resampler
from pipecat_bridge.call.events import EventLog, Events
from pipecat_bridge.call.registry import Calls
from pipecat_bridge.listener import Listener
from pipecat_bridge.options import Options as BridgeOptions
from pipecat_bridge.runner.client import RunnerClient, connection_pool
from pipecat_bridge.runner.dialback import DialBack, FixedAddress, RunnerAddress
from pipecat_bridge.runner.embedded import EmbeddedRunner, missing_extra
from pipecat_bridge.runner.websocket import BotSocketFactory
from pipecat_bridge.web.api import api_site
from pipecat_bridge.web.health import Health
from pipecat_bridge.web.metrics import CallCollector, registry

STOP_GRACE = 2.0
"""Seconds that hangups, closing handshakes and /stop have to go out when the daemon ends."""


COLLECTOR = (20_000, 20, 20)
"""Thresholds of Python's garbage collector, by measurement."""


class Options(UsageOptions):
    """Command line of `twistd pipecat-bridge`."""

    optParameters = [  # noqa: RUF012 - Twisted reads it from the class
        ["config", "c", None, "configuration file (TOML)"],
    ]
    optFlags = [["check", None, "say whether the configuration is good, and end"]]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self["set"] = []

    def opt_set(self, text: str) -> None:
        """Set one option: section.key=value; may be repeated, and overrides file and environment"""
        self["set"].append(text)

    opt_s = opt_set

    def postOptions(self) -> None:
        try:
            self["options"] = config.load(self["config"], os.environ, self["set"])
        except config.ConfigError as error:
            # Not a UsageError: all the help there is would stand before what is wrong.
            sys.exit(str(error))
        if self["check"]:
            print(f"{self['config'] or 'configuration'}: good")
            sys.exit(0)


class Bridge(MultiService):
    """The daemon: its parts, and how it ends.

    `now` is the monotonic clock of all audio, in seconds.
    """

    _log = Logger(namespace="pipecat_bridge")

    def __init__(
        self, options: BridgeOptions, reactor: Any, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self.options = options
        self.reactor = reactor
        self._now = now
        self.events = Events()
        self.events.subscribe(EventLog())
        self.clock = FrameClock(reactor, now)
        self.door = BotSocketFactory(reactor, options.websocket, options.runner.require_token)
        self.embedded: EmbeddedRunner | None = None
        self._ending = False
        self.runner = self._runner()
        self.calls = Calls(self.runner, self.events, reactor, options.calls, options.bot_audio)
        self.health = Health(reactor)
        self.health.setServiceParent(self)
        self.phones = AudioSocketFactory(self._connection, options.audiosocket.allow)
        listen = options.audiosocket.listen
        self.phone_listener = Listener(reactor, listen, self.phones)
        self.bot_listener = Listener(reactor, options.runner.listen, self.door)
        self.api_listener = Listener(reactor, options.api.listen, self._site())
        for service in (self.bot_listener, self.api_listener, self.phone_listener):
            service.setServiceParent(self)

    def _runner(self) -> DialBack:
        options = self.options.runner
        self.pool = connection_pool(self.reactor, options)
        agent = Agent(self.reactor, connectTimeout=options.request_timeout, pool=self.pool)
        client = RunnerClient(self.reactor, agent, options)
        address: RunnerAddress = FixedAddress(options.url)
        if options.mode == "embedded":
            address = self.embedded = EmbeddedRunner(self.reactor, self.options.embedded)
            EmbeddedService(self.embedded).setServiceParent(self)
        return DialBack(
            self.reactor,
            client,
            address,
            self.door,
            self._dialback_url,
            options,
            self.options.caller_audio,
            self._now,
        )

    def _dialback_url(self) -> str:
        """Where runners dial back: as configured, or the port that is listened on."""
        if self.options.runner.dialback_url:
            return self.options.runner.dialback_url
        assert self.bot_listener.port is not None
        host: Any = self.bot_listener.port.getHost()
        name = "127.0.0.1" if host.host in ("0.0.0.0", "::") else host.host
        return f"ws://[{name}]:{host.port}" if ":" in name else f"ws://{name}:{host.port}"

    def _connection(self) -> AudioSocketConnection:
        options = self.options.audiosocket
        line = LineOptions(
            options.handshake_timeout, self.options.caller_audio.hold_after, options.g711
        )
        return AudioSocketConnection(self.calls, self.clock, self.reactor, line, self._now)

    def _site(self) -> Any:
        extra: dict[str, tuple[str, Callable[[], int]]] = {
            "ticks_skipped": (
                "Frames that were given up after the daemon had stalled",
                lambda: self.clock.skipped,
            ),
            "phones_refused": (
                "AudioSocket connections from networks that are not allowed",
                lambda: self.phones.refused,
            ),
            "bot_sockets_refused": ("WebSockets that were refused", lambda: self.door.refused),
        }
        if self.embedded is not None:
            embedded = self.embedded
            extra["runner_restarts"] = (
                "Restarts of the embedded runner",
                lambda: embedded.restarts,
            )
        metrics = registry(CallCollector(self.calls, extra))
        metrics.register(self.health)
        return api_site(
            self.calls, lambda: Deferred.fromCoroutine(self.runner.reachable()), metrics
        )

    def privilegedStartService(self) -> None:
        with ports_that_are_free():
            super().privilegedStartService()

    def startService(self) -> None:
        with ports_that_are_free():  # twist, other than twistd, does not ask for the above
            super().startService()
        prepare_filters(self.options)
        # The reactor sets its own handlers when it starts.
        self.reactor.callWhenRunning(self._handle_signals)
        runner = self.options.runner
        self._log.info(
            "AudioSocket on {phones}, API on {api}, runner mode {mode}",
            phones=_place(self.phone_listener),
            api=_place(self.api_listener),
            mode=runner.mode,
        )
        if runner.mode != "embedded" and not runner.dialback_url and not _local(runner.url):
            self._log.warn(
                "the runner {url} is on another machine and is told to dial {dialback}: set"
                " [runner] dialback_url to what it can reach, and listen to let it in",
                url=runner.url,
                dialback=self._dialback_url(),
            )

    def _handle_signals(self) -> None:
        """SIGTERM and SIGINT end in good order, with exit status 0; SIGHUP does not end it."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_end)
        signal.signal(signal.SIGHUP, lambda *_: self.reactor.callFromThread(self._ignore_hup))

    def _told_to_end(self, number: int, frame: object) -> None:
        self.reactor.callFromThread(self._terminate, signal.Signals(number).name)

    def _terminate(self, name: str) -> None:
        if self._ending:
            self._log.info("{name} again: the calls are ended now", name=name)
            self.calls.stop_all()
        elif self.running:
            self._ending = True
            self._log.info("{name}: ending", name=name)
            self.reactor.stop()

    def _ignore_hup(self) -> None:
        self._log.info("SIGHUP ignored: the configuration is read at the start only")

    @inlineCallbacks
    def stopService(self) -> Any:
        """Drain: no new calls, those that run may end within the deadline, then the rest.

        The port is closed last. A phone that connects meanwhile is told to hang up: Asterisk 22.10
        closes the socket of a refused connection twice (res_audiosocket.c), and the second close
        can hit another call's.
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
        yield self._within(timeout, self.calls.idle())
        self.calls.stop_all()
        yield self._within(
            STOP_GRACE,
            gatherResults(
                [self.runner.stopping.idle(), self.phones.open.idle()], consumeErrors=True
            ),
        )
        yield self.pool.closeCachedConnections()
        yield super().stopService()

    def _within(self, seconds: float, waiting: Deferred[Any]) -> Deferred[Any]:
        waiting.addTimeout(max(seconds, 0.001), self.reactor)
        return waiting.addErrback(lambda _: None)


class EmbeddedService(Service):
    """The embedded runner's life, with the daemon's."""

    def __init__(self, runner: EmbeddedRunner) -> None:
        self._runner = runner

    def startService(self) -> None:
        super().startService()
        self._runner.start()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return self._runner.stop()


def _place(listener: Listener) -> str:
    if listener.port is None:
        return listener.description
    host: Any = listener.port.getHost()
    return f"{host.host}:{host.port}" if hasattr(host, "port") else str(host)


def _local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def ports_that_are_free() -> Iterator[None]:
    """A port that is taken ends the daemon's start, with a sentence and exit status 1."""
    try:
        yield
    except CannotListenError as error:
        sys.exit(
            f"{error} Is another bridge running? The ports are set by [audiosocket] listen,"
            " [runner] listen and [api] listen."
        )


def prepare_filters(options: BridgeOptions) -> None:
    """Design the usual filters now: the first call would wait some milliseconds for each."""
    bot_rate = options.caller_audio.sample_rate
    for phone_rate in (8000, 16000):
        make_resampler(phone_rate, bot_rate, options.caller_audio.resampler)
        for rate in {bot_rate, 24000}:
            make_resampler(rate, phone_rate, options.bot_audio.resampler)


def tune_collector() -> None:
    """Keep Python's garbage collector out of the audio.

    Calls are freed by reference counting, so it has little to find; untuned it paused for up to
    73 ms at 46 new calls a second, and 47 frames were late (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR)


def makeService(usage: Options, reactor: Any = None) -> Bridge:
    """The daemon, built from its options; called by twistd."""
    if reactor is None:
        from twisted.internet import reactor as default_reactor

        reactor = default_reactor
    options: BridgeOptions = usage["options"]
    if options.runner.mode == "embedded" and (missing := missing_extra()):
        sys.exit(missing)
    keep_time(reactor)
    reactor.callWhenRunning(tune_collector)
    return Bridge(options, reactor)
