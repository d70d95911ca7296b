"""JSON documents: the objects of one array."""

from __future__ import annotations

from typing import BinaryIO

from melisma.formats.json_document import JsonDocumentReader
from melisma.formats.jsonl import JsonlReader
from melisma_tap_files.formats.jsonl import Jsonl
from melisma_tap_files.settings import StreamSettings

__all__ = ["FORMAT", "JsonDocument"]


class JsonDocument(Jsonl):
    """JSON documents. A place is a byte after a record; a row's number is the record's."""

    has_lines = False

    def _open(self, file: BinaryIO, where: str, settings: StreamSettings) -> JsonlReader:
        path = settings.options.get("records_path") or ""
        return JsonDocumentReader(file, tuple(path.split(".")) if path else (), where=where, stream=settings.name)


FORMAT = JsonDocument()
