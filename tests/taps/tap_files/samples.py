"""Files of every format, made by the format's own libraries: what the goldens are read from."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import msgpack
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2, timestamp_pb2, wrappers_pb2

MOMENT = dt.datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=dt.UTC)
NAIVE = MOMENT.replace(tzinfo=None)
DAY, CLOCK = dt.date(1899, 12, 31), dt.time(23, 59, 59, 999999)


def arrow_table() -> pa.Table:
    """A column of every Arrow type that has a form in JSON; the second row is null."""
    columns: dict[str, tuple[Any, pa.DataType]] = {
        "bool": (True, pa.bool_()),
        "int8": (-128, pa.int8()),
        "int16": (-(2**15), pa.int16()),
        "int32": (-(2**31), pa.int32()),
        "int64": (2**63 - 1, pa.int64()),
        "uint8": (255, pa.uint8()),
        "uint16": (2**16 - 1, pa.uint16()),
        "uint32": (2**32 - 1, pa.uint32()),
        "uint64": (2**64 - 1, pa.uint64()),
        "float32": (0.5, pa.float32()),
        "float64": (0.1, pa.float64()),
        "decimal128": (Decimal("-12345678901234567890.123456789012345678"), pa.decimal128(38, 18)),
        "string": ('say "hü"\n', pa.string()),
        "large_string": ("x", pa.large_string()),
        "binary": (b"\x00\xff", pa.binary()),
        "fixed_binary": (b"ab", pa.binary(2)),
        "date32": (DAY, pa.date32()),
        "time32": (dt.time(1, 2, 3), pa.time32("s")),
        "time64": (CLOCK, pa.time64("us")),
        "timestamp_s": (dt.datetime(1969, 12, 31, 23, 59, 59), pa.timestamp("s")),
        "timestamp_us": (NAIVE, pa.timestamp("us")),
        "timestamp_zone": (MOMENT, pa.timestamp("us", "America/New_York")),
        "list": ([1, None], pa.list_(pa.int64())),
        "struct": (
            {"a": 1, "b": [{"c": Decimal("0.10")}]},
            pa.struct([("a", pa.int8()), ("b", pa.list_(pa.struct([("c", pa.decimal128(5, 2))])))]),
        ),
        "map": ([("k", 1.5)], pa.map_(pa.string(), pa.float64())),
        "dictionary": ("red", pa.dictionary(pa.int8(), pa.string())),
        "null": (None, pa.null()),
    }
    return pa.table({name: pa.array([value, None], kind) for name, (value, kind) in columns.items()})


def write_arrow_file(path: Path) -> None:
    """As a file."""
    table = arrow_table()
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)


def write_arrow_stream(path: Path) -> None:
    """As a stream."""
    table = arrow_table()
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)


def write_parquet(path: Path) -> None:
    """All but the type that Parquet has not."""
    pq.write_table(arrow_table(), path, row_group_size=1)


AVRO = {
    "type": "record",
    "name": "All",
    "fields": [
        {"name": "boolean", "type": "boolean"},
        {"name": "int", "type": "int"},
        {"name": "long", "type": "long"},
        {"name": "float", "type": "float"},
        {"name": "double", "type": "double"},
        {"name": "bytes", "type": "bytes"},
        {"name": "string", "type": "string"},
        {"name": "decimal", "type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9}},
        {
            "name": "fixed_decimal",
            "type": {"type": "fixed", "name": "F", "size": 8, "logicalType": "decimal", "precision": 10, "scale": 2},
        },
        {"name": "uuid", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "date", "type": {"type": "int", "logicalType": "date"}},
        {"name": "time_millis", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "time_micros", "type": {"type": "long", "logicalType": "time-micros"}},
        {"name": "timestamp_millis", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "timestamp_micros", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "local_timestamp_micros", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
        {"name": "enum", "type": {"type": "enum", "name": "E", "symbols": ["RED", "GREEN"]}},
        {"name": "again", "type": "E"},
        {"name": "fixed", "type": {"type": "fixed", "name": "G", "size": 2}},
        {"name": "array", "type": {"type": "array", "items": ["null", "long"]}},
        {"name": "map", "type": {"type": "map", "values": {"type": "string", "logicalType": "uuid"}}},
        {
            "name": "record",
            "type": {
                "type": "record",
                "name": "R",
                "fields": [
                    {"name": "a", "type": "int"},
                    {"name": "u", "type": {"type": "array", "items": {"type": "string", "logicalType": "uuid"}}},
                ],
            },
        },
        {"name": "nullable", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        {"name": "int_or_double", "type": ["null", "int", "double"]},
        {"name": "int_or_string", "type": ["null", "int", "string"]},
        {
            "name": "tree",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "T",
                    "fields": [{"name": "v", "type": "int"}, {"name": "next", "type": ["null", "T"]}],
                },
            ],
        },
    ],
}
UUID = uuid.UUID("33dce0ad-8096-4e45-ab61-c008138f61fe")


def write_avro(path: Path) -> None:
    """Two records in two blocks."""
    first: dict[str, Any] = {
        "boolean": True,
        "int": -(2**31),
        "long": 2**63 - 1,
        "float": 0.5,
        "double": 0.1,
        "bytes": b"\x00\xff",
        "string": "hü",
        "decimal": Decimal("-12345678901234567890123456789.123456789"),
        "fixed_decimal": Decimal("1.10"),
        "uuid": UUID,
        "date": DAY,
        "time_millis": dt.time(1, 2, 3, 4000),
        "time_micros": CLOCK,
        "timestamp_millis": MOMENT.replace(microsecond=123000),
        "timestamp_micros": MOMENT,
        "local_timestamp_micros": NAIVE,
        "enum": "RED",
        "again": "GREEN",
        "fixed": b"ab",
        "array": [1, None],
        "map": {"k": UUID},
        "record": {"a": 1, "u": [UUID]},
        "nullable": MOMENT,
        "int_or_double": 1.5,
        "int_or_string": "text",
        "tree": {"v": 1, "next": {"v": 2, "next": None}},
    }
    second = first | {"nullable": None, "int_or_double": 2, "int_or_string": 5, "tree": None}
    with path.open("wb") as file:
        fastavro.writer(file, AVRO, [first, second], codec="deflate", sync_interval=1)


def write_msgpack(path: Path) -> None:
    """Every kind of value that MessagePack has."""
    first = {
        "bool": True,
        "int": -(2**63),
        "uint": 2**64 - 1,
        "float": 0.1,
        "text": "hü",
        "bytes": b"\x00\xff",
        "time": MOMENT,
        "array": [1, 2],
        "map": {"a": [MOMENT], "b": {"c": 1.0}},
        "mixed": 1,
    }
    second = {**dict.fromkeys(first), "mixed": "x"}
    path.write_bytes(b"".join(msgpack.packb(each, datetime=True) for each in (first, second)))


JSON = [
    {
        "bool": True,
        "int": 2**63 - 1,
        "uint": 2**64 - 1,
        "double": 0.1,
        "exact": 0,
        "text": "a\u2028\n",
        "date": "1899-12-31",
        "time": "2024-02-29T23:59:59.123456+05:30",
        "array": [1, None],
        "object": {"a": {"b": True}},
        "mixed": 1,
        "empty": {},
    },
    dict.fromkeys(["bool", "int", "uint", "double", "exact", "text", "date", "time", "array", "object"])
    | {"mixed": "x", "empty": []},
]


def write_json(path: Path) -> None:
    """An array over several lines."""
    text = json.dumps(JSON, indent=2).replace('"exact": 0', '"exact": 1234567890.12345678901')
    path.write_text(text, encoding="utf-8")


def write_excel(path: Path) -> None:
    """A sheet with every kind of cell, after one that is not meant."""
    book = openpyxl.Workbook()
    book.active.append(["not", "meant"])
    sheet = book.create_sheet("All")
    sheet.append(["bool", "int", "float", "text", "date", "moment", "clock", "span", "mixed", "formula"])
    sheet.append(
        [
            True,
            5,
            0.1,
            "hü",
            DAY.replace(1999),
            NAIVE.replace(microsecond=0),
            dt.time(1, 2, 3),
            dt.timedelta(hours=36),
            1.5,
            "=1+1",
        ]
    )
    sheet.append([None, None, None, None, None, None, None, None, "x", None])
    book.save(path)


def descriptors() -> descriptor_pb2.FileDescriptorSet:
    """What protoc would write for a message with every kind of field."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="all.proto", package="shop.v1", syntax="proto3")
    file.dependency[:] = [
        "google/protobuf/timestamp.proto",
        "google/protobuf/wrappers.proto",
        "google/protobuf/struct.proto",
    ]
    colour = file.enum_type.add(name="Colour")
    colour.value.add(name="NONE", number=0)
    colour.value.add(name="RED", number=1)
    message = file.message_type.add(name="All")

    def add(name: str, type_: Any, type_name: str = "", *, repeated: bool = False, optional: bool = False) -> None:
        field = message.field.add(name=name, number=len(message.field) + 1, type=type_)
        if type_name:
            field.type_name = type_name
        field.label = kind.LABEL_REPEATED if repeated else kind.LABEL_OPTIONAL
        if optional:
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")

    for name in (
        "double",
        "float",
        "int32",
        "int64",
        "uint32",
        "uint64",
        "sint64",
        "fixed64",
        "bool",
        "string",
        "bytes",
    ):
        add(f"a_{name}", getattr(kind, f"TYPE_{name.upper()}"))
    add("maybe", kind.TYPE_INT32, optional=True)
    add("colour", kind.TYPE_ENUM, ".shop.v1.Colour")
    add("numbers", kind.TYPE_INT64, repeated=True)
    add("at", kind.TYPE_MESSAGE, ".google.protobuf.Timestamp")
    add("wrapped", kind.TYPE_MESSAGE, ".google.protobuf.Int64Value")
    add("anything", kind.TYPE_MESSAGE, ".google.protobuf.Struct")
    add("line", kind.TYPE_MESSAGE, ".shop.v1.All.Line", repeated=True)
    add("self", kind.TYPE_MESSAGE, ".shop.v1.All")
    add("counts", kind.TYPE_MESSAGE, ".shop.v1.All.CountsEntry", repeated=True)
    line = message.nested_type.add(name="Line")
    line.field.add(name="sku", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    entry = message.nested_type.add(name="CountsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kind.TYPE_INT32, label=kind.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=kind.TYPE_DOUBLE, label=kind.LABEL_OPTIONAL)
    found = descriptor_pb2.FileDescriptorSet()
    for module in (timestamp_pb2, wrappers_pb2, struct_pb2):
        module.DESCRIPTOR.CopyToProto(found.file.add())
    found.file.add().CopyFrom(file)
    return found


def protobuf_messages(count: int = 2) -> list[bytes]:
    """One message with everything set, then empty ones."""
    pool = descriptor_pool.DescriptorPool()
    for each in descriptors().file:
        pool.Add(each)
    message: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.v1.All"))()
    message.a_double, message.a_float, message.a_int32, message.a_int64 = 0.1, 0.5, -(2**31), 2**63 - 1
    message.a_uint32, message.a_uint64, message.a_sint64, message.a_fixed64 = 2**32 - 1, 2**64 - 1, -1, 7
    message.a_bool, message.a_string, message.a_bytes, message.maybe, message.colour = True, "hü", b"\x00\xff", 0, 1
    message.numbers.extend([1, 2])
    message.at.FromJsonString("2024-02-29T23:59:59.123456Z")
    message.wrapped.value = 5
    message.anything.update({"a": [1, "x"]})
    message.line.add(sku="A1")
    message.self.a_string = "inner"
    message.counts[3] = 1.5
    return [message.SerializeToString(), *[b""] * (count - 1)]


def delimited(messages: list[bytes]) -> bytes:
    """Each message behind its length."""
    out = bytearray()
    for message in messages:
        size = len(message)
        while size > 127:
            out.append(size & 127 | 128)
            size >>= 7
        out.append(size)
        out += message
    return bytes(out)
