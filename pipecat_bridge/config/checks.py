"""Validation beyond types: what msgspec cannot check."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace
from twisted.internet.endpoints import serverFromString

from pipecat_bridge.audio.hold import read_wav
from pipecat_bridge.config import ports, records
from pipecat_bridge.errors import brief
from pipecat_bridge.net.ports import filled
from pipecat_bridge.net.trust import trust_root
from pipecat_bridge.net.urls import host_fault, is_origin, is_path, shown_url, url_fault
from pipecat_bridge.options import SILENCE, Options, RunnerOptions
from pipecat_bridge.runner.modes import MODES
from pipecat_bridge.runner.start.mode import RunnerMode

ZERO_OR_MORE: Final = {("runner", "health_interval"): 0.01, ("calls", "max_duration"): 0.1}
"""Options that are turned off by 0 -> the least other number. With less, a runner gets nothing but
health checks, and a call ends at once."""

Fault = tuple[str, str, str]
"""Section, key, and the rest of the message, which follows "[section] key"."""


def faults(options: Options) -> Iterator[Fault]:
    """All faults of options that their types cannot express."""
    if options.runner.mode not in MODES:
        expected = f"expected one of {', '.join(map(shown, MODES))}"
        yield "runner", "mode", f" = {shown(options.runner.mode)}: {expected}"
        # Check the rest as with the default mode, so that all faults are reported at once.
        options = replace(options, runner=replace(options.runner, mode=RunnerOptions().mode))
    for section, listen in (
        ("audiosocket", options.audiosocket.listen),
        ("runner", options.runner.listen),
        ("api", options.api.listen),
    ):
        if fault := _endpoint_fault(listen):
            yield section, "listen", f" = {shown(listen)}: {fault}"
    yield from _check_networks(options.audiosocket.allow)
    yield from _check_api_hosts(options.api.hosts)
    yield from _check_runner(options)
    yield from ports.faults(options)
    yield from _check_hold_file(options.calls.hold_file)
    yield from records.faults(options)
    for (section, key), least in ZERO_OR_MORE.items():
        if 0 < (found := getattr(getattr(options, section), key)) < least:
            yield section, key, f" = {found:g}: expected 0 or at least {least:g}"
    most, least = options.bot_audio.max_prebuffer, options.bot_audio.prebuffer
    if most < least:
        yield (
            "bot_audio",
            "max_prebuffer",
            f" = {most:g}: expected at least prebuffer, {least:g}",
        )


def _check_networks(networks: Sequence[str]) -> Iterator[Fault]:
    for network in networks:
        try:
            ip_network(network)
        except ValueError as error:
            expected = 'expected a network such as "10.0.0.0/8"'
            fault = f"{brief(str(error))}, {expected}"
            yield "audiosocket", "allow", f" = [{shown(network)}]: {fault}"


def _check_api_hosts(hosts: Sequence[str]) -> Iterator[Fault]:
    for host in hosts:
        if fault := host_fault(host):
            expected = 'expected a host such as "bridge.example.org", without scheme and port'
            yield "api", "hosts", f" = [{shown(host)}]: {fault}, {expected}"


def _check_hold_file(path: str) -> Iterator[Fault]:
    if path in ("", SILENCE):
        return
    fault = ""
    try:
        read_wav(Path(path).read_bytes())
    except OSError as error:
        fault = f"{error.strerror or error}, expected a WAV file"
    except ValueError as error:
        fault = str(error)
    if fault:
        yield "calls", "hold_file", f" = {shown(path)}: {fault}"


def _check_runner(options: Options) -> Iterator[Fault]:
    runner = options.runner
    yield from _check_urls(runner, MODES[runner.mode])
    yield from _check_requests(runner)
    yield from _check_dialback_url(runner)
    yield from _check_handshake(runner)


def _check_dialback_url(runner: RunnerOptions) -> Iterator[Fault]:
    url = runner.dialback_url
    if url and (fault := url_fault(filled(url, 1, 1), ("ws", "wss"), query=False)):
        expected = "expected a URL such as ws://10.0.0.1:8001"
        yield "runner", "dialback_url", f' = "{shown_url(url)}": {fault}, {expected}'
    elif not url and runner.listen.startswith(_UNKNOWN_TO_DIAL):
        expected = f"expected the URL at which bots reach {shown(runner.listen)}"
        yield "runner", "dialback_url", f" is empty: {expected}"


def _check_handshake(runner: RunnerOptions) -> Iterator[Fault]:
    if runner.origin and not is_origin(runner.origin):
        expected = "expected an origin such as https://example.com"
        yield "runner", "origin", f' = "{shown_url(runner.origin)}": {expected}'
    if runner.subprotocol and not _HEADER_NAME.fullmatch(runner.subprotocol):
        found = shown(runner.subprotocol)
        yield "runner", "subprotocol", f" = {found}: expected a word of ASCII characters"
    for host in runner.allowed_hosts:
        if fault := host_fault(host.removeprefix("*.")):
            expected = 'expected a host such as "bots.example" or "*.bots.example"'
            yield "runner", "allowed_hosts", f" = [{shown(host)}]: {brief(fault)}, {expected}"


def _check_requests(runner: RunnerOptions) -> Iterator[Fault]:
    for key, value in (("parameters", runner.parameters), ("start_body", runner.start_body)):
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            yield "runner", key, f" = ...: expected values that JSON can express: {error}"
    try:
        trust_root(runner.ca_file)
    except ValueError as error:
        yield "runner", "ca_file", f" = {shown(runner.ca_file)}: {error}"
    if not isinstance(runner.start_body.get("body", {}), dict):
        yield "runner", "start_body", ' = ...: expected a table as the value of "body"'
    for name, content in runner.headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(content):
            fault = f"{name!a} or its value is not allowed in an HTTP header"
            yield "runner", "headers", f" = ...: {fault}"
        elif _OWN_HEADER.fullmatch(name):
            yield "runner", "headers", f" = ...: {name} is a header that the bridge sets itself"
    for key, path in (("start_path", runner.start_path), ("health_path", runner.health_path)):
        if path and not is_path(path):
            expected = 'expected a path such as "/status", percent-encoded'
            yield "runner", key, f' = "{shown_url(path)}": {expected}'


def _check_urls(runner: RunnerOptions, mode: RunnerMode) -> Iterator[Fault]:
    schemes, example = mode.schemes, mode.example
    if not runner.urls:
        yield "runner", "url", f" = []: expected a URL such as {example}, or several"
    for url in runner.urls:
        dialled = url.lower().startswith("ws")
        if fault := url_fault(url, schemes, query=dialled):
            expected = f"expected a URL such as {example} with mode = {shown(runner.mode)}"
            yield "runner", "url", f' = "{shown_url(url)}": {fault}, {expected}'


_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[ -~\t]*")
_OWN_HEADER: Final = re.compile(
    "(?i)connection|content-length|transfer-encoding|upgrade|sec-websocket-.*"
)

_UNKNOWN_TO_DIAL: Final = ("tls:", "ssl:", "unix:")
"""Endpoints from which no ws:// URL for bots can be derived."""


def _endpoint_fault(description: str) -> str:
    expected = "expected an endpoint such as tcp:9092:interface=127.0.0.1"
    if description.startswith(("systemd:", "haproxy:systemd:")):
        return ""  # only the process that systemd starts has these sockets
    if re.match(r"(?:haproxy:)?tls:\d", description):
        # Twisted would use the number as a folder of certificates, and listen on port 443.
        return "expected an endpoint such as ssl:9092:privateKey=key.pem:certKey=cert.pem"
    try:
        serverFromString(None, description)
    except Exception as error:  # noqa: BLE001 - each kind of endpoint raises other errors
        return f"{expected} ({brief(str(error).strip('_')) or type(error).__name__})"
    port = re.match(r"(?:haproxy:)?(?:tcp|tcp6|ssl|tls):(-?\d+)", description)
    if port and not 0 <= int(port[1]) <= 65535:
        return f"{expected} (a port is 0 to 65535)"
    return ""


def shown(value: Any) -> str:
    """A value as it is written in the configuration file."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{brief(value)}"' if isinstance(value, str) else brief(str(value))
