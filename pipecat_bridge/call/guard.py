"""A mistake of the bridge's own ends the call in which it comes up, and no other."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from twisted.python.failure import Failure

from pipecat_bridge.errors import PeerError

P = ParamSpec("P")


def guarded(method: Callable[P, None]) -> Callable[P, None]:
    """The same method, of an object with a method `fail(failure)`: an exception is passed to that.

    Only PeerError is raised as before.
    """

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
