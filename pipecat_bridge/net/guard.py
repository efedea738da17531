"""Keeps a fault of the bridge inside one call: the fault ends that call and no other."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, ParamSpec

from twisted.python.failure import Failure

FAULT: Final = "{call_id} a fault of the bridge ends the call"
"""The log line of a fault; its traceback follows."""

P = ParamSpec("P")


def reason_of(failure: Failure) -> str:
    """The reason of a call that ends with a fault of the bridge."""
    return f"a fault of the bridge: {failure.getErrorMessage()}"


def guarded(*passes: type[Exception]) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Wrap a method of an object that has `broken(failure)`. An exception in the method goes there.

    Exceptions of the kinds `passes` are raised as before.
    """

    def wrap(method: Callable[P, None]) -> Callable[P, None]:
        @wraps(method)
        def guard(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                method(*args, **kwargs)
            except passes:
                raise
            except Exception:  # noqa: BLE001 - any fault of the bridge ends only this call
                itself: Any = args[0]
                itself.broken(Failure())

        return guard

    return wrap
