"""JSON Lines: an object for each row, with every column, null or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from melisma.arrow.encode import json_lines
from melisma.formats.writers.compressed import CompressedFormat

__all__ = ["JsonLinesFormat"]


@dataclass(frozen=True, slots=True)
class JsonLinesFormat(CompressedFormat):
    """How JSON Lines are written: values as in RECORD messages."""

    name: ClassVar[str] = "jsonl"

    def body(self, batch: pa.RecordBatch, stream: str) -> Any:
        """Rows as lines."""
        return json_lines(batch, stream=stream)
