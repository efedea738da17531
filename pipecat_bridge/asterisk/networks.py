"""The networks that phones may connect from."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network


class Networks:
    """The networks of `[audiosocket] allow`. An empty list allows every address."""

    def __init__(self, allow: Sequence[str]) -> None:
        self._allow = [ip_network(network) for network in allow]

    def __contains__(self, host: str) -> bool:
        return not self._allow or self._is_within(host)

    def _is_within(self, host: str) -> bool:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._allow)
