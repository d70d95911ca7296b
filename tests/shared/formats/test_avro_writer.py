"""Avro files: what is written comes back, whatever the schema, by two readers that share no code."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "targets"))
sys.path.insert(0, str(Path(__file__).parents[1] / "arrow"))

from avro_rows import by_source_names, read_avro
from strategies import SETTINGS, run_of, streams

from melisma.arrow.decode import RunDecoder
from melisma.arrow.schema import stream_schema
from melisma.arrow.types import StreamSchema
from melisma.errors import BadSchema, ConfigError
from melisma.formats.writers.avro import COMPRESSIONS, AvroFormat
from melisma.formats.writers.avro_schema import avro_schema, legal_names


def written(batches: list[pa.RecordBatch], schema: StreamSchema, **options: Any) -> bytes:
    """A file of these batches."""
    sink = io.BytesIO()
    writer = AvroFormat(**options).open_file(sink, schema.arrow, schema)
    for batch in batches:
        writer.write_row_group([batch])
    writer.close()
    assert writer.rows == sum(batch.num_rows for batch in batches)
    return sink.getvalue()


def by_fastavro(data: bytes) -> list[dict[str, Any]]:
    """A file's rows with the source's names."""
    reader = fastavro.reader(io.BytesIO(data))
    return [by_source_names(row, reader.writer_schema) for row in reader]


def expected(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """A batch's rows as readers of Avro see them: a map is a dict; a uuid is compared as text."""
    return batch.to_pylist(maps_as_pydicts="strict")


def plain(rows: Any) -> Any:
    """Rows in a form in which NaN equals itself, and a decimal without a fraction the integer."""
    return json.loads(json.dumps(rows, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal) and value.as_tuple().exponent == 0:
        return int(value)
    return [type(value).__name__, str(value)]


@SETTINGS
@given(streams(), st.integers(0, 3), st.sampled_from([1, 40, 1 << 20]))
def test_generated_streams_come_back(tmp_path_factory: pytest.TempPathFactory, stream, skip, sync_interval) -> None:
    """Arrow to Avro and back gives the same values, of slices too, wherever blocks are cut."""
    node, records = stream
    schema = stream_schema("s", node, (), {})
    batch = RunDecoder(schema, validate=False, on_unknown_field="drop").decode(run_of(records)).batch.slice(skip)
    data = written([batch, batch], schema, sync_interval=sync_interval, compression="deflate", uuids=False)
    rows = expected(batch) * 2
    assert plain(by_fastavro(data)) == plain(rows)
    path = tmp_path_factory.getbasetemp() / "generated.avro"
    path.write_bytes(data)
    assert plain(read_avro(path)) == plain(rows)


EVERYTHING = {
    "id": {"type": "integer"},
    "unsigned": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**64 - 1},
    "total": {"type": ["number", "null"], "multipleOf": 0.01},
    "ratio": {"type": ["number", "null"]},
    "flag": {"type": ["boolean", "null"]},
    "text": {"type": ["string", "null"]},
    "data": {"type": ["string", "null"], "contentEncoding": "base64"},
    "at": {"type": ["string", "null"], "format": "date-time"},
    "day": {"type": ["string", "null"], "format": "date"},
    "clock": {"type": ["string", "null"], "format": "time"},
    "uid": {"type": ["string", "null"], "format": "uuid"},
    "tags": {"type": ["array", "null"], "items": {"type": ["string", "null"]}},
    "counts": {"type": ["object", "null"], "additionalProperties": {"type": ["integer", "null"]}},
    "place": {"type": ["object", "null"], "properties": {"zip code": {"type": "string"}, "xy": {"type": "array"}}},
    "any": {},
}
STREAM = stream_schema("my-orders", {"type": "object", "properties": EVERYTHING}, ("id",), {})
UID = "0F8FAD5B-d9cb-469f-a165-70867728950e"


def everything(number: int) -> dict[str, Any]:
    """A row with a value at an end of its type in each column."""
    far = number % 2 == 1
    return {
        "id": -(2**63) if far else 2**63 - 1,
        "unsigned": 2**64 - 1 if far else 0,
        "total": Decimal("-999999999999999999999999999999999999.99") if far else Decimal("1.28") * 100**number,
        "ratio": -math.inf if far else 5e-324,
        "flag": far,
        "text": "" if far else "é😀\x00" * number,
        "data": b"" if far else bytes(range(256)),
        "at": dt.datetime(1, 1, 1, tzinfo=dt.UTC) if far else dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.UTC),
        "day": dt.date(1, 1, 1) if far else dt.date(9999, 12, 31),
        "clock": dt.time() if far else dt.time(23, 59, 59, 999999),
        "uid": UID,
        "tags": [] if far else ["", None, "b"],
        "counts": {} if far else {"": 1, "k": None},
        "place": None if far else {"zip code": "0123", "xy": "[1.50]"},
        "any": None if far else '{"a":1}',
    }


def everything_batch(count: int) -> pa.RecordBatch:
    """So many rows, each third one all nulls but its key."""
    rows = [everything(n % 4) if n % 3 else {"id": n} for n in range(count)]
    for row in rows:
        if row.get("counts") is not None:
            row["counts"] = list(row["counts"].items())
    return pa.RecordBatch.from_pylist(rows, schema=STREAM.arrow)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_ends_of_every_type_come_back_through_every_codec(compression: str, tmp_path: Path) -> None:
    """Values, and which are null, by fastavro; and by Apache's avro where it has the codec."""
    batch = everything_batch(40)
    data = written([batch], STREAM, compression=compression, sync_interval=500)
    assert fastavro.reader(io.BytesIO(data)).codec == compression
    rows = expected(batch)
    found = by_fastavro(data)
    for row in found:
        row["uid"] = str(row["uid"]).upper() if row["uid"] is not None else None
    for row in rows:
        row["uid"] = row["uid"].upper() if row["uid"] is not None else None
    assert found == rows
    if compression in {"null", "deflate", "bzip2"}:
        path = tmp_path / "file.avro"
        path.write_bytes(data)
        assert [str(row["uid"]).upper() for row in read_avro(path) if row["uid"]] == [UID.upper()] * 26
        assert [{**row, "uid": None} for row in read_avro(path)] == [{**row, "uid": None} for row in rows]


def one_row_blocks(batch: pa.RecordBatch) -> list[Any]:
    """The same rows, a block for each."""
    return list(fastavro.block_reader(io.BytesIO(written([batch], STREAM, sync_interval=1, compression="null"))))


def test_blocks_end_at_the_sync_interval() -> None:
    """A block ends with the row that reaches it; a file without rows is a header that reads as none."""
    batch = everything_batch(400)
    sizes = [block.num_records for block in fastavro.block_reader(io.BytesIO(written([batch], STREAM)))]
    assert sizes == [400]
    data = written([batch], STREAM, sync_interval=2_000, compression="null")
    blocks = list(fastavro.block_reader(io.BytesIO(data)))
    assert sum(block.num_records for block in blocks) == 400
    sizes = [len(block.bytes_.getvalue()) for block in blocks]
    largest = max(len(block.bytes_.getvalue()) for block in one_row_blocks(batch))
    assert all(2_000 <= size < 2_000 + largest for size in sizes[:-1])
    assert 0 < sizes[-1] < 2_000 + largest
    assert by_fastavro(written([], STREAM)) == []


def test_the_schema_is_as_documented() -> None:
    """The types of docs/formats.md, nulls first, and the source's name where Avro's is another."""
    found = avro_schema(STREAM.arrow, STREAM, uuids=True)
    assert (found["name"], found["melisma.name"]) == ("my_orders", "my-orders")
    kinds = {field["name"]: field["type"] for field in found["fields"]}
    assert all(kind[0] == "null" for kind in kinds.values())
    assert {name: kind[1] for name, kind in kinds.items() if name != "place"} == {
        "id": "long",
        "unsigned": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0},
        "total": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 2},
        "ratio": "double",
        "flag": "boolean",
        "text": "string",
        "data": "bytes",
        "at": {"type": "long", "logicalType": "timestamp-micros"},
        "day": {"type": "int", "logicalType": "date"},
        "clock": {"type": "long", "logicalType": "time-micros"},
        "uid": {"type": "string", "logicalType": "uuid"},
        "tags": {"type": "array", "items": ["null", "string"]},
        "counts": {"type": "map", "values": ["null", "long"]},
        "any": "string",
    }
    place = kinds["place"][1]
    assert (place["type"], place["name"]) == ("record", "my_orders_place")
    assert [(field["name"], field.get("melisma.name")) for field in place["fields"]] == [
        ("zip_code", "zip code"),
        ("xy", None),
    ]


@given(st.lists(st.text(max_size=4) | st.sampled_from(["a", "a b", "a_b", "A-b", "1", "_1", ""]), unique=True))
def test_names_are_legal_and_differ(names: list[str]) -> None:
    """Whatever the source's names are; those that are legal stay, unless they differ in letter case only."""
    found = legal_names(names)
    assert list(found) == names
    lowered = {name.lower() for name in names}
    if len(lowered) == len(names):
        assert len({legal.lower() for legal in found.values()}) == len(names)
    fastavro.parse_schema(
        {"type": "record", "name": "r", "fields": [{"name": legal, "type": "null"} for legal in found.values()]}
    )
    for name, legal in found.items():
        if name.isascii() and name.isidentifier():
            assert legal == name


def test_lists_that_hide_items_below_a_null_are_written_without_them() -> None:
    """Arrow lets a null list stand over items; they do not count."""
    schema = stream_schema("s", {"type": "object", "properties": {"tags": EVERYTHING["tags"]}}, (), {})
    tags = pa.ListArray.from_arrays(
        pa.array([0, 2, 4, 5], pa.int32()), pa.array(list("abcde")), mask=pa.array([False, True, False])
    )
    batch = pa.RecordBatch.from_arrays([tags], schema=schema.arrow)
    assert by_fastavro(written([batch], schema)) == [{"tags": ["a", "b"]}, {"tags": None}, {"tags": ["e"]}]


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"compression": "gzip"}, "compression"),
        ({"compression": "snappy", "compression_level": 1}, "compression_level"),
        ({"compression": "deflate", "compression_level": 10}, "compression_level"),
        ({"sync_interval": 0}, "sync_interval"),
        ({"max_file_bytes": 0}, "max_file_size_mb"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any], setting: str) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError) as caught:
        AvroFormat(**options)
    assert caught.value.setting == setting


def test_a_type_that_avro_is_not_written_with_names_its_column() -> None:
    """Such types come from no JSON Schema; a caller of the library may bring one."""
    with pytest.raises(BadSchema, match='stream "my-orders", column "c"'):
        AvroFormat().check(pa.schema([("c", pa.month_day_nano_interval())]), STREAM)
