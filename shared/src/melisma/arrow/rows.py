"""The exact row path: one record at a time, every value looked at. It is the truth that the block path must meet.

Values come from msgspec with `float_hook=Decimal`, so that no digit is lost before the column's type is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from melisma.arrow.types import Field, StreamSchema
from melisma.arrow.values import Misfit, Reader, Unknown, hold_null, reader
from melisma.errors import BadMessage, BadRecord
from melisma.wire.messages import UNREADABLE, envelope, unreadable

__all__ = ["RecordLine", "Rows", "decode_lines", "rows_to_batch"]


class RecordLine(msgspec.Struct):
    """A RECORD message. `record` is None where the line has none."""

    type: str
    stream: str
    record: dict[str, Any] | None = None
    time_extracted: Any = None
    version: Any = None


@dataclass(slots=True)
class Rows:
    """What became of some records.

    Attributes:
        batch: the records that fit, in order, with the stream's Arrow schema.
        kept: for each row of `batch`, which record it was, counted from 0.
        misfits: number and error of each record that does not fit, in order.
        unknown: dotted name of each member that the schema does not name -> how often it held a value.
    """

    batch: pa.RecordBatch
    kept: list[int]
    misfits: list[tuple[int, BadRecord]] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)


_records = msgspec.json.Decoder(RecordLine, float_hook=Decimal)


def decode_lines(data: bytes, stream: str, lines: Sequence[int]) -> list[RecordLine]:
    """Parse RECORD lines of one stream.

    Raises:
        BadMessage: a line is not a RECORD of this stream after all.
    """
    found = []
    for number, line in zip(lines, data.split(b"\n"), strict=False):
        try:
            message = _records.decode(line)
        except msgspec.ValidationError as error:
            envelope(line, number)  # says what is wrong with the line as a whole, if that is it
            if "$.record" in str(error) and "$.record`" not in str(error):
                raise unreadable(error, line, number) from error  # it is inside the record
            rule = 'has a "record" that is not an object' if "$.record" in str(error) else "is not a RECORD message"
            raise BadMessage(rule, stream=stream, line=number, fix="Mend the tap") from error
        except UNREADABLE as error:
            raise unreadable(error, line, number) from error
        if message.stream != stream or message.type != "RECORD":
            raise BadMessage('names "type" or "stream" twice', stream=stream, line=number, fix="Mend the tap")
        if message.record is None:
            raise BadMessage('is a RECORD message without "record"', stream=stream, line=number, fix="Mend the tap")
        found.append(message)
    return found


def rows_to_batch(
    records: Iterable[dict[str, Any]],
    schema: StreamSchema,
    lines: Sequence[int],
    *,
    validate: bool,
    unknown: Unknown,
    ignored: frozenset[str] = frozenset(),
) -> Rows:
    """Turn records into columns, value by value.

    Args:
        records: decoded records; they are not changed.
        schema: the columns.
        lines: the input's line of each record, for messages.
        validate: hold nulls and missing members to the schema.
        unknown: what becomes of members that the schema does not name.
        ignored: top-level members that are passed over in silence.
    """
    names = {each.name for each in schema.fields} | ignored
    columns: list[tuple[Field, Reader, list[Any]]] = [
        (each, reader(each.type, unknown, hold=validate, path=f"{each.name}."), []) for each in schema.fields
    ]
    kept: list[int] = []
    misfits: list[tuple[int, BadRecord]] = []
    for row, record in enumerate(records):
        name = ""
        converted: list[Any] = []
        try:
            if not record.keys() <= names:
                for name in record:
                    if name not in names:
                        unknown.meet("", name, record[name], closed=schema.root.closed)
            for each, read, _ in columns:
                name = each.name
                value = record.get(name)
                if value is not None:
                    converted.append(read(value))
                else:
                    if validate:
                        hold_null(each, missing=name not in record)
                    converted.append(None)
        except Misfit as misfit:
            column = name + misfit.path
            error = BadRecord(misfit.rule, stream=schema.stream, column=column, line=lines[row], fix=misfit.fix)
            misfits.append((row, error))
            continue
        for (_, _, values), value in zip(columns, converted, strict=True):
            values.append(value)
        kept.append(row)
    return Rows(_batch([values for *_, values in columns], schema.arrow, len(kept)), kept, misfits, unknown.counts)


def _batch(columns: list[list[Any]], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    if not columns:  # a batch without columns still has rows
        return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, type=pa.struct([])))
    arrays = [pa.array(values, type=each.type) for values, each in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
