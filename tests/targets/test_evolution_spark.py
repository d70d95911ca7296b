"""Spark reads the whole lake as docs/evolution.md says. Needs Java; `make test-spark` and CI run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

pytestmark = [pytest.mark.spark, pytest.mark.network]

INTEGER = {"type": ["null", "integer"]}
NUMBER = {"type": ["null", "number"]}
STRING = {"type": ["null", "string"]}
DATE = {"type": ["null", "string"], "format": "date"}
MOMENT = {"type": ["null", "string"], "format": "date-time"}
MONEY = {"type": ["null", "number"], "precision": 12, "scale": 2}
FINE = {"type": ["null", "number"], "precision": 12, "scale": 4}
CHANGES = {
    "nothing but new columns": (STRING, STRING, "a", "b"),
    "integer to number": (INTEGER, NUMBER, 2**53, 1.5),
    "integer to decimal": (INTEGER, MONEY, 2**63 - 1, 1.25),
    "decimal to decimal": (MONEY, FINE, 1.25, 1.2345),
    "date to timestamp": (DATE, MOMENT, "2020-01-01", "2020-01-02T03:04:05Z"),
    "members": (
        {"type": "object", "properties": {"a": INTEGER}},
        {"type": "object", "properties": {"a": INTEGER, "b": STRING}},
        {"a": 1},
        {"a": 2, "b": "x"},
    ),
}
MERGES = {"nothing but new columns", "members"}
"""Where mergeSchema is enough."""

PROGRAM = """
import functools

def rows(frame):
    plain = frame.selectExpr("id", "to_json(named_struct('c', c)) AS c", "added")
    return sorted(map(list, plain.collect()))

result = {}
for name, files in data.items():
    frames = [spark.read.parquet(file) for file in files]
    one = functools.reduce(lambda left, right: left.unionByName(right, allowMissingColumns=True), frames)
    try:
        merged = rows(spark.read.option("mergeSchema", "true").parquet(*files))
    except Exception:
        merged = None
    result[name] = {"union": rows(one), "type": dict(one.dtypes)["c"], "merged": merged}
"""


def test_spark_gets_one_table(lake: Any, tmp_path: Path, spark: Callable[..., Any]) -> None:
    """`unionByName` joins files of different types as DuckDB does; `mergeSchema` only where none differ."""
    files: dict[str, list[str]] = {}
    for number, (name, (before, after, old, new)) in enumerate(CHANGES.items()):
        lake.root = tmp_path / str(number)
        assert lake.load({"id": INTEGER, "c": before}, [{"id": 1, "c": old}])[0] == 0
        assert lake.load({"id": INTEGER, "c": after, "added": STRING}, [{"id": 2, "c": new, "added": "y"}])[0] == 0
        files[name] = [str(path) for path in lake.files()]
    found = spark(PROGRAM, files)
    for name, paths in files.items():
        assert [row[:1] + row[2:] for row in found[name]["union"]] == [[1, None], [2, "y"]]
        assert (found[name]["merged"] == found[name]["union"]) is (name in MERGES), name
        assert found[name]["merged"] is None or name in MERGES, name
        assert [_value(row[1]) for row in found[name]["union"]] == by_duckdb(paths), name
    assert found["integer to decimal"]["union"][0][1] == f'{{"c":{2**63 - 1}.00}}'
    assert found["date to timestamp"]["type"] == "timestamp"


def by_duckdb(files: list[str]) -> list[Any]:
    """The same column, by DuckDB with `union_by_name`."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        query = "SELECT to_json({'c': c}) FROM read_parquet(?, union_by_name = true) ORDER BY id"
        return [_value(row[0]) for row in connection.execute(query, [files]).fetchall()]


def _value(text: str) -> Any:
    """The value in a row's JSON: moments in one form, members without a value left out."""
    value = json.loads(text, parse_float=str, parse_int=str).get("c")
    if isinstance(value, dict):
        return {key: member for key, member in value.items() if member is not None}
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value.replace("T", " ").replace("Z", "").removesuffix(".000").removesuffix("+00")
