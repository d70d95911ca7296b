"""Reads lakes back, in a process of its own: DuckDB and Polars keep threads, and who forks must have none.

Started as a program it answers requests: a line of JSON in, a line of JSON out.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from melisma.lake.journal import Journal
from melisma.lake.objects import ObjectsOnDisk


def read_back(folder: Path, url: str, streams: list[str], endpoint: str = "") -> dict[str, Any]:
    """Every row of a lake with its count, by two engines that must agree; and what else is in the lake.

    Args:
        folder: where a lake that is in a bucket is copied to.
        url: the lake.
        streams: their names.
        endpoint: of the S3 server.
    """
    wrong: list[str] = []
    rows: dict[str, list[list[Any]]] = {}
    root = Path(url)
    if endpoint:
        root = folder / "copy"
        wrong += _copy(url, endpoint, root)
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
        if Counter(frame.rows()) != Counter({tuple(row[:4]): row[4] for row in rows[stream]}):
            wrong.append("DuckDB and Polars read different rows")
    live = {file.path for file in Journal.load(ObjectsOnDisk(root), "default").live_files()}
    if live != visible:
        wrong.append(f"{len(visible - live)} files that no entry names, {len(live - visible)} missing")
    staging = root / "_melisma/default/staging"
    if staging.exists() and any(path.is_file() for path in staging.rglob("*")):
        wrong.append("something is left in staging")
    return {"rows": rows, "wrong": wrong}


def _copy(url: str, endpoint: str, root: Path) -> list[str]:
    """Copy a lake out of its bucket; says so if there are unfinished uploads in it."""
    import boto3

    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    shutil.rmtree(root, ignore_errors=True)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for each in page.get("Contents", []):
            path = root / each["Key"].removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, each["Key"], str(path))
    uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=f"{prefix}/").get("Uploads", [])
    return [f"{len(uploads)} unfinished uploads are left"] if uploads else []


def main() -> None:
    """Answer."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = read_back(Path(request.pop("folder")), **request)
        except Exception as error:  # a torn file is what we look for
            answer = {"rows": {stream: [] for stream in request["streams"]}, "wrong": [f"cannot be read: {error}"]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
