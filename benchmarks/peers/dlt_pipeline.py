"""dlt as its documentation has it: a resource that yields pages of records, into Parquet files.

Run by the Python of a peer's environment: `dlt_pipeline.py INPUT OUTPUT`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import dlt  # type: ignore[import-not-found]
from dlt.destinations import filesystem  # type: ignore[import-not-found]

_PAGE = 5_000


def records(path: str) -> Iterator[list[dict[str, Any]]]:
    """The records of a Singer stream, in pages."""
    with Path(path).open("rb") as file:
        found = (message["record"] for message in map(json.loads, file) if message["type"] == "RECORD")
        while page := list(islice(found, _PAGE)):
            yield page


def main(path: str, output: str) -> None:
    """Load a Singer stream's records."""
    pipeline = dlt.pipeline(
        "benchmark", destination=filesystem(f"file://{output}"), dataset_name="out", pipelines_dir=f"{output}/pipelines"
    )
    pipeline.run(dlt.resource(records(path), name="events"), loader_file_format="parquet")


if __name__ == "__main__":
    main(*sys.argv[1:])
