"""Every type of PostgreSQL: what discovery says of it, and what comes out. The golden is text that a person reads."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from melisma.errors import BadRecord, CatalogError

GOLDEN = Path(__file__).parents[2] / "golden" / "postgres" / "types.txt"

BEFORE = (
    "CREATE EXTENSION hstore",
    "CREATE TYPE size AS ENUM ('small', 'large')",
    "CREATE TYPE place AS (street text, number numeric, at timestamptz)",
    "CREATE DOMAIN cents AS numeric(9,2) CHECK (value >= 0)",
    "CREATE DOMAIN small_cents AS cents CHECK (value < 100)",
    "CREATE DOMAIN tags AS text[]",
)
VALUES = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "oid": ["4294967295"],
    "real": ["0.1", "'NaN'", "3.4028235e38"],
    "double precision": ["0.1", "'Infinity'", "1e-300", "1.7976931348623157e308"],
    "numeric": ["1.50", "1e40", "'NaN'", "'-Infinity'", "0.000000000000000000000000000001"],
    "numeric(5,2)": ["-999.99", "0.10", "'NaN'"],
    "numeric(38,10)": ["1234567890123456789012345678.0123456789"],
    "numeric(3,-2)": ["12345"],
    "numeric(50,10)": ["1234567890123456789012345678901234567890.0123456789"],
    "money": ["'$1,234.50'", "'-92233720368547758.08'"],
    "text": ["'Zoë \"x\" 😀'", "''", "E'a\\nb\\tc\\\\'"],
    "character varying(5)": ["'abc'"],
    "character(4)": ["'ab'"],
    '"char"': ["'a'"],
    "name": ["'pg'"],
    "bytea": ["'\\x00ff'", "''"],
    "date": ["'0001-01-01'", "'9999-12-31'"],
    "time without time zone": ["'00:00:00'", "'23:59:59.999999'"],
    "time with time zone": ["'10:00:00+02'", "'24:00:00-15:59'"],
    "timestamp without time zone": ["'2024-02-29 10:00:00.123456'", "'0001-01-01 00:00:00'"],
    "timestamp(0) without time zone": ["'2024-02-29 10:00:00.6'"],
    "timestamp with time zone": ["'2024-02-29 10:00:00+02'"],
    "interval": ["'1 year -2 months 3 days -04:05:06.000007'", "'0'"],
    "uuid": ["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"],
    "json": ['\'{"b": 1.50, "a" : [1e400]}\'', "'null'"],
    "jsonb": ['\'{"b": 1.50, "a" : [1]}\''],
    "xml": ["'<a>ü</a>'"],
    "bit(3)": ["B'101'"],
    "bit varying": ["B'01'"],
    "inet": ["'192.168.0.1/24'", "'::1'"],
    "cidr": ["'10.0.0.0/8'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "point": ["'(1,0.1)'"],
    "polygon": ["'((0,0),(1,1))'"],
    "tsvector": ["'a:1 b:2'"],
    "tsquery": ["'a & b'"],
    "pg_lsn": ["'16/B374D848'"],
    "regclass": ["'pg_class'"],
    "int4range": ["'[1,5)'", "'empty'"],
    "tstzrange": ["'[2024-02-29 10:00+02,)'"],
    "nummultirange": ["'{[1.5,2],(5,)}'"],
    "size": ["'large'"],
    "place": ["ROW('Ring, \"1\"', 1.50, '2024-02-29 10:00+02')"],
    "cents": ["1.5"],
    "small_cents": ["99.99"],
    "hstore": ["'a => \"1, 2\", b => NULL'"],
    "integer[]": ["'{1,NULL}'", "'{}'", "'[5:6]={1,2}'"],
    "text[]": ["ARRAY['a,\"b', '', NULL]"],
    "boolean[]": ["'{t,f}'"],
    "double precision[]": ["'{0.1,NaN}'"],
    "numeric[]": ["'{1.50,NaN}'"],
    "numeric(5,2)[]": ["'{1.5}'"],
    "money[]": ["ARRAY['1.5'::money]"],
    "date[]": ["'{2024-02-29}'"],
    "timestamp with time zone[]": ["'{2024-02-29 10:00+02}'"],
    "bytea[]": ["ARRAY['\\x00ff'::bytea]"],
    "uuid[]": ["ARRAY['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid]"],
    "interval[]": ["ARRAY['1 day'::interval]"],
    "jsonb[]": ["ARRAY['{\"a\": 1}'::jsonb]"],
    "inet[]": ["ARRAY['::1'::inet]"],
    "size[]": ["ARRAY['small'::size]"],
    "cents[]": ["ARRAY[1.5::cents]"],
    "place[]": ["ARRAY[ROW('a', 1, NULL)::place]"],
    "tags": ["ARRAY['a']"],
}


def as_written(value: Any) -> str:
    """A value as JSON, with the digits that it was written with."""
    return re.sub('"@|@"', "", json.dumps(value, default=lambda number: f"@{number}@", ensure_ascii=False))


def fill(database: Any) -> None:
    """A table for each type, of one column, and a row for each value."""
    database.run(*BEFORE)
    with database.connect() as connection:
        for number, (kind, values) in enumerate(VALUES.items()):
            rows = ", ".join(f"({place}, CAST({value} AS {kind}))" for place, value in enumerate([*values, "NULL"]))
            connection.execute(f"CREATE TABLE t{number:03} (place integer PRIMARY KEY, v {kind})")
            connection.execute(f"INSERT INTO t{number:03} VALUES {rows}")


def test_types_are_those_of_the_golden(database: Any) -> None:
    """What discovery says, and what comes out; each record is valid by its schema, also by the names of the formats.

    MELISMA_WRITE_GOLDEN=1 writes the file anew.
    """
    fill(database)
    output = database.sync()
    lines = []
    for number, (kind, values) in enumerate(VALUES.items()):
        stream = f"public-t{number:03}"
        schema = output.properties(stream)["v"]
        records = sorted(output.records(stream), key=lambda record: record["place"])
        lines.append(f"{kind}\n    {json.dumps(schema)}")
        for value, record in zip([*values, "NULL"], records, strict=True):
            lines.append(f"    {value} -> {as_written(record['v'])}")
            Draft7Validator(schema).validate(record["v"])
    text = "\n".join(lines) + "\n"
    if os.environ.get("MELISMA_WRITE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_each_type_comes_as_text_where_the_catalog_says_so(database: Any) -> None:
    """The way out: `string` in the catalog is the text that PostgreSQL casts the value to, by psycopg's eyes."""
    fill(database)
    catalog = database.catalog()
    for entry in catalog["streams"]:
        entry["schema"]["properties"]["v"] = {"type": ["string", "null"]}
    output = database.sync(catalog=catalog)
    with database.connect(options="-c TimeZone=UTC -c IntervalStyle=iso_8601") as connection:
        for number, kind in enumerate(VALUES):
            if kind == "character(4)":  # is text as it is, with its blanks
                continue
            rows = connection.execute(f"SELECT v::text FROM t{number:03} ORDER BY place").fetchall()
            records = sorted(output.records(f"public-t{number:03}"), key=lambda record: record["place"])
            assert [(record["v"],) for record in records] == rows, kind


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("date", "'infinity'"),
        ("date", "'-infinity'"),
        ("date", "'0044-03-15 BC'"),
        ("date", "'10000-01-01'"),
        ("timestamp", "'infinity'"),
        ("timestamp", "'-infinity'"),
        ("timestamp", "'0044-03-15 10:00 BC'"),
        ("timestamptz", "'infinity'"),
        ("timestamptz", "'294276-12-31 23:59:59+00'"),
    ],
)
def test_a_date_that_json_cannot_say_is_an_error_or_text(database: Any, kind: str, value: str) -> None:
    """The message names `dates_as_string`, which gives PostgreSQL's own text."""
    database.run(f"CREATE TABLE t (v {kind}, w {kind}[])", f"INSERT INTO t VALUES ({value}, ARRAY[{value}::{kind}])")
    with pytest.raises(BadRecord, match=r'stream "public-t", column "v": .* dates_as_string to true'):
        database.sync()
    output = database.sync(dates_as_string=True)
    assert output.properties("public-t")["v"] == {"type": ["string", "null"]}
    with database.connect(options="-c TimeZone=UTC") as connection:
        [(text, texts)] = connection.execute("SELECT v::text, w::text[] FROM t").fetchall()
    assert output.records() == [{"v": text, "w": texts}]


def test_a_nested_array_is_an_error_that_names_the_way_out(database: Any) -> None:
    """PostgreSQL's types do not say how many dimensions there are; the driver would lay the rows end to end."""
    database.run("CREATE TABLE t (v integer[])", "INSERT INTO t VALUES ('{1}'), ('{{1,2},{3,4}}')")
    with pytest.raises(BadRecord, match='stream "public-t": an array has more than one dimension'):
        database.sync()
    catalog = database.catalog()
    catalog["streams"][0]["schema"]["properties"]["v"] = {"type": ["string", "null"]}
    assert [r["v"] for r in database.sync(catalog=catalog).records()] == ["{1}", "{{1,2},{3,4}}"]


def test_midnight_at_the_end_of_the_day_is_an_error(database: Any) -> None:
    """24:00:00 has no form in JSON."""
    database.run("CREATE TABLE t (v time)", "INSERT INTO t VALUES ('24:00:00')")
    with pytest.raises(BadRecord, match='column "v": a time of day is not before 24:00:00'):
        database.sync()


def test_not_a_number_is_null_and_warned_of(database: Any, caplog: pytest.LogCaptureFixture) -> None:
    """In numerics as in floats."""
    database.run("CREATE TABLE t (f float8, n numeric, d numeric(5,2))", "INSERT INTO t VALUES ('NaN', 'NaN', 'NaN')")
    assert database.sync().records() == [{"f": None, "n": None, "d": None}]
    assert caplog.text.count("1 values that JSON has no number for") == 3


def test_a_column_that_changed_its_type_is_an_error(database: Any) -> None:
    """The catalog holds; the message says what to do."""
    database.run("CREATE TABLE t (id integer, v integer)")
    catalog = database.catalog()
    database.run("ALTER TABLE t ALTER v TYPE boolean USING NULL")
    with pytest.raises(CatalogError, match='"public-t": its column "v" is of another type than the catalog says'):
        database.sync(catalog=catalog)
    database.run("ALTER TABLE t DROP v")
    with pytest.raises(CatalogError, match='its column "v" is not there any more'):
        database.sync(catalog=catalog)


def test_texts_of_a_database_without_an_encoding_are_looked_at(database: Any) -> None:
    """SQL_ASCII hands on any bytes; those that are no UTF-8 are an error."""
    name = f"{database.name}_ascii"
    with database.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    try:
        database.name, before = name, database.name
        with database.connect(client_encoding="SQL_ASCII") as connection:
            connection.execute("CREATE TABLE t (v text)")
            connection.execute("INSERT INTO t VALUES (chr(195) || chr(188))")
            assert database.sync().records() == [{"v": "ü"}]
            connection.execute("INSERT INTO t VALUES (chr(255))")
            with pytest.raises(BadRecord, match="a text is not UTF-8"):
                database.sync()
    finally:
        database.name = before
        with database.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
