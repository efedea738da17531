"""Prepares texts of peers for logs and records: without secrets, on one line."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote, quote_plus

from pipecat_bridge.errors import MAX_SENTENCE, printable

SHORT: Final = 4
"""Characters. A shorter secret is hidden only if it is a whole word."""

MAX_READ: Final = 1 << 14
"""Characters of a text that are searched. Of a longer text only the beginning is shown. More would
take longer than the milliseconds that a text may take."""

MAX_SECRETS: Final = 32
MAX_LENGTH: Final = 1 << 12
MAX_VALUES: Final = 10_000
"""Of one request or answer: most secrets, most characters of all of them, and most values that are
searched for secrets. What has more is hostile, or too large for the milliseconds that it may take.
Then no text about it is shown."""

HIDDEN: Final = "***"

_NAMES: Final = ("key", "token", "secret", "password")

# Secrets that the bridge does not know, found by their names: `"api_key": "..."`, `token=...`.
_NAMED = re.compile(
    r"""((?:key|token|secret|password)["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"?|'[^']*'?|[^\s"'&,;}]+)""",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(r"\b(Bearer|Basic)\s+[^\s\"',;]+", re.IGNORECASE)


class Redaction:
    """Takes `secrets` and everything that looks like a secret out of texts, and escapes control
    characters. With `everything`, no text is shown at all."""

    def __init__(self, secrets: Iterable[str] = (), everything: bool = False) -> None:
        self._secrets = frozenset(secret for secret in secrets if secret.strip())
        self._everything = everything

    def including(self, *values: Any) -> Redaction:
        """A redaction that also hides the values of names such as "token" in `values`, at any
        depth; it hides everything if there are too many."""
        try:
            return Redaction([*self._secrets, *_secrets(values)], self._everything)
        except _TooManyError:
            return Redaction(everything=True)

    def hiding(self, secret: str) -> Redaction:
        """A redaction that also hides `secret`."""
        return Redaction([*self._secrets, secret], self._everything)

    def __call__(self, text: str, limit: int = MAX_SENTENCE) -> str:
        """The first `limit` characters of the text, on one line and without secrets."""
        return self._shown(text[:MAX_READ], len(text) <= MAX_READ, limit)

    def _shown(self, text: str, whole: bool, limit: int) -> str:
        if self._everything:
            return HIDDEN
        for spelling in self._spellings:
            text = _hide(spelling, text)
        if not whole:  # the text may end with a part of a secret
            text = text[: -max(map(len, self._spellings), default=1)]
        text = _NAMED.sub(rf"\1{HIDDEN}", text)
        text = _CREDENTIALS.sub(rf"\1 {HIDDEN}", text)
        # Escapes make a text longer. So what is beyond the limit need not be escaped.
        return printable(text[:limit])[:limit]

    def excerpt(self, body: bytes, limit: int = 200) -> str:
        """The first `limit` characters of `body`, with single spaces for all white space."""
        read = body[: 4 * MAX_READ]
        text = " ".join(read.decode("utf-8", "replace").split())
        whole = len(read) == len(body) and len(text) <= MAX_READ
        return self._shown(text[:MAX_READ], whole, limit) or "no text"

    @cached_property
    def _spellings(self) -> list[str]:
        """All of them, the longest first: one may be a part of another."""
        spellings = {each for secret in self._secrets for each in _spellings(secret)}
        return sorted(spellings, key=len, reverse=True)


class _TooManyError(Exception):
    """There are more secrets or values than are searched."""


def _secrets(values: tuple[Any, ...]) -> set[str]:
    """The values of names such as "token". Raises _TooManyError."""
    found: set[str] = set()
    searched = 0
    pending: list[tuple[Any, bool]] = [(value, False) for value in values]
    while pending:
        value, secret = pending.pop()
        searched += 1
        if isinstance(value, dict | list | tuple) and len(value) + len(pending) > MAX_VALUES:
            raise _TooManyError
        if isinstance(value, dict):
            pending += [
                (content, secret or str(key).lower().endswith(_NAMES))
                for key, content in value.items()
            ]
        elif isinstance(value, list | tuple):
            pending += [(content, secret) for content in value]
        elif secret and isinstance(value, str | int | float) and not isinstance(value, bool):
            found.add(str(value))
        if searched > MAX_VALUES or len(found) > MAX_SECRETS:
            raise _TooManyError
    if sum(map(len, found)) > MAX_LENGTH:
        raise _TooManyError
    return found


def _spellings(secret: str) -> Iterator[str]:
    """The secret as it may appear in JSON, a URL or HTML, and with single spaces."""
    yield secret
    yield " ".join(secret.split())
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    # Half of a surrogate pair, which JSON may hold, has no spelling in a URL.
    yield quote(secret, safe="", errors="replace")
    yield quote(secret, errors="replace")
    yield quote_plus(secret, errors="replace")
    yield html.escape(secret)


def _hide(spelling: str, text: str) -> str:
    # To compile one pattern of all would take 100 ms for the most that a runner may send.
    if len(spelling) >= SHORT or spelling not in text:
        return text.replace(spelling, HIDDEN)
    return re.sub(rf"(?<!\w){re.escape(spelling)}(?!\w)", HIDDEN, text)
