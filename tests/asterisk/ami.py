"""Asterisk's manager interface: actions, their responses, and every event as it came."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

Message = dict[str, str]
"""One block of ``Key: Value`` lines; a key that repeats is joined by newlines."""

Match = Callable[[Message], bool]


class AmiError(Exception):
    """Asterisk refused an action; the text is its own."""


class Ami(LineOnlyReceiver):
    """A client of the manager interface.

    `events` keeps every event since the login, so a test may ask for one that has come already.
    """

    MAX_LENGTH = 1 << 20

    def __init__(self) -> None:
        self.events: list[Message] = []
        self._block: Message = {}
        self._ids = count(1)
        self._actions: dict[str, Deferred[Message]] = {}
        self._waiters: list[tuple[Match, Deferred[Message]]] = []

    def lineReceived(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        if not text:
            block, self._block = self._block, {}
            self._dispatch(block)
            return
        key, separator, value = text.partition(": ")
        if not separator:
            key, _, value = text.partition(
                ":"
            )  # an empty value has no space; the greeting no colon
        known = self._block.get(key)
        self._block[key] = value if known is None else f"{known}\n{value}"

    def _dispatch(self, block: Message) -> None:
        if "Event" in block:
            self.events.append(block)
            for match, waiter in list(self._waiters):
                if match(block):
                    self._waiters.remove((match, waiter))
                    waiter.callback(block)
        elif "Response" in block:
            self._actions.pop(block["ActionID"]).callback(block)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        waiting = [*self._actions.values(), *(waiter for _, waiter in self._waiters)]
        self._actions, self._waiters = {}, []
        for deferred in waiting:
            deferred.errback(Failure(ConnectionDone("Asterisk has closed the manager connection")))

    async def action(self, name: str, *variables: str, **headers: object) -> Message:
        """Carry out an action and return its response; `variables` are ``NAME=value``.

        Raises `AmiError` when Asterisk answers with an error.
        """
        action_id = str(next(self._ids))
        lines = [f"Action: {name}", f"ActionID: {action_id}"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        lines += [f"Variable: {variable}" for variable in variables]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError(f"a line break inside an AMI action: {lines}")
        response: Deferred[Message] = Deferred()
        self._actions[action_id] = response
        assert self.transport is not None
        self.transport.write("\r\n".join([*lines, "", ""]).encode())
        block = await response
        if block["Response"] == "Error":
            raise AmiError(f"{name}: {block.get('Message')} {block.get('Output', '')}")
        return block

    async def command(self, text: str) -> str:
        """Run a command of Asterisk's console; return what it printed."""
        return (await self.action("Command", Command=text)).get("Output", "")

    def event(self, match: Match, timeout: float = 30.0, since: int = 0) -> Deferred[Message]:
        """The first event after index `since` that matches, come already or yet to come."""
        waiter: Deferred[Message] = Deferred()
        for event in self.events[since:]:
            if match(event):
                waiter.callback(event)
                return waiter
        self._waiters.append((match, waiter))
        return waiter.addTimeout(timeout, reactor, onTimeoutCancel=self._timed_out)

    def _timed_out(self, _: object, timeout: float) -> Message:
        names = [event["Event"] for event in self.events[-20:]]
        raise AmiError(f"no such event within {timeout:g} s; the last ones were {names}")

    def seen(self, match: Match) -> list[Message]:
        """All events so far that match."""
        return [event for event in self.events if match(event)]


def on(channel_id: str, event: str, **fields: str) -> Match:
    """Matches `event` of the channel with this unique id, with these fields."""

    def match(block: Message) -> bool:
        return (
            block["Event"] == event
            and block.get("Uniqueid") == channel_id
            and all(block.get(key) == value for key, value in fields.items())
        )

    return match
