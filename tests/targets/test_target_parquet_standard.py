"""singer-sdk's standard target tests on target-parquet, read back with Polars."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import polars as pl
from singer_sdk.testing.suites import target_tests
from singer_sdk.testing.target_tests import TargetMultipleStateMessages

sys.path.insert(0, str(Path(__file__).parent))

from standard import standard_tests

from melisma_target_parquet.target import TargetParquet


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """A file's rows, read by Polars."""
    return pl.read_parquet(path, hive_partitioning=False).to_dicts()


TestStandard, TestReadBack, TestEachState = standard_tests(TargetParquet, ".parquet", read_parquet)


def test_the_stock_expectation_for_states_is_still_switched_off() -> None:
    """singer-sdk itself leaves its test of several STATEs out; when that changes, ours should take it over."""
    assert TargetMultipleStateMessages not in target_tests.tests
