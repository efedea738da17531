"""The header of the PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt).

A proxy sends the header first. It says which client has connected to the proxy.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from pipecat_bridge.errors import FormatError

LONGEST: Final = 4096
"""Most bytes of a header. Addresses take 52 bytes, the rest is for extensions."""

_V1: Final = b"PROXY "
_V1_LONGEST: Final = 107  # with its line end, by the specification
_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_BYTES: Final = 16  # signature, version and command, family and protocol, length

_ADDRESSES: Final[dict[bytes, type[IPv4Address] | type[IPv6Address]]] = {
    b"TCP4": IPv4Address,
    b"TCP6": IPv6Address,
}


class ProxyHeader(NamedTuple):
    """The size of a header in bytes, and the client that it names.

    `host` is "" if it names no client (a health check, a UNIX socket). Then the client is the peer
    of the connection.
    """

    size: int
    host: str = ""
    port: int = 0


def read_header(data: bytes) -> ProxyHeader | None:
    """The header at the beginning of `data`; None if more data is needed.

    Raises FormatError if it is not a PROXY header.
    """
    if data[: len(_V1)] == _V1[: len(data)]:
        return _read_v1(data)
    if data[: len(_V2)] == _V2[: len(data)]:
        return _read_v2(data)
    raise FormatError(f"0x{data[0]:02x} where a PROXY header is expected")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _V1_LONGEST)
    if end < 0:
        if len(data) >= _V1_LONGEST:
            raise FormatError(f"a PROXY header without an end in {_V1_LONGEST} bytes")
        return None
    line = data[:end]
    _, family, *rest = line.split(b" ")
    if family == b"UNKNOWN":
        return ProxyHeader(end + 2)
    try:
        host, _, port, _ = rest
        address = _ADDRESSES[family](host.decode("ascii"))
        number = int(port)
        if not 0 <= number <= 65535:
            raise ValueError(port)
    except (KeyError, ValueError) as error:
        raise FormatError(f"a wrong PROXY header: {line!r}") from error
    return ProxyHeader(end + 2, str(address), number)


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_BYTES:
        return None
    command, family = data[12], data[13]
    size = _V2_BYTES + int.from_bytes(data[14:16], "big")
    if command not in (0x20, 0x21) or size > LONGEST:
        raise FormatError(f"a wrong PROXY header: {data[:_V2_BYTES].hex(' ')}")
    if len(data) < size:
        return None
    if command == 0x20 or family not in (0x11, 0x21):  # the proxy itself, or not TCP over IP
        return ProxyHeader(size)
    length = 4 if family == 0x11 else 16
    ports = _V2_BYTES + 2 * length
    if size < ports + 4:
        raise FormatError(f"a PROXY header without its addresses: {data[:size].hex(' ')}")
    host = data[_V2_BYTES : _V2_BYTES + length]
    address = IPv4Address(host) if length == 4 else IPv6Address(host)
    return ProxyHeader(size, str(address), int.from_bytes(data[ports : ports + 2], "big"))
