"""The API in memory: every route, wrong requests, and secrets that are never shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from msgspec.structs import replace
from treq.testing import StubTreq
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import getChildForRequest
from twisted.web.test.requesthelper import DummyRequest

from pipecat_bridge.call import ended, preparations
from pipecat_bridge.call.life import Outcome, State
from pipecat_bridge.call.preparations import NoRoomError
from pipecat_bridge.call.record import record
from pipecat_bridge.call.variables import MAX_BYTES
from pipecat_bridge.events.kinds import KINDS, VERSION
from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.net.rate_limit import BURST, BoundedLog
from pipecat_bridge.web.api import ApiSite, api_site
from pipecat_bridge.web.calls import OUTCOME
from pipecat_bridge.web.metrics import CallCollector, registry
from pipecat_bridge.web.preparation import MAX_DOUBTS, RUNNER_PARAMETERS
from pipecat_bridge.web.resource import JSONResource, NotFound
from pipecat_bridge.wire.commands import (
    MAX_NAME,
    MAX_REASON,
    MAX_TARGET,
    CommandError,
    SetVariables,
    Transfer,
)
from pipecat_bridge.wire.rtvi import BotOutput, BotStartedSpeaking, UserTranscription
from tests.unit.sides import Exchange

UUID = "b5f6a3c8-3f0e-4f3a-9d5e-2b8f0a1c4d7e"
SECRET = "sk-very-secret"
HOW_IT_ENDED = {"outcome", "reason", "ended_by"}
PAGE = Path(__file__).parents[3] / "docs" / "api.md"
RECORDS = PAGE.with_name("records.md")

ROUTES = {
    "/healthz": {"GET"},
    "/readyz": {"GET"},
    "/metrics": {"GET"},
    "/v1/calls": {"GET", "DELETE"},
    "/v1/calls.csv": {"GET"},
    "/v1/calls/{id}": {"GET", "PUT", "POST", "DELETE"},
    "/v1/calls/{id}/recording": {"GET", "POST"},
    "/v1/calls/{id}/vcon": {"GET"},
    "/v1/webhooks": {"GET"},
    "/v1/webhooks/{name}/dead": {"GET", "POST"},
    "/v1/calls/{id}/outcome": {"GET"},
    "/v1/calls/{id}/transcript": {"GET"},
    "/v1/calls/{id}/events": {"GET"},
    "/v1/calls/{id}/transfer": {"GET"},
    "/v1/calls/{id}/variables/{name}": {"GET"},
    "/v1/calls/{id}/stop": {"POST"},
    "/v1/calls/{id}/messages": {"POST"},
}


class ApiCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.serve()

    def serve(self, **options: Any) -> None:
        self.exchange = Exchange(**options)
        faults = BoundedLog(Logger(), self.exchange.clock.seconds)
        self.patch(JSONResource, "_faults", faults)
        self.calls = self.exchange.calls
        self.reachable: Deferred[bool] = succeed(True)
        self.descriptors = Descriptors(self.exchange.clock)
        metrics = registry(CallCollector(self.calls))
        clock = self.exchange.clock
        site = api_site(clock, self.calls, None, lambda: self.reachable, self.descriptors, metrics)
        self.assertIsInstance(site, ApiSite)
        self.treq = StubTreq(site.resource)

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Status and JSON; `body` as JSON, bytes as they are."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        asked = self.treq.request(method, f"http://bridge{path}", data=data, **options)
        self.treq.flush()
        response = self.successResultOf(asked)
        self.headers = response.headers
        content = self.successResultOf(response.content())
        self.content_type = (self.headers.getRawHeaders("content-type") or [""])[0]
        if self.content_type == "application/json":
            self.assertNotIn(SECRET.encode(), content)
            return response.code, json.loads(content) if content else None
        return response.code, content

    def problem(self, status: int, *request: Any, **options: Any) -> str:
        """The sentence of a request that is answered with `status`."""
        found, answer = self.ask(*request, **options)
        self.assertEqual((found, list(answer)), (status, ["error"]))
        text: str = answer["error"]
        self.assertGreater(len(text.split()), 3, "a sentence")
        return text


class RouteTests(ApiCase):
    def test_methods(self) -> None:
        for path, methods in ROUTES.items():
            path = path.format(id=UUID, name="TOPIC")
            for method in {"GET", "PUT", "POST", "DELETE", "PATCH", "BREW", "HEAD"} - methods:
                if method == "HEAD" and "GET" in methods:
                    status, _ = self.ask("HEAD", path)
                    self.assertIn(status, (200, 404))
                    continue
                status, answer = self.ask(method, path)
                self.assertEqual(status, 405, f"{method} {path}")
                allowed = ", ".join(sorted(methods))
                self.assertEqual(self.headers.getRawHeaders("allow"), [allowed])
                if method != "HEAD":
                    wanted = f"{method} is not allowed here: use {allowed}"
                    self.assertEqual(answer, {"error": wanted})

    def test_nothing_there(self) -> None:
        for path in (
            "/",
            "/v1",
            "/v1/",
            "/v2/calls",
            "/v1/callss",
            f"/v1/calls/{UUID}/x",
            f"/v1/calls/{UUID}/stop/x",
            "/%ff%00",
            "/v1/calls/a/b/c",
        ):
            for method in ("GET", "POST"):
                self.assertIn("/v1/calls", self.problem(404, method, path))

    def test_thousands_of_parts_make_one_resource(self) -> None:
        request = DummyRequest([b""] * 1000)
        found = getChildForRequest(NotFound(), request)
        self.assertEqual(len(request.postpath), 999)
        found.render(request)
        self.assertEqual(request.responseCode, 404)

    def test_formats_of_the_metrics(self) -> None:
        for accept, expected in (
            ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text"),
            ("application/openmetrics-text;version=a", "text/plain"),
            ("application/openmetrics-text;version=1.x", "text/plain"),
            ("text/plain;version=" + "9" * 5000, "text/plain"),
            ("\N{SNOWMAN}", "text/plain"),
        ):
            status, _ = self.ask("GET", "/metrics", headers={"accept": accept.encode()})
            self.assertEqual((status, self.content_type.split(";")[0]), (200, expected))

    def test_health(self) -> None:
        self.assertEqual(self.ask("GET", "/healthz"), (200, {"status": "ok"}))

    def test_a_slash_at_the_end_does_no_harm(self) -> None:
        self.exchange.talk(UUID)
        self.assertEqual(self.ask("GET", "/v1/calls/"), self.ask("GET", "/v1/calls"))
        self.assertEqual(self.ask("GET", f"/v1/calls/{UUID}/")[0], 200)
        self.assertEqual(self.ask("POST", f"/v1/calls/{UUID}/stop/")[0], 200)

    def test_the_page_names_every_route_and_parameter(self) -> None:
        text = PAGE.read_text("utf-8")
        for path, methods in ROUTES.items():
            for method in methods:
                self.assertIn(f"`{method} {path}`", text)
        for name in RUNNER_PARAMETERS:
            self.assertIn(f"`{name}`", text)

    def test_the_page_names_every_state_outcome_event_and_counter(self) -> None:
        text = PAGE.read_text("utf-8") + RECORDS.read_text("utf-8")
        words = {*(one.value for one in (*State, *Outcome)), *KINDS, *OUTCOME}
        self.assertEqual([word for word in sorted(words) if f"`{word}`" not in text], [])


class ShowTests(ApiCase):
    def test_none(self) -> None:
        self.assertEqual(self.ask("GET", "/v1/calls"), (200, {"calls": []}))

    def test_the_list(self) -> None:
        first, _, _ = self.exchange.talk()
        second, _, _ = self.exchange.talk()
        first.phone_gone()
        _, answer = self.ask("GET", "/v1/calls")
        running, ended = sorted(answer["calls"], key=lambda shown: "ended_at" in shown)
        self.assertEqual((running["id"], running["state"]), (second.call_id, "talking"))
        self.assertEqual((ended["id"], ended["outcome"]), (first.call_id, "caller-hangup"))
        self.assertNotIn("outcome", running)
        self.assertEqual(set(ended) - set(running), {"ended_at", "duration"} | HOW_IT_ENDED)
        self.assertEqual(set(running) - set(ended), set())

    def test_a_call_from_before_it_comes_to_after_its_end(self) -> None:
        path = f"/v1/calls/{UUID}"
        self.ask("PUT", path, {"metadata": {"caller": "1"}})
        prepared = {"id": UUID, "state": "prepared", "metadata": {"caller": "1"}}
        self.assertEqual(self.ask("GET", path), (200, prepared))
        call, phone, _ = self.exchange.call(UUID)
        for happens, state in (
            (lambda: None, "starting"),
            (lambda: call.bot_ready("bot-ready"), "talking"),
            (call.bot_ended, "finishing"),
            (lambda: phone.play(1.0), "ended"),
        ):
            happens()
            status, answer = self.ask("GET", path)
            self.assertEqual((status, answer["id"], answer["state"]), (200, UUID, state))
            self.assertEqual(answer["metadata"], {"caller": "1"})
        self.assertEqual(answer["outcome"], "completed")
        self.assertEqual(answer["quality"]["caller_frames"], 0)
        self.assertEqual(self.exchange.data("call.ended"), [{"record": answer}])

    def test_what_has_no_value_is_left_out(self) -> None:
        call, _, _ = self.exchange.call(UUID)
        _, answer = self.ask("GET", f"/v1/calls/{UUID}")
        unknown = {"ready_at", "caller", "called", "bot_rate", "transfer", "recording"}
        self.assertEqual(set(answer) & (unknown | HOW_IT_ENDED), set())
        for name in ("metadata", "variables", "errors", "warnings"):
            self.assertEqual(answer[name], {})
        self.assertNotIn("bot_delay_ms", answer["quality"])
        self.assertNotIn(None, (*answer.values(), *answer["quality"].values()))
        call.stop()

    def test_the_transcript(self) -> None:
        path = f"/v1/calls/{UUID}/transcript"
        plain = {"accept": "text/plain"}
        call, _, _ = self.exchange.talk(UUID)
        self.assertEqual(self.ask("GET", path), (200, {"id": UUID, "turns": []}))
        self.assertEqual(self.ask("GET", path, headers=plain), (200, b""))
        call.bot_event(UserTranscription("ja,\nbot: nein"))
        call.bot_event(BotStartedSpeaking())
        call.bot_event(BotOutput("Schön!", spoken=True))
        call.transcript.bot_gone()
        for _ in range(2):
            _, answer = self.ask("GET", path.replace(UUID, UUID.upper()))
            self.assertEqual(answer["id"], UUID)
            said = [(turn["speaker"], turn["text"]) for turn in answer["turns"]]
            self.assertEqual(said, [("caller", "ja, bot: nein"), ("bot", "Schön!")])
            self.assertEqual(answer["turns"], self.exchange.data("turn"))
            text = "caller: ja, bot: nein\nbot: Schön!\n".encode()
            self.assertEqual(self.ask("GET", path, headers=plain), (200, text))
            self.assertEqual(self.content_type, "text/plain; charset=utf-8")
            call.stop()

    def test_events(self) -> None:
        path = f"/v1/calls/{UUID}/events"
        call, _, _ = self.exchange.talk(UUID)
        call.caller_digit("5")
        told = [event for event in self.exchange.told if event.public]
        for _ in range(2):
            _, answer = self.ask("GET", path.replace(UUID, UUID.upper()))
            self.assertEqual(answer["id"], UUID)
            for shown, event in zip(answer["events"], told, strict=True):
                self.assertEqual((shown["id"], shown["kind"]), (event.id, event.kind))
                self.assertEqual((shown["time"], shown["version"]), (event.time, VERSION))
                self.assertEqual((shown["call_id"], shown["data"]), (UUID, json.loads(event.body)))
            call.stop()
        self.assertEqual(answer["events"][-1]["data"], {"digit": "5"})

    def test_ids_in_other_letters(self) -> None:
        call, _, _ = self.exchange.talk(UUID)
        encoded = "".join(f"%{ord(letter):02x}" for letter in UUID)
        for form in (UUID.upper(), quote(UUID, safe=""), encoded):
            self.assertEqual(self.ask("GET", f"/v1/calls/{form}")[1]["id"], call.call_id)

    def test_unknown_ids(self) -> None:
        for form in (UUID, "x", "%2F..%2F", "%ff%fe", "%22%7B", "x" * 2000):
            text = self.problem(404, "GET", f"/v1/calls/{form}")
            self.assertIn("see /v1/calls", text)
            self.assertIn("is running", self.problem(404, "POST", f"/v1/calls/{form}/stop"))
            self.problem(404, "POST", f"/v1/calls/{form}/messages", {"text": "x"})
            for what in ("transcript", "events"):
                text = self.problem(404, "GET", f"/v1/calls/{form}/{what}")
                self.assertIn("see /v1/calls", text)

    def test_the_outcome_for_the_dialplan(self) -> None:
        path = f"/v1/calls/{UUID}/outcome"
        self.problem(404, "GET", path)
        self.ask("PUT", f"/v1/calls/{UUID}", {"metadata": {"caller": "1" * 5000}})
        unknown = dict.fromkeys(OUTCOME) | {"id": UUID}
        self.assertEqual(self.ask("GET", path), (200, {**unknown, "state": "prepared"}))
        call, phone, _ = self.exchange.call(UUID)
        starting = {**unknown, "state": "starting", "variables": {}}
        self.assertEqual(self.ask("GET", path), (200, starting))
        call.bot_ready("bot-ready")
        call.bot_command(SetVariables({"TOPIC": "billing"}))
        call.bot_command(Transfer("support"))
        phone.play(0.2)
        ended = {"outcome": "transferred", "transfer": "support", "variables": {"TOPIC": "billing"}}
        ended |= {"id": UUID, "state": "ended", "reason": "the bot transferred the caller"}
        self.assertEqual(self.ask("GET", path), (200, ended))

    def test_it_fits_into_a_variable_of_asterisks(self) -> None:
        """At most 4095 bytes, whatever a bot sends: JSON that was cut off cannot be read."""
        widest = "\N{GRINNING FACE}"
        call, phone, _ = self.exchange.talk(UUID)
        room = (MAX_BYTES - MAX_NAME - 10) // 2
        call.bot_command(SetVariables({"N" * MAX_NAME: "\\" * room}))
        with self.assertRaises(CommandError):
            call.bot_command(SetVariables({"M": "\\" * 10}))
        call.bot_command(Transfer(widest * MAX_TARGET))
        self.patch(ended, "record", lambda call: replace(record(call), reason=widest * MAX_REASON))
        phone.play(0.2)
        _, answer = self.ask("GET", f"/v1/calls/{UUID}/outcome")
        self.assertEqual(len(answer["reason"]), MAX_REASON)
        self.assertLess(len(json.dumps(answer, ensure_ascii=False).encode()), 4096)


class ValueTests(ApiCase):
    """What CURL() in the dialplan gets: the value, or nothing, since it ignores the status."""

    transfer = f"/v1/calls/{UUID}/transfer"
    nothing = (404, b"")

    def variable(self, name: str, call_id: str = UUID) -> tuple[int, Any]:
        answer = self.ask("GET", f"/v1/calls/{call_id}/variables/{name}")
        self.assertEqual(self.content_type, "text/plain; charset=utf-8")
        return answer

    def test_variables_while_the_call_runs_and_after(self) -> None:
        call, _, _ = self.exchange.talk(UUID)
        call.bot_command(SetVariables({"TOPIC": "Störung, Leitung 2", "EMPTY": "", "N_1": "0"}))
        for _ in range(2):
            self.assertEqual(self.variable("TOPIC"), (200, "Störung, Leitung 2".encode()))
            self.assertEqual(self.variable("TOPIC", UUID.upper())[0], 200)
            self.assertEqual(self.variable("EMPTY"), (200, b""))
            self.assertEqual(self.variable("N_1"), (200, b"0"))
            for unknown in ("topic", "TOPI", "TOPIC%20", "%ff", "a%2Fb", ""):
                self.assertEqual(self.variable(unknown), self.nothing)
            call.stop()

    def test_the_target_of_a_transfer(self) -> None:
        call, phone, _ = self.exchange.talk(UUID)
        self.assertEqual(self.ask("GET", self.transfer), self.nothing)
        call.bot_command(Transfer("support"))
        for _ in range(2):
            self.assertEqual(self.ask("GET", self.transfer), (200, b"support"))
            self.assertEqual(self.content_type, "text/plain; charset=utf-8")
            phone.play(0.2)

    def test_no_such_call_is_nothing_and_no_sentence(self) -> None:
        for form in (UUID, "x", "%ff", "x" * 2000):
            self.assertEqual(self.variable("TOPIC", form), self.nothing)
            self.assertEqual(self.ask("GET", f"/v1/calls/{form}/transfer"), self.nothing)
        self.ask("PUT", f"/v1/calls/{UUID}")
        self.assertEqual(self.variable("TOPIC"), self.nothing)
        self.assertEqual(self.ask("GET", self.transfer), self.nothing)

    def test_nothing_is_below_them(self) -> None:
        self.exchange.talk(UUID)
        for path in (f"/v1/calls/{UUID}/variables/A/B", f"{self.transfer}/x"):
            self.problem(404, "GET", path)


class PrepareTests(ApiCase):
    path = f"/v1/calls/{UUID}"

    def request(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parameters and metadata as the runner gets them."""
        prepared = self.calls.prepared(UUID)
        assert prepared is not None
        return prepared.parameters, prepared.metadata

    def test_json(self) -> None:
        parameters = {name: f"the {name}" for name in RUNNER_PARAMETERS}
        parameters["llm_messages"] = [{"role": "system", "content": "ä"}]  # type: ignore[assignment]
        metadata = {"caller": "+49 30 1", "variables": {"a": [1, None, True, 2.5]}}
        for method in ("PUT", "POST"):
            answer = self.ask(method, self.path, {**parameters, "metadata": metadata})
            wanted = {"id": UUID, "state": "prepared", "expires_in": 60.0}
            self.assertEqual(answer, (201, wanted))
            self.assertEqual(self.request(), (parameters, metadata))

    def test_nothing_to_tell(self) -> None:
        for body in (None, b"", b"  \n", b"{}"):
            self.assertEqual(self.ask("PUT", self.path, body)[0], 201)
            self.assertEqual(self.request(), ({}, {}))

    def test_a_form_as_asterisks_curl_posts_it(self) -> None:
        body = b"caller=%2B49+30+1&name=J%C3%BCrgen&empty=&llm_type=openai.gpt-4o&llm_key=" + (
            SECRET.encode()
        )
        form = {"content-type": "application/x-www-form-urlencoded"}
        for headers in (form, {}, {"content-type": "text/plain"}):
            self.assertEqual(self.ask("POST", self.path, body, headers=headers)[0], 201)
            parameters = {"llm_type": "openai.gpt-4o", "llm_key": SECRET}
            metadata = {"caller": "+49 30 1", "name": "Jürgen", "empty": ""}
            self.assertEqual(self.request(), (parameters, metadata))

    def test_json_that_calls_itself_a_form_as_curl_does(self) -> None:
        form = {"content-type": "application/x-www-form-urlencoded"}
        body = {"metadata": {"a": "b=c&d=e"}}
        self.assertEqual(self.ask("POST", self.path, body, headers=form)[0], 201)
        self.assertEqual(self.request(), ({}, {"a": "b=c&d=e"}))

    def test_wrong_bodies(self) -> None:
        for body, expected in (
            (b"[1]", "Expected `object`"),
            (b'["a=b"]', "Expected `object`"),
            (b'"a=b"', "Expected `object`"),
            (b"1", "Expected `object`"),
            (b"null", "Expected `object`"),
            (b"nonsense", "neither a JSON object nor a form"),
            (b'{"metadata": ', "truncated"),
            (b'{"metadata": "\xff"}', "utf-8"),
            (b'{"metadata": {"a": "\\ud800"}}', "JSON"),
            (b'{"metadata": {"a": 1e999}}', "out of range"),
            (b'{"metadata": []}', '"metadata" must be an object'),
            (b'{"metadata": null}', '"metadata" must be an object'),
            (b'{"caller": "1"}', 'unknown key "caller": expected metadata, llm_key'),
            (b'{"id": "1"}', 'unknown key "id"'),
            (b'{"ws_url": "1"}', 'unknown key "ws_url"'),
            (b'{"metadata":' + b'{"a":' * 40 + b"1" + b"}" * 41, "nested deeper than"),
            (b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "JSON"),
        ):
            # msgspec's own words, of which releases write "utf-8" and "UTF-8".
            problem = self.problem(400, "PUT", self.path, body).lower()
            self.assertIn(expected.lower(), problem)
            self.assertIsNone(self.calls.prepared(UUID))

    def test_messages_of_the_model_are_a_list(self) -> None:
        form = "caller=1&llm_messages=" + quote('[{"role": "system", "content": "Be brief."}]')
        self.assertEqual(self.ask("POST", self.path, form.encode())[0], 201)
        prepared = self.calls.prepared(UUID)
        assert prepared is not None
        messages = [{"role": "system", "content": "Be brief."}]
        self.assertEqual(prepared.parameters, {"llm_messages": messages})
        for body in (b"caller=1&llm_messages=Be+brief", b"llm_messages=[1]", b"llm_messages={}"):
            self.assertIn("llm_messages", self.problem(400, "POST", self.path, body))
        for wrong in ("Be brief", {"role": "system"}, ["Be brief"], None):
            text = self.problem(400, "PUT", self.path, {"llm_messages": wrong})
            self.assertIn("expected a list of objects", text)

    def warnings(self) -> list[str]:
        return [told["text"] for told in self.exchange.data("warning")]

    def test_what_a_dialplan_did_not_encode_is_told_with_the_call(self) -> None:
        for body, expected in (
            (b"caller=+4930123456&called=604", "caller begins with a space"),
            (b"caller=42&name=Smith & Sons", "a field ' Sons'"),
            (b"caller=%2B4930123456&name=Smith%20%26%20Sons&note=+2 apples", None),
            (b"caller=&called=604", None),
        ):
            self.exchange.told.clear()
            call_id = str(uuid4())
            self.assertEqual(self.ask("POST", f"/v1/calls/{call_id}", body)[0], 201)
            call, _, _ = self.exchange.call(call_id)
            self.assertEqual(len(self.warnings()), int(expected is not None))
            if expected is not None:
                self.assertIn(expected, self.warnings()[0])
                self.assertIn("URIENCODE()", self.warnings()[0])
                self.assertEqual(record(call).warnings, {"metadata": 1})

    def test_a_form_with_thousands_of_wrong_fields(self) -> None:
        self.assertEqual(
            self.ask("POST", self.path, b"&".join([b"+%d=1" % n for n in range(5000)]))[0], 201
        )
        call, _, _ = self.exchange.call(UUID)
        self.assertEqual(record(call).warnings, {"metadata": MAX_DOUBTS})
        self.assertEqual(len(self.warnings()), 1)

    def test_too_much_for_all_calls_together(self) -> None:
        self.patch(preparations, "MAX_BYTES", 1000)
        others = [f"/v1/calls/{uuid4()}" for _ in range(3)]
        for path in others:
            self.assertEqual(self.ask("PUT", path, {"metadata": {"a": "x" * 200}})[0], 201)
        text = self.problem(503, "PUT", self.path, {"metadata": {"a": "x" * 400}})
        self.assertIn("has more than 1000 bytes", text)
        self.assertEqual([self.ask("GET", path)[0] for path in others], [200] * 3)
        self.assertEqual(self.ask("GET", self.path)[0], 404)

    def test_a_call_that_comes_too_late_for_what_was_prepared(self) -> None:
        self.ask("PUT", self.path, {"metadata": {"caller": "1"}})
        self.exchange.clock.advance(60.3)
        call, _, bot = self.exchange.call(UUID)
        self.assertEqual(bot.request.metadata, {})
        self.assertIn("came 0.3 s after its preparation had expired", self.warnings()[0])
        call.stop()
        self.exchange.told.clear()
        self.exchange.call(UUID)
        self.assertEqual(self.warnings(), [], "told once")

    def test_a_call_that_would_not_be_served_is_not_prepared(self) -> None:
        self.exchange.runner.why_none = "no runner is left: it gets no calls"
        self.assertEqual(self.problem(503, "PUT", self.path, {}), self.exchange.runner.why_none)
        self.exchange.runner.why_none = ""
        self.exchange = Exchange(max_calls=1)
        self.calls = self.exchange.calls
        self.exchange.call()
        with self.assertRaises(NoRoomError) as full:
            self.calls.prepare(UUID, {}, {})
        self.assertIn("the limit of [calls] max_calls", str(full.exception))
        self.assertIsNone(self.calls.prepared(UUID))

    def test_ids_that_say_running(self) -> None:
        self.assertIn("is not a UUID", self.problem(400, "PUT", "/v1/calls/running-late", {}))

    def test_ids_that_are_none(self) -> None:
        for form in ("42", UUID.replace("-", ""), "%7B" + UUID + "%7D"):
            text = self.problem(400, "PUT", f"/v1/calls/{form}", {})
            self.assertIn("is not a UUID in its 36-character form", text)

    def test_a_call_that_runs(self) -> None:
        self.exchange.talk(UUID)
        self.assertIn("running already", self.problem(409, "PUT", self.path, {}))

    def test_nothing_is_prepared_while_the_daemon_is_stopped(self) -> None:
        self.calls.drain()
        self.assertIn("being stopped", self.problem(503, "PUT", self.path, {}))
        self.assertIsNone(self.calls.prepared(UUID))

    def test_keys_are_never_shown(self) -> None:
        self.ask("PUT", self.path, {"llm_key": SECRET, "metadata": {"caller": "1"}})
        self.ask("GET", self.path)
        call, _, bot = self.exchange.call(UUID)
        self.assertEqual(bot.request.parameters, {"llm_key": SECRET})
        paths = ("/v1/calls", self.path, "/metrics", "/readyz")
        for happens in (lambda: None, lambda: call.bot_ready("bot-ready"), call.stop):
            happens()
            for path in paths:
                _, answer = self.ask("GET", path)
                self.assertNotIn(SECRET, str(answer))
        self.assertNotIn(SECRET, str(self.exchange.told))


class SteerTests(ApiCase):
    def test_stop(self) -> None:
        call, phone, bot = self.exchange.talk(UUID)
        self.exchange.say(bot, 2.0)
        status, answer = self.ask("POST", f"/v1/calls/{UUID.upper()}/stop")
        self.assertEqual((status, answer["state"], answer["outcome"]), (200, "ended", "stopped"))
        self.assertEqual((answer["reason"], len(phone.hangups)), ("stopped over the API", 1))
        self.assertIs(call.state, State.ENDED)
        self.problem(404, "POST", f"/v1/calls/{UUID}/stop")

    def test_stop_where_no_records_are_kept(self) -> None:
        self.serve(keep_ended=0)
        self.exchange.talk(UUID)
        self.assertEqual(self.ask("POST", f"/v1/calls/{UUID}/stop")[1]["outcome"], "stopped")

    def test_a_call_that_is_only_prepared_cannot_be_stopped(self) -> None:
        self.ask("PUT", f"/v1/calls/{UUID}")
        self.problem(404, "POST", f"/v1/calls/{UUID}/stop")

    def test_messages(self) -> None:
        _, _, bot = self.exchange.call(UUID)
        path = f"/v1/calls/{UUID}/messages"
        for body, options in (
            ({"text": "hellö"}, (True, True)),
            ({"text": "hellö", "run_immediately": False}, (False, True)),
            ({"text": "hellö", "audio_response": False}, (True, False)),
        ):
            self.assertEqual(self.ask("POST", path, body), (202, {"id": UUID, "sent": True}))
            self.assertEqual(bot.link.texts[-1], ("hellö", *options))
        self.assertEqual(len(bot.link.texts), 3)

    def test_messages_that_are_wrong(self) -> None:
        _, _, bot = self.exchange.call(UUID)
        for body in (
            b"",
            b"text=hello",
            b"[]",
            b"{}",
            b'{"text": 5}',
            b'{"text": "a", "run_immediately": 1}',
            b'{"text": "a", "run": true}',
            b'{"text": "\\ud800"}',
            b'{"text": "\xff"}',
            b'{"a":' * 100_000,
        ):
            text = self.problem(400, "POST", f"/v1/calls/{UUID}/messages", body)
            self.assertTrue(text.startswith('expected {"text": "...'), text)
        self.assertEqual(bot.link.texts, [])

    def test_messages_to_a_bot_that_takes_none(self) -> None:
        _, _, bot = self.exchange.talk(UUID)
        bot.link.takes_text = False
        text = self.problem(409, "POST", f"/v1/calls/{UUID}/messages", {"text": "x"})
        self.assertIn("takes no text", text)

    def test_messages_to_a_bot_that_does_not_read(self) -> None:
        _, _, bot = self.exchange.talk(UUID)
        bot.link.reads = False
        text = self.problem(503, "POST", f"/v1/calls/{UUID}/messages", {"text": "x"})
        self.assertIn("does not read", text)

    def test_messages_while_a_lost_bot_is_replaced(self) -> None:
        self.serve(on_bot_lost="restart")
        call, _, _ = self.exchange.talk(UUID)
        call.bot_lost("connection", "reset")
        self.assertEqual(self.ask("GET", f"/v1/calls/{UUID}")[1]["state"], "resuming")
        status, _ = self.ask("POST", f"/v1/calls/{UUID}/messages", {"text": "x"})
        self.assertEqual(status, 202)
        self.assertEqual(self.exchange.runner.bots[1].link.texts, [("x", True, True)])

    def test_messages_to_a_bot_that_has_ended(self) -> None:
        call, _, bot = self.exchange.talk(UUID)
        self.exchange.say(bot, 1.0)
        call.bot_ended()
        text = self.problem(409, "POST", f"/v1/calls/{UUID}/messages", {"text": "x"})
        self.assertIn("has ended", text)
        call.stop()


class ReadyTests(ApiCase):
    def test_ready(self) -> None:
        self.assertEqual(self.ask("GET", "/readyz"), (200, {"ready": True, "reasons": []}))

    def test_reasons(self) -> None:
        self.serve(max_calls=1)
        self.exchange.talk()
        limit = "the limit of [calls] max_calls is reached"
        self.assertEqual(self.ask("GET", "/readyz"), (503, {"ready": False, "reasons": [limit]}))
        self.calls.drain()
        self.reachable = succeed(False)
        self.descriptors.wanted()
        reasons = ["the runner does not answer", "no file descriptors are left"]
        reasons += [limit, "the daemon is being stopped"]
        self.assertEqual(self.ask("GET", "/readyz"), (503, {"ready": False, "reasons": reasons}))

    def test_an_answer_that_comes_later(self) -> None:
        self.reachable = Deferred()
        asked = self.treq.get("http://bridge/readyz")
        self.treq.flush()
        self.assertNoResult(asked)
        self.reachable.callback(True)
        self.treq.flush()
        self.assertEqual(self.successResultOf(asked).code, 200)

    def test_who_asked_has_gone(self) -> None:
        self.reachable = Deferred()
        asked = self.treq.get("http://bridge/readyz")
        self.treq.flush()
        asked.cancel()
        self.treq.flush()
        self.failureResultOf(asked)
        self.reachable.callback(True)

    def test_what_should_not_happen_is_json_as_well(self) -> None:
        self.reachable = fail(RuntimeError("told to fail"))
        text = self.problem(500, "GET", "/readyz")
        self.assertNotIn("told to fail", text)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_faults_without_end_are_told_a_few_times(self) -> None:
        for _ in range(100):
            self.reachable = fail(RuntimeError("told to fail"))
            self.problem(500, "GET", "/readyz")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), BURST)
