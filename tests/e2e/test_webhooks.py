"""Webhooks of a whole daemon: what a receiver gets, and what it cannot disturb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_twisted import ensureDeferred
from standardwebhooks import Webhook as Receiving
from twisted.internet import reactor as _reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tests.doubles.watch import Watched
from tests.e2e.harness import Line, in_folder, line
from tests.e2e.test_store import in_store, said

reactor: Any = _reactor

SECRET = "whsec_" + "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"


class Receiver(Resource, Watched):
    """Verifies and keeps what it gets; answers with `status`, or not at all if it is 0."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.status = 204
        self.got: list[dict[str, Any]] = []
        self.port = reactor.listenTCP(0, Site(self), interface="127.0.0.1")

    @property
    def hook(self) -> str:
        """The option of a daemon that tells this receiver."""
        url = f"http://127.0.0.1:{self.port.getHost().port}/calls"
        return f'webhooks.hooks=[{{name = "crm", url = "{url}", secrets = ["{SECRET}"]}}]'

    def kinds(self, call_id: object) -> list[str]:
        """The kinds of what it got about a call."""
        return [each["type"] for each in self.got if each["call_id"] == str(call_id)]

    def render_POST(self, request: Request) -> Any:
        assert request.content is not None
        body = request.content.read()
        headers = {
            name.decode().lower(): several[-1].decode()
            for name, several in request.requestHeaders.getAllRawHeaders()
        }
        Receiving(SECRET).verify(body, headers)
        self.got.append({**json.loads(body), "webhook-id": headers["webhook-id"]})
        self.changed()
        if not self.status:
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        return b""


async def shown(it: Line) -> dict[str, Any]:
    """The only webhook, as the API shows it."""
    _, answer = await it.api("GET", "/v1/webhooks")
    [one] = answer["webhooks"]
    return dict(one)


@ensureDeferred
async def test_a_receiver_is_told_everything_in_order(tmp_path: Path) -> None:
    receiver = Receiver()
    async with line(*in_folder(tmp_path), receiver.hook) as it:
        phone = await said(it, ("bot", "hello"))
        wanted = ["call.created", "call.answered", "call.ready", "turn", "message", "call.ended"]
        await receiver.until(lambda: len(receiver.kinds(phone.call_id)) == len(wanted))
        assert sorted(receiver.kinds(phone.call_id)) == sorted(wanted)
        ended = next(each for each in receiver.got if each["type"] == "call.ended")
        assert ended["data"]["record"] == it.record(phone)
        assert {each["id"] for each in receiver.got} == {e["webhook-id"] for e in receiver.got}
        assert len({each["id"] for each in receiver.got}) == len(wanted)
        await receiver.until(lambda: len(receiver.got) == len(wanted))
        while (await shown(it))["attempts"].get("delivered") != len(wanted):
            pass
    await receiver.port.stopListening()


@ensureDeferred
async def test_what_is_not_taken_can_be_sent_again(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.status = 400
    async with line(*in_folder(tmp_path), receiver.hook) as it:
        phone = await said(it)
        await receiver.until(lambda: len(receiver.got) == 4)
        answer: dict[str, Any] = {"dead": []}
        while len(answer["dead"]) < 4:  # what became of the last attempt comes into the store soon
            _, answer = await it.api("GET", "/v1/webhooks/crm/dead")
        assert [each["told"] for each in answer["dead"]] == ["answered with 400: no text"] * 4
        receiver.status = 200
        receiver.got.clear()
        number = answer["dead"][0]["number"]
        status, _ = await it.api("POST", "/v1/webhooks/crm/dead", json={"number": number})
        assert status == 202
        await receiver.until(lambda: len(receiver.got) == 1)
        assert receiver.got[0]["id"] == answer["dead"][0]["event"]["id"]
        await it.api("POST", "/v1/webhooks/crm/dead")
        await receiver.until(lambda: len(receiver.got) == 4)
        assert len(set(receiver.kinds(phone.call_id))) == 4
        status, _ = await it.api("GET", "/v1/webhooks/other/dead")
        assert status == 404
    await receiver.port.stopListening()


@ensureDeferred
async def test_what_waited_is_sent_after_a_restart(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.status = 0
    async with line(*in_folder(tmp_path), receiver.hook) as it:
        phone = await said(it)
        await receiver.until(lambda: len(receiver.got) == 4)
        await in_store(it)
    receiver.status = 200
    receiver.got.clear()
    async with line(*in_folder(tmp_path), receiver.hook):
        await receiver.until(lambda: len(receiver.got) == 4)
        assert set(receiver.kinds(phone.call_id)) == {
            "call.created",
            "call.answered",
            "call.ready",
            "call.ended",
        }
    await receiver.port.stopListening()
