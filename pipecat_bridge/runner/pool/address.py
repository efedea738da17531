"""The address of a runner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from twisted.internet.defer import Deferred, succeed


class RunnerAddress(Protocol):
    """The address of a runner. While the runner starts, it may be unknown."""

    def url(self) -> Deferred[str]:
        """Fires with the base URL of the runner, without a slash at the end."""

    def refused(self, base: str) -> bool:
        """Take note that nothing listens at `base`. True if `url` will give another URL later."""


@dataclass(frozen=True, slots=True)
class FixedAddress:
    """A runner whose URL is configured."""

    base: str

    def url(self) -> Deferred[str]:
        """Fires with the configured URL at once."""
        return succeed(self.base.rstrip("/"))

    def refused(self, base: str) -> bool:
        """False: a configured URL does not change."""
        return False


def without_secrets(url: str) -> str:
    """The URL as it may be logged: without user name and query, which may hold keys and tokens."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
