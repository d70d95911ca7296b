"""Upsert on plain files: the rows of a commit take the place of those with the same key.

Only files that hold one of the keys are written anew, without those rows; the new rows go to new files. Which files
may hold one is known from the ranges of their keys, and which do from reading their key columns alone.

Memory is bounded by the keys that are looked at together: where a commit brings more, its keys are cut into ranges,
which are merged one after the other. Besides these there is one bit per row of the files that are written anew.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from melisma.errors import BadSchema
from melisma.formats.parquet import ParquetOptions
from melisma.lake.changes import Changes
from melisma.lake.keys import KeySet, common_type, last_rows, with_type
from melisma.lake.records import FileEntry
from melisma.lake.rewrite import DELETED_AT, DataFile, RewriteLake
from melisma.lake.writer import StagedFile, StreamWriter

__all__ = ["KEY_BYTES", "KeyRanges", "Merged", "merge"]

KEY_BYTES = 32 << 20
"""How many Arrow bytes of keys are looked at together. Finding the last of each takes several times as much."""

_SAMPLE = 20_000  # keys that cuts are chosen from
_TAKE_ROWS = 65_536

KeyRanges = dict[str, Mapping[str, pa.Array]]
"""By path: lowest and highest key of files. Files do not change, so it is kept for the length of a run."""


@dataclass(slots=True)
class Merged:
    """What a merge comes to.

    Attributes:
        added: files with the new rows.
        rewritten: each with the file whose remaining rows it holds.
        removes: files that the commit removes.
    """

    added: list[StagedFile] = field(default_factory=list)
    rewritten: list[tuple[StagedFile, FileEntry]] = field(default_factory=list)
    removes: list[FileEntry] = field(default_factory=list)


def merge(
    lake: RewriteLake,
    changes: Sequence[Changes],
    live: Sequence[FileEntry],
    known: KeyRanges,
    *,
    key_bytes: int = KEY_BYTES,
    mark: Callable[[FileEntry], bool] | None = None,
    deleted_at: dt.datetime | None = None,
) -> Merged:
    """Merge the rows of one stream, in their order, with its files. Nothing is visible before the commit.

    Args:
        lake: where the files are.
        changes: the rows; later ones win.
        live: the stream's files.
        known: key ranges of files that were looked at before; added to.
        key_bytes: see KEY_BYTES.
        mark: says of a file whether the rows that stay in it are to be marked as deleted.
        deleted_at: the time that they are marked with.

    Raises:
        BadSchema: keys cannot be compared, or the key's columns change within a commit.
        StorageError: the store fails, or a file has gone.
    """
    run = _Merge(lake, changes, [DataFile(lake, entry) for entry in live], known, key_bytes)
    try:
        run.run(mark, deleted_at)
    except BaseException:
        run.abandon()
        raise
    return run.merged


class _Merge:
    def __init__(
        self,
        lake: RewriteLake,
        changes: Sequence[Changes],
        files: Sequence[DataFile],
        known: KeyRanges,
        key_bytes: int,
    ) -> None:
        self._lake, self._changes, self._files, self._known, self._key_bytes = lake, changes, files, known, key_bytes
        schemas = [each.schema for each in changes]
        self._stream, self._names = schemas[-1].stream, schemas[-1].key_properties
        if any(set(each.key_properties) != set(self._names) for each in schemas):
            raise BadSchema(
                "changes its key between two commits, so its rows cannot be merged",
                stream=self._stream,
                fix="Give the stream of the new key another name with stream_maps (__alias__)",
            )
        self._types = tuple(
            common_type(self._stream, name, *(schema.arrow.field(name).type for schema in schemas))
            for name in self._names
        )
        self._writers = [each.open_writer() for each in changes]
        self._drops: dict[str, pa.BooleanArray] = {}
        self.merged = Merged()

    @property
    def _options(self) -> ParquetOptions:
        return cast("ParquetOptions", self._writers[-1].format)  # other formats refuse upsert at start

    def run(self, mark: Callable[[FileEntry], bool] | None, deleted_at: dt.datetime | None) -> None:
        for within in self._cuts():
            keys = self._write_last(within)
            if keys is not None:
                self._look_up(keys)
        for writer in self._writers:
            self.merged.added += writer.close(tail=True)
        for file in self._files:
            drop = self._drops.pop(file.entry.path, None)
            marked = mark is not None and mark(file.entry) and not file.all_deleted()
            if drop is None and not marked:
                continue
            rest = file.rewrite(drop, deleted_at if marked else None, self._options)
            if rest is not None:
                self.merged.rewritten.append((rest, file.entry))
            self.merged.removes.append(file.entry)
            self._known.pop(file.entry.path, None)

    def abandon(self) -> None:
        for writer in self._writers:
            writer.abandon()
        for file in [*self.merged.added, *(file for file, _ in self.merged.rewritten)]:
            self._lake.discard(file.handle)

    def _cuts(self) -> list[_Range]:
        """Ranges of one key column, so that the keys in each take about `key_bytes`."""
        total = rows = 0
        for changes in self._changes:
            for _, batch in changes.batches(self._names):
                total += batch.nbytes + 8 * batch.num_rows
                rows += batch.num_rows
        parts = -(-total // self._key_bytes)
        if parts <= 1:
            return [_Range()]
        step, samples = max(1, rows // _SAMPLE), []
        for changes in self._changes:
            for first, batch in changes.batches(self._names):
                picked = pa.array(range(-first % step, batch.num_rows, step), pa.int64())
                samples.append(
                    pa.Table.from_batches([pa.record_batch(self._typed(batch), names=list(self._names))]).take(picked)
                )
        sample = pa.concat_tables(samples)
        # The column with the most values can be cut into the most even parts.
        distinct = [len(pc.unique(sample.column(index))) for index in range(len(self._names))]
        column = distinct.index(max(distinct))
        ordered = pc.sort_indices(sample.column(column))
        values = sample.column(column).take(ordered)
        ends: list[pa.Scalar] = []
        for part in range(1, parts):
            end = values[part * len(values) // parts]
            if not ends or end != ends[-1]:
                ends.append(end)
        return [_Range(column, low, high) for low, high in zip([None, *ends], [*ends, None], strict=True)]

    def _typed(self, batch: pa.RecordBatch) -> list[Any]:
        return [with_type(batch.column(name), kind) for name, kind in zip(self._names, self._types, strict=True)]

    def _write_last(self, within: _Range) -> KeySet | None:
        """Write the last row of each key; the keys."""
        later: list[KeySet] = []
        found: list[list[Any]] = []
        for changes, writer in zip(reversed(self._changes), reversed(self._writers), strict=True):
            columns, rows = self._last(changes, within, later)
            if not len(rows):
                continue
            self._write(changes, writer, rows)
            later.append(KeySet(self._stream, self._names, columns))
            found.append(columns)
        if not found:
            return None
        if len(found) == 1:
            return later[0]
        joined = [
            pa.chunked_array([c for each in column for c in _chunks(each)]) for column in zip(*found, strict=True)
        ]
        return KeySet(self._stream, self._names, joined)

    def _last(self, changes: Changes, within: _Range, later: Sequence[KeySet]) -> tuple[list[Any], pa.Array]:
        """The distinct keys that no later changes have, and the row of each, ascending."""
        parts: list[list[pa.Array]] = []
        for first, batch in changes.batches(self._names):
            columns = self._typed(batch)
            rows = pa.array(range(first, first + batch.num_rows), pa.int64())
            chosen = within.of(columns)
            parts.append([each if chosen is None else each.filter(chosen) for each in (*columns, rows)])
        if not parts:
            return [], pa.array([], pa.int64())
        *columns, rows = (pa.chunked_array(each) for each in zip(*parts, strict=True))
        columns, last = last_rows(columns, rows)
        for keys in later:
            stays = pc.invert(keys.matches(columns))
            columns, last = [column.filter(stays) for column in columns], last.filter(stays)
        order = pc.array_sort_indices(last)
        return [column.take(order) for column in columns], last.take(order)

    def _write(self, changes: Changes, writer: StreamWriter, rows: pa.Array) -> None:
        numbers = memoryview(rows.buffers()[1]).cast("q")[rows.offset : rows.offset + len(rows)]
        start = 0
        for first, batch in changes.batches():
            end = bisect_left(numbers, first + batch.num_rows, start)
            for begin in range(start, end, _TAKE_ROWS):
                picked = pc.subtract(rows.slice(begin, min(end - begin, _TAKE_ROWS)), first)
                taken = batch.take(picked)
                if changes.hard_delete and DELETED_AT in taken.schema.names:
                    taken = taken.filter(pc.is_null(taken.column(DELETED_AT)))
                if taken.num_rows:
                    writer.write(taken)
            start = end
            if start == len(numbers):
                return

    def _look_up(self, keys: KeySet) -> None:
        """Note the rows of files that have one of the keys."""
        for file in self._files:
            path = file.entry.path
            ranges = self._known.get(path)
            if ranges is None:
                ranges = self._known[path] = file.ranges(self._names, self._types)
            if not keys.may_touch(ranges):
                continue
            found = pa.chunked_array(
                [keys.matches(columns) for columns in file.keys(self._names, self._types)], pa.bool_()
            ).combine_chunks()
            if pc.any(found).as_py():
                before = self._drops.get(path)
                self._drops[path] = found if before is None else pc.or_(before, found)


@dataclass(frozen=True, slots=True)
class _Range:
    """Keys whose column `column` is at least `low` and below `high`; None is no limit."""

    column: int = 0
    low: pa.Scalar | None = None
    high: pa.Scalar | None = None

    def of(self, columns: Sequence[Any]) -> Any:
        """For each key, whether it is within; None if all are."""
        values = columns[self.column]
        above = None if self.low is None else pc.greater_equal(values, self.low)
        below = None if self.high is None else pc.less(values, self.high)
        if above is None or below is None:
            return below if above is None else above
        return pc.and_(above, below)


def _chunks(column: Any) -> Iterator[pa.Array]:
    yield from column.chunks if isinstance(column, pa.ChunkedArray) else [column]
