"""The folder in which the daemon keeps its files, and who may use it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from pipecat_bridge.store.engine import StoreError

NAME = "pipecat-bridge"


def state_directory(directory: str, environment: Mapping[str, str]) -> Path:
    """The folder for the option `[store] directory`.

    Without the option it is that of systemd (StateDirectory= of the unit), else the one of the XDG
    Base Directory Specification.
    """
    if directory:
        return Path(directory)
    if given := environment.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    home = environment.get("XDG_STATE_HOME")
    if home and os.path.isabs(home):  # the specification wants it so
        return Path(home) / NAME
    return Path(environment.get("HOME", "/")) / ".local" / "state" / NAME


def make_private(folder: Path, file: Path | None) -> None:
    """Make a folder, and an empty file in it, that no other user can read, if they are not there.
    Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file is not None:
        file.touch(mode=0o600)


class Lock:
    """Holds a folder for this process, as long as it lives."""

    def __init__(self, folder: Path) -> None:
        """Make the folder if it is not there. Raises StoreError if another process holds it, and
        OSError if it cannot be used."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "lock").open("wb")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise StoreError(
                f"{folder} is used by another daemon: expected another [store] directory"
            ) from None

    def release(self) -> None:
        """Let others have it."""
        self._file.close()
