"""The loops that are compiled, if the package was installed where there is a C compiler.

Each has a twin in Python with the same results: `audio.polyphase` and `wire.websocket`. With these
a call costs a quarter less (docs/lab-notes.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

fir: Callable[[bytearray, bytes | bytearray | memoryview, bytes, int, int, int], bytes] | None
"""fir(history, pcm, taps, up, down, phase): the output that `pcm` adds to a resampled stream.

PCM16 in and out. `history` has the samples before `pcm`, and is updated. `taps` are doubles: for
each of the `up` phases of the output those of the oldest sample first, one more than `history` has
samples. Their number is a multiple of 4, up to 1024. `phase`: samples since the last beginning of a
period of `down`. Raises ValueError if the lengths do not go together."""

mask: Callable[[bytes, bytes], bytes] | None
"""mask(payload, key): the payload, masked or unmasked with a key of four bytes."""

MISSING = ""
"""Why they are missing, if they are."""

try:
    from pipecat_bridge._native import fir, mask
except ImportError as error:
    fir = mask = None
    MISSING = str(error)

COMPILED: Final = fir is not None
