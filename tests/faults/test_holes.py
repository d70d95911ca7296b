"""Each rule of the delivery protocol is held by a test: taken out, that test fails."""

from __future__ import annotations

import os
import re
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest
from holes import HOLES, Hole

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARY = ROOT / "shared/src"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("hole", HOLES, ids=[f"{hole.hole}: {hole.rule}" for hole in HOLES])
def test_without_its_rule_its_test_fails(hole: Hole, tmp_path: Path) -> None:
    """The edit is made in a copy of the library; the test fails there, and not because the copy cannot be imported."""
    copy = tmp_path / "src"
    shutil.copytree(LIBRARY, copy, ignore=shutil.ignore_patterns("__pycache__"))
    edited = copy / "melisma" / hole.file
    text = edited.read_text(encoding="utf-8")
    assert text.count(hole.before) == 1, f"{hole.file} has changed: bring tests/faults/holes.py into step"
    edited.write_text(text.replace(hole.before, hole.after), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", hole.test]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"\b1 failed\b", done.stdout), done.stdout


def test_the_page_names_the_test_of_every_hole() -> None:
    """docs/delivery.md has a row for each of the holes A to S, with the tests that are listed here."""
    page = (ROOT / "docs/delivery.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([A-S]) \|(.*)\|$", page, re.MULTILINE))
    assert "".join(rows) == string.ascii_uppercase[: string.ascii_uppercase.index("S") + 1]
    for hole in HOLES:
        if hole.hole in rows:
            name = hole.test.rpartition("::")[2].partition("[")[0].rpartition("/")[2].removesuffix(".py")
            assert f"`{name}`" in rows[hole.hole], f"{hole.hole}: {name}"
