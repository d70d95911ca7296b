"""What writing a file costs in each format, from Arrow batches: `python -m benchmarks.file_formats`.

CPU seconds, the better of two runs; beside melisma, what others would write the same rows with.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import random
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import fastavro
import msgspec
import pyarrow as pa
import pyarrow.csv

from melisma.arrow.schema import stream_schema
from melisma.formats.writers.avro import AvroFormat
from melisma.formats.writers.chosen import FORMATS, chosen_format
from melisma.formats.writers.file_format import FileFormat

ROWS, BATCH = 200_000, 10_000
NESTED = ["o", "l"]
PROPERTIES: dict[str, Any] = {
    **{f"i{k}": {"type": ["integer", "null"]} for k in range(4)},
    **{f"s{k}": {"type": ["string", "null"]} for k in range(4)},
    "d": {"type": ["number", "null"], "multipleOf": 0.01},
    "t": {"type": ["string", "null"], "format": "date-time"},
    "f": {"type": ["number", "null"]},
    "ok": {"type": ["boolean", "null"]},
    "o": {"type": ["object", "null"], "properties": {"x": {"type": "integer"}, "y": {"type": "string"}}},
    "l": {"type": ["array", "null"], "items": {"type": "string"}},
}
STREAM = stream_schema("s", {"type": "object", "properties": PROPERTIES}, (), {})


def batches() -> list[pa.RecordBatch]:
    """The rows, the same in each run."""
    chance = random.Random(1)
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    rows = [
        {
            **{f"i{k}": chance.randrange(10**6) for k in range(4)},
            **{f"s{k}": "".join(chance.choices("abcdefgh ", k=20)) for k in range(4)},
            "d": Decimal(chance.randrange(10**6)) / 100,
            "t": start + dt.timedelta(seconds=chance.randrange(10**7)),
            "f": chance.random(),
            "ok": chance.random() < 0.5,
            "o": {"x": chance.randrange(99), "y": "abc"},
            "l": ["a", "bb"],
        }
        for _ in range(BATCH)
    ]
    return [pa.RecordBatch.from_pylist(rows, schema=STREAM.arrow)] * (ROWS // BATCH)


def ours(file_format: FileFormat, data: list[pa.RecordBatch]) -> bytes:
    """A file of ours."""
    sink = io.BytesIO()
    writer = file_format.open_file(sink, STREAM.arrow, STREAM)
    for batch in data:
        writer.write_row_group([batch])
    writer.close()
    return sink.getvalue()


def by_fastavro(data: list[pa.RecordBatch], codec: str, schema: Any) -> bytes:
    """An Avro file by fastavro, with making the dicts."""
    sink = io.BytesIO()
    level = {"codec_compression_level": 1} if codec == "zstandard" else {}
    fastavro.writer(sink, schema, (row for batch in data for row in batch.to_pylist()), codec=codec, **level)
    return sink.getvalue()


def by_msgspec(data: list[pa.RecordBatch]) -> bytes:
    """JSON Lines by msgspec, with making the dicts."""
    encode = msgspec.json.Encoder(decimal_format="number").encode
    return b"\n".join(encode(row) for batch in data for row in batch.to_pylist())


def by_csv(data: list[pa.RecordBatch]) -> bytes:
    """CSV by Python's own module."""
    sink = io.StringIO()
    writer = csv.writer(sink)
    for batch in data:
        writer.writerows(
            [json.dumps(value) if isinstance(value, dict | list) else value for value in row.values()]
            for row in batch.to_pylist()
        )
    return sink.getvalue().encode()


def by_pyarrow_csv(data: list[pa.RecordBatch]) -> bytes:
    """CSV by pyarrow, which writes no nested columns."""
    flat = [batch.drop_columns(NESTED) for batch in data]
    sink = io.BytesIO()
    with pyarrow.csv.CSVWriter(sink, flat[0].schema) as writer:
        for batch in flat:
            writer.write(batch)
    return sink.getvalue()


def contestants(data: list[pa.RecordBatch]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """What is measured."""
    schema = fastavro.reader(io.BytesIO(ours(AvroFormat(compression="null"), data[:1]))).writer_schema
    for codec in ("null", "snappy", "zstandard", "deflate"):
        yield f"avro {codec}", lambda codec=codec: ours(AvroFormat(compression=codec), data)  # type: ignore[misc]
        yield f"avro {codec}, fastavro", lambda codec=codec: by_fastavro(data, codec, schema)  # type: ignore[misc]
    for name in FORMATS:
        made = chosen_format(name, max_file_bytes=1 << 40, row_group_bytes=8 << 20)
        yield name, lambda made=made: ours(made, data)  # type: ignore[misc]
    yield "jsonl, msgspec", lambda: by_msgspec(data)
    yield "csv, Python", lambda: by_csv(data)
    yield "csv, pyarrow, nested columns left out", lambda: by_pyarrow_csv(data)


def main() -> None:
    """Measure, and print a line for each."""
    data = batches()
    for name, write in contestants(data):
        best, size = float("inf"), 0
        for _ in range(2):
            start = time.process_time()
            size = len(write())
            best = min(best, time.process_time() - start)
        print(f"{name:40} {best:6.2f} s {ROWS / best:12,.0f} rows/s {size / 1e6:7.1f} MB")


if __name__ == "__main__":
    main()
