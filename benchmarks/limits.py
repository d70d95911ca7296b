"""The raw limits: what DuckDB, Polars and pyarrow need for the same bytes, with neither checks nor state nor commit.

`python -m benchmarks.limits ENGINE TASK INPUT OUTPUT SHAPE`, a process per run, with heavy imports where they are used.
"""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.data import CSV_COLUMNS, SHAPES

_SQL = {"integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN", "string": "VARCHAR"}


def duckdb_parquet(source: str, output: str, shape: str) -> None:
    """Read the Singer stream as JSON, write Parquet."""
    import duckdb

    chosen = SHAPES[shape]
    partition = ", PARTITION_BY (stream)" if chosen.streams > 1 else ""
    columns = "record.*, stream" if partition else "record.*"
    target = output if partition else f"{output}/out.parquet"
    duckdb.sql(
        f"COPY (SELECT {columns} FROM read_json('{source}', format='newline_delimited', "  # noqa: S608 - our own
        f"columns={{type: 'VARCHAR', stream: 'VARCHAR', record: '{_sql(chosen.schema)}'}}) WHERE type = 'RECORD') "
        f"TO '{target}' (FORMAT parquet, COMPRESSION zstd{partition})"
    )


def polars_parquet(source: str, output: str, shape: str) -> None:
    """Read the Singer stream as JSON, write Parquet; times are made of strings, as Polars has it."""
    import polars as pl

    schema = SHAPES[shape].schema
    frame = pl.scan_ndjson(source, schema={"type": pl.String, "record": _polars(schema)})
    frame = frame.filter(pl.col("type") == "RECORD").select("record").unnest("record")
    times = [name for name, each in schema["properties"].items() if each.get("format") == "date-time"]
    moments = [pl.col(name).str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us", time_zone="UTC") for name in times]
    frame.with_columns(moments).sink_parquet(f"{output}/out.parquet", compression="zstd", compression_level=1)


def pyarrow_parquet(source: str, output: str, shape: str, row_group: int = 0) -> None:
    """Read the Singer stream as JSON in blocks, write Parquet, on one thread; `row_group` 0 makes one of each block."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    record = _arrow(SHAPES[shape].schema)
    reader = pj.open_json(
        source,
        read_options=pj.ReadOptions(use_threads=False, block_size=2 << 20),
        parse_options=pj.ParseOptions(
            explicit_schema=pa.schema([("type", pa.string()), ("record", record)]), unexpected_field_behavior="ignore"
        ),
    )
    schema = pa.schema(list(record))
    waiting, rows = [], 0
    with pq.ParquetWriter(f"{output}/out.parquet", schema, compression="zstd") as writer:
        for batch in reader:
            kept = batch.filter(pc.equal(batch.column("type"), "RECORD"))
            columns = kept.column("record").flatten()
            waiting.append(pa.RecordBatch.from_arrays(columns, schema=schema))
            rows += kept.num_rows
            if rows >= row_group:
                writer.write_table(pa.Table.from_batches(waiting), row_group or None)
                waiting, rows = [], 0
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))


def duckdb_records(source: str, output: str, shape: str) -> None:  # noqa: ARG001
    """Read CSV or Parquet, write lines of JSON with the records of RECORD messages."""
    import duckdb

    parquet = source.endswith(".parquet")
    columns = ", ".join(SHAPES["events"].properties if parquet else CSV_COLUMNS)
    duckdb.sql(
        f"COPY (SELECT 'RECORD' AS type, 'events' AS stream, {{{_members(columns)}}} AS record "  # noqa: S608
        f"FROM {'read_parquet' if parquet else 'read_csv'}('{source}')) TO '{output}/out.json' (FORMAT json)"
    )


def polars_records(source: str, output: str, shape: str) -> None:  # noqa: ARG001
    """Read CSV or Parquet, write lines of JSON with the records of RECORD messages."""
    import polars as pl

    frame = pl.scan_parquet(source) if source.endswith(".parquet") else pl.scan_csv(source, try_parse_dates=True)
    frame = frame.select(
        pl.lit("RECORD").alias("type"), pl.lit("events").alias("stream"), pl.struct(pl.all()).alias("record")
    )
    frame.sink_ndjson(f"{output}/out.json")


def arro3_records(source: str, output: str, shape: str) -> None:
    """Read CSV or Parquet with arrow-rs, write lines of JSON with the records of RECORD messages."""
    import arro3.io
    import pyarrow as pa

    if source.endswith(".parquet"):
        reader: Any = arro3.io.read_parquet(source)
    else:
        schema = pa.schema([field for field in _arrow(SHAPES[shape].schema) if field.name in CSV_COLUMNS])
        reader = arro3.io.read_csv(source, schema, has_header=True, batch_size=4_096)

    def lines() -> Any:
        for each in pa.RecordBatchReader.from_stream(reader):
            constants = [pa.repeat(pa.scalar(text), each.num_rows) for text in ("RECORD", "events")]
            yield pa.record_batch([*constants, each.to_struct_array()], names=["type", "stream", "record"])

    found = lines()
    first = next(found)
    batches = pa.RecordBatchReader.from_batches(first.schema, chain([first], found))
    arro3.io.write_ndjson(batches, f"{output}/out.json", explicit_nulls=True)


def _members(columns: str) -> str:
    return ", ".join(f"'{name}': {name}" for name in columns.split(", "))


def _kind(schema: dict[str, Any]) -> str:
    kinds = schema["type"]
    return str(next(kind for kind in kinds if kind != "null")) if isinstance(kinds, list) else str(kinds)


def _sql(schema: dict[str, Any]) -> str:
    kind = _kind(schema)
    if kind == "object":
        return "STRUCT(" + ", ".join(f'"{name}" {_sql(each)}' for name, each in schema["properties"].items()) + ")"
    if kind == "array":
        return _sql(schema["items"]) + "[]"
    return "TIMESTAMPTZ" if schema.get("format") == "date-time" else _SQL[kind]


def _polars(schema: dict[str, Any]) -> Any:
    import polars as pl

    kind = _kind(schema)
    if kind == "object":
        return pl.Struct({name: _polars(each) for name, each in schema["properties"].items()})
    if kind == "array":
        return pl.List(_polars(schema["items"]))
    return {"integer": pl.Int64, "number": pl.Float64, "boolean": pl.Boolean, "string": pl.String}[kind]


def _arrow(schema: dict[str, Any]) -> Any:
    import pyarrow as pa

    kind = _kind(schema)
    if kind == "object":
        return pa.struct([(name, _arrow(each)) for name, each in schema["properties"].items()])
    if kind == "array":
        return pa.list_(_arrow(schema["items"]))
    if schema.get("format") == "date-time":
        return pa.timestamp("us", "UTC")
    return {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_(), "string": pa.string()}[kind]


TASKS = {
    ("duckdb", "parquet"): duckdb_parquet,
    ("polars", "parquet"): polars_parquet,
    ("pyarrow", "parquet"): pyarrow_parquet,
    ("duckdb", "records"): duckdb_records,
    ("polars", "records"): polars_records,
    ("arro3", "records"): arro3_records,
}

if __name__ == "__main__":
    _, engine, task, *arguments = sys.argv
    Path(arguments[1]).mkdir(parents=True, exist_ok=True)
    TASKS[engine, task](*arguments)
