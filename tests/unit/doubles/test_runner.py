"""The runner double answers as told, through treq's own client in memory."""

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

    def test_refusals(self) -> None:
        for answer in ("500", "503", "429"):
            self.runner(answers=[answer])
            code, body = self.result(self.run_call())
            self.assertEqual((code, body["status"]), (int(answer), "error"))
        self.runner(answers=["error"])
        self.assertEqual(self.result(self.run_call())[1]["status"], "error")

    def test_redirect_is_not_followed_by_itself(self) -> None:
        runner = self.runner(answers=["redirect"])
        response = self.successResultOf(self.run_call())
        self.assertEqual(response.code, 307)
        self.assertEqual(runner.asked("/elsewhere"), [])

    def test_invalid_json(self) -> None:
        self.runner(answers=["bad-json"])
        response = self.successResultOf(self.run_call())
        self.assertEqual(response.code, 200)
        self.failureResultOf(response.json(), ValueError)

    def test_body_without_end(self) -> None:
        self.runner(answers=["endless"])
        response = self.successResultOf(self.run_call())
        self.treq.flush()
        self.assertNoResult(response.content())

    def test_no_answer(self) -> None:
        self.runner(answers=["hang"])
        waiting = self.run_call()
        self.treq.flush()
        self.assertNoResult(waiting)
        waiting.addErrback(lambda _: None)
        waiting.cancel()

    def test_dropped_connection(self) -> None:
        self.runner(answers=["drop"])
        waiting = self.run_call()
        self.treq.flush()
        self.failureResultOf(waiting)

    def test_slow(self) -> None:
        self.runner(answers=["slow"], slow=3.0)
        waiting = self.run_call()
        self.clock.advance(2.9)
        self.treq.flush()
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.treq.flush()
        self.assertEqual(self.result(waiting)[0], 200)

    def test_answers_come_in_turn_and_the_last_stays(self) -> None:
        self.runner(answers=["503", "500", "ok"])
        codes = [self.result(self.run_call())[0] for _ in range(4)]
        self.assertEqual(codes, [503, 500, 200, 200])

    def test_unknown_answer_is_refused(self) -> None:
        self.assertRaises(ValueError, RunnerDouble, Clock(), answers=["okay"])

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

    def test_stop_with_a_given_status(self) -> None:
        for status in (404, 500):
            self.runner(stop_status=status)
            self.result(self.run_call())
            self.assertEqual(self.stop("42"), status)

    def test_health(self) -> None:
        for status, word in ((200, "ok"), (503, "down")):
            self.runner(health_status=status)
            answer = self.result(self.treq.get(f"{URL}/health"))
            self.assertEqual(answer, (status, {"status": word}))

    def test_other_methods_and_paths(self) -> None:
        self.runner()
        self.assertEqual(self.result(self.treq.get(f"{URL}/stop?id=1"))[0], 404)
        self.assertEqual(self.result(self.treq.post(f"{URL}/start", json={}))[0], 404)
