"""Settings, discovery, selection and errors, as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import duckdb
import pytest

from melisma.errors import ConfigError, DatabaseError, StorageError

from .conftest import query

SHOP = (
    "CREATE TABLE orders (id INTEGER, line INTEGER, total DECIMAL(9,2) NOT NULL, PRIMARY KEY (line, id))",
    "COMMENT ON TABLE orders IS 'what was sold'",
    "COMMENT ON COLUMN orders.total IS 'in euros'",
    "INSERT INTO orders VALUES (1, 1, 1.50), (1, 2, 2.25)",
    "CREATE VIEW totals AS SELECT id, sum(total) AS total FROM orders GROUP BY id",
    "CREATE SCHEMA staging",
    'CREATE TABLE staging."odd ""name.x" (a INTEGER, "b.c ""d" VARCHAR)',
    'INSERT INTO staging."odd ""name.x" VALUES (1, \'x\')',
)


def test_tables_and_views_with_keys_and_comments(tap: Any) -> None:
    """All of the file, in every schema, whatever their names."""
    config = {"path": tap.duckdb(*SHOP)}
    catalog = {stream["stream"]: stream for stream in tap.catalog(config)["streams"]}
    assert set(catalog) == {"orders", "totals", 'staging-odd "name.x'}
    orders = catalog["orders"]
    assert orders["key_properties"] == ["line", "id"]
    assert orders["schema"]["description"] == "what was sold"
    assert orders["schema"]["properties"] == {
        "id": {"type": ["integer"]},
        "line": {"type": ["integer"]},
        "total": {"type": ["number", "null"], "precision": 9, "scale": 2, "description": "in euros"},
    }
    output = tap.sync(config)
    assert output.records("totals") == [{"id": 1, "total": Decimal("3.75")}]
    assert output.records('staging-odd "name.x') == [{"a": 1, 'b.c "d': "x"}]


@pytest.mark.parametrize(
    ("settings", "streams"),
    [
        ({"tables": ["orders"]}, {"orders"}),
        ({"tables": ["staging.*", "tot*"]}, {'staging-odd "name.x', "totals"}),
        ({"queries": [{"name": "n", "sql": "SELECT 1 AS one"}]}, {"n"}),
        ({"queries": [{"name": "n", "sql": "SELECT 1 AS one"}], "tables": ["totals"]}, {"n", "totals"}),
    ],
)
def test_which_tables_are_streams(tap: Any, settings: Any, streams: set[str]) -> None:
    """Those that `tables` names; by default all, and none where there are queries."""
    assert {s["stream"] for s in tap.catalog({"path": tap.duckdb(*SHOP), **settings})["streams"]} == streams


def test_a_pattern_that_matches_nothing_is_warned_of(tap: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt table shows."""
    tap.catalog({"path": tap.duckdb(*SHOP), "tables": ["orders", "order_items"]})
    assert 'no table or view matches "main.order_items"' in caplog.text


def test_a_query_joins_files_and_the_database(tap: Any) -> None:
    """Parquet, CSV and a table in one SELECT, with comments and a semicolon at its end."""
    duckdb.sql(f"COPY (SELECT 1 AS id, 'Wien' AS city) TO '{tap.folder}/shops.parquet'")
    (tap.folder / "rates.csv").write_text("id,rate\n1,0.5\n", encoding="utf-8")
    sql = f"""
        -- ü; what each city sold;
        SELECT city, sum(total * rate::DECIMAL(4,2)) AS "Σ"
        FROM orders JOIN read_parquet('{tap.folder}/*.parquet') USING (id) JOIN '{tap.folder}/rates.csv' USING (id)
        GROUP BY city; -- that is all;
    """
    config = {"path": tap.duckdb(*SHOP), **query(sql, key_properties=["city"])}
    assert tap.sync(config).records() == [{"city": "Wien", "Σ": Decimal("1.8750")}]


def test_only_selected_columns_are_read(tap: Any) -> None:
    """A column that would fail is not looked at when it is deselected."""
    config = query("SELECT 1 AS id, error('it was read') AS bad")
    catalog = tap.catalog(config)
    for entry in catalog["streams"][0]["metadata"]:
        entry["metadata"]["selected"] = entry["breadcrumb"] != ["properties", "bad"]
    assert tap.sync(config, catalog=catalog).records() == [{"id": 1}]


def test_init_sql_and_settings_come_first(tap: Any) -> None:
    """A macro for the queries, another time zone."""
    config = query("SELECT twice(21) AS n, current_setting('TimeZone') AS zone") | {
        "init_sql": ["CREATE TEMP MACRO twice(x) AS 2 * x"],
        "duckdb_settings": {"TimeZone": "Europe/Vienna", "threads": 1, "memory_limit": "200MB"},
    }
    assert tap.sync(config).records() == [{"n": 42, "zone": "Europe/Vienna"}]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, 'setting "queries": is empty, and no path is set'),
        (query("SELEC 1"), r'setting "queries\[0\].sql": Parser Error: syntax error at or near "SELEC"'),
        (query("SELECT nope FROM range(3)"), 'Binder Error: Referenced column "nope" not found'),
        (query("FROM nope"), "Catalog Error: Table with name nope does not exist"),
        (query("SELECT 1; SELECT 2"), r'"queries\[0\].sql": is not one SELECT'),
        (query("CREATE TABLE t (a INTEGER)"), r'"queries\[0\].sql": is not one SELECT'),
        (query("COPY (SELECT 1) TO 'x.csv'"), r'"queries\[0\].sql": is not one SELECT'),
        (query("SELECT * FROM tap"), "Table with name tap does not exist"),
        (query("SELECT 1 AS id", key_properties=["Id"]), r'"queries\[0\].key_properties": names "Id", which is no col'),
        (query("SELECT 1 AS id", replication_key="x"), r'replication_key": names "x", .* The columns are: id'),
        ({"queries": [{"name": "a", "sql": "SELECT 1"}] * 2}, r'"queries\[1\].name": is the name of another query too'),
        (query("SELECT 1") | {"tables": ["t"]}, 'setting "tables": needs a database file'),
        (query("SELECT 1") | {"init_sql": ["SELECT 's3cret' FROM no"]}, r'init_sql\[0\]": DuckDB refuses it \(Catalog'),
        (query("SELECT 1") | {"duckdb_settings": {"no": "s3cret"}}, 'duckdb_settings.no": is not a setting of DuckDB'),
        (query("SELECT 1") | {"duckdb_settings": {"a = 1; --": 1}}, "is not the name of a DuckDB setting"),
        ({"path": "/nowhere/x.duckdb"}, 'setting "path": there is no such file'),
    ],
)
def test_a_wrong_setting_is_one_line(tap: Any, config: Any, message: str) -> None:
    """It names the setting, and shows what DuckDB says of a query, and nothing of `init_sql`."""
    with pytest.raises(ConfigError, match=message) as raised:
        tap.catalog(config)
    assert "\n" not in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_a_stream_that_would_be_there_twice_is_an_error(tap: Any) -> None:
    """A query with the name of a table."""
    config = {"path": tap.duckdb(*SHOP), "tables": ["*"], "queries": [{"name": "orders", "sql": "SELECT 1"}]}
    with pytest.raises(ConfigError, match='the stream "orders" would be there twice'):
        tap.catalog(config)


def test_another_kind_of_file_is_an_error(tap: Any) -> None:
    """With how to read such files."""
    (tap.folder / "a.csv").write_text("id\n1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"neither a DuckDB nor a SQLite file. .* read_csv"):
        tap.catalog({"path": str(tap.folder / "a.csv")})


def test_a_file_that_is_being_written_is_an_error(tap: Any) -> None:
    """Another process has it open: exit code 1 and one line."""
    path = tap.duckdb(*SHOP)
    code = f"import duckdb, sys; c = duckdb.connect({path!r}); print('open', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        with pytest.raises(StorageError, match="another process has it open for writing"):
            tap.catalog({"path": path})
        done = tap.execute({"path": path}, "--discover")
    finally:
        holder.stdin.close()
        holder.wait()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert tap.catalog({"path": path})


def test_the_file_is_opened_for_reading_only(tap: Any) -> None:
    """Not even `init_sql` can change it."""
    path = tap.duckdb(*SHOP)
    with pytest.raises(ConfigError, match=r"init_sql\[0\]"):
        tap.catalog({"path": path, "init_sql": ["DELETE FROM orders"]})


def test_a_value_is_never_in_an_error(tap: Any) -> None:
    """A cast that fails while rows are read: exit code 3, the stream, and not what it holds."""
    sql = "SELECT CAST(t AS INTEGER) AS n FROM (VALUES ('1'), ('s3cret')) v(t)"
    done = tap.execute(query(sql))
    assert done.returncode == 3
    assert 'stream "q": a value cannot be converted' in done.stderr
    assert "s3cret" not in done.stderr + done.stdout


def test_a_file_that_is_gone_names_it(tap: Any) -> None:
    """What DuckDB says of a path is shown."""
    with pytest.raises(DatabaseError, match=r'stream "q", DuckDB: IO Error: No files found .*nope\.parquet'):
        tap.catalog(query("FROM read_parquet('nope.parquet')"))


def test_the_configuration_may_come_from_the_environment(tap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in every connector on singer-sdk."""
    monkeypatch.setenv("TAP_DUCKDB_QUERIES", json.dumps([{"name": "e", "sql": "SELECT 1 AS one"}]))
    command = tap.command({})
    done = subprocess.run([*command[:3], "--config", "ENV"], capture_output=True, text=True, check=False)
    assert '"record":{"one":1}' in done.stdout
