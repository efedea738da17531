"""Headers of a request as text, whatever bytes a client sends."""

from __future__ import annotations

from twisted.web.server import Request


def header(request: Request, name: str) -> str | None:
    """The last header with this name; None if there is none. What is not ASCII becomes U+FFFD:
    Twisted would decode it as UTF-8, and fail for other bytes."""
    value: bytes | None = request.getHeader(name.encode())
    return None if value is None else value.decode("ascii", "replace")
