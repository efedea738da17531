"""A whole daemon on a turned clock: TCP, HTTP and WebSockets are in memory, nothing is left out.

Ten minutes of a call take seconds, and every delay that is seen is the bridge's own, to the digit:
what is sent arrives in the same instant.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import txaio
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConnector, IDelayedCall, IListeningPort
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer

from pipecat_bridge.bridge import Bridge
from pipecat_bridge.config.load import load_options
from pipecat_bridge.events.events import CallEvent
from pipecat_bridge.options import Options
from pipecat_bridge.service import make_bridge
from tests.doubles.asterisk import StrictAsterisk, connect_asterisk
from tests.doubles.bot import BotDouble
from tests.doubles.link import Path, join
from tests.doubles.runner import RunnerDouble
from tests.doubles.watch import Watched
from tests.e2e.harness import shown_events
from tests.records import CheckedRecords, checked

LOOPBACK = "tcp:0:interface=127.0.0.1"
LOWEST_PORT = 20000

T = TypeVar("T")


class MemoryNetwork(MemoryReactorClock):
    """A reactor whose time is turned and whose TCP connections are links in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._listening: dict[int, _Port] = {}
        self.paths: dict[int, tuple[Path | None, Path | None]] = {}
        """Port -> the paths to it and back, of connections that are made from now on."""

    def callLater(
        self, delay: float, call: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        # Twisted's sorts all timers for each new one: 40 % of a test of a hundred calls.
        due = self.seconds() + delay
        timer = DelayedCall(due, call, args, kw, self.calls.remove, _nothing, self.seconds)
        insort(self.calls, timer, key=DelayedCall.getTime)
        return timer

    def callFromThread(self, call: Callable[..., object], *args: object, **kw: object) -> None:
        """What a thread tells is heard when the clock is turned."""
        self.callLater(0, call, *args, **kw)

    def _sortCalls(self) -> None:
        self.calls.sort(key=DelayedCall.getTime)

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        number = port or LOWEST_PORT + len(self._listening)
        listening = self._listening[number] = _Port(self._listening, number, factory)
        factory.doStart()
        return listening

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> IConnector:
        connector = _Connector(IPv4Address("TCP", host, port), factory)
        factory.startedConnecting(connector)
        connector.connecting = self.callLater(0, self._connect, connector, factory)
        return connector

    def _connect(self, connector: _Connector, factory: Any) -> None:
        address = connector.getDestination()
        listening = self._listening.get(address.port)
        if listening is None:
            factory.clientConnectionFailed(connector, Failure(error.ConnectionRefusedError()))
            return
        server = listening.factory.buildProtocol(address)
        near, far = join(self, factory.buildProtocol(address), server)
        near.path, far.path = self.paths.get(address.port, (None, None))

    def refuse(self, port: int, seconds: float) -> None:
        """Connections to a port are refused for so long; those that are open go on."""
        listening = self._listening.pop(port)
        self.callLater(seconds, self._listening.__setitem__, port, listening)

    def turn(self, seconds: float) -> None:
        """Let time pass from timer to timer, each at its own instant."""
        end = self.seconds() + seconds
        while self.calls and self.calls[0].getTime() <= end:
            self.advance(max(0.0, self.calls[0].getTime() - self.seconds()))
        self.advance(max(0.0, end - self.seconds()))

    def wait(self, what: Deferred[T] | Coroutine[Deferred[T], Any, T], limit: float = 10.0) -> T:
        """What a Deferred or coroutine comes to, within `limit` seconds of this clock."""
        results: list[Any] = []
        waiting = what if isinstance(what, Deferred) else Deferred.fromCoroutine(what)
        waiting.addBoth(results.append)
        end = self.seconds() + limit
        while not results and self.calls and self.calls[0].getTime() <= end:
            self.advance(max(0.0, self.calls[0].getTime() - self.seconds()))
        assert results, f"nothing came of it within {limit:g} s"
        if isinstance(results[0], Failure):
            results[0].raiseException()
        outcome: T = results[0]
        return outcome


def _nothing(_: DelayedCall) -> None:
    """A timer that is put forward is sorted before the next is called."""


@implementer(IListeningPort)
class _Port:
    def __init__(self, listening: dict[int, _Port], number: int, factory: Any) -> None:
        self._listening = listening
        self._number = number
        self.factory = factory

    def startListening(self) -> None:
        """It does from the beginning."""

    def stopListening(self) -> Deferred[None]:
        del self._listening[self._number]
        self.factory.doStop()
        return succeed(None)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", self._number)


@implementer(IConnector)
class _Connector:
    connecting: IDelayedCall

    def __init__(self, destination: IPv4Address, factory: Any) -> None:
        self._destination = destination
        self._factory = factory

    def getDestination(self) -> IPv4Address:
        return self._destination

    def connect(self) -> None:
        """It connects by itself."""

    def stopConnecting(self) -> None:
        self.connecting.cancel()
        self._factory.clientConnectionFailed(self, Failure(error.UserError()))

    def disconnect(self) -> None:
        """The link's transport does that."""


class _Told(Watched):
    """The ids of calls whose bots are ready, as the daemon tells."""

    def __init__(self) -> None:
        self.ready: set[str] = set()

    def hear(self, event: CallEvent) -> None:
        if event.kind == "call.ready":
            self.ready.add(event.call_id)
            self.changed()


class MemoryLine:
    """The daemon and its runner on one turned clock; places calls.

    `make` makes the runner, or a pool of them, for that clock; else it is a RunnerDouble. `build`
    builds the bridge from its options.
    """

    def __init__(
        self,
        *settings: str,
        make: Callable[[Any], Any] | None = None,
        build: Callable[[Options, Any, Callable[[], float]], Bridge] = make_bridge,
        **runner_options: Any,
    ) -> None:
        self.clock = MemoryNetwork()
        self.runner = make(self.clock) if make else RunnerDouble(self.clock, **runner_options)
        overrides = [
            f"audiosocket.listen={LOOPBACK}",
            f"runner.listen={LOOPBACK}",
            f"api.listen={LOOPBACK}",
            "store.url=none",
            f"runner.mode={self.runner.mode}",
            f"runner.url={self.clock.wait(self.runner.listen())}",
            "calls.drain_timeout=0",
            "api.linger=0",
            *settings,
        ]
        self.bridge = build(load_options(overrides=overrides), self.clock, self.clock.seconds)
        self.told = _Told()
        self.bridge.events.subscribe(self.told.hear)
        self.bridge.startService()

    def dial(self, **options: Any) -> StrictAsterisk:
        """A call; its audio is not started yet."""
        port: Any = self.bridge.phones.listener.port
        return self.clock.wait(connect_asterisk(self.clock, port.getHost().port, **options))

    def talk(self, **options: Any) -> tuple[StrictAsterisk, BotDouble]:
        """A call whose bot is ready, in the very instant in which it was placed."""
        phone = self.dial(**options)
        call_id = str(phone.call_id)
        self.clock.wait(self.told.until(lambda: call_id in self.told.ready))
        return phone, self.runner.bots[call_id]

    def record(self, phone: StrictAsterisk) -> dict[str, Any]:
        """The call's record."""
        return checked(self.bridge.calls.record(str(phone.call_id)))

    def events(self, phone: StrictAsterisk, kind: str = "") -> list[dict[str, Any]]:
        """The call's events as the API shows them, all of them or those of a kind."""
        return shown_events(self.bridge, phone, kind)

    def stop(self) -> None:
        """End the daemon and the runner."""
        self.clock.wait(self.bridge.stopService())
        self.clock.wait(self.runner.shut())


@contextmanager
def memory_line(*settings: str, **runner_options: Any) -> Iterator[MemoryLine]:
    """A daemon with `settings` (section.key=value), in front of a runner double."""
    loop = txaio.config.loop
    line = MemoryLine(*settings, **runner_options)
    records = CheckedRecords(line.bridge.events)
    # Autobahn takes its timers from here, whatever reactor its factories were given.
    txaio.config.loop = line.clock
    try:
        yield line
    finally:
        line.stop()
        txaio.config.loop = loop
    records.assert_good()
