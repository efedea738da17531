"""Checks of URLs, hosts and paths. Every library that gets a checked URL accepts it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import SplitResult, urlsplit

import idna

from pipecat_bridge.errors import brief

MAX_SHOWN: Final = 200
"""Longest URL in logs and errors, in characters."""

_OTHER = re.compile(r"[^A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]")
_PATH = re.compile(r"/(?!/)[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]*")
_NAME = re.compile(r"(?=.*[a-z-])[a-z0-9.-]+|[0-9]+(\.[0-9]+)+")
"""A host name. TLS accepts no host name that is only digits."""
_ADDRESS = re.compile(r"(.*\]|[^:]*)(:[0-9]{1,5})?")
_IN_BRACKETS = re.compile(r"\[[^\[\]]*\]")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([^/?#]+)")


def url_fault(url: str, schemes: Sequence[str], *, query: bool = True) -> str:
    """The fault of a URL that not every library accepts; "" if it has none.

    `schemes`: the allowed schemes, in lower case. `query`: whether a query is allowed. A URL to
    which a path is appended must have no query.
    """
    if odd := _OTHER.search(url):
        return f"{odd[0]!a} in it has to be percent-encoded"
    try:
        parts = urlsplit(url)
        good_port = parts.port != 0
    except ValueError:
        return "host or port is wrong"
    if parts.scheme not in schemes:
        return "the scheme is wrong" if parts.scheme else "it has no scheme"
    found = _ADDRESS.fullmatch(parts.netloc.rpartition("@")[2])
    if not found or not good_port:
        return "the port is no number from 1 to 65535"
    if "]" in found[1] and not _IN_BRACKETS.fullmatch(found[1]):
        return "host or port is wrong"  # urlsplit ignores characters between "]" and ":"
    if parts.path.startswith("//"):
        return "its path begins with two slashes"  # libraries differ in what they ask for then
    if "#" in url:
        return "it has a fragment"
    if "?" in url and not query:
        return "it has a query"
    if "@" in parts.netloc:
        return "it has a user name, which [runner] headers can carry"
    return address_fault(parts)


def address_fault(parts: SplitResult) -> str:
    """The fault of the host in a URL; "" if it has none."""
    if fault := host_fault(parts.hostname or ""):
        return fault
    if parts.scheme.startswith("ws") and parts.hostname == "unix":
        return "unix is no host"  # Autobahn would read the rest as the path of a UNIX socket
    return ""


def host_fault(host: str) -> str:
    """The fault of a host name or an IP address without brackets; "" if it has none."""
    if not host:
        return "it has no host"
    return "" if _is_address(host) or _is_name(host.lower()) else f"'{brief(host)}' can be no host"


def may_be_rebound(host: str) -> bool:
    """True if somebody else may give `host` our address (DNS rebinding): it is a name in public,
    which has a dot."""
    return "." in host and not _is_address(host)


def _is_address(host: str) -> bool:
    try:
        return bool(IPv6Address(host) if ":" in host else IPv4Address(host)) and "%" not in host
    except ValueError:
        return False


def _is_name(host: str) -> bool:
    if not _NAME.fullmatch(host):
        return False
    try:
        return bool(idna.encode(host))
    except idna.IDNAError:
        return False


def is_path(text: str) -> bool:
    """Whether `text` is a path with or without a query. Two slashes first may be a host."""
    return _PATH.fullmatch(text) is not None


def is_origin(text: str) -> bool:
    """Whether a browser could send `text` as the header Origin."""
    found = _ORIGIN.fullmatch(text)
    return text == "null" or (bool(found) and not url_fault(text, [text.partition(":")[0]]))


def shown_url(url: str) -> str:
    """Any URL as it may be logged: without user name, password and query."""
    url = re.sub(r"//[^/?#]*@", "//***@", url)
    url = re.sub(r"[?].*", "?***", url, flags=re.DOTALL)
    return ascii(url[:MAX_SHOWN])[1:-1]
