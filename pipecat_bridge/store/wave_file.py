"""A recording on disk while it grows: a WAV file that can be played whatever ended the process.

The length in its header is that of all that could come. Players then play up to the end of the
file. When the recording is over, the header gets the real length.
"""

from __future__ import annotations

import os
import struct
from io import FileIO
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("<4sI4s4sIHHIIHH4sI")
HEADER_BYTES: Final = _HEADER.size
LONGEST: Final = 0xFFFFFFFF - 36 & ~3
"""Most bytes of audio in a WAV file: 37 hours of stereo at 8 kHz."""

CHANNELS: Final = 2
_PCM: Final = 1
_SAMPLE_BYTES: Final = 2


def header(rate: int, size: int) -> bytes:
    """The header of a stereo file of PCM16 with `size` bytes of audio."""
    block = CHANNELS * _SAMPLE_BYTES
    return _HEADER.pack(
        b"RIFF",
        size + 36,
        b"WAVE",
        b"fmt ",
        16,
        _PCM,
        CHANNELS,
        rate,
        rate * block,
        block,
        8 * _SAMPLE_BYTES,
        b"data",
        size,
    )


def _private(path: str, flags: int) -> int:
    """Open a file that nobody else may read."""
    return os.open(path, flags, 0o600)


class WaveFile:
    """A stereo file that grows. All methods may block, and raise OSError if the disk is full."""

    def __init__(self, path: Path, rate: int) -> None:
        self.path = path
        self._file = FileIO(path, "xb", opener=_private)
        self.size = 0
        """Bytes of audio in it."""
        self._write(header(rate, LONGEST))

    def append(self, audio: bytes) -> None:
        """Append stereo PCM16, all or none of it."""
        self._write(audio)
        self.size += len(audio)

    def _write(self, data: bytes) -> None:
        start = self._file.tell()
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            self._file.truncate(start)
            self._file.seek(start)
            raise

    def close(self) -> None:
        """Close the file. `finish` makes it a usual WAV file."""
        self._file.close()


def finish(path: Path) -> float:
    """Give a file its real length, whatever process wrote it. Returns its seconds of audio.

    Raises OSError, and ValueError if it is none of `WaveFile`'s.
    """
    with path.open("r+b") as file:
        start = file.read(HEADER_BYTES)
        if len(start) < HEADER_BYTES or start[:4] != b"RIFF" or start[36:40] != b"data":
            raise ValueError(f"{path.name} is no recording")
        rate = int.from_bytes(start[24:28], "little")
        size = (os.fstat(file.fileno()).st_size - HEADER_BYTES) // 4 * 4
        file.truncate(HEADER_BYTES + size)
        file.seek(0)
        file.write(header(rate, size))
    return size / (rate * CHANNELS * _SAMPLE_BYTES)
