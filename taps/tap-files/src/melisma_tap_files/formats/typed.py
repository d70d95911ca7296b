"""What formats whose files say their types have in common: Arrow columns, united over files and held to the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, Protocol
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from melisma.arrow.json_schema import json_schema
from melisma.errors import BadFile, BadSchema
from melisma.formats.blocks import Place
from melisma_tap_files.formats.protocol import Rows, Sampler, Wanted, numbers
from melisma_tap_files.settings import StreamSettings

__all__ = ["Typed", "TypedReader"]


class TypedReader(Protocol):
    """An open file.

    Attributes:
        schema: its columns.
    """

    schema: pa.Schema

    def batches(self, columns: Sequence[str], start: int) -> Iterator[pa.RecordBatch]:
        """The rows from row `start` on, counted from 0, with the columns of these names."""


class Typed:
    """A format whose files say their types. A place counts rows.

    Args:
        open_file: opens a file, given its bytes, its name and the stream's settings.
    """

    has_lines = False
    has_types = True

    def __init__(self, open_file: Callable[[BinaryIO, str, StreamSettings], TypedReader]) -> None:
        self._open = open_file

    def sampler(self, settings: StreamSettings, zone: ZoneInfo | None) -> Sampler:
        """See FileFormat."""
        del zone
        return _TypedSampler(lambda file, where: self._opened(file, where, settings).schema, settings.name)

    def read(
        self, file: BinaryIO, where: str, settings: StreamSettings, wanted: Wanted, start: Place
    ) -> Iterator[Rows]:
        """See FileFormat."""
        opened = self._opened(file, where, settings)
        found = opened.schema
        known = {each.name for each in wanted.schema.fields}
        for name in found.names:
            if found.names.count(name) > 1:
                rule = "two columns have this name, which a record cannot hold"
                raise BadFile(rule, stream=settings.name, file=where, column=name, fix="Rename one of them")
        columns = [name for name in found.names if name in wanted.selected and name in known]
        for name in columns:
            _check_column(name, found.field(name), wanted, where)
        unknown = [name for name in found.names if name not in known]
        row = start.offset
        for batch in opened.batches(columns, row):
            wanted.unknown.update(dict.fromkeys(unknown, batch.num_rows))
            first, row = row + 1, row + batch.num_rows
            try:
                batch.validate(full=True)
            except pa.ArrowInvalid:
                rule = (
                    f"a value of the rows {first} to {row} is not what its type says: text that is not UTF-8, perhaps"
                )
                raise _damaged(rule, where, settings) from None
            yield Rows(_in_utc(batch, wanted.zone), Place(row), numbers(first, batch.num_rows))

    def _opened(self, file: BinaryIO, where: str, settings: StreamSettings) -> TypedReader:
        opened = self._open(file, where, settings)
        try:
            _read_names(opened.schema)
        except UnicodeDecodeError:
            raise _damaged("a column's name is not UTF-8 text", where, settings) from None
        return opened


def _damaged(rule: str, where: str, settings: StreamSettings) -> BadFile:
    return BadFile(rule, stream=settings.name, file=where, fix="Fetch or write the file again")


def _read_names(fields: Any) -> None:
    """Arrow decodes a name when it is asked for, at any depth."""
    for field in fields:
        _ = field.name
        if pa.types.is_nested(field.type):
            _read_names([field.type.field(index) for index in range(field.type.num_fields)])


class _TypedSampler:
    def __init__(self, schema_of: Callable[[BinaryIO, str], pa.Schema], stream: str) -> None:
        self._schema_of, self._name = schema_of, stream
        self._fields: dict[str, pa.Field] = {}

    def add(self, file: BinaryIO, where: str, rows: int) -> None:
        del rows  # its types stand in the file
        for field in self._schema_of(file, where):
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
