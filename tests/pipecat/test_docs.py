"""What docs/bots.md gives to be copied is right."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import get_args

import pytest

from pipecat_bridge.config.load import load_options
from pipecat_bridge.wire import commands
from tests.asterisk.pbx import PROJECT

PAGE = (PROJECT / "docs" / "bots.md").read_text()


def blocks(language: str) -> list[str]:
    """The blocks of code in that language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", blocks("toml"))
def test_a_configuration_is_good(text: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        assert load_options(Path(file.name)).runner.mode in text


def test_the_commands_are_commands() -> None:
    (block,) = (text for text in blocks("json") if '"hangup"' in text)
    told = [commands.parse(json.loads(line)) for line in block.splitlines()]
    assert {type(command) for command in told} == set(get_args(commands.Command))


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (PROJECT / "docs" / target).exists(), target
