"""JSON Lines files: exact values, places to go on from, and errors that say where."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melisma.arrow.schema import stream_schema
from melisma.arrow.types import StreamSchema
from melisma.errors import BadFile
from melisma.formats.jsonl import JsonlReader
from melisma.formats.shapes import Shape

PROPERTIES: dict[str, Any] = {
    "i": {"type": ["integer", "null"]},
    "n": {"type": ["number", "null"]},
    "s": {"type": ["string", "null"]},
    "t": {"type": ["string", "null"], "format": "date-time"},
    "o": {"type": ["object", "null"], "properties": {"a": {"type": ["integer", "null"]}}},
    "l": {"type": ["array", "null"], "items": {"type": ["string", "null"]}},
}


def schema(**overrides: str) -> StreamSchema:
    """The columns of the tests."""
    return stream_schema("s", {"type": "object", "properties": PROPERTIES}, (), overrides)


def reader(text: str | bytes) -> JsonlReader:
    """A reader of a file in memory."""
    return JsonlReader(io.BytesIO(text if isinstance(text, bytes) else text.encode()), where="f.jsonl", stream="s")


def rows(
    source: JsonlReader, columns: StreamSchema, zone: ZoneInfo | None = None, block_bytes: int = 1 << 20
) -> list[Any]:
    """Everything in a file."""
    return [row for batch, _ in source.read(columns, zone, source.start, block_bytes) for row in batch.to_pylist()]


records = st.fixed_dictionaries(
    {},
    optional={
        "i": st.none() | st.integers(-(2**63), 2**63 - 1),
        "n": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
        "s": st.none() | st.text(),
        "o": st.none() | st.fixed_dictionaries({}, optional={"a": st.none() | st.integers(0, 9)}),
        "l": st.none() | st.lists(st.none() | st.text(), max_size=3),
    },
)


@given(found=st.lists(records, min_size=1, max_size=8), block_bytes=st.integers(1, 60), blank=st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_block_size_gives_what_was_written(found: list[Any], block_bytes: int, blank: bool) -> None:
    """Whole values in any cut, with blank lines between or without."""
    text = ("\n\n" if blank else "\n").join(json.dumps(record) for record in found)
    got = rows(reader(text), schema(), block_bytes=block_bytes)
    assert len(got) == len(found)
    for one, wanted in zip(got, found, strict=True):
        for name in PROPERTIES:
            value = wanted.get(name)
            if name == "o" and value is not None:
                value = {"a": value.get("a")}
            assert one[name] == value


def test_fields_that_the_schema_does_not_name_are_counted() -> None:
    """At any depth; their rows are read."""
    source = reader('{"i":1,"x":5}\n{"i":2,"x":null,"o":{"a":1,"b":[1]}}\n')
    assert [row["i"] for row in rows(source, schema())] == [1, 2]
    assert source.unknown == {"x": 1, "o.b": 1}


def test_columns_of_json_text_take_any_value() -> None:
    """Numbers keep their digits."""
    source = reader('{"s":{"a":1.50}}\n{"s":"x"}\n{"s":[1,null]}\n{"s":null}\n')
    assert [row["s"] for row in rows(source, schema(s="json"))] == ['{"a":1.50}', '"x"', "[1,null]", None]


def test_naive_times_are_taken_for_local_ones() -> None:
    """Those with an offset are not."""
    source = reader('{"t":"2024-07-01T12:00:00"}\n{"t":"2024-07-01T12:00:00Z"}\n')
    found = [row["t"] for row in rows(source, schema(), ZoneInfo("Europe/Vienna"))]
    assert found == [dt.datetime(2024, 7, 1, 10, tzinfo=dt.UTC), dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"i":1}\n\n{"i":"secret"}\n', 'stream "s", file "f.jsonl", column "i", line 3: the value is text'),
        ('{"i":1.5}\n', 'column "i", line 1: the value is a number with a fraction'),
        ('{"o":{"a":"secret"}}\n', 'column "o.a", line 1'),
        ('{"i":1}\n{"i":secret\n', "line 2: it is not JSON"),
        ('{"i":1}\n[1]\n', "line 2: it is JSON, but not an object"),
        ('{"i":1,"i":2}\n', 'column "i", line 1: an object names this member twice'),
        ('{"n":NaN}\n', "line 1: it is not JSON"),
        ('{"i":1},"x":{"i":2}\n', "line 1: it is not JSON"),
        ('{"i":1}{"i":2}\n', "line 1: it is not JSON"),
        (b'{"s":"\xff"}\n', "line 1: it is not UTF-8 text"),
        ('{"i":1}\n{"i":', "line 2: it is not JSON"),
    ],
)
def test_what_does_not_fit_is_named_by_line_and_column(text: str | bytes, message: str) -> None:
    """Our own sentence with file, line, column and what to do; never the value."""
    with pytest.raises(BadFile) as caught:
        rows(reader(text), schema())
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_every_block_end_is_a_place_to_go_on_from() -> None:
    """Read from each place the rest is the rest, and rows know their lines."""
    text = "\ufeff" + "".join(f'{{"i":{i}}}\r\n' for i in range(20))
    read = 0
    source = reader(text)
    for batch, block in source.read(schema(), None, source.start, 25):
        lines = source.row_lines(block, batch.num_rows).to_pylist()
        assert lines == list(range(read + 1, read + 1 + batch.num_rows))
        read += batch.num_rows
        rest = [row["i"] for b, _ in reader(text).read(schema(), None, block.end) for row in b.to_pylist()]
        assert rest == list(range(read, 20))
    assert read == 20


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([1, None], pa.int64()),
        ([2**63], pa.uint64()),
        ([-1, 2**63], pa.decimal128(38, 0)),
        ([10**40], pa.json_()),
        ([1, Decimal("2.5")], pa.float64()),
        ([Decimal("12345678901234567.25"), 1], pa.decimal128(38, 2)),
        ([True], pa.bool_()),
        ([True, 1], pa.json_()),
        (["2024-01-01"], pa.date32()),
        (["2024-01-01", "2024-01-01T00:00:00Z"], pa.timestamp("us", "UTC")),
        (["x", "2024-01-01"], pa.string()),
        (["x", 1], pa.json_()),
        ([{"a": 1}, {"b": "x"}], pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ([{}], pa.json_()),
        ([[1], [], None], pa.list_(pa.int64())),
        ([[]], pa.json_()),
        ([[{"a": [1]}]], pa.list_(pa.struct([("a", pa.list_(pa.int64()))]))),
        ([None], pa.string()),
    ],
)
def test_inference_takes_the_narrowest_type_that_loses_nothing(values: list[Any], wanted: pa.DataType) -> None:
    """The table of what discovery finds."""
    shape = Shape()
    for value in values:
        shape.add(value)
    assert shape.type(utc=True) == wanted
