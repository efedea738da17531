"""The inputs from which the fuzzer starts, and those with which it has found something."""

from __future__ import annotations

from importlib import import_module

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz import websocket
from tests.fuzz.__main__ import TARGETS
from tests.fuzz.harness import LONGEST_INPUT, no_faults
from tests.fuzz.mutations import mutations
from tests.hostile import plain

_OPCODES = st.sampled_from([0x0, 0x1, 0x2, 0x3, 0x8, 0x9, 0xA, 0xB])
_PAYLOADS = st.one_of(
    st.binary(max_size=140),
    st.text(max_size=80).map(str.encode),
    st.integers(120, 3100).map(bytes),
)
_FRAMES = st.builds(
    plain.frame,
    _PAYLOADS,
    _OPCODES,
    st.sampled_from([0x80, 0x80, 0x80, 0x80, 0, 0, 0x40, 0xC0]),
    st.sampled_from([True, True, True, False]),
)


class Inputs(SynchronousTestCase):
    def test_of_all_targets(self) -> None:
        for name in TARGETS:
            target = import_module(f"tests.fuzz.{name}")
            for number, seed in enumerate(target.SEEDS):
                with self.subTest(target=name, seed=number), no_faults():
                    target.one_input(seed)

    def test_mutations_are_changed_inputs_of_the_corpus(self) -> None:
        corpus = [b"", b"x" * 40, bytes(LONGEST_INPUT)]
        mutation = mutations(corpus, 1)
        made = {mutation() for _ in range(500)}
        self.assertGreater(len(made), 400)
        self.assertLessEqual(max(map(len, made)), LONGEST_INPUT)
        again = mutations(corpus, 1)
        self.assertEqual({again() for _ in range(500)}, made)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(_FRAMES, max_size=8).map(b"".join),
        st.binary(min_size=2, max_size=2),
    )
    def test_the_shortcut_past_autobahn_is_not_noticed(self, stream: bytes, how: bytes) -> None:
        with no_faults():
            websocket.one_input(how + stream)
