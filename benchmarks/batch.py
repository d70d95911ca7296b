"""A tap of files into a target of Parquet by BATCH, and what others need to convert the same files.

`python -m benchmarks.batch TASK INPUT OUTPUT`, a process per run, with heavy imports where they are used. Four times
the events' plain columns: enough that the start of two Python programs does not hide what a row costs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.data import csv_file
from benchmarks.pipe import run_pipe

__all__ = ["COPIES", "input_file"]

COPIES = 4


def input_file(folder: Path, rows: int, kind: str) -> Path:
    """A CSV or Parquet file of that many rows, made once from the events' CSV file."""
    source = csv_file(folder, rows // COPIES)
    path = source.with_name(f"{source.stem}-{COPIES}.{kind}")
    if not path.exists():  # in another process: the measuring one must stay small
        partial = path.with_suffix(".partial")
        subprocess.run([sys.executable, "-m", __name__, "multiply", str(source), str(partial), kind], check=True)
        partial.rename(path)
    return path


def multiply(source: str, output: str, kind: str) -> None:
    """The rows several times over, each with an id of its own."""
    import duckdb

    form = "FORMAT csv, HEADER" if kind == "csv" else "FORMAT parquet, COMPRESSION zstd"
    rows = f"read_csv('{source}', types={{'occurred_at': 'VARCHAR'}})" if kind == "csv" else f"read_csv('{source}')"
    duckdb.sql(
        f"COPY (SELECT id + copy * (SELECT max(id) FROM {rows}) AS id, * EXCLUDE (id, copy) "  # noqa: S608 - our own
        f"FROM {rows}, range({COPIES}) AS copies(copy) ORDER BY id) TO '{output}' ({form})"
    )


def pipe(source: str, output: str, kind: str, tap_files: str, target_parquet: str) -> None:
    """`tap-files | target-parquet`, with Arrow files through the private folder."""
    folder = Path(output)
    tap, target = folder.with_name("tap.json"), folder.with_name("target.json")
    stream = {"name": "events", "path": source, "format": kind, "key_properties": ["id"]}
    tap.write_text(json.dumps({"streams": [stream], "batch_config": {"encoding": {"format": "arrow"}}}))
    target.write_text(json.dumps({"destination_path": output}))
    sys.exit(run_pipe([tap_files, "--config", str(tap)], [target_parquet, "--config", str(target)]))


def duckdb_convert(source: str, output: str, kind: str) -> None:
    """Read the file, write Parquet."""
    import duckdb

    duckdb.sql(f"COPY (FROM read_{kind}('{source}')) TO '{output}/out.parquet' (FORMAT parquet, COMPRESSION zstd)")


def polars_convert(source: str, output: str, kind: str) -> None:
    """Read the file, write Parquet."""
    import polars as pl

    frame = pl.scan_csv(source, try_parse_dates=True) if kind == "csv" else pl.scan_parquet(source)
    frame.sink_parquet(f"{output}/out.parquet", compression="zstd", compression_level=1)


TASKS = {"multiply": multiply, "pipe": pipe, "duckdb": duckdb_convert, "polars": polars_convert}

if __name__ == "__main__":
    _, task, *arguments = sys.argv
    TASKS[task](*arguments)
