"""The phone side of the daemon on real sockets, with strict Asterisks of every kind before it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import LogEvent, capturedLogs, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from tests.doubles.asterisk import JITTER, RATES, StrictAsterisk
from tests.e2e.harness import Line, line, reactor
from tests.unit.signals import tone

SILENCE = b"\x10\x01\x40" + bytes(320)

HELLOS = {
    "TLS": bytes.fromhex("16030100f5010000f10303") + bytes(240),
    "HTTP": b"GET / HTTP/1.1\r\nHost: bridge\r\n\r\n",
    "audio": b"\x10\x01\x40" + bytes(320),
    "a short UUID": b"\x01\x00\x0f" + bytes(15),
    "an absurd length": b"\x01\xff\xff",
}


class Stranger(Protocol):
    """Says one thing, and waits for the end."""

    def __init__(self, hello: bytes = b"") -> None:
        self._hello = hello
        self.received = b""
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._hello)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


async def connect(it: Line, peer: Protocol) -> Any:
    port = it.bridge.phones.listener.port
    assert port is not None
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    return await connectProtocol(endpoint, peer)


@pytest.fixture
def logged() -> Iterator[Callable[[], list[str]]]:
    """What the phone side has logged, as text."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield lambda: [
        formatEvent(event)
        for event in events
        if event.get("log_namespace", "").startswith("pipecat_bridge.asterisk")
    ]
    globalLogPublisher.removeObserver(events.append)


def sounds(pcm: bytes) -> bytes:
    """The samples that are not 0."""
    samples = np.frombuffer(pcm, "<i2")
    return bytes(samples[samples != 0].data)


@ensureDeferred
async def test_all_rates_at_once_both_ways():
    async with line() as it:
        calls = []
        for rate in RATES.values():
            phone, bot = await it.talk(rate=rate, driver="application", jitter=JITTER)
            phone.start_audio()
            calls.append((phone, bot, rate))
        for phone, _, rate in calls:
            await phone.until(lambda phone=phone, rate=rate: phone.frames[-1].rate == rate)
        for _, bot, rate in calls:
            bot.burst(tone(440, rate, 0.3), rate)
        for phone, bot, rate in calls:
            want = sounds(tone(440, rate, 0.3))
            await phone.until(
                lambda phone=phone, rate=rate, want=want: len(sounds(phone.pcm(rate))) >= len(want)
            )
            assert sounds(phone.pcm(rate)) == want
            await bot.until(lambda bot=bot: len(bot.audio) > 10)
            assert bot.faults == []
        for phone, _, _ in calls:
            phone.hangup()
        for phone, _, _ in calls:
            assert (await it.ended(phone))["outcome"] == "caller-hangup"
            assert phone.faults == []


@pytest.mark.parametrize("release", ["20.13", "20.17", "22.10"])
@ensureDeferred
async def test_releases_old_and_new(release: str):
    async with line() as it:
        phone, bot = await it.talk(rate=16000, release=release)
        phone.start_audio()
        await bot.until(lambda: len(bot.audio) > 15)
        bot.burst(tone(440, 16000, 0.2), 16000)
        await phone.until(lambda: any(any(frame.payload) for frame in phone.frames))
        bot.close()
        await phone.lost
        assert phone.hangup_received
        assert phone.faults == []
        assert bot.faults == []
        await it.ended(phone)


@ensureDeferred
async def test_what_is_set_on_a_phones_socket():
    async with line() as it:
        phone, _ = await it.talk()
        connection: Any = it.bridge.calls.running[0].phone._wire
        handle = connection.transport.getHandle()
        assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 8192
        # A larger rate needs more: 0.2 s of it.
        phone.send(b"\x18\x1e\x00" + bytes(7680))
        await phone.until(lambda: phone.frames[-1].rate == 192000)
        assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 76800
        phone.hangup()
        await it.ended(phone)


@ensureDeferred
async def test_a_phone_that_does_not_read_is_skipped_and_recovers():
    async with line("audiosocket.stall_timeout=100") as it:
        phone, bot = await it.talk()
        phone.start_audio()
        handle: Any = phone.transport
        handle.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        phone.stop_reading()
        connection: Any = it.bridge.calls.running[0].phone._wire
        before = connection.line.stats.frames_out
        for _ in range(3000):  # a minute of silence, without the wait
            connection.line.tick()
        taken = connection.line.stats.frames_out - before
        # Before its buffer became small, the phone's kernel may have promised to take 64 KiB.
        assert taken * 323 < 65536 + 2 * 8192
        assert connection.line.stats.frames_skipped == 3000 - taken
        waiting = connection.transport._tempDataLen + len(connection.transport.dataBuffer)
        assert waiting < 323
        phone.start_reading()
        received = len(phone.frames)
        await phone.until(lambda: len(phone.frames) > received + taken)
        bot.burst(tone(440, 8000, 0.2), 8000)
        want = sounds(tone(440, 8000, 0.2))
        await phone.until(lambda: len(sounds(phone.pcm(8000))) >= len(want))
        assert sounds(phone.pcm(8000)) == want
        assert {len(frame.payload) for frame in phone.frames} == {320}
        # What the kernels held came at once, which may be more than a Local channel takes.
        assert [fault for fault in phone.faults if "frames waited" not in fault] == []
        assert bot.faults == []
        phone.hangup()
        await it.ended(phone)


@ensureDeferred
async def test_strangers_are_closed_with_one_line_and_a_call_goes_on(logged: Any):
    async with line() as it:
        phone, bot = await it.talk()
        phone.start_audio()
        for hello in HELLOS.values():
            stranger = await connect(it, Stranger(hello))
            await stranger.lost
            assert stranger.received.replace(SILENCE, b"") == b"\0\0\0"
        assert len(logged()) == len(HELLOS)
        assert all("closed: " in one and "\n" not in one for one in logged())
        heard = len(bot.audio)
        await bot.until(lambda: len(bot.audio) > heard + 10)
        assert phone.faults == []
        assert it.bridge.phones.open.count == 1
        phone.hangup()
        await it.ended(phone)


@ensureDeferred
async def test_a_connection_that_says_nothing_is_closed(logged: Any):
    async with line("audiosocket.handshake_timeout=0.1") as it:
        stranger = await connect(it, Stranger())
        await stranger.lost
        assert stranger.received.replace(SILENCE, b"") == b"\0\0\0"
        (one,) = logged()
        assert "no call UUID within 0.1 s" in one


@ensureDeferred
async def test_a_refused_call_gets_a_hangup():
    async with line("calls.max_calls=1") as it:
        first, _ = await it.talk()
        first.start_audio()
        second = await it.dial()
        third = await it.dial(call_id=first.call_id)
        for refused in (second, third):
            await refused.lost
            assert refused.hangup_received
            assert refused.faults == []
        assert first.ended is None
        first.hangup()
        await it.ended(first)
        assert first.faults == []


@ensureDeferred
async def test_a_peer_outside_the_allowed_networks_is_closed(logged: Any):
    async with line('audiosocket.allow=["192.0.2.0/24"]') as it:
        stranger = await connect(it, Stranger(b"\x01\x00\x10" + uuid4().bytes))
        await stranger.lost
        assert stranger.received == b""
        assert it.bridge.phones.refused == 1
        (one,) = logged()
        assert "connection from 127.0.0.1 closed: not in [audiosocket] allow" in one


@pytest.mark.parametrize(
    ("how", "reason"),
    [("hangup", "the caller hung up"), ("reset", "the phone's connection was reset")],
)
@ensureDeferred
async def test_the_caller_ends_the_call(how: str, reason: str):
    async with line() as it:
        phone, bot = await it.talk()
        phone.start_audio()
        await bot.until(lambda: len(bot.audio) > 5)
        getattr(phone, how)()
        record = await it.ended(phone)
        assert (record["outcome"], record["reason"]) == ("caller-hangup", reason)
        assert phone.faults == []
        await it.bridge.phones.open.idle()


@ensureDeferred
async def test_a_phone_that_breaks_the_protocol(logged: Any):
    async with line() as it:
        phone, _ = await it.talk()
        phone.send(b"\x10\xff\xff")
        record = await it.ended(phone)
        fault = "kind 0x10 with a length of 65535, expected up to 8000"
        assert record["outcome"] == "phone-fault"
        assert record["reason"] == f"the phone broke the protocol: {fault}"
        assert [fault in one for one in logged()] == [True]
        assert phone.hangup_received


@ensureDeferred
async def test_messages_that_are_not_audiosockets():
    async with line() as it:
        phone, bot = await it.talk()
        phone.start_audio()
        with capturedLogs() as captured:
            for _ in range(3):
                for unknown in ("020000", "04000131", "030004310000a0", "010010" + 16 * "ab"):
                    phone.send(bytes.fromhex(unknown))
                heard = len(bot.audio)
                await bot.until(lambda heard=heard: len(bot.audio) > heard + 5)
        said = [formatEvent(event) for event in captured]
        [one] = [text for text in said if "was skipped" in text]
        assert one.startswith(f"{phone.call_id} warning unknown-message: a message of kind 0x")
        phone.hangup()
        record = await it.ended(phone)
        assert (record["outcome"], record["reason"]) == ("caller-hangup", "the caller hung up")
        assert record["quality"]["phone_unknown_messages"] == 12
        assert record["quality"]["caller_frames"] > 15


@ensureDeferred
async def test_the_bots_last_words_are_heard_before_the_hangup():
    async with line() as it:
        phone, bot = await it.talk(driver="application")
        phone.start_audio()
        said = tone(440, 8000, 0.515)  # and no whole number of frames
        bot.burst(said, 8000)
        bot.close()
        await phone.lost
        assert sounds(phone.pcm(8000)) == sounds(said)
        assert phone.hangup_received
        assert phone.bytes_after_end == 0
        assert phone.faults == []
        assert (await it.ended(phone))["outcome"] == "completed"


@ensureDeferred
async def test_twenty_calls_at_once_do_not_disturb_each_other():
    async with line() as it:
        phones: list[StrictAsterisk] = []
        for _ in range(20):
            phone, _ = await it.talk()
            phone.start_audio()
            phones.append(phone)
        counts = [len(phone.frames) for phone in phones]
        await phones[0].until(lambda: len(phones[0].frames) >= counts[0] + 25)
        for phone in phones:
            phone.hangup()
        for phone in phones:
            assert (await it.ended(phone))["outcome"] == "caller-hangup"
            assert phone.faults == []
        await it.bridge.phones.open.idle()
