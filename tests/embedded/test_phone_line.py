"""The line in a real pipeline, RTVI and output transport of Pipecat's included.

tests/pipecat runs this file once more with every Pipecat that is supported, where there is neither
pytest nor Twisted: so it is plain unittest.
"""

from __future__ import annotations

import asyncio
import sys
import unittest
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import pipecat.processors.frameworks.rtvi.models as rtvi
from pipecat.frames.frames import (
    Frame,
    InputDTMFFrame,
    InputTransportMessageFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

from pipecat_bridge.bot.phone_line import CallMetadata, PhoneLine

RATE = 16000
CHUNK = bytes(RATE // 25 * 2)
"""40 ms, what Pipecat sends at a time."""


class Input(FrameProcessor):
    """The way in: messages go both ways from here, as in Pipecat's WebSocket transports."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)

    async def receive(self, kind: str, data: Any) -> None:
        message = {"label": rtvi.MESSAGE_LABEL, "type": kind, "id": "1", "data": data}
        await self.broadcast_frame(InputTransportMessageFrame, message=message)


class Seen(FrameProcessor):
    """Records the keys that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = ""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputDTMFFrame):
            self.keys += frame.button.value
        await self.push_frame(frame, direction)


class Output(BaseOutputTransport):
    """Pipecat's queue; what comes out of it is noted. A chunk takes until `gate` is open."""

    def __init__(self) -> None:
        super().__init__(TransportParams(audio_out_enabled=True, audio_out_sample_rate=RATE))
        self.gate = asyncio.Event()
        self.gate.set()
        self.sent: list[Any] = []
        self.chunks = 0

    async def start(self, frame: Any) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        self.chunks += 1
        self.sent.append("audio")
        await self.gate.wait()
        return True

    async def send_message(
        self, frame: OutputTransportMessageFrame | OutputTransportMessageUrgentFrame
    ) -> None:
        if frame.message.get("type") not in ("bot-ready", "error-response", "bot-interrupted"):
            self.sent.append(frame.message)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def command(**fields: Any) -> dict[str, Any]:
    return {"label": "rtvi-ai", "type": "server-message", "data": fields}


class PipelineTestCase(unittest.IsolatedAsyncioTestCase):
    """A pipeline around a line, running."""

    async def run_pipeline(self, line: PhoneLine, **options: Any) -> None:
        self.line = line
        self.input, self.seen, self.output = Input(), Seen(), Output()
        pipeline = Pipeline([self.input, self.line, self.seen, self.output])
        self.worker = PipelineWorker(pipeline, **options)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        started = asyncio.Event()

        @self.worker.event_handler("on_pipeline_started")
        async def on_started(*_: object) -> None:
            started.set()

        self.running = asyncio.create_task(runner.run())
        await asyncio.wait_for(started.wait(), 60)

    async def asyncTearDown(self) -> None:
        self.output.gate.set()
        await self.worker.cancel()
        await asyncio.wait_for(self.running, 60)

    async def tell_call(self, **told: Any) -> None:
        await self.input.receive("client-message", {"t": "call-metadata", "d": told})

    async def say(self, chunks: int) -> None:
        audio = OutputAudioRawFrame(CHUNK * chunks, RATE, 1)
        await self.line.push_frame(audio)


class PhoneLineTests(PipelineTestCase):
    async def asyncSetUp(self) -> None:
        await self.run_pipeline(PhoneLine())

    def test_nothing_of_the_daemon_is_imported(self) -> None:
        daemon = ("asterisk", "call", "runner", "wire", "audio", "service", "config")
        loaded = {f"pipecat_bridge.{name}" for name in daemon} & set(sys.modules)
        with self.subTest("alone"):
            if "pytest" not in sys.modules:
                self.assertEqual(loaded | ({"twisted"} & set(sys.modules)), set())

    async def test_each_key_is_one_frame(self) -> None:
        for key in "12*0#":
            await self.input.receive("dtmf", {"buttons": [key], "button": key})
        await until(lambda: len(self.seen.keys) >= 5)
        await self.tell_call(id="c1")  # behind them: whatever was to come twice has come
        await self.line.wait_for_call()
        self.assertEqual(self.seen.keys, "12*0#")

    async def test_keys_that_pipecat_does_not_know_are_passed_over(self) -> None:
        for key in "A1":
            await self.input.receive("dtmf", {"buttons": [key], "button": key})
        await until(lambda: self.seen.keys)
        self.assertEqual(self.seen.keys, "1")

    async def test_the_call_is_known_by_attribute_event_and_wait(self) -> None:
        told: list[CallMetadata] = []

        @self.line.event_handler("on_call")
        async def on_call(line: PhoneLine, call: CallMetadata) -> None:
            told.append(call)

        self.assertIsNone(self.line.call)
        metadata = {"caller": "+4930", "called": "100", "tier": "gold"}
        await self.tell_call(id="c1", metadata=metadata, parameters={"voice": "x"}, resumption=2)
        call = await self.line.wait_for_call()
        await until(lambda: told)
        expected = CallMetadata("c1", "+4930", "100", metadata, {"voice": "x"}, 2)
        self.assertEqual((call, self.line.call, told), (expected, expected, [expected]))
        with self.assertRaises(FrozenInstanceError):
            call.id = "c2"  # type: ignore[misc]

    async def test_what_was_not_told_is_empty(self) -> None:
        await self.tell_call(id="c1")
        self.assertEqual(await self.line.wait_for_call(), CallMetadata("c1"))

    async def test_numbers_go_by_several_names(self) -> None:
        await self.tell_call(id="c1", metadata={"from_number": "+4930", "dialled": 100})
        call = await self.line.wait_for_call()
        self.assertEqual((call.caller, call.called), ("+4930", "100"))

    async def test_messages_that_are_not_ours_change_nothing(self) -> None:
        await self.input.receive("client-message", {"t": "call-metadata", "d": ["c1"]})
        await self.input.receive("client-message", {"t": "call-metadata", "d": {"id": 1}})
        await self.input.receive("client-message", {"t": "weather", "d": {"id": "c0"}})
        await self.input.receive("dtmf", {"buttons": "12"})
        await self.input.receive("dtmf", None)
        await self.input.broadcast_frame(InputTransportMessageFrame, message="text")
        await self.tell_call(id="c1")
        self.assertEqual((await self.line.wait_for_call()).id, "c1")
        self.assertEqual(self.seen.keys, "")

    async def test_commands_are_rtvi_server_messages(self) -> None:
        await self.line.set_variables(NAME="value", COUNT=3, VIP=True)
        await self.line.play_dtmf("12#,a")
        await self.line.transfer("support")
        await self.line.hangup("done")
        await until(lambda: len(self.output.sent) == 4)
        self.assertCountEqual(
            self.output.sent,
            [
                command(type="set", variables={"NAME": "value", "COUNT": 3, "VIP": True}),
                command(type="play_dtmf", digits="12#,a"),
                command(type="transfer", target="support"),
                command(type="hangup", reason="done"),
            ],
        )

    async def test_commands_that_cannot_be_are_refused(self) -> None:
        for digits in ("", "1x", "1 2"):
            with self.assertRaisesRegex(ValueError, "expected 0-9"):
                await self.line.play_dtmf(digits)
        with self.assertRaisesRegex(ValueError, "without a target"):
            await self.line.transfer("")

    async def test_hangup_waits_for_what_has_been_said(self) -> None:
        self.output.gate.clear()
        await self.say(4)
        await self.line.hangup()
        await self.line.set_variables(SEEN="1")
        await until(lambda: len(self.output.sent) == 2)  # the first chunk, and what does not wait
        self.output.gate.set()
        await until(lambda: len(self.output.sent) == 6)
        setting, hangup = (
            command(type="set", variables={"SEEN": "1"}),
            command(type="hangup", reason=""),
        )
        self.assertEqual([x for x in self.output.sent if x != setting], ["audio"] * 4 + [hangup])

    async def test_an_interruption_drops_the_audio_and_keeps_the_command(self) -> None:
        self.output.gate.clear()
        await self.say(50)
        await self.line.transfer("support")
        await until(lambda: self.output.chunks)
        await self.line.broadcast_interruption()
        self.output.gate.set()
        transfer = command(type="transfer", target="support")
        await until(lambda: transfer in self.output.sent)
        self.assertLess(self.output.chunks, 5)


class WithoutRTVITests(PipelineTestCase):
    """Commands as plain JSON, in a pipeline without RTVI, in which no Pipecat handles keys."""

    async def asyncSetUp(self) -> None:
        await self.run_pipeline(PhoneLine(rtvi_messages=False), enable_rtvi=False)

    async def test_each_key_is_one_frame(self) -> None:
        await self.input.receive("dtmf", {"buttons": ["7"], "button": "7"})
        await self.input.receive("dtmf", {"buttons": ["8"], "button": "8"})
        await until(lambda: self.seen.keys == "78")

    async def test_commands_have_no_envelope(self) -> None:
        await self.line.transfer("support")
        await until(lambda: self.output.sent)
        self.assertEqual(self.output.sent, [{"type": "transfer", "target": "support"}])


if __name__ == "__main__":
    unittest.main()
