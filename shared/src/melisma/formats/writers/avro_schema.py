"""The Avro schema of a stream's files.

Names of Avro are letters, digits and underscores, and do not begin with a digit. What a source calls otherwise is
changed (`a b` -> `a_b`) and keeps its own name as the property `melisma.name` of the field or record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from melisma.arrow.types import Kind, StreamSchema
from melisma.errors import BadSchema

__all__ = ["NAME", "avro_schema", "legal_names"]

NAME = "melisma.name"
"""The property with the source's name, where Avro's is another."""

_LEGAL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UINT64_DIGITS = 20

Schema = Any
"""A node of an Avro schema: a name, an object, or a list of choices."""


def avro_schema(schema: pa.Schema, stream: StreamSchema, *, uuids: bool) -> dict[str, Schema]:
    """The schema of files with these columns.

    Everything may be null: a column's choices are null and its type, in this order, and so are an array's items'.

    Args:
        schema: the columns.
        stream: whose they are.
        uuids: mark text that the stream's schema holds to the format uuid as such. Readers refuse other values.

    Raises:
        BadSchema: Avro has no type for a column.
    """
    marked = {
        each.name
        for each in stream.fields
        if uuids and each.type.kind is Kind.STRING and each.type.schema.get("format") == "uuid"
    }
    return _Builder(stream.stream, marked).record(stream.stream, pa.struct(list(schema)), "")


def legal_names(names: Iterable[str]) -> dict[str, str]:
    """An Avro name for each; different ones, in any letter case, for different names. Legal names stay."""
    names = list(names)
    found = {name: name for name in names if _LEGAL.fullmatch(name)}
    taken = {name.lower() for name in found}
    for name in names:
        if name not in found:
            found[name] = _free(_legal(name), taken)
    return {name: found[name] for name in names}


def _legal(name: str) -> str:
    legal = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return legal if _LEGAL.fullmatch(legal) else f"_{legal}"


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number if it is taken; it is taken from then on."""
    number, free = 1, name
    while free.lower() in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free.lower())
    return free


class _Builder:
    def __init__(self, stream: str, uuids: set[str]) -> None:
        self._stream, self._uuids = stream, uuids
        self._records: set[str] = set()  # names of records must differ in the whole schema

    def record(self, name: str, kind: pa.StructType, path: str) -> dict[str, Schema]:
        full = f"{path}_{name}" if path else name
        legal = _free(_legal(full), self._records)
        fields = [kind.field(index) for index in range(kind.num_fields)]
        names = legal_names(field.name for field in fields)
        made: dict[str, Schema] = {"type": "record", "name": legal}
        if not path and legal != name:
            made[NAME] = name
        made["fields"] = [self._field(field, names[field.name], legal, top=not path) for field in fields]
        return made

    def _field(self, field: pa.Field, legal: str, record: str, *, top: bool) -> dict[str, Schema]:
        made: dict[str, Schema] = {"name": legal}
        if legal != field.name:
            made[NAME] = field.name
        if top and field.name in self._uuids and pa.types.is_string(field.type):
            made["type"] = ["null", {"type": "string", "logicalType": "uuid"}]
        else:
            made["type"] = ["null", self._type(field.type, field.name, record)]
        made["default"] = None
        return made

    def _type(self, kind: pa.DataType, name: str, record: str) -> Schema:
        types = pa.types
        if types.is_struct(kind):
            return self.record(name, kind, record)
        if types.is_map(kind):
            return {"type": "map", "values": ["null", self._type(kind.item_type, name, record)]}
        if types.is_list(kind):
            return {"type": "array", "items": ["null", self._type(kind.value_type, name, record)]}
        if types.is_decimal128(kind):
            return _decimal(kind.precision, kind.scale)
        if types.is_uint64(kind):
            return _decimal(_UINT64_DIGITS, 0)
        plain = _PLAIN.get(kind)
        if plain is None:
            rule = f"Avro files are not written with values of Arrow's type {kind}"
            raise BadSchema(rule, stream=self._stream, column=name, fix='Set "column_types" of it')
        return plain


def _decimal(precision: int, scale: int) -> dict[str, Schema]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


_PLAIN: Mapping[pa.DataType, Schema] = {
    pa.bool_(): "boolean",
    pa.int64(): "long",
    pa.float64(): "double",
    pa.string(): "string",
    pa.binary(): "bytes",
    pa.date32(): {"type": "int", "logicalType": "date"},
    pa.time64("us"): {"type": "long", "logicalType": "time-micros"},
    pa.timestamp("us", "UTC"): {"type": "long", "logicalType": "timestamp-micros"},
}
