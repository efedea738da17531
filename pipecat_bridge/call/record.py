"""The record of a call: what the API shows about it, while it runs and after."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pipecat_bridge.call.call import Call
from pipecat_bridge.call.life import Outcome, State

LISTED: Final = 1 << 11
"""Most bytes of a call's metadata, as JSON, in the list of calls. The record has all of it."""


def summary(call: Call) -> dict[str, Any]:
    """The first members of the record."""
    return {
        "id": call.call_id,
        "state": call.state.value,
        "outcome": call.outcome.value if call.outcome else None,
        "reason": call.reason,
        "transfer": call.transfer,
        "created_at": call.created_at,
        "initialized_at": call.initialized_at,
        "ended_at": call.ended_at,
        "metadata": call.metadata,
    }


def listed(call: Call) -> dict[str, Any]:
    """The summary as the list of calls shows it: instead of long metadata only its length."""
    size = call.metadata_bytes
    shown = {"omitted": f"{size} bytes"} if size > LISTED else call.metadata
    return {**summary(call), "metadata": shown}


def record(call: Call) -> dict[str, Any]:
    """The whole record, with counters and events."""
    return {
        **summary(call),
        "variables": dict(call.variables),
        "peer": call.phone.peer,
        "runner": call.bot.runner_name,
        "phone_codec": call.phone.codec,
        "phone_rate": call.phone.rate,
        "bot_rate": call.playout.bot_rate,
        "warnings": dict(call.warnings.counts),
        "stats": stats(call),
        "events": [msgspec.to_builtins(event) for event in call.history],
    }


def rejected(call_id: str, peer: str, reason: str, now: float) -> dict[str, Any]:
    """The record of a phone that was refused, at `now` seconds since the epoch."""
    return {
        "id": call_id,
        "state": State.ENDED.value,
        "outcome": Outcome.REJECTED.value,
        "reason": reason,
        "transfer": None,
        "created_at": now,
        "initialized_at": None,
        "ended_at": now,
        "metadata": {},
        "variables": {},
        "peer": peer,
        "events": [],
    }


def stats(call: Call) -> dict[str, Any]:
    """The call's counters, over all its bots.

    Delays are in milliseconds. They are what the bridge adds, resampling filters included.
    """
    phone, playout = call.phone.stats, call.playout.stats
    links, queues = zip(*call.bots.stats, strict=True)
    sent = sum(each.sent for each in queues)
    mean_wait = sum(each.wait_sum for each in queues) / sent if sent else 0.0
    longest_wait = max(each.wait_max for each in queues)
    filter_ms = max(each.filter_delay for each in queues) * 1000
    return {
        "caller_frames": phone.frames_in,
        "caller_frames_filled": phone.filled_frames,
        "caller_frames_odd": phone.odd_frames,
        "caller_frames_dropped": sum(each.dropped for each in queues),
        "caller_queue_max": max(each.depth_max for each in queues),
        "caller_queued": call.bot.queued,
        "caller_delay_ms": _delay(filter_ms, mean_wait, longest_wait),
        "bot_frames": sum(each.frames_in for each in links),
        "bot_frames_bad": sum(each.bad_frames for each in links),
        "bot_frames_played": playout.frames_played,
        "bot_dropped_ms": round(playout.dropped_ms),
        "bot_queued_ms": round(call.playout.depth * 1000),
        "bot_queue_max_ms": playout.depth_max_ms,
        "bot_delay_ms": _delay(playout.filter_ms, playout.delay_mean, playout.delay_max),
        "bots_replaced": call.bots.replaced,
        "phone_frames": phone.frames_out,
        "phone_frames_skipped": phone.frames_skipped,
        "phone_unknown_messages": phone.unknown_messages,
        "prebuffer_ms": round(playout.prebuffer_ms),
        "underruns": playout.underruns,
        "underrun_ms": round(playout.underrun_ms),
        "concealed_ms": round(playout.concealed_ms),
        "shortened_ms": round(playout.shortened_ms),
        "stretched_ms": round(playout.stretched_ms),
        "scaled_ms": playout.scaled_ms,
        "interruptions": sum(each.interruptions for each in links),
        "flushed_ms": playout.flushed_ms,
    }


def _delay(filter_ms: float, mean: float, longest: float) -> dict[str, float]:
    return {
        "mean": round(filter_ms + mean * 1000, 2),
        "max": round(filter_ms + longest * 1000, 2),
    }
