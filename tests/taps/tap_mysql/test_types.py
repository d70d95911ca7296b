"""Every type of MariaDB: what discovery says of it, and what comes out. The golden is text that a person reads."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from melisma.errors import BadRecord, CatalogError

from .kinds import VALUES, fill

GOLDEN = Path(__file__).parents[2] / "golden" / "mysql" / "types.txt"


def as_written(value: Any) -> str:
    """A value as JSON, with the digits that it was written with; a long text in short."""
    if isinstance(value, str) and len(value) > 100:
        return f"{json.dumps(value[:10], ensure_ascii=False)} ... ({len(value)} characters)"
    return re.sub('"@|@"', "", json.dumps(value, default=lambda number: f"@{number}@", ensure_ascii=False))


def test_types_are_those_of_the_golden(database: Any) -> None:
    """What discovery says, and what comes out; each record is valid by its schema, also by the names of the formats.

    MELISMA_WRITE_GOLDEN=1 writes the file anew.
    """
    fill(database)
    output = database.sync()
    lines = []
    for number, (kind, values) in enumerate(VALUES.items()):
        stream = database.stream(f"t{number:03}")
        schema = output.properties(stream)["v"]
        records = sorted(output.records(stream), key=lambda record: record["place"])
        lines.append(f"{kind}\n    {json.dumps(schema)}")
        for value, record in zip([*values, "NULL"], records, strict=True):
            lines.append(f"    {value} -> {as_written(record['v'])}")
            Draft7Validator(schema).validate(record["v"])
    text = "\n".join(lines) + "\n"
    if os.environ.get("MELISMA_WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_each_type_comes_as_text_where_the_catalog_says_so(database: Any) -> None:
    """The way out: `string` in the catalog is the text that the server casts the value to, by PyMySQL's eyes."""
    fill(database)
    catalog = database.catalog()
    kinds = {}
    for entry in catalog["streams"]:
        node = entry["schema"]["properties"]["v"]
        kinds[entry["stream"]] = node
        entry["schema"]["properties"]["v"] = {"type": ["string", "null"]}
    output = database.sync(catalog=catalog)
    for number, kind in enumerate(VALUES):
        stream = database.stream(f"t{number:03}")
        sql = "CAST(v AS CHAR)"
        if kinds[stream].get("contentEncoding"):
            sql = "HEX(v)"
        elif kind.startswith("bit"):
            sql = "CAST(v + 0 AS CHAR)"
        elif "ST_" in VALUES[kind][0]:
            sql = "IF(ST_SRID(v) = 0, ST_AsText(v), CONCAT('SRID=', ST_SRID(v), ';', ST_AsText(v)))"
        rows = database.rows(f"SELECT {sql} FROM t{number:03} ORDER BY place")
        if kind.startswith("timestamp"):
            with database.connect(init_command="SET time_zone = '+00:00'") as connection, connection.cursor() as cursor:
                cursor.execute(f"SELECT {sql} FROM t{number:03} ORDER BY place")
                rows = list(cursor.fetchall())
        records = sorted(output.records(stream), key=lambda record: record["place"])
        assert [(record["v"],) for record in records] == rows, kind


def test_zero_dates_are_null_and_warned_of_or_text(database: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A month or a day of zero has no form in JSON's dates; `dates_as_string` sends what the server writes."""
    database.run(
        "CREATE TABLE t (id integer, d date, t datetime(3))",
        "SET SESSION sql_mode = ''",
        "INSERT INTO t VALUES (1, '2024-02-29', '2024-02-29 10:00:00.5')",
        "INSERT INTO t VALUES (2, '0000-00-00', '0000-00-00 00:00:00')",
        "INSERT INTO t VALUES (3, '2024-02-00', '2024-00-01 10:00:00')",
    )
    assert database.sync().records() == [
        {"id": 1, "d": "2024-02-29", "t": "2024-02-29T10:00:00.500Z"},
        {"id": 2, "d": None, "t": None},
        {"id": 3, "d": None, "t": None},
    ]
    assert caplog.text.count("2 dates with a month or day of zero were sent as null") == 2
    output = database.sync(dates_as_string=True)
    assert output.properties(database.stream("t"))["d"] == {"type": ["string", "null"]}
    assert [r["d"] for r in output.records()] == ["2024-02-29", "0000-00-00", "2024-02-00"]
    assert output.records()[2]["t"] == "2024-00-01 10:00:00.000"


@pytest.mark.parametrize(
    ("kind", "value", "rule"),
    [
        ("date", "'0000-02-01'", "lies before the year 1"),
        ("datetime", "'0000-12-31 10:00:00'", "lies before the year 1"),
        ("date", "'2024-02-31'", "is none that the calendar has"),
        ("datetime(6)", "'2023-02-29 10:00:00'", "is none that the calendar has"),
    ],
)
def test_a_date_that_json_cannot_say_is_an_error_or_text(database: Any, kind: str, value: str, rule: str) -> None:
    """The message names `dates_as_string`."""
    database.run(
        f"CREATE TABLE t (v {kind})", "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'", f"INSERT INTO t VALUES ({value})"
    )
    with pytest.raises(BadRecord, match=rf'-t", column "v": a date {rule}.* dates_as_string to true'):
        database.sync()
    assert database.sync(dates_as_string=True).records()[0]["v"].startswith(value.strip("'"))


def test_a_zero_date_in_a_key_is_an_error(database: Any) -> None:
    """Its schema does not allow null."""
    database.run(
        "CREATE TABLE t (d date PRIMARY KEY)", "SET SESSION sql_mode = ''", "INSERT INTO t VALUES ('0000-00-00')"
    )
    with pytest.raises(BadRecord, match="a date of a key has a month or day of zero"):
        database.sync()


def test_tinyint_as_boolean_is_a_setting(database: Any) -> None:
    """Other values than 0 and 1 are an error then."""
    database.run("CREATE TABLE t (v bool, w tinyint(4))", "INSERT INTO t VALUES (0, 2), (1, 1), (NULL, NULL)")
    output = database.sync(tinyint1_as_boolean=True)
    assert output.properties(database.stream("t"))["v"] == {"type": ["boolean", "null"]}
    assert [tuple(r.values()) for r in output.records()] == [(False, 2), (True, 1), (None, None)]
    database.run("INSERT INTO t VALUES (2, 2)")
    with pytest.raises(BadRecord, match='column "v": a value is neither 0 nor 1'):
        database.sync(tinyint1_as_boolean=True)


def test_times_are_utc_whatever_the_server_and_session_say(database: Any) -> None:
    """TIMESTAMP is a moment and comes in UTC; DATETIME is what was written, and counts as UTC."""
    database.run(
        "CREATE TABLE t (m timestamp NULL, w datetime)",
        "SET SESSION time_zone = '-05:00'",
        "INSERT INTO t VALUES ('2024-02-29 20:00:00', '2024-02-29 20:00:00')",
        "SET GLOBAL time_zone = '+03:00'",
    )
    try:
        assert database.sync().records() == [{"m": "2024-03-01T01:00:00Z", "w": "2024-02-29T20:00:00Z"}]
    finally:
        database.run("SET GLOBAL time_zone = 'SYSTEM'")


def test_generated_and_invisible_columns_are_there(database: Any) -> None:
    """Columns are named one by one, so those that `SELECT *` leaves out come too."""
    database.run(
        "CREATE TABLE t (id integer, twice integer AS (id * 2) VIRTUAL, thrice integer AS (id * 3) STORED, "
        "hidden integer INVISIBLE DEFAULT 7)",
        "INSERT INTO t (id) VALUES (1)",
    )
    assert database.sync().records() == [{"id": 1, "twice": 2, "thrice": 3, "hidden": 7}]


def test_rows_longer_than_a_packet(database: Any) -> None:
    """A row of 2^24 bytes and more comes in several packets; between short rows it is whole."""
    sizes = [3, 2**24 - 20, 2**24 - 5, 2**24, 2**25 + 11, 5]
    database.run("CREATE TABLE t (id integer, v longtext)")
    with database.connect(max_allowed_packet=64 << 20) as connection, connection.cursor() as cursor:
        for number, size in enumerate(sizes):
            cursor.execute(f"INSERT INTO t VALUES ({number}, repeat('ab', {size} / 2))")
    records = database.sync().records()
    expected = dict(database.rows("SELECT id, md5(v) FROM t"))
    import hashlib

    assert {r["id"]: hashlib.md5(r["v"].encode()).hexdigest() for r in records} == expected  # noqa: S324


def test_a_column_that_changed_its_type_is_an_error(database: Any) -> None:
    """The catalog holds; the message says what to do."""
    database.run("CREATE TABLE t (id integer, v integer)")
    catalog = database.catalog()
    database.run("ALTER TABLE t MODIFY v decimal(9,2)")
    with pytest.raises(CatalogError, match='-t": its column "v" is of another type than the catalog says'):
        database.sync(catalog=catalog)
    database.run("ALTER TABLE t DROP v")
    with pytest.raises(CatalogError, match='its column "v" is not there any more'):
        database.sync(catalog=catalog)
