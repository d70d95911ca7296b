"""Rows of a stream that share their key, found in bounded memory.

Keys are counted exactly, by Arrow's own equality. Where there are more rows than memory should hold, they are
first spread over temporary files by a hash of the key, so that all rows of a key meet in one of them.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from melisma.errors import UsageError, printable
from melisma.lake.layout import HIVE_NULL
from melisma.lake.records import FileEntry
from melisma.lake_cli.parquet_files import batches, footer
from melisma.lake_cli.place import Place, partition_of

__all__ = ["ROWS_AT_ONCE", "Duplicates", "find_duplicates"]

ROWS_AT_ONCE = 2_000_000
"""How many rows' keys are counted together."""

_MOST_SPILLS = 200  # temporary files that are open together
_COUNT = "rows"


@dataclass(slots=True)
class Duplicates:
    """What was found in a stream.

    Attributes:
        rows: all that were looked at.
        null_rows: rows with null in their key: they are equal to none.
        keys: keys that more than one row has.
        extra_rows: how many rows would have to go for each key to be there once.
        examples: keys, and how many rows have each; most first.
    """

    stream: str
    key: list[str]
    rows: int = 0
    null_rows: int = 0
    keys: int = 0
    extra_rows: int = 0
    examples: list[tuple[list[Any], int]] = field(default_factory=list)


def find_duplicates(
    place: Place, stream: str, files: Sequence[FileEntry], key: Sequence[str], *, examples: int = 5
) -> Duplicates:
    """Count the keys of a stream's Parquet files.

    Raises:
        UsageError: `key` cannot be a key here.
    """
    found = Duplicates(stream, list(key))
    schema = _key_schema(place, stream, files, key)
    tables = _keys(place, files, key, schema, found)
    with contextlib.ExitStack() as stack:
        spills = min(_MOST_SPILLS, sum(file.rows for file in files) // ROWS_AT_ONCE + 1)
        parts: Iterable[Iterable[pa.Table]] = [tables]
        if spills > 1:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="melisma-"))
            parts = _spread(tables, schema, [Path(folder) / f"{number}.arrow" for number in range(spills)])
        top: pa.Table | None = None
        for part in parts:
            counts = _count(part, schema)
            repeated = counts.filter(pc.greater(counts[_COUNT], 1))
            found.keys += repeated.num_rows
            found.extra_rows += (pc.sum(repeated[_COUNT]).as_py() or 0) - repeated.num_rows
            top = _first(repeated if top is None else pa.concat_tables([top, repeated]), schema, examples)
    if top is not None:
        for row in top.to_pylist():
            found.examples.append(([row[name] for name in schema.names], row[_COUNT]))
    return found


def _key_schema(place: Place, stream: str, files: Sequence[FileEntry], key: Sequence[str]) -> pa.Schema:
    """The key's columns, by position, in the type that holds those of all files."""
    types: list[list[pa.DataType]] = [[] for _ in key]
    for file in files:
        in_path = _in_path(file)
        with footer(place.store, file.path) as reader:
            schema = reader.schema_arrow
        for index, column in enumerate(key):
            if column in schema.names:
                types[index].append(schema.field(column).type)
            elif column in in_path:
                types[index].append(pa.string())
    fields = []
    for index, column in enumerate(key):
        where = f'stream "{printable(stream)}", column "{printable(column)}"'
        if files and not types[index]:
            raise UsageError(f"{where}: no file has it. See melisma lake schema")
        if any(pa.types.is_nested(kind) for kind in types[index]):
            raise UsageError(f"{where}: objects and lists cannot be part of a key. Give other columns")
        fields.append(pa.field(str(index), _common(types[index])))
    return pa.schema(fields)


def _common(types: Sequence[pa.DataType]) -> pa.DataType:
    if not types:
        return pa.string()
    try:
        one = pa.unify_schemas([pa.schema([("k", kind)]) for kind in set(types)], promote_options="permissive")
    except pa.ArrowException:
        return pa.string()
    return one.field("k").type


def _keys(
    place: Place, files: Sequence[FileEntry], key: Sequence[str], schema: pa.Schema, found: Duplicates
) -> Iterator[pa.Table]:
    """The key's columns of all rows without null in it; counts what it sees."""
    for file in files:
        in_path = _in_path(file)
        for batch in batches(place.store, file.path, key):
            columns = []
            for column, wanted in zip(key, schema.types, strict=True):
                if column in batch.schema.names:
                    columns.append(batch.column(column).cast(wanted))
                else:
                    value = pa.scalar(in_path.get(column), pa.string()).cast(wanted)
                    columns.append(pa.repeat(value, batch.num_rows))
            table = pa.Table.from_arrays(columns, schema=schema).drop_null()
            found.rows += file.rows if not columns else len(columns[0])
            found.null_rows += len(columns[0]) - table.num_rows
            yield table


def _in_path(file: FileEntry) -> dict[str, str | None]:
    """The columns that are the names of directories."""
    pairs = (part.partition("=") for part in partition_of(file).split("/") if "=" in part)
    return {name: None if value == HIVE_NULL else unquote(value) for name, _, value in pairs}


def _count(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """How many rows each key has."""
    names = schema.names
    counted = schema.append(pa.field(_COUNT, pa.int64())).empty_table()
    fresh: list[pa.Table] = []
    waiting = 0

    def merge() -> pa.Table:
        part = pa.concat_tables(fresh).group_by(names).aggregate([([], "count_all")])
        part = part.select([*names, "count_all"]).rename_columns([*names, _COUNT])
        if not counted.num_rows:
            return part
        sums = pa.concat_tables([counted, part]).group_by(names).aggregate([(_COUNT, "sum")])
        return sums.select([*names, f"{_COUNT}_sum"]).rename_columns([*names, _COUNT])

    for table in tables:
        fresh.append(table)
        waiting += table.num_rows
        if waiting >= max(1_000_000, counted.num_rows):  # rarely: grouping costs much for each call
            counted, fresh, waiting = merge(), [], 0
    return merge() if fresh else counted


def _spread(tables: Iterable[pa.Table], schema: pa.Schema, paths: Sequence[Path]) -> Iterator[Iterator[pa.Table]]:
    """Write every row into one of the files, by its key; then read them one after the other."""
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(pa.ipc.new_stream(str(path), schema)) for path in paths]
        for table in tables:
            order, sizes = _by_hash(table, len(paths))
            table = table.take(order)
            start = 0
            for number, size in sorted(sizes.items()):
                writers[number].write_table(table.slice(start, size))
                start += size
    for path in paths:
        with pa.ipc.open_stream(str(path)) as reader:
            yield (pa.Table.from_batches([batch]) for batch in reader)
        path.unlink()


def _by_hash(table: pa.Table, parts: int) -> tuple[pa.Array, dict[int, int]]:
    """The rows' order by the part that they go to, and how many go to each."""
    columns = [_plain(column).to_pylist() for column in table.columns]
    codes = pa.array([hash(row) % parts for row in zip(*columns, strict=True)], pa.int32())
    sizes = {entry["values"]: entry["counts"] for entry in pc.value_counts(codes).to_pylist()}
    return pc.array_sort_indices(codes), sizes


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times as numbers: quick to hash, and equal just when the times are."""
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_time64(kind):
        return column.cast(pa.int64())
    return column.cast(pa.int32()) if pa.types.is_date32(kind) else column


def _first(counts: pa.Table, schema: pa.Schema, limit: int) -> pa.Table:
    """The keys with most rows; among equals the smallest."""
    order = [(_COUNT, "descending"), *((name, "ascending") for name in schema.names)]
    return counts.sort_by(order).slice(0, limit)
