"""A Pipecat processor with the receptionist's answers, in place of a language model."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from pipecat.frames.frames import (
    Frame,
    InputDTMFFrame,
    LLMConfigureOutputFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMMessagesAppendFrame,
    LLMTextFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext, LLMContextMessage
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from .receptionist import KEY, Receptionist, SpokenAnswer


class LocalLLM(FrameProcessor):
    """Answers a context with the frames that a language model would send, one for each sentence.

    It is not a subclass of Pipecat's LLMService, because that loads the openai package (22 MB, 1 s)
    for features that are not used here.
    """

    def __init__(self, receptionist: Receptionist, hang_up: Callable[[], Awaitable[None]]) -> None:
        """`hang_up` is called after the last answer of the call was sent to the voice."""
        super().__init__()
        self._receptionist = receptionist
        self._hang_up = hang_up
        self._skip_tts: bool | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMContextFrame):
            await self._respond(self._answer(frame.context))
        elif isinstance(frame, LLMConfigureOutputFrame):
            self._skip_tts = frame.skip_tts  # typed text may ask for an answer without a voice
        else:
            await self.push_frame(frame, direction)

    def _answer(self, context: LLMContext) -> SpokenAnswer:
        messages = [message for message in context.get_messages() if isinstance(message, dict)]
        said = [message["content"] for message in messages if message["role"] == "user"]
        if not said:
            return self._receptionist.greet()
        return self._receptionist.answer(_plain(said[-1]))

    async def _respond(self, answer: SpokenAnswer) -> None:
        sentences = re.split(r"(?<=[.?!])\s+", answer.text)
        frames: list[LLMFullResponseStartFrame | LLMTextFrame | LLMFullResponseEndFrame] = [
            LLMFullResponseStartFrame(),
            *(LLMTextFrame(f"{sentence} ") for sentence in sentences),
            LLMFullResponseEndFrame(),
        ]
        for frame in frames:
            frame.skip_tts = self._skip_tts
            await self.push_frame(frame)
        if answer.ends_call:
            await self._hang_up()


class KeyPresses(FrameProcessor):
    """Turns a pressed key into a turn of the caller, which interrupts the bot like speech."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, InputDTMFFrame):
            await self.push_frame(frame, direction)
            return
        await self.broadcast_interruption()  # type: ignore[no-untyped-call]  # Pipecat's
        pressed: LLMContextMessage = {
            "role": "user",
            "content": KEY.format(frame.button.value),
        }
        await self.push_frame(LLMMessagesAppendFrame([pressed], run_llm=True))


def _plain(content: Any) -> str:
    """The text of a message, whose content is a string or a list of parts."""
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content or () if isinstance(part.get("text"), str))
