"""The events' Parquet file as a file of another format: `python -m benchmarks.convert WRITER PARQUET FOLDER`.

A process for each of those that can write it, from the same Arrow record batches: ours, and what others would use.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["WRITERS"]

BATCH = 16_384
NESTED = ["device", "tags"]

Batches = Iterator[pa.RecordBatch]


def batches(source: Path) -> Batches:
    """The rows, all 15 columns."""
    return pq.ParquetFile(source).iter_batches(batch_size=BATCH)


def ours(name: str, **settings: Any) -> Callable[[Batches, Path], None]:
    """A format of melisma's."""

    def write(rows: Batches, path: Path) -> None:
        from benchmarks.data import SHAPES
        from melisma.arrow.schema import stream_schema
        from melisma.formats.writers.avro import AvroFormat
        from melisma.formats.writers.chosen import chosen_format

        stream = stream_schema("events", SHAPES["events"].schema, ("id",), {})
        limits = {"max_file_bytes": 1 << 40, "row_group_bytes": 8 << 20}
        made = AvroFormat(**settings, **limits) if name == "avro" else chosen_format(name, **settings, **limits)
        with path.open("wb") as sink:
            writer = made.open_file(sink, stream.arrow, stream)
            for batch in rows:
                writer.write_row_group([batch.cast(stream.arrow)])
            writer.close()

    return write


def fastavro(codec: str) -> Callable[[Batches, Path], None]:
    """By fastavro's compiled writer, with making the dicts that it takes."""

    def write(rows: Batches, path: Path) -> None:
        import fastavro

        from benchmarks.data import SHAPES
        from melisma.arrow.schema import stream_schema
        from melisma.formats.writers.avro_schema import avro_schema

        stream = stream_schema("events", SHAPES["events"].schema, ("id",), {})
        with path.open("wb") as sink:
            schema = fastavro.parse_schema(avro_schema(stream.arrow, stream, uuids=False))
            fastavro.writer(sink, schema, (row for batch in rows for row in batch.to_pylist()), codec=codec)

    return write


def msgspec_lines(rows: Batches, path: Path) -> None:
    """JSON Lines by msgspec, with making the dicts."""
    import msgspec

    encode = msgspec.json.Encoder().encode_lines
    with path.open("wb") as sink:
        for batch in rows:
            sink.write(encode(batch.to_pylist()))


def polars_lines(rows: Batches, path: Path) -> None:
    """JSON Lines by Polars."""
    import polars as pl

    with path.open("wb") as sink:
        for batch in rows:
            pl.DataFrame(pl.from_arrow(batch)).write_ndjson(sink)


def python_csv(rows: Batches, path: Path) -> None:
    """CSV by Python's own module."""
    with path.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.writer(sink)
        for number, batch in enumerate(rows):
            if not number:
                writer.writerow(batch.schema.names)
            writer.writerows(
                [json.dumps(value) if isinstance(value, dict | list) else value for value in row.values()]
                for row in batch.to_pylist()
            )


def pyarrow_csv(rows: Batches, path: Path) -> None:
    """CSV by pyarrow, which writes no nested columns: 13 of the 15."""
    import pyarrow.csv as pa_csv

    first = next(rows).drop_columns(NESTED)
    with pa_csv.CSVWriter(path, first.schema) as writer:
        writer.write(first)
        for batch in rows:
            writer.write(batch.drop_columns(NESTED))


def msgpack(rows: Batches, path: Path) -> None:
    """MessagePack by its own compiled library, with making the dicts."""
    import msgpack

    packer = msgpack.Packer(datetime=True)
    with path.open("wb") as sink:
        for batch in rows:
            sink.write(b"".join(map(packer.pack, batch.to_pylist())))


def pyarrow_ipc(rows: Batches, path: Path) -> None:
    """Arrow IPC by pyarrow."""
    first = next(rows)
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1))
    with pa.ipc.new_file(path, first.schema, options=options) as writer:
        writer.write_batch(first)
        for batch in rows:
            writer.write_batch(batch)


WRITERS: dict[str, tuple[str, Callable[[Batches, Path], None]]] = {
    "melisma-avro-snappy": ("avro", ours("avro", compression="snappy")),
    "melisma-avro-deflate": ("avro", ours("avro", compression="deflate")),
    "fastavro-snappy": ("avro", fastavro("snappy")),
    "fastavro-deflate": ("avro", fastavro("deflate")),
    "melisma-jsonl": ("jsonl", ours("jsonl")),
    "msgspec-jsonl": ("jsonl", msgspec_lines),
    "polars-jsonl": ("jsonl", polars_lines),
    "melisma-csv": ("csv", ours("csv")),
    "python-csv": ("csv", python_csv),
    "pyarrow-csv": ("csv", pyarrow_csv),
    "melisma-msgpack": ("msgpack", ours("msgpack")),
    "msgpack": ("msgpack", msgpack),
    "melisma-arrow": ("arrow", ours("arrow")),
    "pyarrow-arrow": ("arrow", pyarrow_ipc),
}
"""By name: the file's ending, and what writes it."""


def main(writer: str, source: str, folder: str) -> None:
    """Write the file."""
    ending, write = WRITERS[writer]
    write(batches(Path(source)), Path(folder) / f"out.{ending}")


if __name__ == "__main__":
    main(*sys.argv[1:])
