"""Twilio Media Streams: what a bot written for Twilio reads and writes."""

from __future__ import annotations

import base64
import functools
import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio import g711
from pipecat_bridge.errors import FormatError
from pipecat_bridge.wire.dialect import Dialect
from pipecat_bridge.wire.frames import Audio, BotFrame, Interruption, Mark, Message, Nothing
from pipecat_bridge.wire.twilio import TwilioDialect, TwilioError, custom_parameters
from tests.doubles.garbage import GARBAGE

CALL = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
CALL_SID = "CA6ba7b8109dad11d180b400c04fd430c8"
ACCOUNT = "AC00000000000000000000000000000000"

ulaw = functools.partial(g711.encode, "ulaw")
pcm_of = functools.partial(g711.decode, "ulaw")


def dialect(
    metadata: dict[str, Any] | None = None,
    parameters: dict[str, Any] | None = None,
    resumption: int = 0,
    call: str = CALL,
) -> TwilioDialect:
    return TwilioDialect(
        call, metadata or {}, parameters or {}, resumption, encode=ulaw, decode=pcm_of
    )


def media(octets: bytes) -> bytes:
    """A `media` message as Pipecat's serializer writes it."""
    payload = base64.b64encode(octets).decode()
    message = {"event": "media", "streamSid": "MZ1", "media": {"payload": payload}}
    return json.dumps(message).encode()


class OpeningTests(SynchronousTestCase):
    def test_connected_and_start(self) -> None:
        stream = dialect({"caller_name": "Alice"})
        connected, start = (json.loads(message) for message in stream.opening())
        self.assertEqual(connected, {"event": "connected", "protocol": "Call", "version": "1.0.0"})
        self.assertEqual(
            start,
            {
                "event": "start",
                "sequenceNumber": "1",
                "start": {
                    "accountSid": ACCOUNT,
                    "streamSid": stream.stream_sid,
                    "callSid": CALL_SID,
                    "tracks": ["inbound"],
                    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                    "customParameters": {"caller_name": "Alice", "call_id": CALL},
                },
                "streamSid": stream.stream_sid,
            },
        )

    def test_identifiers_are_of_the_call_and_of_the_bot(self) -> None:
        streams = [dialect(), dialect({"a": 1}), dialect(resumption=1), dialect(resumption=2)]
        for stream in streams:
            self.assertEqual(stream.call_sid, CALL_SID)
            self.assertRegex(stream.stream_sid, "^MZ[0-9a-f]{32}$")
        first, again, second, third = (stream.stream_sid for stream in streams)
        self.assertEqual(first, again)
        self.assertEqual(len({first, second, third}), 3)
        other = dialect(call=CALL.replace("6", "7"))
        self.assertNotIn(other.stream_sid, (first, second, third))
        self.assertNotEqual(other.call_sid, CALL_SID)

    def test_it_is_a_dialect_of_text_that_begins_at_once(self) -> None:
        stream: Dialect = dialect()
        self.assertEqual((stream.rate, stream.binary, stream.awaits_ready), (8000, False, False))


class CustomParameterTests(SynchronousTestCase):
    def custom(self, metadata: dict[str, Any], **parameters: Any) -> dict[str, str]:
        custom = custom_parameters(CALL, metadata, parameters, 0)
        self.assertEqual(custom.pop("call_id"), CALL)
        return custom

    def test_values_are_strings(self) -> None:
        values = {
            "name": "Ä, \"b\"", "empty": "", "number": 7, "half": 0.5, "yes": True, "no": False,
            "nothing": None, "object": {"a": [1, "x"]}, "array": [],
        }  # fmt: skip
        self.assertEqual(
            self.custom(values),
            {
                "name": "Ä, \"b\"", "empty": "", "number": "7", "half": "0.5", "yes": "true",
                "no": "false", "nothing": "", "object": '{"a":[1,"x"]}', "array": "[]",
            },
        )  # fmt: skip

    def test_parameters_are_there_without_keys_of_services(self) -> None:
        found = self.custom({"tts_voice": "mine"}, llm_type="x", llm_key="secret", tts_voice="y")
        self.assertEqual(found, {"llm_type": "x", "tts_voice": "mine"})

    def test_who_calls_whom_stands_under_the_names_that_bots_read(self) -> None:
        names = {"from": "1", "from_number": "1", "to": "2", "to_number": "2"}
        for metadata in (
            {"caller": "1", "called": "2"},
            {"caller": "1", "dialled": "2"},
            {"caller": "1", "called": "2", "dialled": "3"},
            {"from": "1", "to": "2"},
            {"from_number": "1", "to_number": "2"},
        ):
            self.assertEqual(self.custom(metadata), names | metadata)

    def test_what_metadata_says_itself_goes_first(self) -> None:
        metadata = {"caller": "1", "from": "me", "to_number": "you", "called": "2"}
        more = {"from_number": "me", "to": "you"}
        self.assertEqual(self.custom(metadata), metadata | more)
        metadata = {"from": "1", "from_number": "2", "to": "3", "to_number": "4", "caller": "5"}
        self.assertEqual(self.custom(metadata), metadata)

    def test_numbers_that_are_not_known_are_left_out(self) -> None:
        for metadata in ({}, {"caller": ""}, {"from": None, "called": None}):
            found = self.custom(metadata)
            self.assertEqual(found, dict.fromkeys(metadata, ""))
        self.assertEqual(
            self.custom({"from": "", "caller": "1"}),
            {"from": "1", "from_number": "1", "caller": "1"},
        )

    def test_the_call_and_the_resumption_cannot_be_overwritten(self) -> None:
        metadata = {"call_id": "x", "resumption": "y"}
        self.assertEqual(
            custom_parameters(CALL, metadata, {}, 3), {"call_id": CALL, "resumption": "3"}
        )
        self.assertNotIn("resumption", custom_parameters(CALL, {}, {}, 0))


class SendTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.dialect = dialect()
        self.dialect.opening()

    def media(self, samples: int) -> dict[str, Any]:
        """Send `samples` samples of noise. The bot gets them in mu-law."""
        pcm = random.Random(samples).randbytes(2 * samples)
        message: dict[str, Any] = json.loads(self.dialect.audio(pcm))
        payload = base64.b64decode(message["media"].pop("payload"), validate=True)
        self.assertEqual(payload, ulaw(pcm))
        return message

    def test_media(self) -> None:
        for number, timestamp in (("2", "0"), ("3", "20"), ("4", "40")):
            found = self.media(160)
            chunk = str(int(number) - 1)
            self.assertEqual(
                found,
                {
                    "event": "media",
                    "sequenceNumber": number,
                    "media": {"track": "inbound", "chunk": chunk, "timestamp": timestamp},
                    "streamSid": self.dialect.stream_sid,
                },
            )

    def test_media_of_any_length(self) -> None:
        at = 0
        for samples in (160, 21, 138, 1, 0, 7, 8000, 160):
            self.assertEqual(self.media(samples)["media"]["timestamp"], str(at // 8))
            at += samples

    def test_half_a_sample_is_refused_and_not_counted(self) -> None:
        self.assertRaises(ValueError, self.dialect.audio, bytes(321))
        self.assertEqual(self.media(160)["sequenceNumber"], "2")

    def test_other_messages(self) -> None:
        stream = self.dialect
        sent = [*stream.digit("#"), *stream.played('m"1'), *stream.closing()]
        self.assertEqual(
            [json.loads(message) for message in sent],
            [
                {"event": kind, "sequenceNumber": number, kind: content, "streamSid": sid}
                for sid in [stream.stream_sid]
                for kind, number, content in (
                    ("dtmf", "2", {"track": "inbound_track", "digit": "#"}),
                    ("mark", "3", {"name": 'm"1'}),
                    ("stop", "4", {"accountSid": ACCOUNT, "callSid": CALL_SID}),
                )
            ],
        )
        self.assertIsNone(stream.text("hello", True, True))

    def test_numbers_run_through_all_messages(self) -> None:
        stream = self.dialect
        kinds = [
            lambda: [stream.audio(bytes(320))],
            lambda: stream.digit("1"),
            lambda: stream.played("m"),
        ]
        choose = random.Random(4)
        sent = [message for _ in range(300) for message in choose.choice(kinds)()]
        messages = [json.loads(message) for message in [*sent, *stream.closing()]]
        numbers = [message["sequenceNumber"] for message in messages]
        self.assertEqual(numbers, [str(number) for number in range(2, 303)])
        chunks = [one["media"]["chunk"] for one in messages if one["event"] == "media"]
        self.assertEqual(chunks, [str(number) for number in range(1, len(chunks) + 1)])


class DecodeTests(SynchronousTestCase):
    def decode(self, text: str | bytes) -> BotFrame:
        return dialect().decode(text.encode() if isinstance(text, str) else text)

    def test_media(self) -> None:
        for octets in (b"", b"\x00", bytes(range(256)), random.Random(1).randbytes(160)):
            self.assertEqual(self.decode(media(octets)), Audio(pcm_of(octets), 8000, 1))

    def test_what_goes_out_comes_back(self) -> None:
        pcm = pcm_of(random.Random(2).randbytes(160))
        self.assertEqual(self.decode(dialect().audio(pcm)), Audio(pcm, 8000, 1))

    def test_clear(self) -> None:
        self.assertEqual(self.decode('{"event": "clear", "streamSid": "MZ1"}'), Interruption())

    def test_mark(self) -> None:
        for name in ("m", "", "äöü ☎ 𝄞", "x" * 256):
            message = {"event": "mark", "streamSid": "MZ1", "mark": {"name": name}}
            for text in (json.dumps(message), json.dumps(message, ensure_ascii=False)):
                self.assertEqual(self.decode(text), Mark(name))

    def test_names_of_marks_and_messages_beside_the_audio_have_a_limit(self) -> None:
        mark = json.dumps({"event": "mark", "mark": {"name": "x" * 257}})
        with self.assertRaisesRegex(TwilioError, "a name of 257 characters: at most 256"):
            self.decode(mark)
        for message in (
            {"label": "rtvi-ai", "t": [0] * 65536},
            {"event": "mark", "x": "x" * 65536},
        ):
            with self.assertRaisesRegex(FormatError, "bytes without audio, expected up to 65536"):
                self.decode(json.dumps(message))

    def test_events_that_are_not_for_us(self) -> None:
        for event in ("connected", "start", "stop", "dtmf", "keepalive", "Media"):
            for text in (
                f'{{"event": "{event}"}}',
                f'{{"event": "{event}", "{event}": [1, {{}}]}}',
            ):
                self.assertEqual(self.decode(text), Nothing())

    def test_messages_beside_the_events(self) -> None:
        for text in (
            '{"label": "rtvi-ai", "type": "bot-ready", "id": "1", "data": {"version": "1.0"}}',
            '{"type": "hangup", "reason": "all said"}',
            ' {"type":"transfer"}\n',
            '{"event": "", "type": "set", "variables": {"A": "ä"}}',
        ):
            self.assertEqual(self.decode(text), Message(text))

    def test_wrong_messages(self) -> None:
        neither = 'JSON that has no "event" and is neither RTVI nor a command: expected an "event" '
        for text, sentence in {
            "{}": neither,
            '{"type": "greeting"}': neither,
            '{"type": ["hangup"], "label": 7}': neither,
            '{"label": "rtvi", "type": "x"}': neither,
            '{"event": "media"}': 'a media message without "media": '
            'expected {"event": "media", "media": {"payload": "..."}}',
            '{"event": "mark"}': 'a mark message without "mark": '
            'expected {"event": "mark", "mark": {"name": "..."}}',
        }.items():
            error = self.assertRaises(TwilioError, self.decode, text)
            self.assertTrue(str(error).startswith(sentence), f"{text}: {error}")

    def test_what_is_no_message_at_all(self) -> None:
        for text, where in {
            "": "",
            "hello": r"\(byte 0\)",
            '{"event": "clear"': "",
            '{"event": "clear"} {}': r"\(byte [0-9]+\)",
            "[]": "`object`, got `array`",
            "7": "`object`, got `int`",
            "null": "`object`, got `null`",
            '{"event": 1}': r"`str`, got `int` - at `\$\.event`",
            '{"event": null}': r"`str`, got `null` - at `\$\.event`",
            '{"event": "media", "media": {}}': r"`payload` - at `\$\.media`",
            '{"event": "media", "media": {"payload": 1}}': r"got `int` - at `\$\.media\.payload`",
            '{"event": "mark", "mark": {"name": null}}': r"got `null` - at `\$\.mark\.name`",
        }.items():
            with self.assertRaisesRegex(
                TwilioError, f"^not a message of Twilio Media Streams: .*{where}"
            ):
                self.decode(text)

    def test_payloads_that_are_not_base64(self) -> None:
        for payload in ("A", "AAA", "AA=A", "AA==AAAA", "A-_=", "AA\\n==", "ä===", " AAA"):
            text = f'{{"event": "media", "media": {{"payload": "{payload}"}}}}'
            with self.assertRaisesRegex(TwilioError, "Invalid base64 .* `.*media.payload`"):
                self.decode(text)

    def test_bytes_that_are_not_text(self) -> None:
        for data in (
            b"\xff\xfe",
            b'{"event": "mark", "mark": {"name": "\xff"}}',
            b'{"event": "\xff"}',
            b'{"type": "hangup", "reason": "\xff"}',
            b'{"type": "hangup", "x": {"\xff": 1}}',
            b'{"event": "mark", "mark": {"name": "\\ud800"}}',
            b"\x00" * 640,
        ):
            with self.assertRaisesRegex(TwilioError, "^not a message of Twilio Media Streams: "):
                self.decode(data)

    def test_messages_nested_too_deep(self) -> None:
        def nested(levels: int) -> str:
            inner = "[" * levels + "]" * levels
            return f'{{"label": "rtvi-ai", "type": "server-message", "data": {inner}}}'

        self.assertEqual(self.decode(nested(31)), Message(nested(31)))
        with self.assertRaisesRegex(TwilioError, "JSON nested deeper than 32 levels"):
            self.decode(nested(32))
        for levels in (10_000, 1_000_000):
            with self.assertRaisesRegex(TwilioError, "nested (too deep|deeper than)"):
                self.decode(nested(levels))

    def test_a_bad_message_leaves_no_trace(self) -> None:
        stream = dialect()
        with self.assertRaises(TwilioError):
            stream.decode(b"hello")
        self.assertEqual(stream.decode(media(b"\x00")), Audio(pcm_of(b"\x00"), 8000, 1))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["event", "media", "mark", "name", "payload", "type", "label"]), inner
        )
    ),
    max_leaves=10,
)


class GarbageTests(SynchronousTestCase):
    def check(self, data: bytes) -> None:
        try:
            frame = dialect().decode(data)
        except TwilioError as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertIsInstance(frame, BotFrame)

    @settings(deadline=None, max_examples=300)
    @given(data=st.binary(max_size=100))
    def test_bytes(self, data: bytes) -> None:
        self.check(data)

    @settings(deadline=None, max_examples=300)
    @given(value=_JSON)
    def test_json(self, value: Any) -> None:
        self.check(json.dumps(value).encode())

    @settings(deadline=None, max_examples=300)
    @given(data=st.data())
    def test_messages_with_bytes_turned_over(self, data: st.DataObject) -> None:
        whole = bytearray(media(bytes(20)))
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        self.check(bytes(whole))

    def test_messages_that_are_cut_off(self) -> None:
        whole = media(bytes(160))
        for end in range(len(whole)):
            self.assertRaises(TwilioError, dialect().decode, whole[:end])

    def test_the_garbage_of_the_doubles(self) -> None:
        for payload, _ in GARBAGE.values():
            self.assertRaises(TwilioError, dialect().decode, payload)
