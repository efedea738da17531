"""Keeps a mistake of the bridge inside one call: it ends that call and no other."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from twisted.python.failure import Failure

from pipecat_bridge.errors import PeerError

P = ParamSpec("P")


def guarded(method: Callable[P, None]) -> Callable[P, None]:
    """Wrap a method of an object that has `fail(failure)`, so that it raises PeerError only.

    Any other exception goes to the object's `fail`.
    """

    @wraps(method)
    def guard(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except PeerError:
            raise
        except Exception:  # noqa: BLE001 - any mistake of the bridge ends only this call
            itself: Any = args[0]
            itself.fail(Failure())

    return guard
