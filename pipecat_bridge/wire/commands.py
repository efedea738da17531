"""Commands of a bot. Each is a JSON object whose `type` is one of five.

    {"type": "hangup", "reason": "..."}                   the reason may be left out
    {"type": "transfer", "target": "support"}
    {"type": "set", "variables": {"NAME": "value"}}
    {"type": "play_dtmf", "digits": "12#"}
    {"type": "record", "action": "start"}                 or pause, resume, stop

Unknown keys are ignored. There are limits, because a bot is often a language model that a caller
may talk into anything, and its commands end up in a dialplan.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Final, Literal, TypeGuard

import msgspec
from msgspec import Struct

from pipecat_bridge.errors import FormatError

MAX_REASON: Final = 200
"""Most characters of a reason. A longer reason is cut, and not refused, so that the call ends."""

MAX_TARGET: Final = 64
"""Most characters of a target. Names of extensions in Asterisk have up to 79."""

MAX_VARIABLES: Final = 50
MAX_NAME: Final = 80
MAX_VALUE: Final = 1000
MAX_DIGITS: Final = 64

DIGITS: Final = "0123456789ABCD*#"

PAUSES: Final = ",wW"
"""`,` and `w` are half a second, `W` is a second. `w` and `W` are as in Asterisk's SendDTMF."""

MAX_TYPE: Final = 20
"""Most characters of a `type` that may be a misspelt command."""

CLOSE: Final = 0.8
"""How similar a misspelt `type` must be to the right one: the least ratio of difflib."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_NAME = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_NAME - 1}}}")
# No character here has a meaning in the arguments of Goto, Dial and Queue. A name that begins with
# "_" would be a pattern.
_TARGET = re.compile(r"[A-Za-z0-9+*#][A-Za-z0-9_+*#.-]*")


class CommandError(FormatError):
    """A command that cannot be carried out."""


class Hangup(Struct, frozen=True, tag_field="type", tag="hangup"):
    """End the call once the queued audio has been played."""

    reason: str = ""


class Transfer(Struct, frozen=True, tag_field="type", tag="transfer"):
    """Stop the bot once the queued audio has been played. The dialplan transfers the caller."""

    target: str


class SetVariables(Struct, frozen=True, tag_field="type", tag="set"):
    """Store variables with the call, for the dialplan."""

    variables: dict[str, str]


class PlayDTMF(Struct, frozen=True, tag_field="type", tag="play_dtmf"):
    """Play the tones of `DIGITS`, with `PAUSES` in between, to the phone."""

    digits: str


class Record(Struct, frozen=True, tag_field="type", tag="record"):
    """Start, pause, resume or stop the recording of the call."""

    action: Literal["start", "pause", "resume", "stop"]


Command = Hangup | Transfer | SetVariables | PlayDTMF | Record

ACTIONS: Final = ("start", "pause", "resume", "stop")
"""What a recording can be told."""

_SHAPES: Final = {
    "hangup": '{"type": "hangup", "reason": "..."}',
    "transfer": '{"type": "transfer", "target": "..."}',
    "set": '{"type": "set", "variables": {"NAME": "value"}}',
    "play_dtmf": '{"type": "play_dtmf", "digits": "..."}',
    "record": '{"type": "record", "action": "start"}',
}

_SPELT: Final = {
    "hangup": "hangup",
    "transfer": "transfer",
    "set": "set",
    "playdtmf": "play_dtmf",
    "record": "record",
}
"""Letters of a `type` -> how it is spelt."""

_LONG: Final = ("hangup", "transfer", "playdtmf")
"""Types that a similar word may mean. A word similar to `set` is often another word."""

_ALIASES: Final = {
    **{word: word for word in _SPELT},
    "endcall": "hangup",
    "setvariable": "set",
    "setvariables": "set",
    "dtmf": "playdtmf",
    "senddtmf": "playdtmf",
    "playdigits": "playdtmf",
    "recording": "record",
    "startrecording": "record",
}
_NO_LETTER = re.compile("[^a-z]+")

_TYPES: Final[dict[type, str]] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}
"""Python type of a JSON value -> its name in messages."""

_read_json = msgspec.json.Decoder().decode


def from_text(text: str) -> Command | None:
    """The command in `text`; None if it is not JSON or not a command.

    Raises CommandError for a command that cannot be carried out.
    """
    return parse(json_of(text))


def json_of(text: str) -> object:
    """The value of `text` as JSON; None if it is not JSON."""
    try:
        return _read_json(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def parse(data: object) -> Command | None:
    """The command in `data`, a decoded JSON value; None if it is not a command.

    Raises CommandError for a command that cannot be carried out.
    """
    return _READERS[data["type"]](data) if is_command(data) else None


def is_command(data: object) -> TypeGuard[dict[str, Any]]:
    """True if `data` has the `type` of a command, valid or not."""
    kind = data.get("type") if isinstance(data, dict) else None
    return isinstance(kind, str) and kind in _READERS


def near_miss(data: object) -> str:
    """A sentence if `data` looks like a command with a misspelt `type`, else "".

    This is not an error, because bots may send messages of their own.
    """
    kind = data.get("type") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind in _READERS or len(kind) > MAX_TYPE:
        return ""
    word = _NO_LETTER.sub("", kind.lower())
    meant = _ALIASES.get(word) or next(iter(get_close_matches(word, _LONG, 1, CLOSE)), "")
    if not meant:
        return ""
    return f"a message of type {_quoted(kind)} is no command: expected {_SHAPES[_SPELT[meant]]}"


def _hangup(data: dict[str, Any]) -> Hangup:
    reason = _string("hangup", data, "reason")
    return Hangup(_CONTROL.sub(" ", reason)[:MAX_REASON].strip())


def _transfer(data: dict[str, Any]) -> Transfer:
    target = _required("transfer", data, "target", "a target")
    if len(target) > MAX_TARGET:
        raise CommandError(
            f"a transfer command with a target of {len(target)} characters: "
            f"expected up to {MAX_TARGET}"
        )
    if not _TARGET.fullmatch(target):
        raise CommandError(
            f"a transfer command with the target {_quoted(target)}: "
            "expected letters A-Z a-z, digits and _ - + * # ., and no _ - . at the beginning"
        )
    return Transfer(target)


def _set(data: dict[str, Any]) -> SetVariables:
    variables = data.get("variables")
    if not variables:
        raise CommandError(f"a set command without variables: expected {_SHAPES['set']}")
    if not isinstance(variables, dict):
        raise _mistyped("set", "variables", variables)
    if len(variables) > MAX_VARIABLES:
        raise CommandError(
            f"a set command with {len(variables)} variables: expected up to {MAX_VARIABLES}"
        )
    return SetVariables({_name(name): _value(name, value) for name, value in variables.items()})


def _name(name: str) -> str:
    if _NAME.fullmatch(name):
        return name
    raise CommandError(
        f"a set command with a variable named {_quoted(name)}: expected up to {MAX_NAME} letters, "
        "digits and underscores, and no digit at the beginning"
    )


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        value = int(value)  # GotoIf treats every word as true, also "false"
    if isinstance(value, int | float):
        value = msgspec.json.encode(value).decode()
    if not isinstance(value, str):
        raise CommandError(
            f"a set command whose variable {name} is {_TYPES[type(value)]}: "
            "expected a string, a number or a boolean"
        )
    if len(value) > MAX_VALUE:
        raise CommandError(
            f"a set command whose variable {name} has {len(value)} characters: "
            f"expected up to {MAX_VALUE}"
        )
    if _CONTROL.search(value):
        raise CommandError(
            f"a set command whose variable {name} has line ends or other control characters: "
            "expected none"
        )
    return value


def _play_dtmf(data: dict[str, Any]) -> PlayDTMF:
    digits = _required("play_dtmf", data, "digits", "digits")
    if len(digits) > MAX_DIGITS:
        raise CommandError(
            f"a play_dtmf command with {len(digits)} digits: expected up to {MAX_DIGITS}"
        )
    digits = "".join(one.upper() if one in "abcd" else one for one in digits)
    for one in digits:
        if one not in DIGITS + PAUSES:
            raise CommandError(
                f"a play_dtmf command with {_quoted(one)} among its digits: "
                'expected 0-9 A-D * # and, for a pause, "," or "w" or "W"'
            )
    return PlayDTMF(digits)


def _record(data: dict[str, Any]) -> Record:
    action: Any = _required("record", data, "action", "an action")
    if action not in ACTIONS:
        raise CommandError(
            f"a record command with the action {_quoted(action)}: expected one of"
            f" {', '.join(ACTIONS)}"
        )
    return Record(action)


def _required(kind: str, data: dict[str, Any], key: str, what: str) -> str:
    value = _string(kind, data, key)
    if not value:
        raise CommandError(f"a {kind} command without {what}: expected {_SHAPES[kind]}")
    return value


def _string(kind: str, data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _mistyped(kind, key, value)
    return value.strip()


def _mistyped(kind: str, key: str, value: Any) -> CommandError:
    return CommandError(
        f"a {kind} command with {_TYPES[type(value)]} for {key}: expected {_SHAPES[kind]}"
    )


def _quoted(text: str) -> str:
    """The first 40 characters of `text`, in quotes and on one line, for the log."""
    return json.dumps(text[:40])


_READERS: Final[dict[str, Callable[[dict[str, Any]], Command]]] = {
    "hangup": _hangup,
    "transfer": _transfer,
    "set": _set,
    "play_dtmf": _play_dtmf,
    "record": _record,
}
