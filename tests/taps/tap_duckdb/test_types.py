"""Every type of DuckDB: what discovery says of it, and what comes out. The golden is text that a person reads."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from jsonschema import Draft7Validator

from melisma.errors import BadRecord, BadSchema, CatalogError

from .conftest import query

GOLDEN = Path(__file__).parents[2] / "golden" / "duckdb" / "types.txt"

VALUES = {
    "BOOLEAN": ["true", "false"],
    "TINYINT": ["-128", "127"],
    "SMALLINT": ["-32768"],
    "INTEGER": ["2147483647"],
    "BIGINT": ["-9223372036854775808", "9223372036854775807"],
    "UTINYINT": ["255"],
    "USMALLINT": ["65535"],
    "UINTEGER": ["4294967295"],
    "UBIGINT": ["18446744073709551615"],
    "HUGEINT": ["99999999999999999999999999999999999999", "-99999999999999999999999999999999999999"],
    "UHUGEINT": ["99999999999999999999999999999999999999"],
    "BIGNUM": ["'1234567890123456789012345678901234567890123456789'"],
    "DECIMAL(4,1)": ["-999.9", "0.1"],
    "DECIMAL(38,10)": ["'1234567890123456789012345678.0123456789'"],
    "FLOAT": ["0.1", "'nan'"],
    "DOUBLE": ["0.1", "'-inf'", "1e300"],
    "VARCHAR": ["'Zoë \"x\" 😀'", "''"],
    "UUID": ["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"],
    "ENUM('small', 'large')": ["'large'"],
    "BIT": ["'0101'"],
    "BLOB": ["'\\x00\\xFF'"],
    "DATE": ["'0001-01-01'", "'9999-12-31'"],
    "TIME": ["'00:00:00'", "'23:59:59.999999'"],
    "TIME_NS": ["'10:00:00.123456789'"],
    "TIME WITH TIME ZONE": ["'10:00:00+02'", "'10:00:00.5-15:30'"],
    "TIMESTAMP": ["'2024-02-29 10:00:00.123456'", "'0001-01-01 00:00:00'"],
    "TIMESTAMP_S": ["'2024-02-29 10:00:00'"],
    "TIMESTAMP_MS": ["'2024-02-29 10:00:00.123'"],
    "TIMESTAMP_NS": ["'2024-02-29 10:00:00.123456789'"],
    "TIMESTAMP WITH TIME ZONE": ["'2024-02-29 10:00:00+02'"],
    "INTERVAL": ["'1 year 2 months 3 days 04:05:06.000007'", "'-1 day'"],
    "JSON": ["'{\"a\": [1, 2.50]}'", "'null'"],
    "INTEGER[]": ["[1, NULL]", "[]"],
    "INTEGER[2]": ["[1, 2]"],
    "HUGEINT[]": ["[1]"],
    "DATE[][]": ["[['2024-02-29'::DATE], NULL]"],
    'STRUCT(a INTEGER, b STRUCT(c BIT, "d e" VARCHAR))': ["{'a': 1, 'b': {'c': '01', 'd e': 'x'}}"],
    "MAP(INTEGER, VARCHAR)": ["map {1: 'a', 2: NULL}"],
    "MAP(DATE, INTERVAL)": ["map {'2024-02-29'::DATE: '1 day'::INTERVAL}"],
    'UNION(num INTEGER, str VARCHAR, "o\'k" BIT)': [
        "union_value(num := 2)",
        "'x'",
        "union_value(\"o'k\" := '01'::BIT)",
    ],
    "GEOMETRY": ["'POINT(1 0.1)'"],
    "VARIANT": ["{'a': 1}"],
}
PREVIOUS = {"GEOMETRY", "VARIANT"}
"""Types that only newer versions of DuckDB have."""


def available() -> dict[str, list[str]]:
    """The types that the installed DuckDB has."""
    known = {name for (name,) in duckdb.sql("SELECT DISTINCT logical_type FROM duckdb_types()").fetchall()}
    return {kind: values for kind, values in VALUES.items() if kind not in PREVIOUS or kind in known}


def as_written(value: Any) -> str:
    """A value as JSON, with the digits that it was written with."""
    return re.sub('"@|@"', "", json.dumps(value, default=lambda number: f"@{number}@", ensure_ascii=False))


def test_types_are_those_of_the_golden(tap: Any) -> None:
    """A table with a column of each type. MELISMA_WRITE_GOLDEN=1 writes the file anew."""
    lines = []
    for kind, values in available().items():
        rows = ", ".join(f"(CAST({value} AS {kind}))" for value in [*values, "NULL"])
        path = tap.duckdb(f"CREATE OR REPLACE TABLE t (v {kind})", f"INSERT INTO t VALUES {rows}")
        output = tap.sync({"path": path})
        lines.append(f"{kind}\n    {json.dumps(output.properties('t')['v'])}")
        lines += [
            f"    {value} -> {as_written(record['v'])}"
            for value, record in zip([*values, "NULL"], output.records(), strict=True)
        ]
    text = "\n".join(lines) + "\n"
    if os.environ.get("MELISMA_WRITE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_every_record_is_valid_by_its_schema(tap: Any) -> None:
    """What discovery says of a type, each of its values keeps."""
    for kind, values in available().items():
        rows = ", ".join(f"(CAST({value} AS {kind}))" for value in values)
        output = tap.sync(query(f"SELECT * FROM (VALUES {rows}) AS t(v)"))
        schema = next(m["schema"] for m in output.messages if m["type"] == "SCHEMA")
        for record in output.records():
            Draft7Validator(schema).validate(record)


def test_each_type_comes_as_text_where_the_catalog_says_so(tap: Any) -> None:
    """The way out: `string` in the catalog is the text that DuckDB casts the value to."""
    for kind, values in available().items():
        if kind in {"BLOB", "VARCHAR"}:
            continue
        config = query(f"SELECT CAST({values[0]} AS {kind}) AS v")
        catalog = tap.catalog(config)
        catalog["streams"][0]["schema"]["properties"]["v"] = {"type": ["string", "null"]}
        [record] = tap.sync(config, catalog=catalog).records()
        text = duckdb.sql(f"SET TimeZone = 'UTC'; SELECT CAST(CAST({values[0]} AS {kind}) AS VARCHAR)").fetchall()
        assert [(record["v"],)] == text or kind in {"JSON", "VARIANT"}, kind


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT 170141183460469231731687303715884105727::HUGEINT AS v", "more than 38 digits.*VARCHAR"),
        ("SELECT 340282366920938463463374607431768211455::UHUGEINT AS v", "more than 38 digits.*VARCHAR"),
        ("SELECT [100000000000000000000000000000000000000::HUGEINT] AS v", "more than 38 digits.*VARCHAR"),
        ("SELECT TIME '24:00:00' AS v", 'column "v": a time of day is not before 24:00:00'),
        ("SELECT [TIME '24:00:00'] AS v", 'column "v": a time of day is not before 24:00:00'),
        ("SELECT 'infinity'::TIMESTAMP AS v", 'column "v": a time lies outside the years 1 to 9999'),
        ("SELECT '-infinity'::DATE AS v", 'column "v": a time lies outside the years 1 to 9999'),
        ("SELECT '0044-03-15 (BC)'::DATE AS v", 'column "v": a time lies outside the years 1 to 9999'),
    ],
)
def test_a_value_that_json_cannot_say_is_an_error(tap: Any, sql: str, message: str) -> None:
    """Never a silent change: DuckDB's own Arrow export and JSON writers cut or wrap some of these."""
    with pytest.raises(BadRecord, match=message):
        tap.sync(query(sql))


def test_a_union_inside_another_type_names_the_way_out(tap: Any) -> None:
    """At discovery, with the column's path."""
    with pytest.raises(BadSchema, match=r'stream "q", column "v\[\]": .* casts the column to VARCHAR or JSON'):
        tap.catalog(query("SELECT [union_value(num := 1)] AS v"))
    assert tap.sync(query("SELECT to_json([union_value(num := 1)]) AS v")).records()


def test_a_column_that_changed_its_type_is_an_error(tap: Any) -> None:
    """The catalog holds; the message says what to do."""
    path = tap.duckdb("CREATE TABLE t (id INTEGER, v INTEGER)")
    catalog = tap.catalog({"path": path})
    tap.duckdb("ALTER TABLE t ALTER v TYPE DATE USING NULL")
    with pytest.raises(CatalogError, match='"t": its column "v" is of another type than the catalog says'):
        tap.sync({"path": path}, catalog=catalog)
    tap.duckdb("ALTER TABLE t DROP v")
    with pytest.raises(CatalogError, match=r'its column "v" is not there any more. Discover again'):
        tap.sync({"path": path}, catalog=catalog)
