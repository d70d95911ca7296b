"""A stream's table: every column that its files may have, as the journal keeps it.

It outlives the tap's schema of the day. A column that the tap no longer sends is still in older files, and if it
comes back it must fit those; so a table only ever grows, by columns and by wider types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from melisma.arrow.column_types import named_type
from melisma.arrow.evolve import named
from melisma.arrow.types import ColumnType, Field, Kind

__all__ = ["Table"]


@dataclass(slots=True)
class Table:
    """What is known of a stream's columns.

    Attributes:
        columns: name -> the type that all of its files can be read as.
        large: columns that hold integers beyond 2^53, which no double is exact for.
        key_properties: the key, as last sent.
    """

    columns: dict[str, ColumnType] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    key_properties: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """As it stands in the journal."""
        found: dict[str, Any] = {"columns": {name: _describe(each) for name, each in self.columns.items()}}
        if self.large:
            found["large_integers"] = sorted(self.large)
        return found

    @classmethod
    def described(cls, known: Mapping[str, Any] | None) -> Table | None:
        """From the journal; None for a stream that it does not know."""
        if known is None or "columns" not in known:
            return None
        return cls(
            {name: _column(each) for name, each in known["columns"].items()},
            set(known.get("large_integers", ())),
            tuple(known.get("key_properties", ())),
        )


def _describe(column: ColumnType) -> Any:
    if column.kind is Kind.STRUCT:
        return {"object": {each.name: _describe(each.type) for each in column.fields}}
    if column.item is not None:
        return {"array" if column.kind is Kind.LIST else "map": _describe(column.item)}
    return named(column)


def _column(described: Any) -> ColumnType:
    if isinstance(described, str):
        return named_type("the journal's schema", described)
    ((kind, inner),) = described.items()
    if kind == "object":
        fields = tuple(Field(name, _column(each)) for name, each in inner.items())
        return ColumnType(Kind.STRUCT, pa.struct([(each.name, each.type.arrow) for each in fields]), fields=fields)
    item = _column(inner)
    if kind == "array":
        return ColumnType(Kind.LIST, pa.list_(item.arrow), item=item)
    return ColumnType(Kind.MAP, pa.map_(pa.string(), item.arrow), item=item)
