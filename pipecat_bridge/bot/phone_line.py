"""The telephone line of a call, for whoever writes a Pipecat bot.

    line = PhoneLine()
    pipeline = Pipeline([transport.input(), line, ..., transport.output()])

gives the bot keys as `InputDTMFFrame`, typed metadata of the call, and a way to hang up, to
transfer, to set the dialplan's variables and to press keys; see docs/bots.md.

Needs Pipecat 1.3 or later and nothing else: not the rest of this package, not Twisted. Where only
this is wanted, copy the file.
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
"""What can be played: the keys of a telephone, and pauses of half a second (, w) and of one (W)."""

_METADATA = "call-metadata"
_CALLER = ("caller", "from_number", "from")
_CALLED = ("called", "dialled", "to_number", "to")
"""What whoever prepares a call may have named who calls whom."""


@dataclass(frozen=True)
class CallMetadata:
    """What is known of a call when its bot comes.

    `caller` and `called` are the telephone numbers, empty when nobody has told the bridge. They
    stand in `metadata` as well, with all else that was told beforehand. `parameters` are those for
    the runner. `resumption` is 0, or n for the n-th bot that takes the place of a lost one: it
    should go on rather than greet.
    """

    id: str
    caller: str = ""
    called: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    resumption: int = 0


class PhoneLine(FrameProcessor):
    """Stands right after `transport.input()`, hears what the bridge tells, and tells it what to do.

    The metadata arrive with the first message of the bridge, just after RTVI `client-ready`; the
    event handler `on_call(line, call)` is called then. In dial-back mode they do not: they are in
    the body of `/run`.

    `hangup`, `transfer` and `play_dtmf` take effect when all that the bot has said before them has
    been played, and an interruption does not undo them.
    """

    def __init__(self, *, rtvi_messages: bool = True, **options: Any) -> None:
        """`rtvi_messages=False` sends commands as bare JSON, as Twilio's serializer needs it."""
        super().__init__(**options)
        self.call: CallMetadata | None = None
        """The call, as soon as it is known."""
        self._known = asyncio.Event()
        self._rtvi_messages = rtvi_messages
        self._register_event_handler("on_call")

    async def wait_for_call(self) -> CallMetadata:
        """The call, once it is known; never, for a client that is not the bridge."""
        await self._known.wait()
        assert self.call is not None
        return self.call

    async def hangup(self, reason: str = "") -> None:
        """End the call after what has been said; `reason` stands in the call's record."""
        await self._in_turn({"type": "hangup", "reason": reason})

    async def transfer(self, target: str) -> None:
        """End the bot's part after what has been said; the dialplan goes on at `target`."""
        if not target:
            raise ValueError("transfer without a target; expected a name that the dialplan knows")
        await self._in_turn({"type": "transfer", "target": target})

    async def set_variables(self, **variables: str | float) -> None:
        """Keep variables with the call, at once; the dialplan reads them after the bot's part.

        True and False become 1 and 0, as the dialplan has it.
        """
        command = {"type": "set", "variables": variables}
        await self.push_frame(OutputTransportMessageUrgentFrame(message=self._message(command)))

    async def play_dtmf(self, digits: str) -> None:
        """Play the tones of keys after what has been said; `DIGITS` are what there is."""
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
        """Whether this Pipecat makes frames of these keys itself, which it does in its RTVI."""
        try:
            return bool(self.pipeline_worker.rtvi) and _rtvi_takes_dtmf(data)
        except Exception:  # noqa: BLE001  # what Pipecat raises when RTVI is not enabled
            return False

    async def _press(self, buttons: object) -> None:
        """Do as later releases of Pipecat do by themselves."""
        for button in buttons if isinstance(buttons, list) else ():
            try:
                key = KeypadEntry(button)
            except ValueError:  # A to D, which Pipecat does not have
                logger.warning(f"{self}: the key {button!r} is none of Pipecat's")
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
    """Whether this Pipecat's RTVI understands: 1.5 takes `button`, 1.6 and later `buttons`."""
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
    """A message that waits behind the audio before it, and outlives an interruption."""
    frame = _KeptMessageFrame(message=message)
    frame.interruptible = False
    return frame


if hasattr(Frame, "interruptible"):  # 1.11 on: a frame says it
    _KeptMessageFrame = OutputTransportMessageFrame
else:  # before: its class does
    from pipecat.frames.frames import UninterruptibleFrame

    @dataclass
    class _KeptMessageFrame(OutputTransportMessageFrame, UninterruptibleFrame):  # type: ignore[no-redef]
        pass
