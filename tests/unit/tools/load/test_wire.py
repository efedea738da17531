"""The load's own protobuf and WebSocket, read and written by the libraries they stand in for."""

from __future__ import annotations

import pytest
from google.protobuf.json_format import MessageToDict
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.load import protobuf, websocket
from pipecat_bridge.wire import frames
from pipecat_bridge.wire.frames_pb2 import Frame
from pipecat_bridge.wire.websocket import PlainFrames, server_frame

pytestmark = pytest.mark.tools


class ProtobufTests(SynchronousTestCase):
    def test_what_it_writes_google_reads(self) -> None:
        for size in (0, 2, 320, 640, 70000):
            pcm = bytes(index % 256 for index in range(size))
            frame = Frame.FromString(protobuf.audio_frame(pcm, 24000)).audio
            self.assertEqual((frame.audio, frame.sample_rate, frame.num_channels), (pcm, 24000, 1))
        frame = Frame.FromString(protobuf.message_frame('{"a": "é"}'))
        self.assertEqual(MessageToDict(frame), {"message": {"data": '{"a": "é"}'}})

    def test_what_google_writes_it_reads(self) -> None:
        body = {"id": 300, "name": "Audio#1", "audio": b"\1\0" * 400, "sample_rate": 16000}
        whole = Frame(audio={**body, "num_channels": 1, "pts": 12345}).SerializeToString()
        self.assertEqual(protobuf.read(whole), (body["audio"], 16000))
        self.assertEqual(protobuf.read(frames.encode_message("{}")), "{}")
        self.assertIs(protobuf.read(Frame(text={"text": "hello"}).SerializeToString()), None)

    def test_a_wire_type_of_no_frame_is_refused(self) -> None:
        self.assertRaises(ValueError, protobuf.read, b"\x11" + bytes(8))


class WebSocketTests(SynchronousTestCase):
    def test_a_server_unmasks_what_it_sends(self) -> None:
        for size in (0, 1, 125, 126, 660, 1023, 1024, 1025, 65535, 65536):
            payload = bytes(index * 7 % 256 for index in range(size))
            pieces = PlainFrames(1 << 20, True).feed(websocket.masked(payload))
            self.assertEqual(pieces, [(True, payload)])
        self.assertNotIn(bytes(16), websocket.masked(bytes(64)))

    def test_frames_of_a_server_at_any_cut(self) -> None:
        payloads = [b"", b"a" * 125, b"b" * 126, b"c" * 65536]
        stream = b"".join(server_frame(payload) for payload in payloads)
        for size in (1, 3, 128, 70000):
            decoder, got = websocket.FrameDecoder(), []
            for at in range(0, len(stream), size):
                got += decoder.feed(stream[at : at + size])
            self.assertEqual(got, [(websocket.BINARY, payload) for payload in payloads])
