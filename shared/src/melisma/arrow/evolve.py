"""Which types can live in one column of a lake: what a reader of all its files gets back whole.

A lake's files are not written anew when a schema changes, so a column may have files of a narrower and of a wider
type. `join` gives the type that holds both, or None where there is none that every reader arrives at without losing
a value; docs/evolution.md has the table, and what each reader was seen to do. `reading` and `convert` are the way
there: a run's values are read by the tap's own schema, so that they are held to it, and then brought to the lake's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from melisma.arrow.column_types import MAX_PRECISION
from melisma.arrow.types import ColumnType, Field, Kind

__all__ = ["JSON_TEXT", "beyond_double", "convert", "holds_integers", "join", "misfits", "named", "reading", "stored"]

JSON_TEXT = ColumnType(Kind.JSON, pa.string())
"""What holds every value."""

_TEXTS = {Kind.STRING, Kind.TIMESTAMP, Kind.DATE, Kind.TIME, Kind.BINARY}
_EXACT = 2**53
"""Up to here each integer is a double of its own."""


def join(lake: ColumnType, new: ColumnType, *, large: bool) -> ColumnType | None:
    """The type that holds what the lake has and what is to come; None if the two cannot share a column.

    Args:
        lake: the column's type in the lake.
        new: its type in the tap's schema.
        large: the lake's integers of this column may lie beyond 2^53, where a double rounds.
    """
    if Kind.JSON in {lake.kind, new.kind}:
        return lake if lake.kind is Kind.JSON else None
    if lake.kind is new.kind is Kind.STRUCT:
        return _structs(lake, new, large)
    if lake.kind is new.kind and lake.item is not None and new.item is not None:
        item = join(lake.item, new.item, large=large)
        if item is None:
            return None
        arrow = pa.list_(item.arrow) if lake.kind is Kind.LIST else pa.map_(pa.string(), item.arrow)
        return ColumnType(lake.kind, arrow, item=item)
    return _scalars(lake, new, large)


def _structs(lake: ColumnType, new: ColumnType, large: bool) -> ColumnType | None:
    coming = {each.name: each.type for each in new.fields}
    members: list[Field] = []
    for each in lake.fields:
        joined = join(each.type, coming.pop(each.name), large=large) if each.name in coming else each.type
        if joined is None:
            return None
        members.append(Field(each.name, joined))
    folded = {each.name.lower() for each in lake.fields}
    if any(name.lower() in folded for name in coming):
        return None  # they differ in letter case only: DuckDB and Spark cannot tell them apart
    members += [Field(name, stored(each)) for name, each in coming.items()]
    return _struct(members)


def _struct(members: list[Field]) -> ColumnType:
    arrow = pa.struct([(each.name, each.type.arrow) for each in members])
    return ColumnType(Kind.STRUCT, arrow, fields=tuple(members))


def stored(column: ColumnType) -> ColumnType:
    """The type alone, without what its schema holds values to."""
    if column.kind is Kind.STRUCT:
        return _struct([Field(each.name, stored(each.type)) for each in column.fields])
    item = stored(column.item) if column.item is not None else None
    return ColumnType(column.kind, column.arrow, item=item)


def _scalars(lake: ColumnType, new: ColumnType, large: bool) -> ColumnType | None:
    kinds = {lake.kind, new.kind}
    if lake.arrow == new.arrow and len(kinds) == 1:
        return lake
    if lake.kind is Kind.STRING and (new.kind in _TEXTS or new.schema.get("type") == "string"):
        return lake
    if kinds == {Kind.DATE, Kind.TIMESTAMP}:
        return ColumnType(Kind.TIMESTAMP, pa.timestamp("us", "UTC"))
    if kinds == {Kind.INTEGER, Kind.NUMBER}:
        return None if lake.kind is Kind.INTEGER and large else ColumnType(Kind.NUMBER, pa.float64())
    if kinds == {Kind.INTEGER}:
        return ColumnType(Kind.DECIMAL, pa.decimal128(MAX_PRECISION, 0))
    if kinds <= {Kind.INTEGER, Kind.DECIMAL}:
        (one_whole, one_scale), (other_whole, other_scale) = _digits(lake.arrow), _digits(new.arrow)
        whole, scale = max(one_whole, other_whole), max(one_scale, other_scale)
        if whole + scale <= MAX_PRECISION:
            return ColumnType(Kind.DECIMAL, pa.decimal128(whole + scale, scale))
    return None


def _digits(arrow: pa.DataType) -> tuple[int, int]:
    """Digits before and after the point."""
    if pa.types.is_decimal(arrow):
        return arrow.precision - arrow.scale, arrow.scale
    return (20 if pa.types.is_uint64(arrow) else 19), 0


def reading(new: ColumnType, lake: ColumnType) -> ColumnType:
    """How a tap's values are read on their way into a column of the lake.

    By the tap's own schema, but for two types that keep what comes as it came: text stays the text it is, and JSON
    text is any value.
    """
    if lake.kind is Kind.JSON and new.kind is not Kind.JSON:
        return replace(JSON_TEXT, nullable=new.nullable)
    if lake.kind is Kind.STRING and new.kind is not Kind.STRING:
        held: dict[str, Any] = {
            key: new.schema[key] for key in ("minLength", "maxLength", "pattern") if key in new.schema
        }
        return ColumnType(Kind.STRING, pa.string(), new.nullable, held)
    if new.kind is Kind.STRUCT:
        known = {each.name: each.type for each in lake.fields}
        members = [Field(each.name, reading(each.type, known[each.name]), each.required) for each in new.fields]
        return replace(new, arrow=_struct(members).arrow, fields=tuple(members))
    if new.item is not None and lake.item is not None:
        item = reading(new.item, lake.item)
        arrow = pa.list_(item.arrow) if new.kind is Kind.LIST else pa.map_(pa.string(), item.arrow)
        return replace(new, arrow=arrow, item=item)
    return new


def convert(array: pa.Array, column: ColumnType, lake: ColumnType) -> pa.Array:
    """Values as `reading` reads them as the lake's type; members that did not come are null.

    Args:
        array: not a slice.
        column: its type.
        lake: what it becomes.

    Raises:
        pa.ArrowInvalid: an integer is no double; `misfits` says which.
    """
    if column.arrow == lake.arrow:
        return array
    nulls = array.is_null() if array.null_count else None
    if lake.kind is Kind.STRUCT:
        known = {each.name: (index, each.type) for index, each in enumerate(column.fields)}
        children = []
        for each in lake.fields:
            if each.name in known:
                index, of_type = known[each.name]
                children.append(convert(array.field(index), of_type, each.type))
            else:
                children.append(pa.nulls(len(array), each.type.arrow))
        return pa.StructArray.from_arrays(children, fields=list(lake.arrow), mask=nulls)
    if lake.kind is Kind.LIST:
        items = convert(array.values, column.items, lake.items)
        return pa.ListArray.from_arrays(array.offsets, items, type=lake.arrow, mask=nulls)
    if lake.kind is Kind.MAP:
        items = convert(array.items, column.items, lake.items)
        return pa.MapArray.from_arrays(array.offsets, array.keys, items, type=lake.arrow, mask=nulls)
    return array.cast(lake.arrow)


def misfits(array: pa.Array, column: ColumnType, lake: ColumnType) -> list[int]:
    """The rows that `convert` cannot bring to the lake's type, ascending; found by halving."""
    found: list[int] = []
    todo = [range(len(array))]
    while todo:
        rows = todo.pop()
        try:
            convert(array.take(pa.array(rows, pa.int64())), column, lake)
        except pa.ArrowInvalid:
            if len(rows) == 1:
                found.append(rows[0])
            else:
                middle = len(rows) // 2
                todo += [rows[middle:], rows[:middle]]
    return found


def beyond_double(array: pa.Array, column: ColumnType) -> bool:
    """Whether an integer anywhere in it lies beyond 2^53, so that not every double reader can have it."""
    return any(map(_is_beyond, _integers(array, column)))


def _integers(array: pa.Array, column: ColumnType) -> Iterator[pa.Array]:
    if column.kind is Kind.INTEGER:
        yield array
    elif column.kind is Kind.STRUCT:
        for index, each in enumerate(column.fields):
            yield from _integers(array.field(index), each.type)
    elif column.kind is Kind.LIST:
        yield from _integers(array.values, column.items)
    elif column.kind is Kind.MAP:
        yield from _integers(array.items, column.items)


def _is_beyond(array: pa.Array) -> bool:
    if array.null_count == len(array):
        return False
    ends = pc.min_max(array)
    return bool(ends["max"].as_py() > _EXACT or ends["min"].as_py() < -_EXACT)


def holds_integers(column: ColumnType) -> bool:
    """Whether there is an integer column in it."""
    if column.kind is Kind.INTEGER:
        return True
    return any(holds_integers(each.type) for each in column.fields) or (
        column.item is not None and holds_integers(column.item)
    )


def named(column: ColumnType) -> str:
    """A type as messages and docs write it, in the words of `column_types`."""
    write: Callable[[ColumnType], str] = named
    if column.kind is Kind.STRUCT:
        return f"object({', '.join(f'{each.name}: {write(each.type)}' for each in column.fields)})"
    if column.kind in {Kind.LIST, Kind.MAP}:
        return f"{'array' if column.kind is Kind.LIST else 'map'}({write(column.items)})"
    if column.kind is Kind.DECIMAL:
        return f"decimal({column.arrow.precision},{column.arrow.scale})"
    return str(column.arrow) if pa.types.is_uint64(column.arrow) else column.kind.value
