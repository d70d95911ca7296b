"""A singer-sdk target as one writes it with the SDK's cookiecutter: a BatchSink that writes each batch to Parquet.

Run by the Python of a peer's environment, which has singer-sdk and pyarrow and nothing of melisma.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from singer_sdk import typing as th
from singer_sdk.sinks import BatchSink
from singer_sdk.target_base import Target


class ParquetSink(BatchSink):
    """One file per batch of at most 10,000 records, the SDK's default."""

    def process_batch(self, context: dict[str, Any]) -> None:
        """Write the batch."""
        folder = Path(self.config["destination_path"]) / self.stream_name
        folder.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(context["records"])
        pq.write_table(table, folder / f"{context['batch_id']}.parquet", compression="zstd")


class PlainTarget(Target):
    """The target."""

    name = "plain-sdk-target"
    config_jsonschema = th.PropertiesList(th.Property("destination_path", th.StringType, required=True)).to_dict()
    default_sink_class = ParquetSink


if __name__ == "__main__":
    PlainTarget.cli()
