"""A phone that is gone without a word: stopped, or just not reading any more. One that is cut off
is in tests/network."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from msgspec import to_builtins
from pytest_twisted import ensureDeferred
from twisted.logger import capturedLogs, formatEvent

from tests.e2e.harness import Line, line, reactor, sleep

SOON = "audiosocket.stall_timeout=0.5"
TOOK_NOTHING = "the phone took no audio for 0.5 s"

PHONE = """
import socket, sys, threading
phone = socket.socket()
phone.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
phone.connect((sys.argv[1], int(sys.argv[2])))
phone.sendall(b"\\x01\\x00\\x10" + bytes.fromhex(sys.argv[3]))
while phone.recv(4096):
    phone.sendall(b"\\x10\\x01\\x40" + bytes(320))
"""
"""Asterisk as a process of its own: reads, and answers each frame with one. Its kernel takes little
in its place; by default it takes minutes of audio for a process that has once read."""

Call = tuple[subprocess.Popen[bytes], str]
"""Such a process, and the id of its call."""


@asynccontextmanager
async def phone_process(it: Line) -> AsyncIterator[Call]:
    """A call of such a process, whose bot hears it."""
    port = it.bridge.phones.listener.port
    assert port is not None
    place, call_id = port.getHost(), uuid4()
    command = [sys.executable, "-c", PHONE, place.host, str(place.port), call_id.hex]
    process = subprocess.Popen(command)
    try:
        bots = it.runner.bots
        await it.runner.until(lambda: str(call_id) in bots)
        bot = bots[str(call_id)]
        await bot.until(lambda: len(bot.audio) > 10)
        yield process, str(call_id)
    finally:
        process.kill()
        process.wait()


async def lost(it: Line, call_id: str) -> tuple[dict[str, Any], list[str]]:
    """The record of a call once it has ended, and the lines of log about its connection."""
    with capturedLogs() as captured:
        await it.bridge.calls.idle().addTimeout(30, reactor)
        await it.bridge.phones.open.idle().addTimeout(30, reactor)
        await it.runner.until(lambda: it.runner.asked("/stop"))
    lines = [formatEvent(event) or "" for event in captured]
    record: dict[str, Any] = to_builtins(it.bridge.calls.record(call_id))
    return record, [one for one in lines if "connection from" in one]


def check(record: dict[str, Any], lines: list[str]) -> None:
    assert (record["outcome"], record["reason"]) == ("phone-lost", TOOK_NOTHING)
    [said] = lines
    assert said == f"{record['id']} connection from {record['peer']} closed: {TOOK_NOTHING}"


@ensureDeferred
async def test_a_phone_that_reads_no_more() -> None:
    async with line(SOON) as it:
        phone, _ = await it.talk()
        phone.start_audio()
        handle: Any = phone.transport
        handle.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        phone.stop_reading()
        check(*await lost(it, str(phone.call_id)))
        assert it.bridge.calls.outcomes == {"phone-lost": 1}
        await phone.lost


@ensureDeferred
async def test_a_phone_that_is_stopped() -> None:
    async with line(SOON) as it, phone_process(it) as (process, call_id):
        process.send_signal(signal.SIGSTOP)
        check(*await lost(it, call_id))
        process.send_signal(signal.SIGCONT)
        for _ in range(1000):
            if process.poll() is not None:
                break
            await sleep(0.01)
        assert process.returncode == 1  # it met a reset


@ensureDeferred
async def test_a_caller_on_hold_is_not_lost() -> None:
    """It sends nothing for three times as long, and takes every frame."""
    async with line(SOON) as it:
        phone, _ = await it.talk()
        before = len(phone.frames)
        await phone.until(lambda: len(phone.frames) > before + 75)
        assert phone.ended is None
        phone.hangup()
        assert (await it.ended(phone))["outcome"] == "caller-hangup"
