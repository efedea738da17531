"""The record of a call, version 1: what is known of it, while it runs and when it has ended.

What was not measured is left out, and is never written as 0. Times are in seconds since the epoch,
all others in the unit of their name.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

VERSION: Final = 1

REJECTED: Final = "rejected"
"""The outcome of a phone that was refused: there was no call."""

Direction = Literal["in", "out"]

EndedBy = Literal["caller", "bot", "phone", "runner", "operator", "bridge"]
"""Who ended a call. phone: its connection or its protocol broke. runner: it gave no bot. operator:
a client of the API, a limit of the configuration, or the end of the daemon."""


class Part(Struct, frozen=True, omit_defaults=True):
    """A part of the record."""


class BotRecord(Part, frozen=True, kw_only=True):
    """One bot of a call, or a runner that gave none.

    `asked_at`: when the runner was asked. `ready_at` and `ready_by`: when it was ready, and what
    showed that. `ended_at` and `fault`: when it was lost, or its start had failed, and why.
    """

    runner: str
    asked_at: float
    ready_at: float | UnsetType = UNSET
    ready_by: str | UnsetType = UNSET
    ended_at: float | UnsetType = UNSET
    fault: str | UnsetType = UNSET


class AnswerTimes(Part, frozen=True, kw_only=True):
    """Seconds from the caller's last sound to the bot's first, as the phone hears them."""

    count: int
    p50: float
    p95: float
    max: float


class Talk(Part, frozen=True, kw_only=True):
    """What was measured of the conversation, in seconds, from the sound at the phone.

    `first_answer`: from the beginning of the call to the bot's first sound. `longest_silence`:
    while nobody spoke, between two sounds. `turns`: of the transcript. `interruptions`: how often
    the caller barged in.
    """

    caller_talk: float
    bot_talk: float
    caller_utterances: int
    bot_utterances: int
    interruptions: int
    turns: int | UnsetType = UNSET
    first_answer: float | UnsetType = UNSET
    answers: AnswerTimes | UnsetType = UNSET
    longest_silence: float | UnsetType = UNSET


class Delay(Part, frozen=True, kw_only=True):
    """Milliseconds that the bridge adds in one direction, its filters included."""

    mean: float
    p95: float
    max: float


class Quality(Part, frozen=True, kw_only=True):
    """Counters over all bots of the call. Frames have 20 ms.

    `caller_..`: from the phone to the bot. `bot_..`: from the bot to the phone. `phone_..`: to the
    phone. `underruns`: how often audio of the bot was missing within an utterance.
    """

    caller_frames: int
    caller_frames_filled: int
    caller_frames_odd: int
    caller_frames_dropped: int
    caller_queue_max: int
    caller_queued: int
    caller_delay_ms: Delay | UnsetType = UNSET
    bot_frames: int
    bot_frames_bad: int
    bot_frames_played: int
    bot_dropped_ms: int
    bot_queued_ms: int
    bot_queue_max_ms: int
    bot_delay_ms: Delay | UnsetType = UNSET
    bots_replaced: int
    phone_frames: int
    phone_frames_skipped: int
    phone_frames_late: int
    phone_unknown_messages: int
    prebuffer_ms: int
    underruns: int
    underrun_ms: int
    concealed_ms: int
    shortened_ms: int
    stretched_ms: int
    scaled_ms: int
    interruptions: int
    flushed_ms: int
    one_way: Literal["caller", "bot"] | UnsetType = UNSET
    """The side of which nothing was heard, though the other one spoke."""


class TranscriptPart(Part, frozen=True, kw_only=True):
    """How much of a transcript there is, or why there is none. `omitted`: turns that were too many
    to be kept."""

    turns: int
    omitted: int = 0
    none: str | UnsetType = UNSET


class RecordingPart(Part, frozen=True, kw_only=True):
    """The recording of the call. `seconds`: recorded so far. `fault`: why it has not all of the
    call. `url`: where it is, if it is not on the disk of the node any more."""

    state: Literal["running", "paused", "waiting", "ready", "deleted"]
    seconds: float
    format: Literal["opus", "flac", "wav"] | UnsetType = UNSET
    bytes: int | UnsetType = UNSET
    fault: str | UnsetType = UNSET
    url: str | UnsetType = UNSET


RecordingChange = RecordingPart | str
"""What has happened to a recording after its call: all that is known of it now, or only the URL of
the place where it is now."""


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that is known of a call.

    `state`: starting, talking, resuming, finishing or ended. `runner`: of the last bot. `bots`: all
    bots in order, and the runners that gave none. `outcome`: how it ended, in one word; `reason`:
    in one sentence. `metadata`: what the call was prepared with. `variables`: what the bot has set
    for the dialplan. `errors`: categories of the bot's errors -> how many. `warnings`: kinds of
    warnings -> how many.
    """

    version: int
    id: str
    node: str
    direction: Direction
    state: str
    created_at: float
    answered_at: float | UnsetType = UNSET
    ready_at: float | UnsetType = UNSET
    ended_at: float | UnsetType = UNSET
    duration: float | UnsetType = UNSET
    caller: str | UnsetType = UNSET
    called: str | UnsetType = UNSET
    peer: str
    metadata: dict[str, Any]
    runner: str | UnsetType = UNSET
    bots: tuple[BotRecord, ...] = ()
    outcome: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    ended_by: EndedBy | UnsetType = UNSET
    transfer: str | UnsetType = UNSET
    variables: dict[str, str]
    errors: dict[str, int]
    warnings: dict[str, int]
    phone_codec: str | UnsetType = UNSET
    phone_rate: int | UnsetType = UNSET
    bot_rate: int | UnsetType = UNSET
    talk: Talk | UnsetType = UNSET
    quality: Quality | UnsetType = UNSET
    transcript: TranscriptPart | UnsetType = UNSET
    recording: RecordingPart | UnsetType = UNSET


def with_recording(record: Record, change: RecordingChange) -> Record:
    """The record after something has happened to its recording."""
    if isinstance(change, RecordingPart):
        return replace(record, recording=change)
    if record.recording is UNSET:
        return record
    return replace(record, recording=replace(record.recording, url=change))
