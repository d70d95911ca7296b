"""Record batches of BATCH files into a stream's columns: as they are where the types say so, by way of JSON elsewhere.

What a column becomes is by definition what its rows would become as RECORD messages: written as JSON by
`melisma.arrow.encode` and read by the row path. A column whose Arrow type is the stream's own, or one whose safe cast
gives the same, takes no such way; a property test holds the two against each other.

In columns a null and a missing value look alike. So a null breaks the schema only where the value is required and
may not be null.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from melisma.arrow.decode import Decoded, RunDecoder
from melisma.arrow.encode import json_lines
from melisma.arrow.types import ColumnType, Field, Kind, StreamSchema
from melisma.arrow.values import FIRST_US, LAST_US
from melisma.errors import BadFile, BadRecord
from melisma.target.batch_lines import Wrapping
from melisma.wire.framing import Run

__all__ = ["ColumnDecoder", "as_run"]

_DAY_US = 86_400_000_000
_UTC = pa.timestamp("us", "UTC")
_NOT_FINITE = "is NaN or infinite, which JSON has no number for"


class _ByJson(Exception):
    """The column has to go by way of JSON."""


class ColumnDecoder:
    """Decodes the record batches of one stream.

    Args:
        decoder: the stream's decoder: its schema, and the constraints that rows are held to.
        validate: hold the schema's constraints.
        on_unknown_field: see `RunDecoder`.
        ignored: top-level columns that are passed over in silence.
        envelope: whether `time_extracted` and `version` are wanted.
    """

    def __init__(
        self,
        decoder: RunDecoder,
        *,
        validate: bool,
        on_unknown_field: str,
        ignored: frozenset[str] = frozenset(),
        envelope: bool = False,
    ) -> None:
        self._envelope = envelope
        self._decoder, self._schema = decoder, decoder.schema
        self._validate, self._unknown, self._ignored = validate, on_unknown_field, ignored
        self._by_json: dict[tuple[str, ...], RunDecoder] = {}

    def decode(self, batch: pa.RecordBatch, lines: Sequence[int], wrapping: Wrapping) -> Decoded:
        """Decode a batch whose content is known to be valid Arrow.

        Args:
            batch: the rows, of any Arrow types.
            lines: the number of each row in its file, for messages.
            wrapping: what the BATCH message says of all its records.

        Raises:
            BadFile: two columns have one name, or none is of the stream.
        """
        names, rows = batch.schema.names, batch.num_rows
        columns = dict(zip(names, batch.columns, strict=True))
        if len(columns) < len(names):
            raise BadFile("two of its columns have the same name", stream=self._schema.stream, fix="Mend the tap")
        known = {each.name for each in self._schema.fields}
        if not columns.keys() & known:
            rule = "none of its columns is in the stream's schema"
            raise BadFile(rule, stream=self._schema.stream, fix="Mend the tap")
        faults: dict[int, tuple[str, str]] = {}
        unknown = self._unknown_columns({name: columns[name] for name in names if name not in known}, faults)
        arrays: dict[str, pa.Array] = {}
        for each in self._schema.fields:
            if each.name not in columns:
                arrays[each.name] = pa.nulls(rows, each.type.arrow)
                continue
            array = _plain(columns[each.name])
            if each.type.kind is Kind.NUMBER and pa.types.is_floating(array.type):
                self._hold_finite(each.name, array, faults)
            with contextlib.suppress(_ByJson, pa.ArrowInvalid, pa.ArrowNotImplementedError):
                arrays[each.name] = _fast(array, each.type, drop=self._unknown == "drop")
        slow = [each for each in self._schema.fields if each.name not in arrays]
        by_json = self._decode_json(slow, columns, lines) if slow else None
        bad = {row: BadRecord(rule, **self._at(name, lines[row])) for row, (name, rule) in faults.items()}
        if by_json is not None:
            bad = {**dict(by_json.bad), **bad}
            unknown += by_json.unknown
        kept = None
        if bad:
            mask = pa.array([row not in bad for row in range(rows)])
            kept = [row for row in range(rows) if row not in bad]
            arrays = {name: array.filter(mask) for name, array in arrays.items()}
        if by_json is not None:
            arrays.update(self._json_columns(by_json, bad, rows))
        ordered = [arrays[each.name] for each in self._schema.fields]
        decoded = Decoded(pa.RecordBatch.from_arrays(ordered, schema=self._schema.arrow), unknown=unknown)
        decoded.bad = sorted(bad.items())
        if self._envelope:
            decoded.extracted, decoded.versions = wrapping.columns(decoded.batch.num_rows)
        self._decoder.hold(decoded, lines, kept)
        return decoded

    def _unknown_columns(self, columns: dict[str, pa.Array], faults: dict[int, tuple[str, str]]) -> Counter[str]:
        counts: Counter[str] = Counter()
        forbidden = self._unknown == "fail" or (self._validate and self._schema.root.closed)
        for name, array in columns.items():
            valid = len(array) - array.null_count
            if name in self._ignored or self._unknown == "drop" or not valid:
                continue
            if forbidden:
                for row in pc.indices_nonzero(array.is_valid()).to_pylist():
                    faults.setdefault(row, (name, "is not in the schema"))
            else:
                counts[name] += valid
        return counts

    def _hold_finite(self, name: str, array: pa.Array, faults: dict[int, tuple[str, str]]) -> None:
        if array.null_count < len(array) and not pc.all(pc.is_finite(array)).as_py():
            for row in pc.indices_nonzero(pc.invert(pc.is_finite(array)).fill_null(False)).to_pylist():
                faults.setdefault(row, (name, _NOT_FINITE))

    def _decode_json(self, fields: Sequence[Field], columns: dict[str, pa.Array], lines: Sequence[int]) -> Decoded:
        names = tuple(each.name for each in fields)
        decoder = self._by_json.get(names)
        if decoder is None:
            relaxed = tuple(_relaxed(each) for each in fields)
            struct = pa.struct([(each.name, each.type.arrow) for each in relaxed])
            root = replace(self._schema.root, arrow=struct, fields=relaxed, closed=False)
            schema = StreamSchema(self._schema.stream, root, (), self._schema.json_schema)
            decoder = RunDecoder(schema, validate=False, on_unknown_field=self._unknown)
            self._by_json[names] = decoder
        not_finite: Counter[str] = Counter()
        chosen = pa.record_batch([columns[name] for name in names], names=list(names))
        try:
            text = json_lines(chosen, stream=self._schema.stream, not_finite=not_finite)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise BadFile("a column cannot be read", stream=self._schema.stream, fix="Mend the tap") from error
        nested = [name for name in not_finite if not pa.types.is_floating(_plain(columns[name]).type)]
        if nested:
            raise BadRecord(f"holds a number that {_NOT_FINITE}", stream=self._schema.stream, column=nested[0])
        return decoder.decode(Wrapping(self._schema.stream).run(text, lines))

    def _json_columns(self, decoded: Decoded, bad: dict[int, BadRecord], rows: int) -> dict[str, pa.Array]:
        missed = {row for row, _ in decoded.bad}
        mask = pa.array([row not in bad for row in range(rows) if row not in missed], pa.bool_())
        batch = decoded.batch.filter(mask) if len(bad) > len(missed) else decoded.batch
        return dict(zip(batch.schema.names, batch.columns, strict=True))

    def _at(self, column: str, line: int) -> dict[str, Any]:
        return {"stream": self._schema.stream, "column": column, "line": line}


def as_run(batch: pa.RecordBatch, lines: Sequence[int], wrapping: Wrapping) -> Run:
    """The rows as RECORD lines, for stream maps and dead letters."""
    return wrapping.run(json_lines(batch, stream=wrapping.stream), lines)


def _plain(array: pa.Array) -> pa.Array:
    """Without extension types, dictionaries, and, for nested ones, without an offset."""
    if isinstance(array.type, pa.BaseExtensionType):
        return _plain(array.storage)
    if pa.types.is_dictionary(array.type):
        return _plain(array.dictionary_decode())
    if pa.types.is_nested(array.type) and array.offset:
        return array.take(pa.array(range(len(array)), pa.int64()))
    return array


def _fast(array: pa.Array, column: ColumnType, *, drop: bool) -> pa.Array:
    """The array as the column's own type.

    Args:
        array: as `_plain` gives it, or a child of one.
        column: what it becomes.
        drop: members that the schema does not name may go unseen.

    Raises:
        _ByJson: no cast is known to give what the row path gives.
        pa.ArrowInvalid: a value does not fit; the row path says which.
    """
    types, arrow, kind = pa.types, array.type, column.kind
    if types.is_null(arrow):
        return pa.nulls(len(array), column.arrow)
    if kind is Kind.STRUCT and types.is_struct(arrow):
        return _fast_struct(array, column, drop=drop)
    if kind is Kind.LIST and (types.is_list(arrow) or types.is_large_list(arrow)) and not array.offset:
        return _fast_list(array, column, drop=drop)
    if kind is Kind.TIMESTAMP and types.is_timestamp(arrow):
        utc = array if arrow.tz == "UTC" else array.cast(pa.timestamp(arrow.unit, "UTC"))
        return _within(utc.cast(_UTC), pa.int64(), FIRST_US, LAST_US)
    if kind is Kind.DATE and types.is_date32(arrow):
        return _within(array, pa.int32(), FIRST_US // _DAY_US, LAST_US // _DAY_US)
    if kind is Kind.TIME and types.is_time(arrow):
        return _within(array.cast(column.arrow), pa.int64(), 0, _DAY_US - 1)
    if _casts(arrow, column):
        return array if arrow == column.arrow else array.cast(column.arrow)
    raise _ByJson


def _casts(arrow: pa.DataType, column: ColumnType) -> bool:
    """Whether a safe cast gives what JSON gives, or fails."""
    types = pa.types
    match column.kind:
        case Kind.BOOLEAN:
            return bool(types.is_boolean(arrow))
        case Kind.INTEGER:
            return bool(types.is_integer(arrow))
        case Kind.NUMBER:  # a float32 is written with the fewest digits, and its nearest double is another number
            return bool(types.is_float64(arrow) or types.is_integer(arrow))
        case Kind.DECIMAL:
            return bool(types.is_decimal128(arrow) or types.is_integer(arrow))
        case Kind.STRING:
            return bool(types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow))
        case Kind.BINARY:
            return bool(types.is_binary(arrow) or types.is_large_binary(arrow) or types.is_binary_view(arrow))
        case _:
            return False


def _fast_struct(array: pa.StructArray, column: ColumnType, *, drop: bool) -> pa.Array:
    names = [array.type.field(index).name for index in range(array.type.num_fields)]
    known = {each.name for each in column.fields}
    if len(set(names)) < len(names) or not (drop or known.issuperset(names)):
        raise _ByJson
    children = dict(zip(names, array.flatten(), strict=True))
    members = []
    for each in column.fields:
        child = children.get(each.name)
        if child is None:
            members.append(pa.nulls(len(array), each.type.arrow))
            continue
        child = _plain(child)
        _refuse_not_finite(child)
        members.append(_fast(child, each.type, drop=drop))
    nulls = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays(members, fields=list(column.arrow), mask=nulls)


def _fast_list(array: pa.Array, column: ColumnType, *, drop: bool) -> pa.Array:
    values = _plain(array.values)
    _refuse_not_finite(values)
    items = _fast(values, column.items, drop=drop)
    if array.type == column.arrow and items is array.values:
        return array
    nulls = array.is_null() if array.null_count else None
    return pa.ListArray.from_arrays(array.offsets.cast(pa.int32()), items, type=column.arrow, mask=nulls)


def _refuse_not_finite(array: pa.Array) -> None:
    if pa.types.is_floating(array.type) and array.null_count < len(array) and not pc.all(pc.is_finite(array)).as_py():
        raise _ByJson


def _within(array: pa.Array, integers: pa.DataType, low: int, high: int) -> pa.Array:
    if array.null_count < len(array):
        ends = pc.min_max(array.view(integers))
        if ends["min"].as_py() < low or ends["max"].as_py() > high:
            raise _ByJson
    return array


def _relaxed(field: Field) -> Field:
    """The field with nothing required: what may not be null is held afterwards, on the whole batch."""
    return Field(field.name, _relaxed_type(field.type))


def _relaxed_type(column: ColumnType) -> ColumnType:
    item = _relaxed_type(column.item) if column.item is not None else None
    return replace(column, nullable=True, fields=tuple(_relaxed(each) for each in column.fields), item=item)
