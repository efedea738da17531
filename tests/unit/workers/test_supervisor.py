"""When there is a supervisor, and its state before the start."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.bridge import Bridge
from pipecat_bridge.config.load import load_options
from pipecat_bridge.service import makeService
from pipecat_bridge.workers.supervisor import Supervisor


class BuildTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def make(self, *settings: str) -> Any:
        overrides = ["runner.mode=dialback", "store.url=none", *settings]
        usage: Any = {"options": load_options(overrides=overrides)}
        return makeService(usage, self.reactor)

    def test_one_worker_is_a_bridge(self) -> None:
        for settings in ((), ("service.workers=1",)):
            self.assertIs(type(self.make(*settings)), Bridge)

    def test_several_have_a_supervisor_that_starts_nothing_yet(self) -> None:
        it = self.make("service.workers=3")
        self.assertIs(type(it), Supervisor)
        self.assertEqual((self.reactor.tcpServers, self.reactor.getDelayedCalls()), ([], []))
        self.assertEqual(list(it.switchboard.workers), [])

    def test_a_port_for_the_bots_of_each(self) -> None:
        it = self.make("service.workers=3", "runner.listen=tcp:7000:interface=127.0.0.1")
        described = [port.description for port in it.bot_ports]
        self.assertEqual(described, [f"tcp:{7000 + n}:interface=127.0.0.1" for n in range(3)])

    def test_none_where_bots_are_dialled(self) -> None:
        it = self.make("service.workers=3", "runner.mode=direct", "runner.url=ws://127.0.0.1:1")
        self.assertEqual(it.bot_ports, [])
