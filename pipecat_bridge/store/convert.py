"""Compresses a recording, as a process of its own with the lowest priority.

    python -m pipecat_bridge.store.convert SOURCE TARGET FORMAT

The codecs take a processor for a second or two, and calls go on meanwhile.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

FORMATS: Final[dict[str, tuple[str, str, str]]] = {
    "opus": ("OGG", "OPUS", ".ogg"),
    "flac": ("FLAC", "PCM_16", ".flac"),
}
"""Name -> container and codec in libsndfile's words, and how the file's name ends."""

TYPES: Final = {".ogg": "audio/ogg", ".flac": "audio/flac", ".wav": "audio/wav"}
"""How the name of a recording ends -> its media type."""

BLOCK: Final = 1 << 16
"""Samples that are read at once."""


def convert(source: Path, target: Path, name: str) -> None:
    """Write `target` in a format of FORMATS. Raises OSError and soundfile's errors."""
    import soundfile

    container, codec, _ = FORMATS[name]
    with soundfile.SoundFile(source) as sound:
        shape: dict[str, Any] = {"samplerate": sound.samplerate, "channels": sound.channels}
        with soundfile.SoundFile(target, "w", format=container, subtype=codec, **shape) as written:
            for block in sound.blocks(BLOCK, dtype="int16"):
                written.write(block)


def main() -> None:
    """Convert what the command line says."""
    os.nice(19)
    source, target, name = sys.argv[1:]
    convert(Path(source), Path(target), name)


if __name__ == "__main__":
    main()
