"""Raw samples: channels, headers in front of them, samples cut in two."""

from __future__ import annotations

import io
import random
import struct
import wave

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.pcm import SampleCarry, Wave, mix_down, silence, strip_riff
from tests.unit import signals

AUDIO = signals.noise(320, 7)


def samples(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}h", *values)


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body


def fmt(rate: int = 24000, channels: int = 1) -> bytes:
    return chunk(b"fmt ", struct.pack("<HHIIHH", 1, channels, rate, rate * 2, 2, 16))


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    return chunk(b"RIFF", b"WAVE" + b"".join(chunks), size)


def written_by_python(rate: int, channels: int) -> bytes:
    """Return a WAV file as Pipecat's transports send it: they use the same module of Python."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setframerate(rate)
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.writeframes(AUDIO)
    return file.getvalue()


class MixDownTests(SynchronousTestCase):
    def test_average_of_the_channels(self) -> None:
        self.assertEqual(mix_down(samples(100, 200, -100, -300), 2), samples(150, -200))
        self.assertEqual(mix_down(samples(1, 2, 6, -1, -2, -6), 3), samples(3, -3))

    def test_full_scale_does_not_overflow(self) -> None:
        for value in (32767, -32768):
            for channels in (2, 3, 8):
                self.assertEqual(mix_down(samples(*[value] * channels), channels), samples(value))

    def test_one_channel_is_left_as_it_is(self) -> None:
        self.assertEqual(mix_down(AUDIO, 1), AUDIO)

    def test_halves_are_rounded_up(self) -> None:
        self.assertEqual(mix_down(samples(0, 1, 0, -1), 2), samples(1, 0))

    def test_an_incomplete_sample_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "6 bytes .* multiple of 4, such as 4"):
            mix_down(bytes(6), 2)
        with self.assertRaisesRegex(ValueError, "0 channels: expected 1 to 8"):
            mix_down(b"", 0)


class SilenceTests(SynchronousTestCase):
    def test_length_and_value(self) -> None:
        self.assertEqual(silence(8000, 0.02), bytes(320))
        self.assertEqual(len(silence(22050, 0.01)), 2 * 220)


class SampleCarryTests(SynchronousTestCase):
    def test_samples_come_out_whole_however_they_were_cut(self) -> None:
        choose = random.Random(8)
        for channels in (1, 2, 3):
            data, carry, got, at = AUDIO * channels, SampleCarry(), b"", 0
            while at < len(data):
                count = choose.randint(0, 9)
                whole = carry.join(data[at : at + count], channels)
                self.assertEqual(len(whole) % (2 * channels), 0)
                got, at = got + whole, at + count
            self.assertEqual(got, data)

    def test_a_sample_is_not_held_longer_than_needed(self) -> None:
        carry = SampleCarry()
        joined = [carry.join(b"\1"), carry.join(b"\2\3"), carry.join(b"\4"), carry.join(b"\5\6")]
        self.assertEqual(joined, [b"", b"\1\2", b"\3\4", b"\5\6"])

    def test_reset_drops_the_rest(self) -> None:
        carry = SampleCarry()
        carry.join(b"\1\2\3")
        carry.reset()
        self.assertEqual(carry.join(b"\4\5"), b"\4\5")

    def test_other_channels_begin_a_new_stream(self) -> None:
        carry = SampleCarry()
        carry.join(b"\1\2\3", 1)
        self.assertEqual(carry.join(b"\4\5\6\7", 2), b"\4\5\6\7")

    def test_no_channels_are_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "0 channels"):
            SampleCarry().join(b"\1\2", 0)


class StripRiffTests(SynchronousTestCase):
    def check(self, frame: bytes, audio: bytes = AUDIO, rate: int | None = 24000) -> None:
        channels = None if rate is None else 1
        self.assertEqual(strip_riff(frame), Wave(audio, rate, channels))

    def test_header_as_pipecat_writes_it(self) -> None:
        for rate, channels in ((8000, 1), (24000, 2)):
            frame = written_by_python(rate, channels)
            self.assertEqual(len(frame), 44 + len(AUDIO))
            self.assertEqual(strip_riff(frame), Wave(AUDIO, rate, channels))
            self.assertEqual(strip_riff(memoryview(frame)), Wave(AUDIO, rate, channels))

    def test_a_frame_without_header_is_audio(self) -> None:
        for frame in (AUDIO, b"", b"RIFF", b"RIFFabcdWAVX" + AUDIO, b"RIFXabcdWAVE" + AUDIO):
            self.check(frame, frame, None)

    def test_other_chunks_before_the_audio(self) -> None:
        for other in (chunk(b"LIST", b"INFOabcd"), chunk(b"fact", b"odd") + b"\0"):
            self.check(riff(other, fmt(), other, chunk(b"data", AUDIO)))

    def test_a_longer_format(self) -> None:
        body = fmt()[8:] + struct.pack("<H", 22) + bytes(22)
        self.check(riff(chunk(b"fmt ", body), chunk(b"data", AUDIO)))

    def test_chunks_behind_the_audio_are_not_heard(self) -> None:
        last = chunk(b"LIST", b"INFOabcd")
        self.check(riff(fmt(), chunk(b"data", AUDIO), last))
        self.check(riff(fmt(), chunk(b"data", AUDIO[:-1]), b"\0", last, last), AUDIO[:-1])

    def test_the_byte_that_pads_odd_audio_is_not_heard(self) -> None:
        self.check(riff(fmt(), chunk(b"data", AUDIO[:-1]), b"\0"), AUDIO[:-1])

    def test_sizes_that_lie_lose_no_audio(self) -> None:
        for size in (0, 1, 2, 3, 100, len(AUDIO) - 2, len(AUDIO) + 1, 10**6, 2**31, 2**32 - 1):
            for whole in (0, 36, 2**32 - 1):
                with self.subTest(size=size, whole=whole):
                    self.check(riff(fmt(), chunk(b"data", AUDIO, size), size=whole))

    def test_a_size_before_the_audio_that_lies(self) -> None:
        for size in (2**32 - 1, 10**6, 60, 21):
            wrong = chunk(b"LIST", b"INFOabcd", size)
            got = strip_riff(riff(fmt(), wrong, chunk(b"data", AUDIO)))
            self.assertEqual(got.audio, AUDIO, size)
        self.check(riff(fmt(), chunk(b"LIST", b"INFO", 2**32 - 1), chunk(b"data", AUDIO)))

    def test_a_header_that_names_nothing(self) -> None:
        self.check(riff(chunk(b"data", AUDIO)), AUDIO, None)
        nothing = chunk(b"fmt ", bytes(16))
        self.check(riff(nothing, chunk(b"data", AUDIO)), AUDIO, None)

    def test_only_the_first_chunks_are_looked_at(self) -> None:
        """A megabyte of empty chunks would take 80 ms, and all calls would wait."""
        empty = chunk(b"junk", b"")
        self.check(riff(*[empty] * 60, fmt(), chunk(b"data", AUDIO)))
        self.check(riff(*[empty] * 64, fmt(), chunk(b"data", AUDIO)), AUDIO, None)

    def test_a_header_alone_holds_no_audio(self) -> None:
        self.check(riff(fmt(), chunk(b"data", b"")), b"")
        whole = riff(fmt(), chunk(b"data", AUDIO))
        for length in range(12, 45):
            self.assertEqual(strip_riff(whole[:length]).audio, b"", length)

    def test_anything_at_all_is_taken(self) -> None:
        """Bytes changed at random: no error, and never more out than in."""
        choose, whole = random.Random(9), riff(fmt(), chunk(b"data", AUDIO))
        for _ in range(3000):
            frame = bytearray(whole[: choose.randint(0, len(whole))])
            for _ in range(choose.randint(1, 8)):
                if frame:
                    frame[choose.randrange(min(len(frame), 48))] = choose.randrange(256)
            got = strip_riff(bytes(frame))
            self.assertTrue(bytes(frame).endswith(got.audio))
