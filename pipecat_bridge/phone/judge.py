"""Whether the right things were said, from what a recogniser heard.

The recogniser chooses among the sentences that the bot might say and decoys that it must not say,
so that a wrong answer, or noise, comes out as something else than the right one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class Answer(NamedTuple):
    """What the bot may say to one question, and the words without which it is not the answer.

    Of an answer that was interrupted only its beginning is heard: `opening` are the words that
    must be in it then.
    """

    sentences: list[str]
    words: list[str]
    opening: list[str]


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
