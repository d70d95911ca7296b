"""A singer-sdk tap as one writes it for files, a record per row: `csv.DictReader`, or `to_pylist` for Parquet.

Run by the Python of a peer's environment, which has singer-sdk and nothing of melisma.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from singer_sdk import Stream, Tap
from singer_sdk import typing as th

_TYPES: dict[str, tuple[Any, type]] = {"integer": (th.IntegerType, int), "number": (th.NumberType, float)}


class CsvStream(Stream):
    """The rows of the file."""

    name = "events"

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Of the header; numbers by their columns' settings, the rest are strings. The SDK asks for it per record."""
        with Path(self.config["path"]).open(newline="") as file:
            names = next(csv.reader(file))
        types = self.config.get("types", {})
        properties = [th.Property(name, _TYPES[types[name]][0] if name in types else th.StringType) for name in names]
        return th.PropertiesList(*properties).to_dict()

    def get_records(self, context: Any) -> Iterable[dict[str, Any]]:  # noqa: ARG002
        """Read the file."""
        convert = {name: _TYPES[kind][1] for name, kind in self.config.get("types", {}).items()}
        with Path(self.config["path"]).open(newline="") as file:
            for row in csv.DictReader(file):
                record: dict[str, Any] = dict(row)
                for name, to in convert.items():
                    record[name] = to(row[name]) if row[name] else None
                yield record


class ParquetStream(Stream):
    """The rows of a Parquet file."""

    name = "events"

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Of the file's types."""
        import pyarrow.parquet as pq

        return {"type": "object", "properties": {f.name: _node(f.type) for f in pq.read_schema(self.config["path"])}}

    def get_records(self, context: Any) -> Iterable[dict[str, Any]]:  # noqa: ARG002
        """Read the file."""
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(self.config["path"]).iter_batches(batch_size=10_000):
            yield from batch.to_pylist()


def _node(kind: Any) -> dict[str, Any]:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return {"type": ["object", "null"], "properties": {each.name: _node(each.type) for each in kind}}
    if pa.types.is_list(kind):
        return {"type": ["array", "null"], "items": _node(kind.value_type)}
    if pa.types.is_timestamp(kind):
        return {"type": ["string", "null"], "format": "date-time"}
    plain = {"int64": "integer", "double": "number", "bool": "boolean"}
    return {"type": [plain.get(str(kind), "string"), "null"]}


class PlainTap(Tap):
    """The tap."""

    name = "plain-sdk-tap"
    config_jsonschema = th.PropertiesList(
        th.Property("path", th.StringType, required=True),
        th.Property("types", th.ObjectType(additional_properties=th.StringType)),
    ).to_dict()

    def discover_streams(self) -> list[Stream]:
        """The one stream."""
        return [ParquetStream(self) if self.config["path"].endswith(".parquet") else CsvStream(self)]


if __name__ == "__main__":
    PlainTap.cli()
