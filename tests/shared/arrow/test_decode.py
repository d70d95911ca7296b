# ruff: noqa: E501 - a table of cases reads best with a case a line
"""The block path gives what the row path gives, or steps aside; and the row path keeps every value."""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import LEAVES, SETTINGS, Json, outcome, run_of, streams

from melisma.arrow.decode import RunDecoder
from melisma.arrow.schema import stream_schema
from melisma.errors import BadMessage
from melisma.wire.framing import Run


@SETTINGS
@given(streams(), st.booleans(), st.sampled_from(["warn", "fail", "drop"]), st.booleans(), st.booleans())
def test_block_path_equals_row_path(
    stream: tuple[dict[str, Json], list[Json]], validate: bool, unknown: str, ascii_only: bool, envelope: bool
) -> None:
    """For any schema and records the block path gives the row path's rows, bad records and counts."""
    schema = stream_schema("s", stream[0])
    run = run_of(stream[1], lambda record: json.dumps(record, ensure_ascii=ascii_only))
    block = RunDecoder(schema, validate=validate, on_unknown_field=unknown, envelope=envelope).decode(run)
    row = RunDecoder(schema, validate=validate, on_unknown_field=unknown, envelope=envelope, by_block=False).decode(run)
    assert outcome(block) == outcome(row)
    if not row.bad:
        assert block.unknown == row.unknown


@SETTINGS
@given(streams())
def test_dropping_unknown_fields_equals_ignoring_them(stream: tuple[dict[str, Json], list[Json]]) -> None:
    """`drop` and `warn` store the same rows."""
    schema = stream_schema("s", stream[0])
    run = run_of(stream[1])
    warn = RunDecoder(schema, validate=False, on_unknown_field="warn").decode(run)
    drop = RunDecoder(schema, validate=False, on_unknown_field="drop").decode(run)
    assert outcome(warn) == outcome(drop)


def test_the_block_path_is_taken_for_plain_records() -> None:
    """The fast path is not quietly dead: plain records of every block kind go through it."""
    schema = {"properties": {name: LEAVES[name][0] for name in LEAVES if name not in {"json"}}}
    record = {
        "integer": 1, "bounded": 2, "even": 4, "unsigned": 2**64 - 1, "number": 1.5, "low": 1, "decimal": 1.25,
        "decimal text": "1.125", "boolean": True, "string": "é", "short": "ab", "choice": "a", "pattern": "abc",
        "uuid": "00000000-0000-0000-0000-000000000000", "moment": "2024-01-01T00:00:00Z", "date": "2024-01-01",
        "time": "12:00:00.5", "binary": "aGk=",
    }  # fmt: skip
    decoded = RunDecoder(stream_schema("s", schema)).decode(run_of([record]))
    assert decoded.by_block
    assert not decoded.bad
    (row,) = decoded.batch.to_pylist()
    assert row["unsigned"] == 2**64 - 1
    assert row["decimal"] == Decimal("1.25")
    assert row["decimal text"] == Decimal("1.125")
    assert row["time"] == dt.time(12, 0, 0, 500000)
    assert row["binary"] == b"hi"


@pytest.mark.parametrize(
    ("node", "text", "stored"),
    [
        ({"type": "integer"}, "9223372036854775807", 2**63 - 1),
        ({"type": "integer"}, "-9223372036854775808", -(2**63)),
        ({"type": "integer"}, "1.0", 1),
        ({"type": "number", "multipleOf": 1e-9}, "12345678901234567890123456789.123456789", "12345678901234567890123456789.123456789"),
        ({"type": "number"}, "0.1", 0.1),
        ({"type": "number"}, "9007199254740993", 9007199254740992.0),
        ({"type": "number"}, "-0.0", -0.0),
        ({"type": "string", "format": "date-time"}, '"0001-01-01T00:00:00Z"', dt.datetime(1, 1, 1, tzinfo=dt.UTC)),
        ({"type": "string", "format": "date-time"}, '"9999-12-31T23:59:59.999999Z"', dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.UTC)),
        ({"type": "string", "format": "date-time"}, '"2024-01-01T00:00:00+02:00"', dt.datetime(2023, 12, 31, 22, tzinfo=dt.UTC)),
        ({"type": "string", "format": "date-time"}, '"2024-01-01T00:00:00"', dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),
        ({"type": "string", "format": "date"}, '"0001-01-01"', dt.date(1, 1, 1)),
        ({"type": "string"}, '"\\ud83d\\ude00\\u0000"', "\U0001f600\x00"),
        ({"type": "string"}, '""', ""),
        ({}, '{"a": 1.10, "b": [1e400]}', '{"a":1.10,"b":[1E+400]}'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("by_block", [True, False])
def test_values_at_the_edges_survive(node: dict[str, Json], text: str, stored: Any, by_block: bool) -> None:
    """Values at the edges of their types come out as they went in."""
    run = run_of([text], lambda raw: '{"a":' + raw + "}")
    decoded = RunDecoder(stream_schema("s", {"properties": {"a": node}}), by_block=by_block).decode(run)
    assert not decoded.bad
    (value,) = decoded.batch.column(0).to_pylist()
    if isinstance(value, Decimal):
        value = str(value)
    assert value == stored
    if isinstance(stored, float):
        assert math.copysign(1, value) == math.copysign(1, stored)


@pytest.mark.parametrize(
    ("node", "text", "rule"),
    [
        ({"type": "integer"}, "9223372036854775808", "does not fit int64"),
        ({"type": "integer"}, "1.5", "fraction"),
        ({"type": "integer"}, "true", "a boolean, not an integer"),
        ({"type": "integer"}, '"1"', "text, not an integer"),
        ({"type": "number"}, "1e400", "beyond float64"),
        ({"type": "number", "multipleOf": 0.01}, "1.005", "2 fraction digits"),
        ({"type": "number", "multipleOf": 0.01}, "1" + "0" * 36, "36 whole digits"),
        ({"type": "string", "format": "date-time"}, '"2024-01-01T00:00:00.1234567Z"', "six fraction digits"),
        ({"type": "string", "format": "date-time"}, '"0000-01-01T00:00:00Z"', "years 1 to 9999"),
        ({"type": "string", "format": "date-time"}, '"0001-01-01T00:00:00+01:00"', "years 1 to 9999"),
        ({"type": "string", "format": "date-time"}, '"2024-01-01T24:00:00Z"', "time of day"),
        ({"type": "string", "format": "date"}, '"2024-02-30"', "does not exist|exists"),
        ({"type": "string", "contentEncoding": "base64"}, '"a"', "base64"),
        ({"type": "string"}, "1", "a number, not text"),
        ({"type": "string", "enum": ["a"]}, '"b"', "values that the schema allows"),
        ({"type": "string", "maxLength": 1}, '"bb"', "more than 1 characters"),
        ({"type": "integer", "minimum": 3}, "2", "minimum of 3"),
        ({"type": "integer", "exclusiveMinimum": 3}, "3", "minimum of 3"),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, "3", "minimum of 3"),
        ({"type": "array", "items": {"type": "integer"}}, "[1,null]", "null"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, '["a"]', "fewer than 2 items"),
        ({"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]}, "{}", "missing"),
    ],
)
@pytest.mark.parametrize("by_block", [True, False])
def test_what_does_not_fit_is_named(node: dict[str, Json], text: str, rule: str, by_block: bool) -> None:
    """A value that cannot be kept, or breaks the schema, is a bad record with its line and rule; others are kept."""
    run = run_of(["null", text, "null"], lambda raw: "{}" if raw == "null" else '{"a":' + raw + "}")
    decoded = RunDecoder(stream_schema("s", {"properties": {"a": node}}), by_block=by_block).decode(run)
    ((row, error),) = decoded.bad
    assert (row, error.line) == (1, 11)
    assert any(part in str(error) for part in rule.split("|")), str(error)
    assert (error.column or "").startswith("a")
    assert decoded.batch.num_rows == 2


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"RECORD","stream":"s","record":{"a":1}}{"type":"RECORD","stream":"s","record":{"a":2}}\n{}\n',
        b'{"type":"RECORD","stream":"s","record":{"a":NaN}}\n',
        b'{"type":"RECORD","stream":"s","record":{"u":NaN}}\n',
        b'{"type":"RECORD","stream":"s","record":{"a":1},"stream":"t"}\n',
        b'{"type":"RECORD","stream":"s","record":null}\n',
        b'{"type":"RECORD","stream":"s","record":[1]}\n',
        b'{"type":"RECORD","stream":"s"}\n',
        b'{"type":"RECORD","stream":"s","record":{"a":1,}}\n',
        b'{"type":"RECORD","stream":"s","record":{"b":"\xff"}}\n',
        b'{"type":"RECORD","stream":"s","record":{"b":"\\ud800"}}\n',
    ],
)
def test_what_is_no_record_is_refused_by_both_paths(line: bytes) -> None:
    """Lines that are not one RECORD in valid JSON are refused, whichever path sees them first."""
    schema = stream_schema("s", {"properties": {"a": {"type": "number"}, "b": {"type": "string"}}})
    run = Run("s", line, range(5, 5 + line.count(b"\n")), closed=all(x.endswith(b"}") for x in line.splitlines()))
    for by_block in (True, False):
        with pytest.raises(BadMessage, match="line 5"):
            RunDecoder(schema, by_block=by_block).decode(run)


def test_missing_and_null_are_told_apart() -> None:
    """A member that is not required may be missing but not null, where null is not allowed."""
    schema = stream_schema(
        "s", {"properties": {"a": {"type": "integer"}, "b": {"type": ["null", "integer"]}}, "required": ["b"]}
    )
    for by_block in (True, False):
        decoded = RunDecoder(schema, by_block=by_block).decode(run_of([{"b": None}, {"a": None, "b": 1}, {"a": 1}]))
        assert [(row, error.column) for row, error in decoded.bad] == [(1, "a"), (2, "b")]
        assert decoded.batch.to_pylist() == [{"a": None, "b": None}]


def test_five_thousand_columns_by_block() -> None:
    """A stream of 5,000 columns is decoded, by the block path."""
    schema = {"properties": {f"c{n}": {"type": ["null", "integer"]} for n in range(5000)}}
    decoded = RunDecoder(stream_schema("s", schema)).decode(run_of([{f"c{n}": n for n in range(5000)}] * 3))
    assert decoded.by_block
    assert decoded.batch.num_columns == 5000
    assert decoded.batch.column(4999).to_pylist() == [4999] * 3


def test_extracted_and_version_come_from_the_envelope() -> None:
    """`time_extracted` and `version` are read where asked for; a missing one is null."""
    schema = stream_schema("s", {"properties": {"a": {"type": "integer"}}})
    data = b'{"type":"RECORD","stream":"s","record":{"a":1},"version":7,"time_extracted":"2024-01-01T00:00:00Z"}\n'
    data += b'{"type":"RECORD","stream":"s","record":{"a":2}}\n'
    for by_block in (True, False):
        decoded = RunDecoder(schema, envelope=True, by_block=by_block).decode(Run("s", data, range(1, 3), closed=True))
        assert decoded.versions == pa.array([7, None], pa.int64())
        assert decoded.extracted is not None
        assert decoded.extracted.to_pylist() == [dt.datetime(2024, 1, 1, tzinfo=dt.UTC), None]
