"""The compiled module: it refuses what does not go together, and can be missing."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any
from unittest import skipUnless
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge import native

compiled = skipUnless(native.COMPILED, "installed without a C compiler")
SIZES = st.one_of(st.integers(0, 70), st.sampled_from([1022, 2046, 2048, 5000]))
NUMBERS = st.one_of(st.integers(-2, 6), st.sampled_from([65536, 65537, 2**62, -(2**62)]))


@compiled
class ArgumentTests(SynchronousTestCase):
    fir: Callable[..., bytes]

    def setUp(self) -> None:
        assert native.fir is not None
        self.fir = native.fir

    def test_lengths_that_go_together(self) -> None:
        self.assertEqual(self.fir(bytearray(6), bytes(8), bytes(32), 1, 1, 0), bytes(8))

    def test_any_other_lengths_and_numbers_are_refused(self) -> None:
        good: dict[str, Any] = {
            "history": bytearray(6),
            "pcm": bytes(8),
            "taps": bytes(64),
            "up": 2,
            "down": 3,
            "phase": 2,
        }
        self.assertEqual(len(self.fir(*good.values())), 4)
        for bad in (
            {"history": bytearray(7)},
            {"history": bytearray(4)},
            {"history": bytearray(0)},
            {"history": bytearray(2 * 1027), "taps": bytes(2 * 8 * 1028)},
            {"pcm": bytes(7)},
            {"taps": bytes(63)},
            {"taps": bytes(72)},
            {"up": 0},
            {"up": 1},
            {"up": -2},
            {"down": 0},
            {"down": 65537},
            {"phase": 3},
            {"phase": -1},
        ):
            with self.subTest(bad=bad), self.assertRaises(ValueError):
                self.fir(*{**good, **bad}.values())

    def test_the_history_must_be_writable(self) -> None:
        with self.assertRaises((TypeError, BufferError)):
            self.fir(bytes(6), bytes(8), bytes(32), 1, 1, 0)

    @given(SIZES, SIZES, SIZES, NUMBERS, NUMBERS, NUMBERS)
    def test_nothing_reaches_beyond_a_buffer(
        self, history: int, pcm: int, taps: int, up: int, down: int, phase: int
    ) -> None:
        with_guards = bytearray(history + 2)
        view = memoryview(with_guards)[1:-1]
        try:
            out = self.fir(view, bytes(pcm), bytes(8 * taps), up, down, phase)
        except ValueError:
            return
        # Silence in, silence out, as many samples as the ratio says.
        samples = -(-(phase + pcm // 2) * up // down) - -(-phase * up // down)
        self.assertEqual(out, bytes(2 * samples))
        self.assertEqual(with_guards, bytes(history + 2))

    def test_a_mask_has_four_bytes(self) -> None:
        assert native.mask is not None
        for key in (b"", b"abc", b"abcde"):
            with self.assertRaises(ValueError):
                native.mask(b"payload", key)


class MissingTests(SynchronousTestCase):
    def test_without_it_there_are_only_the_twins(self) -> None:
        path = native.__file__
        assert path is not None
        spec = importlib.util.spec_from_file_location("without", path)
        assert spec is not None
        assert spec.loader is not None
        without = importlib.util.module_from_spec(spec)
        with patch.dict(sys.modules, {"pipecat_bridge._native": None}):
            spec.loader.exec_module(without)
        self.assertFalse(without.COMPILED)
        self.assertIsNone(without.fir)
        self.assertIsNone(without.mask)
