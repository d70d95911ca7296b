"""Arrow columns as Avro's binary encoding, a column at a time.

Each column becomes pieces: arrays of bytes with one value per row. Joined row by row they are the records, and what
the join has written is the body of a block, ready to be compressed. Nothing is done per value in Python.

A value that may be null is preceded by its choice: 0 for null, 2 for the type (the zigzag code of 1). Numbers are
zigzag codes in groups of seven bits, low ones first. Rows of a piece that are not `present` (their record is null)
get no bytes at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["encode_rows"]

_BYTES = pa.large_binary()
_EMPTY = pa.scalar(b"", _BYTES)

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def encode_rows(batch: pa.RecordBatch) -> tuple[memoryview, npt.NDArray[np.int64]]:
    """A batch's rows, one after the other, and where each begins; the last offset is the end."""
    pieces = _Pieces(batch.num_rows)
    for column in batch.columns:
        _add(column, None, pieces)
    return _parts(pieces.join())


class _Pieces:
    """What rows consist of, in order. Neighbours of known width are put together before they are cut to length."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._done: list[pa.Array] = []
        self._columns: list[Bytes] = []  # each with a row per row
        self._used: list[Mask] = []  # which bytes of it count

    def fixed(self, column: Bytes, used: Mask) -> None:
        """Bytes of which only some count."""
        self._columns.append(column)
        self._used.append(used)

    def variable(self, piece: pa.Array) -> None:
        """Bytes of any length; no nulls."""
        self._cut()
        self._done.append(piece)

    def join(self) -> pa.Array:
        """All of them, row by row."""
        self._cut()
        if not self._done:
            return pa.repeat(_EMPTY, self._rows)
        if len(self._done) == 1:
            return self._done[0]
        return pc.binary_join_element_wise(*self._done, _EMPTY)

    def _cut(self) -> None:
        if not self._columns:
            return
        columns = np.concatenate(self._columns, axis=1) if len(self._columns) > 1 else self._columns[0]
        used = np.concatenate(self._used, axis=1) if len(self._used) > 1 else self._used[0]
        self._columns, self._used = [], []
        self._done.append(_bytes_array(columns[used], _offsets(used.sum(axis=1))))


def _add(array: pa.Array, present: Mask | None, pieces: _Pieces) -> None:
    """Add a column's pieces.

    Args:
        array: the values.
        present: which rows have a value or null at all; None for all.
        pieces: added to.
    """
    kind, types = array.type, pa.types
    valid = _valid(array)
    if types.is_struct(kind):
        _add_choice(valid, present, pieces)
        for child in array.flatten():  # null where the record is
            _add(child, valid, pieces)
    elif types.is_list(kind) or types.is_map(kind):
        _add_items(array, valid, present, pieces)
    elif types.is_string(kind) or types.is_binary(kind):
        data = array.cast(pa.binary()).cast(_BYTES)
        if array.null_count:
            data = data.fill_null(b"")
        lengths = np.diff(_numbers(data.buffers()[1], np.int64, data.offset, len(data) + 1))
        _add_varints(lengths, valid, present, pieces)
        pieces.variable(data)
    elif types.is_decimal(kind) or types.is_uint64(kind):
        _add_decimals(array, valid, present, pieces)
    elif types.is_boolean(kind):
        values = array.fill_null(False).cast(pa.uint8())
        _add_fixed(_numbers(values.buffers()[1], np.uint8, values.offset, len(values))[:, None], valid, present, pieces)
    elif types.is_float64(kind):
        eight = _numbers(array.buffers()[1], np.uint8, array.offset * 8, len(array) * 8).reshape(-1, 8)
        _add_fixed(eight, valid, present, pieces)
    else:
        width = np.int32 if types.is_date32(kind) else np.int64
        values = _numbers(array.buffers()[1], width, array.offset, len(array)).astype(np.int64, copy=False)
        _add_varints(values, valid, present, pieces)


def _add_choice(valid: Mask, present: Mask | None, pieces: _Pieces) -> None:
    choice = np.where(valid, 2, 0).astype(np.uint8)[:, None]
    pieces.fixed(choice, np.ones_like(choice, np.bool_) if present is None else present[:, None])


def _add_fixed(data: Bytes, valid: Mask, present: Mask | None, pieces: _Pieces) -> None:
    """Values of one width."""
    _add_choice(valid, present, pieces)
    pieces.fixed(data, np.broadcast_to(valid[:, None], data.shape))


def _add_varints(values: npt.NDArray[np.int64], valid: Mask, present: Mask | None, pieces: _Pieces) -> None:
    data, used = _varints(values, valid)
    _add_choice(valid, present, pieces)
    pieces.fixed(data, used)


def _varints(values: npt.NDArray[np.int64], valid: Mask | None) -> tuple[Bytes, Mask]:
    """Numbers of variable length: their bytes, and which of them count; none where not `valid`."""
    code = ((values << np.int64(1)) ^ (values >> np.int64(63))).view(np.uint64)
    if valid is not None:
        code = np.where(valid, code, np.uint64(0))  # below a null there may be anything
    largest = int(code.max()) if len(code) else 0
    width = max(1, -(-largest.bit_length() // 7))
    data = np.empty((len(code), width), np.uint8)
    used = np.empty((len(code), width), np.bool_)
    used[:, 0] = True if valid is None else valid
    for index in range(width):
        data[:, index] = code & np.uint64(0x7F)
        code = code >> np.uint64(7)
        more = code != 0
        data[:, index] |= more.view(np.uint8) << np.uint8(7)
        if index + 1 < width:
            used[:, index + 1] = more
    return data, used


def _add_decimals(array: pa.Array, valid: Mask, present: Mask | None, pieces: _Pieces) -> None:
    """Two's complement, high byte first, in as few bytes as hold it, after their number."""
    if pa.types.is_uint64(array.type):
        array = array.cast(pa.decimal128(20, 0))
    low_first = _numbers(array.buffers()[1], np.uint8, array.offset * 16, len(array) * 16).reshape(-1, 16)
    data = np.where(valid[:, None], low_first[:, ::-1], np.uint8(0))
    sign = np.where(data[:, :1] >= 0x80, np.uint8(0xFF), np.uint8(0))
    magnitude = data ^ sign
    differs = magnitude != 0
    first = np.where(differs.any(axis=1), differs.argmax(axis=1), 15)
    # The first byte also says the sign: where its own top bit is taken, one more byte is needed.
    top = np.take_along_axis(magnitude, first[:, None], axis=1)[:, 0] >= 0x80
    lengths = 16 - first + top
    used = (np.arange(16) >= 16 - lengths[:, None]) & valid[:, None]
    _add_varints(lengths.astype(np.int64), valid, present, pieces)
    pieces.fixed(data, used)


def _add_items(array: pa.Array, valid: Mask, present: Mask | None, pieces: _Pieces) -> None:
    """An array or a map: one block of all its items, if there are any, and the empty block that ends it."""
    offsets = _numbers(array.buffers()[1], np.int32, array.offset, len(array) + 1).astype(np.int64)
    counts = np.diff(offsets)
    if counts[~valid].any():
        array = array.take(pa.array(np.arange(len(array))))  # nothing stands below its nulls then
        offsets = _numbers(array.buffers()[1], np.int32, array.offset, len(array) + 1).astype(np.int64)
        counts = np.diff(offsets)
    first, last = int(offsets[0]) if len(offsets) else 0, int(offsets[-1]) if len(offsets) else 0
    inner = _Pieces(last - first)
    if pa.types.is_map(array.type):
        _add_keys(array.keys.slice(first, last - first), inner)
        _add(array.items.slice(first, last - first), None, inner)
    else:
        _add(array.values.slice(first, last - first), None, inner)
    body, starts = _parts(inner.join())
    _add_varints(counts, valid, present, pieces)
    pieces.variable(_bytes_array(np.frombuffer(body, np.uint8), starts[offsets - first]))
    some = (counts > 0)[:, None]
    pieces.fixed(np.zeros_like(some, np.uint8), some)


def _add_keys(keys: pa.Array, pieces: _Pieces) -> None:
    data = keys.cast(pa.binary()).cast(_BYTES)
    lengths = np.diff(_numbers(data.buffers()[1], np.int64, data.offset, len(data) + 1))
    pieces.fixed(*_varints(lengths, None))
    pieces.variable(data)


def _parts(array: pa.Array) -> tuple[memoryview, npt.NDArray[np.int64]]:
    """An array's bytes, one value after the other, and where each begins and the last one ends."""
    offsets = _numbers(array.buffers()[1], np.int64, array.offset, len(array) + 1)
    buffer = array.buffers()[2]
    if buffer is None or not len(array):
        return memoryview(b""), np.zeros(len(array) + 1, np.int64)
    return memoryview(buffer)[int(offsets[0]) : int(offsets[-1])], offsets - offsets[0]


def _bytes_array(data: Bytes, offsets: npt.NDArray[np.int64]) -> pa.Array:
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.Array.from_buffers(_BYTES, len(offsets) - 1, buffers)


def _offsets(lengths: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _valid(array: pa.Array) -> Mask:
    if not array.null_count:
        return np.ones(len(array), np.bool_)
    bits = array.is_valid()
    packed = np.frombuffer(bits.buffers()[1], np.uint8)
    return np.unpackbits(packed, bitorder="little")[bits.offset : bits.offset + len(bits)].astype(np.bool_)


def _numbers(buffer: pa.Buffer | None, kind: Any, offset: int, count: int) -> npt.NDArray[Any]:
    """`count` numbers from `offset` of a buffer; zeros where there is none."""
    if buffer is None or not count:
        return np.zeros(count, kind)
    return np.frombuffer(buffer, kind, count, offset * np.dtype(kind).itemsize)
