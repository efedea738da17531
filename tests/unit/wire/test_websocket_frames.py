"""Binary messages out of a client's WebSocket stream, at any split; all else untouched."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.wire.websocket import (
    BINARY,
    ClientMask,
    PlainFrames,
    mask,
    mask_in_python,
    pong,
    server_frame,
)
from pipecat_bridge.wire.websocket import (
    TEXT as TEXT_OPCODE,
)
from tests.hostile import plain

KEY = b"\x5a\x01\xff\x33"
LIMIT = 1 << 20


def frame(
    opcode: int, payload: bytes, fin: bool = True, masked: bool = True, rsv: int = 0
) -> bytes:
    """One frame as a client sends it, written out by RFC 6455, section 5.2."""
    return plain.frame(payload, opcode, (plain.FINAL if fin else 0) | rsv << 4, masked)


PING = frame(9, b"alive")
CLOSE = frame(8, b"\x03\xe8")
TEXT = frame(1, b"hello")
FIRST = frame(2, b"ab", fin=False)
MIDDLE = frame(0, b"cd", fin=False)
LAST = frame(0, b"ef")


def feed(frames: PlainFrames, *chunks: bytes) -> tuple[list[bytes], bytes]:
    """Messages, and the raw bytes of all else."""
    pieces = [piece for chunk in chunks for piece in frames.feed(chunk)]
    messages = [data for plain, data in pieces if plain]
    return messages, b"".join(data for plain, data in pieces if not plain)


class Splits(SynchronousTestCase):
    def test_messages_of_every_length_form(self) -> None:
        for size in (0, 1, 3, 4, 5, 125, 126, 127, 660, 65535, 65536, 70001):
            payload = bytes(i * 7 % 256 for i in range(size))
            with self.subTest(size=size):
                self.assertEqual(
                    feed(PlainFrames(LIMIT, True), frame(2, payload)), ([payload], b"")
                )

    def test_every_split_of_a_mixed_stream(self) -> None:
        one, two = bytes(range(130)), b"x" * 5
        others = PING + FIRST + PING + MIDDLE + LAST + TEXT + CLOSE
        stream = frame(2, one) + others + frame(2, two)
        for cut in range(len(stream) + 1):
            got = feed(PlainFrames(LIMIT, True), stream[:cut], stream[cut:])
            self.assertEqual(got, ([one, two], others), cut)

    def test_byte_by_byte(self) -> None:
        stream = frame(2, b"abc") + PING + frame(2, b"") + TEXT
        chunks = [stream[i : i + 1] for i in range(len(stream))]
        self.assertEqual(feed(PlainFrames(LIMIT, True), *chunks), ([b"abc", b""], PING + TEXT))

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.binary(max_size=300), max_size=6), st.lists(st.integers(0, 2000), max_size=5)
    )
    def test_any_messages_at_any_cuts(self, payloads: list[bytes], cuts: list[int]) -> None:
        stream = b"".join(frame(2, payload) + PING for payload in payloads)
        edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
        chunks = [stream[a:b] for a, b in pairwise(edges)]
        self.assertEqual(feed(PlainFrames(LIMIT, True), *chunks), (payloads, PING * len(payloads)))


class TextsInParts(SynchronousTestCase):
    """A part of a text does not wait for the rest, since it may have a byte that is not UTF-8."""

    def test_it_comes_out_at_once(self) -> None:
        for opcode in (BINARY, TEXT_OPCODE):
            frames = PlainFrames(LIMIT, True, opcode)
            first = frame(1, b"hello, world")[:8]
            self.assertEqual(frames.feed(first[:3]), [])
            self.assertEqual(frames.feed(first[3:]), [(False, first)])
            rest = frame(1, b"hello, world")[8:]
            self.assertEqual(frames.feed(b""), [])
            self.assertEqual(frames.feed(rest[:2]), [(False, rest[:2])])
            self.assertEqual(
                feed(frames, rest[2:] + frame(opcode, b"plain")), ([b"plain"], rest[2:])
            )

    def test_a_message_in_fragments(self) -> None:
        frames = PlainFrames(LIMIT, True)
        first, last = frame(1, b"hello", fin=False), frame(0, b"world")
        self.assertEqual(feed(frames, first[:7], first[7:] + PING), ([], first + PING))
        self.assertEqual(feed(frames, last[:9]), ([], last[:9]))
        self.assertEqual(feed(frames, last[9:] + frame(2, b"plain")), ([b"plain"], last[9:]))

    def test_nothing_is_lost_at_any_cut_and_in_any_slices(self) -> None:
        texts = [frame(1, text.encode()) for text in ("one", "zw\u00f6lf", "x" * 130, "")]
        stream = PING.join(texts) + FIRST + LAST + texts[0]
        for most in (1, 2, 100):
            for cut in range(len(stream) + 1):
                frames = PlainFrames(LIMIT, True, TEXT_OPCODE)
                out = b""
                for chunk in (stream[:cut], stream[cut:]):
                    pieces = frames.feed(chunk, most)
                    while frames.more:
                        pieces += frames.feed(b"", most)
                    out += b"".join(frame(1, data) if plain else data for plain, data in pieces)
                self.assertEqual(out, stream, (most, cut))


class LeftToAutobahn(SynchronousTestCase):
    """What is not a plain message comes out as it went in."""

    def test_a_binary_frame_between_fragments(self) -> None:
        stray = frame(2, b"stray")
        self.assertEqual(feed(PlainFrames(LIMIT, True), FIRST + stray), ([], FIRST + stray))

    def test_a_message_after_fragments_is_plain_again(self) -> None:
        stream = FIRST + LAST + frame(2, b"plain")
        self.assertEqual(feed(PlainFrames(LIMIT, True), stream), ([b"plain"], FIRST + LAST))

    def test_unmasked_and_reserved_bits(self) -> None:
        for bad in (frame(2, b"ab", masked=False), frame(2, b"ab", rsv=4), frame(3, b"ab")):
            self.assertEqual(feed(PlainFrames(LIMIT, True), bad), ([], bad))

    def test_a_frame_beyond_the_limit_is_not_collected(self) -> None:
        head = frame(2, b"x" * 200)[:8]
        frames = PlainFrames(199, True)
        self.assertEqual(feed(frames, head), ([], head))
        self.assertEqual(feed(frames, b"abc", frame(2, b"y")), ([], b"abc" + frame(2, b"y")))

    def test_a_frame_at_the_limit_is_taken(self) -> None:
        self.assertEqual(feed(PlainFrames(200, True), frame(2, b"x" * 200)), ([b"x" * 200], b""))

    def test_an_absurd_length(self) -> None:
        head = b"\x82\xff" + b"\xff" * 8 + KEY
        self.assertEqual(feed(PlainFrames(LIMIT, True), head), ([], head))

    def test_from_a_header_that_breaks_the_protocol_on_nothing_is_collected(self) -> None:
        mask_bit = 0x80
        for name, head in {
            "reserved bit": bytes((0xC2, mask_bit | 100)),
            "reserved opcode": bytes((0x83, mask_bit | 100)),
            "reserved control opcode": bytes((0x8B, mask_bit | 5)),
            "not masked": bytes((0x82, 100)),
            "a ping of 126": bytes((0x89, mask_bit | 126)),
            "a ping in fragments": bytes((0x09, mask_bit | 5)),
            "a continuation of nothing": bytes((0x80, mask_bit | 5)),
            "125 in two bytes": bytes((0x82, mask_bit | 126, 0, 125)),
            "65535 in eight bytes": bytes((0x82, mask_bit | 127)) + (65535).to_bytes(8, "big"),
            "125 in two bytes, of the other kind": bytes((0x81, mask_bit | 126, 0, 125)),
        }.items():
            with self.subTest(name=name):
                frames = PlainFrames(LIMIT, True)
                self.assertEqual(feed(frames, frame(2, b"good"), head), ([b"good"], head))
                self.assertEqual(feed(frames, frame(2, b"x")), ([], frame(2, b"x")))

    def test_a_message_within_another(self) -> None:
        for inner in (frame(2, b"x"), frame(1, b"x", fin=False), frame(1, b"y" * 200)):
            frames = PlainFrames(LIMIT, True)
            self.assertEqual(feed(frames, FIRST, inner, LAST), ([], FIRST + inner + LAST))
            self.assertEqual(feed(frames, frame(2, b"x")), ([], frame(2, b"x")))

    def test_a_text_that_is_no_utf8(self) -> None:
        for bad in (
            b"\xff",
            b"\xed\xa0\x80",
            b"\xc0\xaf",
            b"\xf4\x90\x80\x80",
            b"a" * 200 + b"\xc3",
        ):
            frames = PlainFrames(LIMIT, True, TEXT_OPCODE)
            for good in ("good", "\u00e9" * 100):
                text = good.encode()
                self.assertEqual(feed(frames, frame(1, text)), ([text], b""))
            self.assertEqual(feed(frames, frame(1, bad)), ([], frame(1, bad)))
        self.assertEqual(feed(PlainFrames(LIMIT, True), frame(2, b"\xff")), ([b"\xff"], b""))


class Slices(SynchronousTestCase):
    def test_a_few_at_a_time(self) -> None:
        stream = (frame(2, b"one") + PING) * 50
        for extra in (b"", PING[:3]):
            frames = PlainFrames(LIMIT, True)
            pieces = frames.feed(stream + extra, 7)
            self.assertEqual((len(pieces), frames.more), (7, True))
            while frames.more:
                some = frames.feed(b"", 7)
                self.assertTrue(0 < len(some) <= 7)
                pieces += some
            self.assertEqual(len(pieces), 100)
            rest = frames.feed(PING[len(extra) :], 7)
            self.assertEqual([piece for _, piece in rest], [PING])

    def test_exactly_as_many_as_there_are(self) -> None:
        frames = PlainFrames(LIMIT, True)
        self.assertEqual(len(frames.feed(PING * 7, 7)), 7)
        self.assertFalse(frames.more)


class Pieces(SynchronousTestCase):
    def test_a_long_frame_in_many_pieces_is_copied_a_few_times(self) -> None:
        """Not once for each piece: the pieces are put together when all are there."""
        payload = bytes(1 << 18)
        stream = frame(2, payload)
        frames = PlainFrames(LIMIT, True)
        pieces = []
        for at in range(0, len(stream), 1000):
            pieces += frames.feed(stream[at : at + 1000])
            self.assertLessEqual(max(map(len, frames._pieces), default=0), 1008)
        self.assertEqual(pieces, [(True, payload)])


class Pongs(SynchronousTestCase):
    def test_the_payload_of_a_pong(self) -> None:
        for payload in (b"", b"flow\0\1\2", b"x" * 125):
            self.assertEqual(pong(frame(10, payload), True), payload)
            self.assertEqual(pong(frame(10, payload, masked=False), False), payload)

    def test_all_else_is_none(self) -> None:
        whole = frame(10, b"abc")
        for other in (PING, CLOSE, TEXT, frame(2, b"abc"), frame(10, b"x" * 126), whole[:-1], b""):
            self.assertIs(pong(other, True), None)
        for bad in (
            frame(10, b"abc", masked=False),
            frame(10, b"a", fin=False),
            frame(10, b"", rsv=4),
        ):
            self.assertIs(pong(bad, True), None)


class Masks(SynchronousTestCase):
    def test_every_length_as_the_rfc_has_it(self) -> None:
        for size in (*range(20), *range(1020, 1032), 4000, 65537):
            payload = bytes(i * 7 % 256 for i in range(size))
            expected = bytes(byte ^ KEY[i % 4] for i, byte in enumerate(payload))
            for one in {mask, mask_in_python}:
                self.assertEqual(one(payload, KEY), expected, (one, size))

    def test_frames_of_a_server(self) -> None:
        for size in (0, 125, 126, 660, 65535, 65536):
            payload = bytes(size)
            for opcode in (BINARY, 1, 9):
                expected = frame(opcode, payload, masked=False)
                self.assertEqual(server_frame(payload, opcode), expected, size)

    def test_frames_of_a_client_are_read_by_a_server(self) -> None:
        masks = ClientMask()
        for size in (0, 125, 126, 660, 65535, 65536):
            payload = bytes(i % 251 for i in range(size))
            frames = PlainFrames(LIMIT, True)
            self.assertEqual(feed(frames, masks.frame(payload)), ([payload], b""))

    def test_no_key_is_used_twice(self) -> None:
        masks = ClientMask()
        keys = {masks.frame(b"")[2:6] for _ in range(1000)}
        self.assertGreater(len(keys), 990)


class FromServers(SynchronousTestCase):
    """What a server sends is not masked."""

    def test_messages_at_every_split(self) -> None:
        one = frame(2, bytes(range(130)), masked=False)
        other = frame(9, b"alive", masked=False) + frame(1, b"hello", masked=False)
        stream = one + other + one
        for cut in range(len(stream) + 1):
            got = feed(PlainFrames(LIMIT, False), stream[:cut], stream[cut:])
            self.assertEqual(got, ([bytes(range(130))] * 2, other), cut)

    def test_masked_frames_are_left_to_autobahn(self) -> None:
        self.assertEqual(feed(PlainFrames(LIMIT, False), frame(2, b"ab")), ([], frame(2, b"ab")))

    def test_text_where_text_is_plain(self) -> None:
        binary = frame(2, b"ab", masked=False)
        stream = frame(1, b"{}", masked=False) + binary + frame(1, b"[]", masked=False)
        self.assertEqual(
            feed(PlainFrames(LIMIT, False, opcode=1), stream), ([b"{}", b"[]"], binary)
        )
