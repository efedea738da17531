"""Which requests of browsers the API takes: those of its own pages.

A web page from anywhere can let the browser of an operator send requests to this machine. It cannot
read the answers, unless its own name leads to this machine as well (DNS rebinding). So the Host
must be a name of ours, and what changes something must not come from another page. What no browser
sends has neither Origin nor Sec-Fetch-Site: the dialplan's CURL, curl, scripts.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final
from urllib.parse import urlsplit

from twisted.web.server import Request

from pipecat_bridge.net.urls import may_be_rebound
from pipecat_bridge.web.headers import header

_CHANGES_NOTHING: Final = (b"GET", b"HEAD", b"OPTIONS")
_OURS: Final = ("same-origin", "none")
"""Values of Sec-Fetch-Site: a page of this API, or an address that somebody has typed."""


def fault_of(request: Request, hosts: Container[str]) -> str:
    """Why a request is refused; "" if it is not. `hosts`: names of this API that have a dot.

    A proxy may have changed the Host. So a page of one of `hosts` is a page of this API as well.
    """
    host = header(request, "host") or ""
    if not _is_ours(host, hosts):
        return (
            f"the Host {host[:100]!a} is no name of this API: expected an address, a name without a"
            " dot, or one of [api] hosts"
        )
    if request.method in _CHANGES_NOTHING:
        return ""
    origin, site = header(request, "origin"), header(request, "sec-fetch-site")
    if origin is not None and not _is_own_page(origin, host, hosts):
        return f"a request from a page of {origin[:100]!a} changes nothing here"
    if site is not None and site not in _OURS:
        return "a request from a page of another site changes nothing here"
    return ""


def _is_own_page(origin: str, host: str, hosts: Container[str]) -> bool:
    try:
        url = urlsplit(origin)
        return url.netloc.lower() == host.lower() or url.hostname in hosts
    except ValueError:
        return False


def _is_ours(host: str, hosts: Container[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name in hosts or not may_be_rebound(name)
