"""The secrets that the options of `[runner]` hold, and how they are kept out of all texts."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from pipecat_bridge.net.redaction import Redaction
from pipecat_bridge.options import RunnerOptions

LONG: Final = 8
"""Characters from which a word in a header or a query may be a key."""


def redaction_of(options: RunnerOptions) -> Redaction:
    """Takes out what headers, URLs, parameters and bodies hold."""
    words = [word for value in options.headers.values() for word in (value, *value.split())]
    queries = [parse_qsl(urlsplit(url).query) for url in options.urls]
    words += [value for query in queries for _, value in query]
    secrets = [word for word in words if len(word) >= LONG]
    named = (options.headers, options.parameters, options.start_body, *map(dict, queries))
    return Redaction(secrets).including(*named)
