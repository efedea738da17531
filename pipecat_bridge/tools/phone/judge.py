"""Whether the right things were said, from what a recogniser heard.

The recogniser chooses among the sentences that the bot might say and decoys that it must not say,
so that a wrong answer, or noise, comes out as something else than the right one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from pipecat_bridge.tools.phone.microphone import Samples

Recognise = Callable[[bytes, int, str], str]
"""16-bit samples, their rate, a JSGF grammar -> the words, or nothing."""

# Silence around the speech. The recogniser needs some, and now and then takes it for the first
# word of one more sentence, which it then refuses as unfinished: so it may listen three times.
_SILENCES: Final = (0.12, 0.06, 0.25)


def listen(samples: Samples, rate: int, words: str, recognise: Recognise) -> str:
    """The words of `words`, a grammar, that were spoken; empty when none of them fits."""
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
    """A JSGF grammar: any of the sentences, one or more; `cut_short`: or the beginning of one."""
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
    """Those of `wanted` that were not heard, in their order."""
    rest = words_of(heard)
    missing = []
    for word in wanted:
        if word in rest:
            rest = rest[rest.index(word) + 1 :]
        else:
            missing.append(word)
    return missing


def _beginning(words: list[str]) -> str:
    """The first word, and as many of the others in a row as there are."""
    first, *rest = words
    return f"{first} [{_beginning(rest)}]" if rest else first
