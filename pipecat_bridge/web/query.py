"""Reads which calls a request wants to see: the query of `/v1/calls` and `/v1/calls.csv`."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from twisted.web.server import Request

from pipecat_bridge.errors import brief
from pipecat_bridge.store.tables import Wanted
from pipecat_bridge.web.problem import ProblemError

USUAL: Final = 50
MOST: Final = 200
"""Calls of a page."""

LONGEST: Final = 256
"""Characters of a value."""

_NUMBER: Final = re.compile(r"\d{1,18}", re.ASCII)

_KEYS: Final = ("since", "until", "outcome", "caller", "runner", "text", "limit", "cursor")


def read_query(request: Request, usual: int = USUAL, most: int = MOST) -> Wanted:
    """The calls that a request wants. Raises ProblemError."""
    values = _values(request)
    return Wanted(
        since=_time(values, "since"),
        until=_time(values, "until"),
        outcome=values.get("outcome", ""),
        caller=_caller(values.get("caller", "")),
        runner=values.get("runner", ""),
        text=values.get("text", ""),
        after=_cursor(values),
        limit=limit_of(values.get("limit", ""), usual, most),
    )


def _values(request: Request) -> dict[str, str]:
    values = {}
    for key, several in (request.args or {}).items():
        name = key.decode("utf-8", "replace")
        if name not in _KEYS:
            raise ProblemError(400, f"{brief(name)}: expected one of {', '.join(_KEYS)}")
        value = several[-1].decode("utf-8", "replace")
        if len(value) > LONGEST:
            raise ProblemError(400, f"{name} has {len(value)} characters, expected up to {LONGEST}")
        values[name] = value
    return values


def _time(values: Mapping[str, str], name: str) -> float | None:
    """Seconds since the epoch, or a date and a time as in RFC 3339."""
    text = values.get(name)
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        expected = "expected seconds since 1970, or a time such as 2026-12-01T08:00:00Z"
        raise ProblemError(400, f"{name}={brief(text)}: {expected}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _caller(text: str) -> str:
    """A number. In a query + stands for a blank, with which no number begins: + was meant."""
    return f"+{text[1:]}" if text.startswith(" ") else text


def limit_of(text: str, usual: int, most: int) -> int:
    """How many are wanted. Raises ProblemError."""
    text = text or str(usual)
    if not 1 <= number_of(text) <= most:
        raise ProblemError(400, f"limit={brief(text)}: expected a whole number from 1 to {most}")
    return int(text)


def number_of(text: str) -> int:
    """A whole number of up to 18 digits, which databases can hold; -1 if it is none."""
    return int(text) if _NUMBER.fullmatch(text) else -1


def cursor_of(created: float, number: int) -> str:
    """The cursor of the page that follows a call."""
    return base64.urlsafe_b64encode(f"{created!r} {number}".encode()).decode().rstrip("=")


def _cursor(values: Mapping[str, str]) -> tuple[float, int] | None:
    text = values.get("cursor")
    if not text:
        return None
    try:
        parts = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii").split()
        created, number = float(parts[0]), number_of(parts[1])
        if len(parts) != 2 or number < 0 or not math.isfinite(created):
            raise ValueError
        return created, number
    except (binascii.Error, IndexError, ValueError):
        raise ProblemError(400, f"cursor={brief(text)}: expected one of an earlier page") from None
