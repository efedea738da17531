"""The scenario of a demonstration call, from a TOML file: what is said, and the right answers."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from pipecat_bridge.tools.phone.script import ScriptLine

AboveZero = Annotated[float, Meta(gt=0)]
Texts = Annotated[list[str], Meta(min_length=1)]


class Caller(Struct, forbid_unknown_fields=True, frozen=True):
    """The caller's voice. `voice`: a voice of espeak-ng. `peak`: highest level, 1 is full scale.
    `noise`: noise of the room, RMS in steps of the 16-bit scale."""

    voice: str
    words_per_minute: Annotated[int, Meta(ge=80, le=450)]
    peak: Annotated[float, Meta(gt=0, le=1)]
    noise: Annotated[float, Meta(ge=0, le=1000)]


class Timing(Struct, forbid_unknown_fields=True, frozen=True):
    """Times in seconds. `patience`: the caller's wait for an answer. `first_patience`: the wait for
    the greeting. `pause`: the silence that ends the bot's turn. `longest_call`: upper limit."""

    patience: AboveZero
    first_patience: AboveZero
    pause: AboveZero
    longest_call: AboveZero


class ExpectedAnswer(Struct, forbid_unknown_fields=True, frozen=True):
    """Something that the bot may say. `words`: the words that must be heard, in this order.
    `opening`: the words that must be heard if the bot was interrupted."""

    sentences: Texts
    words: Texts
    opening: list[str] = []


class Said(Struct, forbid_unknown_fields=True, frozen=True):
    """A line of the caller. `expect`: the name of the right answer. `interrupt_after`: seconds of
    the bot's speech after which the caller interrupts; None: never."""

    text: str
    expect: str
    interrupt_after: AboveZero | None = None


class Scenario(Struct, forbid_unknown_fields=True, frozen=True):
    """A whole call. `decoys` are sentences that the bot must not say."""

    title: str
    caller: Caller
    timing: Timing
    greeting: str
    say: Annotated[list[Said], Meta(min_length=1)]
    answers: dict[str, ExpectedAnswer]
    decoys: list[str] = []

    @property
    def lines(self) -> list[ScriptLine]:
        """What the caller says, and when."""
        return [ScriptLine(one.text, one.interrupt_after) for one in self.say]

    @property
    def expected(self) -> list[ExpectedAnswer]:
        """The answers in the order of the call, the greeting first."""
        return [self.answers[name] for name in (self.greeting, *(one.expect for one in self.say))]

    @property
    def sentences(self) -> list[str]:
        """All sentences from which the recogniser chooses."""
        known = [text for answer in self.answers.values() for text in answer.sentences]
        return [*known, *self.decoys]


class ScenarioError(Exception):
    """The file is not a scenario. The text is one sentence: where, and what is expected."""


def load(path: Path | None = None) -> Scenario:
    """The scenario in a file; by default that of this package. Raises ScenarioError."""
    source = path or files("pipecat_bridge.tools.phone") / "demo-call.toml"
    try:
        scenario = msgspec.convert(tomllib.loads(source.read_text("utf-8")), Scenario)
    except OSError as error:
        raise ScenarioError(f"{source} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{source} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ScenarioError(f"{source}: {error}") from error
    for name in (scenario.greeting, *(one.expect for one in scenario.say)):
        if name not in scenario.answers:
            known = ", ".join(sorted(scenario.answers))
            raise ScenarioError(f"{source}: there is no answer {name!r}, expected one of {known}")
    for before, line in pairwise([Said("", scenario.greeting), *scenario.say]):
        if line.interrupt_after and not scenario.answers[before.expect].opening:
            raise ScenarioError(
                f"{source}: the answer {before.expect!r} is interrupted by {line.text!r}, "
                f"expected the words of its beginning in 'opening'"
            )
    return scenario
