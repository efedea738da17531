"""Reads a bot's WebSocket URL from a runner's answer to `/start`."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import SplitResult, quote, urlencode, urlsplit, urlunsplit

from pipecat_bridge.errors import PeerError
from pipecat_bridge.net.urls import address_fault, shown_url
from pipecat_bridge.runner.socket.target import Target

TokenPlace = Literal["header", "query", "path"]

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def from_answer(
    answer: Any, base: str, allowed_hosts: Sequence[str], token_in: TokenPlace
) -> Target:
    """The WebSocket that an answer `{wsUrl, token}` of the runner at `base` names.

    Raises PeerError if the answer has no URL or cannot be used, and if the host is neither the
    runner's host nor in `allowed_hosts`.
    """
    url = answer.get("wsUrl") or answer.get("ws_url") if isinstance(answer, dict) else None
    if not isinstance(url, str):
        raise PeerError(f'an answer without "wsUrl": {_outline(answer)}')
    parts = _checked(url)
    parts = _as_seen_from_here(parts, urlsplit(base))
    _check_host(parts.hostname or "", urlsplit(base).hostname or "", allowed_hosts)
    token = answer.get("token") or ""
    if not isinstance(token, str) or any(not "!" <= letter <= "~" for letter in token):
        raise PeerError("a token that is not a string of visible ASCII characters")
    return _with_token(_with_body(parts, answer.get("body")), token, token_in)


def _checked(url: str) -> SplitResult:
    """The parts of a WebSocket URL. Raises PeerError if it is none."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("ws", "wss") and parts.port != 0
    except ValueError:
        good = False
    if not good or address_fault(parts) or any(not "!" <= letter <= "~" for letter in url):
        raise PeerError(
            f"wsUrl {shown_url(url)}: expected a URL such as ws://127.0.0.1:7860/ws-client"
        )
    return parts


def _outline(answer: Any) -> str:
    """The type or the names in an answer, without values: a value may be a token."""
    if not isinstance(answer, dict):
        return f"it is a {type(answer).__name__}"
    return f"it has {', '.join(sorted(answer))[:200]!a}" if answer else "it is empty"


def _as_seen_from_here(parts: SplitResult, base: SplitResult) -> SplitResult:
    """Correct a URL from Pipecat's development runner.

    That runner names the address that it listens on, and `wss` for every host but "localhost",
    although it serves no TLS (runner/run.py, 1.3 to 1.14). So 0.0.0.0 becomes the host of `base`.
    If host and port are those of `base`, the URL gets the scheme of `base`.
    """
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    if _unspecified(host):
        host = base.hostname or ""
    if (host, port) != (base.hostname, base.port or _PORTS[base.scheme]):
        return parts._replace(netloc=_netloc(host, port))
    scheme = "wss" if base.scheme in ("https", "wss") else "ws"
    return parts._replace(scheme=scheme, netloc=_netloc(host, port))


def _unspecified(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_host(host: str, own: str, allowed: Sequence[str]) -> None:
    if host == own or any(_matches(host, pattern) for pattern in allowed):
        return
    if _loopback(host) and _loopback(own):  # a runner at 127.0.0.1 may name "localhost"
        return
    raise PeerError(
        f"wsUrl leads to {host}, which is neither the runner's host nor in [runner] allowed_hosts"
    )


def _matches(host: str, pattern: str) -> bool:
    """Whether `host` is `pattern`. The pattern `*.example.com` is every host below example.com."""
    pattern = pattern.lower()
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _with_body(parts: SplitResult, body: Any) -> SplitResult:
    """Add the body that Pipecat Cloud returns in base64 as the query parameter `body` (Pipecat
    Cloud's documentation, "Generic WebSocket"). Raises PeerError."""
    if not isinstance(body, str) or not body:
        return parts
    if not body.isascii():
        raise PeerError("a body that is not base64")
    return _with_query(parts, "body", body)


def _with_query(parts: SplitResult, name: str, value: str) -> SplitResult:
    query = [parts.query] if parts.query else []  # unchanged, because it may be signed
    return parts._replace(query="&".join([*query, urlencode({name: value})]))


def _with_token(parts: SplitResult, token: str, place: TokenPlace) -> Target:
    headers: dict[str, str] = {}
    if token and place == "header":
        headers["Authorization"] = f"Bearer {token}"
    elif token and place == "query":
        parts = _with_query(parts, "token", token)
    elif token:
        parts = parts._replace(path=f"{parts.path.rstrip('/')}/{quote(token, safe='')}")
    return Target(urlunsplit(parts._replace(fragment="")), headers)
