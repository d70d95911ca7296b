"""Keys of rows, compared exactly and by the column: which rows of a batch have one of a set of keys.

Files of one stream may hold a key in different types, since schemas widen. Two keys are compared in the wider of
their types: integers and decimals as decimals, either with a number as float64, a date with a date-time as the
date's midnight UTC. Other types do not compare, and are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from melisma.errors import BadSchema

__all__ = ["KeyColumn", "KeySet", "common_type", "last_rows", "with_type"]

KeyColumn: TypeAlias = Any
"""A pyarrow Array or ChunkedArray."""

_MOMENT = pa.timestamp("us", "UTC")
_ROW = "row"


class KeySet:
    """Keys, each of one value per key column.

    Args:
        stream: for messages.
        names: the key columns.
        columns: their values, each as long as there are keys; none is null.
    """

    def __init__(self, stream: str, names: Sequence[str], columns: Sequence[KeyColumn]) -> None:
        self._stream, self._names = stream, tuple(names)
        self._columns = [with_type(column, column.type) for column in columns]
        self._index: dict[tuple[pa.DataType, ...], _Index] = {}

    def __len__(self) -> int:
        return len(self._columns[0])

    @property
    def types(self) -> tuple[pa.DataType, ...]:
        """The type of each key column."""
        return tuple(column.type for column in self._columns)

    def matches(self, columns: Sequence[KeyColumn]) -> pa.BooleanArray:
        """For each row, whether its key is in the set; a key with a null is in none.

        Raises:
            BadSchema: a key column is of a type that does not compare.
        """
        types = self._common([column.type for column in columns])
        index = self._index.get(types)
        if index is None:
            index = self._index[types] = _Index([with_type(c, t) for c, t in zip(self._columns, types, strict=True)])
        found = index.matches([with_type(c, t) for c, t in zip(columns, types, strict=True)])
        return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found

    def may_touch(self, ranges: Mapping[str, pa.Array]) -> bool:
        """Whether rows with these keys can have one of the set.

        Args:
            ranges: lowest and highest value by key column; a column may be missing.
        """
        if not len(self):
            return False
        for name, column in zip(self._names, self._columns, strict=True):
            theirs = ranges.get(name)
            if theirs is None:
                continue
            kind = common_type(self._stream, name, column.type, theirs.type)
            ends = pc.min_max(with_type(column, kind))
            low, high = with_type(theirs, kind)
            if pc.less(ends["max"], low).as_py() or pc.greater(ends["min"], high).as_py():
                return False
        return True

    def _common(self, types: Sequence[pa.DataType]) -> tuple[pa.DataType, ...]:
        each = zip(self._names, self._columns, types, strict=True)
        return tuple(common_type(self._stream, name, column.type, kind) for name, column, kind in each)


class _Index:
    """Looks composite keys up as one number: the place of each part among the parts, joined column by column."""

    def __init__(self, columns: Sequence[KeyColumn]) -> None:
        self._parts = [columns[0] if len(columns) == 1 else pc.unique(column) for column in columns]
        self._joined: list[pa.Array] = []
        if len(columns) == 1:
            return
        code = pc.index_in(columns[0], value_set=self._parts[0])
        for column, part in zip(columns[1:], self._parts[1:], strict=True):
            pairs = _pair(code, column, part)
            self._joined.append(pc.unique(pairs))
            code = pc.index_in(pairs, value_set=self._joined[-1])

    def matches(self, columns: Sequence[KeyColumn]) -> Any:
        if len(columns) == 1:
            return pc.is_in(columns[0], value_set=self._parts[0])
        code = pc.index_in(columns[0], value_set=self._parts[0])
        for column, part, joined in zip(columns[1:], self._parts[1:], self._joined, strict=True):
            # Places are below 2^31, so that a pair of them fits into 64 bits; null stays null.
            code = pc.index_in(_pair(code, column, part), value_set=joined)
        return pc.is_valid(code)


def _pair(code: Any, column: KeyColumn, part: Any) -> Any:
    place = pc.index_in(column, value_set=part).cast(pa.int64())
    return pc.add(pc.multiply(code.cast(pa.int64()), len(part)), place)


def last_rows(columns: Sequence[pa.ChunkedArray], rows: pa.ChunkedArray) -> tuple[list[pa.ChunkedArray], pa.Array]:
    """Each distinct key once, and the highest of its row numbers.

    Args:
        columns: the key columns.
        rows: the number of each row.
    """
    names = [str(number) for number in range(len(columns))]
    table = pa.table([*columns, rows], names=[*names, _ROW])
    found = table.group_by(names, use_threads=False).aggregate([(_ROW, "max")])
    return [found.column(name) for name in names], found.column(f"{_ROW}_max").combine_chunks()


def common_type(stream: str, column: str, *types: pa.DataType) -> pa.DataType:
    """The type in which key values of these types are compared.

    Raises:
        BadSchema: they do not compare.
    """

    def wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
        found = _wider(one, other) or _wider(other, one)
        if found is None:
            raise BadSchema(
                f"this part of the key changes its type from {one} to {other}, and such keys cannot be compared",
                stream=stream,
                column=column,
                fix="Set column_types to the type that the rows in the lake have, or give the stream another name "
                "with stream_maps (__alias__)",
            )
        return found

    return reduce(wider, types)


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    types = pa.types
    if one == other or types.is_null(other):
        return one
    if types.is_floating(one) and (_is_exact(other) or types.is_floating(other)):
        return pa.float64()
    if _is_exact(one) and _is_exact(other):
        scale = max(_scale(one), _scale(other))
        return pa.decimal256(max(_whole(one), _whole(other)) + scale, scale)
    if types.is_timestamp(one) and (types.is_date(other) or types.is_timestamp(other)):
        return _MOMENT
    for like, kind in ((types.is_large_string, pa.string()), (types.is_large_binary, pa.binary())):
        if like(one) and other == kind:
            return kind
    return None


def _is_exact(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _scale(kind: pa.DataType) -> int:
    return int(kind.scale) if pa.types.is_decimal(kind) else 0


def _whole(kind: pa.DataType) -> int:
    """Digits before the point."""
    return int(kind.precision - kind.scale) if pa.types.is_decimal(kind) else 20


def with_type(column: KeyColumn, kind: pa.DataType) -> KeyColumn:
    """Values in a type that `common_type` gave, so that equal keys are equal bit by bit."""
    if column.type != kind:
        column = column.cast(kind, safe=not pa.types.is_floating(kind))  # float64: the nearest one, by definition
    return pc.add(column, 0.0) if pa.types.is_floating(kind) else column  # -0.0 is 0.0
