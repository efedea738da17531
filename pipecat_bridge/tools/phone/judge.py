"""Judges from what a recogniser heard whether the bot said the right things.

The recogniser chooses among the sentences that the bot may say, and decoys that it must not say.
So a wrong answer, or noise, is recognised as something else than the right answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from pipecat_bridge.tools.phone.microphone import Samples

Recognise = Callable[[bytes, int, str], str]
"""From 16-bit samples, samples per second and a JSGF grammar to the words that were heard or ""."""

# Seconds of silence around the speech. The recogniser needs some silence. But sometimes it takes
# the silence for the first word of one more sentence, and then rejects the sentence as unfinished.
# So it tries three lengths.
_SILENCES: Final = (0.12, 0.06, 0.25)


def listen(samples: Samples, rate: int, words: str, recognise: Recognise) -> str:
    """The words of the grammar `words` that were spoken; "" if no sentence fits."""
    for seconds in _SILENCES:
        silence = np.zeros(round(seconds * rate), dtype=np.int16)
        whole = np.concatenate((silence, samples, silence))
        heard = recognise(whole.astype("<i2").tobytes(), rate, words)
        if heard:
            return heard
    return ""


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case and without punctuation."""
    return re.findall(r"[a-z']+", text.lower())


def grammar(sentences: Iterable[str], cut_short: bool = False) -> str:
    """A JSGF grammar for one or more of the sentences. `cut_short`: the last is unfinished."""
    unique = dict.fromkeys(tuple(words_of(sentence)) for sentence in sentences)
    whole = [" ".join(words) for words in unique if words]
    rules = ["<sentence>+"]
    body = [f"<sentence> = {' | '.join(whole)};"]
    if cut_short:
        rules = ["<sentence>* <beginning>"]
        body.append(f"<beginning> = {' | '.join(_beginning(list(words)) for words in unique)};")
    return (
        "\n".join(["#JSGF V1.0;", "grammar judge;", f"public <heard> = {rules[0]};", *body]) + "\n"
    )


def missing_words(heard: str, wanted: Iterable[str]) -> list[str]:
    """The words of `wanted` that were not heard in this order."""
    rest = words_of(heard)
    missing = []
    for word in wanted:
        if word in rest:
            rest = rest[rest.index(word) + 1 :]
        else:
            missing.append(word)
    return missing


def _beginning(words: list[str]) -> str:
    """A rule for the first word, or the first two, or more."""
    first, *rest = words
    return f"{first} [{_beginning(rest)}]" if rest else first
