"""Errors of connections: sorts them, and describes each in one line."""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError, ConnectionClosed
from twisted.python.failure import Failure

_NO_TLS: Final = ("wrong version number", "packet length too long", "http request")
"""Texts of OpenSSL's errors for an answer that is not TLS."""


def given_up(error: BaseException) -> bool:
    """Whether the bridge itself cancelled the request or the connection."""
    reasons = getattr(error, "reasons", None) or ()
    own = isinstance(error, CancelledError | ConnectingCancelledError)
    return own or any(given_up(reason.value) for reason in reasons)


def closed(error: BaseException) -> bool:
    """Whether the error only says that the connection was closed."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return all(closed(reason.value) for reason in reasons)
    return isinstance(error, ConnectionClosed)


def describe(error: BaseException) -> str:
    """One line for an error of Twisted. Some of them have a list of failures and no text."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return "; ".join(describe(reason.value) for reason in reasons)
    if isinstance(error, SSL.Error):
        return _describe_tls([str(each[-1]) for each in error.args[0]] if error.args else [])
    return str(error) or type(error).__name__


def _describe_tls(faults: list[str]) -> str:
    said = ", ".join(faults) or "the connection was closed"
    if any(each in _NO_TLS for each in faults):
        return f"it does not speak TLS there, expected a URL without it, http:// or ws:// ({said})"
    return f"TLS failed: {said}"


def drop_tracebacks(failure: Failure) -> None:
    """Drop the tracebacks of a failure and of all errors that led to it.

    A traceback holds stack frames, and they hold what ran, e.g. a call. A frame in turn holds the
    failure. So only the garbage collector would free the call.
    """
    failure.tb = None
    _drop_tracebacks(failure.value)


def _drop_tracebacks(error: BaseException | None) -> None:
    if error is None:
        return
    error.with_traceback(None)
    _drop_tracebacks(error.__cause__)
    _drop_tracebacks(error.__context__)
    for reason in getattr(error, "reasons", None) or ():
        drop_tracebacks(reason)
