"""Pipecat's frames, both ways, against messages of protobuf's own making; and garbage."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.load.protobuf import varint
from pipecat_bridge.wire import frames
from tests.doubles import protobuf
from tests.doubles.garbage import GARBAGE

TEXTS = ("", "hello", "äöü ☎ 𝄞", "\x00", "x" * 60_000)


class DecodeTests(SynchronousTestCase):
    def test_audio(self) -> None:
        for pcm, rate, channels in (
            (b"", 16000, 1),
            (b"\1\2" * 480, 24000, 1),
            (b"\1\2\3", 44100, 2),
            (bytes(64_000), 16000, 1),
        ):
            decoded = frames.decode(protobuf.encode_audio(pcm, rate, channels))
            self.assertEqual(decoded, frames.Audio(pcm, rate, channels))

    def test_audio_of_a_sender_that_leaves_channels_out_is_mono(self) -> None:
        data = protobuf.encode("audio", audio=b"\1\2", sample_rate=8000)
        self.assertEqual(frames.decode(data), frames.Audio(b"\1\2", 8000, 1))

    def test_pts_and_names_do_no_harm(self) -> None:
        data = protobuf.encode(
            "audio", id=2**64 - 1, name="x", audio=b"\1\2", sample_rate=8000, pts=2**63
        )
        self.assertEqual(frames.decode(data), frames.Audio(b"\1\2", 8000, 1))

    def test_text_transcription_message(self) -> None:
        for text in TEXTS:
            self.assertEqual(frames.decode(protobuf.encode("text", text=text)), frames.Text(text))
            said = {"text": text, "user_id": "caller", "timestamp": "2026-01-01T00:00:00Z"}
            self.assertEqual(
                frames.decode(protobuf.encode("transcription", **said)),
                frames.Transcription(**said),
            )
            decoded = frames.decode(protobuf.encode("message", data=text))
            self.assertEqual(decoded, frames.Message(text))

    def test_interruption_which_is_empty(self) -> None:
        for data in (protobuf.encode("interruption"), protobuf.encode("interruption", id=7)):
            self.assertEqual(frames.decode(data), frames.Interruption())

    def test_fields_of_the_future_are_passed_over(self) -> None:
        data = protobuf.encode("text", text="hello") + b"\xfa\x01\x03abc"  # field 31, bytes
        self.assertEqual(frames.decode(data), frames.Text("hello"))

    def test_a_kind_of_the_future_is_refused(self) -> None:
        with self.assertRaisesRegex(frames.FrameError, "none of Pipecat's five frames"):
            frames.decode(b"\x32\x02\x08\x01")  # field 6, a message

    def test_bytes_that_are_no_frame(self) -> None:
        with self.assertRaisesRegex(frames.FrameError, "0 bytes that are none"):
            frames.decode(b"")
        with self.assertRaisesRegex(frames.FrameError, "3 bytes that are not a protobuf frame"):
            frames.decode(b"\xff\xff\xff")
        with self.assertRaises(frames.FrameError):
            frames.decode(b"\x22\x04\x0a\x02\xff\xff")  # a message that is not UTF-8

    def test_a_frame_that_is_cut_off(self) -> None:
        whole = protobuf.encode_audio(bytes(640), 16000)
        for end in range(1, len(whole)):
            with self.assertRaises(frames.FrameError):
                frames.decode(whole[:end])


class GarbageTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=500)
    @given(data=st.binary(max_size=200))
    @example(data=b"")
    def test_only_frame_errors_escape(self, data: bytes) -> None:
        self.decode(data)

    @settings(deadline=None, max_examples=300)
    @given(data=st.data())
    def test_frames_with_bytes_turned_over(self, data: st.DataObject) -> None:
        whole = bytearray(protobuf.encode_rtvi("bot-ready", {"version": "1.0"}))
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        self.decode(bytes(whole))

    def test_the_garbage_of_the_doubles(self) -> None:
        for payload, _ in GARBAGE.values():
            self.decode(payload)

    def decode(self, data: bytes) -> None:
        try:
            decoded = frames.decode(data)
        except frames.FrameError as error:
            self.assertIn(f"{len(data)} bytes", str(error))
        else:
            self.assertIsInstance(decoded, frames.BotFrame)


class LongFrameTests(SynchronousTestCase):
    """Of a long frame, all but a little must be audio: anything else takes time to parse."""

    def test_audio(self) -> None:
        pcm = bytes(100_000)
        for beside in ({}, {"id": 1 << 60, "name": "x" * 200, "pts": 1 << 60}):
            data = protobuf.encode("audio", audio=pcm, sample_rate=8000, num_channels=2, **beside)
            self.assertEqual(frames.decode(data), frames.Audio(pcm, 8000, 2))

    def test_anything_else(self) -> None:
        audio = protobuf.encode("audio", audio=bytes(100_000), sample_rate=8000)
        for data in (
            b"\x12\0\x0a\0" * 20_000,  # frames of all kinds, each in place of the one before
            b"\x12" + varint(80_000) + b"\x0a\0" * 40_000,  # names
            b"\x12" + varint(80_000) + b"\x08\1" * 40_000,  # ids
            b"\x12" + varint(80_000) + b"\x1a\1x" * 27_000,  # short audio
            audio[:-4] + b"\x38\1" * 1000,  # unknown fields behind
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" + bytes(80_000),
            b"\x1a" + audio,
            protobuf.encode("text", text="x" * 70_000),
        ):
            with (
                self.subTest(data=data[:20]),
                self.assertRaisesRegex(frames.FrameError, f"{len(data)} bytes without audio"),
            ):
                frames.decode(data)


class EncodeTests(SynchronousTestCase):
    def test_audio(self) -> None:
        for pcm, rate in ((b"\1\2" * 320, 16000), (b"", 8000), (bytes(1920), 48000)):
            which, value = protobuf.decode(frames.audio_encoder(rate)(pcm))
            self.assertEqual(which, "audio")
            found = value.audio, value.sample_rate, value.num_channels
            self.assertEqual(found, (pcm, rate, 1))

    def test_message(self) -> None:
        for text in TEXTS:
            which, value = protobuf.decode(frames.encode_message(text))
            self.assertEqual((which, value.data), ("message", text))

    @settings(deadline=None)
    @given(pcm=st.binary(max_size=2000), rate=st.integers(0, 2**32 - 1))
    def test_there_and_back(self, pcm: bytes, rate: int) -> None:
        self.assertEqual(frames.decode(frames.audio_encoder(rate)(pcm)), frames.Audio(pcm, rate, 1))
