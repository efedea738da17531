"""What happens in calls, told to whoever asked to hear it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from twisted.logger import Logger


class CallEvent(Struct, frozen=True):
    """One event of one call; `time` in seconds since the epoch.

    `kind` is created, ready, initialized, terminated, rejected, dtmf, interrupted, or the type of
    an RTVI message that the bridge knows: user-transcription, bot-transcription, bot-llm-text and
    so on; `rtvi` is one that it does not know, with the type in `data`.
    """

    call_id: str
    time: float
    kind: str
    data: dict[str, Any]


Listener = Callable[[CallEvent], None]


class Events:
    """Passes each event to every listener; one that fails does not disturb the call."""

    _log = Logger()

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each event from now on, until the returned function is called."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def publish(self, event: CallEvent) -> None:
        """Tell all listeners."""
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - a listener is not part of the call
                self._log.failure("{call_id} a listener failed", call_id=event.call_id)


_LOGGED = {"created", "initialized", "terminated", "dtmf", "interrupted", "rejected"}


class EventLog:
    """One line of log for each event of a call that an operator wants to see."""

    _log = Logger(namespace="pipecat_bridge.call")

    def __call__(self, event: CallEvent) -> None:
        if event.kind in _LOGGED:
            shown = {key: value for key, value in event.data.items() if value != ""}
            details = " ".join(f"{key}={_on_one_line(value)}" for key, value in shown.items())
            self._log.info(
                "{call_id} {kind} {details}",
                call_id=event.call_id,
                kind=event.kind,
                details=details,
                data=event.data,
            )


def _on_one_line(value: object) -> str:
    """As text; what a peer sent, a digit or the reason of a close, may hold line breaks."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(value))
