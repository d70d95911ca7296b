"""MsgPack: a map for each row, one after the other, from column names to values.

The rows go by way of JSON: arrow-rs writes them, and msgspec reads them into compiled structs of the columns' own
types, which it packs. That is six times as fast as making Python's dicts of them. Batches in which JSON cannot say a
value (NaN, infinities, years beyond 9999), and columns with maps, whose keys could be there twice, take the way of
dicts.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, ClassVar

import msgspec
import pyarrow as pa

from melisma.arrow.encode import json_lines
from melisma.errors import MelismaError
from melisma.formats.writers.compressed import CompressedFormat

__all__ = ["MsgPackFormat", "by_dicts", "by_structs"]

_ENCODER = msgspec.msgpack.Encoder(decimal_format="string")
_SCHEMAS = 256  # whose structs are kept


@dataclass(frozen=True, slots=True)
class MsgPackFormat(CompressedFormat):
    """How MsgPack is written.

    Binary is bin; timestamps are MsgPack's own extension type -1; decimals, dates and times are text, as MsgPack has
    no types for them; NaN and infinities stay what they are.
    """

    name: ClassVar[str] = "msgpack"

    def body(self, batch: pa.RecordBatch, stream: str) -> Any:
        """Rows as maps."""
        packed = by_structs(batch, stream)
        return by_dicts(batch) if packed is None else packed


def by_dicts(batch: pa.RecordBatch) -> bytearray:
    """What is right by definition."""
    output, end = bytearray(), 0
    for row in batch.to_pylist(maps_as_pydicts="strict"):
        _ENCODER.encode_into(row, output, end)
        end = len(output)
    return output


def by_structs(batch: pa.RecordBatch, stream: str) -> bytes | None:
    """The same bytes, faster; None where this way cannot have them."""
    decoder = _decoder(batch.schema.remove_metadata())
    if decoder is None or not batch.num_rows:
        return None
    not_finite: Counter[str] = Counter()
    try:
        rows = decoder.decode_lines(json_lines(batch, stream=stream, not_finite=not_finite))
    except (MelismaError, msgspec.MsgspecError):
        return None
    return None if not_finite else b"".join(map(_ENCODER.encode, rows))


@lru_cache(_SCHEMAS)
def _decoder(schema: pa.Schema) -> msgspec.json.Decoder[Any] | None:
    """Reads the JSON of such rows; None if a column has no type here."""
    try:
        return msgspec.json.Decoder(_struct([*schema]))
    except TypeError:
        return None


def _struct(fields: list[pa.Field]) -> Any:
    names = {f"f{number}": field.name for number, field in enumerate(fields)}
    kinds = zip(names, (_kind(field.type) | None for field in fields), strict=True)
    return msgspec.defstruct("Row", list(kinds), rename=names, gc=False)


def _kind(kind: pa.DataType) -> Any:
    """The Python type of a column; a plain TypeError for those that take the other way."""
    types = pa.types
    if types.is_struct(kind):
        return _struct([kind.field(index) for index in range(kind.num_fields)])
    if types.is_list(kind):
        return list[_kind(kind.value_type) | None]  # type: ignore[misc]
    if types.is_decimal(kind):
        return Decimal
    if kind == pa.timestamp("us", "UTC"):
        return dt.datetime
    for name, found in _KINDS.items():
        if getattr(types, f"is_{name}")(kind):
            return found
    raise TypeError(f"no way for {kind}")


_KINDS: dict[str, type] = {  # by pyarrow's name of the type
    "boolean": bool,
    "integer": int,
    "float64": float,
    "string": str,
    "binary": bytes,
    "date32": dt.date,
    "time64": dt.time,
}
