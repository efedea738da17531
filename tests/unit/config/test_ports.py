"""The ports and addresses of several workers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.config.load import ConfigError, load_options
from pipecat_bridge.net.ports import filled, shifted


class ShiftTests(SynchronousTestCase):
    def test_the_next_ports(self) -> None:
        for listen, by, expected in (
            ("tcp:8001", 0, "tcp:8001"),
            ("tcp:8001:interface=127.0.0.1", 2, "tcp:8003:interface=127.0.0.1"),
            (r"tcp6:8001:interface=\:\:1", 1, r"tcp6:8002:interface=\:\:1"),
            ("haproxy:tcp:8001:backlog=100", 1, "haproxy:tcp:8002:backlog=100"),
            ("tcp:0:interface=127.0.0.1", 3, "tcp:0:interface=127.0.0.1"),
        ):
            self.assertEqual(shifted(listen, by), expected)

    def test_no_numbered_port(self) -> None:
        for listen in ("unix:/run/x", "systemd:INET:index=0", "tls:/etc/certs:8001", "tcp:80x"):
            with self.assertRaises(ValueError):
                shifted(listen, 1)

    def test_beyond_the_last_port(self) -> None:
        self.assertEqual(shifted("tcp:65534", 1), "tcp:65535")
        with self.assertRaises(ValueError) as caught:
            shifted("tcp:65534", 2)
        self.assertEqual(str(caught.exception), "port 65536 does not exist")


class FillTests(SynchronousTestCase):
    def test_worker_and_port(self) -> None:
        self.assertEqual(filled("ws://h:{port}/{worker}", 2, 8002), "ws://h:8002/2")
        self.assertEqual(filled("ws://h:8001", 2, 8002), "ws://h:8001")


class FaultTests(SynchronousTestCase):
    def faults(self, *settings: str) -> list[str]:
        try:
            load_options(overrides=settings)
        except ConfigError as error:
            return str(error).splitlines()
        return []

    def test_what_several_workers_cannot_share(self) -> None:
        for setting, sentence in (
            (
                "audiosocket.listen=ssl:9092",
                "because the UUID of a call decides which worker gets it",
            ),
            ("runner.listen=unix:/run/bots", "expected tcp: or tcp6: with the number of a port"),
            ("runner.listen=systemd:INET:name=bots", "expected tcp: or tcp6:"),
            ("runner.listen=tcp:65535", "port 65536 does not exist"),
            ("runner.dialback_url=ws://h:8001", "expected {worker} or {port} in it"),
        ):
            faults = self.faults("service.workers=2", "runner.mode=dialback", setting)
            self.assertTrue(any(sentence in fault for fault in faults), (setting, faults))
            self.assertIn("[service] workers = 2", faults[-1])

    def test_what_they_can(self) -> None:
        for settings in (
            ("runner.dialback_url=ws://h:{port}",),
            ("runner.dialback_url=wss://h/{worker}",),
            ("audiosocket.listen=haproxy:tcp:9092",),
            ("audiosocket.listen=systemd:INET:name=phones",),
            ("runner.mode=direct", "runner.url=ws://h:1", "runner.dialback_url=ws://h:1"),
            ("runner.mode=direct", "runner.url=ws://h:1", "runner.listen=tls:/x:1"),
        ):
            faults = self.faults("service.workers=4", "runner.mode=dialback", *settings)
            self.assertEqual([fault for fault in faults if "workers" in fault], [], settings)

    def test_one_worker_shares_nothing(self) -> None:
        for setting in (
            "runner.dialback_url=ws://h:8001",
            "runner.dialback_url=ws://h:{port}",
            "runner.listen=tcp:65535",
        ):
            self.assertEqual(self.faults("service.workers=1", setting), [])

    def test_no_workers(self) -> None:
        [fault] = self.faults("service.workers=0")
        self.assertIn("[service] workers = 0: expected a whole number from 1 to 256", fault)
