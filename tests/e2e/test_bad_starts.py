"""Runners and bots that go wrong before a bot talks: a clear reason, and a phone at peace."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import LogLevel

from pipecat_bridge.runner.socket.protocol import MAX_HANDSHAKE
from tests.doubles.runner import RunnerDouble
from tests.doubles.start_runner import StartRunner
from tests.e2e.dialled import dialled, page, settled
from tests.e2e.harness import Line, line, reactor
from tests.e2e.names import known
from tests.unit.bot_side import logged

FAST = ("runner.connect_timeout=0.6", "runner.attempt_timeout=0.6")
UNABLE = "the bot's WebSocket at {{at}}: the opening handshake was answered with {}"


def place(it: Line) -> str:
    """Where the runner's bots are dialled, as messages have it."""
    path = "/ws" if it.runner.mode == "twilio" else "/ws-client"
    scheme, _, rest = it.runner.url.partition("://")
    return f"{'wss' if scheme in ('https', 'wss') else 'ws'}://{rest.partition('/')[0]}{path}"


async def fails(it: Line, **options: Any) -> dict[str, Any]:
    """The record of a call that gets no bot; the phone goes on in the dialplan, and it is told."""
    with logged() as said:
        phone = await it.dial(driver="application", **options)
        phone.start_audio()
        record = await settled(it, phone)
    assert record["outcome"] == "runner-failed"
    assert phone.hangup_received
    assert "ready_at" not in record
    told = [text for text in said if record["reason"] in text and record["id"] in text]
    assert len(told) == 1, said
    assert getattr(it.runner, "sessions", []) == []
    # Nothing goes on behind: what is open is what waits to be used for HTTP again.
    await it.runner.until(lambda: it.runner.open_connections <= 1)
    # Of the 0.6 s that a start has here, what is left when the runner is asked.
    return {**record, "reason": re.sub(r"within 0[.\d]* s$", "within 0.6 s", record["reason"])}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("500", '/start: answered with 500: {"status": "error", "error": "told to fail"}'),
        ("503", '/start: answered with 503: {"status": "error", "error": "told to fail"}'),
        ("429", '/start: answered with 429: {"status": "error", "error": "told to fail"}'),
        ("error", """/start: an answer without "wsUrl": it has 'error, status'"""),
        ("redirect", "/start: answered with 307, a redirect to /elsewhere, which is not followed"),
        ("bad-json", "/start: an answer of 15 bytes that is not JSON"),
        ("deep-json", "/start: an answer of 50000 bytes that is not JSON"),
        ("long-json", "/start: an answer of 888917 bytes: expected JSON of at most 65536"),
        ("endless", "/start was not answered within 0.6 s"),
        ("hang", "/start was not answered within 0.6 s"),
        ("flood", "/start: an answer of more than 1048576 bytes"),
        (
            "drop",
            "/start: the connection was closed without an answer (does the port expect https://?)",
        ),
    ],
)
@ensureDeferred
async def test_starts_that_fail(answer: Any, reason: str) -> None:
    async with dialled("dial", *FAST, answers=[answer]) as it:
        assert (await fails(it))["reason"] == reason
        assert [request.path for request in it.runner.requests] == ["/start"]
        assert it.runner.knocks == []


@pytest.mark.parametrize(
    ("ws_url", "reason"),
    [
        (None, """/start: an answer without "wsUrl": it has 'sessionId, token'"""),
        (
            "http://{host}:{port}/x",
            "/start: wsUrl http://127.0.0.1:{port}/x: expected a URL such as"
            " ws://127.0.0.1:7860/ws-client",
        ),
        ("nonsense", "/start: wsUrl nonsense: expected a URL such as"),
        ("ws://[::1/x", "/start: wsUrl ws://[::1/x: expected a URL such as"),
        ("ws://bots.example:{port}/x", "/start: wsUrl leads to bots.example, which is neither"),
        ("wss://evil.example/x", "/start: wsUrl leads to evil.example, which is neither"),
        (
            "ws://127.0.0.1:1/x",
            "the bot's WebSocket at ws://127.0.0.1:1/x: Connection was refused by other side: 111",
        ),
    ],
)
@ensureDeferred
async def test_answers_that_lead_nowhere(ws_url: Any, reason: str) -> None:
    async with dialled("dial", ws_url=ws_url) as it:
        record = await fails(it)
        assert record["reason"].startswith(reason.format(port=it.runner.url.rpartition(":")[2]))
        assert it.runner.knocks == []


@ensureDeferred
async def test_another_host_that_is_allowed() -> None:
    elsewhere = "ws://a.bots.example:{port}/ws-client"
    for allowed in ('["a.bots.example"]', '["other.example", "*.Bots.example"]'):
        setting = f"runner.allowed_hosts={allowed}"
        with known("a.bots.example"):
            async with dialled("dial", setting, ws_url=elsewhere) as it:
                phone, bot = await it.talk()
                phone.hangup()
                await settled(it, phone)
                assert bot.faults == []


@pytest.mark.parametrize("mode", ["dial", "direct", "twilio"])
@pytest.mark.parametrize(
    ("handshake", "reason"),
    [
        ("403", UNABLE.format("403 Forbidden")),
        ("429", UNABLE.format("429 Too Many Requests")),
        ("503", UNABLE.format("503 Service Unavailable")),
        (
            "302",
            UNABLE.format("302 Found, a redirect to ws://127.0.0.1:1/elsewhere, which is"),
        ),
        ("200", UNABLE.format("200 OK")),
        ("garbage", 'the bot\'s WebSocket at {at}: Unsupported HTTP version "220"'),
        (
            "not-utf8",
            "the bot's WebSocket at {at}: the answer to the opening handshake is not in",
        ),
        ("endless", f"the bot's WebSocket at {{at}}: an answer of more than {MAX_HANDSHAKE} bytes"),
        ("drop", "the bot's WebSocket at {at}: closed before it was open"),
        ("bad-accept", "the bot's WebSocket at {at}: HTTP Sec-WebSocket-Accept bogus value"),
        ("no-accept", "the bot's WebSocket at {at}: HTTP Sec-WebSocket-Accept header missing"),
        (
            "other-subprotocol",
            'the bot\'s WebSocket at {at}: subprotocol selected by server "soap"',
        ),
        ("extension", 'the bot\'s WebSocket at {at}: server wants to use extension "x-telepathy"'),
        ("hang", "the bot's WebSocket at {at} was not open within 0.6 s"),
    ],
)
@ensureDeferred
async def test_handshakes_that_fail(mode: str, handshake: Any, reason: str) -> None:
    async with dialled(mode, *FAST, handshakes=[handshake]) as it:
        assert (await fails(it))["reason"].startswith(reason.format(at=place(it)))
        assert len(it.runner.knocks) == 1


@ensureDeferred
async def test_a_door_that_accepts_and_then_closes() -> None:
    """An open socket is no bot yet."""
    async with dialled("direct", token_in="header", refuses_late=True) as it:
        phone = await it.dial()
        record = await settled(it, phone)
        assert record["outcome"] == "runner-failed"
        lost = "the bot was lost before it was ready: the bot's WebSocket closed: not you (4003)"
        lost += "; it had sent nothing"
        assert record["reason"] == lost
        await it.runner.until(lambda: it.runner.open_connections == 0)


@pytest.mark.parametrize("asked", ["header", "query", "path"])
@ensureDeferred
async def test_tokens_in_the_wrong_place(asked: Any) -> None:
    given = {"header": "query", "query": "path", "path": "header"}[asked]
    async with dialled("dial", f"runner.token_in={given}", token_in=asked) as it:
        at = place(it) + ("/***" if given == "path" else "")
        assert (await fails(it))["reason"] == UNABLE.format("403 Forbidden").format(at=at)


@ensureDeferred
async def test_a_wrong_token_and_none() -> None:
    for settings in (('runner.headers={Authorization = "Bearer tok-s3cret"}',), ()):
        async with dialled("direct", *settings, token_in="header") as it:
            it.runner.tokens.append("another")
            reason = UNABLE.format("403 Forbidden").format(at=place(it))
            assert (await fails(it))["reason"] == reason


@ensureDeferred
async def test_origins_and_subprotocols_that_do_not_fit() -> None:
    silent = "the bot's WebSocket at {at}: the bot does not speak the subprotocol 'rtvi'"
    for settings, options, reason in (
        ((), {"origin": "https://a.example"}, UNABLE.format("403 Forbidden")),
        (
            ("runner.origin=https://b.example",),
            {"origin": "https://a.example"},
            UNABLE.format("403 Forbidden"),
        ),
        ((), {"subprotocol": "rtvi"}, UNABLE.format("400 Bad Request")),
        (("runner.subprotocol=soap",), {"subprotocol": "rtvi"}, UNABLE.format("400 Bad Request")),
        (
            ("runner.subprotocol=rtvi",),
            {"subprotocol": "rtvi", "ignores_subprotocol": True},
            silent,
        ),
    ):
        async with dialled("direct", *settings, **options) as it:
            phone = await it.dial(driver="application")
            record = await settled(it, phone)
            reason_here = reason.format(at=place(it))
            assert (record["outcome"], record["reason"]) == ("runner-failed", reason_here)
            assert phone.hangup_received
            await it.runner.until(lambda it=it: it.runner.open_connections == 0)
            # A server that said nothing of it had let it in, and was told why it was left.
            closes = [(how.clean, how.code) for bot in it.runner.sessions for how in bot.closes]
            assert closes == ([(True, 1002)] if reason == silent else [])


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1/ws", "ws://nowhere.invalid/ws"])
@ensureDeferred
async def test_nobody_is_there(url: str) -> None:
    async with dialled("direct", f"runner.url={url}") as it:
        reason = (await fails(it))["reason"]
        assert reason.startswith(f"the bot's WebSocket at {url}: ")
        assert any(word in reason for word in ("refused", "lookup", "resolve")), reason


def everything(received: Any, shape: str) -> bytes:
    """What a request brought, to be answered to it."""
    told = {"path": received.path, "body": received.body, "headers": received.headers}
    if shape == "json":
        return json.dumps({"token": "tok-s3cret", **told}).encode()
    flat = " ".join(str(each) for each in (*received.headers.values(), received.body))
    return flat.encode() if shape == "text" else urlencode({"said": flat}).encode()


class Secretive(StartRunner):
    """What it is given and what it answers are secrets, and what it refuses it repeats."""

    shape = "json"

    async def listen(self, interface: str = "127.0.0.1") -> str:
        self.url = await super().listen(interface)
        if not self.starts:
            self.url += "?token=tok-s3cret"
        return self.url

    def new_token(self) -> str:
        return f"tok-s3cret-{len(self.tokens)}"

    def _answer(self, request: Any, received: Any) -> bytes | int:
        return repeated(self, request, received) or super()._answer(request, received)


class SecretiveRunner(RunnerDouble):
    """The same, where bots dial back."""

    shape = "json"

    def _answer(self, request: Any, received: Any) -> bytes | int:
        return repeated(self, request, received) or super()._answer(request, received)

    def _stop(self, request: Any, received: Any) -> bytes:
        request.setResponseCode(500)
        return everything(received, self.shape)


def repeated(runner: Any, request: Any, received: Any) -> bytes:
    """What such a runner refuses with, empty when it does not."""
    answer = runner.answers[0]
    if answer == "redirect":
        request.setResponseCode(302)
        text = quote(everything(received, "text"))
        request.setHeader("location", f"/{text}?{text}")
    elif answer in ("500", "error", "bad-json"):
        request.setResponseCode(500 if answer == "500" else 200)
    else:
        return b""
    said = everything(received, runner.shape)
    return said[:-1] if answer == "bad-json" else said


class TestSecrets:
    """They are in no line of log, no reason, and in nothing that the API shows."""

    CALL_ID = "5f6a3b1c-0d2e-4f3a-8b9c-1d2e3f4a5b6c"
    KEY = 'runner.headers={Authorization = "Bearer pk-s3cret"}'

    async def check(
        self,
        mode: Any,
        *settings: str,
        begins: bool = False,
        shape: str = "json",
        **options: Any,
    ) -> None:
        kind: Any = SecretiveRunner if mode == "dialback" else partial(Secretive, mode=mode)
        runner = kind(reactor, **options)
        runner.shape = shape
        with logged(LogLevel.debug, source="") as said:
            async with line(*FAST, self.KEY, *settings, runner=runner) as it:
                shown = await self.call(it, begins)
        told = [request.body for request in runner.asked("/run")]
        tokens = [body["ws_url"].rpartition("/")[2] for body in told]
        for text in [*said, *shown]:
            assert not any(secret in text for secret in ("s3cret", *tokens)), text
        assert any(self.CALL_ID in text for text in said)
        assert self.CALL_ID in shown[0]

    async def call(self, it: Line, begins: bool) -> list[str]:
        """A call; what the API shows of it in the end."""
        call = {"llm_key": "sk-s3cret", "metadata": {"from": "+1"}}
        path = f"/v1/calls/{self.CALL_ID}"
        status, _ = await it.api("PUT", path, json=call)
        assert status == 201
        phone = await it.dial(call_id=UUID(self.CALL_ID))
        if begins:
            await it.runner.until(lambda: it.runner.bots)
            phone.hangup()
        record = await settled(it, phone)
        assert (record["outcome"] == "runner-failed") != begins
        pages = ("/v1/calls", path, f"{path}/outcome", "/metrics", "/readyz")
        return [await page(it, each) for each in pages]

    @pytest.mark.parametrize("place", ["header", "query", "path"])
    @ensureDeferred
    async def test_tokens(self, place: Any) -> None:
        for handshake in ("ok", "403", "bad-accept"):
            await self.check(
                "dial",
                f"runner.token_in={place}",
                token_in=place,
                handshakes=[handshake],
                begins=handshake == "ok",
            )

    @pytest.mark.parametrize(
        "ws_url",
        [
            None,
            "nonsense?token=tok-s3cret",
            "ws://me:tok-s3cret@127.0.0.1:0/x",
            "ws://me:tok-s3cret@elsewhere.example/x?token=tok-s3cret",
        ],
    )
    @ensureDeferred
    async def test_answers_that_are_no_good(self, ws_url: Any) -> None:
        await self.check("dial", ws_url=ws_url)

    @pytest.mark.parametrize("mode", ["dial", "dialback"])
    @pytest.mark.parametrize("shape", ["json", "text", "form"])
    @pytest.mark.parametrize("answer", ["500", "error", "bad-json", "redirect"])
    @ensureDeferred
    async def test_what_a_runner_repeats(self, answer: Any, shape: str, mode: str) -> None:
        start = 'runner.start_body={api_key = "start-s3cret", body = {x = {y_token = "b-s3cret"}}}'
        parameters = (
            'runner.parameters={stt_key = "\\"s3cret\\" & more", p = [{password = "s3cret"}]}'
        )
        await self.check(mode, start, parameters, answers=[answer], shape=shape)

    @pytest.mark.parametrize("mode", ["dial", "direct", "twilio"])
    @ensureDeferred
    async def test_what_a_bot_repeats(self, mode: str) -> None:
        for place in ("header", "query", "path"):
            await self.check(mode, f"runner.token_in={place}", handshakes=["echo"])

    @ensureDeferred
    async def test_the_path_of_a_bot_that_comes_too_late(self) -> None:
        await self.check("dialback", dial_delay=0.8)

    @pytest.mark.parametrize("mode", ["direct", "twilio"])
    @pytest.mark.parametrize("handshake", ["ok", "403", "hang"])
    @ensureDeferred
    async def test_in_the_url_of_a_bot(self, mode: Any, handshake: Any) -> None:
        await self.check(mode, handshakes=[handshake], begins=handshake == "ok")
