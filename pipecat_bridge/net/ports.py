"""Makes the endpoint string and the dialback URL of each worker from those in the options."""

from __future__ import annotations

import re
from typing import Final

_NUMBERED: Final = re.compile(r"((?:haproxy:)?tcp6?:)(\d+)(?=:|$)")


def shifted(listen: str, by: int) -> str:
    """The endpoint string with a port number that is higher by `by`. Port 0 stays 0.

    Raises ValueError if the endpoint is not a TCP port with a number.
    """
    found = _NUMBERED.match(listen)
    if found is None:
        raise ValueError("expected tcp: or tcp6: with the number of a port")
    port = int(found[2])
    if port and port + by > 65535:
        raise ValueError(f"port {port + by} does not exist")
    return f"{found[1]}{port + by if port else 0}{listen[found.end() :]}"


def filled(dialback_url: str, worker: int, port: int) -> str:
    """`[runner] dialback_url` for one worker: its number and port replace {worker} and {port}."""
    return dialback_url.replace("{worker}", str(worker)).replace("{port}", str(port))
