"""The ports and addresses of several workers, by what the options say for one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from pipecat_bridge.options import Options

_NUMBERED: Final = re.compile(r"((?:haproxy:)?tcp6?:)(\d+)(?=:|$)")
_UNREADABLE: Final = re.compile(r"(?:haproxy:)?(?:tls|ssl):")

DIALLED_BACK: Final = ("embedded", "dialback")
"""Runner modes in which a worker listens for its bots."""


def shifted(listen: str, by: int) -> str:
    """The endpoint `by` ports further on; port 0 stays 0.

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


def faults(options: Options) -> Iterator[tuple[str, str, str]]:
    """What cannot be shared by workers: section, key, and what follows them in the sentence."""
    workers = options.service.workers
    if workers == 1:
        return
    why = f"with [service] workers = {workers}"
    listen = options.audiosocket.listen
    if _UNREADABLE.match(listen):
        expected = "expected tcp:, tcp6:, unix: or systemd:, as a call's UUID decides who gets it"
        yield "audiosocket", "listen", f' = "{listen}": {why} {expected}'
    runner = options.runner
    if runner.mode not in DIALLED_BACK:
        return
    try:
        shifted(runner.listen, workers - 1)
    except ValueError as error:
        each = "each worker listens on a port of its own, from that one on"
        yield "runner", "listen", f' = "{runner.listen}": {why} {each}: {error}'
    url = runner.dialback_url
    if url and url == filled(url, 0, 0):
        each = "each worker has its own: expected {worker} or {port} in it"
        yield "runner", "dialback_url", f' = "{url}": {why} {each}'
