"""Writes recordings in a thread of its own, so that no call waits for a disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from pipecat_bridge.audio.tap import interleaved
from pipecat_bridge.store.wave_file import WaveFile

MOST_WAITING: Final = 1 << 26
"""Bytes of audio that wait for a disk that is slow: three minutes of ten calls at 16 kHz. What
comes then is not recorded."""


GATHER: Final = 0.1
"""Seconds for which audio is gathered before it is written. To wake the thread for each second of
each call, and to write it alone, takes twice the processor time."""


class Recording:
    """The recording of one call. `add` and `close` cost a microsecond, and never fail.

    `fault`: why no more is recorded, or "". `done` is called in the recorder's thread when the file
    is closed.
    """

    def __init__(
        self, recorder: Recorder, path: Path, rate: int, done: Callable[[Recording], None]
    ) -> None:
        self.path = path
        self.rate = rate
        self.fault = ""
        self._recorder = recorder
        self._done = done
        self._file: WaveFile | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes of audio in the file."""
        return self._file.size if self._file is not None else 0

    def add(self, caller: bytes, phone: bytes) -> None:
        """Record both sides of some time: mono PCM16 of the same length, in whole samples."""
        if not self._closed and not self.fault:
            self._recorder.put(self, caller, phone)

    def close(self) -> None:
        """The recording is over. Further calls do nothing."""
        if not self._closed:
            self._closed = True
            self._recorder.put_end(self)

    # In the thread

    def write(self, caller: bytes, phone: bytes) -> None:
        """Write to the file, which is made for the first audio."""
        if self.fault:
            return
        try:
            if self._file is None:
                self._file = WaveFile(self.path, self.rate)
            self._file.append(interleaved(caller, phone))
        except OSError as error:
            self.fault = str(error)

    def end(self) -> None:
        """Close the file."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError as error:  # a network disk tells here that it is full
            self.fault = self.fault or str(error)
        finally:
            self._done(self)


_Told = tuple[Recording, bytes, bytes] | Recording
"""Audio for a recording, or the end of one."""


class Recorder:
    """The thread that writes all recordings. `waiting`: bytes of audio that are not written yet."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most = most
        self._told: SimpleQueue[_Told | None] = SimpleQueue()
        self._put = 0  # bytes, counted by the loop
        self._written = 0  # bytes, counted by the thread
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    @property
    def waiting(self) -> int:
        """Bytes of audio that are not written yet."""
        return self._put - self._written

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def begin(self, path: Path, rate: int, done: Callable[[Recording], None]) -> Recording:
        """A recording into a new file, at `rate` samples per second."""
        return Recording(self, path, rate, done)

    def put(self, recording: Recording, caller: bytes, phone: bytes) -> None:
        """Write audio soon; end the recording if the disk is much too slow."""
        size = len(caller) + len(phone)
        if self.waiting + size > self._most:
            recording.fault = f"the disk is too slow: {self.waiting} bytes wait for it"
            return
        self._put += size
        self._told.put((recording, caller, phone))

    def put_end(self, recording: Recording) -> None:
        """Close the file of a recording soon."""
        self._told.put(recording)

    def stop(self, seconds: float) -> bool:
        """Write what waits, within so many seconds. Blocks. False: that was not enough."""
        self._told.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (told := self._told.get()) is not None:
            time.sleep(GATHER)
            while told is not None:
                self._guarded(told)
                try:
                    told = self._told.get_nowait()
                except Empty:
                    break
            else:
                return

    def _guarded(self, told: _Told) -> None:
        """A fault of ours costs one recording: the thread goes on."""
        try:
            self._do(told)
        except Exception as error:  # noqa: BLE001 - see above
            recording = told if isinstance(told, Recording) else told[0]
            recording.fault = f"{type(error).__name__}: {error}"

    def _do(self, told: _Told) -> None:
        if isinstance(told, Recording):
            told.end()
        else:
            recording, caller, phone = told
            recording.write(caller, phone)
            self._written += len(caller) + len(phone)
