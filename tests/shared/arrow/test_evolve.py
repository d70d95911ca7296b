"""Which types share a column, and that no value changes on its way into the shared one."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melisma.arrow.column_types import named_type
from melisma.arrow.evolve import beyond_double, convert, join, misfits, named, reading
from melisma.arrow.schema import stream_schema
from melisma.arrow.table import Table
from melisma.arrow.types import ColumnType

PAGE = Path(__file__).resolve().parents[3] / "docs/evolution.md"
ROW = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \| `([^`]+)` \|", re.MULTILINE)
TABLE = {(lake, new): column for lake, new, column in ROW.findall(PAGE.read_text(encoding="utf-8"))}
NAMES = ("boolean", "integer", "uint64", "number", "decimal(12,4)", "decimal(20,2)", "string", "timestamp", "date")
NAMES += ("time", "binary", "json")


def column(name: str) -> ColumnType:
    """A type by its name."""
    return named_type("test", name)


def node(schema: dict[str, object]) -> ColumnType:
    """A type by its JSON Schema."""
    return stream_schema("s", {"properties": {"c": schema}}).fields[0].type


@pytest.mark.parametrize(("lake", "new"), list(product(NAMES, NAMES)), ids=lambda name: name)
def test_the_page_has_every_pair(lake: str, new: str) -> None:
    """docs/evolution.md names every pair of types that shares a column, and the code does what it says."""
    joined = join(column(lake), column(new), large=False)
    expected = lake if lake == new else TABLE.get((lake, new))
    assert (joined and named(joined)) == expected


def test_large_integers_do_not_become_doubles() -> None:
    """Where an integer lies beyond 2^53, no number joins its column."""
    assert join(column("integer"), column("number"), large=True) is None
    assert not beyond_double(pa.array([2**53, -(2**53), None]), column("integer"))
    assert beyond_double(pa.array([2**53 + 1]), column("integer"))
    items = node({"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}})
    assert beyond_double(pa.array([[{"n": -(2**53) - 1}]], items.arrow), items)


def test_decimals_join_up_to_38_digits() -> None:
    """A pair that would need more digits has no column in common."""
    joined = join(column("decimal(38,0)"), column("decimal(2,1)"), large=False)
    assert joined is None
    assert join(column("decimal(37,0)"), column("decimal(2,1)"), large=False) == column("decimal(38,1)")


def test_nested_types_join_member_by_member() -> None:
    """Members come and go, and widen; one that cannot share its place makes the whole column a stranger."""
    old = node({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}})
    new = node({"type": "object", "properties": {"a": {"type": "number"}, "c": {"type": "array", "items": {}}}})
    joined = join(old, new, large=False)
    assert joined is not None
    assert named(joined) == "object(a: number, b: string, c: json)"
    stranger = node({"type": "object", "properties": {"a": {"type": "string"}}})
    assert join(old, stranger, large=False) is None
    other_case = node({"type": "object", "properties": {"A": {"type": "integer"}}})
    assert join(old, other_case, large=False) is None


def test_values_that_do_not_fit_are_found() -> None:
    """`misfits` names exactly the rows whose integers no double has."""
    lake, new = column("number"), column("integer")
    values = pa.array([1, 2**53 + 1, None, -5, 2**60 + 1])
    assert misfits(values, new, lake) == [1, 4]


def test_the_table_is_kept_as_it_is() -> None:
    """What the journal keeps of a table gives the same table."""
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}}
    columns = {"x": column("decimal(12,4)"), "u": column("uint64"), "j": column("json"), "o": node(schema)}
    columns["m"] = node({"type": "object", "additionalProperties": {"type": "string", "format": "date"}})
    table = Table(columns, {"o"}, ("x",))
    found = Table.described({"key_properties": ["x"], **table.describe()})
    assert found is not None
    assert found.describe() == table.describe()
    assert [each.arrow for each in found.columns.values()] == [each.arrow for each in columns.values()]


scalars = st.sampled_from(["integer", "uint64", "number", "decimal(12,4)", "date", "timestamp"])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[ColumnType, ColumnType, pa.Array]:
    """A type in the lake, one that joins it, and values of the latter; both within the same nesting."""
    lake, new = column(draw(scalars)), column(draw(scalars))
    kind = new.arrow
    if pa.types.is_floating(kind):
        value = st.floats(allow_nan=False, allow_infinity=False)
    elif pa.types.is_decimal(kind):
        value = st.decimals(Decimal(-99_999_999), Decimal(99_999_999), places=4)
    elif pa.types.is_uint64(kind):
        value = st.integers(0, 2**64 - 1)
    elif pa.types.is_date(kind):
        value = st.dates()
    elif pa.types.is_timestamp(kind):
        value = st.datetimes()
    else:
        value = st.integers(-(2**63), 2**63 - 1)
    values = pa.array(draw(st.lists(st.none() | value, max_size=5)), kind)
    return lake, new, values


@given(pairs())
def test_no_value_changes_on_its_way(case: tuple[ColumnType, ColumnType, pa.Array]) -> None:
    """A converted value is the value that came; what would not be is named as a misfit."""
    lake, new, values = case
    joined = join(lake, new, large=False)
    if joined is None or reading(new, joined) != new:
        return
    bad = set(misfits(values, new, joined))
    good = values.filter(pa.array([row not in bad for row in range(len(values))], pa.bool_()))
    found = convert(good, new, joined)
    assert found.type == joined.arrow
    back = [int(x.as_py()) if x.is_valid and pa.types.is_integer(new.arrow) else None for x in found]
    if pa.types.is_integer(new.arrow):
        assert back == good.to_pylist()
    else:
        assert pc.all(pc.equal(found.cast(new.arrow), good)).as_py() is not False
    assert not bad or pa.types.is_floating(joined.arrow)
    assert all(abs(values[row].as_py()) > 2**53 for row in bad)
