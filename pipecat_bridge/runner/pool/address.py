"""Where a runner is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from twisted.internet.defer import Deferred, succeed


class RunnerAddress(Protocol):
    """Where the runner is; one that is being started may not be known yet."""

    def url(self) -> Deferred[str]:
        """Its base URL, without a slash at the end."""

    def refused(self, base: str) -> bool:
        """Nothing listens at that URL; true when `url` tells another one, sooner or later."""


@dataclass(frozen=True, slots=True)
class FixedAddress:
    """A runner whose URL is configured."""

    base: str

    def url(self) -> Deferred[str]:
        """The configured URL."""
        return succeed(self.base.rstrip("/"))

    def refused(self, base: str) -> bool:
        """It stays where it is."""
        return False


def without_secrets(url: str) -> str:
    """The URL as it may be logged: no user info, no query, where keys and tokens are."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
