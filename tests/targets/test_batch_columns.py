"""Columns of BATCH files become what the same rows become as RECORD messages, whatever their Arrow types are."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melisma.arrow.decode import Decoded, RunDecoder
from melisma.arrow.encode import RecordEncoder
from melisma.arrow.schema import stream_schema
from melisma.errors import BadFile
from melisma.tap.batch import BatchOutput
from melisma.tap.batch_config import BatchSettings
from melisma.target.batch_columns import ColumnDecoder
from melisma.target.batch_lines import Wrapping, read_runs
from melisma.wire.framing import Run

AT = dt.datetime(2024, 5, 6, 7, 8, 9, 10, dt.UTC)
AT_TEXT = "2024-05-06T07:08:09.000010Z"

TYPES: dict[str, dict[str, Any]] = {
    "integer": {"type": "integer"},
    "bounded": {"type": "integer", "minimum": -5, "maximum": 100},
    "unsigned": {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
    "number": {"type": "number"},
    "decimal": {"type": "number", "precision": 12, "scale": 3},
    "string": {"type": "string"},
    "short": {"type": "string", "maxLength": 3},
    "boolean": {"type": "boolean"},
    "moment": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "binary": {"type": "string", "contentEncoding": "base64"},
    "json": {},
    "object": {
        "type": "object",
        "properties": {"a": {"type": ["integer", "null"]}, "b": {"type": ["string", "null"]}, "c": {"type": "number"}},
        "required": ["c"],
    },
    "loose": {"type": "object", "properties": {"c": {"type": ["number", "null"]}, "b": {"type": ["string", "null"]}}},
    "array": {"type": "array", "items": {"type": ["number", "null"]}},
    "map": {"type": "object", "additionalProperties": {"type": ["integer", "null"]}},
}

_moments = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))
_near = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_struct = pa.struct([("b", pa.large_string()), ("a", pa.int16()), ("x", pa.bool_())])
_member = pa.struct([("a", pa.int64()), ("c", pa.float64())])

ARROW: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int8(), st.integers(-128, 127)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float64(), _floats | st.integers(-50, 50).map(float)),
    (pa.float32(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    (pa.decimal128(12, 3), st.decimals(-(10**8), 10**8, places=3)),
    (pa.decimal128(20, 5), st.decimals(-(10**14), 10**14, places=5)),
    (pa.string(), _text | st.sampled_from(["2024-02-29", "12:00:00", "1.5", "7", "aGk=", "true"])),
    (pa.large_string(), _text),
    (pa.string_view(), _text),
    (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["a", "b", "2024-02-29"])),
    (pa.bool_(), st.booleans()),
    (pa.timestamp("s"), _moments.map(lambda each: each.replace(microsecond=0))),
    (pa.timestamp("us", "UTC"), _moments),
    (pa.timestamp("us", "Europe/Berlin"), _near),
    (pa.timestamp("ns", "UTC"), st.integers(-(10**18), 10**18)),
    (pa.date32(), st.dates()),
    (pa.date64(), st.dates()),
    (pa.time32("ms"), st.times().map(lambda each: each.replace(microsecond=0))),
    (pa.time64("us"), st.times()),
    (pa.binary(), st.binary(max_size=4)),
    (pa.null(), st.none()),
    (_struct, st.fixed_dictionaries({"a": st.none() | st.integers(-9, 9), "b": st.none() | _text, "x": st.booleans()})),
    (_member, st.fixed_dictionaries({"a": st.none() | st.integers(-9, 9), "c": st.none() | _floats})),
    (pa.list_(pa.float64()), st.lists(st.none() | _floats, max_size=3)),
    (pa.large_list(pa.int32()), st.lists(st.integers(-9, 9), max_size=3)),
    (pa.list_(_member), st.lists(st.just({"a": 1, "c": 0.5}), max_size=2)),
    (
        pa.map_(pa.string(), pa.int64()),
        st.dictionaries(_text, st.integers(-9, 9), max_size=2).map(lambda d: [*d.items()]),
    ),
]


_integers = [pa.int8(), pa.int64(), pa.uint64(), pa.null()]
_numbers = [pa.float64(), pa.float32(), pa.int64(), pa.decimal128(20, 5)]
_strings = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
_zoned = [pa.timestamp("us", "UTC"), pa.timestamp("us", "Europe/Berlin"), pa.timestamp("ns", "UTC"), pa.timestamp("s")]
FITTING: dict[str, list[pa.DataType]] = {
    "integer": _integers,
    "bounded": _integers,
    "unsigned": _integers,
    "number": _numbers,
    "decimal": [pa.decimal128(12, 3), *_numbers],
    "string": [*_strings, *_zoned, pa.date32(), pa.time64("us"), pa.binary()],
    "short": [pa.string(), pa.dictionary(pa.int32(), pa.string())],
    "boolean": [pa.bool_()],
    "moment": [*_zoned, pa.date32(), pa.date64()],
    "date": [pa.date32(), pa.date64()],
    "time": [pa.time32("ms"), pa.time64("us")],
    "binary": [pa.binary()],
    "object": [_member],
    "loose": [_member, _struct],
    "array": [pa.list_(pa.float64()), pa.large_list(pa.int32())],
    "map": [pa.map_(pa.string(), pa.int64())],
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, Any], pa.RecordBatch]:
    """A schema and rows of arbitrary Arrow types, of which many fit it.

    A null that may also be a missing value is held only where neither is allowed, so what may not be null is required.
    """
    rows = draw(st.integers(1, 5))
    properties: dict[str, Any] = {}
    columns: dict[str, pa.Array] = {}
    required: list[str] = []
    for name in ("one", "two", "three"):
        node_name = draw(st.sampled_from(sorted(TYPES)))
        node, fitting = TYPES[node_name], FITTING.get(node_name, [])
        wild = not fitting or draw(st.integers(0, 9)) == 0
        arrow, values = draw(st.sampled_from([each for each in ARROW if wild or each[0] in fitting]))
        nullable = draw(st.booleans())
        if nullable and "type" in node:
            node = {**node, "type": [node["type"], "null"]}
        if not nullable:
            required.append(name)
        properties[name] = node
        if nullable or draw(st.integers(0, 9)) == 0:
            values = st.none() | values
        columns[name] = pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), arrow)
    if draw(st.booleans()):
        columns["other"] = pa.array(range(rows))
    return {"type": "object", "properties": properties, "required": required}, pa.record_batch(columns)


def through_records(schema: Any, batch: pa.RecordBatch, policy: str) -> Decoded:
    """The rows as a tap sends them by RECORD, read by the row path."""
    data = bytes(RecordEncoder("s").encode(batch, AT))
    decoder = RunDecoder(schema, on_unknown_field=policy, envelope=True, by_block=False)
    return decoder.decode(Run("s", data, range(1, batch.num_rows + 1)))


def through_files(schema: Any, batch: pa.RecordBatch, policy: str, kind: str, compression: str) -> Decoded:
    """The rows as a tap writes them into a BATCH file, and a target reads that."""
    config = {"encoding": {"format": kind, "compression": compression}, "storage": {"root": "unused"}}
    output = BatchOutput("tap", "s", BatchSettings.read(config), None)
    stored = io.BytesIO()
    output._write([batch], stored)
    data, decoder = stored.getvalue(), RunDecoder(schema, on_unknown_field=policy, envelope=True)
    wrapping = Wrapping("s", AT_TEXT)
    if kind == "jsonl":
        [run] = read_runs(io.BytesIO(data), wrapping, 1 << 20, "file")
        assert run is not None
        return decoder.decode(run)
    columns = ColumnDecoder(decoder, validate=True, on_unknown_field=policy, envelope=True)
    table = pq.read_table(io.BytesIO(data)) if kind == "parquet" else pa.ipc.open_file(data).read_all()
    [found] = table.to_batches()
    found.validate(full=True)
    return columns.decode(found, range(1, found.num_rows + 1), wrapping)


@pytest.mark.parametrize("kind", ["arrow", "parquet", "jsonl"])
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(table=tables(), policy=st.sampled_from(["warn", "drop"]))
def test_batch_gives_what_record_gives(kind: str, table: tuple[dict[str, Any], pa.RecordBatch], policy: str) -> None:
    """The same rows in the same table, the same ones refused, and the same unknown fields counted."""
    json_schema, batch = table
    schema = stream_schema("s", json_schema, ())
    expected = through_records(schema, batch, policy)
    found = through_files(schema, batch, policy, kind, "none")
    assert [row for row, _ in found.bad] == [row for row, _ in expected.bad]
    assert found.batch.equals(expected.batch)
    assert found.extracted is not None
    assert found.extracted.equals(expected.extracted)
    if not expected.bad:  # what is counted of a bad record depends on where it is given up
        assert found.unknown == expected.unknown


@pytest.mark.parametrize("kind", ["arrow", "parquet", "jsonl"])
def test_a_null_in_a_column_may_stand_for_a_missing_member(kind: str) -> None:
    """What need not be there is taken when a column has a null for it; a line says null and is refused.

    Arrow has no other way to leave a member out: an SDK tap that makes a file of records without `c` writes this.
    """
    member = {"type": "object", "properties": {"c": {"type": "number"}}}
    schema = stream_schema("s", {"type": "object", "properties": {"c": {"type": "number"}, "o": member}}, ())
    rows = [{"c": 0.5, "o": {"c": 0.5}}, {"c": None, "o": {"c": 0.5}}, {"c": 0.5, "o": {"c": None}}]
    batch = pa.RecordBatch.from_pylist(rows, pa.schema([("c", pa.float64()), ("o", pa.struct([("c", pa.float64())]))]))
    assert [row for row, _ in through_records(schema, batch, "warn").bad] == [1, 2]
    found = through_files(schema, batch, "warn", kind, "none")
    assert [row for row, _ in found.bad] == ([1, 2] if kind == "jsonl" else [])
    assert found.batch.to_pylist() == (rows[:1] if kind == "jsonl" else rows)


CELLS = {"integer": 1, "number": 0.5, "string": "a", "moment": AT, "object": {"a": 1, "b": "x", "c": 0.5}}


def test_a_column_of_the_streams_own_type_is_not_copied() -> None:
    """What the schema proves is taken as it is: the buffers are those of the file."""
    schema = stream_schema("s", {"type": "object", "properties": {name: TYPES[name] for name in CELLS}}, ())
    batch = pa.record_batch({name: [value] * 3 for name, value in CELLS.items()}, schema=schema.arrow)
    decoder = ColumnDecoder(RunDecoder(schema), validate=True, on_unknown_field="warn")
    found = decoder.decode(batch, range(1, 4), Wrapping("s"))
    for name in ("integer", "number", "string", "moment"):
        assert found.batch.column(name).buffers()[1].address == batch.column(name).buffers()[1].address


def decode(batch: pa.RecordBatch, policy: str = "warn", **more: Any) -> Decoded:
    """Decode rows of a stream with an integer `n` and a number `x`."""
    properties = {"n": {"type": ["integer", "null"]}, "x": {"type": ["number", "null"]}}
    schema = stream_schema("s", {"type": "object", "properties": properties, **more}, ())
    decoder = ColumnDecoder(RunDecoder(schema, on_unknown_field=policy), validate=True, on_unknown_field=policy)
    return decoder.decode(batch, range(1, batch.num_rows + 1), Wrapping("s"))


@pytest.mark.parametrize(
    ("names", "says"), [(["n", "n"], "the same name"), (["N", "m"], "none of its columns is in the stream's schema")]
)
def test_columns_that_are_not_the_streams_are_refused(names: list[str], says: str) -> None:
    """A file whose schema has nothing to do with the stream's is an error, not a table of nulls."""
    with pytest.raises(BadFile, match=says):
        decode(pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=names))


def test_a_missing_column_is_null() -> None:
    """As a member that a record leaves out."""
    assert decode(pa.record_batch({"n": [1, 2]})).batch.to_pylist() == [{"n": 1, "x": None}, {"n": 2, "x": None}]


@pytest.mark.parametrize("more", [{}, {"additionalProperties": False}])
def test_unknown_columns_are_bad_where_they_are_forbidden(more: dict[str, Any]) -> None:
    """`on_unknown_field: fail`, or a closed schema: the rows that have a value there are bad."""
    policy = "warn" if more else "fail"
    found = decode(pa.record_batch({"n": [1, 2], "other": ["a", None]}), policy, **more)
    assert found.batch.to_pylist() == [{"n": 2, "x": None}]
    assert [(row, error.column, error.line) for row, error in found.bad] == [(0, "other", 1)]


def test_nan_is_a_bad_record() -> None:
    """JSON Schema's number is never NaN or infinite; no value is changed in silence."""
    found = decode(pa.record_batch({"n": [1, 2, 3], "x": [float("nan"), 0.5, float("inf")]}))
    assert found.batch.to_pylist() == [{"n": 2, "x": 0.5}]
    assert [error.column for _, error in found.bad] == ["x", "x"]


def test_a_value_that_does_not_fit_names_its_row() -> None:
    """A file's rows are counted as lines are."""
    found = decode(pa.record_batch({"n": pa.array([Decimal("1.0"), Decimal("1.5")], pa.decimal128(9, 1))}))
    assert found.batch.to_pylist() == [{"n": 1, "x": None}]
    [(row, error)] = found.bad
    assert (row, error.column, error.line) == (1, "n", 2)


LINES = [
    (b'{"n":1},"version":5,"x":{}', "is not JSON"),
    (b'{"n":1} {"n":2}', "is not JSON"),
    (b'{"n":1', "is not JSON"),
    (b"[1]", "is not a JSON object"),
    (b'{"n":1\xff}', "is not"),
]


@pytest.mark.parametrize(("line", "says"), LINES)
def test_a_line_is_one_object_by_itself(line: bytes, says: str) -> None:
    """Nothing in a file can speak for the message that its lines are put into."""
    with pytest.raises(BadFile) as raised:
        list(read_runs(io.BytesIO(b'{"n":0}\n' + line + b"\n"), Wrapping("s"), 1000, "file"))
    assert says in str(raised.value)
    assert 'file "file", line 2' in str(raised.value)


def test_blank_lines_crlf_and_a_bom_are_accepted() -> None:
    """As in the input itself; lines keep their numbers."""
    data = b'\xef\xbb\xbf{"n":0}\r\n\r\n  {"n":1}\r\n{"n":2}'
    runs = [run for run in read_runs(io.BytesIO(data), Wrapping("s", AT_TEXT, 3), 1000, "f") if run is not None]
    messages = [json.loads(line) for run in runs for line in run.data.splitlines()]
    assert [each["record"]["n"] for each in messages] == [0, 1, 2]
    assert [line for run in runs for line in run.lines] == [1, 3, 4]
    assert {(each["version"], each["time_extracted"]) for each in messages} == {(3, AT_TEXT)}
