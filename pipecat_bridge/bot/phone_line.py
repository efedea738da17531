"""The telephone line of a call, for authors of Pipecat bots.

    line = PhoneLine()
    pipeline = Pipeline([transport.input(), line, ..., transport.output()])

The bot then gets keys as `InputDTMFFrame`, and the metadata of the call. It can hang up, transfer
the call, set variables of the dialplan, and press keys; see docs/bots.md.

This file needs only Pipecat 1.3 or later, not the rest of this package, and not Twisted. You can
copy it into your bot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pipecat.processors.frameworks.rtvi.models as rtvi
from loguru import logger
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import (
    Frame,
    InputDTMFFrame,
    InputTransportMessageFrame,
    OutputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pydantic import ValidationError

DIGITS = frozenset("0123456789*#ABCDabcd,wW")
"""Characters for `play_dtmf`: the keys of a telephone, and pauses of 0.5 s (, w) and 1 s (W)."""

_METADATA = "call-metadata"
_CALLER = ("caller", "from_number", "from")
_CALLED = ("called", "dialled", "to_number", "to")
"""Names in the metadata that may have the telephone numbers of caller and called party."""


@dataclass(frozen=True)
class CallMetadata:
    """The metadata of a call, as the bridge knew it when the bot connected.

    `caller`, `called`: the telephone numbers; "" if the bridge does not know them. `metadata`:
    everything that the bridge was told about the call, with the numbers. `parameters`: the
    parameters for the runner. `resumption`: 0 for the first bot of a call, n for the n-th bot that
    replaces a lost one. Such a bot should go on with the conversation and not greet again.
    """

    id: str
    caller: str = ""
    called: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    resumption: int = 0


class PhoneLine(FrameProcessor):
    """Takes messages of the bridge, and sends commands to it. Put it after `transport.input()`.

    The metadata come with the first message of the bridge, just after RTVI `client-ready`. Then the
    event handler `on_call(line, call)` is called. In dial-back mode this event does not come: the
    metadata are in the body of `/run`.

    `hangup`, `transfer` and `play_dtmf` take effect after all earlier speech of the bot has been
    played. An interruption does not cancel them.
    """

    def __init__(self, *, rtvi_messages: bool = True, **options: Any) -> None:
        """`rtvi_messages=False` sends commands as plain JSON, for Twilio's serializer."""
        super().__init__(**options)
        self.call: CallMetadata | None = None
        """The metadata of the call; None before they have come."""
        self._known = asyncio.Event()
        self._rtvi_messages = rtvi_messages
        self._register_event_handler("on_call")

    async def wait_for_call(self) -> CallMetadata:
        """Wait for the metadata of the call. Without the bridge as client it never returns."""
        await self._known.wait()
        assert self.call is not None
        return self.call

    async def hangup(self, reason: str = "") -> None:
        """End the call after all earlier speech. `reason` goes into the call's record."""
        await self._in_turn({"type": "hangup", "reason": reason})

    async def transfer(self, target: str) -> None:
        """End the bot's part after all earlier speech. The dialplan goes on at `target`."""
        if not target:
            raise ValueError("transfer without a target; expected a name that the dialplan knows")
        await self._in_turn({"type": "transfer", "target": target})

    async def set_variables(self, **variables: str | float) -> None:
        """Set variables of the call at once. The dialplan can read them after the bot's part.

        True and False become 1 and 0, as usual in the dialplan.
        """
        command = {"type": "set", "variables": variables}
        await self.push_frame(OutputTransportMessageUrgentFrame(message=self._message(command)))

    async def play_dtmf(self, digits: str) -> None:
        """Play the tones of keys after all earlier speech. `DIGITS` has the allowed characters."""
        if not digits or not set(digits) <= DIGITS:
            raise ValueError(f'digits "{digits}"; expected 0-9, *, #, A-D, and , w W for pauses')
        await self._in_turn({"type": "play_dtmf", "digits": digits})

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, InputTransportMessageFrame) and isinstance(frame.message, dict):
            await self._hear(frame.message)

    async def _hear(self, message: Mapping[str, Any]) -> None:
        data = message.get("data")
        if message.get("label") != rtvi.MESSAGE_LABEL or not isinstance(data, dict):
            return
        if message.get("type") == "dtmf" and not self._pipecat_takes_dtmf(data):
            await self._press(data.get("buttons"))
        elif message.get("type") == "client-message" and data.get("t") == _METADATA:
            await self._meet(data.get("d"))

    def _pipecat_takes_dtmf(self, data: Mapping[str, Any]) -> bool:
        """Whether the RTVI processor of this Pipecat makes frames of these keys itself."""
        try:
            return bool(self.pipeline_worker.rtvi) and _rtvi_takes_dtmf(data)
        except Exception:  # noqa: BLE001  # what Pipecat raises when RTVI is not enabled
            return False

    async def _press(self, buttons: object) -> None:
        """Push a frame for each key, as later releases of Pipecat do."""
        for button in buttons if isinstance(buttons, list) else ():
            try:
                key = KeypadEntry(button)
            except ValueError:  # A to D, which Pipecat does not have
                logger.warning(f"{self}: Pipecat does not know the key {button!r}")
            else:
                await self.push_frame(InputDTMFFrame(button=key))

    async def _meet(self, told: object) -> None:
        if not isinstance(told, dict) or not isinstance(told.get("id"), str):
            logger.warning(f"{self}: {_METADATA} without the id of the call: {told!r:.200}")
            return
        self.call = _call_metadata(told)
        self._known.set()
        await self._call_event_handler("on_call", self.call)

    async def _in_turn(self, command: dict[str, Any]) -> None:
        await self.push_frame(_frame_in_turn(self._message(command)))

    def _message(self, command: dict[str, Any]) -> dict[str, Any]:
        if not self._rtvi_messages:
            return command
        return {"label": rtvi.MESSAGE_LABEL, "type": "server-message", "data": command}


def _rtvi_takes_dtmf(data: Mapping[str, Any]) -> bool:
    """Whether the RTVI of this Pipecat takes these keys: 1.5 takes `button`, 1.6 `buttons`."""
    model = getattr(rtvi, "DTMFInputData", None)
    if model is None:
        return False
    try:
        model.model_validate(data)
    except ValidationError:
        return False
    return True


def _call_metadata(told: Mapping[str, Any]) -> CallMetadata:
    metadata, parameters = (_mapping(told.get(name)) for name in ("metadata", "parameters"))
    resumption = told.get("resumption")
    return CallMetadata(
        id=told["id"],
        caller=_first(metadata, _CALLER),
        called=_first(metadata, _CALLED),
        metadata=metadata,
        parameters=parameters,
        resumption=resumption if isinstance(resumption, int) else 0,
    )


def _first(metadata: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((str(metadata[name]) for name in names if metadata.get(name)), "")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _frame_in_turn(message: dict[str, Any]) -> OutputTransportMessageFrame:
    """A message frame that is sent after all earlier audio, and that no interruption drops."""
    frame = _KeptMessageFrame(message=message)
    frame.interruptible = False
    return frame


if hasattr(Frame, "interruptible"):  # Pipecat 1.11 and later: an attribute of the frame
    _KeptMessageFrame = OutputTransportMessageFrame
else:  # before 1.11: a base class
    from pipecat.frames.frames import UninterruptibleFrame

    @dataclass
    class _KeptMessageFrame(OutputTransportMessageFrame, UninterruptibleFrame):  # type: ignore[no-redef]
        pass
