"""What the local bot says: a front desk that knows its opening hours and its address.

Plain rules on words, so that a call works with no key and no network. Nothing here knows
Pipecat; the text that comes in is a transcript, typed text, or a key on the telephone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

UNCLEAR = "(unclear)"  # the transcript of speech that was heard and not understood
KEY = "(key {})"  # what stands in a transcript's place for a key on the telephone
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

# Tried in this order: "thank you, goodbye" is a goodbye, "thank you, where are you" a question.
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
    """One thing to say, and whether the call ends when it has been said."""

    text: str
    ends_call: bool = False


class Receptionist:
    """One call's front desk; it remembers only what it said last."""

    def __init__(
        self, company: str = "Harbour Dental Care", caller_name: str | None = None
    ) -> None:
        who = f", {caller_name}" if caller_name else ""
        self._greeting = f"Hello{who}, this is the front desk of {company}. How can I help you?"
        self._last = self._greeting

    def greet(self) -> SpokenAnswer:
        """What to say before the caller has said anything."""
        return self._say(self._greeting)

    def answer(self, heard: str) -> SpokenAnswer:
        """What to say to a transcript; UNCLEAR and what no rule covers ask to repeat.

        The keys 1, 2 and 9 ask for the opening hours and the address, and say goodbye.
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
