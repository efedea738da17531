"""G.711 against the tables of the Recommendation, for all octets and all samples."""

from __future__ import annotations

import struct

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio import g711
from tests.unit import signals

ALL_OCTETS = bytes(range(256))
ALL_SAMPLES = np.arange(-32768, 32768)

# Tables 1a and 2a, column 2 and 8: octet as sent, and its level in units of 13 and 14 bits.
ALAW_POSITIVE = {0xAA: 4032, 0xBA: 2016, 0x8A: 1008, 0x9A: 504, 0xEA: 252, 0xFA: 126, 0xD5: 1}
ULAW_POSITIVE = {
    0x80: 8031, 0x8F: 4191, 0x9F: 2079, 0xAF: 1023, 0xBF: 495, 0xCF: 231, 0xDF: 99, 0xEF: 33,
    0xFE: 2, 0xFF: 0,
}  # fmt: skip

IDLE = {"ulaw": 0xFF, "alaw": 0xD5}  # octets of silence (ITU-T G.711)


def level(codec: str, octet: int) -> int:
    return struct.unpack("<h", g711.decode(codec, bytes([octet])))[0]


def octet_of(codec: str, sample: int) -> int:
    return g711.encode(codec, struct.pack("<h", sample))[0]


def by_formula(codec: str, octet: int) -> int:
    """Return the level of an octet from its sign, segment and step, as the tables define them."""
    bits = octet ^ (0xFF if codec == "ulaw" else 0x55)
    segment, step = (bits >> 4) & 7, bits & 15
    if codec == "ulaw":
        magnitude = ((((step << 1) | 33) << segment) - 33) << 2
        return -magnitude if bits & 0x80 else magnitude
    magnitude = ((step << 1) + 1) << 3 if not segment else ((step << 1) + 33) << (segment + 2)
    return magnitude if bits & 0x80 else -magnitude


class DecodeTests(SynchronousTestCase):
    def test_every_octet_as_by_the_formula(self) -> None:
        for codec in g711.CODECS:
            expected = struct.pack("<256h", *(by_formula(codec, octet) for octet in ALL_OCTETS))
            self.assertEqual(g711.decode(codec, ALL_OCTETS), expected)

    def test_levels_of_the_tables(self) -> None:
        for octet, value in ALAW_POSITIVE.items():
            self.assertEqual(level("alaw", octet), value << 3)
            self.assertEqual(level("alaw", octet & 0x7F), -value << 3)
        for octet, value in ULAW_POSITIVE.items():
            self.assertEqual(level("ulaw", octet), value << 2)
            self.assertEqual(level("ulaw", octet & 0x7F), -value << 2)

    def test_idle_octets_are_the_smallest_positive_levels(self) -> None:
        self.assertEqual((level("ulaw", IDLE["ulaw"]), level("alaw", IDLE["alaw"])), (0, 8))
        for codec, octet in IDLE.items():
            self.assertEqual(g711.encode(codec, bytes(320)), bytes([octet]) * 160)


class EncodeTests(SynchronousTestCase):
    def test_every_level_finds_its_octet_again(self) -> None:
        for codec in g711.CODECS:
            found = g711.encode(codec, g711.decode(codec, ALL_OCTETS))
            # Mu-law has two octets for zero; the positive one is sent.
            expected = ALL_OCTETS.replace(b"\x7f", b"\xff") if codec == "ulaw" else ALL_OCTETS
            self.assertEqual(found, expected)

    def test_every_sample_becomes_the_nearest_level_of_its_sign(self) -> None:
        pcm = ALL_SAMPLES.astype("<i2").tobytes()
        for codec in g711.CODECS:
            octets = g711.encode(codec, pcm)
            got = np.frombuffer(g711.decode(codec, octets), "<i2").astype(int)
            levels = np.array([by_formula(codec, octet) for octet in ALL_OCTETS])
            nearest = np.min([np.abs(ALL_SAMPLES - one) for one in levels], axis=0)
            self.assertTrue((np.abs(got - ALL_SAMPLES) == nearest).all())
            signs = np.frombuffer(octets, np.uint8) & 0x80
            self.assertTrue(((signs != 0) == (ALL_SAMPLES >= 0)).all())

    def test_decision_values_go_outward(self) -> None:
        self.assertEqual(level("ulaw", octet_of("ulaw", 4)), 8)
        self.assertEqual(level("ulaw", octet_of("ulaw", -4)), -8)
        self.assertEqual(level("alaw", octet_of("alaw", 16)), 24)

    def test_sound_of_a_companded_tone(self) -> None:
        """G.712 asks for 33 dB between -30 and 0 dBm0."""
        for codec, dbfs in ((codec, dbfs) for codec in g711.CODECS for dbfs in (-30, -20, -10, -3)):
            pcm = signals.tone(1010, 8000, 1, dbfs)
            heard = signals.to_signal(g711.decode(codec, g711.encode(codec, pcm)))
            self.assertGreater(signals.sinad(heard, 1010, 8000), 33)

    def test_an_odd_number_of_bytes_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "321 .* 320 or 322"):
            g711.encode("ulaw", bytes(321))

    def test_an_unknown_codec_is_refused(self) -> None:
        for call in (g711.encode, g711.decode):
            with self.assertRaisesRegex(ValueError, "'g729'.*'ulaw' or 'alaw'"):
                call("g729", b"")

    def test_views_are_as_good_as_bytes(self) -> None:
        for view in (bytearray, memoryview):
            pcm = g711.decode("alaw", view(ALL_OCTETS))
            self.assertEqual(g711.encode("alaw", view(pcm)), ALL_OCTETS)
