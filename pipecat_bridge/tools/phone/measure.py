"""Measures a call from its recording alone."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from pipecat_bridge.tools.phone.microphone import Utterance
from pipecat_bridge.tools.phone.recording import Chunk, Recording, Span, Timeline, lateness
from pipecat_bridge.tools.phone.softphone import FRAME_SECONDS
from pipecat_bridge.tools.phone.speech import THRESHOLD, spans, window_levels

# Pauses between the words of one answer are shorter than this.
WORD_PAUSE_SECONDS: Final = 0.3


class MeasuredPace(NamedTuple):
    """How evenly the bot's messages came.

    `messages`: number of messages. `p50`, `p99`, `latest`: lateness in seconds, measured from a
    pace of equal steps. `missing`: number of 20 ms messages that never came. `dry`: seconds in
    which a phone with a small jitter buffer had nothing to play. `lead`: the most seconds by which
    the sender was ahead.
    """

    messages: int
    p50: float
    p99: float
    latest: float
    missing: int
    dry: float
    lead: float


class Turn(NamedTuple):
    """When the caller spoke, and when the bot spoke before the caller's next words.

    `said`: None for the greeting. `heard`: None if the bot was silent. `interrupted`: the caller's
    next words began while the bot still spoke. Times are in seconds of the call.
    """

    said: Span | None
    heard: Span | None
    interrupted: bool

    @property
    def answered_after(self) -> float | None:
        """Seconds from the caller's last sound to the first sound of the answer."""
        if self.said is None or self.heard is None:
            return None
        return self.heard.start - self.said.end


def pace_of(recording: Recording, timeline: Timeline) -> MeasuredPace:
    """How evenly the bot's audio arrived.

    The first message answers the call and has no fixed time, so its lateness does not count.
    """
    lasting, jitter = lateness(recording.chunks)
    if not lasting.size:
        return MeasuredPace(0, 0.0, 0.0, 0.0, 0, 0.0, 0.0)
    late = jitter[1:] if jitter.size > 1 else jitter
    p50, p99 = np.percentile(late, [50, 99])
    missing = max(0, round(float(lasting[-1] - lasting[0]) / FRAME_SECONDS))
    dry = sum(gap.seconds for gap in timeline.gaps)
    return MeasuredPace(
        lasting.size, float(p50), float(p99), float(late.max()), missing, dry, timeline.lead
    )


def own_lateness(recording: Recording) -> float:
    """The longest lateness of the phone's own frames, in seconds."""
    due = np.arange(len(recording.sent_at)) * FRAME_SECONDS
    return float((np.array(recording.sent_at) - due).max(initial=0.0))


def turns_of(timeline: Timeline, utterances: list[Utterance]) -> list[Turn]:
    """The turns of a call: the greeting, and one turn for each utterance of the caller."""
    said = [Span(u.start / timeline.rate, u.end / timeline.rate) for u in utterances]
    sounds = spans(timeline.bot, timeline.rate, pause=WORD_PAUSE_SECONDS, shortest=0.0)
    turns = []
    for before, after in zip([None, *said], [*said, None], strict=True):
        begin = 0.0 if before is None else before.end
        end = timeline.seconds if after is None else after.start
        heard = [one for one in sounds if begin <= one.start < end]
        whole = Span(heard[0].start, heard[-1].end) if heard else None
        turns.append(Turn(before, whole, whole is not None and whole.end > end))
    return turns


def heard_after(timeline: Timeline, moment: float) -> float:
    """Seconds for which the bot went on to speak after `moment`; 0 if it did not speak then."""
    for one in spans(timeline.bot, timeline.rate, pause=WORD_PAUSE_SECONDS, shortest=0.0):
        if one.start <= moment < one.end:
            return one.end - moment
    return 0.0


def messages_after(chunks: list[Chunk], moment: float) -> int:
    """Number of messages with sound that arrived after `moment` and before the next pause."""
    found, last = 0, moment
    for chunk in chunks:
        if chunk.at <= moment:
            continue
        if chunk.at - last > WORD_PAUSE_SECONDS:
            break
        if window_levels(np.frombuffer(chunk.pcm, dtype="<i2"), chunk.rate).max() > THRESHOLD:
            found, last = found + 1, chunk.at
    return found


def silences(timeline: Timeline, longest: float) -> list[Span]:
    """The silences of more than `longest` seconds."""
    voices = [
        one
        for track in (timeline.caller, timeline.bot)
        for one in spans(track, timeline.rate, pause=WORD_PAUSE_SECONDS)
    ]
    found, last = [], 0.0
    for voice in [*sorted(voices), Span(timeline.seconds, timeline.seconds)]:
        if voice.start - last > longest:
            found.append(Span(last, voice.start))
        last = max(last, voice.end)
    return found
