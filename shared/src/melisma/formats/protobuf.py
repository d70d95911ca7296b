"""Protocol Buffers: messages one after the other, each behind its length (a varint), as record batches.

What the messages are is said by a descriptor set, which `protoc --include_imports --descriptor_set_out` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from melisma.errors import BadFile, ConfigError

__all__ = ["ProtobufReader", "message_type"]

_BATCH_ROWS = 4_096
_LONGEST_MESSAGE = 128 << 20
_LONGEST_VARINT = 10
_MOST_SECONDS = 253_402_300_799

Convert = Callable[[Any], Any]

_TYPES = FieldDescriptor
_SCALARS: dict[int, pa.DataType] = {
    _TYPES.TYPE_DOUBLE: pa.float64(),
    _TYPES.TYPE_FLOAT: pa.float32(),
    _TYPES.TYPE_INT64: pa.int64(),
    _TYPES.TYPE_SFIXED64: pa.int64(),
    _TYPES.TYPE_SINT64: pa.int64(),
    _TYPES.TYPE_UINT64: pa.uint64(),
    _TYPES.TYPE_FIXED64: pa.uint64(),
    _TYPES.TYPE_INT32: pa.int32(),
    _TYPES.TYPE_SFIXED32: pa.int32(),
    _TYPES.TYPE_SINT32: pa.int32(),
    _TYPES.TYPE_UINT32: pa.uint32(),
    _TYPES.TYPE_FIXED32: pa.uint32(),
    _TYPES.TYPE_BOOL: pa.bool_(),
    _TYPES.TYPE_STRING: pa.string(),
    _TYPES.TYPE_BYTES: pa.binary(),
}
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_AS_JSON = frozenset(f"google.protobuf.{name}" for name in ("Struct", "Value", "ListValue", "Any"))


@dataclass(frozen=True, slots=True)
class _Column:
    """A type in Arrow, and how a field's value gets into it."""

    arrow: pa.DataType
    convert: Convert


def message_type(descriptor_set: bytes, name: str, setting: str) -> Descriptor:
    """The message of a descriptor set that has the full name `name`.

    Raises:
        ConfigError: it is not a descriptor set, not a whole one, or has no such message.
    """
    pool = descriptor_pool.DescriptorPool()
    fix = "Write it with protoc --include_imports --descriptor_set_out"
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
        for each in files:
            pool.Add(each)  # type: ignore[no-untyped-call,unused-ignore]
        found: Descriptor = pool.FindMessageTypeByName(name)
    except DecodeError:
        raise ConfigError(f"{setting}.descriptor_set", "is not a descriptor set", fix) from None
    except TypeError:
        raise ConfigError(f"{setting}.descriptor_set", "does not hold all the files that it imports", fix) from None
    except KeyError:
        names = sorted(f"{f.package}.{m.name}".lstrip(".") for f in files for m in f.message_type)
        raise ConfigError(
            f"{setting}.message", "is not in the descriptor set", f"Its messages are: {', '.join(names[:50])}"
        ) from None
    return found


class ProtobufReader:
    """Reads one file of messages.

    Args:
        file: its decompressed bytes, at the start.
        message: what each message is.
        where: the file's name, for messages.
        stream: the stream, for messages.

    Attributes:
        schema: its columns.
    """

    def __init__(self, file: BinaryIO, message: Descriptor, *, where: str, stream: str) -> None:
        self._file, self._where, self._stream = file, where, stream
        self._type = message_factory.GetMessageClass(message)
        self._columns = _members(message, ())
        self.schema = pa.schema([(name, column.arrow) for name, column in self._columns.items()])

    def batches(self, columns: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
        """The messages from number `start` on, with the fields of these names.

        Raises:
            BadFile: a message is damaged or cut off, or a time does not fit; it says at which byte and message.
        """
        values: dict[str, list[Any]] = {name: [] for name in columns}
        count = 0
        for number, (offset, data) in enumerate(self._messages()):
            if number < start:
                continue
            try:
                message = self._type.FromString(data)
            except DecodeError:
                raise self._bad("is not what the descriptor says", number, offset) from None
            for name, into in values.items():
                try:
                    into.append(self._columns[name].convert(message))
                except _Misfit as error:
                    raise self._bad(str(error), number, offset, name) from None
            count += 1
            if count == _BATCH_ROWS:
                yield self._batch(values, count)
                values, count = {name: [] for name in columns}, 0
        if count:
            yield self._batch(values, count)

    def _batch(self, values: dict[str, list[Any]], count: int) -> pa.RecordBatch:
        if not values:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))
        arrays = []
        for name, found in values.items():
            kind = self._columns[name].arrow
            if isinstance(kind, pa.JsonType):
                arrays.append(pa.ExtensionArray.from_storage(kind, pa.array(found, pa.string())))
            else:
                arrays.append(pa.array(found, kind))
        return pa.record_batch(arrays, names=list(values))

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        """Each message's bytes and where they begin."""
        offset = number = 0
        while True:
            size = shift = 0
            while True:
                byte = self._file.read(1)
                if not byte:
                    if shift:
                        raise self._bad("is cut off", number, offset)
                    return
                offset += 1
                size |= (byte[0] & 0x7F) << shift
                shift += 7
                if byte[0] < 0x80:
                    break
                if shift == 7 * _LONGEST_VARINT:
                    raise self._bad("has no length before it", number, offset)
            if size > _LONGEST_MESSAGE:
                raise self._bad(f"is said to be longer than {_LONGEST_MESSAGE >> 20} MiB", number, offset)
            data = self._file.read(size)
            if len(data) < size:
                raise self._bad("is cut off", number, offset)
            yield offset, data
            offset, number = offset + size, number + 1

    def _bad(self, rule: str, number: int, offset: int, column: str | None = None) -> BadFile:
        fix = "Each message has to stand behind its length as a varint; check the descriptor, or write the file again"
        at = f"message {number + 1}, at byte {offset}, {rule}"
        return BadFile(at, stream=self._stream, file=self._where, column=column, fix=fix)


class _Misfit(Exception):
    """A value without a form in Arrow."""


def _members(message: Descriptor, within: tuple[str, ...]) -> dict[str, _Column]:
    """Of each field its column; `convert` takes the message and gives the field's value, None where it is not set."""
    return {field.name: _field(field, (*within, message.full_name)) for field in message.fields}


def _field(field: FieldDescriptor, within: tuple[str, ...]) -> _Column:
    name, message = field.name, field.message_type
    if message is not None and message.GetOptions().map_entry:
        item = _value(message.fields_by_name["value"], within)
        entries = item.convert
        key = _map_key(message.fields_by_name["key"])
        return _Column(
            pa.map_(pa.string(), _storage(item.arrow)),
            lambda m: [(key(each), entries(value)) for each, value in sorted(getattr(m, name).items())],
        )
    value = _value(field, within)
    convert = value.convert
    if field.is_repeated:
        return _Column(pa.list_(_storage(value.arrow)), lambda m: [convert(each) for each in getattr(m, name)])
    if field.has_presence:
        return _Column(value.arrow, lambda m: convert(getattr(m, name)) if m.HasField(name) else None)
    return _Column(value.arrow, lambda m: convert(getattr(m, name)))


def _value(field: FieldDescriptor, within: tuple[str, ...]) -> _Column:
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return _Column(pa.string(), lambda number: names.get(number, str(number)))
    message = field.message_type
    if message is None:
        return _Column(_SCALARS[field.type], lambda value: value)
    name = message.full_name
    if name == "google.protobuf.Timestamp":
        return _Column(pa.timestamp("us", "UTC"), _moment)
    if name == "google.protobuf.Duration" or name == "google.protobuf.FieldMask":
        return _Column(pa.string(), lambda value: value.ToJsonString())
    if name in _WRAPPERS:
        return _Column(_SCALARS[message.fields_by_name["value"].type], lambda wrapper: wrapper.value)
    if name in _AS_JSON or name in within or not message.fields:
        return _Column(pa.json_(), _json_text)
    members = _members(message, within)
    arrow = pa.struct([(each, _storage(column.arrow)) for each, column in members.items()])
    return _Column(arrow, lambda value: {each: column.convert(value) for each, column in members.items()})


def _map_key(field: FieldDescriptor) -> Convert:
    if field.type == FieldDescriptor.TYPE_STRING:
        return str
    return (lambda key: "true" if key else "false") if field.type == FieldDescriptor.TYPE_BOOL else str


def _moment(stamp: Any) -> int:
    """Microseconds since 1970."""
    if stamp.nanos % 1000:
        raise _Misfit("has a time with more than six fraction digits, which would lose some: deselect the column")
    if not -62_135_596_800 <= stamp.seconds <= _MOST_SECONDS:
        raise _Misfit("has a time outside the years 1 to 9999")
    return int(stamp.seconds * 1_000_000 + stamp.nanos // 1000)


def _json_text(message: Message) -> str:
    try:
        found = json_format.MessageToDict(message, preserving_proto_field_name=True)
    except (json_format.SerializeToJsonError, TypeError, KeyError):
        raise _Misfit("holds a message whose type is not in the descriptor set") from None
    return msgspec.json.encode(found).decode()


def _storage(kind: pa.DataType) -> pa.DataType:
    return pa.string() if isinstance(kind, pa.JsonType) else kind
