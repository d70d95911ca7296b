"""The native decoder: runs into record batches by `melisma-native`, where that distribution is installed.

It gives exactly what the row path gives, or it says that it is not certain and the run goes to that path. It is
strict where pyarrow's JSON reader is not, so nothing is checked again afterwards: nulls, missing members and unknown
members are held while reading. `MELISMA_NATIVE=0` in the environment leaves it unused.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from melisma.arrow.types import ColumnType, StreamSchema
from melisma.wire.extension import native_extension
from melisma.wire.framing import Run

__all__ = ["NativeBatch", "NativeDecoder", "native_decoder"]

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class NativeBatch:
    """What a run became; the attributes are those of `melisma.arrow.decode.Decoded`."""

    batch: pa.RecordBatch
    extracted: pa.Array | None
    versions: pa.Array | None
    unknown: Counter[str]
    large: frozenset[str]


class NativeDecoder(Protocol):
    """Decodes runs of one stream."""

    def decode(self, run: Run) -> NativeBatch | None:
        """Decode a run, or leave it to the row path (None)."""


def native_decoder(
    schema: StreamSchema, *, validate: bool, on_unknown_field: str, ignored: frozenset[str], envelope: bool
) -> NativeDecoder | None:
    """The native decoder of a stream; None where it is not installed, switched off, or cannot decode a column.

    The arguments are those of `melisma.arrow.decode.RunDecoder`.
    """
    melisma_native = native_extension()
    if melisma_native is None or not schema.fields or not _can_cross(schema.root):
        return None
    try:
        decoder = melisma_native.Decoder(
            schema.stream, _node(schema.root), schema.arrow, sorted(ignored), on_unknown_field, validate, envelope
        )
    except ValueError as error:
        _logger.debug("melisma-native is unused for stream %s: %s", schema.stream, error)
        return None
    return _Decoder(decoder, schema)


_DEEPEST = 50


def _can_cross(column: ColumnType, depth: int = 0) -> bool:
    """Whether Arrow's C data interface can hand the column over: it ends names at a NUL and nests only so deep."""
    if depth > _DEEPEST or any("\0" in each.name for each in column.fields):
        return False
    inner = [each.type for each in column.fields] + ([column.item] if column.item is not None else [])
    return all(_can_cross(each, depth + 1) for each in inner)


class _Decoder:
    def __init__(self, decoder: Any, schema: StreamSchema) -> None:
        self._decoder = decoder
        self._schema = schema.arrow
        self._stream = schema.stream

    def decode(self, run: Run) -> NativeBatch | None:
        if run.stream != self._stream or not isinstance(run.data, bytes):
            return None
        found = self._decoder.decode(run.data, len(run.lines))
        if isinstance(found, str):
            _logger.debug("A run of stream %s goes by rows: %s", self._stream, found)
            return None
        record, extracted, versions, unknown, large = found
        batch = pa.record_batch(record, schema=self._schema)
        return NativeBatch(
            batch,
            None if extracted is None else pa.array(extracted),
            None if versions is None else pa.array(versions),
            Counter(dict(unknown)),
            frozenset(large),
        )


def _node(column: ColumnType) -> tuple[str, list[tuple[str, bool, bool, Any]], Any, bool]:
    """A node as the extension takes it: kind, members, item, closed; a member: name, required, nullable, node."""
    members = [(each.name, each.required, each.type.nullable, _node(each.type)) for each in column.fields]
    return column.kind.value, members, None if column.item is None else _node(column.item), column.closed
