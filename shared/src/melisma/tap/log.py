"""A stream that is fed from a log of changes which several streams share, and what such a log gives.

A stream is read whole once, at a position of the log (its snapshot), and from there on by what the log says. Its
bookmark then holds that position under `log_position`; without one the stream has not been read whole, and is read
again from its first row.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from singer_sdk.helpers._catalog import get_selected_schema

from melisma.tap.sql import FULL_TABLE, INCREMENTAL, SqlStream
from melisma.tap.stream import Progress

if TYPE_CHECKING:
    import datetime as dt

    import pyarrow as pa
    from singer_sdk.singerlib import Catalog

__all__ = [
    "DELETED_AT",
    "LOG_BASED",
    "POSITION",
    "Boundary",
    "Change",
    "ChangeLog",
    "LogStream",
    "NewSchema",
    "Snapshot",
    "Truncation",
]

LOG_BASED = "LOG_BASED"
POSITION = "log_position"
"""The bookmark's key: the end of the last transaction that was sent whole, as the log itself names it."""
DELETED_AT = "_sdc_deleted_at"
"""The column that marks a delete, by singer-sdk's convention; null in every other row."""
_VERSION = "log_version"

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where the streams that have no position are read whole.

    Attributes:
        position: every transaction up to here is in the snapshot, and none after it.
        order: the values of the order columns of its rows: before those of every later change.
    """

    position: Any
    order: Sequence[int | str]


@dataclass(slots=True)
class Change:
    """One row as a change left it, or, with `deleted_at`, the key of one that is gone.

    Attributes:
        values: what the stream's `batch_of` takes.
        order: the values of the order columns: they grow from change to change.
        size: in memory, in bytes, about.
    """

    stream: LogStream
    values: Any
    order: Sequence[int | str]
    size: int
    deleted_at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Boundary:
    """The end of a transaction: all changes up to this position were given, and none after it."""

    position: Any


@dataclass(frozen=True, slots=True)
class NewSchema:
    """The changes of a stream that follow have another JSON Schema."""

    stream: LogStream
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Truncation:
    """All rows of a stream are gone."""

    stream: LogStream


Entry = Change | Boundary | NewSchema | Truncation


class ChangeLog(abc.ABC):
    """A log of changes, read once for all streams that it feeds."""

    @abc.abstractmethod
    def open(self, streams: Sequence[LogStream]) -> Snapshot | None:
        """Hold the streams' positions to the log, and make ready what is missing. Nothing was written yet.

        Gives where the streams without a position are to be read; None if there are none.

        Raises:
            MelismaError: the log cannot be read from there: changes would be lost.
        """

    @abc.abstractmethod
    def snapshot_taken(self) -> None:
        """All streams have been read whole: what held the snapshot can go."""

    @abc.abstractmethod
    def entries(self) -> Iterator[Entry]:
        """The changes from the streams' positions up to about where the log ended when the run began.

        A change that a stream's position covers already is not among them. The last of them is a Boundary.
        """

    @abc.abstractmethod
    def is_before(self, position: Any, other: Any) -> bool:
        """Whether a position comes before another."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the connection."""


class LogStream(SqlStream):
    """A table: whole each time, by a replication key, or by a log of changes.

    Write `read_rows` and `batch_of`.

    Attributes:
        order_columns: the columns that tell in which order a key's rows came, with their JSON Schema: integers or
            strings. They and `_sdc_deleted_at` are added to the schema of a log-based stream.
    """

    methods: ClassVar[tuple[str, ...]] = (FULL_TABLE, INCREMENTAL, LOG_BASED)
    order_columns: ClassVar[Mapping[str, Node]]

    _snapshot: Snapshot | None = None
    _taken: Progress | None = None

    @abc.abstractmethod
    def read_rows(self) -> Iterator[pa.RecordBatch | Progress]:
        """The rows by FULL_TABLE or INCREMENTAL; all of them for a snapshot."""

    @abc.abstractmethod
    def batch_of(self, changes: Sequence[Change]) -> pa.RecordBatch:
        """Changes of this stream as the rows that they left; end with `with_order`.

        The values are those that `read_rows` would give. Rows may be left out; then `with_order` gets the changes
        that are left.
        """

    @property
    def log_based(self) -> bool:
        """Whether this run reads the log."""
        return self.replication_method == LOG_BASED

    @property
    def log_position(self) -> Any:
        """The position that this stream has reached; None if it has not been read whole."""
        return self.stream_state.get(POSITION)

    def apply_catalog(self, catalog: Catalog) -> None:
        """Take what the catalog says; a replication key is of no use to the log."""
        super().apply_catalog(catalog)
        if self.log_based:
            self.replication_key = None

    @property
    def effective_schema(self) -> dict[str, Any]:
        """The schema with the columns that the log adds."""
        schema: dict[str, Any] = super().effective_schema
        if not self.log_based:
            return schema
        added = {name: dict(node) for name, node in self.order_columns.items()}
        added[DELETED_AT] = {"type": ["string", "null"], "format": "date-time"}
        return {**schema, "properties": {**schema.get("properties", {}), **added}}

    def read_batches(self, context: Mapping[str, Any] | None) -> Iterator[pa.RecordBatch | Progress]:
        """The rows; with a log, all of them once, and none after that."""
        import pyarrow as pa

        del context
        if not self.log_based:
            yield from self.read_rows()
        elif self.log_position is None:
            for item in self.read_rows():
                # A run that is cut off here begins again, with another snapshot.
                if isinstance(item, pa.RecordBatch):
                    yield self._ordered(item, [], self._snapshot.order if self._snapshot is not None else ())
            if self._snapshot is not None:  # else: a trial
                self._taken = Progress({POSITION: self._snapshot.position, _VERSION: self._stream_version})
                yield self._taken

    def with_order(self, batch: pa.RecordBatch, changes: Sequence[Change]) -> pa.RecordBatch:
        """A batch with the columns that the log adds, a row for each change."""
        return self._ordered(batch, changes)

    # What the log's run calls.

    def begin(self, snapshot: Snapshot | None) -> None:
        """Before anything is written."""
        if self.log_position is None:
            self._snapshot = snapshot
            self._stream_version = self._new_version()
        elif self.emit_activate_version_messages:
            self._stream_version = self.stream_state.get(_VERSION)

    def announce(self) -> None:
        """Let the stream maps know the columns that the log adds."""
        schema = get_selected_schema(self.name, self.effective_schema, self.mask)
        self._tap.mapper.register_raw_stream_schema(self.name, schema, self.primary_keys)
        self._stream_maps = []

    def redefine(self, schema: dict[str, Any]) -> None:
        """Take another schema, and write its SCHEMA message."""
        self._schema, self._metadata, self._mask = schema, None, None
        for name in ("selected_columns", "read_columns", "_selection"):
            self.__dict__.pop(name, None)
        self.announce()
        self._write_schema_message()

    def truncate(self) -> bool:
        """Say that all rows are gone; False if nothing can say that."""
        version = self._new_version()
        if version is None:
            return False
        self._stream_version = version
        self.stream_state[_VERSION] = version
        self._write_activate_version_message(version)
        return True

    def _new_version(self) -> int | None:
        if not self.emit_activate_version_messages:
            return None
        before: int = self.stream_state.get(_VERSION) or 0
        return max(int(time.time() * 1000), before + 1)

    def _settle(self) -> None:
        if self._reached is not None and self._reached is self._taken and self._stream_version is not None:
            # All rows of the snapshot are written: those of other versions can go.
            self._write_activate_version_message(self._stream_version)
        super()._settle()

    def _ordered(
        self, batch: pa.RecordBatch, changes: Sequence[Change], same: Sequence[int | str] | None = None
    ) -> pa.RecordBatch:
        import pyarrow as pa

        count = batch.num_rows
        columns, names = list(batch.columns), list(batch.schema.names)
        for place, (name, node) in enumerate(self.order_columns.items()):
            kind = pa.int64() if "integer" in node["type"] else pa.string()
            if same is None:
                columns.append(pa.array([change.order[place] for change in changes], kind))
            else:
                columns.append(pa.repeat(pa.scalar(same[place] if same else None, kind), count))
            names.append(name)
        when = pa.timestamp("us", "UTC")
        deleted = pa.array([change.deleted_at for change in changes], when) if same is None else pa.nulls(count, when)
        return pa.record_batch([*columns, deleted], names=[*names, DELETED_AT])
