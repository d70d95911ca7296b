"""Reading what a contestant wrote back with DuckDB: `python -m benchmarks.readback FORM PATH` prints count and sum.

A process of its own, so that the measuring one stays small.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import msgpack
import polars as pl
import pyarrow as pa

QUERIES = {
    "parquet": "FROM read_parquet('{path}/**/*.parquet')",
    "jsonl": "FROM read_json('{path}/**/*.jsonl', format='newline_delimited', columns={{id: 'BIGINT'}},"
    " maximum_object_size=100000000)",
    "singer": "FROM (SELECT record.id AS id FROM read_json('{path}/out.singer', format='newline_delimited',"
    " columns={{type: 'VARCHAR', record: 'STRUCT(id BIGINT)'}}) WHERE type = 'RECORD')",
    "records": "FROM (SELECT record.id AS id FROM read_json('{path}/**/*.json', format='newline_delimited',"
    " columns={{record: 'STRUCT(id BIGINT)'}}))",
    "duckdb": "FROM out.main.events",
    "csv-files": "FROM read_csv('{path}/**/*.csv')",
    "avro": "FROM frame",
    "msgpack": "FROM frame",
    "arrow-files": "FROM frame",
}
"""What `id` is read from, by the form of what was written."""


def _msgpack(file: Path) -> pa.Table:
    with file.open("rb") as stream:
        return pa.table({"id": [row["id"] for row in msgpack.Unpacker(stream, timestamp=1)]})


FRAMES: dict[str, Callable[[Path], pa.Table]] = {
    "avro": lambda file: pl.read_avro(file, columns=["id"]).to_arrow(),
    "msgpack": _msgpack,
    "arrow-files": lambda file: pl.read_ipc(file, columns=["id"]).to_arrow(),
}
"""What DuckDB does not read itself, by another library than the one that wrote it."""


def main(form: str, path: str) -> None:
    """Print the number of rows and the sum of their ids."""
    connection = duckdb.connect()
    if form == "duckdb":
        connection.execute(f"ATTACH '{path}/out.duckdb' AS out (READ_ONLY)")
    if form in FRAMES:
        frames = [FRAMES[form](file) for file in sorted(Path(path).rglob(f"*.{form.partition('-')[0]}"))]
        connection.register("frame", pa.concat_tables([frame.select(["id"]) for frame in frames]))
    query = QUERIES[form].format(path=path)
    row = connection.execute(f"SELECT count(*), sum(id) {query}").fetchone()
    print(*(row or ()))


if __name__ == "__main__":
    main(*sys.argv[1:])
