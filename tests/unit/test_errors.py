"""Texts of peers in sentences."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.errors import (
    MAX_SAID,
    MAX_SENTENCE,
    FormatError,
    PeerBusyError,
    brief,
    printable,
)


class TextTests(SynchronousTestCase):
    def test_what_is_printable_stays(self) -> None:
        for text in ("", "fine", "gr\xfc\xdfe \N{SNOWMAN}"):
            self.assertEqual((printable(text), brief(text)), (text, text))

    def test_what_is_not_is_escaped(self) -> None:
        found = printable("a\n\x1b[2J\0\x85\u202e\ud800")
        self.assertEqual(found, r"a\n\x1b[2J\x00\x85\u202e\ud800")

    def test_of_a_long_text_the_beginning(self) -> None:
        self.assertEqual(brief("x" * MAX_SAID), "x" * MAX_SAID)
        self.assertEqual(brief("x" * (MAX_SAID + 1)), "x" * MAX_SAID + "..")

    def test_errors_are_on_one_line(self) -> None:
        self.assertEqual(str(FormatError("wrong\nlabel")), r"wrong\nlabel")
        self.assertEqual(len(str(FormatError("x" * 1_000_000))), MAX_SENTENCE + 2)
        self.assertEqual(str(PeerBusyError("a\x1b", 1.0).prefixed("b\n")), r"b\na\x1b")
