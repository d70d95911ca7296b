"""docs/lake.md: every example prints what the page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from small_lake import BIN, Lake

from melisma.lake_cli.main import LakeCommands

PAGE = Path(__file__).parents[3] / "docs" / "lake.md"

# What differs from run to run, and how wide it makes a column.
_VARIES = [
    (re.compile(r"\d{8}T\d{6}Z[0-9a-f]{8}"), "RUN"),
    (re.compile(r"\b[0-9a-f]{16,64}\b"), "DIGEST"),
    (re.compile(r'"bytes": \d+'), "SIZE"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+\+00:00)?"), "TIME"),
    (re.compile(r"\d+(\.\d)? (B|KiB)\b"), "SIZE"),
    (re.compile(r" +"), " "),
]


def examples() -> list[tuple[str, str]]:
    """Every command of the page with the output that follows it, in the page's order."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE) if part]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def plain(text: str) -> list[str]:
    """Lines without what differs from run to run."""
    for pattern, word in _VARIES:
        text = pattern.sub(word, text)
    return [line.rstrip() for line in text.splitlines()]


def test_every_example_prints_what_the_page_says(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the page's order, on one lake."""
    monkeypatch.chdir(lake.folder)
    lake.config()
    for command, output in examples():
        program, *arguments = shlex.split(command)
        assert program == "melisma"
        result = lake.call(*arguments)
        shown = plain("\n".join([*result.out.splitlines(), *(f"error: {line}" for line in result.errors)]))
        assert shown == plain(output), command


def test_every_command_has_an_example() -> None:
    """A command without one is not documented."""
    shown = {shlex.split(command)[2] for command, _ in examples()}
    elsewhere = {"replay-dead-letters"}  # shown in docs/evolution.md, run by tests/targets/test_dead_letters.py
    assert shown | elsewhere == set(LakeCommands.MODULES)
    assert "melisma lake replay-dead-letters" in PAGE.with_name("evolution.md").read_text(encoding="utf-8")


def test_the_programs_of_the_page_run(lake: Lake) -> None:
    """The Python that reads a lake at one commit prints what the comment says."""
    [program] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=lake.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == re.findall(r"# prints (.*)", program)
