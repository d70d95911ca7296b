"""The ends of every type go through target-parquet and come back from two readers as they were sent."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from forking import ForkedTarget, Outcome

PROPERTIES: dict[str, Any] = {
    "integer": {"type": "integer"},
    "unsigned": {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
    "decimal": {"type": "number", "precision": 38, "scale": 18},
    "whole": {"type": "number", "multipleOf": 1},
    "number": {"type": "number"},
    "at": {"type": "string", "format": "date-time"},
    "day": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "text": {"type": "string"},
    "nested": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "number", "multipleOf": 1}}}},
}
DECIMAL_TEXT = {"decimal text": {"type": "string", "format": "singer.decimal"}}
LOWEST = """{
    "integer": -9223372036854775808, "unsigned": 0, "decimal": -99999999999999999999.999999999999999999,
    "whole": -99999999999999999999999999999999999999, "number": 5e-324, "at": "0001-01-01T00:00:00Z",
    "day": "0001-01-01", "time": "00:00:00", "text": "", "nested": []
}"""
HIGHEST = """{
    "integer": 9223372036854775807, "unsigned": 18446744073709551615, "decimal": 0.000000000000000001,
    "whole": 99999999999999999999999999999999999999, "number": 1.7976931348623157e308,
    "at": "9999-12-31T23:59:59.999999Z", "day": "9999-12-31", "time": "23:59:59.999999",
    "text": "a\\u0000b\\ud83d\\ude00", "nested": [{"d": 12345678901234567890123456789012345678}]
}"""
ROWS = [
    (
        -(2**63),
        0,
        Decimal("-99999999999999999999.999999999999999999"),
        Decimal(-(10**38) + 1),
        5e-324,
        dt.datetime(1, 1, 1, tzinfo=dt.UTC),
        dt.date(1, 1, 1),
        dt.time(0),
        "",
        [],
    ),
    (
        2**63 - 1,
        2**64 - 1,
        Decimal("0.000000000000000001"),
        Decimal(10**38 - 1),
        1.7976931348623157e308,
        dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.UTC),
        dt.date(9999, 12, 31),
        dt.time(23, 59, 59, 999999),
        "a\x00b\U0001f600",
        [{"d": Decimal(12345678901234567890123456789012345678)}],
    ),
]


def run(target: ForkedTarget, folder: Path, properties: dict[str, Any], *records: str, **settings: Any) -> Outcome:
    """Land records, given as JSON text, in the stream `s`."""
    schema = json.dumps({"type": "SCHEMA", "stream": "s", "schema": {"properties": properties}, "key_properties": []})
    lines = [f'{{"type": "RECORD", "stream": "s", "record": {" ".join(record.split())}}}' for record in records]
    (folder / "config.json").write_text(json.dumps({"destination_path": "lake", **settings}))
    data = "\n".join([schema, *lines, '{"type": "STATE", "value": {}}', ""]).encode()
    return target.run(folder, "--config", "config.json", data=data)


def test_the_ends_of_every_type(target_parquet: ForkedTarget, tmp_path: Path) -> None:
    """Years 1 and 9999, 64 bits, 38 digits, the smallest and largest double, NUL, emoji and the empty text."""
    outcome = run(target_parquet, tmp_path, PROPERTIES, LOWEST, HIGHEST)
    assert outcome.exit_code == 0, outcome.stderr
    (file,) = tmp_path.rglob("*.parquet")
    assert pl.read_parquet(file).rows() == ROWS
    # Python's own dates end where DuckDB's conversion to the local zone would have to go on.
    columns = ", ".join('"at"::VARCHAR' if name == "at" else f'"{name}"' for name in PROPERTIES)
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    read = database.read_parquet(str(file)).project(columns).fetchall()
    times = ["0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"]
    assert read == [(*row[:5], time, *row[6:]) for row, time in zip(ROWS, times, strict=True)]


@pytest.mark.parametrize(
    ("column", "value", "override", "kept"),
    [
        ("integer", "9223372036854775808", "decimal(38,0)", Decimal(2**63)),
        ("unsigned", "18446744073709551616", "decimal(38,0)", Decimal(2**64)),
        ("decimal", "100000000000000000000", "json", "100000000000000000000"),
        ("decimal", "0.1234567890123456789", "json", "0.1234567890123456789"),
        ("decimal text", '"100000000000000000000"', "string", "100000000000000000000"),
        ("whole", "100000000000000000000000000000000000000", "json", "1" + 38 * "0"),
        ("number", "1e309", "json", "1E+309"),
        ("at", '"10000-01-01T00:00:00Z"', "string", "10000-01-01T00:00:00Z"),
        ("at", '"2024-01-01T00:00:00.1234567Z"', "string", "2024-01-01T00:00:00.1234567Z"),
        ("day", '"0000-12-31"', "string", "0000-12-31"),
    ],
)
def test_beyond_the_ends(
    target_parquet: ForkedTarget, tmp_path: Path, column: str, value: str, override: str, kept: Any
) -> None:
    """One line that names the column and an override; with that override the value is there, whole."""
    properties, record = {column: {**PROPERTIES, **DECIMAL_TEXT}[column]}, f'{{"{column}": {value}}}'
    outcome = run(target_parquet, tmp_path, properties, record)
    assert outcome.exit_code == 3
    (line,) = outcome.log("ERROR")
    assert f'stream "s", column "{column}", line 2: ' in line
    assert "Set column_types" in line
    assert override in line
    outcome = run(target_parquet, tmp_path, properties, record, column_types={"s": {column: override}})
    assert outcome.exit_code == 0, outcome.stderr
    (file,) = tmp_path.rglob("*.parquet")
    assert pl.read_parquet(file).rows() == [(kept,)]


def test_five_thousand_columns(target_parquet: ForkedTarget, tmp_path: Path) -> None:
    """Of four types, with gaps, come back from both readers."""
    kinds = ["integer", "string", "number", "boolean"]
    properties = {f"c{n}": {"type": ["null", kinds[n % 4]]} for n in range(5_000)}

    def row(number: int) -> list[Any]:
        return [
            None if (n + number) % 7 == 0 else [n * number, f"x{n}", n / 2, n % 8 == 3][n % 4] for n in range(5_000)
        ]

    records = [dict(zip(properties, row(number), strict=True)) for number in range(20)]
    outcome = run(target_parquet, tmp_path, properties, *map(json.dumps, records))
    assert outcome.exit_code == 0, outcome.stderr
    (file,) = tmp_path.rglob("*.parquet")
    assert pl.read_parquet(file).rows() == [tuple(row(number)) for number in range(20)]
    assert duckdb.read_parquet(str(file)).fetchall() == [tuple(row(number)) for number in range(20)]
