"""TLS toward runners and bots: who is let in, who is not, and that calls are as without."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from pipecat_bridge.runner.socket.protocol import MAX_HANDSHAKE
from tests.certificates import DAY, Authority, self_signed, write
from tests.doubles.asterisk import HUNG_UP
from tests.doubles.runner import RunnerDouble
from tests.e2e.dialled import EIGHT, LOUD, bot_side, constant, dialled, heard, settled
from tests.e2e.harness import Line, line, reactor, sleep
from tests.e2e.names import known
from tests.e2e.test_backpressure import SECOND, numbered, numbers
from tests.e2e.test_bad_starts import FAST, fails
from tests.e2e.test_signal import BOT_RATE, PATIENT, check_same, hear, is_over, noise
from tests.unit.bot_side import logged
from tests.unit.signals import chunks

HOST = "127.0.0.1"
MODES = ("dial", "direct", "twilio")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def ca_file(authority: Authority, tmp_path: Path) -> str:
    """The setting that lets the authority vouch for runners."""
    return f"runner.ca_file={authority.write(tmp_path / 'ca.pem')}"


class TestCalls:
    """With a certificate that is right."""

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("bot_ends", [True, False])
    @ensureDeferred
    async def test_begin_and_end(
        self, mode: Any, bot_ends: bool, authority: Authority, ca_file: str
    ) -> None:
        async with dialled(mode, ca_file, tls=authority.issue(HOST)) as it:
            assert it.runner.url.startswith("https:" if mode == "dial" else "wss:")
            phone, bot = await it.talk()
            phone.start_audio()
            await bot.until(lambda: len(bot.audio) >= 5)
            bot.burst(constant(1000), EIGHT)
            (bot.close if bot_ends else phone.hangup)()
            record = await settled(it, phone)
            assert record["outcome"] == ("completed" if bot_ends else "caller-hangup")
            await bot.until(lambda: not bot.sockets)
            assert [how.clean for how in bot.closes] == [True]
            assert (bot.faults, it.runner.faults) == ([], [])

    @ensureDeferred
    async def test_nothing_is_lost_either_way(self, authority: Authority, ca_file: str) -> None:
        pcm = noise(BOT_RATE, 2.0, seed=2) + bytes(BOT_RATE // 5)
        options = {"tls": authority.issue(HOST), "echo": True}
        async with dialled("dial", ca_file, *PATIENT, **options) as it:
            phone, bot = await it.talk(rate=BOT_RATE)
            await phone.start_audio(chunks(pcm, BOT_RATE // 50 * 2))
            await phone.until(lambda: is_over(phone))
            check_same(bot.pcm()[-len(pcm) :], pcm, BOT_RATE)
            hear(phone.frames, pcm, BOT_RATE)
            phone.hangup()
            await settled(it, phone)
            assert bot.faults == []

    @ensureDeferred
    async def test_by_name(self, authority: Authority, ca_file: str) -> None:
        for mode in MODES:
            with known("bots.example"):
                options = {"tls": authority.issue("bots.example"), "host": "bots.example"}
                async with dialled(mode, ca_file, **options) as it:
                    phone, bot = await it.talk()
                    phone.hangup()
                    await settled(it, phone)
                    assert bot.faults == []
                    port = it.runner.url.split(":")[2].partition("/")[0]
                    assert it.runner.knocks[0].headers["host"] == f"bots.example:{port}"

    @ensureDeferred
    async def test_the_bot_dies(self, authority: Authority, ca_file: str) -> None:
        async with dialled("direct", ca_file, tls=authority.issue(HOST)) as it:
            phone, bot = await it.talk()
            bot.burst(constant(LOUD, 60.0), EIGHT)
            await phone.until(lambda: heard(phone, LOUD))
            bot.die()
            record = await settled(it, phone)
            assert (record["outcome"], phone.ended) == ("bot-hangup", HUNG_UP)

    @ensureDeferred
    async def test_a_close_that_is_never_answered(self, authority: Authority, ca_file: str) -> None:
        options = {"tls": authority.issue(HOST), "answers_close": False}
        async with dialled("direct", ca_file, "websocket.close_timeout=0.2", **options) as it:
            phone, bot = await it.talk()
            phone.hangup()
            assert (await settled(it, phone))["outcome"] == "caller-hangup"
            await bot.until(lambda: not bot.sockets)

    @ensureDeferred
    async def test_a_bot_that_closes_and_keeps_the_connection(
        self, authority: Authority, ca_file: str
    ) -> None:
        options = {"tls": authority.issue(HOST), "drops_tcp": False}
        async with dialled("direct", ca_file, "websocket.close_timeout=0.2", **options) as it:
            phone, bot = await it.talk()
            bot.burst(constant(LOUD), EIGHT)
            bot.close()
            assert (await settled(it, phone))["outcome"] == "completed"
            assert heard(phone, LOUD) == 25
            await it.runner.until(lambda: it.runner.open_connections == 0)

    @ensureDeferred
    async def test_a_bot_that_stalls(self, authority: Authority, ca_file: str) -> None:
        """The window of pings bounds what is under way, where no socket can be looked into."""
        async with dialled("direct", ca_file, tls=authority.issue(HOST)) as it:
            phone, bot = await it.talk(rate=16000)
            phone.start_audio(numbered())
            await bot.until(lambda: len(bot.audio) >= SECOND // 2)
            bot.stall()
            for _ in range(20):
                await sleep(0.1)
            assert bot_side(it, phone).queue_stats.sent - len(bot.audio) <= 25
            assert bot_side(it, phone).queued >= 60
            bot.unstall()
            last = len(phone.sent)
            await bot.until(lambda: numbers(bot)[-1] > last + 10)
            assert numbers(bot) == sorted(numbers(bot))
            phone.hangup()
            await settled(it, phone)
            assert bot.faults == []


async def refused(it: Line, fault: str) -> None:
    """A call fails for that reason, and the bridge's log has no traceback."""
    with logged(source="") as said:
        reason = (await fails(it))["reason"]
    where = {"dial": "/start", "dialback": "/run"}.get(it.runner.mode, "the bot's WebSocket at ")
    assert reason.startswith(where), reason
    assert reason.endswith(f": {fault}"), reason
    assert not any("Traceback" in text for text in said)
    assert getattr(it.runner, "knocks", []) == it.runner.requests == []


def serving(mode: Any, tls: Any, *settings: str) -> Any:
    """A daemon before a runner of any mode, with a certificate."""
    if mode == "dialback":
        return line(*settings, runner=RunnerDouble(reactor, tls=tls))
    return dialled(mode, *settings, tls=tls)


EVERY_MODE = (*MODES, "dialback")

PRIVATE = (
    "its certificate is from an authority that is not known here:"
    " expected that authority's certificate in [runner] ca_file"
)


def date(days: int) -> str:
    """The date in UTC so many days from now."""
    return f"{datetime.now(UTC) + days * DAY:%Y-%m-%d}"


@pytest.mark.parametrize("mode", EVERY_MODE)
class TestStrangers:
    """Each is told in a sentence of its own."""

    @ensureDeferred
    async def test_a_wrong_name(self, mode: Any, authority: Authority, ca_file: str) -> None:
        for host in ("other.example", "127.0.0.2"):
            async with serving(mode, authority.issue(host), ca_file) as it:
                await refused(it, f"its certificate is not for {HOST}")

    @ensureDeferred
    async def test_an_address_where_a_name_is_asked(
        self, mode: Any, authority: Authority, ca_file: str
    ) -> None:
        with known("bots.example"):
            async with serving(mode, authority.issue(HOST)) as there:
                url = there.runner.url.replace(HOST, "bots.example")
                async with serving(mode, None, ca_file, f"runner.url={url}") as it:
                    await refused(it, "its certificate is not for bots.example")

    @ensureDeferred
    async def test_an_authority_that_is_not_known(self, mode: Any, authority: Authority) -> None:
        async with serving(mode, authority.issue(HOST)) as it:
            await refused(it, PRIVATE)

    @ensureDeferred
    async def test_another_authority(self, mode: Any, ca_file: str) -> None:
        other = Authority("an authority of tests")  # of the same name
        async with serving(mode, other.issue(HOST), ca_file) as it:
            await refused(it, PRIVATE)

    @ensureDeferred
    async def test_a_chain_to_an_authority_that_is_not_known(
        self, mode: Any, authority: Authority
    ) -> None:
        async with serving(mode, authority.issue(HOST, chain=True)) as it:
            await refused(it, PRIVATE)

    @ensureDeferred
    async def test_one_that_vouches_for_itself(self, mode: Any, ca_file: str) -> None:
        tls, _ = self_signed(HOST)
        for settings in ((), (ca_file,)):
            async with serving(mode, tls, *settings) as it:
                await refused(it, "its certificate is self-signed: expected it in [runner] ca_file")

    @ensureDeferred
    async def test_one_that_has_expired(
        self, mode: Any, authority: Authority, ca_file: str
    ) -> None:
        async with serving(mode, authority.issue(HOST, days=-1), ca_file) as it:
            await refused(it, f"its certificate has expired on {date(-1)}")

    @ensureDeferred
    async def test_one_that_is_not_valid_yet(
        self, mode: Any, authority: Authority, ca_file: str
    ) -> None:
        async with serving(mode, authority.issue(HOST, days=9, since=3), ca_file) as it:
            await refused(it, f"its certificate is not valid before {date(3)}")

    @ensureDeferred
    async def test_an_authority_that_has_expired(self, mode: Any, tmp_path: Path) -> None:
        old = Authority(days=-2)
        ca_file = f"runner.ca_file={old.write(tmp_path / 'old.pem')}"
        async with serving(mode, old.issue(HOST), ca_file) as it:
            fault = f"the certificate of its authority has expired on {date(-2)}"
            await refused(it, fault)


class TestKnown:
    @ensureDeferred
    async def test_one_that_vouches_for_itself_and_is_known(self, tmp_path: Path) -> None:
        tls, certificate = self_signed(HOST)
        ca_file = f"runner.ca_file={write(tmp_path / 'own.pem', certificate)}"
        async with dialled("dial", ca_file, tls=tls) as it:
            phone, bot = await it.talk()
            phone.hangup()
            await settled(it, phone)
            assert bot.faults == []

    @ensureDeferred
    async def test_run_and_stop(self, authority: Authority, ca_file: str) -> None:
        async with serving("dialback", authority.issue(HOST), ca_file) as it:
            phone, bot = await it.talk()
            phone.hangup()
            await settled(it, phone)
            assert len(it.runner.asked("/stop")) == 1
            assert bot.faults == []

    @ensureDeferred
    async def test_only_the_bot_is_a_stranger(self, authority: Authority, ca_file: str) -> None:
        """/start is answered by who is trusted, and leads to who is not."""
        async with dialled("direct", tls=authority.issue("other.example")) as stranger:
            url = stranger.runner.url
            async with dialled("dial", ca_file, ws_url=url, tls=authority.issue(HOST)) as it:
                reason = (await fails(it))["reason"]
                assert reason == f"the bot's WebSocket at {url}: its certificate is not for {HOST}"
            assert stranger.runner.knocks == []


class TestNoTLS:
    @pytest.mark.parametrize("mode", EVERY_MODE)
    @ensureDeferred
    async def test_where_it_is_expected(self, mode: Any, ca_file: str) -> None:
        async with dialled("dial" if mode == "dialback" else mode) as plain:
            url = plain.runner.url.replace("://", "s://")
            async with serving(mode, None, ca_file, f"runner.url={url}") as it:
                fault = "it does not speak TLS there, expected a URL without it, http:// or ws://"
                await refused(it, f"{fault} (wrong version number)")
            assert plain.runner.knocks == plain.runner.requests == []

    @pytest.mark.parametrize("mode", MODES)
    @ensureDeferred
    async def test_where_nothing_is_said(self, mode: Any, ca_file: str) -> None:
        async with dialled(mode, handshakes=["hang"]) as plain:
            url = plain.runner.url.replace("://", "s://")
            async with dialled(mode, *FAST, ca_file, f"runner.url={url}") as it:
                reason = (await fails(it))["reason"]
                expected = (
                    "/start was not answered within 0.6 s"
                    if mode == "dial"
                    else f"the bot's WebSocket at {url} was not open within 0.6 s"
                )
                assert reason == expected
                await plain.runner.until(lambda: plain.runner.open_connections == 0)

    @pytest.mark.parametrize("mode", EVERY_MODE)
    @ensureDeferred
    async def test_tls_where_it_is_not_expected(self, mode: Any, authority: Authority) -> None:
        async with serving(mode, authority.issue(HOST)) as secure:
            url = secure.runner.url.replace("s://", "://")
            async with serving(mode, None, f"runner.url={url}") as it:
                fault = "closed before it was open (does the port expect wss://?)"
                if mode in ("dial", "dialback"):
                    fault = "the connection was closed without an answer"
                    fault = f"{fault} (does the port expect https://?)"
                await refused(it, fault)

    @ensureDeferred
    async def test_an_alert_of_tls(self) -> None:
        """What some servers say to who speaks without."""
        async with dialled("direct", handshakes=["alert"]) as it:
            reason = (await fails(it))["reason"]
            assert reason.endswith(": the server speaks TLS, expected a URL with wss://")


@pytest.mark.parametrize(
    ("handshake", "reason"),
    [
        ("403", "the bot's WebSocket at {}: the opening handshake was answered with 403 Forbidden"),
        ("endless", f"the bot's WebSocket at {{}}: an answer of more than {MAX_HANDSHAKE} bytes"),
        ("garbage", 'the bot\'s WebSocket at {}: Unsupported HTTP version "220"'),
        ("hang", "the bot's WebSocket at {} was not open within 0.6 s"),
    ],
)
@ensureDeferred
async def test_handshakes_that_fail(
    handshake: Any, reason: str, authority: Authority, ca_file: str
) -> None:
    """The connection is gone at once, whether or not the peer agrees."""
    options = {"tls": authority.issue(HOST), "handshakes": [handshake]}
    async with dialled("direct", *FAST, ca_file, **options) as it:
        assert (await fails(it))["reason"] == reason.format(it.runner.url)
        await it.runner.until(lambda: it.runner.open_connections == 0)
