"""`melisma lake compact` and `rollback`, killed on the way: the next run finds every row once."""

from __future__ import annotations

import json
import os
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


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Twelve orders from three runs; the first two are acknowledged."""
    lake = Lake(tmp_path)
    for first in (0, 4, 8):
        load(lake, first, first + 4)
    return lake


def load(lake: Lake, start: int, end: int) -> None:
    """A run that brings the orders after `start`."""
    code, err = lake.load(messages(start, [order(n) for n in range(start + 1, end + 1)], end, COLUMNS))
    assert code == 0, err


def mend(lake: Lake, *arguments: str, point: str = "") -> subprocess.CompletedProcess[str]:
    """`melisma lake ...` as a process."""
    command = [str(BIN / "melisma"), "lake", *arguments, "--path", str(lake.root)]
    environment = {**os.environ, "MELISMA_FAILPOINT": point}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def check(lake: Lake, count: int) -> None:
    """Each order is there once, by two engines, and the files are what the journal says."""
    files = [str(path) for path in lake.files()]
    found = duckdb.execute("SELECT id FROM read_parquet(?) ORDER BY id", [files]).fetchall()
    assert [row[0] for row in found] == list(range(1, count + 1))
    assert pl.read_parquet(files, hive_partitioning=False)["id"].sort().to_list() == list(range(1, count + 1))
    assert (sound := mend(lake, "verify", "--deep")).returncode == 0, sound.stdout


@pytest.mark.parametrize(
    "point",
    ["put:written", "put:linked", "publish:one", "put:written@2", "put:linked@2", "compact:after", "compact:after@2"],
)
def test_a_compaction_that_is_killed_changes_no_row(lake: Lake, point: str) -> None:
    """At its intent, between files and entry, after the entry: the next run tidies up, and a second compaction ends."""
    assert mend(lake, "compact", point=point).returncode == -signal.SIGKILL
    load(lake, 12, 16)
    check(lake, 16)
    assert mend(lake, "compact").returncode == 0
    check(lake, 16)


@pytest.mark.parametrize("point", ["open:after", "put:written@2", "put:linked@2", "rollback:after", "end:before"])
def test_a_rollback_that_is_killed_is_done_or_is_not(lake: Lake, point: str) -> None:
    """The STATE that the lake then says is the one that its rows go with: a tap that starts there brings the rest."""
    log = json.loads(mend(lake, "log", "--json").stdout)
    [seq] = [entry["seq"] for entry in log if json.loads(entry["state"]) == state(8)]
    killed = mend(lake, "rollback", str(seq), "--yes", point=point)
    assert killed.returncode == -signal.SIGKILL
    start = 12 if point in {"open:after", "put:written@2"} else 8
    assert json.loads(mend(lake, "state").stdout) == state(start)
    load(lake, start, 16)
    check(lake, 16)
