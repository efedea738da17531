"""Odd values of every option: refused with a sentence, or a call goes through. All in memory."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from msgspec import Meta
from twisted.logger import LogLevel, capturedLogs

from pipecat_bridge.config.load import ConfigError, load_options
from pipecat_bridge.options import WEEK, Bytes, Options
from tests.e2e.memory_line import memory_line

LONG = "x" * 10_000

ODD = (
    *("0", "-1", "0.5", "1e-300", "1e308", "nan", "inf", "-inf", str(10**20), "1" + 400 * "0"),
    *("", "\0", "\x1b[2J", "start", "/", LONG, "true", "2026-01-01"),
    *("[]", "[0]", '[""]', r'["\u0000"]', f'["{LONG}"]', "{}", '{a = ""}', r'{a = "\u0000"}'),
    "{a = " + "[" * 2000 + "]" * 2000 + "}",
)
"""Values as they are written after `--set section.key=`."""


def bounds(hint: Any) -> Iterator[str]:
    """The ends of a number's range, which must work, and what lies beyond them."""
    for meta in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
        assert isinstance(meta, Meta)
        assert meta.ge is not None
        assert meta.le is not None
        step = 1 if get_args(hint)[0] is int else 1e-4
        for number in (meta.ge, meta.le, meta.ge - step, meta.le + step):
            yield str(number)


def options() -> list[tuple[str, str]]:
    """Each option, with an odd value."""
    return [
        (f"{section}.{key}", value)
        for section, shape in get_type_hints(Options).items()
        for key, hint in get_type_hints(shape, include_extras=True).items()
        for value in (*bounds(hint), *ODD)
    ]


def test_every_number_has_a_range() -> None:
    for section, shape in get_type_hints(Options).items():
        for key, hint in get_type_hints(shape, include_extras=True).items():
            if get_origin(hint) is Annotated:
                assert list(bounds(hint)), f"{section}.{key}"
            else:
                assert hint not in (int, float), f"{section}.{key}"


def faults(setting: str) -> list[str]:
    """The sentences with which a setting is refused."""
    try:
        load_options(overrides=["runner.mode=dialback", setting])
    except ConfigError as error:
        return str(error).splitlines()
    return []


NAMES = sorted({name for name, _ in options()})


@pytest.mark.parametrize("name", NAMES)
def test_refused_or_a_call_goes_through(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some options are names of files, for which any value is good
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    section, _, key = name.partition(".")
    for value in (value for each, value in options() if each == name):
        said = faults(f"{name}={value}")
        for sentence in said:
            assert f"[{section}]" in sentence
            assert key in sentence
            assert "expected" in sentence
            assert sentence.isprintable()
            assert len(sentence) < 600
        if not said:
            call(f"{name}={value}")


def call(setting: str) -> None:
    """A call of a second, with one option set."""
    with memory_line("runner.health_interval=0", setting) as it, capturedLogs() as log:
        phone = it.dial()
        phone.start_audio()
        it.clock.turn(1.0)
        assert phone.faults == []
        assert it.record(phone).get("outcome") in (None, EARLY.get(setting)), setting
        if phone.ended is None:
            phone.hangup()
        it.clock.wait(it.bridge.stopService(), limit=2 * WEEK)
    assert [event for event in log if event["log_level"] >= LogLevel.error] == [], setting


EARLY = {"calls.max_duration=0.5": "timeout"}
"""Settings with which a call may be over within a second, and its outcome."""


@pytest.mark.parametrize("option", [socket.SO_RCVBUF, socket.SO_SNDBUF])
def test_sockets_take_the_largest_buffers(option: int) -> None:
    _, meta = get_args(Bytes)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, option, meta.le)
