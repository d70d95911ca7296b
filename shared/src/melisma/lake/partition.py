"""`partition_by`: which directories a stream's rows go to.

An entry is a column, or `year`, `month`, `day` or `hour` of one: `["country", "month(created_at)"]`, also written
`{"column": "created_at", "transform": "month"}`. A list holds for every stream; a mapping of stream -> list
holds for the streams that it names, and "*" in it for the others.

- A plain column leaves the file: its value stands in the directory's name alone.
- A derived one is named `<column>_month` (leading "_" removed, since readers skip such directories) and is UTC;
  its source stays in the file. Values: `2024`, `2024-01`, `2024-01-31`, `2024-01-31-13`. DuckDB and Polars read
  days as dates and years as integers, the others as strings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from melisma.arrow.types import Kind, StreamSchema
from melisma.errors import BadRecord, ConfigError
from melisma.lake.layout import HIVE_NULL, SEGMENT_BYTES, partition_segment

__all__ = ["PartitionField", "Partitioner", "parse_partition_by"]

_ENTRY = re.compile(r"(year|month|day|hour)\((.+)\)", re.DOTALL)
_TRANSFORMS = ("year", "month", "day", "hour")
_PLAIN = (Kind.STRING, Kind.INTEGER, Kind.BOOLEAN, Kind.DECIMAL, Kind.DATE)
_NOT_IN_NAMES = re.compile(r'[/\\=%:*?"<>|\x00-\x1f\x7f]')
_NAME_BYTES = 100
_SETTING = "partition_by"


@dataclass(frozen=True, slots=True)
class PartitionField:
    """One entry of `partition_by`. `transform` is None for a plain column."""

    column: str
    transform: str | None = None

    @property
    def name(self) -> str:
        """The partition column's name, as readers see it."""
        return self.column if self.transform is None else f"{self.column.lstrip('_')}_{self.transform}"


def parse_partition_by(value: Any, stream: str) -> tuple[PartitionField, ...]:
    """The entries of the setting `partition_by` that hold for a stream.

    Raises:
        ConfigError: the setting is not built as this module says.
    """
    setting = _SETTING
    if isinstance(value, Mapping):
        key = stream if stream in value else "*"
        setting, value = f"{_SETTING}.{key}", value.get(key)
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        fix = 'Write ["country", "month(created_at)"], or a mapping of stream to such a list'
        raise ConfigError(setting, "is not a list", fix)
    return tuple(_parse_entry(entry, f"{setting}[{index}]") for index, entry in enumerate(value))


def _parse_entry(entry: Any, setting: str) -> PartitionField:
    if isinstance(entry, str) and entry:
        match = _ENTRY.fullmatch(entry)
        return PartitionField(match[2], match[1]) if match else PartitionField(entry)
    if isinstance(entry, Mapping) and isinstance(entry.get("column"), str) and entry.keys() <= {"column", "transform"}:
        transform = entry.get("transform")
        if transform is None or transform in _TRANSFORMS:
            return PartitionField(entry["column"], transform)
    fix = (
        'Write a column, year(column), month(column), day(column) or hour(column); or {"column": ..., "transform": ...}'
    )
    raise ConfigError(setting, "is not a partition field", fix)


class Partitioner:
    """Splits a stream's batches by partition.

    Args:
        schema: the stream.
        fields: from `parse_partition_by`.
        fold: see `layout.partition_segment`.

    Attributes:
        file_schema: the columns that the files hold.

    Raises:
        ConfigError: a field names no column, a column of a wrong type, or gives a name that clashes.
    """

    def __init__(self, schema: StreamSchema, fields: Sequence[PartitionField], *, fold: bool = False) -> None:
        self._stream, self._fields, self._fold = schema.stream, tuple(fields), fold
        _check(schema, self._fields)
        arrow = schema.arrow
        plain = {field.column for field in self._fields if field.transform is None}
        self._kept = [name for name in arrow.names if name not in plain]
        if not self._kept:
            rule = f'stream "{schema.stream}" has no column left for its files'
            raise ConfigError(_SETTING, rule, "Partition by fewer columns")
        self.file_schema: pa.Schema = pa.schema([arrow.field(name) for name in self._kept])
        # A directory name for each value seen: formatting is Python, and values repeat. Bounded by `_segments_of`.
        self._names: list[dict[Any, str]] = [{} for _ in self._fields]

    def split(self, batch: pa.RecordBatch) -> Iterator[tuple[tuple[str, ...], pa.RecordBatch]]:
        """Each partition's directory names with its rows, in the order of arrival, without partition columns.

        Parts do not share memory with each other, so that a small one kept does not hold the batch in memory;
        a batch of one partition is passed on as it is.

        Raises:
            BadRecord: a value cannot be a directory's name.
        """
        if not self._fields or not batch.num_rows:
            if batch.num_rows:
                yield (), batch
            return
        segments: list[list[str]] = []
        codes: pa.Array | None = None
        for index, field in enumerate(self._fields):
            encoded = _key(batch, field).dictionary_encode(null_encoding="encode")
            segments.append(self._segments_of(index, field, encoded.dictionary.to_pylist()))
            indices = encoded.indices.cast(pa.int64())
            codes = indices if codes is None else pc.add(pc.multiply(codes, len(segments[-1])), indices)
        assert codes is not None  # noqa: S101 - there is a field
        groups = codes.dictionary_encode()
        rows = batch.select(self._kept)
        keys = [_key_segments(code, segments) for code in groups.dictionary.to_pylist()]
        if len(keys) == 1:
            yield keys[0], rows
            return
        order = pc.array_sort_indices(groups.indices)  # a stable sort: the order of arrival stays
        counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(groups.indices).to_pylist()}
        start = 0
        for number, key in enumerate(keys):
            yield key, rows.take(order.slice(start, counts[number]))
            start += counts[number]

    def _segments_of(self, index: int, field: PartitionField, values: list[Any]) -> list[str]:
        names = self._names[index]
        if len(names) > 10_000:
            names.clear()
        for value in values:
            if value not in names:
                names[value] = self._segment(field, value)
        return [names[value] for value in values]

    def _segment(self, field: PartitionField, value: Any) -> str:
        text = _format(field.transform, value)
        segment = partition_segment(field.name, text, fold=self._fold)
        rule = ""
        if text == HIVE_NULL:
            rule = "a partition value is the word that stands for null"
        elif len(segment) > SEGMENT_BYTES:
            rule = "a partition value is too long for a directory's name"
        if rule:
            raise BadRecord(rule, stream=self._stream, column=field.column, fix="Partition by another column")
        return segment


def _check(schema: StreamSchema, fields: tuple[PartitionField, ...]) -> None:
    types = {f.name: f.type for f in schema.fields}
    where = f'stream "{schema.stream}"'
    lower = {name.lower(): name for name in types}
    seen: set[str] = set()
    for field in fields:
        if field.column not in types:
            fix = "Name one of the stream's columns, or give partition_by per stream: {stream: [...]}"
            raise ConfigError(_SETTING, f'{where} has no column "{field.column}"', fix)
        kind = types[field.column].kind
        if field.transform is None and kind not in _PLAIN:
            fix = "Use year, month, day or hour of it" if kind is Kind.TIMESTAMP else "Choose another column"
            rule = f'{where}, column "{field.column}" is of type {kind.value}, which makes no directory names'
            raise ConfigError(_SETTING, rule, fix)
        timed = kind is Kind.TIMESTAMP or (kind is Kind.DATE and field.transform != "hour")
        if field.transform is not None and not timed:
            rule = f'{where}, column "{field.column}" is of type {kind.value} and has no {field.transform}'
            raise ConfigError(_SETTING, rule, "Choose a date-time column")
        name = field.name
        if not name or name[0] in "._" or _NOT_IN_NAMES.search(name) or len(name.encode()) > _NAME_BYTES:
            fix = "Partition by a column that begins with a letter or digit and is of letters, digits, '_' and '-'"
            raise ConfigError(_SETTING, f'{where}, "{field.column}": readers cannot read this name in a directory', fix)
        clash = field.transform is not None and lower.get(name.lower())
        if clash:
            rule = f'{where}: the partition column "{name}" clashes with the column "{clash}"'
            raise ConfigError(
                _SETTING, rule, "Rename that column in the tap (stream_maps), or choose another partition"
            )
        if name.lower() in seen:
            raise ConfigError(_SETTING, f'{where}: "{name}" is given twice', "Remove one")
        seen.add(name.lower())


def _key(batch: pa.RecordBatch, field: PartitionField) -> pa.Array:
    """The column as values that are equal just when their partitions are."""
    column = batch.column(field.column)
    if field.transform is None:
        return column
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp(column.type.unit))  # stored as UTC: drops the zone, not the offset
    if field.transform == "hour":
        return pc.floor_temporal(column, unit="hour").cast(pa.timestamp("s"))
    return pc.floor_temporal(column, unit=field.transform).cast(pa.date32())


def _key_segments(code: int, segments: list[list[str]]) -> tuple[str, ...]:
    parts = []
    for names in reversed(segments):
        code, index = divmod(code, len(names))
        parts.append(names[index])
    return tuple(reversed(parts))


_FORMATS: Mapping[str, Callable[[Any], str]] = {
    "year": lambda day: f"{day.year:04d}",
    "month": lambda day: f"{day.year:04d}-{day.month:02d}",
    "day": lambda day: str(day.isoformat()),
    "hour": lambda hour: f"{hour.date().isoformat()}-{hour.hour:02d}",
}


def _format(transform: str | None, value: Any) -> str | None:
    if value is None:
        return None
    if transform is not None:
        return _FORMATS[transform](value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date) else str(value)
