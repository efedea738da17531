"""The runner double answers as Pipecat's runner does, through treq's own client in memory."""

from __future__ import annotations

from typing import Any

from treq.testing import StubTreq
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles.runner import RunnerDouble

BODY = {"id": "42", "ws_url": "ws://127.0.0.1:1/42/ws", "stt_type": "local"}
URL = "http://127.0.0.1:8000"


class RunnerCase(SynchronousTestCase):
    def runner(self, **options: Any) -> RunnerDouble:
        self.clock = Clock()
        runner = RunnerDouble(self.clock, **{"dial_delay": None, **options})
        self.treq = StubTreq(runner)
        return runner

    def run_call(self, body: Any = BODY) -> Any:
        return self.treq.post(f"{URL}/run", json=body, allow_redirects=False)

    def result(self, deferred: Any) -> tuple[int, Any]:
        response = self.successResultOf(deferred)
        return response.code, self.successResultOf(response.json())


class RunTests(RunnerCase):
    def test_ok(self) -> None:
        runner = self.runner()
        self.assertEqual(self.result(self.run_call()), (200, {"status": "ok", "id": "42"}))
        [request] = runner.asked("/run")
        self.assertEqual((request.method, request.body), ("POST", BODY))
        self.assertEqual(request.headers["content-type"], "application/json; charset=UTF-8")
        self.assertEqual((runner.faults, runner.bots), ([], {}))

    def test_incomplete_body_is_a_fault(self) -> None:
        runner = self.runner()
        for body in ({"id": "42"}, {"ws_url": "ws://x/"}, [1]):
            self.assertEqual(self.result(self.run_call(body))[0], 400)
        self.assertEqual(len(runner.faults), 3)


class OtherTests(RunnerCase):
    def stop(self, call_id: str) -> int:
        return self.result(self.treq.post(f"{URL}/stop", params={"id": call_id}))[0]

    def test_stop_knows_what_runs(self) -> None:
        runner = self.runner()
        self.result(self.run_call())
        self.assertEqual([self.stop(call_id) for call_id in ("42", "42", "7")], [200, 404, 404])
        self.assertEqual(
            [request.args["id"] for request in runner.asked("/stop")], ["42"] * 2 + ["7"]
        )

    def test_health(self) -> None:
        for status, word in ((200, "ok"), (503, "down")):
            self.runner(health_status=status)
            answer = self.result(self.treq.get(f"{URL}/health"))
            self.assertEqual(answer, (status, {"status": word}))
