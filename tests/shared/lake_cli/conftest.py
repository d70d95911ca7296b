"""Each test gets a copy of one small lake."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from small_lake import RUNS, Lake


@pytest.fixture(scope="session")
def three_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake that each test gets a copy of."""
    lake = Lake(tmp_path_factory.mktemp("lake"))
    for lines in RUNS:
        assert lake.load(lines)[0] == 0
    return lake.folder


@pytest.fixture
def lake(three_runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Lake]:
    """A lake of eleven orders: commits 3, 8 and 13; the last added a column and brought order 8 again."""
    shutil.copytree(three_runs, tmp_path / "copy")
    yield Lake(tmp_path / "copy", caplog)
    logging.captureWarnings(capture=False)  # the commands do, for the life of their process
