"""Reads the data with which a call is prepared: the body of PUT or POST `/v1/calls/{id}`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from pipecat_bridge.web.problem import ProblemError
from pipecat_bridge.wire.nesting import MAX_DEPTH, too_deep

RUNNER_PARAMETERS: Final = frozenset(
    {
        "llm_type",
        "llm_key",
        "llm_messages",
        "stt_type",
        "stt_language",
        "tts_type",
        "tts_language",
        "tts_voice_id",
    }
)
"""Keys of the body that the runner gets as parameters. The only other key is `metadata`."""

MAX_DOUBTS: Final = 10
"""Most sentences on what looks wrong in one form. A hostile form has thousands of wrong fields."""

_FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_LOST_PLUS: Final = re.compile(r" \d+")


class Preparation(NamedTuple):
    """Parameters for the runner, metadata of the call, and sentences on what looks wrong in it."""

    parameters: dict[str, Any]
    metadata: dict[str, Any]
    doubts: list[str]


def read_preparation(body: bytes) -> Preparation:
    """Read JSON, or a form as CURL() in a dialplan sends it. Raises ProblemError.

    The content type is ignored, since `curl -d` sends JSON with the content type of a form.
    """
    if b"=" in body and body.lstrip()[:1] not in b'{["':
        return _from_form(body.decode("utf-8", "replace"))
    try:
        content = msgspec.json.decode(body.strip() or b"{}", type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise ProblemError(
            400, f"the body is neither a JSON object nor a form (name=value&..): {error}"
        ) from None
    return _from_json(content)


def _from_form(text: str) -> Preparation:
    fields = dict(parse_qsl(text, keep_blank_values=True))
    parameters: dict[str, Any] = {key: fields.pop(key) for key in RUNNER_PARAMETERS & set(fields)}
    if "llm_messages" in parameters:
        try:
            parameters["llm_messages"] = msgspec.json.decode(parameters["llm_messages"].encode())
        except (ValueError, RecursionError) as error:
            raise ProblemError(
                400, f"llm_messages of a form: expected a list in JSON: {error}"
            ) from None
    return Preparation(
        _checked(parameters), dict(fields), list(islice(_doubts(fields), MAX_DOUBTS))
    )


def _doubts(fields: dict[str, str]) -> Iterator[str]:
    """What looks as if the dialplan had not URL-encoded its values, one sentence for each field."""
    for name, value in fields.items():
        if not _FIELD_NAME.fullmatch(name):
            yield (
                f"the form has a field {name[:40]!a}, probably the rest of a value with an & in it:"
                " URIENCODE() each value in the dialplan"
            )
        elif _LOST_PLUS.fullmatch(value):
            yield (
                f"{name} begins with a space, probably instead of a +: URIENCODE() each value in"
                " the dialplan"
            )


def _from_json(content: dict[str, Any]) -> Preparation:
    if too_deep(content):
        raise ProblemError(400, f"the body is nested deeper than {MAX_DEPTH} levels")
    metadata = content.pop("metadata", {})
    if not isinstance(metadata, dict):
        raise ProblemError(400, '"metadata" must be an object of names and values')
    unknown = sorted(set(content) - RUNNER_PARAMETERS)
    if unknown:
        known = ", ".join(sorted(RUNNER_PARAMETERS))
        raise ProblemError(400, f'unknown key "{unknown[0]}": expected metadata, {known}')
    return Preparation(_checked(content), metadata, [])


def _checked(parameters: dict[str, Any]) -> dict[str, Any]:
    messages = parameters.get("llm_messages", [])
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise ProblemError(
            400, 'llm_messages: expected a list of objects such as {"role": "..", "content": ".."}'
        )
    if too_deep(parameters):
        raise ProblemError(400, f"llm_messages is nested deeper than {MAX_DEPTH} levels")
    return parameters
