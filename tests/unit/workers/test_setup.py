"""What a worker is told."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.config.load import load_options
from pipecat_bridge.options import Options
from pipecat_bridge.workers.setup import NOWHERE, Setup, worker_options


class WorkerOptionsTests(SynchronousTestCase):
    def of(self, number: int, port: int, *settings: str) -> Options:
        options = load_options(overrides=["service.workers=3", *settings])
        return worker_options(options, number, port)

    def test_it_listens_nowhere_and_has_no_workers_itself(self) -> None:
        options = self.of(2, 8002, "audiosocket.listen=systemd:INET:name=x", "api.listen=tcp:80")
        self.assertEqual((options.audiosocket.listen, options.api.listen), (NOWHERE, NOWHERE))
        self.assertEqual(options.service.workers, 1)
        self.assertEqual(options.calls.drain_timeout, 0)

    def test_the_embedded_runner_is_one_that_dials_back(self) -> None:
        runner = self.of(1, 8001, "runner.url=http://10.0.0.1:1").runner
        self.assertEqual((runner.mode, runner.urls), ("dialback", ["http://127.0.0.1"]))

    def test_other_runners_stay_as_they_are(self) -> None:
        runner = self.of(1, 0, "runner.mode=direct", "runner.url=ws://10.0.0.1:1").runner
        self.assertEqual((runner.mode, runner.urls), ("direct", ["ws://10.0.0.1:1"]))

    def test_its_address(self) -> None:
        template = "runner.dialback_url=ws://h:{port}/{worker}"
        self.assertEqual(self.of(3, 8003, template).runner.dialback_url, "ws://h:8003/3")
        self.assertEqual(self.of(3, 8003).runner.dialback_url, "")

    def test_what_is_limited_in_all_is_shared_out(self) -> None:
        settings = ("runner.max_requests=50", "runner.max_idle_connections=100")
        runner = self.of(1, 0, *settings, "runner.max_idle_per_host=1").runner
        shares = (runner.max_requests, runner.max_idle_connections, runner.max_idle_per_host)
        self.assertEqual(shares, (16, 33, 1))

    def test_everything_else_is_the_same_and_arrives_whole(self) -> None:
        settings = (
            'runner.parameters={llm_key = "x", llm_messages = [{role = "system"}], n = 1.5}',
            'audiosocket.allow=["10.0.0.0/8"]',
            "calls.max_calls=7",
            'runner.url=["http://a:1", "http://b:2"]',
            "runner.mode=dialback",
        )
        options = self.of(1, 8001, *settings)
        setup = Setup(1, options, "x", listens=True, proxied=False, embedded=True)
        there = msgspec.json.decode(msgspec.json.encode(setup), type=Setup)
        self.assertEqual(there, setup)
        self.assertEqual(there.options.runner.parameters["llm_messages"], [{"role": "system"}])
        self.assertEqual(
            (there.options.calls.max_calls, there.options.runner.urls[1]), (7, "http://b:2")
        )
