"""The API of a whole daemon, and the page that describes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import treq
from prometheus_client.parser import text_string_to_metric_families
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.web.client import Agent
from twisted.web.http import Request

from pipecat_bridge.web.metrics import COUNTERS
from tests.doubles import protobuf
from tests.doubles.runner import Received, RunnerDouble
from tests.e2e.dialled import EIGHT, LOUD, constant
from tests.e2e.harness import Line, in_folder, line

CALL_ID = "b5f6a3c8-3f0e-4f3a-9d5e-2b8f0a1c4d7e"
PATH = f"/v1/calls/{CALL_ID}"
SECRET = "sk-very-secret"
PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")


def example(route: str) -> Any:
    """The answer that the page shows for a route."""
    found = re.search(rf"^### `{re.escape(route)}`$.*?^```json\n(.*?)^```$", PAGE, re.M | re.S)
    assert found, route
    return json.loads(found[1])


def shape(value: Any) -> Any:
    """What must be the same in an example and in the real thing: names and types."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items() if name not in ("metadata",)}
    if isinstance(value, list):
        return [shape(value[0])] if value and isinstance(value[0], dict) else []
    return "number" if isinstance(value, int | float) else type(value).__name__


async def text(it: Line, path: str) -> tuple[int, str]:
    """Status and body of what is no JSON."""
    port: Any = it.bridge.api.port
    url = f"http://127.0.0.1:{port.getHost().port}{path}"
    response = await treq.get(url, agent=Agent(reactor), persistent=False)
    return response.code, await response.text()


async def metrics(it: Line) -> dict[str, float]:
    """The values of those metrics that have no labels."""
    port: Any = it.bridge.api.port
    url = f"http://127.0.0.1:{port.getHost().port}/metrics"
    response = await treq.get(url, agent=Agent(reactor), persistent=False)
    families = text_string_to_metric_families(await response.text())
    return {sample.name: sample.value for family in families for sample in family.samples}


@ensureDeferred
async def test_the_page_shows_answers_as_they_are() -> None:
    async with line() as it:
        asked = {"metadata": {"caller": "1"}, "tts_type": "cartesia", "llm_key": SECRET}
        status, answer = await it.api("PUT", PATH, json=asked)
        assert (status, answer) == (201, example("PUT /v1/calls/{id}"))
        phone, bot = await it.talk(call_id=UUID(CALL_ID))
        run = it.runner.asked("/run")[0].body
        assert run["metadata"] == {"caller": "1"}
        assert (run["tts_type"], run["llm_key"]) == ("cartesia", SECRET)
        status, answer = await it.api("GET", "/v1/calls")
        assert (status, shape(answer)) == (200, shape(example("GET /v1/calls")))
        status, answer = await it.api("POST", f"{PATH}/messages", json={"text": "Goodbye."})
        assert (status, answer) == (202, example("POST /v1/calls/{id}/messages"))
        await bot.until(lambda: any(each["type"] == "send-text" for each in bot.messages))
        assert await it.api("GET", "/healthz") == (200, example("GET /healthz"))
        assert await it.api("GET", "/readyz") == (200, example("GET /readyz"))
        bot.burst(bytes(range(1, 201)) * 48, 24000)
        bot.rtvi("error", {"error": "one request failed", "fatal": False})
        bot.rtvi("server-message", {"type": "set", "variables": {"TOPIC": "billing"}})
        bot.rtvi("server-message", {"type": "transfer", "target": "support"})
        await it.ended(phone)
        status, answer = await it.api("GET", PATH)
        assert (status, shape(answer)) == (200, shape(example("GET /v1/calls/{id}")))
        assert SECRET not in json.dumps(answer)
        status, answer = await it.api("GET", f"{PATH}/outcome")
        assert (status, answer) == (200, example("GET /v1/calls/{id}/outcome"))
        assert await text(it, f"{PATH}/transfer") == (200, "support")
        assert await text(it, f"{PATH}/variables/TOPIC") == (200, "billing")
        assert await text(it, f"{PATH}/variables/OTHER") == (404, "")


@ensureDeferred
async def test_the_page_names_every_metric_and_no_other(tmp_path: Path) -> None:
    named = set(re.findall(r"`(pipecat_bridge_\w+)", PAGE))
    hook = f'{{name = "crm", url = "http://127.0.0.1:1/", secrets = ["{"x" * 32}"]}}'
    settings = (
        "runner.health_interval=5",
        *in_folder(tmp_path),
        f"webhooks.hooks=[{hook}]",
        "recording.when=on_demand",
        "s3.bucket=calls",
    )
    async with line(*settings) as it:
        assert (await it.api("GET", "/readyz"))[0] == 200  # its runner was asked by then
        found = {name for name in await metrics(it) if name.startswith("pipecat_bridge")}
        assert named - {"pipecat_bridge_runner_restarts_total"} == found


@ensureDeferred
async def test_stop_over_the_api() -> None:
    async with line() as it:
        phone, _ = await it.talk()
        status, answer = await it.api("POST", f"/v1/calls/{phone.call_id}/stop")
        assert (status, answer["outcome"]) == (200, "stopped")
        assert answer["reason"] == "stopped over the API"
        await phone.lost
        assert (phone.ended, phone.faults) == ("hangup received", [])
        status, answer = await it.api("POST", f"/v1/calls/{phone.call_id}/stop")
        assert status == 404


@ensureDeferred
async def test_metrics_agree_with_the_calls_record_before_and_after_its_end() -> None:
    async with line() as it:
        phone, bot = await it.talk()
        phone.start_audio()
        bot.send_audio(constant(LOUD), EIGHT)
        bot.send(protobuf.encode_rtvi("bot-interrupted"))
        bot.send(b"garbage")
        await bot.until(lambda: len(bot.audio) > 20)
        before = await metrics(it)
        assert before["pipecat_bridge_calls"] == 1
        assert before["pipecat_bridge_interruptions_total"] == 1
        assert before["pipecat_bridge_bot_frames_bad_total"] == 1
        assert before["pipecat_bridge_caller_frames_total"] >= 20
        phone.hangup()
        record = await it.ended(phone)
        for _ in range(2):
            after = await metrics(it)
            assert after["pipecat_bridge_calls"] == 0
            for name in COUNTERS:
                assert after[f"pipecat_bridge_{name}_total"] == record["quality"][name], name
                assert (
                    after[f"pipecat_bridge_{name}_total"] >= before[f"pipecat_bridge_{name}_total"]
                )


@ensureDeferred
async def test_not_ready_without_a_runner() -> None:
    async with line("runner.url=http://127.0.0.1:1", "runner.health_interval=5") as it:
        reasons = ["the runner does not answer"]
        assert await it.api("GET", "/readyz") == (503, {"ready": False, "reasons": reasons})


class Repeating(RunnerDouble):
    """Refuses with all that it was sent, as FastAPI does with a body that does not fit."""

    def _run(self, request: Request, received: Received) -> bytes:
        request.setResponseCode(422)
        return json.dumps({"detail": [{"input": received.body}]}).encode()


@ensureDeferred
async def test_a_runner_that_repeats_keys_does_not_give_them_away() -> None:
    settings = f'runner.parameters={{stt_key = "{SECRET}"}}'
    async with line(settings, runner=Repeating(reactor)) as it:
        await it.api("PUT", PATH, json={"llm_key": SECRET * 2})
        phone = await it.dial(call_id=UUID(CALL_ID))
        record = await it.ended(phone)
        assert record["reason"].startswith("/run: answered with 422")
        assert "***" in record["reason"]
        assert SECRET not in json.dumps(await it.api("GET", PATH))
