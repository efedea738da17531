"""The local bot's answers. It is a front desk that knows the opening hours and the address.

It has plain rules for words, so that a call works without key and network. This module does not use
Pipecat. Its input is a transcript, typed text, or a pressed key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

UNCLEAR = "(unclear)"  # transcript of speech that was not understood
KEY = "(key {})"  # text for a pressed key, in place of a transcript
_KEYS = {
    KEY.format(key): topic for key, topic in (("1", "hours"), ("2", "address"), ("9", "goodbye"))
}

_HOURS = (
    "We are open Monday to Friday from nine in the morning until six in the evening. "
    "On Saturdays we are open from ten in the morning until two in the afternoon. "
    "We are closed on Sundays and on public holidays. "
    "Is there anything else I can help you with?"
)
_ADDRESS = (
    "Our address is twelve Harbour Street, right next to the central station. "
    "Is there anything else I can help you with?"
)
_WEEKDAY = "Yes, from nine in the morning until six in the evening."
_DAYS = {
    "saturday": "Yes, on Saturdays we are open from ten in the morning until two in the afternoon.",
    "sunday": "No, we are closed on Sundays.",
    **dict.fromkeys(("monday", "tuesday", "wednesday", "thursday", "friday"), _WEEKDAY),
}
_GOODBYE = "Thank you for calling. Goodbye!"
_SORRY = "Sorry, I did not understand that. Could you please repeat it?"
_HELLO = "Hello! You can ask me about our opening hours or our address."
_WELCOME = "You are welcome. Is there anything else I can help you with?"

# The order matters: "thank you, goodbye" is a goodbye, "thank you, where are you" is a question.
_TOPICS = (
    ("goodbye", r"\b(good ?bye|bye|that('s| is) all|hang up)\b"),
    ("again", r"\b(again|repeat|pardon|say that)\b"),
    ("day", rf"\b({'|'.join(_DAYS)})s?\b"),
    ("address", r"\b(address|where|location|located|find you|get there)\b"),
    ("hours", r"\b(hours?|open|opening|close|closing)\b"),
    ("thanks", r"\bthank(s| you)\b"),
    ("hello", r"\b(hello|hi|good (morning|afternoon|evening))\b"),
)


@dataclass(frozen=True)
class SpokenAnswer:
    """A text to say. `ends_call`: the call ends after it."""

    text: str
    ends_call: bool = False


class Receptionist:
    """The front desk in one call. It remembers only its last answer."""

    def __init__(
        self, company: str = "Harbour Dental Care", caller_name: str | None = None
    ) -> None:
        who = f", {caller_name}" if caller_name else ""
        self._greeting = f"Hello{who}, this is the front desk of {company}. How can I help you?"
        self._last = self._greeting

    def greet(self) -> SpokenAnswer:
        """The greeting, before the caller has spoken."""
        return self._say(self._greeting)

    def answer(self, heard: str) -> SpokenAnswer:
        """The answer to a transcript. For UNCLEAR, and if no rule fits, ask the caller to repeat.

        Key 1 asks for the opening hours, key 2 for the address, and key 9 says goodbye.
        """
        if heard in _KEYS:
            return self._about(_KEYS[heard])
        text = heard.lower()
        topic, match = next(
            ((name, found) for name, rule in _TOPICS if (found := re.search(rule, text))),
            ("", None),
        )
        if topic == "day" and match is not None:
            return self._say(_DAYS[match.group(1)])
        return self._about(topic)

    def _about(self, topic: str) -> SpokenAnswer:
        if topic == "goodbye":
            return SpokenAnswer(_GOODBYE, ends_call=True)
        if topic == "again":
            return SpokenAnswer(self._last)
        texts = {"hours": _HOURS, "address": _ADDRESS, "thanks": _WELCOME, "hello": _HELLO}
        return self._say(texts[topic]) if topic in texts else SpokenAnswer(_SORRY)

    def _say(self, text: str) -> SpokenAnswer:
        self._last = text
        return SpokenAnswer(text)
