"""Reads the configuration: file, environment, command line. The later source overrides."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from pipecat_bridge.config import checks
from pipecat_bridge.config.checks import shown
from pipecat_bridge.errors import brief, printable
from pipecat_bridge.options import Options

PREFIX = "PIPECAT_BRIDGE_"

_KUBERNETES: Final = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)"
)
"""Variables, without the prefix, that Kubernetes sets in each container for a service whose name
begins with pipecat-bridge."""

_SECRET: Final = ("parameters", "headers", "hooks", "secret_key", "start_body")
"""Options whose values are not shown, because they may contain secrets of services and runners."""


class ConfigError(Exception):
    """The faults of the configuration, one on each line."""


def load_options(
    path: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
) -> Options:
    """Read the options. Raises ConfigError with every fault that was found.

    `overrides` are `section.key=value`. Values in overrides and in the environment
    (`PIPECAT_BRIDGE_SECTION__KEY`) are read as TOML unless the option is a string.
    """
    problems: list[str] = []
    settings = [*_from_file(path, problems), *_from_environment(environment or {}, problems)]
    settings += _from_overrides(overrides, problems)
    values: dict[str, dict[str, Any]] = {}
    sources: dict[str, str] = {}
    for setting in settings:
        setting.apply(values, sources, problems)
    options = msgspec.convert(values, Options)
    for section, key, fault in checks.faults(options):
        name = f"[{section}] {key}"
        problems.append(f"{sources.get(name, 'default')}: {name}{fault}")
    if problems:
        raise ConfigError("\n".join(map(printable, dict.fromkeys(problems))))
    return options


class _Setting:
    """One value from one source: the file, a variable of the environment, or an override."""

    def __init__(self, source: str, section: str, key: str, value: Any, text: bool) -> None:
        self.source = source
        self.section = section
        self.key = key
        self.value = value
        self.text = text  # the source has only strings, also for other types

    def apply(
        self, values: dict[str, dict[str, Any]], sources: dict[str, str], problems: list[str]
    ) -> None:
        """Store the value and its source, or add its fault to `problems`."""
        sections = get_type_hints(Options)
        shape = sections.get(self.section)
        if shape is None:
            meant = _meant(self.section, sections)
            problems.append(f"{self.source}: unknown section [{self.section}]{meant}")
            return
        hints = get_type_hints(shape, include_extras=True)
        if self.key not in hints:
            meant = _meant(self.key, hints)
            problems.append(f"{self.source}: [{self.section}] unknown key {self.key}{meant}")
            return
        name = f"[{self.section}] {self.key}"
        try:
            value = self._value(hints[self.key])
        except msgspec.ValidationError as error:
            expected = _expected(hints[self.key], error)
            problems.append(f"{self.source}: {name} = {self._shown()}: {expected}")
            return
        values.setdefault(self.section, {})[self.key] = value
        sources[name] = self.source

    def _value(self, hint: Any) -> Any:
        value = self.value
        if self.text and hint is not str:
            try:
                parsed = tomllib.loads(f"value = {value}")
                value = parsed["value"] if len(parsed) == 1 else value
            except (tomllib.TOMLDecodeError, RecursionError):
                pass
        value = msgspec.convert(value, hint)
        if _has_nul(value):
            raise msgspec.ValidationError("expected text without NUL characters")
        return value

    def _shown(self) -> str:
        if self.key in _SECRET:
            return "..."
        return brief(" ".join(self.value.split())) or '""' if self.text else shown(self.value)


def _from_file(path: str | Path | None, problems: list[str]) -> list[_Setting]:
    if path is None:
        return []
    try:
        content = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    settings, sections = [], get_type_hints(Options)
    for section, table in content.items():
        if isinstance(table, dict):
            settings += [_Setting(str(path), section, key, table[key], False) for key in table]
            if not table and section not in sections:
                meant = _meant(section, sections)
                problems.append(f"{path}: unknown section [{section}]{meant}")
        elif section in sections:
            problems.append(f"{path}: {section} = ..: expected a table, [{section}]")
        else:
            problems.append(f"{path}: {section} is outside of a [section]")
    return settings


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> list[_Setting]:
    settings = []
    for name, value in sorted(environment.items()):
        if not name.startswith(PREFIX):
            continue
        rest = name.removeprefix(PREFIX)
        section, separator, key = rest.lower().partition("__")
        if separator:
            settings.append(_Setting(f"environment {name}", section, key, value, True))
        elif not _KUBERNETES.fullmatch(rest):
            problems.append(f"environment {name}: {_meant_variable(rest)}")
    return settings


def _meant_variable(rest: str) -> str:
    """The fault of a variable that has the prefix but no `__`, and what is expected."""
    known = [
        f"{section}__{key}"
        for section, shape in get_type_hints(Options).items()
        for key in get_type_hints(shape)
    ]
    close = difflib.get_close_matches(rest.lower(), known, 1, cutoff=0.8)
    if close:
        return f"unknown variable (did you mean {PREFIX}{close[0].upper()}?)"
    return f"unknown variable, expected {PREFIX}SECTION__KEY, such as {PREFIX}RUNNER__URL"


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


def _meant(word: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {close[0]}?)" if close else f", expected one of: {', '.join(known)}"


_WORDS: Final = {
    "float": "a number",
    "int": "a whole number",
    "str": "a string",
    "array": "an array",
    "object": "a table",
}


def _expected(hint: Any, error: msgspec.ValidationError) -> str:
    if get_origin(hint) is Literal:
        return f"expected one of {', '.join(shown(choice) for choice in get_args(hint))}"
    if (numbers := _range(hint)) and ", got" not in str(error):
        return f"expected {numbers}"
    text = re.sub("|".join(rf"\b{word}\b" for word in _WORDS), _in_words, str(error))
    text = text.replace("`", "").replace(" | ", " or ")
    return _in_place(text[0].lower() + text[1:])


def _in_place(text: str) -> str:
    """The text with the place within the value, if there is one, as a person writes it."""
    found = re.fullmatch(r"(.*) - at \$\.?(.*)", text, re.DOTALL)
    return f"{found[1]}, at {found[2]}" if found is not None else text


def _range(hint: Any) -> str:
    """The range of a number in words; "" if the option is no number."""
    kind, *metas = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    for meta in metas:
        if isinstance(meta, Meta):
            return f"{_WORDS[kind.__name__]} from {meta.ge} to {meta.le}"
    return ""


def _has_nul(value: Any) -> bool:
    """Whether a text in `value` has a NUL character, which neither files nor processes can take."""
    if isinstance(value, dict):
        return any(map(_has_nul, [*value, *value.values()]))
    if isinstance(value, list | tuple):
        return any(map(_has_nul, value))
    return isinstance(value, str) and "\0" in value


def _in_words(found: re.Match[str]) -> str:
    return _WORDS[found[0]]
