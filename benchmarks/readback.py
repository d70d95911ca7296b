"""Reading what a contestant wrote back with DuckDB: `python -m benchmarks.readback FORM PATH` prints count and sum.

A process of its own, so that the measuring one stays small.
"""

from __future__ import annotations

import sys

import duckdb
import pyarrow as pa
import pyarrow.ipc

QUERIES = {
    "parquet": "FROM read_parquet('{path}/**/*.parquet')",
    "jsonl": "FROM read_json('{path}/**/*.jsonl', format='newline_delimited', columns={{id: 'BIGINT'}},"
    " maximum_object_size=100000000)",
    "singer": "FROM (SELECT record.id AS id FROM read_json('{path}/out.singer', format='newline_delimited',"
    " columns={{type: 'VARCHAR', record: 'STRUCT(id BIGINT)'}}) WHERE type = 'RECORD')",
    "records": "FROM (SELECT record.id AS id FROM read_json('{path}/**/*.json', format='newline_delimited',"
    " columns={{record: 'STRUCT(id BIGINT)'}}))",
    "duckdb": "FROM out.main.events",
    "csv": "FROM read_csv('{path}/out.csv', header=true)",
    "arrow": "FROM rows",
}
"""What `id` is read from, by the form of what was written."""


def main(form: str, path: str) -> None:
    """Print the number of rows and the sum of their ids."""
    connection = duckdb.connect()
    if form == "duckdb":
        connection.execute(f"ATTACH '{path}/out.duckdb' AS out (READ_ONLY)")
    if form == "arrow":  # DuckDB reads the column from where it lies
        connection.register("rows", pa.ipc.open_file(pa.memory_map(f"{path}/out.arrow")).read_all().select(["id"]))
    query = QUERIES[form].format(path=path)
    row = connection.execute(f"SELECT count(*), sum(id) {query}").fetchone()
    print(*(row or ()))


if __name__ == "__main__":
    main(*sys.argv[1:])
