"""Reads Avro files back with Apache's own Python implementation, which shares no code with fastavro or melisma."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import avro.datafile
import avro.io

__all__ = ["by_source_names", "read_avro"]


def read_avro(path: Path) -> list[dict[str, Any]]:
    """A file's rows, with the names that the source gave its columns."""
    with avro.datafile.DataFileReader(path.open("rb"), avro.io.DatumReader()) as reader:
        schema = json.loads(reader.meta["avro.schema"])
        return [by_source_names(row, schema) for row in reader]


def by_source_names(value: Any, schema: Any) -> Any:
    """A value with the names of its record's fields, and of all below it, turned back by `melisma.name`."""
    if isinstance(schema, list):
        [schema] = [choice for choice in schema if choice != "null"]
    kind = schema["type"] if isinstance(schema, dict) else schema
    if value is None:
        return None
    if kind == "record":
        return {
            field.get("melisma.name", field["name"]): by_source_names(value[field["name"]], field["type"])
            for field in schema["fields"]
        }
    if kind == "array":
        return [by_source_names(each, schema["items"]) for each in value]
    if kind == "map":
        return {key: by_source_names(each, schema["values"]) for key, each in value.items()}
    return value
