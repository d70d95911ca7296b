"""The setting `batch_config`: singer-sdk's, with Arrow, zstd, a private folder, and limits added to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melisma.errors import ConfigError
from melisma.wire.batch import COMPRESSIONS, FORMATS

__all__ = ["BATCH_CONFIG", "BatchSettings"]

_MEGABYTE = 1 << 20

BATCH_CONFIG: dict[str, Any] = {
    "type": ["object", "null"],
    "title": "Batch Configuration",
    "description": (
        "Send records as BATCH messages, which name files, instead of as RECORD messages: encoding.format (jsonl, "
        "parquet, arrow) and encoding.compression (gzip, zstd, none); storage.root and storage.prefix, without which "
        "the files go through a private folder to a target of melisma on this machine; batch_size (most records in a "
        "file); max_unread_mb (what may lie in the private folder). See docs/batch.md."
    ),
    "properties": {
        "encoding": {
            "type": ["object", "null"],
            "properties": {
                "format": {"type": ["string", "null"], "enum": [*FORMATS, None]},
                "compression": {"type": ["string", "null"], "enum": [*COMPRESSIONS, None]},
            },
        },
        "storage": {
            "type": ["object", "null"],
            "properties": {
                "root": {"type": ["string", "null"]},
                "prefix": {"type": ["string", "null"]},
                "params": {"type": ["object", "null"]},
            },
        },
        "batch_size": {"type": ["integer", "null"], "minimum": 1},
        "max_unread_mb": {"type": ["number", "null"], "exclusiveMinimum": 0},
    },
}

_DEFAULT_COMPRESSION = {"jsonl": "gzip", "parquet": "none", "arrow": "none"}


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """What `batch_config` says.

    Attributes:
        format: of the files.
        compression: of the files.
        root: where they go; None for the private folder.
        prefix: how their names begin.
        params: what singer-sdk opens the root with.
        batch_size: the most records in a file; None for a size in bytes.
        most_unread: bytes that may lie in the private folder.
    """

    format: str
    compression: str
    root: str | None
    prefix: str
    params: Mapping[str, Any]
    batch_size: int | None
    most_unread: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> BatchSettings:
        """Read the setting.

        Raises:
            ConfigError: its parts do not go together.
        """
        encoding, storage = config.get("encoding") or {}, config.get("storage") or {}
        kind = encoding.get("format")
        if kind is None:
            raise ConfigError("batch_config.encoding.format", "must be set", f"Valid values: {', '.join(FORMATS)}")
        compression = encoding.get("compression") or _DEFAULT_COMPRESSION[kind]
        if kind == "arrow" and compression == "gzip":
            rule = "arrow files are compressed with zstd, or not at all"
            raise ConfigError("batch_config.encoding.compression", rule, "Valid values: zstd, none")
        return cls(
            kind,
            compression,
            storage.get("root"),
            storage.get("prefix") or "",
            storage.get("params") or {},
            config.get("batch_size"),
            int((config.get("max_unread_mb") or 128) * _MEGABYTE),
        )
