"""Errors of connections: whether they are our own doing, and one line of words for each."""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError, ConnectionClosed

_NO_TLS: Final = ("wrong version number", "packet length too long", "http request")
"""What OpenSSL says of an answer that is not TLS."""


def given_up(error: BaseException) -> bool:
    """Whether it is from ourselves: requests and connections have errors of their own for it."""
    reasons = getattr(error, "reasons", None) or ()
    own = isinstance(error, CancelledError | ConnectingCancelledError)
    return own or any(given_up(reason.value) for reason in reasons)


def closed(error: BaseException) -> bool:
    """Whether the peer has closed the connection, in good order or not, and no more is known."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return all(closed(reason.value) for reason in reasons)
    return isinstance(error, ConnectionClosed)


def describe(error: BaseException) -> str:
    """One line for an error of Twisted's; some carry a list of failures and no text."""
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
