"""Checks that hold for whole groups of tests."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.process import reapProcessHandlers
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

reactor: Any = _reactor

# What a test closed in its last turn is gone within a few turns of the reactor; a leak stays, and
# is given this long before it counts.
_SETTLE_TURNS = 4000
_TURN = 0.005

_LONGEST = 600.0
"""Seconds that one test may take on a machine with other things to do; what waits longer waits for
what does not come."""


# Daemons that tests start as processes have no store, unless a test gives them a folder for it: two
# of them cannot share one.
os.environ["PIPECAT_BRIDGE_STORE__URL"] = "none"


def pytest_sessionstart() -> None:
    """Until logging is begun Twisted keeps the last 65536 events, and with them who logged them."""
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """A test that hangs fails, and shows where it waited."""
    test = pyfuncitem.obj

    @functools.wraps(test)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        result = test(*args, **kwargs)
        if isinstance(result, Coroutine):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            result.addTimeout(_LONGEST, reactor, _hung)
        return result

    pyfuncitem.obj = bounded


def _hung(result: Any, timeout: float) -> Any:
    if isinstance(result, Failure):
        where = result.getTraceback()
        pytest.fail(f"not over after {timeout:.0f} s; it waited here:\n{where}", pytrace=False)
    return result


@pytest.fixture(autouse=True)
def nothing_left_in_the_reactor(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails an end-to-end test that leaves a timer, a socket or a process behind."""
    if "e2e" not in request.path.parts:
        yield
        return
    before = _in_reactor()
    yield
    for _ in range(_SETTLE_TURNS):
        if not _in_reactor() - before:
            return
        pytest_twisted.blockon(_next_turn())
    left = _in_reactor() - before
    lines = (f"  {count} x {what}" for what, count in sorted(left.items()))
    pytest.fail("left in the reactor:\n" + "\n".join(lines), pytrace=False)


def _in_reactor() -> Counter[str]:
    """What the reactor holds now; the same kind of thing has the same name."""
    internal = reactor._internalReaders  # the waker and such: the reactor's own
    selectables = {*reactor.getReaders(), *reactor.getWriters()} - internal
    held = Counter(_selectable(each) for each in selectables)
    held.update(f"delayed call of {_name(call.func)}" for call in reactor.getDelayedCalls())
    held.update(f"process {pid}" for pid in reapProcessHandlers)
    return held


def _selectable(each: Any) -> str:
    owner = getattr(each, "protocol", None) or getattr(each, "factory", None)
    return f"{type(each).__qualname__} of {type(owner).__qualname__}"


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


def _next_turn() -> Deferred[None]:
    turn: Deferred[None] = Deferred()
    reactor.callLater(_TURN, turn.callback, None)
    return turn
