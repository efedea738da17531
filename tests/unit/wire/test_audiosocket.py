"""AudioSocket framing: every kind, every split, everything that is not AudioSocket."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.wire.audiosocket import (
    AUDIO_KINDS,
    AUDIO_RATES,
    HANGUP,
    AudioSocketMessage,
    DecodeError,
    Decoder,
    Kind,
    audio_header,
    encode,
)

# The table of the protocol, written out again: a wrong number in the module must not check itself.
RATES = {
    0x10: 8000,
    0x11: 12000,
    0x12: 16000,
    0x13: 24000,
    0x14: 32000,
    0x15: 44100,
    0x16: 48000,
    0x17: 96000,
    0x18: 192000,
}
HALF_A_SECOND = {kind: min(rate, 65534) for kind, rate in RATES.items()}
EVERY_KIND = [
    AudioSocketMessage(0x01, bytes(range(16))),
    AudioSocketMessage(0x03, b"#"),
    AudioSocketMessage(0x00, b""),
    AudioSocketMessage(0xFF, b"\x01"),
    *(AudioSocketMessage(kind, bytes(range(1, 43))) for kind in RATES),
]


def raw(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">BH", kind, len(payload)) + payload


def messages() -> st.SearchStrategy[AudioSocketMessage]:
    audio = st.builds(AudioSocketMessage, st.sampled_from(sorted(RATES)), st.binary(max_size=700))
    return st.one_of(audio, st.sampled_from(EVERY_KIND))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(places)]


class EncodeTests(SynchronousTestCase):
    def test_known_bytes(self) -> None:
        self.assertEqual(HANGUP, bytes.fromhex("000000"))
        self.assertEqual(encode(Kind.HANGUP), HANGUP)
        self.assertEqual(encode(Kind.DTMF, b"5"), bytes.fromhex("03000135"))
        self.assertEqual(encode(0x10, bytes(320))[:4], bytes.fromhex("10014000"))
        self.assertEqual(encode(0x12, bytes(640))[:3], bytes.fromhex("120280"))

    def test_audio_header_is_that_of_encode(self) -> None:
        for kind, rate in RATES.items():
            for size in (2, 255, 256, 320, 65535):
                with self.subTest(rate=rate, size=size):
                    self.assertEqual(audio_header(rate, size), struct.pack(">BH", kind, size))

    def test_tables(self) -> None:
        self.assertEqual(AUDIO_RATES, RATES)
        self.assertEqual(AUDIO_KINDS, {rate: kind for kind, rate in RATES.items()})

    def test_payload_that_the_length_cannot_say(self) -> None:
        self.assertEqual(len(encode(0x18, bytes(65535))), 65538)
        with self.assertRaisesRegex(ValueError, "65536 bytes .*0x18, at most 65535"):
            encode(0x18, bytes(65536))


class DecodeTests(SynchronousTestCase):
    def test_every_kind_whole_with_and_without_trailing_bytes(self) -> None:
        for message in EVERY_KIND:
            data = raw(*message)
            for trailing in (b"", b"\x10", b"\x10\x01", b"\x10\x01\x40\x00"):
                with self.subTest(message=message, trailing=trailing):
                    self.assertEqual(Decoder().feed(data + trailing), [message])

    def test_every_kind_at_every_split(self) -> None:
        for message in EVERY_KIND:
            data = raw(*message)
            for cut in range(len(data)):
                with self.subTest(message=message, cut=cut):
                    decoder = Decoder()
                    self.assertEqual(decoder.feed(data[:cut]), [])
                    self.assertEqual(decoder.feed(data[cut:]), [message])

    def test_byte_by_byte(self) -> None:
        decoder = Decoder()
        stream = b"".join(raw(*message) for message in EVERY_KIND)
        got = [message for byte in stream for message in decoder.feed(bytes((byte,)))]
        self.assertEqual(got, EVERY_KIND)

    def test_all_in_one_read(self) -> None:
        stream = b"".join(raw(*message) for message in EVERY_KIND)
        self.assertEqual(Decoder().feed(stream), EVERY_KIND)

    def test_trailing_bytes_are_kept_for_the_next_read(self) -> None:
        decoder = Decoder()
        first, second = raw(0x10, b"ab"), raw(0x10, b"cdef")
        self.assertEqual(decoder.feed(first + second[:5]), [AudioSocketMessage(0x10, b"ab")])
        self.assertEqual(decoder.feed(b""), [])
        self.assertEqual(decoder.feed(second[5:]), [AudioSocketMessage(0x10, b"cdef")])

    def test_what_only_looks_like_the_message_before_is_no_message(self) -> None:
        same = raw(0x10, b"abcd")
        audio = AudioSocketMessage(0x10, b"abcd")
        unknown = struct.pack(">BH", 0x77, 7)
        for begun, rest in (
            (raw(0x10, same)[:3], [AudioSocketMessage(0x10, same)]),
            (raw(0x10, same + same)[:10], [AudioSocketMessage(0x10, same + same)]),
            (unknown, []),
        ):
            with self.subTest(begun=begun):
                decoder = Decoder()
                self.assertEqual([decoder.feed(same), decoder.feed(same)], [[audio], [audio]])
                self.assertEqual(decoder.feed(begun), [])
                self.assertEqual(decoder.feed(same), rest)
                self.assertEqual([decoder.feed(same), decoder.feed(b"")], [[audio], []])

    def test_odd_and_empty_audio_passes(self) -> None:
        for size in (0, 1, 3, 321):
            with self.subTest(size=size):
                payload = bytes(size)
                self.assertEqual(
                    Decoder().feed(raw(0x10, payload)), [AudioSocketMessage(0x10, payload)]
                )

    def test_longest_audio_of_each_kind(self) -> None:
        for kind, size in HALF_A_SECOND.items():
            with self.subTest(kind=kind):
                self.assertEqual(len(Decoder().feed(raw(kind, bytes(size)))), 1)
                with self.assertRaisesRegex(DecodeError, f"length of {size + 1}, .*up to {size}$"):
                    Decoder().feed(struct.pack(">BH", kind, size + 1))

    @given(st.lists(messages(), max_size=12), st.lists(st.integers(0, 10_000), max_size=12))
    @settings(max_examples=200, deadline=None)
    def test_round_trip_at_any_splits(
        self, sent: list[AudioSocketMessage], cuts: list[int]
    ) -> None:
        stream = b"".join(encode(kind, payload) for kind, payload in sent)
        decoder = Decoder()
        got = [message for piece in pieces(stream, cuts) for message in decoder.feed(piece)]
        self.assertEqual(got, sent)

    @given(st.lists(st.binary(max_size=40), max_size=10), st.booleans())
    @settings(max_examples=300, deadline=None)
    def test_any_bytes_mean_the_same_whole_and_byte_by_byte(
        self, chunks: list[bytes], uuid_first: bool
    ) -> None:
        stream = b"".join(chunks)
        whole = everything(uuid_first, [stream])
        self.assertEqual(everything(uuid_first, chunks), whole)
        self.assertEqual(everything(uuid_first, [bytes((byte,)) for byte in stream]), whole)


def everything(uuid_first: bool, chunks: list[bytes]) -> tuple[list[AudioSocketMessage], str, int]:
    """The messages of a stream, its fault, and how many messages were skipped."""
    decoder, got = Decoder(uuid_first), []
    try:
        for chunk in chunks:
            got += decoder.feed(chunk)
    except DecodeError as error:
        return got + error.messages, str(error), decoder.skipped
    return got, "", decoder.skipped


KNOWN = {0x00, 0x01, 0x03, 0xFF, *RATES}


def unwanted() -> st.SearchStrategy[tuple[int, int]]:
    """Kind and length of a message that is skipped."""
    kinds = st.sampled_from(sorted(set(range(256)) - KNOWN))
    sizes = st.one_of(st.integers(0, 400), st.sampled_from([65534, 65535]))
    wrong = st.tuples(st.just(0x03), sizes.filter(lambda size: size != 1))
    return st.one_of(st.tuples(kinds, sizes), wrong, st.tuples(st.just(0x01), sizes))


class SkipTests(SynchronousTestCase):
    """Unknown messages are skipped by their length."""

    UUID = AudioSocketMessage(0x01, bytes(range(16)))

    @given(
        st.lists(st.one_of(unwanted(), messages().filter(lambda m: m.kind != 0x01)), max_size=8),
        st.lists(st.integers(0, 300_000), max_size=12),
    )
    @settings(max_examples=150, deadline=None)
    def test_at_any_splits(self, sent: list[Any], cuts: list[int]) -> None:
        wanted = [self.UUID, *(each for each in sent if isinstance(each, AudioSocketMessage))]
        rest = [
            each if isinstance(each, AudioSocketMessage) else (each[0], bytes(each[1]))
            for each in sent
        ]
        stream = b"".join(raw(kind, payload) for kind, payload in [self.UUID, *rest])
        decoder = Decoder(uuid_first=True)
        got = [message for piece in pieces(stream, cuts) for message in decoder.feed(piece)]
        self.assertEqual(got, wanted)
        self.assertEqual(decoder.skipped, len(sent) + 1 - len(wanted))

    def test_every_unknown_kind(self) -> None:
        for kind in set(range(256)) - KNOWN:
            for size in (0, 1, 16, 320, 65535):
                decoder = Decoder()
                after = AudioSocketMessage(0x10, b"ab")
                self.assertEqual(decoder.feed(raw(kind, bytes(size)) + raw(*after)), [after])
                self.assertEqual((decoder.skipped, decoder.last_skipped), (1, (kind, size)))

    def test_every_wrong_length_of_the_kinds_that_are_not_audio(self) -> None:
        for kind, right in ((0x01, 16), (0x03, 1)):
            for size in [*range(40), 320, 65535]:
                decoder = Decoder()
                got = decoder.feed(raw(kind, bytes(size)))
                self.assertEqual((len(got), decoder.skipped), (1, 0) if size == right else (0, 1))

    def test_nothing_is_kept_of_the_longest_one_byte_by_byte(self) -> None:
        decoder, stream = Decoder(), raw(0x55, bytes(65535))
        decoder.feed(stream[:3])
        for byte in range(3, len(stream)):
            decoder.feed(stream[byte : byte + 1])
            self.assertEqual(decoder._buffer, b"")
        self.assertEqual(decoder.feed(raw(0x03, b"5")), [AudioSocketMessage(0x03, b"5")])
        self.assertEqual(decoder.skipped, 1)

    def test_a_hangup_is_one_whatever_its_length_and_at_once(self) -> None:
        for size in (0, 1, 65535):
            self.assertEqual(
                Decoder().feed(struct.pack(">BH", 0x00, size)), [AudioSocketMessage(0x00, b"")]
            )

    def test_of_an_error_the_code_is_kept(self) -> None:
        for payload in (b"", b"\4", b"\4abc", b"\4" + bytes(65534)):
            decoder = Decoder()
            got = decoder.feed(raw(0xFF, payload) + raw(0x03, b"1"))
            self.assertEqual(
                got, [AudioSocketMessage(0xFF, payload[:1]), AudioSocketMessage(0x03, b"1")]
            )


class FirstMessageTests(SynchronousTestCase):
    """With `uuid_first` a stream begins with the UUID and has no other."""

    def test_anything_else_is_a_fault(self) -> None:
        for kind in set(range(1, 256)) - {0x01}:
            with self.assertRaisesRegex(DecodeError, f"^0x{kind:02x} where the call's UUID"):
                Decoder(uuid_first=True).feed(struct.pack(">BH", kind, 1))

    def test_so_is_a_uuid_of_another_length(self) -> None:
        for size in {*range(40), 65535} - {16}:
            with self.assertRaisesRegex(DecodeError, f"0x01 with a length of {size}, expected 16"):
                Decoder(uuid_first=True).feed(struct.pack(">BH", 0x01, size))

    def test_a_hangup_is_none(self) -> None:
        self.assertEqual(Decoder(uuid_first=True).feed(HANGUP), [AudioSocketMessage(0x00, b"")])

    def test_a_second_uuid_is_skipped(self) -> None:
        decoder = Decoder(uuid_first=True)
        uuid = AudioSocketMessage(0x01, bytes(range(16)))
        self.assertEqual(decoder.feed(raw(*uuid) * 3), [uuid])
        self.assertEqual((decoder.skipped, decoder.last_skipped), (2, (0x01, 16)))

    def test_other_protocols_on_this_port(self) -> None:
        tls = bytes.fromhex("16030100f5010000f10303")
        for data in (b"GET / HTTP/1.1\r\n", b"OPTIONS sip:a SIP/2.0", b"PROXY TCP4 ", tls):
            with self.subTest(data=data), self.assertRaises(DecodeError):
                Decoder(uuid_first=True).feed(data)


class FaultTests(SynchronousTestCase):
    """After audio that is too long, the stream is not used any more."""

    TOO_LONG = b"\x10\x1f\x41"

    def test_refused_as_soon_as_the_header_is_there(self) -> None:
        decoder = Decoder()
        self.assertEqual(decoder.feed(self.TOO_LONG[:1]), [])
        self.assertEqual(decoder.feed(self.TOO_LONG[1:2]), [])
        with self.assertRaises(DecodeError):
            decoder.feed(self.TOO_LONG[2:])

    def test_what_came_before_the_fault_is_not_lost(self) -> None:
        good = [AudioSocketMessage(0x10, b"ab"), AudioSocketMessage(0x03, b"1")]
        stream = b"".join(raw(*message) for message in good) + self.TOO_LONG
        with self.assertRaises(DecodeError) as caught:
            Decoder().feed(stream)
        self.assertEqual(caught.exception.messages, good)

    def test_nothing_is_decoded_after_a_fault(self) -> None:
        decoder = Decoder()
        self.assertEqual(len(decoder.feed(raw(0x10, b"ab"))), 1)
        for data in (self.TOO_LONG + raw(0x10, b"ab"), raw(0x10, b"ab")):
            with self.assertRaises(DecodeError):
                decoder.feed(data)


class SliceTests(SynchronousTestCase):
    def test_a_few_at_a_time_and_no_byte_is_lost(self) -> None:
        stream = raw(0x01, bytes(16)) + (raw(0x03, b"1") + raw(0x42, b"skipped")) * 40
        for extra in range(4):
            decoder = Decoder(uuid_first=True)
            got = decoder.feed(stream + raw(0x10, b"ab")[:extra], 7)
            turns = 1
            while decoder.more:
                got += decoder.feed(b"", 7)
                turns += 1
            got += decoder.feed(raw(0x10, b"ab")[extra:], 7)
            self.assertEqual(len(got), 42)
            self.assertEqual(decoder.skipped, 40)
            self.assertEqual(turns, 12)  # what is skipped counts as well
            self.assertEqual(got[-1], (0x10, b"ab"))

    def test_exactly_as_many_as_there_are(self) -> None:
        decoder = Decoder()
        self.assertEqual(len(decoder.feed(raw(0x03, b"1") * 7, 7)), 7)
        self.assertFalse(decoder.more)

    def test_a_fault_behind_a_slice_comes_in_its_turn(self) -> None:
        decoder = Decoder()
        self.assertEqual(len(decoder.feed(raw(0x03, b"1") * 7 + b"\x10\xff\xff", 7)), 7)
        self.assertTrue(decoder.more)
        with self.assertRaises(DecodeError):
            decoder.feed(b"", 7)
