"""`melisma lake compact` and `rollback`, killed on the way: the next run finds every row once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "shared/lake_cli"))
from small_lake import BIN, COLUMNS, Lake, messages, order, state

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve orders from three runs; the first two are acknowledged."""
    folder = tmp_path_factory.mktemp("loaded")
    for first in (0, 4, 8):
        load(Lake(folder), first, first + 4)
    return folder


@pytest.fixture
def lake(loaded: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Lake:
    """A copy of that lake."""
    shutil.copytree(loaded, tmp_path / "copy")
    return Lake(tmp_path / "copy", caplog)


def load(lake: Lake, start: int, end: int) -> None:
    """A run that brings the orders after `start`."""
    code, err = lake.load(messages(start, [order(n) for n in range(start + 1, end + 1)], end, COLUMNS))
    assert code == 0, err


def killed(lake: Lake, point: str, *arguments: str) -> None:
    """`melisma lake ...` as a process that is killed at a fail point."""
    command = [str(BIN / "melisma"), "lake", *arguments, "--path", str(lake.root)]
    done = subprocess.run(command, env={**os.environ, "MELISMA_FAILPOINT": point}, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def check(lake: Lake, count: int) -> None:
    """Each order is there once, by two engines, and the files are what the journal says."""
    files = [str(path) for path in lake.files()]
    found = duckdb.execute("SELECT id FROM read_parquet(?) ORDER BY id", [files]).fetchall()
    assert [row[0] for row in found] == list(range(1, count + 1))
    assert pl.read_parquet(files, hive_partitioning=False)["id"].sort().to_list() == list(range(1, count + 1))
    assert (sound := lake.run("verify", "--deep")).code == 0, sound.out


@pytest.mark.parametrize(
    "point",
    ["put:written", "put:linked", "publish:one", "put:written@2", "put:linked@2", "compact:after", "compact:after@2"],
)
def test_a_compaction_that_is_killed_changes_no_row(lake: Lake, point: str) -> None:
    """At its intent, between files and entry, after the entry: the next run tidies up, and a second compaction ends."""
    killed(lake, point, "compact")
    load(lake, 12, 16)
    check(lake, 16)
    assert lake.run("compact").code == 0
    check(lake, 16)


@pytest.mark.parametrize("point", ["open:after", "put:written@2", "put:linked@2", "rollback:after", "end:before"])
def test_a_rollback_that_is_killed_is_done_or_is_not(lake: Lake, point: str) -> None:
    """The STATE that the lake then says is the one that its rows go with: a tap that starts there brings the rest."""
    [seq] = [entry["seq"] for entry in lake.run("log", "--json").json if json.loads(entry["state"]) == state(8)]
    killed(lake, point, "rollback", str(seq), "--yes")
    start = 12 if point in {"open:after", "put:written@2"} else 8
    assert lake.run("state").json == state(start)
    load(lake, start, 16)
    check(lake, 16)
