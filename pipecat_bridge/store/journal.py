"""A journal on disk: entries are appended, read in order, and dropped once they are somewhere else.

All that happens to calls goes through it on its way to the database. So what happens while the
database is away waits here, and so does what a process had told when it was killed.

An entry is a line: its CRC-32 in hexadecimal, a space, and JSON without line breaks. A line that
is cut off, or whose CRC is wrong, ends its segment: the process was killed, or the disk was full.

A journal has a random identity, by which the database knows it. It is in a file of its folder, with
the number of starts: each process that appends takes numbers of its own, far above those of all
others before. So no number is ever used twice, even if the last entries are lost in a power cut.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from io import BufferedReader, FileIO
from itertools import zip_longest
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4
from zlib import crc32

from msgspec import Struct

SEGMENT: Final = 1 << 22
"""Bytes of a file of the journal, roughly. A file is deleted when all its entries are dropped."""

IDENTITY: Final = "identity"
"""The file with the identity, a space, and how often a process has taken numbers."""

_SUFFIX: Final = ".journal"
_CRC: Final = 9  # characters, with the space
_START: Final = 36  # bits of the numbers of one start
_KNOWN: Final = re.compile(r"([0-9a-f]{32}) ([0-9]{1,8})\n")


class Entry(NamedTuple):
    """`number`: of the entry, from 1, never used twice. `body`: JSON."""

    number: int
    body: bytes


class _File(NamedTuple):
    """A file of the journal. `first`: the number of its first entry."""

    path: Path
    first: int

    def entries(self) -> Iterator[Entry]:
        """The entries up to the first line that is not whole."""
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, self.first):
                body = line[_CRC:-1]
                if line != _line(body):
                    return
                yield Entry(number, body)


class _Segment(Struct):
    """What is known of a file of the journal. `count`: its entries. `size`: its bytes."""

    path: Path
    first: int
    count: int = 0
    size: int = 0

    @property
    def last(self) -> int:
        """The number of its last entry."""
        return self.first + self.count - 1


def start_of(number: int) -> int:
    """The start of whose numbers this one is."""
    return number >> _START


def before_start(start: int) -> int:
    """The number before the first one of a start."""
    return start << _START


def _line(body: bytes) -> bytes:
    return b"%08x %b\n" % (crc32(body), body)


def _files(folder: Path) -> list[_File]:
    paths = sorted(folder.glob(f"*{_SUFFIX}"))
    return [_File(path, int(path.stem)) for path in paths if path.stem.isdecimal()]


def _segments(folder: Path) -> list[_Segment]:
    """All files. Only the last one of each start is read: the others are as long as the name of the
    next one says."""
    files = _files(folder)
    segments = []
    for file, following in zip_longest(files, files[1:]):
        if following is not None and start_of(following.first) == start_of(file.first):
            count = following.first - file.first
        else:
            count = sum(1 for _ in file.entries())
        segments.append(_Segment(file.path, file.first, count, file.path.stat().st_size))
    return segments


def _known(folder: Path) -> tuple[str, int]:
    """The identity in a folder, and how many starts it had; a new one if there is none."""
    try:
        found = _KNOWN.fullmatch((folder / IDENTITY).read_text())
    except (FileNotFoundError, UnicodeDecodeError):
        found = None
    return (found[1], int(found[2])) if found is not None else (uuid4().hex, 0)


def _write(path: Path, text: str) -> None:
    """Write a file, as a whole or not at all, and force it to the disk."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class FullError(OSError):
    """The journal has as many bytes as it may have."""


class Journal:
    """The journal in `folder`, of at most `most` bytes. It belongs to one process and one thread.

    What is appended survives the end of the process at any moment. It is not forced to the disk, so
    the end of the machine may cost the last seconds.

    `identity`: never that of another journal. `start`: how many starts there were before this one.
    `last`: the number of the entry that was appended last; 0 if there is none.
    """

    def __init__(self, folder: Path, most: int, segment: int = SEGMENT) -> None:
        """Raises OSError if `folder` cannot be made or read."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._most = most
        self._longest = segment
        self._file: FileIO | None = None
        self._segments = _segments(folder)
        self._bytes = sum(each.size for each in self._segments)
        self.last = max((each.last for each in self._segments if each.count), default=0)
        self.identity, starts = _known(folder)
        if self._segments:  # the identity may be lost, and they not
            starts = max(starts, start_of(self._segments[-1].first) + 1)
        self.start = self._starts = starts
        self._next = 0  # until there are numbers for this process

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._bytes

    def count_after(self, number: int) -> int:
        """How many entries have a greater number. For any thread."""
        return sum(max(0, each.last - max(number, each.first - 1)) for each in list(self._segments))

    def append(self, bodies: list[bytes]) -> None:
        """Append entries, all or none. Raises FullError, or OSError if the disk is full."""
        lines = b"".join(map(_line, bodies))
        if self._bytes + len(lines) > self._most:
            raise FullError(f"{self._folder} is full, the limit is {self._most} bytes")
        file = self._open()
        start = file.tell()
        try:
            view = memoryview(lines)
            while view:
                view = view[file.write(view) :]
        except OSError:
            self._cut(start)
            raise
        self._bytes += len(lines)
        self._next += len(bodies)
        self.last = self._next - 1
        self._segments[-1].size += len(lines)
        self._segments[-1].count += len(bodies)

    def _open(self) -> FileIO:
        """The file to append to. Somebody may have deleted it, or the folder."""
        if self._file is not None:
            if not os.fstat(self._file.fileno()).st_nlink:
                self._next = 0
            elif self._file.tell() < self._longest:
                return self._file
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._next or not (self._folder / IDENTITY).exists():
            self._take_numbers()
        path = self._folder / f"{self._next:020}{_SUFFIX}"
        self._file = FileIO(path, "wb")
        if self._segments and self._segments[-1].first == self._next:  # it has no whole entry
            self._segments.pop()
        self._segments.append(_Segment(path, self._next))
        return self._file

    def _take_numbers(self) -> None:
        """Begin with numbers that no process has used."""
        _write(self._folder / IDENTITY, f"{self.identity} {self._starts + 1}\n")
        self._next = before_start(self._starts) + 1
        self._starts += 1

    def _cut(self, size: int) -> None:
        """Take back half an entry. If even that fails, the next entry begins a new file."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            os.ftruncate(file.fileno(), size)
            file.seek(size)
            self._file = file
        except OSError:
            file.close()

    def drop(self, upto: int, forget: bool = False) -> None:
        """Delete the files whose entries all have numbers up to `upto`. The last file is kept while
        it is short, unless what is in it is to be forgotten: then it is deleted now, or when `upto`
        has reached its end. Raises OSError."""
        if forget or (upto >= self.last and self._bytes > self._longest // 4):
            self.close()
        while self._segments and self._segments[0].last <= upto:
            segment = self._segments[0]
            if segment.first == self._next or (len(self._segments) == 1 and self._file):
                break
            segment.path.unlink(missing_ok=True)
            self._bytes -= segment.size
            del self._segments[0]

    def close(self) -> None:
        """Close the file. The next entry begins a new one."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _nobody(count: int) -> None:
    """Nobody is told."""


class Tail:
    """Reads the entries of a journal as they come, those with a number above `after`.

    `number`: of the last entry that was read. `lost` is called with the number of entries that
    should be there and are not. It may be used by another thread than the journal is.
    """

    def __init__(self, folder: Path, after: int, lost: Callable[[int], None] = _nobody) -> None:
        self._folder = folder
        self._file: BufferedReader | None = None
        self._path = folder
        self._next = after + 1  # the number of the next entry in the file
        self._lost = lost
        self.number = after

    def read(self, most: int, upto: int = sys.maxsize) -> list[Entry]:
        """The next entries, at most `most`, and up to the number `upto`; [] if there are none yet.
        Raises OSError."""
        entries: list[Entry] = []
        while len(entries) < most:
            entry = self._entry(upto)
            if entry is None:
                following = self._following(upto)
                if following is None:
                    break
                entry = self._entry(upto)  # it was appended before the next file was begun
                if entry is None:
                    self._go_on(following)
                    continue
            if entry.number > self.number:
                entries.append(entry)
                self.number = entry.number
        return entries

    def _entry(self, upto: int) -> Entry | None:
        """The next whole entry of the file."""
        if self._file is None or self._next > upto:
            return None
        start = self._file.tell()
        line = self._file.readline()
        body = line[_CRC:-1]
        if line != _line(body):
            self._file.seek(0, os.SEEK_END)  # forget what is read ahead: it may be taken back
            self._file.seek(start)
            return None
        self._next += 1
        return Entry(self._next - 1, body)

    def _following(self, upto: int) -> _File | None:
        """The file after this one."""
        files = [each for each in _files(self._folder) if each.first <= upto]
        if self._file is None:  # the last file that begins at or before the next entry
            found = [each for each in files if each.first <= self._next][-1:] or files[:1]
        else:
            found = [each for each in files if each.first >= self._next and each.path != self._path]
        return found[0] if found else None

    def _go_on(self, file: _File) -> None:
        opened = file.path.open("rb")
        self.close()
        expected = max(self._next, self.number + 1)
        missing = file.first - expected
        if missing > 0 and self.number and start_of(file.first) == start_of(expected):
            self._lost(missing)
        self._file = opened
        self._path, self._next = file

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
