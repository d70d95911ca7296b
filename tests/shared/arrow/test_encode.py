"""Record batches as RECORD lines: what is written is what the batch holds."""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
from collections import Counter
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melisma.arrow.encode import RecordEncoder, json_lines
from melisma.errors import BadRecord, BadSchema

NOW = dt.datetime(2024, 5, 6, 7, 8, 9, 12, tzinfo=dt.UTC)


def _decoded(array: pa.Array) -> list[Any]:
    lines = json_lines(pa.record_batch([array], names=["x"]), stream="s")
    return [json.loads(line, parse_float=Decimal)["x"] for line in lines.splitlines()]


def _scalars() -> st.SearchStrategy[tuple[pa.DataType, st.SearchStrategy[Any]]]:
    moments = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31))
    choices: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
        (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pa.uint64(), st.integers(0, 2**64 - 1)),
        (pa.int8(), st.integers(-128, 127)),
        (pa.float64(), st.floats()),
        (pa.float32(), st.floats(width=32)),
        (pa.bool_(), st.booleans()),
        (pa.string(), st.text()),
        (pa.large_string(), st.text()),
        (pa.string_view(), st.text()),
        (pa.binary(), st.binary()),
        (pa.binary(3), st.binary(min_size=3, max_size=3)),
        (pa.decimal128(20, 4), st.decimals(-(10**15), 10**15, places=4)),
        (pa.decimal256(60, 3), st.decimals(-(10**20), 10**20, places=3)),
        (pa.timestamp("us", "UTC"), moments.map(lambda m: m.replace(tzinfo=dt.UTC))),
        (pa.timestamp("us", "Europe/Vienna"), moments.map(lambda m: m.replace(tzinfo=dt.UTC))),
        (pa.timestamp("ms"), moments.map(lambda m: m.replace(microsecond=m.microsecond // 1000 * 1000))),
        (pa.date32(), st.dates()),
        (pa.date64(), st.dates()),
        (pa.time64("us"), st.times()),
        (pa.dictionary(pa.int32(), pa.string()), st.text()),
    ]
    return st.sampled_from(choices)


@st.composite
def _arrays(draw: st.DrawFn) -> pa.Array:
    kind, values = draw(_scalars())
    for _ in range(draw(st.integers(0, 2))):
        shape = draw(st.sampled_from(["list", "large_list", "struct", "map"]))
        nullable = st.none() | values
        if pa.types.is_dictionary(kind):
            kind = pa.string()
        if shape == "struct":
            kind, values = (
                pa.struct([("a", kind), ("b", pa.int64())]),
                st.fixed_dictionaries({"a": nullable, "b": st.none() | st.integers(0, 9)}),
            )
        elif shape == "map":
            kind = pa.map_(pa.string(), kind)
            values = st.dictionaries(st.text(), nullable, max_size=3).map(lambda d: list(d.items()))
        else:
            kind = pa.list_(kind) if shape == "list" else pa.large_list(kind)
            values = st.lists(nullable, max_size=3)
    array = pa.array(draw(st.lists(st.none() | values, min_size=1, max_size=8)), kind)
    return array.slice(draw(st.integers(0, len(array) - 1)))


def _truth(value: Any, kind: pa.DataType) -> Any:
    """What JSON should hold, from `to_pylist`."""
    if value is None:
        return None
    if pa.types.is_dictionary(kind):
        return value
    if pa.types.is_struct(kind):
        return {field.name: _truth(value[field.name], field.type) for field in kind}
    if pa.types.is_map(kind):
        return {key: _truth(item, kind.item_type) for key, item in value}
    if pa.types.is_nested(kind):
        return [_truth(item, kind.value_type) for item in value]
    if pa.types.is_float32(kind):
        return ("float32", value) if math.isfinite(value) else None
    if isinstance(value, float):
        return ("float64", value) if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.datetime):
        return ("moment", value if value.tzinfo else value.replace(tzinfo=dt.UTC))
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, dt.time):
        return ("time", value)
    return value


def _same(found: Any, truth: Any) -> bool:
    if isinstance(truth, tuple):
        kind, value = truth
        if kind == "float64":
            return float(found) == value
        if kind == "float32":
            return bool(pa.scalar(float(found), pa.float32()).as_py() == value)
        if kind == "time":
            return dt.time.fromisoformat(found) == value
        return str(found).endswith("Z") and dt.datetime.fromisoformat(found) == value
    if isinstance(truth, dict):
        return list(found) == list(truth) and all(_same(found[key], truth[key]) for key in truth)
    if isinstance(truth, list):
        return len(found) == len(truth) and all(_same(a, b) for a, b in zip(found, truth, strict=True))
    return bool(found == truth)


@given(array=_arrays())
@settings(max_examples=300, deadline=None)
def test_what_is_written_is_what_the_batch_holds(array: pa.Array) -> None:
    """Every type, nested and sliced too, reads back as the values that `to_pylist` gives."""
    truths = [_truth(value, array.type) for value in array.to_pylist()]
    found = _decoded(array)
    assert len(found) == len(truths)
    for one, truth in zip(found, truths, strict=True):
        assert _same(one, truth), (one, truth)


def test_a_line_is_a_record_message_in_a_fixed_order() -> None:
    """Type, stream, record, version, time; columns in the batch's order; nulls written out."""
    batch = pa.record_batch({"b": [1, None], "a": ["x\n", "\u2028"]})
    lines = bytes(RecordEncoder('s"', version=7).encode(batch, NOW)).decode().split("\n")
    assert lines[-1] == ""
    assert lines[0] == (
        '{"type":"RECORD","stream":"s\\"","record":{"b":1,"a":"x\\n"},"version":7,'
        '"time_extracted":"2024-05-06T07:08:09.000012Z"}'
    )
    assert [json.loads(line)["record"] for line in lines[:-1]] == [{"b": 1, "a": "x\n"}, {"b": None, "a": "\u2028"}]


def test_decimals_keep_every_digit() -> None:
    """38 digits, trailing zeros included, stand in the line as a number."""
    array = pa.array([Decimal("12345678901234567890.123456789012345600")], pa.decimal128(38, 18))
    assert b'"x":12345678901234567890.123456789012345600}' in json_lines(
        pa.record_batch([array], names=["x"]), stream="s"
    )


def test_float32_is_written_without_noise() -> None:
    """0.1 as a float32 is written as 0.1, not as the double next to it."""
    assert json_lines(pa.record_batch({"x": pa.array([0.1], pa.float32())}), stream="s") == b'{"x":0.1}\n'


def test_not_a_number_becomes_null_and_is_counted() -> None:
    """NaN and infinities, nested ones too, are null in the line and counted by column."""
    encoder = RecordEncoder("s")
    nan = math.nan
    batch = pa.record_batch({"x": [1.5, nan, None], "y": pa.array([[math.inf], [2.0], None], pa.list_(pa.float64()))})
    found = [json.loads(line)["record"] for line in bytes(encoder.encode(batch, NOW)).splitlines()]
    assert found == [{"x": 1.5, "y": [None]}, {"x": None, "y": [2.0]}, {"x": None, "y": None}]
    assert encoder.not_finite == Counter({"x": 1, "y": 1})


def test_extension_and_encoded_types_are_written_as_their_values() -> None:
    """UUIDs as their bytes, JSON text as text, run-end encoding as the values."""
    assert _decoded(pa.array([b"0" * 16], pa.uuid())) == [base64.b64encode(b"0" * 16).decode()]
    assert _decoded(pa.array(['{"a":1}'], pa.json_())) == ['{"a":1}']
    assert _decoded(pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"])) == ["a", "a", "b"]
    assert _decoded(pa.array([[(1, 2)], None], pa.map_(pa.int64(), pa.int64()))) == [{"1": 2}, None]


@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("s", pa.struct([("a", pa.int64())]))]),
        pa.struct([("s", pa.struct([("s", pa.struct([("a", pa.int64())]))]))]),
        pa.list_(pa.struct([("s", pa.struct([("a", pa.int64())]))])),
        pa.list_(pa.struct([("a", pa.int64())]), 2),
        pa.struct([("s", pa.list_(pa.list_(pa.int64(), 2), 1))]),
    ],
    ids=str,
)
def test_slices_of_objects_within_objects(kind: pa.DataType, nulls: bool) -> None:
    """A large batch is written in slices; arrow-rs panics on a slice of structs in structs that is left as it is."""

    def value(n: int, kind: pa.DataType) -> Any:
        if pa.types.is_struct(kind):
            return {field.name: value(n, field.type) for field in kind}
        if pa.types.is_nested(kind):
            return [value(n, kind.value_type)] * (kind.list_size if pa.types.is_fixed_size_list(kind) else n % 3)
        return n

    array = pa.array([None if nulls and n % 4 == 0 else value(n, kind) for n in range(20)], kind)
    for start, length in ((0, 20), (0, 5), (3, 17), (3, 5), (19, 1)):
        piece = array.slice(start, length)
        assert _decoded(piece) == piece.to_pylist()


def test_no_columns_still_make_a_line_for_each_row() -> None:
    """A selection of nothing is so many empty records."""
    batch = pa.RecordBatch.from_struct_array(pa.array([{}, {}], pa.struct([])))
    assert [json.loads(line)["record"] for line in bytes(RecordEncoder("s").encode(batch, NOW)).splitlines()] == [
        {},
        {},
    ]


def test_a_time_that_json_cannot_say_is_an_error_with_the_column() -> None:
    """A timestamp after the year 9999 is refused; the message does not hold it."""
    array = pa.array([2**62], pa.int64()).cast(pa.timestamp("us", "UTC"))
    with pytest.raises(BadRecord, match='stream "s", column "x": a time lies outside the years 1 to 9999'):
        json_lines(pa.record_batch([array], names=["x"]), stream="s")


def test_a_type_without_a_json_form_is_an_error_with_the_column() -> None:
    """A union is refused in one line."""
    array = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["a"])])
    with pytest.raises(BadSchema, match=r'column "x": the Arrow type .* has no JSON form'):
        json_lines(pa.record_batch([array], names=["x"]), stream="s")


@pytest.mark.parametrize("kind", [pa.time64("us"), pa.time64("ns"), pa.time32("s"), pa.list_(pa.time64("us"))])
def test_a_time_that_no_clock_shows_is_an_error(kind: pa.DataType) -> None:
    """Some databases have 24:00:00; arrow-rs would write the text of an error into the record."""
    scalar = kind.value_type if pa.types.is_list(kind) else kind
    for day in (86_400, -1):
        number = pa.array([day], pa.int64()).cast(pa.int32() if pa.types.is_time32(scalar) else pa.int64())
        factor = {"s": 1, "us": 10**6, "ns": 10**9}[scalar.unit]
        times = pc.multiply(number, pa.scalar(factor, number.type)).view(scalar)
        array = pa.ListArray.from_arrays([0, 1], times) if pa.types.is_list(kind) else times
        with pytest.raises(BadRecord, match='column "v": a time of day is not before 24:00:00'):
            json_lines(pa.record_batch([array], ["v"]), stream="s")
