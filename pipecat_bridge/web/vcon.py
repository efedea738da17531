"""A call as a vCon, the IETF's container for conversations (draft-ietf-vcon-vcon-core)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import msgspec
from msgspec import UnsetType

from pipecat_bridge.events.kinds import Turn
from pipecat_bridge.events.record import Record

VERSION: Final = "0.3.0"

CALLER: Final = 0
BOT: Final = 1
"""Their places among the parties."""


def vcon_of(record: Record, turns: Sequence[Turn]) -> dict[str, Any]:
    """The call with its turns, and its record as an attachment."""
    created = _moment(record.created_at)
    ended = record.ended_at if isinstance(record.ended_at, float) else record.created_at
    return {
        "vcon": VERSION,
        # A UUID may have been that of several calls.
        "uuid": str(uuid5(NAMESPACE_URL, f"pipecat-bridge:{record.id}:{record.created_at!r}")),
        "created_at": created,
        "updated_at": _moment(ended),
        "subject": _subject(record),
        "parties": [_caller(record), {"name": "bot", "role": "agent"}],
        "dialog": [_dialog(turn) for turn in turns],
        "analysis": [],
        "attachments": [
            {
                "purpose": "record",
                "type": "record",
                "start": created,
                "party": BOT,
                "mediatype": "application/json",
                "encoding": "json",
                "body": msgspec.json.encode(record).decode(),
            }
        ],
    }


def _moment(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _subject(record: Record) -> str:
    called = "" if isinstance(record.called, UnsetType) else f" to {record.called}"
    return f"call{called}: {record.outcome if record.outcome else record.state}"


def _caller(record: Record) -> dict[str, Any]:
    party: dict[str, Any] = {"role": "caller"}
    if not isinstance(record.caller, UnsetType):
        party["tel"] = record.caller
    name = record.metadata.get("caller_name")
    party["name"] = name if isinstance(name, str) and name else "caller"
    return party


def _dialog(turn: Turn) -> dict[str, Any]:
    return {
        "type": "text",
        "start": _moment(turn.start),
        "duration": round(turn.end - turn.start, 3),
        "parties": [CALLER, BOT],
        "originator": BOT if turn.speaker == "bot" else CALLER,
        "mediatype": "text/plain",
        "mimetype": "text/plain",  # its name in earlier drafts, which readers still want
        "encoding": "none",
        "body": turn.text,
    }
