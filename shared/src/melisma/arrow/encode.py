"""Record batches as blocks of RECORD lines.

The rows are written by `melisma-native` where it is installed, and otherwise, or where it leaves a batch alone, by
arrow-rs (arro3), byte for byte the same: decimals as exact numbers, timestamps with `Z`, dates and times as ISO 8601,
uint64 whole, floats as the shortest text that reads back the same. What it writes otherwise than Singer needs is
brought into such a type first: binary becomes base64 text, a naive timestamp is UTC, extension types their storage.
JSON has no NaN and no infinity: both become null, and are counted.
"""

from __future__ import annotations

import base64
import datetime as dt
import io
import json
from collections import Counter
from typing import Any

import arro3.io
import pyarrow as pa
import pyarrow.compute as pc

from melisma.errors import BadRecord, BadSchema
from melisma.wire.extension import native_extension

__all__ = ["RecordEncoder", "json_lines"]

_US = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_FIRST_SECOND = -62_135_596_800  # 0001-01-01T00:00:00Z
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
_YEARS = "a time lies outside the years 1 to 9999, which JSON's date formats cannot say"


class RecordEncoder:
    """Writes the batches of one stream as RECORD lines.

    Attributes:
        not_finite: column -> how many NaNs and infinities were written as null so far.
    """

    def __init__(self, stream: str, version: int | None = None) -> None:
        self.stream = stream
        self.not_finite: Counter[str] = Counter()
        self._head: bytes = b'{"type":"RECORD","stream":%s,"record":' % json.dumps(stream).encode()
        self._version = b"" if version is None else b',"version":%d' % version
        self._native = _native_encoder()

    def encode(self, batch: pa.RecordBatch, time_extracted: dt.datetime) -> bytes | memoryview:
        """The batch's rows as whole RECORD lines; columns and members keep their order.

        Fastest with some thousand rows, which the processor's cache holds between the steps.

        Args:
            batch: the rows; a column whose name the stream does not want must be gone already.
            time_extracted: an aware time, the same for all rows.

        Raises:
            BadSchema: a column's type has no JSON form.
            BadRecord: a time lies outside the years 1 to 9999, or is no time of a day.
        """
        if batch.num_rows == 0:
            return b""
        text = time_extracted.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        end = b'%s,"time_extracted":"%s"}\n' % (self._version, text.encode())
        lines = _natively(self._native, batch, self._head, end, self.not_finite)
        if lines is not None:
            return lines
        between = end + self._head
        rows = _json_lines(batch, self._head, stream=self.stream, not_finite=self.not_finite)
        # In JSON text a line break can only stand between two rows. Putting the constant part of the message
        # around it here costs a fifth of having arrow-rs write it for each row. The head that then stands after the
        # last row is left out without a copy of the block.
        return memoryview(rows.replace(b"\n", between))[: -len(self._head)]


def json_lines(batch: pa.RecordBatch, *, stream: str, not_finite: Counter[str] | None = None) -> bytes:
    """The batch's rows as JSON objects, one on each line, with every null written out."""
    counts: Counter[str] = Counter() if not_finite is None else not_finite
    lines = _natively(_native_encoder(), batch, b"", b"\n", counts)
    return _json_lines(batch, b"", stream=stream, not_finite=counts) if lines is None else bytes(lines)


def _native_encoder() -> Any | None:
    native = native_extension()
    return None if native is None else native.Encoder()


def _natively(
    encoder: Any | None, batch: pa.RecordBatch, head: bytes, end: bytes, not_finite: Counter[str]
) -> memoryview | None:
    """The lines by the native encoder; None where it leaves them to arrow-rs, as it does with whatever is an error."""
    if encoder is None or batch.num_columns == 0:
        return None
    found = encoder.encode(batch, head, end)
    if found is None:
        return None
    lines, lost = found
    for column, count in lost:
        not_finite[batch.schema.names[column]] += count
    return memoryview(lines)


def _json_lines(batch: pa.RecordBatch, lead: bytes, *, stream: str, not_finite: Counter[str]) -> bytes:
    if batch.num_columns == 0:
        return lead + b"{}\n" * int(batch.num_rows)
    columns = zip(batch.schema.names, batch.columns, strict=True)
    plain = [_Column(stream, name, not_finite).plain(array) for name, array in columns]
    output = io.BytesIO()
    output.write(lead)
    arro3.io.write_ndjson(pa.record_batch(plain, names=batch.schema.names), output, explicit_nulls=True)
    return output.getvalue()


class _Column:
    """Brings one column into types that arrow-rs writes as Singer wants them."""

    def __init__(self, stream: str, name: str, not_finite: Counter[str]) -> None:
        self._stream, self._name, self._not_finite = stream, name, not_finite

    def plain(self, array: pa.Array) -> pa.Array:
        """The same values in a type with a JSON form; the array itself where nothing has to change."""
        kind = array.type
        if isinstance(kind, pa.BaseExtensionType):
            return self.plain(array.storage)
        if pa.types.is_dictionary(kind):
            return self.plain(array.dictionary_decode())
        if pa.types.is_run_end_encoded(kind):
            return self.plain(pc.run_end_decode(array))
        if pa.types.is_floating(kind):
            return self._floating(array)
        if pa.types.is_timestamp(kind):
            return self._timestamp(array)
        if pa.types.is_date(kind):
            return self._date(array)
        if pa.types.is_time(kind):
            return self._time(array)
        if _is_binary(kind):
            encode = base64.b64encode
            return pa.array([None if v is None else encode(v).decode() for v in array.to_pylist()], pa.string())
        if pa.types.is_nested(kind):
            return array if _as_it_is(kind) else self._nested(array)
        if pa.types.is_interval(kind):
            raise BadSchema(
                f"the Arrow type {kind} has no JSON form", stream=self._stream, column=self._name, fix="Deselect it"
            )
        return array

    def _floating(self, array: pa.Array) -> pa.Array:
        if pa.types.is_float16(array.type):
            array = array.cast(pa.float32())
        finite = pc.sum(pc.is_finite(array)).as_py() or 0
        lost = len(array) - array.null_count - finite
        if lost:
            self._not_finite[self._name] += lost
        return array

    def _timestamp(self, array: pa.Array) -> pa.Array:
        unit = array.type.unit
        self._within(array, _FIRST_SECOND * _US[unit], _LAST_SECOND * _US[unit] + _US[unit] - 1, pa.int64())
        return array if array.type.tz == "UTC" else array.cast(pa.timestamp(unit, "UTC"))

    def _date(self, array: pa.Array) -> pa.Array:
        days = array.cast(pa.date32())
        self._within(days, _FIRST_SECOND // 86_400, _LAST_SECOND // 86_400, pa.int32())
        return days

    def _time(self, array: pa.Array) -> pa.Array:
        integers = pa.int32() if pa.types.is_time32(array.type) else pa.int64()
        rule = "a time of day is not before 24:00:00, which JSON's time format cannot say"
        self._within(array, 0, 86_400 * _US[array.type.unit] - 1, integers, rule)
        return array

    def _within(self, array: pa.Array, low: int, high: int, integers: pa.DataType, rule: str = _YEARS) -> None:
        bounds = pc.min_max(array.view(integers)).as_py()
        if bounds["min"] is not None and (bounds["min"] < low or bounds["max"] > high):
            raise BadRecord(
                rule,
                stream=self._stream,
                column=self._name,
                fix="Mend the source, or deselect the column",
            )

    def _nested(self, array: pa.Array) -> pa.Array:
        kind = array.type
        if pa.types.is_struct(kind):
            children = [self.plain(child) for child in array.flatten()]
            fields = [pa.field(kind.field(i).name, child.type) for i, child in enumerate(children)]
            if not children:
                return array
            return pa.StructArray.from_arrays(children, fields=fields, mask=_nulls(array))
        if pa.types.is_map(kind):
            return self._map(array)
        if pa.types.is_union(kind):
            raise BadSchema(
                f"the Arrow type {kind} has no JSON form", stream=self._stream, column=self._name, fix="Deselect it"
            )
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        values = self.plain(array.flatten())
        return pa.LargeListArray.from_arrays(_offsets(lengths), values, mask=_nulls(array))

    def _map(self, array: pa.Array) -> pa.Array:
        # What a null hides, and what lies beside a slice, is neither looked at nor counted.
        compact = array.take(pa.array(range(len(array)), pa.int64()))
        keys, items = self.plain(compact.keys), self.plain(compact.items)
        if not _is_text(keys.type):
            keys = keys.cast(pa.string())
        # `from_arrays` for maps takes no mask: a null map is a null offset.
        nulls = _nulls(compact)
        offsets = pc.if_else(nulls, None, compact.offsets.slice(0, len(compact))) if nulls is not None else None
        joined = (
            compact.offsets if offsets is None else pa.concat_arrays([offsets, compact.offsets.slice(len(compact))])
        )
        return pa.MapArray.from_arrays(joined, keys, items)


def _as_it_is(kind: pa.DataType) -> bool:
    """Whether arrow-rs writes every value of the type, at any depth, as it should stand."""
    if pa.types.is_map(kind):
        return _is_text(kind.key_type) and _as_it_is(kind.item_type)
    if pa.types.is_struct(kind):
        # arrow-rs panics on a slice of a struct (or fixed-size list) of structs, unless each level is sliced itself.
        members = [kind.field(i).type for i in range(kind.num_fields)]
        return not any(_is_fixed(member) for member in members) and all(_as_it_is(member) for member in members)
    if pa.types.is_fixed_size_list(kind) and _is_fixed(kind.value_type):
        return False
    if pa.types.is_nested(kind) and not pa.types.is_union(kind) and not pa.types.is_run_end_encoded(kind):
        return _as_it_is(kind.value_type)
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
        or pa.types.is_decimal(kind)
        or _is_text(kind)
    )


def _is_fixed(kind: pa.DataType) -> bool:
    """Whether the type's children are as long as itself, or a multiple, so that a slice of it cuts them too."""
    return bool(pa.types.is_struct(kind) or pa.types.is_fixed_size_list(kind))


def _nulls(array: pa.Array) -> Any:
    return array.is_null() if array.null_count else None


def _offsets(lengths: pa.Array) -> pa.Array:
    ends = pc.cumulative_sum(lengths.cast(pa.int64()))
    return pa.concat_arrays([pa.array([0], pa.int64()), ends])


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
