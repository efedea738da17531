"""A network between the bridge and its peers that is slow, loses packets, or is cut for a while.

The whole daemon runs on a turned clock. Every message of a side arrives when a path says.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from pipecat_bridge.tools.load.patterns import Pattern, Stall
from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.link import Path
from tests.e2e.memory_line import MemoryLine, memory_line
from tests.unit.audio.hearing import noise, voice

BEGIN = 1.0
TALK = voice(60.0) + noise(60.0, 40.0)


def jittery(seed: int) -> Path:
    """80 ms, and up to 30 ms more."""
    chance = Random(seed)
    return lambda now, _: now + 0.08 + chance.uniform(0.0, 0.03)


def lossy(rate: float, seed: int) -> Path:
    """This part of the messages comes only after TCP has sent it again, and all after it too."""
    chance = Random(seed)
    return lambda now, _: now + (0.22 if chance.random() < rate else 0.01)


def cut(begin: float, length: float) -> Path:
    """Nothing arrives for so long; then everything does."""
    pattern = Pattern(stalls=(Stall(begin, length),))
    return lambda now, _: pattern.delayed(now, Random(1))


def narrow(bytes_per_second: float) -> Path:
    """The bandwidth of a path."""
    free = 0.0

    def arrival(now: float, size: int) -> float:
        nonlocal free
        free = max(free, now) + size / bytes_per_second
        return free

    return arrival


PATHS = {
    "80 ms with 30 ms of jitter": (lambda: jittery(1), 2),
    "1 % lost": (lambda: lossy(0.01, 2), 10),
    "3 % lost": (lambda: lossy(0.03, 3), 10),
}


def use(it: MemoryLine, side: str, path: Path) -> None:
    """Let `path` lead from a side to the bridge, and back."""
    listener: Any = it.bridge.phones.listener if side == "phone" else it.bridge.runner.listener
    port = listener.port.getHost().port
    it.clock.paths[port] = (path, path)


def holes(phone: StrictAsterisk, since: float) -> int:
    """How often the phone got 5 ms or more of digital silence within the sound."""
    pcm = b"".join(frame.payload for frame in phone.frames if frame.at > since)
    gaps = np.diff(np.flatnonzero(np.frombuffer(pcm, "<i2")))
    return int(np.count_nonzero(gaps > 40))


@pytest.mark.parametrize("name", PATHS)
def test_a_bot_behind_a_bad_network_is_understood(name: str) -> None:
    make, most = PATHS[name]
    with memory_line() as it:
        use(it, "bot", make())
        phone, bot = it.talk()
        phone.start_audio()
        it.clock.turn(BEGIN)
        began = it.clock.seconds()
        bot.say(TALK.tobytes(), 8000)
        it.clock.turn(61.0)
        record = it.record(phone)
        stats = record["quality"]
        assert record["warnings"] == {}
        assert stats["caller_frames_dropped"] == 0
        assert stats["underruns"] <= most
        assert holes(phone, began + 15.0) <= most // 2
        assert stats["bot_delay_ms"]["mean"] < 350
        heard = stats["bot_frames_played"] * 20 + stats["shortened_ms"] - stats["stretched_ms"]
        assert abs(heard - 60_000) < 500  # nothing was lost but what was told
        assert phone.faults == bot.faults == []


def test_a_bot_is_cut_off_for_3_s_and_comes_back() -> None:
    with memory_line() as it:
        use(it, "bot", cut(11.0, 3.0))
        phone, bot = it.talk()
        phone.start_audio()
        it.clock.turn(BEGIN)
        bot.say(TALK.tobytes(), 8000)
        it.clock.turn(59.0)
        record = it.record(phone)
        stats = record["quality"]
        assert (record["state"], record["warnings"]) == ("talking", {})
        assert stats["underruns"] == 1
        assert abs(stats["underrun_ms"] - 3000) < 100
        assert abs(stats["shortened_ms"] - 3000) < 100
        assert stats["bot_queued_ms"] < 100
        assert phone.faults == bot.faults == []


def test_a_bot_that_is_cut_off_for_30_s_is_lost() -> None:
    with memory_line() as it:
        use(it, "bot", cut(11.0, 30.0))
        phone, _ = it.talk()
        phone.start_audio()
        it.clock.turn(60.0)
        record = it.record(phone)
        assert record["outcome"] == "bot-hangup"
        assert "20 s" in record["reason"]
        assert "bot" in record["reason"]


def test_a_path_that_is_too_narrow_for_a_bot() -> None:
    """What arrives is heard, in few pieces rather than in many."""
    with memory_line() as it:
        use(it, "bot", narrow(13_000))
        phone, bot = it.talk()
        it.clock.turn(BEGIN)
        bot.say(TALK[:160_000].tobytes(), 8000)
        it.clock.turn(40.0)
        stats = it.record(phone)["quality"]
        assert 2 <= stats["underruns"] < 40
        assert phone.faults == []


@pytest.mark.parametrize("name", [*PATHS, "bursts of 0.3 s"])
def test_a_phone_behind_a_bad_network_gets_no_silence_into_its_words(name: str) -> None:
    bursts = Pattern(stalls=tuple(Stall(n * 0.3, 0.2999) for n in range(300)))
    path = PATHS[name][0]() if name in PATHS else lambda now, _: bursts.delayed(now, Random(1))
    with memory_line() as it:
        use(it, "phone", path)
        phone, bot = it.talk()
        phone.start_audio()
        it.clock.turn(60.0)
        stats = it.record(phone)["quality"]
        assert stats["caller_frames_filled"] <= 25  # losses that follow each other
        assert stats["caller_frames_dropped"] == 0
        assert abs(len(bot.audio) - 3000) < 40
        assert set(it.record(phone)["warnings"]) <= {"bot-mute"}
        assert bot.faults == []


@pytest.mark.parametrize("length", [3.0, 30.0])
def test_nothing_comes_from_a_phone_for_a_while(length: float) -> None:
    """The bot gets silence meanwhile, and then what was late. (A phone that takes nothing either is
    lost after 10 s: tests/network.)"""
    with memory_line() as it:
        use(it, "phone", cut(11.0, length))
        phone, bot = it.talk()
        phone.start_audio()
        it.clock.turn(27.0 + length)
        record = it.record(phone)
        assert record["state"] == "talking"
        assert abs(record["quality"]["caller_frames_filled"] - 50 * length) <= 2
        assert record["quality"]["caller_frames"] >= 50 * (26.0 + length)
        assert bot.faults == []
