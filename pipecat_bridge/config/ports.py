"""Checks that the options for ports suit several workers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from pipecat_bridge.net.ports import filled, shifted
from pipecat_bridge.options import Options
from pipecat_bridge.runner.modes import MODES

_UNREADABLE: Final = re.compile(r"(?:haproxy:)?(?:tls|ssl):")


def faults(options: Options) -> Iterator[tuple[str, str, str]]:
    """Ports that several workers cannot use: section, key, and the rest of the message."""
    workers = options.service.workers
    if workers == 1:
        return
    why = f"with [service] workers = {workers}"
    listen = options.audiosocket.listen
    if _UNREADABLE.match(listen):
        expected = (
            "expected tcp:, tcp6:, unix: or systemd:, because the UUID of a call decides which"
            " worker gets it"
        )
        yield "audiosocket", "listen", f' = "{listen}": {why} {expected}'
    runner = options.runner
    if not MODES[runner.mode].listens:
        return
    try:
        shifted(runner.listen, workers - 1)
    except ValueError as error:
        each = "each worker listens on its own port, counted from this one"
        yield "runner", "listen", f' = "{runner.listen}": {why} {each}: {error}'
    url = runner.dialback_url
    if url and url == filled(url, 0, 0):
        each = "each worker needs its own URL: expected {worker} or {port} in it"
        yield "runner", "dialback_url", f' = "{url}": {why} {each}'
