"""Reads lakes back, in a process of its own: DuckDB and Polars keep threads, and who forks must have none.

Started as a program it answers requests: a line of JSON in, a line of JSON out.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from melisma.lake.journal import Journal
from melisma.lake.objects import ObjectsOnDisk


def read_back(root: Path, streams: list[str]) -> dict[str, Any]:
    """Every row of a lake with its count, by two engines that must agree; and what else is in the lake."""
    wrong: list[str] = []
    rows: dict[str, list[list[Any]]] = {}
    visible: set[str] = set()
    for stream in streams:
        files = sorted(str(path) for path in (root / stream).rglob("*") if path.is_file())
        visible |= {os.path.relpath(file, root) for file in files}
        if not files:
            rows[stream] = []
            continue
        query = "SELECT id, changed, entry, text, count(*)::INT FROM read_parquet(?, union_by_name=true) GROUP BY ALL"
        rows[stream] = [list(row) for row in duckdb.execute(query, [files]).fetchall()]
        frame = pl.read_parquet(files, hive_partitioning=False).select("id", "changed", "entry", "text")
        other = Counter(frame.rows())
        if other != Counter({tuple(row[:4]): row[4] for row in rows[stream]}):
            wrong.append("DuckDB and Polars read different rows")
    live = {file.path for file in Journal.load(ObjectsOnDisk(root), "default").live_files()}
    if live != visible:
        wrong.append(f"{len(visible - live)} files that no entry names, {len(live - visible)} missing")
    staging = root / "_melisma/default/staging"
    if staging.exists() and any(path.is_file() for path in staging.rglob("*")):
        wrong.append("something is left in staging")
    return {"rows": rows, "wrong": wrong}


def main() -> None:
    """Answer."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = read_back(Path(request["root"]), request["streams"])
        except Exception as error:  # a torn file is what we look for
            answer = {"rows": {stream: [] for stream in request["streams"]}, "wrong": [f"cannot be read: {error}"]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
