"""Protocol Buffers files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from melisma.errors import ConfigError
from melisma.formats.protobuf import ProtobufReader, message_type
from melisma_tap_files.formats.typed import Typed
from melisma_tap_files.settings import StreamSettings

__all__ = ["FORMAT"]


def _open(file: BinaryIO, where: str, settings: StreamSettings) -> ProtobufReader:
    options = settings.options
    setting = f"{settings.setting}.protobuf"
    for name in ("descriptor_set", "message"):
        if not options.get(name):
            raise ConfigError(f"{setting}.{name}", "is required for this format", "See the README")
    kind = _message(options["descriptor_set"], options["message"], setting)
    return ProtobufReader(file, kind, where=where, stream=settings.name)


@lru_cache(maxsize=64)
def _message(path: str, name: str, setting: str) -> Any:
    try:
        descriptors = Path(path).expanduser().read_bytes()
    except OSError:
        raise ConfigError(f"{setting}.descriptor_set", "cannot be read", "Set it to a local file's path") from None
    return message_type(descriptors, name, setting)


FORMAT = Typed(_open)
