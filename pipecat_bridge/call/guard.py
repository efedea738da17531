"""A mistake of the bridge's own ends the call in which it comes up, and no other."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, Protocol

from twisted.python.failure import Failure

from pipecat_bridge.errors import PeerError

P = ParamSpec("P")


class Fails(Protocol):
    """Something whose methods are guarded."""

    def fail(self, failure: Failure) -> None:
        """One of them has raised what is not a peer's fault."""


def guarded(method: Callable[P, None]) -> Callable[P, None]:
    """The same method of an object that `Fails`; only PeerError passes on to who called it."""

    @wraps(method)
    def guard(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except PeerError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, it costs this call only
            itself: Any = args[0]
            itself.fail(Failure())

    return guard
