"""One stream's way from records to the destination's writer."""

from __future__ import annotations

import copy
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import msgspec
import pyarrow as pa
from singer_sdk.sinks import Sink

from melisma.arrow.decode import Decoded, RunDecoder
from melisma.arrow.metadata import COMPUTED, METADATA_COLUMNS, BatchMetadata
from melisma.arrow.schema import stream_schema
from melisma.arrow.types import ColumnType, StreamSchema
from melisma.errors import BadSchema
from melisma.lake.boundary import BoundaryRows
from melisma.lake.spill import Spill, Spilled
from melisma.target.tally import Tally

if TYPE_CHECKING:
    from melisma.arrow.rows import RecordLine
    from melisma.formats.parquet import ParquetOptions
    from melisma.lake.records import Boundary
    from melisma.lake.replay import LoadMethod
    from melisma.target.target import ArrowTarget
    from melisma.wire.framing import Run

__all__ = ["ArrowSink", "PendingRows", "Writer"]

_JSON = msgspec.json.Encoder(decimal_format="number")


class Writer(Protocol):
    """What a destination gives a sink for one stream (and schema)."""

    def write(self, batch: pa.RecordBatch, /) -> None:
        """Take rows. Until `settle` they are tail rows."""

    def settle(self) -> None:
        """A STATE was read: every row taken so far may be committed under it."""

    def flush_settled(self) -> None:
        """Begin to finish the settled rows; `take_settled` comes next, after that of other writers."""

    def take_settled(self) -> Sequence[Any]:
        """Finish the settled rows; the tail stays. What is returned is what `commit` takes."""

    def abandon(self) -> None:
        """Drop everything that is not committed."""


class ArrowSink(Sink):
    """A sink that takes whole batches. Write `open_writer`; the rest is here.

    Args:
        target: the target, for its configuration.
        stream_name: the stream's name.
        schema: its JSON Schema.
        key_properties: its primary key.

    Attributes:
        columns: the stream as columns, with the `_sdc_*` columns if they are wanted.
        replication_key: the stream's bookmark property, if it has one.
        method: its load method.
        source: the input stream's SCHEMA, where stream maps stand between it and this one.

    Raises:
        BadSchema: the schema cannot be mapped to columns.
    """

    def __init__(
        self,
        target: ArrowTarget,
        stream_name: str,
        schema: dict[str, Any],
        key_properties: Sequence[str] | None,
    ) -> None:
        self.target = target
        super().__init__(target, stream_name, copy.deepcopy(schema), key_properties)
        config = target.config
        if config.get("load_method") == "upsert" and config.get("hard_delete"):
            # Taps send it whether their schema names it or not; passed over, deleted rows would stay.
            self.schema["properties"].setdefault("_sdc_deleted_at", {"type": ["null", "string"], "format": "date-time"})
        overrides = for_stream(config.get("column_types"), stream_name)
        incoming = stream_schema(stream_name, self.schema, key_properties or (), overrides)
        if not incoming.fields:
            raise BadSchema(
                "has no columns to store", stream=stream_name, fix="Set add_record_metadata, or deselect it"
            )
        with_metadata = self.include_sdc_metadata_properties
        self.evolution = target.tables.evolve(incoming, computed=COMPUTED if with_metadata else frozenset())
        self.columns = self.evolution.columns
        self.decoder = RunDecoder(
            _without_computed(self.evolution.reads) if with_metadata else self.evolution.reads,
            validate=config.get("validate_records", True),
            on_unknown_field=config.get("on_unknown_field", "warn"),
            ignored=METADATA_COLUMNS,
            envelope=with_metadata,
        )
        self.method: LoadMethod = config.get("load_method", "append-only")
        self.generation = target.generations.of(stream_name)
        self.replication_key = target.replication_keys.get(stream_name)
        decision = target.decide(stream_name, self.method)
        self._boundary: BoundaryRows | None = None
        if self.replication_key in self.columns.arrow.names and self.method == "append-only":
            self._boundary = BoundaryRows(str(self.replication_key), decision.boundary)
        self._settled_boundary = self._boundary.boundary if self._boundary is not None else None
        self._settled, self._tail = Tally(), Tally()
        self._writer: Writer | None = None
        self._former: list[Writer] = []  # of rows of other versions
        self._letters: Writer | None = None
        self.source: dict[str, Any] | None = None

    def open_writer(self) -> Writer:
        """The destination's writer for `self.columns`. Called when the first rows come."""
        raise NotImplementedError

    def open_letters(self) -> Any:
        """The destination's writer for dead letters."""
        raise NotImplementedError

    @property
    def mark_options(self) -> ParquetOptions | None:
        """How files are written anew to mark rows in them; None where that cannot be done."""
        return None

    def begin(self, version: int | None) -> None:
        """The rows from now on are of this version of the table."""
        if self._writer is not None:
            self._former.append(self._writer)
            self._writer = None
        self.generation.begin(version)
        if self._boundary is not None and version not in {None, self.generation.current}:
            self._boundary = BoundaryRows(str(self.replication_key))  # those rows are of another version

    def follow(self, former: ArrowSink) -> None:
        """Take over from the sink of the input stream's SCHEMA before: the rows at the highest key are of both."""
        mine, theirs = self._boundary, former._boundary
        if mine is not None and theirs is not None and mine.column == theirs.column:
            self._boundary, self._settled_boundary = theirs, former._settled_boundary

    @property
    def described(self) -> dict[str, Any]:
        """What the destination keeps of the stream's schema."""
        keys = list(self.columns.key_properties)
        found = {"schema": self.columns.json_schema, "key_properties": keys, **self.evolution.table.describe()}
        if self.source is not None:
            found["source"] = self.source
        plain: dict[str, Any] = json.loads(_JSON.encode(found))  # a schema's numbers are read as Decimal
        return plain

    def decode(self, run: Run) -> Decoded:
        """Decode a run into the stream's columns.

        Raises:
            BadMessage: a line is not a RECORD of this stream.
        """
        return self.evolution.apply(self.decoder.decode(run), run.lines)

    def decode_records(
        self, messages: Sequence[RecordLine], records: Sequence[dict[str, Any]], lines: Sequence[int]
    ) -> Decoded:
        """The same for records that stream maps may have changed; see `RunDecoder.by_messages`."""
        return self.evolution.apply(self.decoder.by_messages(messages, records, lines), lines)

    @property
    def has_tail(self) -> bool:
        """Whether records were taken after the newest STATE."""
        return self._tail.read > 0

    @property
    def tail_key(self) -> Any:
        """The highest replication key among the tail's rows, as a Python value; None if there is none."""
        return self._tail.highest

    @property
    def boundary(self) -> Boundary | None:
        """The settled rows at the highest replication key."""
        return self._settled_boundary

    def take(
        self,
        decoded: Decoded,
        lines: Sequence[int],
        settled_before: int,
        metadata: BatchMetadata,
        letters: pa.RecordBatch | None = None,
    ) -> PendingRows:
        """What `write` takes: the rows of a decoded run, with where its settled rows end.

        Args:
            decoded: the run's rows, which are taken out of it.
            lines: the line of each record that went into it.
            settled_before: the line of the newest STATE (0: none); rows of earlier lines are settled by it.
            metadata: what the `_sdc_*` columns say.
            letters: the dead letter of each bad record, as rows; None where they are skipped.
        """
        settled = bisect_left(lines, settled_before) if settled_before else 0
        skipped = sum(1 for row, _ in decoded.bad if row < settled)
        batch = decoded.batch
        if self.include_sdc_metadata_properties:
            computed = metadata.columns(batch.num_rows, decoded.extracted, decoded.versions)
            arrays = [computed[name] if name in COMPUTED else batch.column(name) for name in self.columns.arrow.names]
            batch = pa.RecordBatch.from_arrays(arrays, schema=self.columns.arrow)
        decoded.release()
        return PendingRows(self, batch, settled - skipped, skipped, len(decoded.bad) - skipped, letters)

    def write(self, batch: pa.RecordBatch | None, skipped: int, letters: pa.RecordBatch | None = None) -> None:
        """Hand rows to the writer, in order; `skipped` bad records were left out of them, with a dead letter or not."""
        self._tail.read += skipped
        if letters is None:
            self._tail.skipped += skipped
        else:
            self._tail.dead += skipped
            self._letters = self._letters or self.open_letters()
            self._letters.write(letters)
        if batch is None:
            return
        self._tail.read += batch.num_rows
        self._tail.see(batch, self.replication_key)
        if self._boundary is not None:
            batch, repeated = self._boundary.take(batch)
            self._tail.repeated += repeated
        if batch.num_rows:
            if self._writer is None:
                self._writer = self.open_writer()
            self._writer.write(batch)
            self._tail.written += batch.num_rows
            self.generation.wrote()
            self.tally_record_read(batch.num_rows)
            self.record_counter_metric.increment(batch.num_rows)

    def settle(self) -> None:
        """Every row written so far may be committed."""
        self.generation.settle()
        if not self.has_tail:
            return
        for writer in (*self._former, self._writer, self._letters):
            if writer is not None:
                writer.settle()
        if self._boundary is not None:
            self._settled_boundary = self._boundary.boundary
        self._settled.add(self._tail)
        self._tail = Tally()

    def flush_settled(self) -> None:
        """Begin to finish the settled rows: one stream's are encoded while the next one's are fetched."""
        for writer in (*self._former, self._writer):
            if writer is not None:
                writer.flush_settled()

    def take_settled(self) -> tuple[Sequence[Any], Tally]:
        """Finish the settled rows, and say what became of the records behind them; the tail stays."""
        tally, self._settled = self._settled, Tally()
        writers = [each for each in (*self._former, self._writer, self._letters) if each is not None]
        files = [file for each in writers for file in each.take_settled()]
        if not self.has_tail:
            self._former = []
        return files, tally

    def abandon(self) -> None:
        """Drop what is not committed."""
        writers = (*self._former, self._writer, self._letters)
        self._former, self._writer, self._letters, self._tail = [], None, None, Tally()
        for writer in writers:
            if writer is not None:
                writer.abandon()

    def get_validator(self) -> None:
        """None: batches are validated by column, see `melisma.arrow.validate`."""
        return

    def process_record(self, record: dict[str, Any], context: dict[str, Any]) -> NoReturn:
        """Not used: records come by the batch."""
        raise NotImplementedError

    def process_batch(self, context: dict[str, Any]) -> NoReturn:
        """Not used: records come by the batch."""
        raise NotImplementedError


class PendingRows:
    """Rows on their way into a sink's writer, cut where the newest STATE stands.

    Args:
        sink: where they go.
        batch: the rows.
        settled: how many of them come before the STATE.
        before: bad records that were left out of those.
        after: and of the others.
        letters: the dead letter of each bad record, as rows; None where they are skipped.

    Attributes:
        bytes: Arrow bytes in memory.
    """

    __slots__ = ("_settled", "_tail", "bytes", "sink")

    def __init__(
        self,
        sink: ArrowSink,
        batch: pa.RecordBatch,
        settled: int,
        before: int,
        after: int,
        letters: pa.RecordBatch | None = None,
    ) -> None:
        self.sink, self.bytes = sink, batch.nbytes + (0 if letters is None else letters.nbytes)
        self._settled = _Half(batch.slice(0, settled), before, None if letters is None else letters.slice(0, before))
        self._tail = _Half(batch.slice(settled), after, None if letters is None else letters.slice(before))

    def set_aside(self, spill: Spill) -> None:
        """Move the rows to the disk, if it takes them."""
        if self.bytes:
            self._settled.set_aside(spill)
            self._tail.set_aside(spill)
            self.bytes = 0

    def drop(self) -> None:
        """They are not wanted."""
        self._settled.drop()
        self._tail.drop()

    def write_settled(self) -> None:
        """Hand over those before the newest STATE. Once."""
        self._settled.write(self.sink)

    def write_tail(self) -> None:
        """Hand over those after it. Once."""
        self._tail.write(self.sink)


class _Half:
    __slots__ = ("_letters", "_rows", "_skipped")

    def __init__(self, rows: pa.RecordBatch, skipped: int, letters: pa.RecordBatch | None) -> None:
        self._rows, self._skipped, self._letters = _Held(rows), skipped, _Held(letters)

    def set_aside(self, spill: Spill) -> None:
        self._rows.set_aside(spill)
        self._letters.set_aside(spill)

    def drop(self) -> None:
        self._rows.drop()
        self._letters.drop()

    def write(self, sink: ArrowSink) -> None:
        rows, letters = self._rows.take(), self._letters.take()
        if rows is not None or self._skipped:
            sink.write(rows, self._skipped, letters)


class _Held:
    """Rows, in memory or on the disk; None where there are none."""

    __slots__ = ("_batch",)

    def __init__(self, batch: pa.RecordBatch | None) -> None:
        # A slice holds all of what it was cut from, even one without rows.
        self._batch: pa.RecordBatch | Spilled | None = batch if batch is not None and batch.num_rows else None

    def set_aside(self, spill: Spill) -> None:
        if isinstance(self._batch, pa.RecordBatch):
            self._batch = spill.put(self._batch) or self._batch

    def drop(self) -> None:
        if isinstance(self._batch, Spilled):
            self._batch.drop()
        self._batch = None

    def take(self) -> pa.RecordBatch | None:
        batch, self._batch = self._batch, None
        return batch.read() if isinstance(batch, Spilled) else batch


def for_stream(setting: Mapping[str, Any] | None, stream: str) -> dict[str, Any]:
    """The part of a setting by stream that is about this one; `*` is for all streams, a stream's own goes first."""
    if not setting:
        return {}
    return {**setting.get("*", {}), **setting.get(stream, {})}


def _without_computed(schema: StreamSchema) -> StreamSchema:
    fields = tuple(each for each in schema.fields if each.name not in COMPUTED)
    root = schema.root
    arrow = pa.struct([(each.name, each.type.arrow) for each in fields])
    record = ColumnType(root.kind, arrow, root.nullable, root.schema, fields, closed=root.closed)
    return StreamSchema(schema.stream, record, schema.key_properties, schema.json_schema)
