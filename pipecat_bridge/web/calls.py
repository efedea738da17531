"""`/v1/calls` and the paths below it: shows calls, and controls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Struct, UnsetType
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request

from pipecat_bridge.call.call import Call
from pipecat_bridge.call.life import State
from pipecat_bridge.call.preparations import NoRoomError
from pipecat_bridge.call.record import record
from pipecat_bridge.call.registry import (
    CallIdError,
    CallRunningError,
    Calls,
    UnknownCallError,
)
from pipecat_bridge.errors import brief
from pipecat_bridge.events.kinds import Turn
from pipecat_bridge.events.record import Record
from pipecat_bridge.store.tables import Wanted
from pipecat_bridge.web.archive import Archive
from pipecat_bridge.web.file import FileResource
from pipecat_bridge.web.headers import header
from pipecat_bridge.web.preparation import read_preparation
from pipecat_bridge.web.problem import ProblemError
from pipecat_bridge.web.query import read_query
from pipecat_bridge.web.resource import Handler, JSONResource, NotFound, Reply, body_of, json_of
from pipecat_bridge.web.vcon import vcon_of
from pipecat_bridge.wire.commands import ACTIONS

OUTCOME = ("id", "state", "outcome", "reason", "transfer", "variables")
"""The members of a record that the dialplan needs. A variable in Asterisk holds 4095 bytes."""


class TextBody(Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/calls/{id}/messages`."""

    text: str
    run_immediately: bool = True
    audio_response: bool = True


class RecordingBody(Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/calls/{id}/recording`."""

    action: Literal["start", "pause", "resume", "stop"]


class CallsResource(Resource):
    """`/v1/calls` and the paths below it."""

    def __init__(self, calls: Calls, archive: Archive) -> None:
        super().__init__()
        self._calls = calls
        self._archive = archive

    def getChild(self, path: bytes, request: Request) -> Resource:
        call_id = path.decode("ascii", "replace")
        rest = [part for part in request.postpath or [] if part]
        request.postpath = []
        if not call_id:
            return JSONResource(GET=self._list, DELETE=self._forget_caller)
        if not rest:
            return JSONResource(
                GET=lambda request: self._show(call_id),
                PUT=lambda request: self._prepare(call_id, request),
                POST=lambda request: self._prepare(call_id, request),
                DELETE=lambda request: self._forget(call_id),
            )
        if rest[0] == b"variables" and len(rest) <= 2:
            name = b"".join(rest[1:]).decode("ascii", "replace")
            return JSONResource(GET=lambda request: self._variable(call_id, name, request))
        return self._part(call_id, rest)

    def _part(self, call_id: str, rest: list[bytes]) -> Resource:
        parts: dict[bytes, dict[str, Handler]] = {
            b"outcome": {"GET": lambda request: self._outcome(call_id)},
            b"transfer": {"GET": lambda request: self._transfer(call_id, request)},
            b"transcript": {"GET": lambda request: self._transcript(call_id, request)},
            b"vcon": {"GET": lambda request: self._vcon(call_id, request)},
            b"events": {"GET": lambda request: self._events(call_id)},
            b"recording": {"POST": lambda request: self._record(call_id, request)},
            b"stop": {"POST": lambda request: self._stop(call_id)},
            b"messages": {"POST": lambda request: self._message(call_id, request)},
        }
        handlers = parts.get(rest[0]) if len(rest) == 1 else None
        if handlers is None:
            return NotFound()
        if rest == [b"recording"]:
            archive = self._archive
            return FileResource(archive.in_thread, lambda: archive.recording(call_id), **handlers)
        return JSONResource(**handlers)

    def render(self, request: Request) -> bytes | int:
        return JSONResource(GET=self._list, DELETE=self._forget_caller).render(request)

    def _list(self, request: Request) -> Deferred[Reply]:
        page = self._archive.page(read_query(request))
        return page.addCallback(lambda page: (200, page.body))

    def _show(self, call_id: str) -> Deferred[Reply]:
        prepared = self._calls.prepared(call_id)
        if prepared is not None:
            metadata = prepared.metadata
            return succeed(
                (200, {"id": prepared.call_id, "state": "prepared", "metadata": metadata})
            )
        return self._archive.record(call_id).addCallback(lambda record: (200, record))

    def _transcript(self, call_id: str, request: Request) -> Deferred[Reply]:
        """The turns of a call: JSON, or plain text if the client asks for that."""
        plain = "text/plain" in (header(request, "accept") or "")

        def answer(turns: list[Turn]) -> Reply:
            if not plain:
                return 200, {"id": call_id.lower(), "turns": turns}
            request.setHeader("content-type", "text/plain; charset=utf-8")
            return 200, "".join(f"{turn.speaker}: {turn.text}\n" for turn in turns).encode()

        return self._archive.turns(call_id).addCallback(answer)

    def _vcon(self, call_id: str, request: Request) -> Deferred[Reply]:
        async def answer() -> Reply:
            record = await self._archive.record(call_id)
            turns = await self._archive.turns(call_id)
            request.setHeader("content-type", "application/vcon+json")
            return 200, bytes(msgspec.json.encode(vcon_of(record, turns)))

        return Deferred.fromCoroutine(answer())

    def _events(self, call_id: str) -> Deferred[Reply]:
        events = self._archive.events(call_id)
        return events.addCallback(lambda events: (200, {"id": call_id.lower(), "events": events}))

    def _outcome(self, call_id: str) -> Deferred[Reply]:
        """The few members of the record that the dialplan needs."""

        def few(reply: Reply) -> Reply:
            status, shown = reply
            members = shown if isinstance(shown, dict) else msgspec.to_builtins(shown)
            return status, {key: members.get(key) for key in OUTCOME}

        return self._show(call_id).addCallback(few)

    def _transfer(self, call_id: str, request: Request) -> Deferred[Reply]:
        return self._value(request, call_id, lambda record: record.transfer)

    def _variable(self, call_id: str, name: str, request: Request) -> Deferred[Reply]:
        return self._value(request, call_id, lambda record: record.variables.get(name))

    def _value(
        self, request: Request, call_id: str, read: Callable[[Record], str | UnsetType | None]
    ) -> Deferred[Reply]:
        """One value as plain text, for the dialplan.

        CURL() in Asterisk returns the body and not the status. Without a value, or without such a
        call, the body is therefore empty: the dialplan would use an error text as the value.
        """
        request.setHeader("content-type", "text/plain; charset=utf-8")

        def answer(record: Record) -> Reply:
            value = read(record)
            return (200, value.encode()) if isinstance(value, str) else (404, b"")

        def failed(failure: Failure) -> Reply:
            failure.trap(ProblemError)
            return 404, b""

        return self._archive.record(call_id).addCallbacks(answer, failed)

    def _forget(self, call_id: str) -> Deferred[Reply]:
        """Delete all that is known of a call that has ended."""
        forgetting = Deferred.fromCoroutine(self._archive.forget(call_id))
        return forgetting.addCallback(lambda _: (202, {"id": call_id.lower(), "deleted": True}))

    def _forget_caller(self, request: Request) -> Deferred[Reply]:
        """Delete all that is known of the calls of a caller."""
        wanted = read_query(request)
        if not wanted.caller or wanted != Wanted(caller=wanted.caller):
            raise ProblemError(400, "expected DELETE /v1/calls?caller=NUMBER, and nothing else")
        forgetting = Deferred.fromCoroutine(self._archive.forget_caller(wanted.caller))
        return forgetting.addCallback(lambda ids: (202, {"caller": wanted.caller, "deleted": ids}))

    def _prepare(self, call_id: str, request: Request) -> Reply:
        preparation = read_preparation(body_of(request))
        try:
            ttl = self._calls.prepare(call_id, *preparation)
        except NoRoomError as error:
            raise ProblemError(503, str(error)) from None
        except CallRunningError as error:
            raise ProblemError(409, str(error)) from None
        except CallIdError as error:
            raise ProblemError(400, str(error)) from None
        return 201, {"id": call_id.lower(), "state": "prepared", "expires_in": ttl}

    def _running(self, call_id: str) -> Call:
        try:
            return self._calls.get(call_id)
        except UnknownCallError:
            text = f"no call {brief(call_id)} is running: see /v1/calls"
            raise ProblemError(404, text) from None

    def _record(self, call_id: str, request: Request) -> Reply:
        """Start, pause, resume or stop the recording."""
        example = f'{{"action": ".."}} with one of {", ".join(ACTIONS)}'
        wanted = json_of(request, RecordingBody, example)
        call = self._running(call_id)
        if not call.recording.possible:
            raise ProblemError(409, "nothing can be recorded: [recording] when is off")
        if not call.record(wanted.action):
            state = call.recording.state
            text = f"the recording is {state}: there is nothing to {wanted.action}"
            if state == "ended":
                text += "; a call has one recording"
            raise ProblemError(409, text)
        return 200, {"id": call.call_id, "recording": call.recording.part}

    def _stop(self, call_id: str) -> Reply:
        call = self._running(call_id)
        call.stop(reason="stopped over the API")
        return 200, record(call)

    def _message(self, call_id: str, request: Request) -> Reply:
        message = json_of(request, TextBody, '{"text": "...", "run_immediately": true, ...}')
        call = self._running(call_id)
        if call.state is State.FINISHING:
            raise ProblemError(409, f"the bot of call {call_id} has ended")
        fate = call.bot.send_text(message.text, message.run_immediately, message.audio_response)
        if fate == "no-texts":
            raise ProblemError(
                409, f"the bot of call {call_id} takes no text: Twilio's protocol cannot carry it"
            )
        if fate == "full":
            text = f"the bot of call {call_id} does not read, and too much waits for it already"
            raise ProblemError(503, text)
        return 202, {"id": call.call_id, "sent": True}
