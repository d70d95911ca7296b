"""The formats, behind one interface: a file's columns from a sample, and its rows from a place on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from melisma.arrow.json_schema import json_schema
from melisma.arrow.types import Field, Kind, StreamSchema
from melisma.errors import BadFile, BadSchema, CatalogError
from melisma.formats.blocks import Place
from melisma.formats.csv import CsvReader
from melisma.formats.inference import TextColumn
from melisma.formats.jsonl import JsonlReader
from melisma.formats.shapes import Shape
from melisma_tap_files.settings import StreamSettings

__all__ = ["FORMATS", "FileFormat", "Rows", "Wanted"]

_BATCH_ROWS = 32_768


@dataclass(frozen=True, slots=True)
class Rows:
    """Some of a file's rows.

    Attributes:
        batch: their columns.
        end: the place after them, where reading can go on.
        lines: each row's line, or its number in a file without lines; counted from 1.
    """

    batch: pa.RecordBatch
    end: Place
    lines: Callable[[], pa.Array]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be read.

    Attributes:
        schema: the stream's columns, as the catalog has them.
        selected: the names of those that are sent.
        zone: where times without an offset were meant; None for UTC.
        unknown: counts what the files hold beyond the schema, by dotted name.
    """

    schema: StreamSchema
    selected: frozenset[str]
    zone: ZoneInfo | None
    unknown: Counter[str]

    @property
    def fields(self) -> list[Field]:
        """The selected columns."""
        return [each for each in self.schema.fields if each.name in self.selected]


class Sampler(Protocol):
    """Gathers what files look like."""

    def add(self, file: BinaryIO, where: str, rows: int) -> None:
        """Look at the first `rows` rows of a file, 0 for all."""

    def schema(self) -> pa.Schema:
        """The narrowest columns that hold everything seen; JSON text has Arrow's JSON type."""


class FileFormat(Protocol):
    """One format.

    Attributes:
        has_lines: whether it is text, whose places are bytes, and which may grow at its end.
    """

    has_lines: bool

    def sampler(self, settings: StreamSettings, zone: ZoneInfo | None) -> Sampler:
        """A new sampler."""

    def read(
        self, file: BinaryIO, where: str, settings: StreamSettings, wanted: Wanted, start: Place
    ) -> Iterator[Rows]:
        """A file's rows from `start` on; `Place()` is its start.

        Columns that the file does not have are missing in the batches.
        """


class Csv:
    """CSV files."""

    has_lines = True

    def sampler(self, settings: StreamSettings, zone: ZoneInfo | None) -> Sampler:
        """See FileFormat."""
        del zone
        return _CsvSampler(settings)

    def read(
        self, file: BinaryIO, where: str, settings: StreamSettings, wanted: Wanted, start: Place
    ) -> Iterator[Rows]:
        """See FileFormat."""
        for each in wanted.fields:
            if each.type.kind in {Kind.STRUCT, Kind.LIST, Kind.MAP}:
                rule = f'column "{each.name}" is an object or array, which a CSV file does not have'
                raise CatalogError(settings.name, rule, "Discover again")
        reader = CsvReader(file, settings.dialect(), where=where, stream=settings.name)
        known = {each.name for each in wanted.schema.fields}
        unknown = [name for name in reader.names if name not in known]
        for batch, block in reader.read(wanted.fields, wanted.zone, max(start, reader.start)):
            wanted.unknown.update(dict.fromkeys(unknown, batch.num_rows))
            yield Rows(batch, block.end, lambda b=block, n=batch.num_rows: reader.row_lines(b, n))  # type: ignore[misc]


class Jsonl:
    """JSON Lines files."""

    has_lines = True

    def sampler(self, settings: StreamSettings, zone: ZoneInfo | None) -> Sampler:
        """See FileFormat."""
        return _JsonlSampler(settings, zone)

    def read(
        self, file: BinaryIO, where: str, settings: StreamSettings, wanted: Wanted, start: Place
    ) -> Iterator[Rows]:
        """See FileFormat."""
        reader = JsonlReader(file, where=where, stream=settings.name)
        for batch, block in reader.read(wanted.schema, wanted.zone, start):
            yield Rows(batch, block.end, lambda b=block, n=batch.num_rows: reader.row_lines(b, n))  # type: ignore[misc]
        wanted.unknown.update(reader.unknown)


class Parquet:
    """Parquet files. A place counts rows."""

    has_lines = False

    def sampler(self, settings: StreamSettings, zone: ZoneInfo | None) -> Sampler:
        """See FileFormat."""
        del zone
        return _ParquetSampler(settings)

    def read(
        self, file: BinaryIO, where: str, settings: StreamSettings, wanted: Wanted, start: Place
    ) -> Iterator[Rows]:
        """See FileFormat."""
        opened = _open_parquet(file, where, settings.name)
        found = opened.schema_arrow
        known = {each.name for each in wanted.schema.fields}
        columns = [name for name in found.names if name in wanted.selected and name in known]
        for name in columns:
            _check_column(name, found.field(name), wanted, where)
        unknown = [name for name in found.names if name not in known]
        position = 0
        for group in range(opened.metadata.num_row_groups):
            rows = opened.metadata.row_group(group).num_rows
            if position + rows <= start.offset:
                position += rows
                continue
            for batch in _batches(opened, group, columns, where, settings.name):
                end = position + batch.num_rows
                kept = batch.slice(max(start.offset - position, 0))
                first, position = end - kept.num_rows + 1, end
                if not kept.num_rows:
                    continue
                wanted.unknown.update(dict.fromkeys(unknown, kept.num_rows))
                numbers = range(first, end + 1)
                yield Rows(_in_utc(kept, wanted.zone), Place(end), lambda n=numbers: pa.array(n, pa.int64()))  # type: ignore[misc]


FORMATS: dict[str, FileFormat] = {"csv": Csv(), "jsonl": Jsonl(), "parquet": Parquet()}


class _CsvSampler:
    def __init__(self, settings: StreamSettings) -> None:
        self._settings, self._dialect = settings, settings.dialect()
        self._columns: dict[str, TextColumn] = {}

    def add(self, file: BinaryIO, where: str, rows: int) -> None:
        reader = CsvReader(file, self._dialect, where=where, stream=self._settings.name)
        for name in reader.names:
            self._columns.setdefault(name, TextColumn(self._dialect.null_values))
        for batch in reader.sample(rows):
            for name, texts in zip(batch.schema.names, batch.columns, strict=True):
                if name not in self._settings.column_types:
                    self._columns[name].add(texts)

    def schema(self) -> pa.Schema:
        return pa.schema([(name, column.type()) for name, column in self._columns.items()])


class _JsonlSampler:
    def __init__(self, settings: StreamSettings, zone: ZoneInfo | None) -> None:
        self._settings, self._utc = settings, zone is None
        self._shape = Shape()

    def add(self, file: BinaryIO, where: str, rows: int) -> None:
        for record in JsonlReader(file, where=where, stream=self._settings.name).sample(rows):
            self._shape.add(record)

    def schema(self) -> pa.Schema:
        members = self._shape.members.items()
        return pa.schema([(name, member.type(utc=self._utc, nested=False)) for name, member in members])


class _ParquetSampler:
    def __init__(self, settings: StreamSettings) -> None:
        self._name = settings.name
        self._fields: dict[str, pa.Field] = {}

    def add(self, file: BinaryIO, where: str, rows: int) -> None:
        del rows  # its types stand in the file
        for field in _open_parquet(file, where, self._name).schema_arrow:
            known = self._fields.setdefault(field.name, field)
            if known.type != field.type:
                try:
                    united = pa.unify_schemas([pa.schema([known]), pa.schema([field])], promote_options="permissive")
                except (pa.ArrowTypeError, pa.ArrowInvalid):
                    rule = f"its type is {field.type}, and {known.type} in another file of the stream"
                    fix = "Make them two streams, or write the files again with one type"
                    raise BadFile(rule, stream=self._name, file=where, column=field.name, fix=fix) from None
                self._fields[field.name] = united.field(0)

    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(field.name, field.type) for field in self._fields.values()])


def _open_parquet(file: BinaryIO, where: str, stream: str) -> Any:
    if not file.seekable():
        rule = "a Parquet file cannot be read through another compression"
        raise BadFile(rule, stream=stream, file=where, fix="Unpack it; Parquet is compressed in itself")
    try:
        return pq.ParquetFile(file, pre_buffer=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError):
        rule = "it is not a Parquet file, or it is damaged"
        raise BadFile(rule, stream=stream, file=where, fix="Fetch or write the file again") from None


def _batches(opened: Any, group: int, columns: Sequence[str], where: str, stream: str) -> Iterator[pa.RecordBatch]:
    # A name with a dot would be taken for a path into a struct.
    asked = None if any("." in name for name in columns) else list(columns)
    if not columns:
        yield from _without_columns(opened.metadata.row_group(group).num_rows)
        return
    try:
        for batch in opened.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=asked):
            yield batch.select(list(columns))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError):
        rule = f"its row group {group + 1} is damaged, or uses a part of Parquet that cannot be read"
        raise BadFile(rule, stream=stream, file=where, fix="Fetch or write the file again") from None


def _without_columns(rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, rows, _BATCH_ROWS):
        count = min(_BATCH_ROWS, rows - start)
        yield pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))


def _check_column(name: str, field: pa.Field, wanted: Wanted, where: str) -> None:
    """Refuse a column whose values the catalog's type cannot hold."""
    stream = wanted.schema.stream
    if wanted.zone is not None and pa.types.is_nested(field.type) and _holds_naive_times(field.type):
        rule = "it holds times without an offset within objects or arrays, which are read as UTC only"
        fix = "Set timezone to UTC for this tap, or deselect the column"
        raise BadFile(rule, stream=stream, file=where, column=name, fix=fix)
    try:
        found = json_schema(pa.schema([field]))["properties"][name]
    except BadSchema as error:
        raise BadSchema(error.rule, stream=stream, file=where, column=name, fix="Deselect the column") from None
    declared = wanted.schema.json_schema["properties"][name]
    if not _fits(found, declared):
        raise BadFile(
            f"its type is {field.type}, which is not what the catalog says",
            stream=stream,
            file=where,
            column=name,
            fix="Discover again, or make it a stream of its own",
        )


def _holds_naive_times(kind: pa.DataType) -> bool:
    if pa.types.is_timestamp(kind):
        return kind.tz is None
    return any(_holds_naive_times(kind.field(index).type) for index in range(kind.num_fields))


def _fits(found: dict[str, Any], declared: dict[str, Any]) -> bool:
    types, allowed = _types(found), _types(declared)
    if not allowed:
        return True
    if "number" in allowed:
        allowed = allowed | {"integer"}
    if not types <= allowed:
        return False
    if declared.get("format") and declared.get("format") != found.get("format"):
        return False
    if declared.get("contentEncoding") != found.get("contentEncoding"):
        return False
    if "precision" in declared and "precision" in found:
        whole = declared["precision"] - declared.get("scale", 0) >= found["precision"] - found.get("scale", 0)
        return bool(whole and declared.get("scale", 0) >= found.get("scale", 0))
    members = declared.get("properties")
    if members and "properties" in found:
        return all(_fits(node, members[name]) for name, node in found["properties"].items() if name in members)
    if isinstance(declared.get("items"), dict) and "items" in found:
        return _fits(found["items"], declared["items"])
    return True


def _types(node: dict[str, Any]) -> set[str]:
    types = node.get("type", [])
    return {types} if isinstance(types, str) else set(types) - {"null"}


def _in_utc(batch: pa.RecordBatch, zone: ZoneInfo | None) -> pa.RecordBatch:
    """The batch with its naive times, at the top level, taken for times in `zone`."""
    if zone is None:
        return batch
    arrays = [
        pc.assume_timezone(array, zone.key, ambiguous="earliest", nonexistent="earliest")
        if pa.types.is_timestamp(array.type) and array.type.tz is None
        else array
        for array in batch.columns
    ]
    return pa.record_batch(arrays, names=batch.schema.names)
