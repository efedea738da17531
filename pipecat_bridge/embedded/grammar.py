"""Reads a JSGF grammar: finds its words, and checks whether a sentence belongs to it.

This covers the part of JSGF that small telephone grammars use: rules, alternatives, groups,
optional parts, weights, repetition and comments. Rules must not refer to themselves, and imports
are not followed.
"""

from __future__ import annotations

import re
from functools import lru_cache

_RULE = re.compile(r"(?P<public>public\s+)?<(?P<name>[^<>]+)>\s*=\s*(?P<body>[^;]*);")
_TOKEN = re.compile(r"<[^<>]+>|/[\d.eE+-]+/|[()\[\]|*+]|[^\s()\[\]|*+<>/]+")
_PUNCTUATION = {"(": "(?:", ")": ")", "[": "(?:", "]": ")?", "|": "|", "*": "*", "+": "+"}


class GrammarError(ValueError):
    """A grammar cannot be read. The text says why."""


class Grammar:
    """A grammar, read from its text. Raises GrammarError if it cannot be read."""

    def __init__(self, text: str) -> None:
        self._rules = {
            rule["name"]: rule["body"] for rule in _RULE.finditer(_without_comments(text))
        }
        public = [
            rule["name"] for rule in _RULE.finditer(_without_comments(text)) if rule["public"]
        ]
        if not public:
            raise GrammarError('the grammar has no public rule; expected "public <name> = ...;"')
        self.text = text
        self.words: set[str] = set()
        alternatives = (f"(?:{self._pattern(name, ())})" for name in public)
        self._sentence = re.compile("|".join(alternatives))

    def accepts(self, sentence: str) -> bool:
        """Whether `sentence`, words separated by blanks, is a complete sentence of the grammar."""
        return (
            self._sentence.fullmatch("".join(f"{word} " for word in sentence.split())) is not None
        )

    def _pattern(self, name: str, inside: tuple[str, ...]) -> str:
        """A regular expression for one rule. It expects a blank after every word."""
        if name in inside:
            raise GrammarError(f"the rule <{name}> refers to itself, which is not supported here")
        if name in ("NULL", "VOID"):
            return ""
        if name not in self._rules:
            raise GrammarError(f"the rule <{name}> is used but not defined")
        tokens = _TOKEN.findall(self._rules[name])
        return "".join(self._part(token, (*inside, name)) for token in tokens)

    def _part(self, token: str, inside: tuple[str, ...]) -> str:
        if token in _PUNCTUATION:
            return _PUNCTUATION[token]
        if token.startswith("/"):
            return ""
        if token.startswith("<"):
            return f"(?:{self._pattern(token[1:-1], inside)})"
        self.words.add(token)
        return f"(?:{re.escape(token)} )"


@lru_cache(maxsize=16)
def read_grammar(text: str) -> Grammar:
    """The grammar in `text`. It is kept for the next call."""
    return Grammar(text)


def _without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)
