"""The stream: reads what the bookmark does not know yet, and says after each block how far it has come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from singer_sdk.singerlib import Catalog

from melisma.errors import CatalogError
from melisma.formats.blocks import Place
from melisma.storage.filesystem import FileInfo, Store
from melisma.tap.stream import ArrowStream, Progress
from melisma_tap_files.discover import FILE_COLUMNS, columns_of, find_files
from melisma_tap_files.formats import file_format
from melisma_tap_files.formats.protocol import Rows, Wanted
from melisma_tap_files.hive import partition_array, partition_values
from melisma_tap_files.plan import Partial, Plan, Task
from melisma_tap_files.seen import NEWEST, Known, SeenFiles, path_hash
from melisma_tap_files.settings import StreamSettings, max_expansion, zone_of

if TYPE_CHECKING:
    from melisma_tap_files.tap import TapFiles

__all__ = ["FileStream"]

_INCREMENTAL = "INCREMENTAL"
_FULL_TABLE = "FULL_TABLE"
_MOST_FORGOTTEN = 100_000


class FileStream(ArrowStream):
    """The files of one path, read as one stream."""

    def __init__(self, tap: TapFiles, settings: StreamSettings, schema: dict[str, Any]) -> None:
        super().__init__(tap, schema=schema, name=settings.name)
        self._settings = settings
        self._format = file_format(settings.format)
        self.primary_keys = settings.key_properties
        self.forced_replication_method = _INCREMENTAL

    def apply_catalog(self, catalog: Catalog) -> None:
        """Take what the catalog says.

        Raises:
            CatalogError: it asks for a replication key, or a method that files do not have.
        """
        super().apply_catalog(catalog)
        if self.replication_key:
            rule = "it has a replication key, but files have none: the state remembers which files were read"
            fix = "Remove replication-key; INCREMENTAL reads what is new, FULL_TABLE everything"
            raise CatalogError(self.name, rule, fix)
        if self.replication_method not in {_INCREMENTAL, _FULL_TABLE}:
            rule = f"files cannot be replicated by {self.replication_method}"
            raise CatalogError(self.name, rule, f"Valid methods: {_INCREMENTAL}, {_FULL_TABLE}")

    def read_batches(self, context: Mapping[str, Any] | None) -> Iterator[pa.RecordBatch | Progress]:
        """The rows of all files that are new, or have new rows; in FULL_TABLE of all files."""
        del context
        incremental = self.replication_method == _INCREMENTAL
        bookmark = self.stream_state if incremental else {}
        seen = SeenFiles.unpack(bookmark["files"], self.name) if bookmark.get("files") else SeenFiles()
        partial = Partial.from_json(bookmark.get("partial"), self.name)
        store, files = find_files(self._settings, self.config)
        if not files:
            self.logger.warning('stream "%s": no file matches its path, so there is nothing to do', self.name)
            return
        plan = Plan(
            store,
            self._settings.compression,
            has_lines=self._format.has_lines and self._settings.cut_as_stored(),
            stream=self.name,
            logger=self.logger,
        )
        tasks = plan.tasks(files, seen, partial)
        self.logger.info('stream "%s": %d files, %d of them to read', self.name, len(files), len(tasks))
        self._forget(seen, store, files)
        newest = {each.path for each in sorted(files, key=lambda f: f.mtime_ns)[-NEWEST:]}
        wanted = self._wanted(store, files)
        for task in tasks:
            read = _FileRead(task, plan, seen)
            for rows in self._rows(store, task, wanted):
                yield self._complete(rows, store, task.info, wanted)
                read.end = rows.end
                if incremental:
                    yield Progress(read.unfinished)
            seen[task.path] = read.known(tail=task.info.path in newest)
            if incremental:
                yield Progress(read.finished)
        if incremental and not tasks:
            yield Progress({"files": seen.pack(), "partial": None})
        self._report(wanted.unknown)

    def _rows(self, store: Store, task: Task, wanted: Wanted) -> Iterator[Rows]:
        where = store.display(task.info.path)
        limit = max_expansion(self.config)
        with store.open_input(task.info.path, self._settings.compression, max_expansion=limit) as file:
            yield from self._format.read(file, where, self._settings, wanted, task.start)

    def _wanted(self, store: Store, files: list[FileInfo]) -> Wanted:
        """What is to be read from the files themselves; what their folders say is not."""
        schema = columns_of(self.name, self.effective_schema)
        names = frozenset(self._sent)
        if self._settings.hive_partitions:
            names -= {name for each in files for name in partition_values(store.display(each.path))}
        return Wanted(schema, names, zone_of(self.config), Counter())

    @cached_property
    def _sent(self) -> list[str]:
        """The columns of the records, in the catalog's order."""
        return self._selection.columns(list(self.effective_schema["properties"]))

    def _complete(self, rows: Rows, store: Store, info: FileInfo, wanted: Wanted) -> pa.RecordBatch:
        """The columns in the catalog's order: absent ones as nulls, and where the rows come from."""
        batch, count = rows.batch, rows.batch.num_rows
        found = dict(zip(batch.schema.names, batch.columns, strict=True))
        if self._settings.hive_partitions:
            where = store.display(info.path)
            values = partition_values(where)
            for each in wanted.schema.fields:
                if each.name in values:
                    value = values[each.name]
                    found[each.name] = partition_array(each, value, count, file=where, stream=self.name)
        arrays = []
        for name in self._sent:
            if name in FILE_COLUMNS:
                arrays.append(_file_column(name, rows, store, info))
            else:
                arrays.append(found[name] if name in found else pa.nulls(count))
        if not arrays:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))
        return pa.record_batch(arrays, names=self._sent)

    def _forget(self, seen: SeenFiles, store: Store, files: list[FileInfo]) -> None:
        """Keep what is known of absent files, which may come back, until that is too much."""
        present = {path_hash(store.display(each.path)) for each in files}
        absent = seen.keys() - present
        if len(absent) > _MOST_FORGOTTEN - min(len(present), _MOST_FORGOTTEN):
            for path in absent:
                del seen[path]

    def _report(self, unknown: Counter[str]) -> None:
        for name, count in unknown.items():
            if count:
                self.logger.warning(
                    'stream "%s", column "%s": is in the files (%d rows of this run) but not in the catalog, and was '
                    "left out. Discover again to have it",
                    self.name,
                    name,
                    count,
                )


class _FileRead:
    """One file being read, and the bookmarks that its progress makes."""

    def __init__(self, task: Task, plan: Plan, seen: SeenFiles) -> None:
        self._task, self._plan, self._seen = task, plan, seen
        self.end = task.start

    def unfinished(self) -> dict[str, Any]:
        """The bookmark within the file."""
        task = self._task
        tail = self._plan.tail(task.info, self.end.offset)
        partial = Partial(task.path, task.version, self.end, tail)
        return {"files": self._seen.pack(), "partial": partial.to_json()}

    def finished(self) -> dict[str, Any]:
        """The bookmark after the file, once `known` was noted."""
        return {"files": self._seen.pack(), "partial": None}

    def known(self, *, tail: bool) -> Known:
        """What to remember of the whole file.

        A file that grew while it was read was read to an end beyond the listing's; the next run has to go on from
        there.
        """
        info, grows = self._task.info, self._plan.grows(self._task.info)
        size = max(self.end.offset, self._task.start.offset) if grows and self.end > Place() else info.size
        return Known(self._task.version, size, self._plan.tail(info, size) if tail else None)


def _file_column(name: str, rows: Rows, store: Store, info: FileInfo) -> Any:
    count = rows.batch.num_rows
    if name == "_sdc_source_lineno":
        return rows.lines()
    if name == "_sdc_source_file":
        return pa.repeat(pa.scalar(store.display(info.path)), count)
    moment = pa.scalar(info.mtime_ns // 1000, pa.int64()) if info.mtime_ns else pa.scalar(None, pa.int64())
    return pa.repeat(moment, count).cast(pa.timestamp("us", "UTC"))
