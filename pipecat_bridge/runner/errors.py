"""Errors of connections: whether they are our own doing, and one line of words for each."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.ssl import VerificationError


def given_up(error: BaseException) -> bool:
    """Whether it is from ourselves: requests and connections have errors of their own for it."""
    reasons = getattr(error, "reasons", None) or ()
    own = isinstance(error, CancelledError | ConnectingCancelledError)
    return own or any(given_up(reason.value) for reason in reasons)


def describe(error: BaseException) -> str:
    """One line for an error of Twisted's; some carry a list of failures and no text."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return "; ".join(describe(reason.value) for reason in reasons)
    if isinstance(error, VerificationError):
        return "its certificate is not for the host that was asked"
    if isinstance(error, SSL.Error):
        faults = ", ".join(str(each[-1]) for each in error.args[0]) if error.args else ""
        return f"TLS failed: {faults or 'the connection was closed'}"
    return str(error) or type(error).__name__
