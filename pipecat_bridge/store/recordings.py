"""All recordings of a daemon: their folder, their thread, and what becomes of them at their end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO, Final, Literal, NamedTuple, TypeVar

from msgspec import UNSET
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from pipecat_bridge.events.kinds import RecordingReady
from pipecat_bridge.store.bucket import Bucket, BucketError
from pipecat_bridge.store.convert import FORMATS, TYPES
from pipecat_bridge.store.recorder import Recorder, Recording
from pipecat_bridge.store.uploads import STORED, Uploads, remove_stored
from pipecat_bridge.store.wave_file import HEADER_BYTES, finish

Format = Literal["opus", "flac", "wav"]

STOP: Final = 5.0
"""Seconds at the end to write what waits. What is not compressed then is after the next start."""

DAY: Final = 86_400.0

T = TypeVar("T")

PRIVATE: Final = 0o600
PRIVATE_FOLDER: Final = 0o700
"""The modes of a recording and of their folder: nobody else may read them."""

READERS: Final = 4
"""Threads that read recordings."""

RUNNING: Final = "running"
"""The folder of recordings that are not complete."""

SENDING: Final = "sending"
"""The folder of recordings that are not in the bucket yet."""

LOOK: Final = 3600.0
"""Seconds at most from one look for what is too old to the next."""

SPARE: Final = 100.0
"""A look is not followed by another one for so many times what it took: there may be many files."""

NOTHING: Final = "nothing was recorded"
"""The fault of a recording without audio."""

KINDS: Final = (*TYPES, STORED)
"""How the names of files end that are recordings, or tell where one is."""

_NAME: Final = re.compile(r"([0-9a-f-]{36})\.(\d+)")
_WAV: Final = ".wav"
_PART: Final = ".part"


class Place(NamedTuple):
    """Whose recording it is: the id of the call, and when it was created, in milliseconds since the
    epoch."""

    call_id: str
    created_ms: int

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return f"{self.call_id}.{self.created_ms}"


def place_of(call_id: str, created_at: float) -> Place:
    """The place of a call's recording."""
    return Place(call_id, round(created_at * 1000))


class Finished(NamedTuple):
    """A recording that is complete."""

    place: Place
    data: RecordingReady


class Remote(NamedTuple):
    """Where recordings go when they are complete. `signer`: the same bucket, for URLs. `prefix`: of
    their keys. `sent` is called in the loop with each that is there, and its key."""

    bucket: Bucket
    signer: Bucket  # another process: the first one may wait for the network
    prefix: str
    sent: Callable[[Place, str], None]


class Stored(NamedTuple):
    """A recording that is in the bucket."""

    key: str


class OpenFile(NamedTuple):
    """A recording on this disk, opened. `suffix`: how its name ends. `size`: its bytes."""

    file: BinaryIO
    suffix: str
    size: int


class _Deletion(NamedTuple):
    """All recordings of some calls are to be deleted, those that were created before a time."""

    call_ids: frozenset[str]
    before_ms: int


class Recordings(Service):
    """Writes recordings into `folder`, and compresses them to `kind` one after the other. Those
    that are not complete are in a folder of their own, of the process with the name `part`.

    `finished` is called in the loop with each that is complete, also those that an earlier process
    has left. They are deleted after `keep` days, and the oldest ones when all have more than `most`
    bytes on this disk; 0: never. `gone` is called with each of those. `remote`: a bucket into which
    they go, or None.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        folder: Path,
        part: str,
        kind: Format,
        keep: float,
        most: int,
        finished: Callable[[Finished], None],
        gone: Callable[[Place], None],
        remote: Remote | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises OSError if the folder cannot be used."""
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        self.uploads: Uploads | None = None
        self._remote = remote
        if remote is not None:
            self.uploads = Uploads(
                folder / SENDING / part,
                folder,
                remote.bucket,
                remote.prefix,
                self._sent,
                self._bucket_told,
            )
        self._running = folder / RUNNING / part
        self._running.mkdir(parents=True, exist_ok=True)
        self._reactor = reactor
        self._folder = folder
        self._kind: Format = kind
        self._keep = keep
        self._most = most
        self._finished = finished
        self._gone = gone
        self._wall_clock = wall_clock
        self._sending = folder / SENDING / part
        self._recorder = Recorder()
        self._faults: dict[Path, str] = {}
        self._told: SimpleQueue[Path | _Deletion | None] = SimpleQueue()
        self._deletions: list[_Deletion] = []  # that are not done yet
        # Not the reactor's: that one resolves the names of runners, and a disk may hang.
        self._pool = ThreadPool(0, READERS, name="recordings are read")
        self._thread = threading.Thread(target=self._finish_all, name="recordings", daemon=True)

    def startService(self) -> None:
        super().startService()
        self._log.info("recordings are kept in {folder}", folder=self._folder)
        for part in self._running.glob(f"*{_PART}"):
            part.unlink(missing_ok=True)
        for left in sorted(self._running.glob(f"*{_WAV}")):
            self._told.put(left)
        self._pool.start()
        self._recorder.start()
        self._thread.start()
        if self.uploads is not None:
            self.uploads.start()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, self._stop)

    def _stop(self) -> None:
        self._recorder.stop(STOP)
        self._told.put(None)
        self._thread.join(STOP)
        if self.uploads is not None:
            self.uploads.stop(STOP)
        if self._remote is not None:
            self._remote.signer.close()
        self._pool.stop()

    def begin(self, call_id: str, created_at: float, rate: int) -> Recording:
        """The recording of a call, at `rate` samples per second."""
        path = self._running / f"{place_of(call_id, created_at).stem}{_WAV}"
        return self._recorder.begin(path, rate, self._closed)

    def in_thread(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call a function that may have to wait for a disk."""
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)

    def delete(self, call_ids: Iterable[str]) -> None:
        """Delete all recordings of calls, soon. Those that are not complete yet never will be."""
        deletion = _Deletion(frozenset(call_ids), round(self._wall_clock() * 1000))
        self._deletions.append(deletion)
        self._told.put(deletion)

    # In any thread

    def open(self, call_id: str, created_at: float) -> OpenFile | Stored | None:
        """A call's recording, complete or not; None if there is none. Raises OSError."""
        path = self.find(call_id, created_at)
        if path is None:
            return None
        if path.suffix == STORED:
            return Stored(path.read_text())
        file = path.open("rb")
        return OpenFile(file, path.suffix, os.fstat(file.fileno()).st_size)

    def find(self, call_id: str, created_at: float) -> Path | None:
        """The file of a call's recording, or the one that tells where it is; None if there is
        none."""
        stem = place_of(call_id, created_at).stem
        for folder in self._folders():
            for kind in KINDS:
                path = folder / f"{stem}{kind}"
                if path.exists():
                    return path
        return None

    def url(self, stored: Stored, seconds: int) -> str:
        """A URL for GET of a recording that is in the bucket, good for so many seconds. Raises
        BucketError."""
        if self._remote is None:
            raise BucketError("expected [s3] bucket: that is where this recording is")
        return self._remote.signer.url(stored.key, seconds)

    def _folders(self) -> Iterator[Path]:
        """The folders with recordings of all processes: what is complete comes first, be it here or
        in the bucket."""
        yield self._folder
        for name in (SENDING, RUNNING):
            yield from (self._folder / name).glob("*")

    def _remove(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            if path.suffix == STORED:
                remove_stored(path, self._sending)
                if self.uploads is not None:
                    self.uploads.look()
            else:
                path.unlink()

    # In the loop

    def _told_sent(self, place: Place, key: str) -> None:
        if self._remote is not None:
            self._remote.sent(place, key)

    # In the threads

    def _closed(self, recording: Recording) -> None:
        if recording.fault:
            self._faults[recording.path] = recording.fault
        self._told.put(recording.path)

    def _finish_all(self) -> None:
        changed, earliest = True, 0.0
        while True:
            pause = max(0.0, earliest - time.monotonic()) if changed else LOOK
            try:
                told = self._told.get(timeout=pause)
            except Empty:
                began = time.monotonic()
                self._guarded("what is too old cannot be deleted", self._expire)
                ended = time.monotonic()
                changed, earliest = False, ended + SPARE * (ended - began)
                continue
            if told is None:
                return
            if isinstance(told, _Deletion):
                self._guarded("recordings cannot be deleted", self._delete, told)
            else:
                self._guarded(f"the recording {told.name} cannot be finished", self._finish, told)
            changed = True

    def _guarded(self, text: str, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function. If it fails, this is logged: the next one may be good."""
        try:
            function(*arguments)
        except Exception:  # noqa: BLE001 - see above
            self._reactor.callFromThread(self._log.failure, "{text}", Failure(), text=text)

    def _finish(self, path: Path) -> None:
        place = _place(path)
        if place is None:
            return
        fault = self._faults.pop(path, "")
        if self._is_deleted(place):
            path.unlink(missing_ok=True)
            return
        if not path.exists() or path.stat().st_size <= HEADER_BYTES:
            path.unlink(missing_ok=True)
            nothing = RecordingReady(0.0, 0, "wav", fault=fault or NOTHING)
            self._reactor.callFromThread(self._finished, Finished(place, nothing))
            return
        seconds = finish(path)
        if self._kind == "wav":
            path = path.replace(self._folder / path.name)
        else:
            source, (path, failed) = path, self._compressed(path)
            fault = fault or failed
            if source.exists() and source != path:
                source.unlink()
        if self._is_deleted(place):
            path.unlink(missing_ok=True)
            return
        kind: Any = next((k for k, (_, _, end) in FORMATS.items() if path.suffix == end), "wav")
        data = RecordingReady(round(seconds, 2), path.stat().st_size, kind, fault=fault or UNSET)
        self._reactor.callFromThread(self._finished, Finished(place, data))
        if self.uploads is not None:
            self.uploads.add(path)

    def _is_deleted(self, place: Place) -> bool:
        return any(
            place.call_id in each.call_ids and place.created_ms <= each.before_ms
            for each in list(self._deletions)
        )

    def _delete(self, deletion: _Deletion) -> None:
        # Against the way of recordings, so that none is missed that is being moved.
        for folder in reversed(list(self._folders())):
            for name in os.listdir(folder):
                place = _place(Path(name))
                if place is None or Path(name).suffix not in KINDS:
                    continue
                if place.call_id in deletion.call_ids and place.created_ms <= deletion.before_ms:
                    self._remove(folder / name)
        self._deletions.remove(deletion)

    def _compressed(self, path: Path) -> tuple[Path, str]:
        """The file in its last format, and why it is still the old one, or ""."""
        target = self._folder / path.with_suffix(FORMATS[self._kind][2]).name
        part = path.with_suffix(_PART)
        command = [sys.executable, "-m", "pipecat_bridge.store.convert"]
        ran = subprocess.run(
            [*command, str(path), str(part), self._kind],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if ran.returncode:
            part.unlink(missing_ok=True)
            last = ran.stderr.strip().splitlines()[-1:] or ["no reason was told"]
            return path.replace(self._folder / path.name), f"not compressed: {last[0]}"
        part.chmod(PRIVATE)
        part.replace(target)
        return target, ""

    def _expire(self) -> None:
        """Delete what is too old, and the oldest ones of what is too much on this disk."""
        files = sorted(self._complete())
        total = sum(size for _, size, _ in files)
        now = self._wall_clock()
        for changed, size, path in files:
            too_old = self._keep and now - changed > self._keep * DAY
            too_much = self._most and total > self._most and path.suffix != STORED
            if too_old or too_much:
                self._remove(path)
                total -= size
                if place := _place(path):
                    self._reactor.callFromThread(self._gone, place)

    def _complete(self) -> Iterator[tuple[float, int, Path]]:
        """When each file was changed, and its bytes: those that are complete, or tell where it is
        now."""
        for path in (*self._folder.iterdir(), *self._folder.glob(f"{SENDING}/*/*")):
            if path.suffix in KINDS:
                with suppress(FileNotFoundError):  # it may just be deleted, or sent
                    status = path.stat()
                    yield status.st_mtime, status.st_size, path

    def _sent(self, stem: str, key: str) -> None:
        if place := _place(Path(stem)):
            self._reactor.callFromThread(self._told_sent, place, key)

    def _bucket_told(self, fault: str) -> None:
        text = "recordings wait for the bucket: {fault}" if fault else "recordings are stored again"
        log = self._log.warn if fault else self._log.info
        self._reactor.callFromThread(log, text, fault=fault)


def _place(path: Path) -> Place | None:
    """Whose recording a file is; None if it is none."""
    found = _NAME.match(path.name)
    return Place(found[1], int(found[2])) if found is not None else None
