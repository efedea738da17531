"""The JSON Schema of the record, which docs/record.schema.json has.

python -m pipecat_bridge.events.schema >docs/record.schema.json
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from pipecat_bridge.events.record import VERSION, Record


def record_schema() -> dict[str, Any]:
    """The schema of version 1 (JSON Schema, draft 2020-12)."""
    schema = msgspec.json.schema(Record)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"The record of a call, version {VERSION}",
        **schema,
    }


if __name__ == "__main__":
    print(json.dumps(record_schema(), indent=2))
