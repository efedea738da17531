"""Dialplans that people copy: what a caller can choose is encoded before it gets into a request.

`called=${EXTEN}` lets a caller who dials `100&llm_messages=..` set parameters of the runner.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
OURS = ("PIPECAT_API", "PIPECAT_CALL", "ARG1")
"""Variables that the dialplan sets itself: the address of the API, and the UUID of the call."""


def closed(text: str, opening: str, closing: str) -> str:
    """The text up to where its first bracket, which is open already, is closed."""
    depth = 1
    for index, letter in enumerate(text):
        depth += (letter == opening) - (letter == closing)
        if depth == 0:
            return text[:index]
    raise AssertionError(f"not closed: {text[:80]}")


def requests(text: str) -> Iterator[str]:
    """The arguments of each CURL() that has any: URL and form."""
    for found in re.finditer(r"\bCURL\(", text):
        if arguments := closed(text[found.end() :], "(", ")"):
            yield arguments


def unencoded(arguments: str) -> list[str]:
    """The variables and functions in a request that are neither encoded nor ours."""
    found, rest = [], arguments
    while "${" in rest:
        rest = rest.partition("${")[2]
        inside = closed(rest, "{", "}")
        rest = rest[len(inside) :]
        if inside not in OURS and not re.fullmatch(r"URIENCODE\(.*\)", inside):
            found.append(inside)
    return found


class DialplanTests(SynchronousTestCase):
    def test_every_example_encodes(self) -> None:
        pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        files = [each for name in ("etc", "examples") for each in (ROOT / name).rglob("*")]
        seen = 0
        for path in [*pages, *(each for each in files if each.is_file())]:
            for request in requests(path.read_text("utf-8", "replace")):
                seen += 1
                self.assertEqual(unencoded(request), [], f"{path.name}: {request}")
        self.assertGreater(seen, 4)

    def test_what_it_would_find(self) -> None:
        call = "http://h/v1/calls/${PIPECAT_CALL}"
        for form, found in (
            ("", []),
            (",called=${EXTEN}", ["EXTEN"]),
            (",called=${URIENCODE(${EXTEN})}&a=b", []),
            (",called=${URIENCODE(${EXTEN})}&name=${CALLERID(name)}", ["CALLERID(name)"]),
            (",caller=${FILTER(0-9,${CALLERID(num)})}", ["FILTER(0-9,${CALLERID(num)})"]),
            ("/variables/${ARG2}", ["ARG2"]),
        ):
            [request] = requests(f"Set(A=${{CURL({call}{form})}}) and CURL()")
            self.assertEqual(unencoded(request), found)
