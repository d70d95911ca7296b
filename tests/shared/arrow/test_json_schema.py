"""Arrow to JSON Schema, held against the way back."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melisma.arrow.json_schema import json_schema
from melisma.arrow.schema import stream_schema
from melisma.errors import BadSchema

UNITS = ("s", "ms", "us", "ns")
TEXT, BYTES, US = pa.string(), pa.binary(), pa.timestamp("us", "UTC")
SCALARS: list[tuple[pa.DataType, pa.DataType]] = [
    (pa.bool_(), pa.bool_()),
    *((t, pa.int64()) for t in (pa.int8(), pa.int16(), pa.int32(), pa.int64())),
    *((t, pa.int64()) for t in (pa.uint8(), pa.uint16(), pa.uint32())),
    (pa.uint64(), pa.uint64()),
    *((t, pa.float64()) for t in (pa.float16(), pa.float32(), pa.float64())),
    *((t, TEXT) for t in (pa.string(), pa.large_string(), pa.string_view(), pa.null())),
    *((t, BYTES) for t in (pa.binary(), pa.binary(4), pa.large_binary(), pa.binary_view(), pa.uuid())),
    *((t, pa.date32()) for t in (pa.date32(), pa.date64())),
    *((pa.timestamp(unit, zone), US) for unit in UNITS for zone in (None, "UTC", "Europe/Zurich")),
    *((t, pa.time64("us")) for t in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))),
    *((pa.duration(unit), TEXT) for unit in UNITS),
    (pa.decimal32(9, 2), pa.decimal128(9, 2)),
    (pa.decimal64(18, 0), pa.decimal128(18, 0)),
    (pa.decimal128(38, 38), pa.decimal128(38, 38)),
    (pa.decimal128(5, -2), pa.decimal128(7, 0)),
    (pa.decimal128(3, 5), pa.decimal128(5, 5)),
    (pa.decimal256(38, 30), pa.decimal128(38, 30)),
    (pa.decimal256(76, 10), pa.decimal128(38, 10)),
    (pa.decimal256(76, 30), pa.decimal128(38, 18)),
    (pa.dictionary(pa.int8(), pa.int16()), pa.int64()),
    (pa.run_end_encoded(pa.int32(), pa.date64()), pa.date32()),
]
"""Each type with the one that melisma reads it back as."""

_Pair = tuple[pa.DataType, pa.DataType]


def _structs(children: st.SearchStrategy[_Pair]) -> st.SearchStrategy[_Pair]:
    def join(members: list[_Pair]) -> _Pair:
        sent, read = ([(f"m{i}", pair[side]) for i, pair in enumerate(members)] for side in (0, 1))
        return pa.struct(sent), pa.struct(read)

    return st.lists(children, min_size=1, max_size=3).map(join)


def _lists(children: st.SearchStrategy[_Pair]) -> st.SearchStrategy[_Pair]:
    kinds = (pa.list_, pa.large_list, pa.list_view, pa.large_list_view, lambda t: pa.list_(t, 3))
    return st.tuples(children, st.sampled_from(kinds)).map(lambda p: (p[1](p[0][0]), pa.list_(p[0][1])))


def _maps(children: st.SearchStrategy[_Pair]) -> st.SearchStrategy[_Pair]:
    keys = st.sampled_from((pa.string(), pa.large_string(), pa.int32()))
    return st.tuples(keys, children).map(lambda p: (pa.map_(p[0], p[1][0]), pa.map_(pa.string(), p[1][1])))


TYPES: st.SearchStrategy[_Pair] = st.recursive(
    st.sampled_from(SCALARS)
    | st.tuples(st.integers(1, 38), st.integers(0, 38)).map(
        lambda d: (pa.decimal128(max(d), min(d)), pa.decimal128(max(d), min(d)))
    ),
    lambda children: _structs(children) | _lists(children) | _maps(children),
    max_leaves=8,
)


@given(st.lists(TYPES, min_size=1, max_size=5))
def test_round_trip(pairs: list[_Pair]) -> None:
    """Mapping to JSON Schema and back gives the same columns, widths and units aside, and the schema is JSON."""
    names = [f"c{i}" for i in range(len(pairs))]
    schema = json_schema(pa.schema(list(zip(names, [sent for sent, _ in pairs], strict=True))))
    again = stream_schema("s", json.loads(json.dumps(schema)))
    assert again.arrow == pa.schema(list(zip(names, [read for _, read in pairs], strict=True)))
    assert all(field.type.nullable and not field.required for field in again.fields)
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("value", [Decimal("12345678901234567890.123456789012345678"), Decimal("0.07"), 0.07, None])
def test_decimals_pass_other_targets(value: Any) -> None:
    """A validator such as stock SDK targets use takes every value of a decimal column, as Decimal or as float."""
    schema = json_schema(pa.schema([("c", pa.decimal128(38, 18))]))
    assert jsonschema.Draft7Validator(schema).is_valid({"c": value})


@pytest.mark.parametrize(
    "arrow",
    [
        pa.month_day_nano_interval(),
        pa.dense_union([pa.field("a", pa.int8())]),
        pa.map_(pa.struct([("a", pa.int8())]), pa.int8()),
    ],
    ids=str,
)
def test_types_without_json_form(arrow: pa.DataType) -> None:
    """A type that JSON cannot say is refused, by its column."""
    with pytest.raises(BadSchema, match=r'column "a\.b\[\]": the Arrow type .* has no JSON form'):
        json_schema(pa.schema([("a", pa.struct([("b", pa.list_(arrow))]))]))


def test_two_columns_of_one_name() -> None:
    """Parquet may hold a name twice, a JSON object cannot."""
    with pytest.raises(BadSchema, match='same name "a"'):
        json_schema(pa.schema([("a", pa.int8()), ("b", pa.int8()), ("a", pa.int8())]))
