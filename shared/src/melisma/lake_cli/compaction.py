"""Which files to merge, and merging them: the same rows in the same order, in fewer files.

Only files that no replay can take back are touched (`maintenance.can_compact`), and only neighbours: files of one
stream and partition that follow one another and have the same columns. Files of different columns are left apart,
so that no value changes its type, and so are versions of a table (ACTIVATE_VERSION).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import pyarrow as pa

from melisma.errors import MelismaError, StorageError
from melisma.formats.parquet import COMPRESSIONS, ParquetFileWriter, ParquetOptions
from melisma.lake.journal import Journal
from melisma.lake.lake import FileLake
from melisma.lake.maintenance import Overtaken, can_compact
from melisma.lake.records import FileEntry
from melisma.lake.writer import StagedFile
from melisma.lake_cli.parquet_files import batches, codec, footer, is_parquet
from melisma.lake_cli.place import Place, in_order, partition_of

__all__ = ["Group", "Plan", "choose", "make_plan", "merge"]

_LARGE = 0.5  # of the size aimed at: such files stay, or each compaction would write them again


@dataclass(frozen=True, slots=True)
class Group:
    """Files that become fewer, in the order of their rows."""

    inputs: list[FileEntry]
    outputs: int

    @property
    def stream(self) -> str:
        """Whose files they are."""
        return self.inputs[0].stream

    @property
    def partition(self) -> str:
        """Their directories below the stream's."""
        return partition_of(self.inputs[0])

    @property
    def rows(self) -> int:
        """Rows in all of them."""
        return sum(file.rows for file in self.inputs)

    @property
    def bytes(self) -> int:
        """Bytes in all of them."""
        return sum(file.bytes for file in self.inputs)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a compaction would do.

    Attributes:
        waiting: small files that may still be taken back by a replay: the next run acknowledges them.
        other: files that are not Parquet; they stay as they are.
    """

    groups: list[Group]
    waiting: int
    other: int = 0


def make_plan(place: Place, journal: Journal, max_file_bytes: int, stream: str | None = None) -> Plan:
    """Choose files. Reads the footers of small ones."""
    partitions: dict[tuple[str, str], list[FileEntry]] = {}
    other = 0
    for file in in_order(journal.live_files(stream)):
        if file.kind == "data" and not is_parquet(file):
            other += 1
        elif file.kind == "data":
            partitions.setdefault((file.stream, partition_of(file)), []).append(file)

    def is_free(file: FileEntry) -> bool:
        return can_compact(journal, file)

    def schema_of(file: FileEntry) -> pa.Schema:
        with footer(place.store, file.path) as reader:
            return reader.schema_arrow.remove_metadata()

    plan = Plan([], 0, other)
    for files in partitions.values():
        found = choose(files, max_file_bytes, is_free, schema_of)
        plan = Plan(plan.groups + found.groups, plan.waiting + found.waiting, other)
    return plan


def choose(
    files: Sequence[FileEntry],
    max_file_bytes: int,
    is_free: Callable[[FileEntry], bool],
    schema_of: Callable[[FileEntry], pa.Schema],
) -> Plan:
    """Choose among the files of one partition, given in the order of their rows.

    Args:
        files: see `in_order`.
        max_file_bytes: what a merged file should not exceed by much.
        is_free: whether a file may be touched.
        schema_of: a file's columns; asked only of files that may be merged.
    """
    groups: list[Group] = []
    waiting = 0
    stretch: list[FileEntry] = []
    for file in files:
        small = file.bytes < max_file_bytes * _LARGE
        if small and is_free(file):
            stretch.append(file)
            continue
        waiting += small
        groups += _groups(stretch, max_file_bytes, schema_of, file)
        stretch = []
    groups += _groups(stretch, max_file_bytes, schema_of, None)
    return Plan(groups, waiting)


def merge(place: Place, lake: FileLake, group: Group, max_file_bytes: int) -> int:
    """Write a group anew and put it in the place of its files; the number of the journal's entry.

    Memory is bounded by two row groups.

    Raises:
        Overtaken: a writer has changed the files meanwhile. Nothing is changed.
    """
    try:
        with footer(place.store, group.inputs[-1].path) as reader:
            schema, used = reader.schema_arrow, codec(reader)
    except StorageError:
        _refuse_gone(place, group)
        raise
    output = _Output(lake, group, schema, _options(place.config, used, max_file_bytes, group))
    try:
        for file in group.inputs:
            for batch in batches(place.store, file.path):
                output.write(batch)
        staged = output.close()
    except BaseException as error:
        output.abandon()
        if isinstance(error, StorageError):
            _refuse_gone(place, group)
        raise
    return lake.compact(group.inputs, staged)


def _refuse_gone(place: Place, group: Group) -> None:
    if any(place.store.size(file.path) is None for file in group.inputs):
        raise Overtaken from None


def _groups(
    files: Sequence[FileEntry], limit: int, schema_of: Callable[[FileEntry], pa.Schema], after: FileEntry | None
) -> Iterator[Group]:
    """Cut a stretch of small neighbours, before the file `after`, into groups of about `limit` bytes.

    A commit's files of one partition stay together, since the order of rows within it is that of the names.
    """
    if len(files) < 2:
        return
    commits: list[list[FileEntry]] = []
    before: tuple[pa.Schema, int | None] | None = None
    cuts: set[int] = set()  # commits at which the columns, or the table's version, change
    for file in files:
        kind = (schema_of(file), file.version)
        same = before is None or before == kind
        if not same or not commits or commits[-1][-1].seq != file.seq:
            commits.append([])
        if not same:
            cuts.add(len(commits) - 1)
        commits[-1].append(file)
        before = kind
    group: list[FileEntry] = []
    for index, commit in enumerate(commits):
        full = sum(file.bytes for file in group) + sum(file.bytes for file in commit) > limit
        if group and (index in cuts or full):
            yield from _worthwhile(group, limit, commit[0])
            group = []
        group += commit
    yield from _worthwhile(group, limit, after)


def _worthwhile(files: list[FileEntry], limit: int, after: FileEntry | None) -> Iterator[Group]:
    outputs = max(1, ceil(sum(file.bytes for file in files) / limit))
    # Merged files bear a newer run's name: with a later file of the same commit left alone, they would sort after it.
    first = files[0].first or files[0].seq
    if after is not None and after.seq == files[-1].seq and first >= (after.first or after.seq):
        return
    if outputs < len(files):
        yield Group(list(files), outputs)


def _options(config: dict[str, Any], used: str, max_file_bytes: int, group: Group) -> ParquetOptions:
    """The target's settings where they are known, else as the files are."""
    compression = str(config.get("compression", used if used in COMPRESSIONS else "zstd"))
    defaults = ParquetOptions()
    return ParquetOptions(
        compression=compression,
        compression_level=config.get("compression_level"),
        row_group_rows=int(config.get("row_group_size_rows", defaults.row_group_rows)),
        row_group_bytes=int(config.get("row_group_size_mb", defaults.row_group_bytes / (1 << 20)) * (1 << 20)),
        # One file is not cut in two for being a little larger than the sum of what it was.
        max_file_bytes=max_file_bytes if group.outputs > 1 else 2 * max_file_bytes,
    )


class _Output:
    """The merged files on their way, invisible."""

    def __init__(self, lake: FileLake, group: Group, schema: pa.Schema, options: ParquetOptions) -> None:
        self._lake, self._group, self._options = lake, group, options
        self._schema = schema.remove_metadata()
        self._metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        self._metadata.pop("ARROW:schema", None)
        self._partition = [part for part in group.partition.split("/") if part]
        self._buffer: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        self._file: ParquetFileWriter | None = None
        self._sink: Any = None
        self._staged: list[StagedFile] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows after those that came before."""
        self._buffer.append(pa.RecordBatch.from_arrays(batch.columns, schema=self._schema))
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= self._options.row_group_rows or self._bytes >= self._options.row_group_bytes:
            self._flush()

    def close(self) -> list[StagedFile]:
        """Finish; the files, which hold as many rows as the group."""
        if self._buffer:
            self._flush()
        self._finish()
        rows = sum(file.rows for file in self._staged)
        if rows != self._group.rows:
            raise MelismaError(
                f'stream "{self._group.stream}": {rows} rows were read from files that should hold {self._group.rows}. '
                "Nothing was changed. Look with: melisma lake verify"
            )
        return self._staged

    def abandon(self) -> None:
        """Drop everything."""
        if self._file is not None:
            self._file.abandon()
            self._lake.discard(self._sink)
        for file in self._staged:
            self._lake.discard(file.handle)

    def _flush(self) -> None:
        if self._file is None:
            self._sink = self._lake.stage(self._group.stream, self._partition, "parquet")
            self._file = ParquetFileWriter(self._sink, self._schema, self._options, self._metadata)
        self._file.write_row_group(self._buffer)
        self._buffer, self._rows, self._bytes = [], 0, 0
        if self._sink.bytes_written >= self._options.max_file_bytes:
            self._finish()

    def _finish(self) -> None:
        if self._file is None:
            return
        file, sink = self._file, self._sink
        file.close()
        sink.close()
        self._file = self._sink = None
        self._staged.append(StagedFile(self._group.stream, sink.final_path, sink, file.rows, sink.bytes_written))
