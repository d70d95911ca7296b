"""RECORD lines of one stream into a record batch: a whole block at once where that gives exactly what rows give.

The block path hands the lines, envelopes and all, to pyarrow's JSON reader with an explicit schema. The reader is
strict (a wrong type, a fraction in an integer, a cut decimal, a key named twice all raise), and where it is not, a
check after it finds out. Whatever raises or fails a check goes through the row path (`melisma.arrow.rows`), which
either gives the same batch or names the record at fault. Where `melisma-native` is installed, it takes the place of
the block path (`melisma.arrow.native`).

Why one line is one row: every line begins with `{` and ends with `}`, and there are as many rows as lines. Between
`}` and `{` nothing but the end of one object and the start of the next can stand, so no row spans two lines.
"""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from melisma.arrow.native import native_decoder
from melisma.arrow.rows import RecordLine, decode_lines, rows_to_batch
from melisma.arrow.types import ColumnType, Field, Kind, StreamSchema
from melisma.arrow.validate import Validator
from melisma.arrow.values import FIRST_US, LAST_US, Misfit, Unknown, timestamp_us
from melisma.errors import BadRecord
from melisma.wire.framing import Run

__all__ = ["Decoded", "RunDecoder"]

TIMESTAMP = pa.timestamp("us", "UTC")
_DEEP = b"[" * 64
"""Lists nested deeper than any column: the reader's time to infer their type grows with the square of the depth."""


@dataclass(slots=True)
class Decoded:
    """What a run became.

    Attributes:
        batch: the good records, in order.
        extracted: each one's `time_extracted`, timestamp[us, UTC]; None unless it was asked for.
        versions: each one's `version`, int64; None unless it was asked for.
        bad: number within the run (from 0) and error of each bad record, in order.
        unknown: dotted name of each member that the schema does not name -> how many values it held.
        discarded: column -> how many of its values the stream's contract leaves out.
        by_block: whether the block path or the native decoder gave it.
        large: the columns that hold an integer beyond 2^53; None where nobody looked.
    """

    batch: pa.RecordBatch
    extracted: pa.Array | None = None
    versions: pa.Array | None = None
    bad: list[tuple[int, BadRecord]] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    discarded: Counter[str] = field(default_factory=Counter)
    by_block: bool = False
    large: frozenset[str] | None = None

    def keep(self, mask: pa.Array) -> None:
        """Take out the rows where the mask is false."""
        self.batch, self.large = self.batch.filter(mask), None
        if self.extracted is not None and self.versions is not None:
            self.extracted, self.versions = self.extracted.filter(mask), self.versions.filter(mask)

    def release(self) -> None:
        """Forget the rows: somebody else has them. What is to be said of them stays."""
        self.batch, self.extracted, self.versions = _NO_ROWS, None, None


_NO_ROWS = pa.RecordBatch.from_arrays([], names=[])


class _Inexact(Exception):
    """The block path cannot give what the row path gives; go there."""


class RunDecoder:
    """Decodes the runs of one stream.

    Args:
        schema: the stream's columns.
        validate: hold every constraint of the schema, not only the types.
        on_unknown_field: `warn` counts members that the schema does not name, `fail` makes their record bad, `drop`
            does not look.
        ignored: top-level members that are passed over in silence.
        envelope: whether `time_extracted` and `version` are wanted.
        by_block: whether the block path or the native decoder may be taken; False is for tests and for finding faults.
    """

    def __init__(
        self,
        schema: StreamSchema,
        *,
        validate: bool = True,
        on_unknown_field: str = "warn",
        ignored: frozenset[str] = frozenset(),
        envelope: bool = False,
        by_block: bool = True,
    ) -> None:
        self.schema = schema
        self._validate = validate
        self._unknown = on_unknown_field
        self._ignored = ignored
        self._envelope = envelope
        self._validator = Validator(schema, constraints=validate)
        self._names = {each.name for each in schema.fields}
        self._native = self._parse = None
        if by_block:
            self._native = native_decoder(
                schema, validate=validate, on_unknown_field=on_unknown_field, ignored=ignored, envelope=envelope
            )
            if self._native is None:
                self._parse = _parse_options(schema, envelope, on_unknown_field)

    def decode(self, run: Run) -> Decoded:
        """Decode a run.

        Raises:
            BadMessage: a line is not a RECORD of this stream.
        """
        if self._native is not None:
            found = self._native.decode(run)
            if found is None:
                return self._by_row(run)
            decoded = Decoded(
                found.batch,
                found.extracted,
                found.versions,
                unknown=found.unknown,
                by_block=True,
                large=found.large,
            )
            self.hold(decoded, run.lines, None)
            return decoded
        if self._parse is not None:
            try:
                return self._by_block(run)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, RecursionError, _Inexact):
                pass
        return self._by_row(run)

    def by_messages(
        self, messages: Sequence[RecordLine], records: Sequence[dict[str, Any]], lines: Sequence[int]
    ) -> Decoded:
        """The row path, for records that stream maps may have changed.

        Args:
            messages: the RECORD messages that they came with.
            records: the records.
            lines: the line of each.
        """
        rows = rows_to_batch(
            records,
            self.schema,
            lines,
            validate=self._validate,
            unknown=Unknown(forbid=self._unknown == "fail", hold_closed=self._validate and self._unknown != "drop"),
            ignored=self._ignored,
        )
        decoded = Decoded(rows.batch, bad=rows.misfits)
        if self._unknown != "drop":
            decoded.unknown = rows.unknown
        if self._envelope:
            kept = [messages[row] for row in rows.kept]
            decoded.extracted = pa.array([_moment(each.time_extracted) for each in kept], TIMESTAMP)
            decoded.versions = pa.array([_version(each.version) for each in kept], pa.int64())
        self.hold(decoded, lines, rows.kept)
        return decoded

    def _by_row(self, run: Run) -> Decoded:
        messages = decode_lines(run.data, run.stream, run.lines)
        return self.by_messages(messages, [each.record or {} for each in messages], run.lines)

    def _by_block(self, run: Run) -> Decoded:
        data, count = run.data, len(run.lines)
        if not run.closed or _DEEP in data or not _is_utf8(data):
            raise _Inexact
        table = pj.read_json(
            pa.BufferReader(data),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=self._parse,
        )
        if table.num_rows != count:
            raise _Inexact
        for name, wanted in (("type", "RECORD"), ("stream", run.stream)):
            column = table.column(name)
            if column.null_count or not pc.all(pc.equal(column, wanted)).as_py():
                raise _Inexact
        record = _single(table.column("record"))
        if record.null_count:
            raise _Inexact
        decoded = Decoded(self._columns(record, b"null" in data), by_block=True)
        if self._unknown != "drop":
            decoded.unknown = self._count_unknown(record)
        if self._envelope:
            decoded.extracted = _in_range(_single(table.column("time_extracted")))
            decoded.versions = _single(table.column("version"))
        self.hold(decoded, run.lines, None)
        return decoded

    def _columns(self, record: pa.StructArray, explicit: bool) -> pa.RecordBatch:
        members = dict(zip((each.name for each in record.type), record.flatten(), strict=True))
        arrays = [_exact(members[each.name], each.type) for each in self.schema.fields]
        if self._validate and _ambiguous_null(self.schema.fields, arrays, explicit):
            raise _Inexact
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema.arrow)

    def _count_unknown(self, record: pa.StructArray) -> Counter[str]:
        counts: Counter[str] = Counter()
        _count(record, self.schema.root, "", counts, self._ignored)
        if counts and self._unknown == "fail":
            raise _Inexact
        if self._validate and counts.pop(_CLOSED, 0):
            raise _Inexact
        counts.pop(_CLOSED, None)
        return +counts

    def hold(self, decoded: Decoded, lines: Sequence[int], kept: Sequence[int] | None) -> None:
        """Take out what breaks a constraint.

        Args:
            decoded: changed in place.
            lines: the line of each record that went into it.
            kept: which of them each row is; None where all are there.
        """
        faults = self._validator.faults(decoded.batch)
        if not faults:
            return
        keep = [True] * decoded.batch.num_rows
        for row, (column, rule) in faults.items():
            keep[row] = False
            record = row if kept is None else kept[row]
            error = BadRecord(rule, stream=self.schema.stream, column=column, line=lines[record])
            decoded.bad.append((record, error))
        decoded.bad.sort(key=lambda each: each[0])
        decoded.keep(pa.array(keep))


def _parse_options(schema: StreamSchema, envelope: bool, on_unknown_field: str) -> pj.ParseOptions | None:
    """What the JSON reader is told, or None where it cannot read the stream."""
    record = _read_as(schema.root)
    if record is None or not schema.fields:
        return None
    fields = [("type", pa.string()), ("stream", pa.string()), ("record", record)]
    # Not asked for, it is read as text, which costs less than letting the reader find out that it is a time.
    fields.append(("time_extracted", TIMESTAMP if envelope else pa.string()))
    if envelope:
        fields.append(("version", pa.int64()))
    unexpected = "ignore" if on_unknown_field == "drop" else "infer"
    return pj.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior=unexpected)


def _read_as(column: ColumnType) -> pa.DataType | None:
    """The type to ask the JSON reader for; None where it has none that keeps every value."""
    if column.kind in {Kind.JSON, Kind.MAP}:
        return None
    if column.kind in {Kind.DATE, Kind.TIME, Kind.BINARY}:
        return pa.string()
    if column.kind is Kind.STRUCT:
        members = [(each.name, _read_as(each.type)) for each in column.fields]
        if not members or any(member is None for _, member in members):
            return None
        return pa.struct(members)
    if column.kind is Kind.LIST:
        item = _read_as(column.items)
        return None if item is None else pa.list_(item)
    return column.arrow


def _exact(array: pa.Array, column: ColumnType) -> pa.Array:
    """What was read as the column's own type, after the checks that the reader does not make."""
    kind = column.kind
    if kind is Kind.NUMBER:
        # NaN and infinities, which are not JSON, and numerals beyond float64 are for the row path to refuse.
        if array.null_count < len(array) and not pc.all(pc.is_finite(array)).as_py():
            raise _Inexact
        return array
    if kind is Kind.TIMESTAMP:
        return _in_range(array)
    if kind is Kind.DECIMAL:
        return _decimals(array)
    if kind is Kind.DATE:
        return _dates(array)
    if kind is Kind.TIME:
        return _times(array)
    if kind is Kind.BINARY:
        return _from_base64(array)
    if kind is Kind.STRUCT and array.type == column.arrow:
        for index, each in enumerate(column.fields):
            _exact(array.field(index), each.type)
        return array
    if kind is Kind.STRUCT:
        members = dict(zip((each.name for each in array.type), array.flatten(), strict=True))
        children = [_exact(members[each.name], each.type) for each in column.fields]
        return pa.StructArray.from_arrays(children, fields=list(column.arrow), mask=_nulls(array))
    if kind is Kind.LIST and array.type != column.arrow:
        return _list_of(array, _exact(array.values, column.items), column.arrow)
    if kind is Kind.LIST:
        _exact(array.values, column.items)
    return array


def _list_of(array: pa.ListArray, values: pa.Array, arrow: pa.DataType) -> pa.Array:
    return pa.ListArray.from_arrays(array.offsets, values, type=arrow, mask=_nulls(array))


def _from_base64(array: pa.Array) -> pa.Array:
    try:
        return pa.array(
            [None if text is None else b64decode(text, validate=True) for text in array.to_pylist()], pa.binary()
        )
    except ValueError:
        raise _Inexact from None


def _nulls(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def _in_range(array: pa.Array) -> pa.Array:
    if array.null_count < len(array):
        ends = pc.min_max(array.cast(pa.int64()))
        if ends["min"].as_py() < FIRST_US or ends["max"].as_py() > LAST_US:
            raise _Inexact
    return array


def _dates(array: pa.Array) -> pa.Array:
    """By Arrow's cast, which is strict; year 0, which it takes, is for the row path to refuse."""
    found = array.cast(pa.date32())
    if found.null_count < len(found) and pc.min(found.cast(pa.int32())).as_py() * 86_400_000_000 < FIRST_US:
        raise _Inexact
    return found


def _times(array: pa.Array) -> pa.Array:
    """By way of a timestamp, since Arrow casts no text to a time; it would take a bare hour, rows do not."""
    if array.null_count < len(array) and pc.min(pc.binary_length(array)).as_py() < len("00:00"):
        raise _Inexact
    moments = pc.binary_join_element_wise("1970-01-01T", array, "").cast(pa.timestamp("us"))
    return moments.cast(pa.time64("us"))


def _decimals(array: pa.Array) -> pa.Array:
    """The JSON reader holds the scale but not the precision."""
    if array.null_count < len(array):
        ends, limit = pc.min_max(array), Decimal(10) ** (array.type.precision - array.type.scale)
        if ends["max"].as_py() >= limit or ends["min"].as_py() <= -limit:
            raise _Inexact
    return array


def _ambiguous_null(
    fields: tuple[Field, ...], arrays: Sequence[pa.Array], explicit: bool, within: pa.Array | None = None
) -> bool:
    """Whether a null breaks the schema, or may, depending on whether the member was null or missing.

    Args:
        fields: the members of an object.
        arrays: their values.
        explicit: whether the word null stands anywhere in the lines; if not, every null is a missing member.
        within: false where the object itself is null, so that its members' nulls say nothing.
    """
    for each, array in zip(fields, arrays, strict=True):
        if array.null_count and (each.required or (explicit and not each.type.nullable)):
            nulls = array.is_null()
            if pc.any(nulls if within is None else pc.and_(nulls, within)).as_py():
                return True
        column, values = each.type, array
        while column.kind is Kind.LIST:
            column, values = column.items, values.values
        if column.kind is Kind.STRUCT:
            members = [values.field(index) for index in range(len(column.fields))]
            valid = values.is_valid() if values.null_count else None
            if _ambiguous_null(column.fields, members, explicit, valid):
                return True
    return False


_CLOSED = "\0closed"


def _count(array: pa.Array, column: ColumnType, path: str, counts: Counter[str], ignored: frozenset[str]) -> None:
    """Count the values of members that the reader found beyond those it was told of."""
    if column.kind is Kind.LIST:
        _count(array.values, column.items, path, counts, frozenset())
    elif column.kind is Kind.STRUCT:
        known = {each.name: each for each in column.fields}
        for index, member in enumerate(array.type):
            child = array.field(index)
            if member.name in known:
                _count(child, known[member.name].type, f"{path}{member.name}.", counts, frozenset())
            elif member.name not in ignored:
                if column.closed:
                    counts[_CLOSED] += 1
                _refuse_not_json(child)
                # Present but null throughout still counts as met (0): `fail` must look at the rows.
                counts[f"{path}{member.name}"] += len(child) - child.null_count


def _refuse_not_json(array: pa.Array) -> None:
    """NaN and infinities are read by pyarrow but are not JSON; the row path refuses the line."""
    if pa.types.is_floating(array.type):
        if array.null_count < len(array) and not pc.all(pc.is_finite(array)).as_py():
            raise _Inexact
    elif pa.types.is_struct(array.type):
        for index in range(array.type.num_fields):
            _refuse_not_json(array.field(index))
    elif pa.types.is_list(array.type):
        _refuse_not_json(array.values)


def _single(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        str(data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _moment(value: object) -> int | None:
    """`time_extracted` as microseconds; what is not a date-time is left out, it is not the user's data."""
    try:
        return timestamp_us(value) if isinstance(value, str) else None
    except Misfit:
        return None


def _version(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None
