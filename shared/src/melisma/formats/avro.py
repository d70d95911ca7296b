"""Avro object container files as record batches, block by block.

fastavro reads the values; what a type is in Arrow is said here. A union of one type and null is that type; int and
long together are long, any of them with float or double is double; other unions, and records within themselves, become
JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import UUID

import msgspec
import pyarrow as pa
from fastavro import block_reader
from fastavro.schema import SchemaParseException

from melisma.errors import BadFile

__all__ = ["AvroReader"]

_BATCH_ROWS = 8_192
_MOST_DIGITS = 38
_json = msgspec.json.Encoder(decimal_format="number")

Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Column:
    """A type in Arrow. `convert` turns what fastavro gives into what `pa.array` takes; None: it is that already."""

    arrow: pa.DataType
    convert: Convert | None = None


def _as_json(value: Any) -> Any:
    return None if value is None else _json.encode(value).decode()


_JSON = _Column(pa.json_(), _as_json)
_PRIMITIVES = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}
_LOGICAL = {
    ("int", "date"): pa.date32(),
    ("int", "time-millis"): pa.time64("us"),
    ("long", "time-micros"): pa.time64("us"),
    ("long", "timestamp-millis"): pa.timestamp("us", "UTC"),
    ("long", "timestamp-micros"): pa.timestamp("us", "UTC"),
    ("long", "timestamp-nanos"): pa.timestamp("ns", "UTC"),
    ("long", "local-timestamp-millis"): pa.timestamp("us"),
    ("long", "local-timestamp-micros"): pa.timestamp("us"),
    ("long", "local-timestamp-nanos"): pa.timestamp("ns"),
}


class AvroReader:
    """Reads one Avro file.

    Args:
        file: its decompressed bytes, at the start.
        where: its name, for messages.
        stream: the stream, for messages.

    Attributes:
        schema: its columns.

    Raises:
        BadFile: it is not an Avro file of records.
    """

    def __init__(self, file: BinaryIO, *, where: str, stream: str) -> None:
        self._where, self._stream = where, stream
        self._file = _Counted(file)
        try:
            self._blocks = block_reader(self._file)  # type: ignore[arg-type]  # it only reads and tells
            written = self._blocks.writer_schema
        except (ValueError, KeyError, EOFError, IndexError, SchemaParseException, UnicodeDecodeError):
            raise self._bad("it is not an Avro file, or its header, from byte 0 on, is damaged") from None
        if not isinstance(written, dict) or written.get("type") != "record":
            raise self._bad("its schema is not a record", "Wrap its values in a record")
        names: dict[str, Any] = {}
        within = (_named(written, names)["name"],)
        self._columns = {_name(field): _column(field["type"], names, within) for field in written["fields"]}
        self._keys = {_name(field): field["name"] for field in written["fields"]}
        self.schema = pa.schema([(name, column.arrow) for name, column in self._columns.items()])

    def batches(self, columns: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
        """The rows from row `start` on, with the columns of these names.

        Raises:
            BadFile: a block is damaged or cut off, or a value has no form in Arrow; it says where.
        """
        row, offset = 0, 0
        blocks = iter(self._blocks)
        while True:
            try:
                block = next(blocks, None)
                if block is None:
                    break
                first, row = row, row + block.num_records
                offset = block.offset + block.size
                if row <= start:
                    continue
                records = list(block)[max(start - first, 0) :]
            except Exception as error:
                # fastavro and its codecs raise what happens to go wrong within them (IndexError, struct.error, ...).
                if isinstance(error, BadFile):
                    raise
                if "codec" in str(error).lower() and isinstance(error, ValueError):
                    rule = "its codec is not known, or what reads it is not installed"
                    raise self._bad(rule, "Install zstandard, cramjam or lz4, or write it with deflate") from None
                raise self._bad(f"it is damaged or cut off in the block after byte {offset}, row {row + 1}") from None
            for at in range(0, len(records), _BATCH_ROWS):
                yield self._batch(records[at : at + _BATCH_ROWS], columns, max(start, first) + at)
        if offset and self._file.position != offset:
            raise self._bad(f"it is cut off after byte {offset}, row {row}")

    def _batch(self, records: list[Any], columns: Sequence[str], first: int) -> pa.RecordBatch:
        if not columns:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * len(records), pa.struct([])))
        arrays = []
        for name in columns:
            column = self._columns[name]
            key = self._keys[name]
            values = [record[key] for record in records]
            if column.convert is not None:
                values = list(map(column.convert, values))
            try:
                arrays.append(_array(values, column.arrow))
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                rule = f"a value of the rows {first + 1} to {first + len(records)} does not fit its type {column.arrow}"
                raise BadFile(rule, stream=self._stream, file=self._where, column=name, fix="Deselect it") from None
        return pa.record_batch(arrays, names=list(columns))

    def _bad(self, rule: str, fix: str = "Fetch or write the file again") -> BadFile:
        return BadFile(rule, stream=self._stream, file=self._where, fix=fix)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.JsonType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, pa.string()))
    return pa.array(values, kind)


def _column(node: Any, names: dict[str, Any], within: tuple[str, ...]) -> _Column:
    if isinstance(node, list):
        return _union(node, names, within)
    if isinstance(node, str):
        if node in _PRIMITIVES:
            return _Column(_PRIMITIVES[node])
        return _JSON if node in within else _column(names[node], names, within)
    kind, logical = node["type"], node.get("logicalType")
    if isinstance(kind, (dict, list)):
        return _column(kind, names, within)
    if (kind, logical) in _LOGICAL:
        return _Column(_LOGICAL[kind, logical])
    if logical == "decimal" and kind in {"bytes", "fixed"} and node["precision"] <= _MOST_DIGITS:
        return _Column(pa.decimal128(node["precision"], node.get("scale", 0)))
    if logical == "uuid" and kind == "string":
        return _Column(pa.string(), _uuid)
    if kind in _PRIMITIVES:
        return _Column(_PRIMITIVES[kind]) if logical != "decimal" else _wide(node)
    named = _named(node, names)
    if kind == "enum":
        return _Column(pa.string())
    if kind == "fixed":
        return _Column(pa.binary(node["size"])) if logical != "decimal" else _wide(node)
    if kind == "array":
        return _array_of(_column(node["items"], names, within))
    if kind == "map":
        return _map_of(_column(node["values"], names, within))
    inner = (*within, str(named.get("name")))
    members = {field["name"]: _column(field["type"], names, inner) for field in named["fields"]}
    if _mentions(named, str(named.get("name"))):
        return _JSON
    return _record_of(members, {field["name"]: _name(field) for field in named["fields"]})


def _wide(node: dict[str, Any]) -> _Column:
    """A decimal of more than 38 digits; Arrow has one of 76."""
    return _Column(pa.decimal256(node["precision"], node.get("scale", 0)))


def _named(node: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    if "name" in node:
        names[node["name"]] = node
    return node


def _mentions(node: Any, name: str) -> bool:
    """Whether a record holds itself."""
    if isinstance(node, dict):
        return any(
            _mentions(value, name) for key, value in node.items() if key in {"type", "items", "values", "fields"}
        )
    return any(_mentions(each, name) for each in node) if isinstance(node, list) else node == name


def _union(branches: list[Any], names: dict[str, Any], within: tuple[str, ...]) -> _Column:
    found = [_column(each, names, within) for each in branches if each != "null"]
    kinds = {each.arrow for each in found}
    if len(found) == 1:
        return found[0]
    if not found:
        return _Column(pa.null())
    if kinds <= {pa.int32(), pa.int64()}:
        return _Column(pa.int64())
    if kinds <= {pa.int32(), pa.float32(), pa.int64(), pa.float64()}:
        return _Column(pa.float64(), _double)
    return _JSON


def _double(value: Any) -> Any:
    return None if value is None else float(value)


def _uuid(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value


def _array_of(item: _Column) -> _Column:
    convert = item.convert
    if convert is None:
        return _Column(pa.list_(_storage(item.arrow)))
    return _Column(pa.list_(_storage(item.arrow)), lambda v: None if v is None else list(map(convert, v)))


def _map_of(item: _Column) -> _Column:
    convert = item.convert or (lambda value: value)
    return _Column(
        pa.map_(pa.string(), _storage(item.arrow)),
        lambda v: None if v is None else [(key, convert(each)) for key, each in v.items()],
    )


def _record_of(members: dict[str, _Column], called: dict[str, str]) -> _Column:
    arrow = pa.struct([(called[name], _storage(member.arrow)) for name, member in members.items()])
    if not any(member.convert for member in members.values()) and all(name == called[name] for name in members):
        return _Column(arrow)
    steps = [(name, called[name], member.convert or (lambda value: value)) for name, member in members.items()]

    def convert(value: Any) -> Any:
        return None if value is None else {new: to(value[old]) for old, new, to in steps}

    return _Column(arrow, convert)


def _name(field: dict[str, Any]) -> str:
    """The field's name; the source's own, where melisma wrote the file and Avro could not have it."""
    return str(field.get("melisma.name", field["name"]))


def _storage(kind: pa.DataType) -> pa.DataType:
    """Within other types JSON text is plain text: `pa.array` makes no extension types there."""
    return pa.string() if isinstance(kind, pa.JsonType) else kind


class _Counted:
    """A file that knows how far it was read, also where it cannot be sought in."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.position = file, 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.position += len(data)
        return data

    def tell(self) -> int:
        return self.position
