"""singer-sdk's own suite of tests for taps, on a DuckDB file, a SQLite file and a query."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import duckdb
from singer_sdk.testing import get_tap_test_class

from melisma_tap_duckdb.tap import TapDuckDB

_TEMPORARY = tempfile.TemporaryDirectory(prefix="tap-duckdb-suite-")  # goes when the process ends
_FOLDER = Path(_TEMPORARY.name)
with duckdb.connect(_FOLDER / "a.duckdb") as _shop:
    _shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total DECIMAL(9,2), sold TIMESTAMP, tags VARCHAR[])")
    _shop.execute("INSERT INTO orders VALUES (1, 1.5, '2024-01-01', ['a']), (2, NULL, NULL, NULL)")
with sqlite3.connect(_FOLDER / "a.sqlite") as _file:
    _file.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT)")
    _file.execute("INSERT INTO orders VALUES (1, 'x'), (2, NULL)")
_file.close()

QUERY = {"name": "by_day", "sql": "SELECT id, sold FROM orders WHERE sold IS NOT NULL", "replication_key": "id"}

TestTapDuckDB = get_tap_test_class(
    tap_class=TapDuckDB, config={"path": str(_FOLDER / "a.duckdb"), "tables": ["*"], "queries": [QUERY]}
)
TestTapDuckDBOnSQLite = get_tap_test_class(tap_class=TapDuckDB, config={"path": str(_FOLDER / "a.sqlite")})
