"""Makes the record of a call, while it runs and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from pipecat_bridge.audio.delays import Delays, merged
from pipecat_bridge.call.life import ENDED_BY, Outcome, State
from pipecat_bridge.events.record import VERSION, Delay, Quality, Record

if TYPE_CHECKING:
    from pipecat_bridge.call.call import Call

LISTED: Final = 1 << 11
"""Most bytes of a call's metadata, as JSON, in the list of calls. The record has all of it."""

SUSPECT: Final = 10.0
"""Seconds of talk of one side without any sound of the other one: one-way audio is suspected."""


def record(call: Call) -> Record:
    """The whole record."""
    return replace(
        listed(call, metadata=call.metadata),
        bots=call.bot_log.bots,
        errors=dict(call.errors),
        warnings=dict(call.warnings.counts),
        phone_codec=call.phone.codec,
        phone_rate=call.phone.rate,
        bot_rate=_or_unset(call.playout.bot_rate),
        quality=quality(call),
        talk=call.monitor.conversation.talk(call.interruptions, _turns(call)),
        transcript=call.transcript.part,
        recording=_or_unset(call.recording.part),
    )


def listed(call: Call, metadata: dict[str, Any] | None = None) -> Record:
    """The record as the list of calls shows it: without what is measured, and instead of long
    metadata only its length."""
    size = call.metadata_bytes
    shown = {"omitted": f"{size} bytes"} if size > LISTED else call.metadata
    outcome = call.outcome
    return Record(
        version=VERSION,
        id=call.call_id,
        node=call.node,
        direction="in",
        state=call.state.value,
        created_at=call.created_at,
        answered_at=call.created_at,
        ready_at=_or_unset(call.ready_at),
        ended_at=_or_unset(call.ended_at),
        duration=_or_unset(call.duration),
        caller=text_of(call.metadata, "caller"),
        called=text_of(call.metadata, "called"),
        peer=call.phone.peer,
        metadata=shown if metadata is None else metadata,
        runner=call.bot.runner_name or UNSET,
        outcome=outcome.value if outcome else UNSET,
        reason=call.reason or UNSET,
        ended_by=ENDED_BY[outcome] if outcome else UNSET,
        transfer=_or_unset(call.transfer),
        variables=dict(call.variables),
        errors={},
        warnings={},
    )


def rejected(call_id: str, node: str, peer: str, reason: str, now: float) -> Record:
    """The record of a phone that was refused, at `now` seconds since the epoch."""
    return Record(
        version=VERSION,
        id=call_id,
        node=node,
        direction="in",
        state=State.ENDED.value,
        created_at=now,
        ended_at=now,
        peer=peer,
        metadata={},
        outcome=Outcome.REJECTED.value,
        reason=reason,
        ended_by=ENDED_BY[Outcome.REJECTED],
        variables={},
        errors={},
        warnings={},
    )


def text_of(metadata: Mapping[str, Any], key: str) -> str | UnsetType:
    """A member of the metadata, if it is text."""
    value = metadata.get(key)
    return value if isinstance(value, str) and value else UNSET


def _or_unset(value: Any) -> Any:
    return UNSET if value is None else value


def _turns(call: Call) -> int | UnsetType:
    part = call.transcript.part
    return part.turns if part.none is UNSET else UNSET


def quality(call: Call) -> Quality:
    """The call's counters, over all its bots."""
    phone, playout = call.phone.stats, call.playout.stats
    links, queues = zip(*call.bots.stats, strict=True)
    sent = sum(each.sent for each in queues)
    waits = merged(each.waits for each in queues)
    filter_ms = max(each.filter_delay for each in queues) * 1000
    return Quality(
        caller_frames=phone.frames_in,
        caller_frames_filled=phone.filled_frames,
        caller_frames_odd=phone.odd_frames,
        caller_frames_dropped=sum(each.dropped for each in queues),
        caller_queue_max=max(each.depth_max for each in queues),
        caller_queued=call.bot.queued,
        caller_delay_ms=_delay(filter_ms, waits, sent),
        bot_frames=sum(each.frames_in for each in links),
        bot_frames_bad=sum(each.bad_frames for each in links),
        bot_frames_played=playout.frames_played,
        bot_dropped_ms=round(playout.dropped_ms),
        bot_queued_ms=round(call.playout.depth * 1000),
        bot_queue_max_ms=playout.depth_max_ms,
        bot_delay_ms=_delay(playout.filter_ms, playout.delays, playout.frames_played),
        bots_replaced=call.bots.replaced,
        phone_frames=phone.frames_out,
        phone_frames_skipped=phone.frames_skipped,
        phone_frames_late=phone.late_frames,
        phone_unknown_messages=phone.unknown_messages,
        prebuffer_ms=round(playout.prebuffer_ms),
        underruns=playout.underruns,
        underrun_ms=round(playout.underrun_ms),
        concealed_ms=round(playout.concealed_ms),
        shortened_ms=round(playout.shortened_ms),
        stretched_ms=round(playout.stretched_ms),
        scaled_ms=playout.scaled_ms,
        interruptions=call.interruptions,
        flushed_ms=playout.flushed_ms,
        one_way=call.monitor.conversation.one_way(SUSPECT),
    )


def _delay(filter_ms: float, delays: Delays, frames: int) -> Delay | UnsetType:
    """Of `frames`, all that are not in `delays` had none but the filter's."""
    if not frames:
        return UNSET
    ms = (
        delays.total / frames,
        delays.quantile(0.95, undelayed=frames - delays.count),
        delays.longest,
    )
    mean, p95, longest = (round(filter_ms + each * 1000, 2) for each in ms)
    return Delay(mean=mean, p95=p95, max=longest)
