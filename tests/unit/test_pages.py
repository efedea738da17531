"""The pages: their links lead somewhere, and the index names each of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.events.kinds import KINDS
from pipecat_bridge.events.record import (
    AnswerTimes,
    BotRecord,
    Delay,
    Quality,
    Record,
    RecordingPart,
    Talk,
    TranscriptPart,
)
from pipecat_bridge.events.schema import record_schema
from pipecat_bridge.runner.modes import MODES

ROOT = Path(__file__).parents[2]
DESIGN = ROOT / "docs" / "design.md"
PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))


def anchors(page: Path) -> set[str]:
    """What a link may name after `#`: each heading in lower case, with hyphens for spaces."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Files that a page links to, and the anchors in them."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            yield (page.parent / name if name else page), anchor


class PagesTests(SynchronousTestCase):
    def test_links_lead_somewhere(self) -> None:
        for page in PAGES:
            for target, anchor in links(page):
                self.assertTrue(target.exists(), f"{page.name}: {target}")
                if anchor:
                    self.assertIn(anchor, anchors(target), f"{page.name}: {target.name}")

    def test_the_index_names_every_page(self) -> None:
        index = ROOT / "docs" / "README.md"
        named = {target.resolve() for target, _ in links(index)}
        self.assertEqual([page for page in PAGES if page not in {*named, index}], [])

    def test_the_layers_are_drawn_as_the_linter_has_them(self) -> None:
        linter = ConfigParser()
        linter.read(ROOT / "setup.cfg")
        layers = linter["importlinter:contract:layers"]["layers"].split("\n")
        drawing = re.search(r"^```\n(.*?)^```", DESIGN.read_text("utf-8"), re.M | re.S)
        assert drawing is not None
        self.assertEqual(drawing[1].splitlines(), [layer for layer in layers if layer])
        rows = re.findall(r"^\| `(\w+)` \|", DESIGN.read_text("utf-8"), re.M)
        self.assertEqual(rows, re.findall(r"\w+", drawing[1]))

    def test_bots_md_says_of_every_runner_mode_what_its_record_says(self) -> None:
        text = (ROOT / "docs" / "bots.md").read_text("utf-8")
        for mode in MODES.values():
            dials = "the bot dials the bridge" if mode.listens else "the bridge dials the bot"
            url = "not used" if mode.supervised else f"`{mode.example}`"
            path = f"`{mode.health_path}`" if mode.health_path else "none"
            row = f"| `{mode.name}` | {mode.summary} | {url} | {dials} | {path} |"
            self.assertIn(row, text.splitlines())

    def test_files_of_the_project_that_pages_name_exist(self) -> None:
        package = ROOT / "pipecat_bridge"
        places = (ROOT, package, package / "workers", *package.rglob("__init__.py"))
        folders = [place.parent if place.is_file() else place for place in places]
        for page in PAGES:
            for name in re.findall(r"`([\w/]+\.(?:py|sh))`", page.read_text("utf-8")):
                found = any((folder / name).exists() for folder in folders)
                self.assertTrue(found, f"{page.name}: {name}")

    def test_records_md_names_every_member_and_kind(self) -> None:
        text = (ROOT / "docs" / "records.md").read_text("utf-8")
        whole = (Record, BotRecord, Talk, AnswerTimes, Quality, Delay)
        parts = (*whole, TranscriptPart, RecordingPart)
        members = {name for part in (*parts, *KINDS.values()) for name in part.__struct_fields__}
        missing = [name for name in sorted({*members, *KINDS}) if f"`{name}`" not in text]
        self.assertEqual(missing, [])
        for kind, data in KINDS.items():
            [row] = re.findall(rf"^\| `{re.escape(kind)}` \|(.*)\|$", text, re.M)
            told = {name for name in data.__struct_fields__ if f"`{name}`" in row}
            self.assertEqual(told, set(data.__struct_fields__), kind)

    def test_the_schema_of_the_record_is_that_of_the_code(self) -> None:
        shown = json.loads((ROOT / "docs" / "record.schema.json").read_text("utf-8"))
        self.assertEqual(shown, json.loads(json.dumps(record_schema())))
