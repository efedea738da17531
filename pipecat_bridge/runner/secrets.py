"""Keeps the secrets in the options of `[runner]` out of logs, errors and the API."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from pipecat_bridge.net.redaction import Redaction
from pipecat_bridge.options import RunnerOptions

LONG: Final = 8
"""Characters. A word in a header or a query that is at least so long may be a key."""


def redaction_of(options: RunnerOptions) -> Redaction:
    """A redaction of the secrets in the headers, URLs, parameters and bodies of `options`."""
    words = [word for value in options.headers.values() for word in (value, *value.split())]
    queries = [parse_qsl(urlsplit(url).query) for url in options.urls]
    words += [value for query in queries for _, value in query]
    secrets = [word for word in words if len(word) >= LONG]
    named = (options.headers, options.parameters, options.start_body, *map(dict, queries))
    return Redaction(secrets).including(*named)
