"""The recording of one call: when it runs, and what goes into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from msgspec import UNSET
from msgspec.structs import replace

from pipecat_bridge.audio.hold import HoldMusic
from pipecat_bridge.audio.resample import Resampler, make_resampler
from pipecat_bridge.call.monitor import Monitor
from pipecat_bridge.events.record import RecordingChange, RecordingPart


class AudioFile(Protocol):
    """A file that takes both sides of a call. It never raises, and nobody waits for it."""

    @property
    def rate(self) -> int:
        """Samples per second."""
        ...

    @property
    def fault(self) -> str:
        """Why it takes no more; "" if it does."""
        ...

    def add(self, caller: bytes, phone: bytes) -> None:
        """Append both sides of some time: mono PCM16 of the same length."""

    def close(self) -> None:
        """The recording is complete."""


class Plan(NamedTuple):
    """How calls are recorded. `always`: from the beginning; else when somebody asks for it.

    `announcement`: what the caller hears before the bot and the recording begin. `begin` makes the
    file of a call, from its id, its `created_at` and a number of samples per second.
    """

    always: bool
    announcement: HoldMusic | None
    begin: Callable[[str, float, int], AudioFile]


def _nobody(kind: str, text: str) -> None:
    """Nobody is warned any more."""


class CallRecording:
    """Starts, pauses and ends the recording of a call. `warn` is told why it is incomplete, each
    time that something more is missing.

    The file is made when there is something to record, at the rate that the phone has then.
    `hides_keys`: keys of the caller are left out everywhere.
    """

    def __init__(
        self,
        monitor: Monitor,
        make_file: Callable[[int], AudioFile] | None,
        warn: Callable[[str, str], None],
    ) -> None:
        self.state: Literal["off", "running", "paused", "ended"] = "off"
        self.hides_keys = False
        self._complete: RecordingPart | None = None  # what became of it
        self._monitor = monitor
        self._make_file = make_file
        self._warn = warn
        self._file: AudioFile | None = None
        self._converters: tuple[int, Resampler, Resampler] | None = None
        self._samples = 0

    @property
    def possible(self) -> bool:
        """Whether calls may be recorded at all."""
        return self._make_file is not None

    def obey(self, action: str) -> bool:
        """Do one of `commands.ACTIONS`. False if there is nothing to do, or it is not possible.

        After `pause` keys are hidden until `start` or `resume`, also if nothing is recorded.
        """
        hidden = self.hides_keys
        if action == "stop":
            return self.stop()
        self.hides_keys = action == "pause"
        if action == "pause":
            return self.pause() or not hidden
        if action == "resume" and self.state != "paused":
            return hidden
        return self.start() or hidden

    def start(self) -> bool:
        """Record from now on. False if it does so already, or has ended."""
        if self.state not in ("off", "paused") or not self.possible:
            return False
        self.state = "running"
        self._monitor.close()  # what was before is not recorded
        self._monitor.take = self._take
        return True

    def pause(self) -> bool:
        """Record nothing until `start`. False if nothing is recorded now."""
        if self.state != "running":
            return False
        self._stop_taking()
        self.state = "paused"
        return True

    def stop(self) -> bool:
        """The call is over, or nothing more is to be recorded. False if nothing was."""
        if self.state in ("off", "ended"):
            return False
        if self.state == "running":
            self._stop_taking()
        self.state = "ended"
        if self._file is not None:
            self._file.close()
        return True

    def close(self) -> None:
        """The call is over. Drop the reference to `warn`, whose owner refers to this object."""
        self.stop()
        self._warn = _nobody

    def note(self, change: RecordingChange) -> None:
        """Something has happened to it after it was complete."""
        if isinstance(change, RecordingPart):
            self._complete = change
        elif self._complete is not None:
            self._complete = replace(self._complete, url=change)

    @property
    def part(self) -> RecordingPart | None:
        """What the record says of it; None if nothing was ever to be recorded."""
        if self.state == "off" or self._complete is not None:
            return self._complete
        file = self._file
        seconds = round(self._samples / file.rate, 2) if file is not None else 0.0
        state = "waiting" if self.state == "ended" else self.state
        fault = (file.fault if file is not None else "") or UNSET
        return RecordingPart(state=state, seconds=seconds, fault=fault)

    def _stop_taking(self) -> None:
        self._monitor.close()
        self._monitor.take = None

    def _take(self, caller: bytes, phone: bytes, rate: int) -> None:
        if self._file is None:
            assert self._make_file is not None
            self._file = self._make_file(rate)
        file = self._file
        if rate != file.rate:
            caller, phone = self._converted(caller, phone, rate, file.rate)
        file.add(caller, phone)
        if file.fault:
            self._warn("recording", f"the recording is incomplete: {file.fault}")
        else:
            self._samples += len(phone) // 2

    def _converted(
        self, caller: bytes, phone: bytes, rate: int, wanted: int
    ) -> tuple[bytes, bytes]:
        """Both sides at the file's rate: the phone has changed its own."""
        if self._converters is None or self._converters[0] != rate:
            self._converters = (rate, make_resampler(rate, wanted), make_resampler(rate, wanted))
        _, left, right = self._converters
        return left.process(caller), right.process(phone)
