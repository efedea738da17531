"""The setup of a worker."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.config.load import load_options
from pipecat_bridge.options import Options
from pipecat_bridge.workers.setup import Setup, worker_options


class WorkerOptionsTests(SynchronousTestCase):
    def of(self, number: int, port: int, *settings: str) -> Options:
        options = load_options(overrides=["service.workers=3", *settings])
        return worker_options(options, number, port)

    def test_it_has_no_workers_itself_and_does_not_wait_at_the_end(self) -> None:
        options = self.of(2, 8002)
        self.assertEqual(options.service.workers, 1)
        self.assertEqual((options.calls.drain_timeout, options.api.linger), (0, 0))

    def test_runners_stay_as_they_are(self) -> None:
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
        setup = Setup(1, options, "x", listens=True, proxied=False)
        there = msgspec.json.decode(msgspec.json.encode(setup), type=Setup)
        self.assertEqual(there, setup)
        self.assertEqual(there.options.runner.parameters["llm_messages"], [{"role": "system"}])
        self.assertEqual(
            (there.options.calls.max_calls, there.options.runner.urls[1]), (7, "http://b:2")
        )
