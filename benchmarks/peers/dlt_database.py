"""dlt as its documentation has it for databases: `sql_table` with an Arrow backend, into Parquet files.

Run by the Python of a peer's environment: `dlt_database.py URL SCHEMA BACKEND OUTPUT`.
"""

from __future__ import annotations

import sys

import dlt  # type: ignore[import-not-found]
from dlt.destinations import filesystem  # type: ignore[import-not-found]
from dlt.sources.sql_database import sql_table  # type: ignore[import-not-found]

_CHUNK = 100_000


def main(url: str, schema: str, backend: str, output: str) -> None:
    """Load the table."""
    pipeline = dlt.pipeline(
        "benchmark", destination=filesystem(f"file://{output}"), dataset_name="out", pipelines_dir=f"{output}/pipelines"
    )
    table = sql_table(credentials=url, table="events", schema=schema, backend=backend, chunk_size=_CHUNK)
    pipeline.run(table, loader_file_format="parquet", write_disposition="replace")


if __name__ == "__main__":
    main(*sys.argv[1:])
