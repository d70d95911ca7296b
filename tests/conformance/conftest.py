"""The conformance tests' own modules are imported by name; one process serves all runs of a target."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from forking import ForkedTarget


@pytest.fixture(scope="session")
def target_parquet() -> Iterator[ForkedTarget]:
    """Runs target-parquet, each time in a process of its own that needs no start-up."""
    with ForkedTarget("melisma_target_parquet.target:TargetParquet") as target:
        yield target
