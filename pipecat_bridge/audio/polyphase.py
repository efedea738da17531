"""The arithmetic of the FIR resampler in NumPy: blocks of samples times a matrix of filter taps.

With the rates in the ratio `up` / `down`, output n is the sum over j of
`taps[phase + j * up] * input[i - j]`, where `i, phase = divmod(n * down, up)`. The pattern repeats
every `down` inputs and `up` outputs, one period. A block of some periods is therefore the product
of a row of inputs and a fixed matrix. The row also has the earlier inputs that the filter needs. A
chunk of audio is a few such rows. When a period is long, the matrix would be mostly zeros: its
outputs are then split into segments, each with a narrower matrix.

The products are exact (`filters.exact`). Each output is the same to the bit, however the stream was
cut and on any processor.

One `Polyphase` serves all streams of a ratio, one after the other: it is not safe for threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from pipecat_bridge.audio.filters import exact, low_pass
from pipecat_bridge.audio.pcm import SAMPLE, Pcm

_Doubles = npt.NDArray[np.float64]
_Samples = npt.NDArray[np.int16]

# Most multiply-adds of one product. The limit keeps the scratch memory within the processor's
# cache, and the product below the size (2**18) from which OpenBLAS wakes up other threads.
_LARGEST_PRODUCT = 2**17

# Outputs of a block or a segment: fewer cost more calls, more cost more products with zero.
_BLOCK_OUTPUTS = 16

# Layouts kept for each ratio. A stream needs one for every length of chunk that comes up.
_LAYOUTS = 64

_HIGHEST, _LOWEST = 32767.0, -32768.0


class Layout:
    """Views into the shared scratch memory, for chunks of one length that begin at one phase."""

    __slots__ = (
        "_after", "_before", "_chunk", "_high", "_low", "_matrix", "_output", "_product",
        "_rounded", "_rows", "_sums", "_sums_out", "_windows", "next_phase",
    )  # fmt: skip

    def __init__(self, shared: Polyphase, phase: int, count: int) -> None:
        up, down, history = shared.up, shared.down, shared.history
        rows = -(-(phase + count) // shared.block)
        first, end = -(-phase * up // down), -(-(phase + count) * up // down)
        scratch = shared.samples.data.cast("B")
        self._before = scratch[: 2 * history]
        self._chunk = scratch[2 * history : 2 * (history + count)]
        self._after = scratch[2 * count : 2 * (history + count)]
        self._windows, self._rows = shared.windows(phase, rows)
        self._matrix, self._product = shared.matrix, shared.product
        self._sums, self._sums_out = shared.sums(rows)
        self._high, self._low = shared.high[: self._sums.size], shared.low[: self._sums.size]
        self._rounded = shared.rounded[: self._sums.size]
        self._output = self._rounded[first:end]
        self.next_phase = (phase + count) % down

    def run(self, history: memoryview, pcm: Pcm) -> bytes:
        """Resample one chunk. `history` has the samples before it, and is updated."""
        self._before[:] = history
        self._chunk[:] = pcm
        history[:] = self._after
        self._rows[...] = self._windows
        self._product(self._rows, self._matrix, out=self._sums_out)
        sums = self._sums
        np.rint(sums, out=sums)
        np.minimum(sums, self._high, out=sums)
        np.maximum(sums, self._low, out=sums)
        self._rounded[...] = sums
        return self._output.tobytes()


class Polyphase:
    """Filter matrix and scratch memory of one ratio, shared by all of its streams.

    `up` / `down` is the ratio in lowest terms, output to input; `delay` is the filter's delay in
    input samples; `history` is how many past samples a stream keeps; `longest` is the largest
    number of samples that `layout` takes.
    """

    def __init__(self, up: int, down: int) -> None:
        taps = exact(low_pass(up, down))
        self.up, self.down = up, down
        self.delay = (len(taps) - 1) / 2 / up
        self._reach = -(-len(taps) // up) - 1  # past inputs that one output depends on
        self.history = self._reach + down - 1  # as a period is always computed from its start
        self._shape_block()
        matrix = self._fill_matrix(taps)
        self._shape = matrix.shape
        one = self._segments == 1
        self.matrix = matrix[0] if one else matrix
        # dot has less overhead than matmul, and matmul alone takes a stack of matrices.
        self.product: Callable[..., Any] = np.dot if one else np.matmul
        most = max(2, _LARGEST_PRODUCT // matrix.size)
        self.longest = most * self.block - (down - 1)
        self._allocate(most)
        self.layout = lru_cache(maxsize=_LAYOUTS)(self._layout)

    def _layout(self, phase: int, count: int) -> Layout:
        return Layout(self, phase, count)

    def _shape_block(self) -> None:
        up, down = self.up, self.down
        if up < 2 * _BLOCK_OUTPUTS:
            periods, self._segments = 1, 1
            while periods * up < _BLOCK_OUTPUTS:
                periods *= 2
        else:
            enough = (n for n in range(_BLOCK_OUTPUTS, up + 1) if up % n == 0)
            periods, self._segments = 1, up // next(enough)
        self.block = periods * down
        self._outputs = periods * up // self._segments  # of one segment
        # Inputs from one segment to the next, rounded down so that the rows are evenly spaced.
        self._step = self._outputs * down // up

    def _fill_matrix(self, taps: _Doubles) -> _Doubles:
        """Return the taps in place, of shape (segments, inputs of a row, outputs of a segment)."""
        output = np.arange(self._segments * self._outputs).reshape(self._segments, -1)
        newest, phase = np.divmod(output * self.down, self.up)
        newest += self._reach - self._step * np.arange(self._segments)[:, np.newaxis]
        matrix = np.zeros((self._segments, int(newest.max()) + 1, self._outputs))
        for segment, column in np.ndindex(output.shape):
            ours = taps[phase[segment, column] :: self.up]
            end = newest[segment, column] + 1
            matrix[segment, end - len(ours) : end, column] = ours[::-1]
        return matrix

    def _allocate(self, rows: int) -> None:
        segments, width, outputs = self._shape
        size = rows * segments * outputs
        # The last row of the last segment may look a little beyond what a chunk can fill.
        self.samples: _Samples = np.zeros(
            self.down + width + rows * self.block + segments * self._step, SAMPLE
        )
        self._rows = np.empty(segments * rows * width)
        self._sums = np.empty(size)
        self.rounded: _Samples = np.empty(size, SAMPLE)
        # Whole arrays, since NumPy takes twice as long with a single number as the bound.
        self.high, self.low = np.full(size, _HIGHEST), np.full(size, _LOWEST)

    def windows(self, phase: int, rows: int) -> tuple[_Samples, _Doubles]:
        """Return the overlapping rows of samples, and the memory that takes them as doubles."""
        segments, width, _ = self._shape
        shape, (item,) = (segments, rows, width), self.samples.strides
        start = self.samples[self.down - 1 - phase :]
        strides = (item * self._step, item * self.block, item)
        overlapping = as_strided(start, shape, strides, writeable=False)
        copy = self._rows[: segments * rows * width].reshape(shape)
        return (overlapping, copy) if segments > 1 else (overlapping[0], copy[0])

    def sums(self, rows: int) -> tuple[_Doubles, _Doubles]:
        """Return the memory of the results: flat in order of output, and as `product` fills it."""
        segments, _, outputs = self._shape
        flat = self._sums[: rows * segments * outputs]
        if segments == 1:
            return flat, flat.reshape(rows, outputs)
        return flat, flat.reshape(rows, segments, outputs).transpose(1, 0, 2)
