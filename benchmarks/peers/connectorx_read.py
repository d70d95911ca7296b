"""connectorx by hand: a table into an Arrow file.

Run by the Python of a peer's environment: `connectorx_read.py URL SCHEMA OUTPUT`.
"""

from __future__ import annotations

import sys

import connectorx  # type: ignore[import-not-found]
import pyarrow as pa
import pyarrow.ipc


def main(url: str, schema: str, output: str) -> None:
    """Read it whole, as connectorx does, and write it."""
    found = connectorx.read_sql(url, f"SELECT * FROM {schema}.events", return_type="arrow")  # noqa: S608 - our own
    table = pa.table(found)
    with pyarrow.ipc.new_file(f"{output}/out.arrow", table.schema) as writer:
        writer.write_table(table)


if __name__ == "__main__":
    main(*sys.argv[1:])
