"""Reads the configuration: file, then environment, then command line; the last word wins."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec

from pipecat_bridge.options import Options

PREFIX = "PIPECAT_BRIDGE_"


class ConfigError(Exception):
    """What is wrong with the configuration: one sentence a line."""


def load(
    path: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
) -> Options:
    """The options; raises ConfigError with every fault that was found.

    `overrides` are `section.key=value`. A value from there or from the environment
    (`PIPECAT_BRIDGE_SECTION__KEY`) is read as TOML where the key is no string.
    """
    problems: list[str] = []
    settings = [*_from_file(path, problems), *_from_environment(environment or {})]
    settings += _from_overrides(overrides, problems)
    values: dict[str, dict[str, Any]] = {}
    for setting in settings:
        setting.apply(values, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    options = msgspec.convert(values, Options)
    problems = _check(options)
    if problems:
        raise ConfigError("\n".join(f"{path or 'configuration'}: {text}" for text in problems))
    return options


class _Setting:
    """One value from one place."""

    def __init__(self, source: str, section: str, key: str, value: Any, text: bool) -> None:
        self.source = source
        self.section = section
        self.key = key
        self.value = value
        self.text = text  # came as a string, whatever it means

    def apply(self, values: dict[str, dict[str, Any]], problems: list[str]) -> None:
        sections = get_type_hints(Options)
        shape = sections.get(self.section)
        if shape is None:
            problems.append(
                f"{self.source}: unknown section [{self.section}]" + _meant(self.section, sections)
            )
            return
        hints = get_type_hints(shape, include_extras=True)
        if self.key not in hints:
            problems.append(
                f"{self.source}: [{self.section}] unknown key {self.key}" + _meant(self.key, hints)
            )
            return
        try:
            value = self._value(hints[self.key])
        except msgspec.ValidationError as error:
            problems.append(
                f"{self.source}: [{self.section}] {self.key} = {_shown(self.value)}:"
                f" {_expected(hints[self.key], error)}"
            )
            return
        values.setdefault(self.section, {})[self.key] = value

    def _value(self, hint: Any) -> Any:
        value = self.value
        if self.text and hint is not str:
            try:
                value = tomllib.loads(f"value = {value}")["value"]
            except tomllib.TOMLDecodeError:
                value = self.value
        return msgspec.convert(value, hint)


def _from_file(path: str | Path | None, problems: list[str]) -> list[_Setting]:
    if path is None:
        return []
    try:
        content = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    settings = []
    for section, table in content.items():
        if isinstance(table, dict):
            settings += [_Setting(str(path), section, key, table[key], False) for key in table]
            if not table and section not in get_type_hints(Options):
                problems.append(f"{path}: unknown section [{section}]")
        else:
            problems.append(f"{path}: {section} stands outside of a [section]")
    return settings


def _from_environment(environment: Mapping[str, str]) -> list[_Setting]:
    settings = []
    for name, value in sorted(environment.items()):
        section, separator, key = name.removeprefix(PREFIX).lower().partition("__")
        if name.startswith(PREFIX) and separator:
            settings.append(_Setting(f"environment {name}", section, key, value, True))
    return settings


def _from_overrides(overrides: Sequence[str], problems: list[str]) -> list[_Setting]:
    settings = []
    for text in overrides:
        name, equals, value = text.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot):
            problems.append(f"--set {text}: expected section.key=value")
            continue
        settings.append(_Setting(f"--set {name.strip()}", section, key, value.strip(), True))
    return settings


def _check(options: Options) -> list[str]:
    """What the types do not say."""
    problems = []
    for network in options.audiosocket.allow:
        try:
            ip_network(network)
        except ValueError as error:
            problems.append(
                f'[audiosocket] allow: {error}, expected a network such as "10.0.0.0/8"'
            )
    for key, url, schemes in (
        ("url", options.runner.url, ("http", "https")),
        ("dialback_url", options.runner.dialback_url, ("ws", "wss")),
    ):
        parts = urlsplit(url)
        if url and (parts.scheme not in schemes or not parts.netloc):
            problems.append(
                f'[runner] {key} = "{url}": expected a URL that begins with {schemes[0]}://'
            )
    if options.bot_audio.max_prebuffer < options.bot_audio.prebuffer:
        problems.append("[bot_audio] max_prebuffer is less than prebuffer")
    return problems


def _meant(word: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {close[0]}?)" if close else f", expected one of: {', '.join(known)}"


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _expected(hint: Any, error: msgspec.ValidationError) -> str:
    if get_origin(hint) is Literal:
        return f"expected one of {', '.join(_shown(choice) for choice in get_args(hint))}"
    text = str(error).replace("`", "")
    return text[0].lower() + text[1:]
