"""The cost of resampling: `python -m benchmarks.audio`.

Each row is for two rates and one length of chunk. Times are processor time, the best of several
repeats, because other work on the machine can only make them longer. Memory is the peak of one
call, with its result.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import statistics
import time
import timeit
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
import soxr
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from pipecat_bridge.audio import g711
from pipecat_bridge.audio.fir import NumpyFir
from pipecat_bridge.audio.polyphase import Polyphase
from pipecat_bridge.audio.resample import make_resampler

PATHS = (
    (8000, 16000, 20), (16000, 8000, 20), (16000, 8000, 40), (24000, 8000, 20), (24000, 8000, 40),
    (24000, 16000, 40), (8000, 24000, 20), (48000, 8000, 20), (22050, 8000, 20), (44100, 16000, 20),
)  # fmt: skip

Process = Callable[[bytes], bytes]


class Unpooled:
    """The filter and arithmetic of NumpyFir, but with new arrays for every step of a chunk.

    A chunk must be a whole number of blocks.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        common = np.gcd(rate_in, rate_out)
        self._shared = Polyphase(int(rate_out // common), int(rate_in // common))
        self._history = np.zeros(self._shared.history, np.int16)

    def process(self, pcm: bytes) -> bytes:
        shared = self._shared
        samples = np.concatenate([self._history, np.frombuffer(pcm, np.int16)])
        self._history = samples[-shared.history :].copy()
        width = shared.matrix.shape[-2]
        windows = sliding_window_view(samples[shared.down - 1 :], width)[:: shared.block]
        sums = windows.astype(np.float64) @ shared.matrix
        return np.clip(np.rint(sums), -32768, 32767).astype(np.int16).tobytes()


class Several:
    """The arithmetic of NumpyFir for the chunks of `streams` calls in one product. Each chunk
    has `count` samples. It shows what could be gained if calls waited for each other."""

    def __init__(self, up: int, down: int, count: int, streams: int) -> None:
        shared = Polyphase(up, down)
        self._count, self._history = count, shared.history
        self._matrix = shared.matrix
        width, outputs = shared.matrix.shape
        rows = count // shared.block
        self._samples = np.zeros((streams, shared.history + count), np.int16)
        line, item = self._samples.strides
        self._windows = as_strided(
            self._samples[:, shared.down - 1 :],
            (streams, rows, width),
            (line, item * shared.block, item),
        )
        self._rows = np.empty((streams * rows, width))
        self._copy = self._rows.reshape(streams, rows, width)
        self._sums = np.empty((streams * rows, outputs))
        self._high, self._low = np.full_like(self._sums, 32767), np.full_like(self._sums, -32768)
        self._rounded = np.empty(self._sums.shape, np.int16)
        self._each = list(self._rounded.reshape(streams, -1))
        self._chunks = [row.data.cast("B")[2 * self._history :] for row in self._samples]

    def process(self, chunks: list[bytes]) -> list[bytes]:
        self._samples[:, : self._history] = self._samples[:, self._count :]
        for place, chunk in zip(self._chunks, chunks, strict=True):
            place[:] = chunk
        self._copy[...] = self._windows
        sums = self._sums
        np.dot(self._rows, self._matrix, out=sums)
        np.rint(sums, out=sums)
        np.minimum(sums, self._high, out=sums)
        np.maximum(sums, self._low, out=sums)
        self._rounded[...] = sums
        return [one.tobytes() for one in self._each]


def soxr_stream(rate_in: int, rate_out: int) -> Process:
    return make_resampler(rate_in, rate_out, "soxr").process


def soxr_one_shot(rate_in: int, rate_out: int) -> Process:
    def process(pcm: bytes) -> bytes:
        samples = np.frombuffer(pcm, np.int16)
        return bytes(soxr.resample(samples, rate_in, rate_out, "HQ").data)

    return process


def unpooled(rate_in: int, rate_out: int, count: int) -> Process | None:
    resampler = Unpooled(rate_in, rate_out)
    shared = resampler._shared
    if shared.matrix.ndim > 2 or count % shared.block:
        return None
    process = resampler.process
    pcm = np.random.default_rng(1).integers(-9000, 9000, count).astype(np.int16).tobytes()
    fir = make_resampler(rate_in, rate_out)
    assert [process(pcm), process(pcm)] == [fir.process(pcm), fir.process(pcm)]
    return process


def microseconds(process: Process, pcm: bytes) -> float:
    """Return the best processor time of one call."""
    count, call = 500, partial(process, pcm)
    call()
    return min(timeit.repeat(call, timer=time.process_time, number=count, repeat=40)) / count * 1e6


def peak_bytes(process: Process, pcm: bytes) -> float:
    peaks = []
    tracemalloc.start()
    for _ in range(50):
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        process(pcm)
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    return statistics.median(peaks)


def resampling() -> None:
    print("us a chunk; bytes at the peak of one call, of which `result` is what it returns\n")
    print("| path | chunk | delay | fir | in NumPy | without pool | soxr stream | soxr one-shot "
          "| bytes: fir | without pool | result |")  # fmt: skip
    print("|---" * 11 + "|")
    noise = np.random.default_rng(1)
    for rate_in, rate_out, milliseconds in PATHS:
        count = rate_in * milliseconds // 1000
        pcm = noise.integers(-9000, 9000, count).astype(np.int16).tobytes()
        fir = make_resampler(rate_in, rate_out)
        plain = NumpyFir(rate_in, rate_out)
        naive = unpooled(rate_in, rate_out, count)
        result = len(fir.process(pcm))
        cells = [
            f"{rate_in} -> {rate_out}",
            f"{milliseconds} ms",
            f"{fir.delay * 1000:.2f} ms",
            f"{microseconds(fir.process, pcm):.1f}",
            f"{microseconds(plain.process, pcm):.1f}",
            f"{microseconds(naive, pcm):.1f}" if naive else "",
            f"{microseconds(soxr_stream(rate_in, rate_out), pcm):.1f}",
            f"{microseconds(soxr_one_shot(rate_in, rate_out), pcm):.1f}",
            f"{peak_bytes(fir.process, pcm):.0f}",
            f"{peak_bytes(naive, pcm):.0f}" if naive else "",
            f"{result}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


def several() -> None:
    random = np.random.default_rng(1)
    print("\n| 20 ms of several calls in one product, us a call | 8 -> 16 kHz | 16 -> 8 kHz |")
    print("|---|---|---|")
    for streams in (1, 2, 3, 5, 10):
        cells = []
        for up, down, count in ((2, 1, 160), (1, 2, 320)):
            chunks = [
                random.integers(-9000, 9000, count).astype(np.int16).tobytes()
                for _ in range(streams)
            ]
            process = Several(up, down, count, streams).process
            alone = [make_resampler(8000 * down, 8000 * up) for _ in range(streams)]
            for _ in range(2):
                assert process(chunks) == [
                    one.process(chunk) for one, chunk in zip(alone, chunks, strict=True)
                ]
            best = min(timeit.repeat(partial(process, chunks), number=500, repeat=20)) / 500
            cells.append(f"{best / streams * 1e6:.2f}")
        print(f"| {streams} | " + " | ".join(cells) + " |", flush=True)


def companding() -> None:
    print("\n| G.711, 20 ms | us |\n|---|---|")
    for codec in g711.CODECS:
        for name, convert, data in (
            ("decode", g711.decode, bytes(range(160))),
            ("encode", g711.encode, bytes(320)),
        ):
            print(f"| {codec} {name} | {microseconds(partial(convert, codec), data):.1f} |")


if __name__ == "__main__":
    resampling()
    several()
    companding()
