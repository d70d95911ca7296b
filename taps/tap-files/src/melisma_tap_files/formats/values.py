"""What formats without a schema have in common: columns from sampled values, and rows from records of values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO, Protocol
from zoneinfo import ZoneInfo

import pyarrow as pa

from melisma.arrow.rows import rows_to_batch
from melisma.arrow.types import StreamSchema
from melisma.arrow.values import Unknown
from melisma.errors import BadFile
from melisma.formats.blocks import Place
from melisma.formats.shapes import Shape
from melisma_tap_files.formats.protocol import Rows, Wanted

__all__ = ["RecordReader", "ShapeSampler", "first_records", "read_records"]

_BATCH_ROWS = 8_192
_FIX = "Set column_types for this column, or infer_rows to 0, and discover again; or mend the file"

Sample = Callable[[BinaryIO, str, int], Iterable[dict[str, Any]]]


class RecordReader(Protocol):
    """A file of records."""

    def records(self, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The records from number `start` on, with their numbers."""

    def row(self, number: int) -> int:
        """What the record of a number is called: its row, counted from 1."""


class ShapeSampler:
    """Gathers what records look like. See `Sampler`.

    Args:
        sample: given a file, its name and a number, 0 for all: so many of its first records.
        zone: where times without an offset were meant; None for UTC.
    """

    def __init__(self, sample: Sample, zone: ZoneInfo | None) -> None:
        self._sample, self._utc = sample, zone is None
        self._shape = Shape()

    def add(self, file: BinaryIO, where: str, rows: int) -> None:
        """See Sampler."""
        for record in self._sample(file, where, rows):
            self._shape.add(record)

    def schema(self) -> pa.Schema:
        """See Sampler."""
        members = self._shape.members.items()
        return pa.schema([(name, member.type(utc=self._utc, nested=False)) for name, member in members])


def first_records(reader: RecordReader, rows: int) -> Iterator[dict[str, Any]]:
    """The first `rows` records, 0 for all."""
    return (record for _, record in islice(reader.records(0), rows or None))


def read_records(reader: RecordReader, where: str, wanted: Wanted, start: Place) -> Iterator[Rows]:
    """A file's rows from `start` on, which counts records; only the selected columns are converted.

    Raises:
        BadFile: a value does not fit its column.
    """
    schema = _selected(wanted)
    ignored = frozenset(each.name for each in wanted.schema.fields) - wanted.selected
    records = reader.records(start.offset)
    while found := list(islice(records, _BATCH_ROWS)):
        numbers = [number for number, _ in found]
        lines = [reader.row(number) for number in numbers]
        unknown = Unknown(forbid=False, hold_closed=False)
        rows = rows_to_batch(
            [record for _, record in found], schema, lines, validate=False, unknown=unknown, ignored=ignored
        )
        if rows.misfits:
            error = rows.misfits[0][1]
            rule = f"row {error.line}: the value {error.rule}"
            raise BadFile(rule, stream=schema.stream, file=where, column=error.column, fix=error.fix or _FIX)
        wanted.unknown.update(rows.unknown)
        yield Rows(rows.batch, Place(numbers[-1] + 1), lambda found=lines: pa.array(found, pa.int64()))  # type: ignore[misc]


def _selected(wanted: Wanted) -> StreamSchema:
    fields = tuple(wanted.fields)
    struct = pa.struct([(each.name, each.type.arrow) for each in fields])
    return replace(wanted.schema, root=replace(wanted.schema.root, fields=fields, arrow=struct))
