"""What real taps write lands, with the right types: the lines as such taps print them, read back by DuckDB.

A golden beside each input (`data/<tap>.txt`) shows every column's type and every row. `UPDATE_GOLDENS=1` writes them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import duckdb
import pytest
from forking import ForkedTarget

DATA = Path(__file__).parent / "data"
TAPS = sorted(path.stem for path in DATA.glob("*.singer"))


def describe(lake: Path) -> str:
    """Columns, types and rows of every stream of a lake, as DuckDB sees them."""
    parts = []
    for folder in sorted(path for path in lake.iterdir() if path.name != "_melisma"):
        rows = duckdb.read_parquet([str(path) for path in folder.rglob("*.parquet")])
        width = max(map(len, rows.columns))
        parts.append(f"{folder.name}\n")
        parts += [f"  {name:{width}}  {kind}\n" for name, kind in zip(rows.columns, map(str, rows.types), strict=True)]
        parts += [f"  {row!r}\n" for row in rows.order("ALL").project("COLUMNS(*)::VARCHAR").fetchall()]
    return "".join(parts)


@pytest.mark.parametrize("tap", TAPS)
def test_lines_of_a_real_tap_land(tap: str, target_parquet: ForkedTarget, tmp_path: Path) -> None:
    """Every record is there with the types of the golden, and the last STATE is printed as it came."""
    data = (DATA / f"{tap}.singer").read_bytes()
    (tmp_path / "config.json").write_text('{"destination_path": "lake"}')
    outcome = target_parquet.run(tmp_path, "--config", "config.json", data=data, env={"TZ": "UTC"})
    assert outcome.exit_code == 0, outcome.stderr
    last = data.splitlines()[-1]
    assert json.loads(outcome.stdout) == json.loads(last)["value"]
    duckdb.sql("SET TimeZone = 'UTC'")
    found = describe(tmp_path / "lake")
    assert found.count("\n  (") == data.count(b'"RECORD"')
    golden = DATA / f"{tap}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("tap", TAPS)
def test_lines_of_a_real_tap_land_alike_whatever_the_settings(
    tap: str, target_parquet: ForkedTarget, tmp_path: Path
) -> None:
    """With `_sdc_*` columns and without validation the same columns and rows are there."""
    data = (DATA / f"{tap}.singer").read_bytes()
    settings = {"destination_path": "lake", "add_record_metadata": True, "validate_records": False}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    outcome = target_parquet.run(tmp_path, "--config", "config.json", data=data)
    assert outcome.exit_code == 0, outcome.stderr
    (stream,) = {json.loads(line)["stream"] for line in data.splitlines() if b'"SCHEMA"' in line}
    names = duckdb.read_parquet(f"{tmp_path}/lake/{stream}/*.parquet").columns
    golden = (DATA / f"{tap}.txt").read_text(encoding="utf-8").splitlines()
    named = [line.split("  ")[1] for line in golden[1:] if not line.startswith("  (")]
    assert [name for name in names if not name.startswith("_sdc_")] == [n for n in named if not n.startswith("_sdc_")]
    assert {"_sdc_extracted_at", "_sdc_received_at", "_sdc_batched_at"} <= set(names)
