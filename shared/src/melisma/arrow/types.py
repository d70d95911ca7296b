"""The type tree: what a stream's columns are, seen from both sides.

`melisma.arrow.schema` builds it from a JSON Schema; the decoders, the validator and the writers read it. A node
knows its Arrow type and the JSON Schema node that it came from, so that no one else looks into JSON Schema.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

__all__ = ["ColumnType", "Field", "Kind", "StreamSchema"]


class Kind(enum.Enum):
    """How a column's JSON values are read. Each kind has one row reader and, mostly, one block reader."""

    BOOLEAN = "boolean"
    INTEGER = "integer"  # int64 or uint64
    NUMBER = "number"  # float64
    DECIMAL = "decimal"  # decimal128, from JSON numbers and numeric strings, exact
    STRING = "string"
    TIMESTAMP = "timestamp"  # timestamp[us, UTC]
    DATE = "date"  # date32
    TIME = "time"  # time64[us]
    BINARY = "binary"  # from base64 text
    STRUCT = "struct"
    LIST = "list"
    MAP = "map"  # map<string, item>
    JSON = "json"  # any JSON value, kept as its JSON text in a string column


@dataclass(frozen=True, slots=True)
class ColumnType:
    """One node of the tree.

    Attributes:
        kind: how values are read.
        arrow: the Arrow type that they become.
        nullable: whether the schema allows null.
        schema: the JSON Schema node with `$ref` resolved and null removed; its constraints (enum, minimum, ...)
            are what the validator holds values to.
        fields: the members of a struct.
        item: the element of a list, or the value of a map.
        closed: `additionalProperties: false` stands on this object: unknown members may be dropped unseen.
    """

    kind: Kind
    arrow: pa.DataType
    nullable: bool = True
    schema: dict[str, Any] = field(default_factory=dict)
    fields: tuple[Field, ...] = ()
    item: ColumnType | None = None
    closed: bool = False

    @property
    def items(self) -> ColumnType:
        """The element of a list, or the value of a map."""
        if self.item is None:
            raise TypeError(f"a {self.kind.value} has no items")
        return self.item


@dataclass(frozen=True, slots=True)
class Field:
    """A named member of a struct, or a column. `required` says that the member must be present (null or not)."""

    name: str
    type: ColumnType
    required: bool = False


@dataclass(frozen=True)
class StreamSchema:
    """A stream as columns.

    Attributes:
        stream: the stream's name.
        root: the record: a `Kind.STRUCT` node whose fields are the columns.
        key_properties: the primary key's columns, in order; each is one of the columns.
        json_schema: the JSON Schema as the tap sent it (for the file's metadata).
    """

    stream: str
    root: ColumnType
    key_properties: tuple[str, ...]
    json_schema: dict[str, Any]

    @property
    def fields(self) -> tuple[Field, ...]:
        """The columns, in the schema's order."""
        return self.root.fields

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of a decoded batch; every field is nullable, the validator holds the nulls."""
        return pa.schema([pa.field(f.name, f.type.arrow) for f in self.fields])
