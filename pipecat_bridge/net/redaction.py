"""Prepares texts of peers for logs and records: without secrets, on one line."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote, quote_plus

SHORT: Final = 4
"""Characters. A shorter secret is hidden only if it is a whole word."""

MAX_READ: Final = 1 << 16
"""Characters of a text that are searched. Of a longer text only the beginning is shown."""

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
    characters."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = frozenset(secret for secret in secrets if secret.strip())

    def including(self, *values: Any) -> Redaction:
        """A redaction that also hides the values of names such as "token" in `values`, at any
        depth."""
        return Redaction([*self._secrets, *(one for value in values for one in _secrets(value))])

    def hiding(self, secret: str) -> Redaction:
        """A redaction that also hides `secret`."""
        return Redaction([*self._secrets, secret])

    def __call__(self, text: str) -> str:
        """The text on one line, without secrets. Of a long text only the beginning."""
        whole, text = len(text) <= MAX_READ, text[:MAX_READ]
        text = self._pattern.sub(HIDDEN, text) if self._secrets else text
        if not whole:  # the text may end with a part of a secret
            text = text[: -max(map(len, self._spellings), default=1)]
        text = _NAMED.sub(rf"\1{HIDDEN}", text)
        return printable(_CREDENTIALS.sub(rf"\1 {HIDDEN}", text))

    def excerpt(self, body: bytes, limit: int = 200) -> str:
        """The first `limit` characters of `body`, with single spaces for all white space."""
        text = self(" ".join(body[: 4 * MAX_READ].decode("utf-8", "replace").split()))
        return text[:limit] or "no text"

    @cached_property
    def _spellings(self) -> frozenset[str]:
        return frozenset(each for secret in self._secrets for each in _spellings(secret))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._spellings, key=len, reverse=True)
        return re.compile("|".join(_search(each) for each in longest_first))


def printable(text: str) -> str:
    r"""The text with escapes for characters that are not printable: \x1b, \n, \u202e."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _secrets(value: Any, secret: bool = False) -> Iterator[str]:
    if isinstance(value, dict):
        for key, content in value.items():
            yield from _secrets(content, secret or str(key).lower().endswith(_NAMES))
    elif isinstance(value, list | tuple):
        for content in value:
            yield from _secrets(content, secret)
    elif secret and isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value)


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


def _search(spelling: str) -> str:
    found = re.escape(spelling)
    return found if len(spelling) >= SHORT else rf"(?<!\w){found}(?!\w)"
