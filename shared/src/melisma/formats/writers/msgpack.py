"""MsgPack: a map for each row, one after the other, from column names to values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import pyarrow as pa

from melisma.formats.writers.compressed import CompressedFormat

__all__ = ["MsgPackFormat"]

_ENCODER = msgspec.msgpack.Encoder(decimal_format="string")


@dataclass(frozen=True, slots=True)
class MsgPackFormat(CompressedFormat):
    """How MsgPack is written.

    Binary is bin; timestamps are MsgPack's own extension type -1; decimals, dates and times are text, as MsgPack has
    no types for them; NaN and infinities stay what they are.
    """

    name: ClassVar[str] = "msgpack"

    def body(self, batch: pa.RecordBatch, stream: str) -> Any:  # noqa: ARG002
        """Rows as maps."""
        output, end = bytearray(), 0
        for row in batch.to_pylist(maps_as_pydicts="strict"):
            _ENCODER.encode_into(row, output, end)
            end = len(output)
        return output
