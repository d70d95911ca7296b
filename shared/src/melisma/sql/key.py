"""Replication keys: which columns can be one, and their values in a STATE."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from melisma.errors import CatalogError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["bookmark", "bookmark_value", "check_key", "key_value"]

_INT64 = range(-(2**63), 2**63)


def check_key(stream: str, key: str, properties: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a replication key that cannot order the rows of a stream exactly.

    Args:
        stream: the stream's name.
        key: the replication key.
        properties: the stream's columns as JSON Schema.

    Raises:
        CatalogError: there is no such column, or its values have no exact order that a STATE can hold.
    """
    node = properties.get(key)
    if node is None:
        fix = f"The columns are: {', '.join(properties)}"
        raise CatalogError(stream, f'its replication key "{key}" is no column', fix)
    types = set(_types(node)) - {"null"}
    exact = types == {"integer"} or types == {"string"} or (types == {"number"} and "precision" in node)
    if not exact or "contentEncoding" in node or "contentMediaType" in node:
        rule = f'its replication key "{key}" is neither an integer, a decimal, a time, nor text'
        raise CatalogError(stream, rule, "Use another column, or cast it in a query")


def key_value(batch: pa.RecordBatch, key: str, stream: str) -> str | int | None:
    """The last row's key, as its record says it; an integer beyond 64 bits and a decimal as text. None for null."""
    from melisma.arrow.encode import json_lines

    last = batch.slice(batch.num_rows - 1).select([key])
    [value] = json.loads(json_lines(last, stream=stream), parse_float=Decimal).values()
    if isinstance(value, int) and value in _INT64:
        return value
    return None if value is None else str(value)


def bookmark(key: str, value: str | int) -> dict[str, Any]:
    """The bookmark of a stream that was read up to a key, as singer-sdk writes it."""
    return {"replication_key": key, "replication_key_value": value}


def bookmark_value(state: Mapping[str, Any], key: str) -> Any:
    """The key that a bookmark covers; None if there is none, or if it is another column's."""
    if state.get("replication_key") not in {None, key}:
        return None
    return state.get("replication_key_value")


def _types(node: Mapping[str, Any]) -> list[str]:
    kinds = node.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)
