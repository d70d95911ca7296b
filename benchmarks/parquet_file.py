"""The events as a Parquet file: `python -m benchmarks.parquet_file SINGER PARQUET`, a process of its own.

Zstandard, row groups of 131,072 rows, all 15 columns, the times as timestamps in UTC.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.limits import pyarrow_parquet


def main(source: str, path: str) -> None:
    """Make `path` from the Singer stream."""
    folder = Path(path).with_suffix(".made")
    folder.mkdir(exist_ok=True)
    pyarrow_parquet(source, str(folder), "events", row_group=131_072)
    (folder / "out.parquet").rename(path)
    folder.rmdir()


if __name__ == "__main__":
    main(*sys.argv[1:])
