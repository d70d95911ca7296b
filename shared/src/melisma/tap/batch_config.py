"""The setting `batch_config`: singer-sdk's, with Arrow, zstd, a private folder, and limits added to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melisma.errors import ConfigError
from melisma.wire.batch import COMPRESSIONS, FORMATS

__all__ = ["BATCH_CONFIG", "BatchSettings"]

_MEGABYTE = 1 << 20


def _setting(kinds: str, title: str, description: str, **more: Any) -> dict[str, Any]:
    return {"type": [kinds, "null"], "title": title, "description": description, **more}


BATCH_CONFIG: dict[str, Any] = _setting(
    "object",
    "Batch Configuration",
    "Send records as BATCH messages, which name files that hold them; see docs/batch.md.",
    properties={
        "encoding": _setting(
            "object",
            "Batch Encoding",
            "How the files are written.",
            properties={
                "format": _setting(
                    "string",
                    "Batch Format",
                    "jsonl and parquet for any target that takes BATCH, arrow (IPC) for targets of melisma.",
                    enum=[*FORMATS, None],
                ),
                "compression": _setting(
                    "string",
                    "Batch Compression",
                    "gzip by default for jsonl, none for the others; no gzip for arrow.",
                    enum=[*COMPRESSIONS, None],
                ),
            },
        ),
        "storage": _setting(
            "object",
            "Batch Storage",
            "Where the files go, and stay. Without it they go through a private folder to a target of melisma on this "
            "machine, which removes them.",
            properties={
                "root": _setting("string", "Batch Storage Root", "A folder: a path, or a URL."),
                "prefix": _setting("string", "Batch Storage Prefix", "How the files' names begin."),
                "params": _setting(
                    "object", "Batch Storage Parameters", "What the root's file system (fsspec) is opened with."
                ),
            },
        ),
        "batch_size": _setting(
            "integer", "Batch Size", "The most records in a file. By default a file has about 16 MiB.", minimum=1
        ),
        "max_unread_mb": _setting(
            "number",
            "Max Unread",
            "How much may lie in the private folder before the tap waits for the target, in MiB; 128 by default.",
            exclusiveMinimum=0,
        ),
    },
)

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
