"""The stream: batches from its author, blocks of RECORD lines on stdout, STATE where the author says it is safe."""

from __future__ import annotations

import abc
import json
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from singer_sdk import Stream
from singer_sdk.helpers._batch import BaseBatchFileEncoding, BatchConfig, StorageTarget
from singer_sdk.helpers._util import utc_now
from singer_sdk.mapper import SameRecordTransform

from melisma.tap.batch_config import BatchSettings
from melisma.tap.catalog import WholeSchema
from melisma.tap.output import AnnouncedSchema
from melisma.tap.selection import Selection
from melisma.wire.output import protocol_output

if TYPE_CHECKING:
    import pyarrow as pa
    from singer_sdk.singerlib import CatalogEntry

    from melisma.arrow.encode import RecordEncoder
    from melisma.tap.tap import ArrowTap

__all__ = ["ArrowStream", "Progress", "StateClock", "slices"]

Context = Mapping[str, Any]

_LINES_AT_ONCE = 4_096
_BYTES_AT_ONCE = 2 << 20
_STATE_SHARE = 10  # at least so many bytes of records for each byte of STATE
_STATE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A position: a run that starts from this bookmark sends exactly what comes after it.

    Args:
        bookmark: keys that are set in the stream's bookmark, or a function that gives them. A function is called
            only when a STATE is due, so that a large bookmark costs nothing in between. Meltano merges states key
            by key, so write the same keys each time, with null for nothing.
    """

    bookmark: Mapping[str, Any] | Callable[[], Mapping[str, Any]]


class ArrowStream(Stream, abc.ABC):
    """A stream that reads record batches.

    Write `read_batches`. Records go out as whole blocks encoded from Arrow; through singer-sdk's own path, one
    record at a time with the same values, where it has work to do on records: custom stream maps, flattening, child
    streams, partitions and `post_process`. With `batch_config` they go out as files (`melisma.tap.batch`).
    """

    _tap: ArrowTap

    @abc.abstractmethod
    def read_batches(self, context: Context | None) -> Iterable[pa.RecordBatch | Progress]:
        """The stream's rows in order, and between them the positions that they lead to.

        A batch may have columns that the schema does not name or the catalog does not select: they are dropped. Ask
        `selected_columns` to leave them unread. Each column's type must fit the stream's JSON Schema.
        """

    @cached_property
    def selected_columns(self) -> list[str]:
        """The top-level columns that this run sends, in the schema's order."""
        return self._selection.columns(list(self.schema["properties"]))

    @cached_property
    def _selection(self) -> Selection:
        return Selection(self.mask, frozenset(self.effective_schema.get("properties", {})))

    # What singer-sdk calls.

    def __init__(self, tap: ArrowTap, schema: dict[str, Any] | None = None, name: str | None = None) -> None:
        super().__init__(tap, schema=schema, name=name)
        # A logger up to singer-sdk 0.54, an adapter of one from 0.55 on.
        getattr(self._logger, "logger", self._logger).addFilter(_one_line_per_error)

    @property
    def _singer_catalog_entry(self) -> CatalogEntry:
        entry = super()._singer_catalog_entry
        entry.schema = WholeSchema.of(self.schema)
        return entry

    def get_records(self, context: Context | None) -> Iterator[dict[str, Any]]:
        """The rows as records with the very values that the block path writes."""
        due = StateClock(self.STATE_MSG_FREQUENCY)
        for item in self.read_batches(context):
            if isinstance(item, Progress):
                self._take(item)
                self._between_positions = False
                if self._writes_records and due.strikes(self._tap.state_writer.last_size):
                    self._write_state_message()
                continue
            self._between_positions = True
            for record, size in self._records(item):
                yield record
                due.count(1, size)
        self._between_positions = False

    def _records(self, batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any], int]]:
        """A batch's rows as records, each with the length of its JSON."""
        import pyarrow as pa

        from melisma.arrow.encode import json_lines

        # A float that came from a float64 stays one, so that stream maps can reckon with it.
        exact = any(pa.types.is_decimal(each.type) or pa.types.is_nested(each.type) for each in batch.schema)
        for lines in slices(self._selection.apply(batch)):
            for line in json_lines(lines, stream=self.name).splitlines():
                yield json.loads(line, parse_float=Decimal if exact else float), len(line)

    def _sync_records(
        self, context: Context | None = None, *, write_messages: bool = True
    ) -> Generator[dict[str, Any], Any, Any]:
        if write_messages and context is None and self._plain_records():
            self._sync_blocks()
        else:
            self._writes_records = write_messages
            yield from super()._sync_records(context, write_messages=write_messages)
        if write_messages and self.selected:
            self._end_with_state()

    def get_batch_config(self, config: Mapping[str, Any]) -> BatchConfig | None:
        """None where records have to be looked at one by one: singer-sdk's files would hold them as they were before.

        Raises:
            ConfigError: the parts of `batch_config` do not go together.
        """
        if not config.get("batch_config") or not self.selected:
            return None
        if not self._plain_records():
            self.logger.info('stream "%s": its records are mapped, so they are sent as RECORD messages', self.name)
            return None
        settings = BatchSettings.read(config["batch_config"])
        return BatchConfig(
            BaseBatchFileEncoding(settings.format, settings.compression), StorageTarget(settings.root or "")
        )

    def _sync_batches(self, batch_config: BatchConfig, context: Context | None = None) -> None:
        del batch_config, context
        self._sync_files(BatchSettings.read(self.config["batch_config"]))
        self._end_with_state()

    def _end_with_state(self) -> None:
        # singer-sdk leaves out a last STATE without news; then a target cannot tell a whole run from a dead tap.
        self._settle()
        self._tap.state_writer.repeat_state(self.tap_state)

    def _write_state_message(self) -> None:
        # singer-sdk writes one after so many records. Between two positions it would be behind what was written, and
        # a run that starts from it would send those records again.
        if not self._between_positions:
            self._settle()
            super()._write_state_message()

    def _abort_sync(self, abort_reason: Exception) -> None:
        self._between_positions = False
        super()._abort_sync(abort_reason)

    def _increment_stream_state(self, latest_record: dict[str, Any], *, context: Context | None = None) -> None:
        """Bookmarks come from `Progress`, never from single records."""

    def _write_schema_message(self) -> None:
        for message in self._generate_schema_messages():
            self._tap.write_message(AnnouncedSchema.of(message))

    # Positions.

    _reached: Progress | None = None
    _between_positions = False  # on singer-sdk's path: records were written since the last position
    _writes_records = False

    def _take(self, progress: Progress) -> None:
        """Note a position. All rows before it are written: the batch before it has been taken whole."""
        self._reached = progress
        self.state_manager.is_flushed = False

    def _settle(self) -> None:
        """Bring the bookmark to the last position."""
        if self._reached is not None:
            bookmark = self._reached.bookmark
            self.stream_state.update(bookmark() if callable(bookmark) else bookmark)
            self._reached = None

    # The block path.

    def _plain_records(self) -> bool:
        """Whether nothing has to be done to single records."""
        maps = self.stream_maps
        return (
            self.selected
            and len(maps) == 1
            and type(maps[0]) is SameRecordTransform
            and not maps[0].flattening_enabled
            and not self.child_streams
            and not self.partitions
            and type(self).post_process is Stream.post_process
            and type(self).get_records is ArrowStream.get_records
        )

    def _sync_blocks(self) -> None:
        from melisma.arrow.encode import RecordEncoder

        alias = self.stream_maps[0].stream_alias
        if self.replication_key:
            self._write_starting_replication_value(None)
        encoder = RecordEncoder(alias, self._stream_version)
        due = StateClock(self.STATE_MSG_FREQUENCY)
        rows = 0
        with self.get_record_counter() as counter, self.get_sync_timer():
            for item in self.read_batches(None):
                if isinstance(item, Progress):
                    self._take(item)
                    if due.strikes(self._tap.state_writer.last_size):
                        self._write_state_message()
                    continue
                for block in slices(self._selection.apply(item)):
                    rows += self._write_block(block, encoder, rows, due)
                    counter.increment(block.num_rows)
            self._settle()
            self._finalize_state(self.stream_state)
            self.state_manager.is_flushed = True  # `_sync_records` writes the last STATE itself
        self._warn_not_finite(encoder.not_finite)

    def _warn_not_finite(self, counts: Mapping[str, int]) -> None:
        for column, count in counts.items():
            self.logger.warning(
                'stream "%s", column "%s": %d values that JSON has no number for (NaN or infinity) were sent as null',
                self.name,
                column,
                count,
            )

    def _sync_files(self, settings: BatchSettings) -> None:
        """The block path with BATCH messages in place of RECORD messages."""
        from melisma.tap.batch import BatchOutput

        if self.replication_key:
            self._write_starting_replication_value(None)
        alias, rows, limit = self.stream_maps[0].stream_alias, 0, self.ABORT_AT_RECORD_COUNT
        position: Progress | None = None  # whose rows are all gathered, but perhaps not written
        with (
            BatchOutput(self._tap.name, alias, settings, self._stream_version) as files,
            self.get_batch_counter() as batches,
            self.get_record_counter() as counter,
            self.get_sync_timer(),
        ):
            for item in self.read_batches(None):
                if isinstance(item, Progress):
                    position = item
                    if files.wants_state(self._tap.state_writer.last_size):
                        files.flush()
                        files.state_sent()
                        self._take(position)
                        self._write_state_message()
                    continue
                chosen = item if limit is None else item.slice(0, max(limit - rows, 0))
                files.add(self._selection.apply(chosen))
                rows += chosen.num_rows
                counter.increment(chosen.num_rows)
                if chosen.num_rows < item.num_rows:
                    files.flush()
                    self._check_max_record_limit(rows)
            files.flush()
            batches.increment(files.files)
            if position is not None:
                self._take(position)
            self._settle()
            self._finalize_state(self.stream_state)
            self.state_manager.is_flushed = True  # `_end_with_state` writes the last STATE
        self._warn_not_finite(files.not_finite)

    def _write_block(self, block: pa.RecordBatch, encoder: RecordEncoder, before: int, due: StateClock) -> int:
        """Write the block's rows, of which `before` came earlier; stops the sync at its record limit."""
        limit = self.ABORT_AT_RECORD_COUNT
        chosen = block if limit is None else block.slice(0, max(limit - before, 0))
        lines = encoder.encode(chosen, utc_now())
        if lines:
            protocol_output().write(lines)
            self.state_manager.is_flushed = False
            due.count(chosen.num_rows, len(lines))
        if chosen.num_rows < block.num_rows:
            self._check_max_record_limit(before + chosen.num_rows)
        return cast(int, chosen.num_rows)


class StateClock:
    """Says when a STATE is due: by rows, by time, and never so often that STATE outweighs the records."""

    def __init__(self, rows: int) -> None:
        self._every = rows
        self._rows = self._bytes = 0
        self._since = time.monotonic()

    def count(self, rows: int, size: int) -> None:
        """Rows that were written, and their bytes."""
        self._rows += rows
        self._bytes += size

    def strikes(self, state_size: int) -> bool:
        """Whether one is due; then the count begins anew."""
        if not self._rows or self._bytes < _STATE_SHARE * state_size:
            return False
        if self._rows < self._every and time.monotonic() - self._since < _STATE_SECONDS:
            return False
        self._rows = self._bytes = 0
        self._since = time.monotonic()
        return True


def slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in pieces whose lines take a few megabytes at most, however wide its rows are."""
    size = max(batch.nbytes, 1)
    rows = max(1, min(_LINES_AT_ONCE, _BYTES_AT_ONCE * batch.num_rows // size))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def _one_line_per_error(record: logging.LogRecord) -> bool:
    """Leave out singer-sdk's line that says no more than that the next line is an error."""
    return not (isinstance(record.msg, str) and record.msg.startswith("An unhandled error occurred while syncing"))
