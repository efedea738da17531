"""Names of hosts that are known in a test and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from zope.interface import implementer

reactor: Any = _reactor


@contextmanager
def known(*names: str) -> Iterator[None]:
    """These names are of 127.0.0.1 meanwhile; others are looked up as ever."""
    before = reactor.nameResolver
    reactor.installNameResolver(_Names(before, names))
    try:
        yield
    finally:
        reactor.installNameResolver(before)


@implementer(IHostnameResolver)
class _Names:
    def __init__(self, others: Any, names: tuple[str, ...]) -> None:
        self._others = others
        self._names = names

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, *more: Any, **options: Any
    ) -> Any:
        if hostName not in self._names:
            return self._others.resolveHostName(receiver, hostName, portNumber, *more, **options)
        resolution = _Resolution(hostName)
        receiver.resolutionBegan(resolution)
        receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        receiver.resolutionComplete()
        return resolution


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Nothing: it is complete."""
