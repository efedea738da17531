"""Each record that the suite makes is as docs/record.schema.json says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from pipecat_bridge.events.events import CallEvent, Events
from pipecat_bridge.events.kinds import CallEnded
from pipecat_bridge.events.record import Record

SCHEMA = Draft202012Validator(
    json.loads((Path(__file__).parents[1] / "docs" / "record.schema.json").read_text("utf-8"))
)


def checked(record: Record | Mapping[str, Any]) -> dict[str, Any]:
    """The record as JSON has it. Raises jsonschema's ValidationError."""
    shown: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(record))
    SCHEMA.validate(shown)
    return shown


class CheckedRecords:
    """Checks the record of each call that ends, whether its test looks at it or not. A listener
    must not raise, so `assert_good` does that later."""

    def __init__(self, events: Events) -> None:
        self._faults: list[Exception] = []
        events.subscribe(self._note)

    def _note(self, event: CallEvent) -> None:
        if isinstance(event.data, CallEnded):
            try:
                checked(event.data.record)
            except Exception as error:  # noqa: BLE001 - see above
                self._faults.append(error)

    def assert_good(self) -> None:
        """Raise what was found first."""
        for fault in self._faults:
            raise fault
