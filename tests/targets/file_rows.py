"""Reads the files of target-files back, each with another library than the one that wrote it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgpack
import polars as pl
import zstandard

__all__ = ["read_arrow", "read_csv", "read_json_lines", "read_msgpack"]

Rows = list[dict[str, Any]]


def _bytes(path: Path) -> bytes:
    """A file's content, decompressed."""
    data = path.read_bytes()
    if path.name.endswith(".gz"):
        return gzip.decompress(data)
    if path.name.endswith(".zst"):
        return zstandard.ZstdDecompressor().stream_reader(data).read()
    return data


def read_json_lines(path: Path) -> Rows:
    """A file's rows, numbers exact."""
    return [json.loads(line, parse_float=Decimal) for line in _bytes(path).decode().splitlines()]


def read_csv(path: Path) -> Rows:
    """A file's rows; NULL is None, and what could be JSON is taken for it."""
    rows = csv.DictReader(io.StringIO(_bytes(path).decode(), newline=""))
    return [{name: _value(text) for name, text in row.items()} for row in rows]


def _value(text: str) -> Any:
    if text == "NULL":
        return None
    try:
        return json.loads(text, parse_float=Decimal)
    except ValueError:
        return text


def read_msgpack(path: Path) -> Rows:
    """A file's rows; timestamps are date-times."""
    return list(msgpack.Unpacker(io.BytesIO(_bytes(path)), timestamp=3))


def read_arrow(path: Path) -> Rows:
    """A file's rows, read by Polars."""
    return pl.read_ipc(io.BytesIO(_bytes(path))).to_dicts()
