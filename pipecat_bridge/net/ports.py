"""Descriptions of ports, one for each worker, made from the one in the options."""

from __future__ import annotations

import re
from typing import Final

_NUMBERED: Final = re.compile(r"((?:haproxy:)?tcp6?:)(\d+)(?=:|$)")


def shifted(listen: str, by: int) -> str:
    """The endpoint whose port is higher by `by`; port 0 stays 0.

    Raises ValueError for an endpoint that is not on a TCP port with a number.
    """
    found = _NUMBERED.match(listen)
    if found is None:
        raise ValueError("expected tcp: or tcp6: with the number of a port")
    port = int(found[2])
    if port and port + by > 65535:
        raise ValueError(f"port {port + by} does not exist")
    return f"{found[1]}{port + by if port else 0}{listen[found.end() :]}"


def filled(dialback_url: str, worker: int, port: int) -> str:
    """`[runner] dialback_url` of one worker, whose bots dial back to `port`."""
    return dialback_url.replace("{worker}", str(worker)).replace("{port}", str(port))
