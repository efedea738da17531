"""A known signal goes from the caller to an echo bot and back, and is found again to the sample.

What must come back is computed beforehand, by the bridge's own filters run over the whole signal
at once, and compared to the bit. That the filters are good is measured apart from them: by the
tones in the signal, against everything in the output that is not these tones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from pytest_twisted import ensureDeferred

from pipecat_bridge.audio.resample import make_resampler
from tests.doubles.asterisk import JITTER, AudioFrame, StrictAsterisk
from tests.doubles.bot import BotDouble
from tests.e2e.harness import line
from tests.e2e.memory_line import memory_line
from tests.unit.signals import (
    chunks,
    decibels,
    multitone,
    rms,
    seconds,
    sinad,
    stream,
    to_pcm,
    to_signal,
    tone,
)

MINUTES = 10 * 60.0
BOT_RATE = 16000
FRAME = 0.02
PART = 10.0
"""Seconds of each of the tones and chords; the rest of a signal is noise."""

CALLER_TO_BOT = 0.003
BOT_TO_CALLER = (0.045, 0.070)
"""Seconds of delay that the bridge may add: the goals, p50 and p99."""

PATIENT = (
    "caller_audio.hold_after=30",
    "bot_audio.prebuffer=1",
    "bot_audio.max_prebuffer=1",
    "bot_audio.time_scaling=false",
)
"""For real sockets: a busy machine may stand still for a second. Then nothing must be filled in or
scaled, so that each sample can be found."""

Times = npt.NDArray[np.float64]


def band(rate: int) -> float:
    """Return the edge of the pass band in Hz: 3.4 kHz at 8 kHz, scaled."""
    return 0.425 * rate


def chord(rate: int) -> list[float]:
    """Return 16 frequencies, in whole Hz and no multiples of each other, over the pass band."""
    return [float(round(f)) for f in np.geomspace(211, band(rate) - 10, 16)]


def noise(rate: int, duration: float, seed: int) -> bytes:
    """Return noise that ends at the pass band's edge; no two pieces of it are alike."""
    count = round(rate * duration)
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=count))
    spectrum[np.fft.rfftfreq(count, 1 / rate) > band(rate)] = 0
    return to_pcm(0.1 * np.fft.irfft(spectrum, count))


def known_signal(rate: int, duration: float) -> bytes:
    """Return tones of 1 and 3 kHz, a chord, and noise for the rest of `duration` seconds."""
    chord_pcm = to_pcm(multitone(chord(rate), seconds(rate, round(rate * PART))))
    tones = tone(1000, rate, PART) + tone(3000, rate, PART) + chord_pcm
    return tones + noise(rate, duration - 3 * PART, seed=rate)


def part(pcm: bytes, number: int, rate: int) -> npt.NDArray[np.float64]:
    """Return the middle of part `number`, as a signal, away from where the parts meet."""
    start, end = (round(rate * PART * (number + edge)) for edge in (0.02, 0.98))
    return to_signal(pcm[2 * start : 2 * end])


def check_quality(pcm: bytes, rate: int, caller_rate: int) -> None:
    """Fail where less than 80 dB are between a tone, or the caller's chord, and all the rest."""
    assert sinad(part(pcm, 0, rate), 1000, rate) >= 80
    assert sinad(part(pcm, 1, rate), 3000, rate) >= 80
    assert chord_snr(part(pcm, 2, rate), rate, chord(caller_rate)) >= 80


def chord_snr(signal: npt.NDArray[np.float64], rate: int, frequencies: list[float]) -> float:
    """Return the level of the chord over that of the rest, and check each tone's gain."""
    angles = 2 * np.pi * np.outer(seconds(rate, len(signal)), frequencies)
    basis = np.hstack([np.sin(angles), np.cos(angles), np.ones((len(signal), 1))])
    parts = np.linalg.lstsq(basis, signal, rcond=None)[0]
    count = len(frequencies)
    levels = np.hypot(parts[:count], parts[count : 2 * count])
    assert all(abs(decibels(level * count) + 3) < 0.1 for level in levels), levels
    return decibels(rms(basis @ parts) / rms(signal - basis @ parts))


def check_same(got: bytes, expected: bytes, rate: int) -> None:
    """Fail at the first sample that was lost, repeated, out of order or changed."""
    if got == expected:
        return
    ours, theirs = np.frombuffer(got, "<i2"), np.frombuffer(expected, "<i2")
    common = min(len(ours), len(theirs))
    differing = np.flatnonzero(ours[:common] != theirs[:common])
    first = int(differing[0]) if len(differing) else common
    pytest.fail(
        f"{len(ours)} samples where {len(theirs)} are expected; they differ from number {first}"
        f" on, {first / rate:.3f} s from the start"
    )


class Heard(NamedTuple):
    """What a phone got, from one frame before its first sound on. The bot's audio, `pcm`, begins
    `pad` samples after the begin of the first frame."""

    frames: list[AudioFrame]
    pad: int
    pcm: bytes
    rate: int

    def times(self, length: float) -> Times:
        """When each piece of the bot's audio of `length` seconds began at the phone."""
        size = self.rate // 50
        starts = np.arange(self.pad, len(self.frames) * size, round(length * self.rate))
        at = np.array([frame.at for frame in self.frames])
        times: Times = at[starts // size] + starts % size / self.rate
        return times


def hear(frames: Sequence[AudioFrame], expected: bytes, rate: int) -> Heard:
    """Fail unless `expected` is all that is in `frames`, with silence around it."""
    first = next(number for number, frame in enumerate(frames) if any(frame.payload))
    frames = list(frames[first - 1 :])  # the filter's first samples are 0
    sound = np.flatnonzero(np.frombuffer(expected, "<i2"))
    end = 2 * int(sound[-1]) + 2
    got = b"".join(frame.payload for frame in frames)
    pad = int(np.flatnonzero(np.frombuffer(got, "<i2"))[0] - sound[0])
    assert 0 <= pad < 2 * rate // 50
    check_same(got[2 * pad : 2 * pad + end], expected[:end], rate)
    assert not any(got[2 * pad + end :])
    return Heard(frames, pad, expected, rate)


def check_delays(delays: Times, filter_delay: float) -> None:
    """Fail when the bot's audio is later at the phone than the goals allow."""
    p50, p99 = np.percentile(delays, (50, 99)) + filter_delay
    assert p50 <= BOT_TO_CALLER[0], f"p50 {p50 * 1000:.1f} ms"
    assert p99 <= BOT_TO_CALLER[1], f"p99 {p99 * 1000:.1f} ms"


def lag(before: bytes, after: bytes, rate: int) -> float:
    """Return by how many seconds a signal is later in `after`: the peak of their correlation."""
    x, y = (to_signal(pcm)[-rate:] for pcm in (before, after))
    correlation = np.fft.irfft(np.fft.rfft(y, 2 * rate) * np.conj(np.fft.rfft(x, 2 * rate)))
    return int(np.argmax(correlation[:rate])) / rate


@pytest.mark.parametrize("rate", [8000, 16000])
def test_ten_minutes_are_found_back_to_the_sample(rate: int) -> None:
    pcm = known_signal(rate, MINUTES)
    phone, bot = echo_call(pcm, rate, offset=0.007)
    heard = check_echo(phone, bot, rate)
    check_quality(bot.pcm(), BOT_RATE, rate)
    check_quality(heard.pcm, rate, rate)
    check_caller_to_bot(phone, bot, rate)
    check_delays(echo_delays(heard, bot), lag(said(phone), heard.pcm, rate))


def echo_call(
    pcm: bytes, rate: int, offset: float = 0.0, jitter: Sequence[float] = (0.0,)
) -> tuple[StrictAsterisk, BotDouble]:
    """A call to an echo bot in which the caller says `pcm`, until it is over at the phone.

    `offset` is between the bridge's clock and the caller's frames, in seconds.
    """
    # The end of the source is not a hold: nothing is to be filled in.
    with memory_line("caller_audio.hold_after=1", echo=True) as it:
        phone, bot = it.talk(rate=rate, jitter=jitter)
        it.clock.turn(offset)
        # Without silence at its end, the bridge would let the last sound fade.
        done = phone.start_audio(chunks(pcm + bytes(rate // 50 * 10), rate // 50 * 2))
        it.clock.wait(done, limit=len(pcm) / rate)
        it.clock.turn(0.1)
        check_undisturbed(it.record(phone)["quality"])
        assert phone.faults == []
        assert bot.faults == []
    return phone, bot


def check_echo(phone: StrictAsterisk, bot: BotDouble, rate: int) -> Heard:
    """Fail unless bot and phone got all that the caller said, filtered, and nothing else."""
    at_bot = stream(make_resampler(rate, BOT_RATE), said(phone))
    check_same(bot.pcm(), at_bot, BOT_RATE)
    return hear(phone.frames, stream(make_resampler(BOT_RATE, rate), at_bot), rate)


def said(phone: StrictAsterisk) -> bytes:
    """All audio that the phone sent."""
    return b"".join(frame.payload for frame in phone.sent)


def check_undisturbed(stats: dict[str, float]) -> None:
    """Fail when anything was dropped, filled in or waited for in vain."""
    wrong = (
        *("dropped", "odd", "bad", "skipped", "underruns", "flushed", "filled"),
        *("concealed", "shortened", "stretched", "scaled"),
    )
    assert {name: n for name, n in stats.items() if n and any(word in name for word in wrong)} == {}


def check_caller_to_bot(phone: StrictAsterisk, bot: BotDouble, rate: int) -> None:
    """Fail when the caller is later at the bot than the goal allows, by clock and by filter."""
    waits = [there.at - here.at for here, there in zip(phone.sent, bot.audio, strict=True)]
    assert max(waits) < 1e-9
    at_bot = np.frombuffer(bot.pcm(), "<i2")[:: BOT_RATE // rate].tobytes()
    assert lag(said(phone), at_bot, rate) <= CALLER_TO_BOT


def echo_delays(heard: Heard, bot: BotDouble) -> Times:
    """Seconds from when a frame left the bot until it began at the phone."""
    played = heard.times(FRAME)[: len(bot.audio)]
    return played - np.array([said.at for said in bot.audio[: len(played)]])


def test_the_delay_does_not_depend_on_the_phase_of_the_clocks() -> None:
    pcm = noise(8000, 4.0, seed=4)
    for offset in (0.0, 0.0001, 0.005, 0.010, 0.015, 0.0199, 0.02):
        phone, bot = echo_call(pcm, 8000, offset)
        heard = check_echo(phone, bot, 8000)
        check_caller_to_bot(phone, bot, 8000)
        check_delays(echo_delays(heard, bot), lag(said(phone), heard.pcm, 8000))


@pytest.mark.parametrize("rate", [8000, 16000])
def test_jitter_of_the_caller_neither_cuts_nor_delays(rate: int) -> None:
    pcm = noise(rate, 60.0, seed=60)
    for offset in (0.0, 0.005, 0.012):
        phone, bot = echo_call(pcm, rate, offset, JITTER)
        spacings = np.diff([frame.at for frame in phone.sent])
        assert round(spacings.min(), 4) == 0.013
        assert round(spacings.max(), 4) == 0.027
        heard = check_echo(phone, bot, rate)
        check_caller_to_bot(phone, bot, rate)
        check_delays(echo_delays(heard, bot), lag(said(phone), heard.pcm, rate))


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("bot_rate", [8000, 16000, 22050, 24000, 32000, 44100, 48000])
def test_a_bot_of_another_rate_is_heard_to_the_sample(bot_rate: int, rate: int) -> None:
    pcm = tone(1000, bot_rate, PART) + tone(3000, bot_rate, PART) + noise(bot_rate, PART, seed=24)
    with memory_line() as it:
        phone, bot = it.talk(rate=rate)
        phone.start_audio()
        it.clock.turn(0.203)
        began = it.clock.seconds()
        # Without silence at its end, the bridge would let the last sound fade.
        it.clock.wait(bot.say(pcm + bytes(bot_rate // 5), bot_rate, chunk_ms=40), limit=4 * PART)
        it.clock.turn(0.2)
        check_undisturbed(it.record(phone)["quality"])
        assert phone.faults == []
    at_phone = stream(make_resampler(bot_rate, rate), pcm + bytes(bot_rate // 5))
    heard = hear(phone.frames, at_phone, rate)
    assert sinad(part(at_phone, 0, rate), 1000, rate) >= 80
    assert sinad(part(at_phone, 1, rate), 3000, rate) >= 80
    played = heard.times(2 * FRAME)[:-1]
    check_delays(played - (began + np.arange(len(played)) * 2 * FRAME), 0.003)


async def check_live_echo(phone: StrictAsterisk, bot: BotDouble, rate: int) -> None:
    """Three seconds of noise to an echo bot and back: each sample as the filters make it, once."""
    pcm = noise(rate, 3.0, seed=3) + bytes(rate // 50 * 10)
    await phone.start_audio(chunks(pcm, rate // 50 * 2))
    await phone.until(lambda: is_over(phone))
    at_bot = stream(make_resampler(rate, BOT_RATE), pcm)
    # Where the caller was late to begin, silence came before him.
    check_same(bot.pcm()[-len(at_bot) :], at_bot, BOT_RATE)
    assert not any(bot.pcm()[: -len(at_bot)])
    hear(phone.frames, stream(make_resampler(BOT_RATE, rate), at_bot), rate)


@pytest.mark.parametrize("rate", [8000, 16000])
@ensureDeferred
async def test_on_real_sockets_nothing_is_lost_either(rate: int):
    async with line(*PATIENT, echo=True) as it:
        phone, bot = await it.talk(rate=rate)
        await check_live_echo(phone, bot, rate)
        phone.hangup()
        await it.ended(phone)
        assert phone.faults == []
        assert bot.faults == []


def is_over(phone: StrictAsterisk) -> bool:
    """True if the phone has heard something, and then silence for 80 ms."""
    ends = [any(frame.payload) for frame in phone.frames]
    return any(ends) and not any(ends[-4:])
