"""SQLite files: types by declaration and by value, exactly."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

import pytest

from melisma.errors import BadRecord, CatalogError, ConfigError

MIXED = (
    """CREATE TABLE t (
        id INTEGER PRIMARY KEY, name VARCHAR(20), price DECIMAL(9,2), ok BOOLEAN, raw BLOB, f REAL, day DATE, any_kind,
        late AS (id * 2)
    )""",
    "INSERT INTO t VALUES (9223372036854775807, 'Zoë 😀', 1.5, 1, x'00ff', 0.1, '2024-02-29', 'x')",
    "INSERT INTO t VALUES (2, NULL, 3, 0, NULL, NULL, NULL, 1.5)",
)


def test_types_are_those_declared_or_found(tap: Any) -> None:
    """Declared integers, texts, blobs and booleans; a decimal by its values; mixed kinds as JSON text."""
    config = {"path": tap.sqlite(*MIXED)}
    output = tap.sync(config)
    assert output.properties("t") == {
        "id": {"type": ["integer"]},
        "name": {"type": ["string", "null"]},
        "price": {"type": ["number", "null"]},
        "ok": {"type": ["boolean", "null"]},
        "raw": {"type": ["string", "null"], "contentEncoding": "base64"},
        "f": {"type": ["number", "null"]},
        "day": {"type": ["string", "null"]},
        "any_kind": {"type": ["string", "null"], "contentMediaType": "application/json"},
        "late": {"type": ["number", "null"]},
    }
    [second, first] = output.records()
    assert json.loads(json.dumps(second, default=float)) == {
        "id": 2,
        "name": None,
        "price": 3.0,
        "ok": False,
        "raw": None,
        "f": None,
        "day": None,
        "any_kind": "1.5",
        "late": 4.0,
    }
    assert (first["id"], first["name"], first["raw"], first["any_kind"]) == (2**63 - 1, "Zoë 😀", "AP8=", '"x"')


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("'text'", 'stream "t", column "n": a value is text, which its type does not hold'),
        ("1.5", 'column "n": a value is a real number, which its type does not hold'),
        ("x'00'", 'column "n": a value is a blob, which its type does not hold'),
    ],
)
def test_a_value_of_another_kind_is_an_error(tap: Any, value: str, message: str) -> None:
    """SQLite stores it; the column's type does not hold it; a query that casts it is the way out."""
    path = tap.sqlite("CREATE TABLE t (n INTEGER)", f"INSERT INTO t VALUES (1), ({value})")
    with pytest.raises(BadRecord, match=message):
        tap.sync({"path": path})
    config = {"path": path, "queries": [{"name": "q", "sql": "SELECT CAST(n AS TEXT) AS n FROM t"}]}
    assert tap.sync(config).records()[0] == {"n": "1"}


def test_an_integer_that_no_double_holds_is_an_error(tap: Any) -> None:
    """In a column of numbers, 2^53 + 1 would become 2^53."""
    path = tap.sqlite("CREATE TABLE t (n DECIMAL)", "INSERT INTO t VALUES (9007199254740993), (0.5)")
    with pytest.raises(BadRecord, match="more digits than a double holds"):
        tap.sync({"path": path})


def test_a_text_that_is_not_utf8_is_an_error(tap: Any) -> None:
    """With the way out."""
    path = tap.sqlite("CREATE TABLE t (s TEXT)", "INSERT INTO t VALUES (CAST(x'ff' AS TEXT))")
    with pytest.raises(BadRecord, match=r"not valid UTF-8. Read it with a query that casts the column to BLOB"):
        tap.sync({"path": path})


def test_a_query_by_its_key(tap: Any) -> None:
    """Types of plain columns are those declared; the next run starts at the last key; a semicolon is no trouble."""
    path = tap.sqlite(*MIXED)
    sql = "SELECT id, upper(name) AS name FROM t; -- all of it"
    config = {"path": path, "queries": [{"name": "q", "sql": sql, "replication_key": "id"}]}
    first = tap.sync(config)
    assert [r["id"] for r in first.records()] == [2, 2**63 - 1]
    assert first.properties("q") == {"id": {"type": ["integer", "null"]}, "name": {"type": ["string", "null"]}}
    assert [r["id"] for r in tap.sync(config, first.state).records()] == [2**63 - 1]


@pytest.mark.parametrize("sql", ["SELEC 1", "SELECT 1; SELECT 2", "DELETE FROM t", "SELECT nope FROM t"])
def test_what_is_not_one_select_is_an_error(tap: Any, sql: str) -> None:
    """At discovery."""
    with pytest.raises(ConfigError, match=r'"queries\[0\].sql": SQLite refuses it as one SELECT'):
        tap.catalog({"path": tap.sqlite(*MIXED), "queries": [{"name": "q", "sql": sql}]})


def test_a_dropped_column_is_an_error(tap: Any) -> None:
    """The catalog holds."""
    path = tap.sqlite("CREATE TABLE t (a INTEGER, b INTEGER)", "INSERT INTO t VALUES (1, 2)")
    catalog = tap.catalog({"path": path})
    tap.sqlite("ALTER TABLE t DROP COLUMN b")
    with pytest.raises(CatalogError, match='its column "b" is not there any more'):
        tap.sync({"path": path}, catalog=catalog)


def test_what_is_for_duckdb_is_refused(tap: Any) -> None:
    """Rather than ignored."""
    with pytest.raises(ConfigError, match='setting "init_sql": is for DuckDB'):
        tap.catalog({"path": tap.sqlite(*MIXED), "init_sql": ["SELECT 1"]})


def test_all_streams_see_one_state_of_the_file(tap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that another process writes between two streams are not seen."""
    path = tap.sqlite("PRAGMA journal_mode = wal", "CREATE TABLE a (n INTEGER)", "CREATE TABLE b (n INTEGER)")
    writer = sqlite3.connect(path)
    with contextlib.closing(writer):
        writer.execute("INSERT INTO a VALUES (1)")
        writer.commit()
        from melisma_tap_duckdb.read import QueryStream

        read = QueryStream.read_batches

        def writing(stream: QueryStream, context: Any) -> Any:
            yield from read(stream, context)
            writer.execute(f"INSERT INTO {'b' if stream.name == 'a' else 'a'} VALUES (2)")
            writer.commit()

        monkeypatch.setattr(QueryStream, "read_batches", writing)
        output = tap.sync({"path": path})
        assert (output.records("a"), output.records("b")) == ([{"n": 1}], [])
