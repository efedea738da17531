"""What is kept of calls and who is told: the store, recordings, webhooks, a file of events."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pipecat_bridge.audio.hold import HoldMusic, read_wav
from pipecat_bridge.call.recording import Plan
from pipecat_bridge.events.events import CallEvent, Events
from pipecat_bridge.events.record import RecordingChange, RecordingPart
from pipecat_bridge.options import Options, S3Options
from pipecat_bridge.sinks.lines import EventLines
from pipecat_bridge.sinks.webhooks import Webhooks, kinds_of
from pipecat_bridge.store.bucket import Bucket
from pipecat_bridge.store.engine import StoreError
from pipecat_bridge.store.entries import RecordingEntry
from pipecat_bridge.store.recordings import Finished, Place, Recordings, Remote
from pipecat_bridge.store.s3 import Access
from pipecat_bridge.store.scribe import Snapshot
from pipecat_bridge.store.state import state_directory
from pipecat_bridge.store.store import MAIN, Store, open_store

FOLDER: Final = "recordings"

NoteRecording = Callable[[str, float, RecordingChange], None]
"""Told the id of a call, when it was created, and what has happened to its recording."""


def _nobody(call_id: str, created_at: float, change: RecordingChange) -> None:
    """Nobody is told."""


class Records:
    """All of it for one process. `store`, `recordings`, `webhooks` and `event_lines` are None if
    the configuration wants none.

    `plan`: how calls are recorded. `on_recording` is told about recordings that are complete or
    deleted.
    """

    on_recording: NoteRecording = staticmethod(_nobody)

    def __init__(
        self,
        reactor: Any,
        options: Options,
        environment: Mapping[str, str],
        node: str,
        events: Events,
        snapshot: Snapshot,
        part: str = "",
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`part`: the name of this process among those of one daemon. Raises StoreError with a
        sentence if something cannot be used."""
        self.node = node
        self._bucket = options.s3.bucket
        self._events = events
        self._wall_clock = wall_clock
        hooks = kinds_of(options.webhooks)
        self.store: Store | None = open_store(
            reactor, options.store, environment, hooks, events, snapshot, part
        )
        self.webhooks: Webhooks | None = None
        if self.store is not None and options.webhooks.hooks:
            self.webhooks = Webhooks(reactor, options.webhooks, self.store, wall_clock)
        self.event_lines: EventLines | None = None
        if path := options.store.events_file:
            self.event_lines = EventLines(reactor, Path(path), events)
        self.recordings: Recordings | None = None
        self.plan: Plan | None = None
        folder = state_directory(options.store.directory, environment) / FOLDER
        # Old ones are found and deleted, though nothing is recorded any more.
        if options.recording.when != "off" or os.path.exists(folder):
            self.recordings = self._open_recordings(reactor, options, folder, part)
        if options.recording.when != "off" and self.recordings is not None:
            always = options.recording.when == "always"
            announcement = announcement_of(options.recording.announce)
            self.plan = Plan(always, announcement, self.recordings.begin)

    def _open_recordings(
        self, reactor: Any, options: Options, folder: Path, part: str
    ) -> Recordings:
        own = options.recording
        remote: Remote | None = None
        if options.s3.bucket:
            bucket, signer = (bucket_of(options.s3) for _ in range(2))
            remote = Remote(bucket, signer, options.s3.prefix, self._sent)
        try:
            return Recordings(
                reactor,
                folder,
                part or MAIN,
                own.format,
                _shorter(own.keep, options.store.keep_records),
                own.max_bytes,
                self._finished,
                self._gone,
                remote,
                self._wall_clock,
            )
        except OSError as error:
            raise StoreError(
                f"{folder}: {error.strerror}: expected a folder that can be written"
            ) from None

    @property
    def services(self) -> Iterator[Any]:
        """All services, in the order in which they start."""
        for service in (self.event_lines, self.store, self.webhooks, self.recordings):
            if service is not None:
                yield service

    def reopen(self) -> None:
        """Open files again that another program may have moved away."""
        if self.event_lines is not None:
            self.event_lines.reopen()

    def _finished(self, finished: Finished) -> None:
        """A recording is complete."""
        place, data = finished
        part = RecordingPart(
            state="ready",
            seconds=data.seconds,
            format=data.format,
            bytes=data.bytes,
            fault=data.fault,
        )
        self._note(place, part)
        self._events.publish(CallEvent(place.call_id, self._wall_clock(), data))

    def _gone(self, place: Place) -> None:
        """A recording was deleted because of its age, or because there were too many."""
        self._note(place, RecordingPart(state="deleted", seconds=0.0))

    def _sent(self, place: Place, key: str) -> None:
        """A recording is in the bucket."""
        self._note(place, f"s3://{self._bucket}/{key}")

    def _note(self, place: Place, change: RecordingChange) -> None:
        self.on_recording(place.call_id, place.created_ms / 1000, change)
        if self.store is not None:
            self.store.put(RecordingEntry(place.call_id, place.created_ms, change))


def _shorter(keep: float, other: float) -> float:
    """The shorter of two times in days; 0 is for ever."""
    return min(keep or other, other or keep)


def bucket_of(options: S3Options) -> Bucket:
    """The bucket of `[s3]`."""
    return Bucket(
        Access(
            options.bucket,
            options.endpoint,
            options.region,
            options.access_key,
            options.secret_key,
        )
    )


def announcement_of(path: str) -> HoldMusic | None:
    """What a caller hears before the recording begins. Raises StoreError."""
    if not path:
        return None
    try:
        return read_wav(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"[recording] announce: {path}: {error}") from None


MakeRecords = Callable[[Events, Snapshot], Records | None]
"""Makes the records, from all events and the function that tells how a call is now."""


def without_records(events: Events, snapshot: Snapshot) -> None:
    """None: what happened is known as long as this process runs."""
