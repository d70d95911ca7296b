"""`make demo` shows what the README says, on the real data."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.network
@pytest.mark.slow
def test_the_demonstration_lands_every_flight_exactly(tmp_path: Path) -> None:
    """Three runs; then the lake holds the same rows as the CSV files, as DuckDB reads both."""
    command = [sys.executable, str(ROOT / "demo" / "run.py"), "--folder", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"^January to November +308,641 +11 ", result.stdout, re.MULTILINE)
    assert re.search(r"^December arrives +28,135 +1 ", result.stdout, re.MULTILINE)
    assert re.search(r"^nothing new +0 +0 ", result.stdout, re.MULTILINE)

    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    files, lake = f"{tmp_path}/demo-data/*.csv", f"{tmp_path}/demo-lake/flights/**/*.parquet"
    source = database.read_csv(files, na_values=["NA", ""], sample_size=-1)
    source.create_view("csv_files")
    database.read_parquet(lake, hive_partitioning=True).project(", ".join(source.columns)).create_view("lake")
    for query in (
        "SELECT count(*) FROM (FROM csv_files EXCEPT ALL FROM lake)",
        "SELECT count(*) FROM (FROM lake EXCEPT ALL FROM csv_files)",
    ):
        assert database.execute(query).fetchall() == [(0,)]
    types = database.execute("SELECT typeof(arr_delay), typeof(time_hour) FROM lake LIMIT 1").fetchall()
    assert types == [("BIGINT", "TIMESTAMP WITH TIME ZONE")]
