"""Wires everything: `makeService` builds all and starts nothing."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.python.usage import Options as UsageOptions

from pipecat_bridge import __version__
from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.interfaces import LineOptions
from pipecat_bridge.asterisk.server import AudioSocketFactory
from pipecat_bridge.audio.resample import make_resampler
from pipecat_bridge.call.registry import Calls
from pipecat_bridge.config.load import ConfigError, load_options
from pipecat_bridge.config.ports import filled
from pipecat_bridge.events.events import EventLog, Events
from pipecat_bridge.net.daemon import STOP_GRACE, Daemon
from pipecat_bridge.net.descriptors import EXHAUSTED_HELP, Descriptors, limit, raise_limit
from pipecat_bridge.net.json_log import write_json
from pipecat_bridge.net.listener import Listener
from pipecat_bridge.net.reactor import keep_time, poll_in_batches
from pipecat_bridge.options import Options as BridgeOptions
from pipecat_bridge.runner.pool.address import without_secrets
from pipecat_bridge.runner.side import RunnerSide
from pipecat_bridge.runner.start.embedded import missing_extra
from pipecat_bridge.web.api import api_site
from pipecat_bridge.web.health import Health
from pipecat_bridge.web.metrics import CallCollector, RunnerCollector, registry
from pipecat_bridge.workers.supervisor import Supervisor

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

    def opt_version(self) -> None:
        """Print the version of pipecat-bridge and end"""
        print(f"pipecat-bridge {__version__}")
        sys.exit(0)

    def postOptions(self) -> None:
        try:
            self["options"] = load_options(self["config"], os.environ, self["set"])
        except ConfigError as error:
            # Not a UsageError: all the help there is would stand before what is wrong.
            sys.exit(str(error))
        if self["check"]:
            print(f"{self['config'] or 'configuration'}: good")
            sys.exit(0)


class Bridge(Daemon):
    """The daemon: its parts, and how it ends.

    `now` is the monotonic clock of all audio, in seconds.
    """

    def __init__(
        self, options: BridgeOptions, reactor: Any, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(reactor)
        self.options = options
        self._now = now
        self.events = Events()
        self.events.subscribe(EventLog())
        self.clock = FrameClock(reactor, now)
        self.descriptors = Descriptors(reactor)
        self.descriptors.setServiceParent(self)
        self.runner = RunnerSide(reactor, options, self._dialback_url, self.descriptors, now)
        self.calls = Calls(self.runner.bots, self.events, reactor, options.calls, options.bot_audio)
        self.health = Health(reactor)
        self.health.setServiceParent(self)
        self.phones = AudioSocketFactory(self._connection, options.audiosocket.allow)
        listen = options.audiosocket.listen
        self.phone_listener = Listener(reactor, listen, self.phones)
        self.bot_listener = Listener(reactor, options.runner.listen, self.runner.door)
        self.api_listener = Listener(reactor, options.api.listen, self._site())
        services: list[Service] = [self.runner, self.api_listener, self.phone_listener]
        if self.runner.is_dialled:
            services.insert(0, self.bot_listener)
        for service in services:
            service.setServiceParent(self)

    def _dialback_url(self) -> str:
        """Where runners dial back: as configured, or the port that is listened on."""
        assert self.bot_listener.port is not None
        host: Any = self.bot_listener.port.getHost()
        if self.options.runner.dialback_url:
            return filled(self.options.runner.dialback_url, 1, getattr(host, "port", 0))
        name = "127.0.0.1" if host.host in ("0.0.0.0", "::") else host.host
        return f"ws://[{name}]:{host.port}" if ":" in name else f"ws://{name}:{host.port}"

    def _connection(self) -> AudioSocketConnection:
        options = self.options.audiosocket
        line = LineOptions(
            handshake_timeout=options.handshake_timeout,
            stall_timeout=options.stall_timeout,
            hold_after=self.options.caller_audio.hold_after,
            g711=options.g711,
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
            "descriptors_exhausted": (
                EXHAUSTED_HELP,
                lambda: self.descriptors.exhausted,
            ),
            "bot_sockets_refused": (
                "WebSockets that were refused",
                lambda: self.runner.door.refused,
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
        return api_site(
            self.calls,
            lambda: Deferred.fromCoroutine(self.runner.reachable()),
            self.descriptors,
            metrics,
        )

    def startService(self) -> None:
        super().startService()
        prepare_filters(self.options)
        self.announce()

    def announce(self) -> None:
        """Tell in the log where it listens, and what looks wrong."""
        runner = self.options.runner
        self._log.info(
            "AudioSocket on {phones}, API on {api}, runner mode {mode}",
            phones=self.phone_listener.place,
            api=self.api_listener.place,
            mode=runner.mode,
        )
        self._log.info(
            "this process may have {limit} file descriptors, and a call takes three", limit=limit()
        )
        self.warn_of_far_runners()

    def warn_of_far_runners(self) -> None:
        """A runner on another machine cannot dial back to this one by itself."""
        runner = self.options.runner
        far = [url for url in runner.urls if not _local(url)]
        if runner.mode == "dialback" and not runner.dialback_url and far:
            self._log.warn(
                "the runner {url} is on another machine and is told to dial {dialback}: set"
                " [runner] dialback_url to what it can reach, and listen to let it in",
                url=without_secrets(far[0]),
                dialback=self._dialback_url(),
            )

    def end_calls(self) -> None:
        """End the calls that run, at once."""
        self.calls.stop_all()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Drain: no new calls, those that run may end within the deadline, then the rest.

        The ports are closed last: dialplans of the last calls ask the API how they ended, and a
        phone that connects meanwhile is told to hang up. Asterisk 22.10 closes the socket of a
        refused connection twice (res_audiosocket.c), and the second close can hit another call's.
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


def makeService(usage: Options, reactor: Any = None) -> Daemon:
    """The daemon, built from its options; called by twistd."""
    if reactor is None:
        from twisted.internet import reactor as default_reactor

        reactor = default_reactor
    options: BridgeOptions = usage["options"]
    if options.runner.mode == "embedded" and (missing := missing_extra()):
        sys.exit(missing)
    raise_limit()
    keep_time(reactor)
    poll_in_batches(reactor, options.service.poll_interval)
    reactor.callWhenRunning(tune_collector)
    several = options.service.workers > 1
    daemon = Supervisor(options, reactor) if several else Bridge(options, reactor)
    command: Any = getattr(usage, "parent", None)  # twistd's options, or twist's
    daemon.in_background = not (command or {}).get("nodaemon", True)  # which twist has not
    if options.service.log_format == "json":
        write_json(daemon, command)
    return daemon
