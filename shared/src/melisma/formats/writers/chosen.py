"""A format that settings name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from melisma.errors import ConfigError
from melisma.formats.writers.arrow_ipc import ArrowFormat
from melisma.formats.writers.csv import CsvFormat
from melisma.formats.writers.file_format import FileFormat
from melisma.formats.writers.jsonl import JsonLinesFormat
from melisma.formats.writers.msgpack import MsgPackFormat

__all__ = ["FORMATS", "chosen_format"]

FORMATS = ("jsonl", "csv", "msgpack", "arrow", "arrow_stream")
"""What `chosen_format` knows."""


def chosen_format(
    name: str,
    *,
    compression: str | None = None,
    compression_level: int | None = None,
    csv: Mapping[str, Any] | None = None,
    max_file_bytes: int,
    row_group_bytes: int,
    distribution: str = "melisma",
) -> FileFormat:
    """A format with its settings.

    Args:
        name: one of FORMATS.
        compression: None for none, but zstd for Arrow.
        compression_level: None for the codec's own.
        csv: `delimiter`, `header`, `quote` and `null_value`; those that are missing are as usual.
        max_file_bytes: see FileFormat.
        row_group_bytes: see FileFormat.
        distribution: what a missing extra is to be installed with.

    Raises:
        ConfigError: a setting cannot work.
        MissingExtra: the codec's library is not installed.
    """
    if csv and name != "csv":
        raise ConfigError("csv", "is set, and the files are not CSV", 'Remove it, or set format to "csv"')
    if name in {"arrow", "arrow_stream"}:
        return ArrowFormat(
            stream=name == "arrow_stream",
            compression=compression or "zstd",
            compression_level=compression_level,
            max_file_bytes=max_file_bytes,
            row_group_bytes=row_group_bytes,
        )
    common: dict[str, Any] = {
        "compression": compression or "none",
        "compression_level": compression_level,
        "max_file_bytes": max_file_bytes,
        "row_group_bytes": row_group_bytes,
        "distribution": distribution,
    }
    if name == "csv":
        csv = csv or {}
        return CsvFormat(
            **common,
            delimiter=csv.get("delimiter", ","),
            header=bool(csv.get("header", True)),
            quote_all=csv.get("quote", "needed") == "text",
            null_value=csv.get("null_value") or "",
        )
    if name == "msgpack":
        return MsgPackFormat(**common)
    if name == "jsonl":
        return JsonLinesFormat(**common)
    raise ConfigError("format", "is not known", f"Valid values: {', '.join(FORMATS)}")
