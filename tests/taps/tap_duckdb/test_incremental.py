"""By replication key: inclusive, in the key's order, with a STATE as it goes; and into a lake, nothing twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from melisma.errors import CatalogError
from melisma.tap.stream import ArrowStream

from .conftest import query

KEYS = {
    "BIGINT": "i - 3",
    "HUGEINT": "(i - 3) * 10000000000000000000000000000::HUGEINT",
    "UBIGINT": "18446744073709551600 + i",
    "DECIMAL(12,2)": "i * 1.25 - 2",
    "DATE": "DATE '2024-02-27' + i::INTEGER",
    "TIMESTAMP": "TIMESTAMP '2024-02-29 23:59:59.999998' + i * INTERVAL '1 microsecond'",
    "TIMESTAMP_NS": "make_timestamp_ns(1709164800123456780 + i)",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ '2024-02-29 23:59:59+05:30' + i * INTERVAL '1 hour'",
    "VARCHAR": "'k' || i",
    "ENUM('k9', 'k1', 'k0', 'k2', 'a', 'b', 'c')": "['k9', 'k1', 'k0', 'k2', 'a', 'b', 'c'][i + 1]",
    "INTERVAL": "to_days((i * 5)::INTEGER)",
    "UUID": "('00000000-0000-0000-0000-00000000000' || i)::UUID",
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("engine_settings", [{}, {"TimeZone": "Asia/Kolkata"}], ids=["UTC", "Kolkata"])
def test_the_next_run_starts_at_the_last_key(tap: Any, kind: str, engine_settings: Any) -> None:
    """Whatever the key's type, and DuckDB's time zone: rows at the last value again, those after it, none before."""
    sql = f"SELECT i AS id, CAST({KEYS[kind]} AS {kind}) AS k FROM range(%d) t(i) ORDER BY id DESC"
    first = tap.sync(query(sql % 5, replication_key="k") | {"duckdb_settings": engine_settings})
    assert [r["id"] for r in first.records()] == [0, 1, 2, 3, 4]
    bookmark = first.state["bookmarks"]["q"]
    assert bookmark["replication_key"] == "k"
    last = first.records()[-1]["k"]
    assert bookmark["replication_key_value"] in {last, str(last)}
    again = tap.sync(query(sql % 7, replication_key="k") | {"duckdb_settings": engine_settings}, first.state)
    assert [r["id"] for r in again.records()] == [4, 5, 6]


def test_rows_without_a_key_come_first_and_once(tap: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Later runs leave them out, and say so."""
    rows = "(1, NULL), (2, 5), (3, 4)"
    config = query(f"SELECT * FROM (VALUES {rows}) t(id, k)", replication_key="k")
    first = tap.sync(config)
    assert [r["id"] for r in first.records()] == [1, 3, 2]
    assert "no value in the replication key" not in caplog.text
    assert [r["id"] for r in tap.sync(config, first.state).records()] == [2]
    assert 'some rows have no value in the replication key "k"' in caplog.text


def test_a_table_is_incremental_where_the_catalog_says_so(tap: Any) -> None:
    """The key is read even where it is not selected, and is not sent then."""
    path = tap.duckdb("CREATE TABLE t (id INTEGER PRIMARY KEY, k INTEGER)", "INSERT INTO t VALUES (1, 10), (2, 20)")
    catalog = tap.catalog({"path": path})
    catalog["streams"][0] |= {"replication_method": "INCREMENTAL", "replication_key": "k"}
    for entry in catalog["streams"][0]["metadata"]:
        entry["metadata"]["selected"] = entry["breadcrumb"] != ["properties", "k"]
    first = tap.sync({"path": path}, catalog=catalog)
    assert first.records() == [{"id": 1}, {"id": 2}]
    assert first.state["bookmarks"]["t"]["replication_key_value"] == 20


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"replication_method": "LOG_BASED"}, "cannot be replicated by LOG_BASED. Valid methods: FULL_TABLE, INCREM"),
        ({"replication_method": "INCREMENTAL"}, "INCREMENTAL, but it has no replication key"),
        ({"replication_key": "nope"}, 'its replication key "nope" is no column. The columns are: id, f, j'),
        ({"replication_key": "f"}, '"f" is neither an integer, a decimal, a time, nor text'),
        ({"replication_key": "j"}, '"j" is neither an integer, a decimal, a time, nor text'),
    ],
)
def test_a_method_or_key_that_cannot_work_is_an_error(tap: Any, entry: Any, message: str) -> None:
    """Before anything is read."""
    path = tap.duckdb("CREATE TABLE t (id INTEGER, f DOUBLE, j JSON)")
    catalog = tap.catalog({"path": path})
    catalog["streams"][0].pop("replication_method")
    catalog["streams"][0] |= entry
    with pytest.raises(CatalogError, match=message):
        tap.sync({"path": path}, catalog=catalog)


def test_a_state_of_another_key_starts_anew(tap: Any, caplog: pytest.LogCaptureFixture) -> None:
    """With a warning."""
    state = {"bookmarks": {"q": {"replication_key": "old", "replication_key_value": 3}}}
    config = query("SELECT i AS id FROM range(5) t(i)", replication_key="id")
    assert len(tap.sync(config, state).records()) == 5
    assert "another replication key" in caplog.text


def test_wherever_the_output_is_cut_the_state_covers_what_came_before(
    tap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a run from it sends all that is left. Ties at the last key come again."""
    monkeypatch.setattr(ArrowStream, "STATE_MSG_FREQUENCY", 1)
    config = query("SELECT i AS id, i // 3 AS k FROM range(60000) t(i)", replication_key="k", key_properties=["id"])
    messages = tap.sync(config).messages
    states = [i for i, m in enumerate(messages) if m["type"] == "STATE"]
    assert len(states) > 2
    for cut in [*states, len(messages)]:
        kept = messages[: cut + 1]
        last = max(i for i, m in enumerate(kept) if m["type"] == "STATE")
        settled = {m["record"]["id"] for m in kept[:last] if m["type"] == "RECORD"}
        rest = [r["id"] for r in tap.sync(config, kept[last]["value"]).records()]
        assert len(rest) == len(set(rest))
        assert settled | set(rest) == set(range(60000))
        assert len(settled & set(rest)) <= 3


def test_into_a_lake_twice_and_after_new_rows(tap: Any, tmp_path: Path) -> None:
    """tap-duckdb into target-parquet with its committed STATE: each row once, the boundary rows too."""
    target = tmp_path / "target.json"
    target.write_text(json.dumps({"destination_path": str(tmp_path / "lake")}), encoding="utf-8")
    executable = [str(Path(sys.executable).parent / "target-parquet"), "--config", str(target)]
    path = tap.duckdb(
        "CREATE TABLE t (id INTEGER, sold TIMESTAMP, total DECIMAL(12,2))",
        "INSERT INTO t SELECT i, TIMESTAMP '2024-01-01' + (i // 10) * INTERVAL '1 hour', i / 4 FROM range(1000) t(i)",
    )
    config = {"path": path, "queries": [{"name": "t", "sql": "FROM t", "replication_key": "sold"}]}
    for extra in (
        "SELECT 1 WHERE false",
        "INSERT INTO t SELECT 2000 + i, max(sold), 7 FROM t, range(5) r(i) GROUP BY i",
    ):
        tap.duckdb(extra)
        for _ in range(2):
            state = subprocess.run([*executable, "--committed-state"], check=True, capture_output=True).stdout
            (tmp_path / "state.json").write_bytes(state)
            lines = subprocess.run(
                tap.command(config, "--state", str(tmp_path / "state.json")), check=True, capture_output=True
            ).stdout
            subprocess.run(executable, input=lines, check=True, capture_output=True)
            columns = "id, epoch(sold), total::VARCHAR"
            files = str(tmp_path / "lake" / "t" / "*.parquet")
            landed = duckdb.sql(f"SELECT {columns} FROM read_parquet('{files}') ORDER BY id").fetchall()
            with duckdb.connect(path, read_only=True) as source:
                assert landed == source.sql(f"SELECT {columns} FROM t ORDER BY id").fetchall()


def test_a_signal_ends_a_query_that_runs_long(tap: Any) -> None:
    """SIGTERM is heard while DuckDB works: exit code 143, no traceback."""
    sql = "SELECT count(*) AS n FROM range(1000000) a(x), range(1000000) b(y) WHERE (x * y) % 7 = 3"
    config = query(sql) | {"duckdb_settings": {"threads": 1}}
    catalog = tap.folder / "catalog.json"
    catalog.write_text(json.dumps(tap.catalog(config)), encoding="utf-8")
    process = subprocess.Popen(
        tap.command(config, "--catalog", str(catalog)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert '"SCHEMA"' in process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "ended by signal 15" in errors
    assert "Traceback" not in errors
