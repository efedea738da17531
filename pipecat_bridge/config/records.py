"""Validation of what is kept of calls, and of who is told."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pipecat_bridge.audio.hold import read_wav
from pipecat_bridge.errors import brief
from pipecat_bridge.events.kinds import KINDS
from pipecat_bridge.net.urls import shown_url, url_fault
from pipecat_bridge.options import Options, RecordingOptions, S3Options, StoreOptions, Webhook
from pipecat_bridge.sinks.webhook import key_of
from pipecat_bridge.store import engine
from pipecat_bridge.store.engine import POSTGRESQL
from pipecat_bridge.store.store import NONE

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")

Fault = tuple[str, str, str]
"""Section, key, and the rest of the message, which follows "[section] key"."""


def faults(options: Options) -> Iterator[Fault]:
    """All faults of these sections."""
    yield from _check_store(options.store)
    yield from _check_recording(options.recording)
    yield from _check_s3(options.s3)
    hooks = options.webhooks.hooks
    if hooks and options.store.url == NONE:
        yield "webhooks", "hooks", ': expected a store, [store] url is "none"'
    names = [hook.name for hook in hooks]
    for number, hook in enumerate(hooks):
        for key, fault in _hook_faults(hook, names[:number]):
            yield "webhooks", "hooks", f"[{number}].{key}{fault}"


def extra(name: str) -> str:
    """How the packages of an extra are installed."""
    return f"pip install '.[{name}]' in the checkout"


def _check_store(store: StoreOptions) -> Iterator[Fault]:
    url = store.url
    if url not in ("", NONE) and (fault := engine.url_fault(url)):
        yield "store", "url", f": {fault}"
    if url.startswith(POSTGRESQL) and find_spec("psycopg") is None:
        yield "store", "url", f": expected the package psycopg: {extra('postgresql')}"
    path = store.events_file
    if path and (os.path.isdir(path) or not os.path.isdir(os.path.dirname(os.path.abspath(path)))):
        expected = "expected a file in a folder that is there"
        yield "store", "events_file", f' = "{brief(path)}": {expected}'


def _check_recording(recording: RecordingOptions) -> Iterator[Fault]:
    missing = recording.format != "wav" and find_spec("soundfile") is None
    if missing and recording.when != "off":
        expected = f'expected format = "wav", or the package soundfile: {extra("recording")}'
        yield "recording", "when", f' = "{recording.when}": {expected}'
    if recording.announce:
        try:
            read_wav(Path(recording.announce).read_bytes())
        except OSError as error:
            fault = f"{error.strerror or error}, expected a WAV file"
            yield "recording", "announce", f' = "{brief(recording.announce)}": {fault}'
        except ValueError as error:
            yield "recording", "announce", f' = "{brief(recording.announce)}": {error}'


def _check_s3(s3: S3Options) -> Iterator[Fault]:
    if not s3.bucket:
        for name in ("endpoint", "prefix", "access_key", "secret_key"):
            if getattr(s3, name):
                yield "s3", name, " is given: expected bucket as well"
        return
    if not _BUCKET.fullmatch(s3.bucket):
        expected = "expected 3 to 63 small letters, digits, dots and hyphens"
        yield "s3", "bucket", f' = "{brief(s3.bucket)}": {expected}'
    if find_spec("boto3") is None:
        yield "s3", "bucket", f": expected the package boto3: {extra('s3')}"
    if s3.endpoint and (fault := url_fault(s3.endpoint, ("http", "https"))):
        yield "s3", "endpoint", f' = "{shown_url(s3.endpoint)}": {fault}, expected https://HOST'
    for given, missing in (("access_key", "secret_key"), ("secret_key", "access_key")):
        if getattr(s3, given) and not getattr(s3, missing):
            yield "s3", given, f": expected {missing} as well"


def _hook_faults(hook: Webhook, before: list[str]) -> Iterator[tuple[str, str]]:
    if not _NAME.fullmatch(hook.name) or hook.name in before:
        expected = "expected letters, digits, dots, hyphens, and a name that no other has"
        yield "name", f' = "{brief(hook.name)}": {expected}'
    if fault := url_fault(hook.url, ("http", "https"), query=True):
        yield "url", f' = "{shown_url(hook.url)}": {fault}, expected a URL with https://'
    for kind in hook.kinds:
        if kind not in KINDS:
            yield "kinds", f' = ["{brief(kind)}"]: expected some of {", ".join(KINDS)}'
    if not hook.secrets:
        yield "secrets", " = []: expected one, or two while it is being changed"
    for secret in hook.secrets:
        yield from _secret_faults(secret)


def _secret_faults(secret: Any) -> Iterator[tuple[str, str]]:
    try:
        key_of(secret)
    except ValueError as error:
        yield "secrets", f" = [...]: {error}"
