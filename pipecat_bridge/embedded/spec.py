"""Reads and checks the body of `POST /run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_TEXTS = (
    "bot",
    "llm_type",
    "llm_key",
    "stt_type",
    "stt_language",
    "tts_type",
    "tts_language",
    "tts_voice_id",
)


class RefusedError(Exception):
    """A call cannot be started. `status`: the HTTP status. The text is a sentence that says what to
    do."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class CallSpec:
    """One call to start. The values here are for keys that are missing in the body. Unknown keys
    are ignored."""

    id: str
    ws_url: str
    sockets: int = 1
    bot: str = ""
    llm_type: str = "local"
    llm_key: str = ""
    llm_messages: list[dict[str, Any]] = field(default_factory=list)
    stt_type: str = "local"
    stt_language: str = ""
    tts_type: str = "local"
    tts_language: str = ""
    tts_voice_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_echo(self) -> bool:
        """Whether the call gets the echo bot, which sends back every sample it hears."""
        return "echo" in (self.bot, self.llm_type)

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs to dial: one for both directions, or one for input and one for output."""
        if self.sockets == 1:
            return (self.ws_url,)
        return tuple(with_query(self.ws_url, "direction", way) for way in ("input", "output"))


def read_spec(body: object, sockets: int = 1) -> CallSpec:
    """The call that the decoded JSON `body` asks for. Raises RefusedError (400)."""
    if not isinstance(body, dict):
        raise RefusedError(400, f"the body is {_kind(body)}; expected an object with id and ws_url")
    texts = {name: value for name in _TEXTS if (value := _text(body, name))}
    return CallSpec(
        id=_required(body, "id"),
        ws_url=_web_socket_url(_required(body, "ws_url")),
        sockets=_sockets(body, sockets),
        llm_messages=_messages(body),
        metadata=_metadata(body),
        **texts,
    )


def with_query(url: str, name: str, value: str) -> str:
    """`url` with the query parameter `name`. An old value is replaced."""
    parts = urlsplit(url)
    query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != name]
    return urlunsplit(parts._replace(query=urlencode([*query, (name, value)])))


def _required(body: Mapping[str, Any], name: str) -> str:
    if not (value := _text(body, name)):
        raise RefusedError(400, f"{name} is missing; expected an object with id and ws_url")
    return value


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RefusedError(400, f"{name} is {_kind(value)}; expected a string")
    return value


def _web_socket_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise RefusedError(
            400, f'ws_url is "{url}"; expected a URL such as ws://127.0.0.1:8001/ID/ws'
        )
    return url


def _sockets(body: Mapping[str, Any], default: int) -> int:
    value = body.get("sockets", default)
    if value not in (1, 2) or isinstance(value, bool):
        raise RefusedError(400, f"sockets is {value!r}; expected 1 (both ways) or 2 (one each way)")
    return int(value)


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("llm_messages") or []
    if not isinstance(messages, list) or not all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and "content" in message
        for message in messages
    ):
        raise RefusedError(400, "llm_messages is not a list of objects with role and content")
    return messages


def _metadata(body: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise RefusedError(400, f"metadata is {_kind(metadata)}; expected an object")
    return metadata


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value"}
    return "null" if value is None else names.get(type(value), "a number")
