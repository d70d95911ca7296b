"""Hive partitions: folders named `column=value` on the way to a file, as columns of its rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from melisma.arrow.types import Field
from melisma.errors import BadFile
from melisma.formats.inference import TextColumn

__all__ = ["partition_array", "partition_fields", "partition_values"]

_NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_values(location: str) -> dict[str, str | None]:
    """Column -> value of the folders above a file, in their order; None where Hive writes null."""
    found: dict[str, str | None] = {}
    for folder in location.split("/")[:-1]:
        name, equals, value = folder.partition("=")
        if name and equals:
            found[unquote(name)] = None if value == _NULL else unquote(value)
    return found


def partition_fields(locations: Iterable[str]) -> list[pa.Field]:
    """The columns of all partitions, each of the narrowest type that every file's value fits, as in CSV."""
    texts: dict[str, set[str | None]] = {}
    for location in locations:
        for name, value in partition_values(location).items():
            texts.setdefault(name, set()).add(value)
    fields = []
    for name, values in texts.items():
        column = TextColumn(())
        column.add(pa.array(list(values), pa.string()))
        fields.append(pa.field(name, column.type()))
    return fields


def partition_array(field: Field, text: str | None, rows: int, *, file: str, stream: str) -> Any:
    """A partition's value as a column of so many rows.

    Raises:
        BadFile: it does not fit the column.
    """
    kind = field.type.arrow
    if text is None:
        return pa.nulls(rows, kind)
    try:
        value = pa.array([text]).cast(kind)[0]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        rule = f"the value in the folder's name does not fit the column's type {kind}"
        fix = 'Set column_types to "string" for this column and discover again, or rename the folder'
        raise BadFile(rule, stream=stream, file=file, column=field.name, fix=fix) from None
    return pa.repeat(value, rows)
