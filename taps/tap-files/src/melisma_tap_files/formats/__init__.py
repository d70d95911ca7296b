"""The formats, one module each; a module is loaded when a stream is of its format."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from melisma.errors import MissingExtra

if TYPE_CHECKING:
    from melisma_tap_files.formats.protocol import FileFormat

__all__ = ["file_format"]

_MODULES = {
    "csv": ("csv", ""),
    "jsonl": ("jsonl", ""),
    "json": ("json_document", ""),
    "parquet": ("parquet", ""),
    "arrow": ("arrow_ipc", ""),
    "avro": ("avro", "avro"),
    "msgpack": ("msgpack", "msgpack"),
    "protobuf": ("protobuf", "protobuf"),
    "excel": ("excel", "excel"),
}
"""By name: the module, and the extra that it needs."""


def file_format(name: str) -> FileFormat:
    """The format of this name.

    Raises:
        MissingExtra: what it needs is not installed.
    """
    module, extra = _MODULES[name]
    try:
        found: FileFormat = import_module(f"melisma_tap_files.formats.{module}").FORMAT
    except ModuleNotFoundError as error:
        if not extra or (error.name or "").startswith("melisma"):
            raise
        raise MissingExtra(f"the format {name}", "melisma-tap-files", extra) from None
    return found
