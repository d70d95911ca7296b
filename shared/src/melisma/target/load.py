"""One run of a target: from blocks of lines to commits, with STATE never ahead of the data.

The barrier: a STATE goes out only when every record of every stream that came before it is durable. Rows after the
newest STATE (the tail) are committed only at a clean end of input; an input that breaks off, a bad record or a signal
commits what the newest STATE settles and drops the tail, which the tap will send again.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from melisma.arrow.metadata import BatchMetadata
from melisma.errors import BadMessage, InputError, TruncatedInput, printable
from melisma.lake.lake import Facts
from melisma.lake.records import RowCounts
from melisma.lake.spill import SpillFile
from melisma.target.decoding import DecodedWindow, WindowDecoder
from melisma.target.ending import refuse_cut_tail
from melisma.target.generations import RowVersions, activate, finish
from melisma.target.window import State, Window
from melisma.wire.batch import Batch, read_batch
from melisma.wire.blocks import BLOCK_BYTES
from melisma.wire.framing import Run, framer
from melisma.wire.messages import Message, announces_state, envelope, state_text
from melisma.wire.position import has_progress_markers, load_state

if TYPE_CHECKING:
    from melisma.arrow.decode import Decoded
    from melisma.target.bad_records import BadRecords
    from melisma.target.batch import Batches
    from melisma.target.route import Route
    from melisma.target.sink import ArrowSink, PendingRows
    from melisma.target.tally import Tally
    from melisma.wire.output import ProtocolOutput

__all__ = ["Destination", "Load", "Streams"]

_MOST_NAMES = 1_000
"""Field names come with the data: from so many on they are counted together, so that memory and log stay bounded."""


class Destination(Protocol):
    """Where data and STATE become durable together (DESIGN: the commit)."""

    def recover(self) -> None:
        """Take the pipeline for this run, and undo what a crashed run left without a commit."""

    def committed_state(self) -> bytes:
        """The STATE that was last committed, as JSON text; `{}` if there is none."""

    def start(self, announced: bytes | None, /, *, announces: bool) -> None:
        """How the tap began: the STATE before its first SCHEMA, and whether it says that it always sends one."""

    def commit(self, staged: Sequence[Any], state: bytes | None, facts: Facts, /) -> int:
        """Make what the writers finished durable and visible together with the STATE, or nothing of it.

        How many files it added is returned.
        """

    def schema(self, stream: str, /) -> Mapping[str, Any] | None:
        """What was last committed of a stream's schema (`ArrowSink.described`); None for a new stream."""

    def release(self) -> None:
        """Called before a STATE goes out."""

    def end(self) -> None:
        """Everything is committed, and the run is over."""

    def close(self) -> None:
        """Drop what is staged and not committed, and give the pipeline back."""


class Streams(Protocol):
    """The target's side: what becomes of SCHEMA messages."""

    def route(self, message: Message) -> Route:
        """The route of a SCHEMA message; sinks that it replaces are kept until the next commit."""

    def before_schema(self, run: Run) -> InputError:
        """The error for records that come before their SCHEMA."""


class Load:
    """Carries one input to a destination.

    Args:
        streams: makes routes from SCHEMA messages.
        destination: where it goes.
        output: where committed STATEs are printed.
        logger: for warnings and the summary.
        commit_seconds: how old uncommitted rows may be when a STATE comes, before they are committed under it.
        bad: what becomes of bad records.
        batches: reads the files of BATCH messages.
        sync_started_at: for the `_sdc_*` columns, milliseconds since 1970.
        trust_eof: the end of the input is evidence enough that a generation is whole.
        disk_bytes: how much disk lines may take that wait to be decoded.
        clock: monotonic seconds.

    Attributes:
        block_bytes: how large blocks it is best fed with.
    """

    def __init__(
        self,
        streams: Streams,
        destination: Destination,
        output: ProtocolOutput,
        logger: logging.Logger,
        *,
        commit_seconds: float,
        bad: BadRecords,
        batches: Batches,
        sync_started_at: int,
        trust_eof: bool = False,
        disk_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._streams, self._destination, self._output, self._log = streams, destination, output, logger
        self._commit_seconds, self.bad, self.batches = commit_seconds, bad, batches
        self._sync_started_at, self._trust_eof, self._clock = sync_started_at, trust_eof, clock
        self._framer = framer()
        self._versions = RowVersions()
        self._aside, self._disk_bytes = SpillFile(), disk_bytes
        self._window = self._new_window()
        self._routes: dict[str, Route] = {}
        self._decoder = WindowDecoder(self._routes, bad, disk_bytes)
        self._retired: list[tuple[str, ArrowSink]] = []  # with their input streams
        self._held: frozenset[str] = frozenset()  # output streams whose progress the newest STATE forgets
        self._state: bytes | None = None  # the newest STATE whose records are all with their writers
        self._announced: bytes | None = None  # the STATE before the first SCHEMA
        self._started = self._committing = False
        self._announces = False
        self._released: bytes | None = None  # the newest STATE that was printed
        self._committed_at = clock()
        self._batched_at = _now()
        self._warned: set[tuple[str, ...]] = set()
        self._rest = b""
        self.block_bytes = BLOCK_BYTES
        self.counts: Counter[str] = Counter()
        self.discarded: Counter[tuple[str, str]] = Counter()
        self.unknown: Counter[tuple[str, str]] = Counter()

    @property
    def records(self) -> int:
        """RECORD messages read so far."""
        return self.counts["RECORD"]

    def feed(self, block: bytes) -> None:
        """Take a block of the input: whole lines, or nothing if the input is idle.

        Raises:
            InputError: something in it is wrong. What the newest STATE before it settles is still to be committed,
                by `stop`.
        """
        if not block:
            self._idle()
            return
        if not block.endswith(b"\n"):
            self._rest = block[block.rfind(b"\n") + 1 :]
            block = block[: len(block) - len(self._rest)]
        # Until a commit is due, STATEs need not keep records apart: the window cuts at lines, not at messages.
        apart = self._overdue or self._versions.named
        early: InputError | None = None  # records that come before their SCHEMA: STATEs before them count
        try:
            for part in self._framer.cut(block, states_apart=apart):
                if isinstance(part, Run) and part.stream in self._routes:
                    self._take(part)
                elif isinstance(part, Run):
                    found = self._streams.before_schema(part)
                    early = found if early is None else min(early, found, key=_line)
                elif early is None or part.line < _line(early):
                    self._meet(part, commit=apart)
                else:
                    break
            if early is not None:
                raise early
        except InputError as error:
            first = min(early or error, error, key=_line)
            try:
                self._flush()  # an earlier fault in what was read before this one is raised instead
            except InputError as other:
                first = min(first, other, key=_line)
            raise first from first.__cause__
        if self._window.streams:
            self.block_bytes = self._window.block_bytes
        self._window.relieve()
        if self._window.full:
            self._flush()

    def end(self) -> None:
        """The input has ended: commit everything.

        Raises:
            TruncatedInput: it ended in the middle of a line.
            TapDied: it ended at a line's end, but the tap cannot have been done.
        """
        rest, self._rest = self._rest, b""
        if rest.strip():
            line = self._framer.line + 1
            try:
                envelope(rest.strip(), line)
            except InputError as error:
                self._flush()
                raise TruncatedInput(
                    "the input breaks off in the middle of a line, so the tap must have failed",
                    line=line,
                    fix="What its last STATE covers is committed; run it again",
                ) from error
            self.feed(rest + b"\n")
        self._flush()
        self._start()
        tails = [(name, sink) for name, sink in self._named_sinks() if sink.has_tail]
        refuse_cut_tail(
            tails,
            self._state or self._announced,
            self._routes,
            announces=self._announces,
            trust_eof=self._trust_eof,
        )
        finish(self._sinks(), trust_eof=self._trust_eof)
        for sink in self._sinks():
            sink.settle()
        self._aside.close()
        self._decoder.close()
        self._commit()
        if self._released is None and self._announced is not None:
            self._print(self._announced)
        self._destination.end()

    def stop(self) -> None:
        """The run cannot go on: commit what the newest STATE settles, and drop the rest.

        Where it was a commit that failed, its rows are gone with it: a second one would be of a STATE without them.
        """
        if self._started and not self._committing:
            self._commit()
        self.abandon()

    def abandon(self) -> None:
        """Drop everything that is not committed."""
        self._aside.close()
        self._decoder.close()
        for sink in self._sinks():
            sink.abandon()

    def _idle(self) -> None:
        """Nothing comes: decode what is there, and commit if that is due."""
        self._flush()
        if self._due():
            self._commit()

    def _due(self) -> bool:
        return self._overdue and self._state != self._released

    @property
    def _overdue(self) -> bool:
        return self._clock() - self._committed_at >= self._commit_seconds

    def _take(self, run: Run) -> None:
        self.counts["RECORD"] += len(run.lines)
        columns = self._routes[run.stream].width
        for part, version, other in self._versions.cut(run):
            if other:
                self._flush()
                for sink in self._routes[run.stream].sinks:
                    sink.begin(version)
            self._window.add(part, columns)

    def _meet(self, message: Message, *, commit: bool) -> None:
        self.counts[message.type] += 1
        match message.type:
            case "STATE":
                if not self._started:
                    self._announced = state_text(message)
                    return
                self._window.add_state(State(state_text(message), message.line))
                if commit and self._overdue:
                    self._flush()
                    self._commit()
            case "SCHEMA":
                self._flush()
                self._route(message)
            case "ACTIVATE_VERSION":
                self._flush()
                for warning in activate(message, self._routes, self._commit):
                    self._warn(warning, message.type, warning)
            case "BATCH":
                self._flush()
                self._take_batch(read_batch(message))
            case _:
                self._warn(
                    f'messages of type "{printable(message.type, 40)}" are not known and are passed over', message.type
                )

    def _take_batch(self, batch: Batch) -> None:
        """Write the rows of a BATCH message's files. Until the next STATE they are tail rows, as any others."""
        route = self._routes.get(batch.stream)
        if route is None:
            raise BadMessage(
                "a BATCH message comes before the SCHEMA of its stream", line=batch.line, fix="Mend the tap"
            )
        if self._versions.changes(batch.stream, batch.version):
            for sink in route.sinks:
                sink.begin(batch.version)
        metadata = BatchMetadata(_now(), self._batched_at, self._sync_started_at)
        for piece in self.batches.read(batch, route):
            self.counts["RECORD"] += piece.rows
            noted = [(sink.stream_name, decoded) for sink, decoded, _ in piece.results]
            rows: list[PendingRows] = []
            for sink, decoded, lines in piece.results:
                letters = self.bad.letters(decoded, piece.run(), metadata.received_at) if decoded.bad else None
                rows.append(sink.take(decoded, lines, 0, metadata, letters))
            fault = self.bad.fault([decoded for _, decoded in noted])
            if fault is not None:
                raise fault
            self._note(noted)
            for each in rows:
                each.write_tail()

    def _start(self, *, announces: bool = False) -> None:
        if not self._started:
            self._started, self._announces = True, announces
            self._destination.start(self._announced, announces=announces)

    def _route(self, message: Message) -> None:
        if not self._started:
            self._start(announces=announces_state(message))
        known = self._routes.get(envelope(message.data, message.line).stream or "")
        if known is not None and known.schema_line == message.data:
            return
        route = self._streams.route(message)
        if known is not None:
            kept = set(map(id, route.sinks))
            retired = [sink for sink in known.sinks if id(sink) not in kept]
            self._retired += [(route.stream, sink) for sink in retired]
            for sink in route.sinks:
                for former in retired:
                    if former.stream_name == sink.stream_name:
                        sink.follow(former)
        self._routes[route.stream] = route

    def _flush(self) -> None:
        """Decode the window and hand its rows to the writers.

        Raises:
            InputError: the first fault in it; what its newest STATE before the fault settles is with the writers.
        """
        if self._window.empty:
            return
        window, self._window = self._window, self._new_window()
        metadata = BatchMetadata(_now(), self._batched_at, self._sync_started_at)
        state = window.states[-1] if window.states else None
        first: InputError | None = None  # in the input; one may hide another that comes before it
        try:
            found = self._decoder.decode(window, state, metadata)
            while (fault := self._write(found, state)) is not None:
                first, line = fault, _line(fault)
                found.drop()
                state = next((each for each in reversed(window.states) if each.line < line), None)
                found = self._decoder.decode(window, state, metadata, upto=line)
            if first is not None:
                raise first
        finally:
            window.drop()

    def _new_window(self) -> Window:
        return Window(self._aside, self._disk_bytes, self.bad.most_lines)

    def _write(self, found: DecodedWindow, state: State | None) -> InputError | None:
        """Hand a window's rows to the writers; returns its first fault, and then nothing was written.

        Args:
            found: what it became.
            state: the newest STATE that counts.
        """
        bad = self.bad.fault([decoded for _, decoded in found.noted])
        faults = found.faults if bad is None else [*found.faults, bad]
        if faults:
            return min(faults, key=_line)
        self._note(found.noted)
        if state is not None:
            for each in found.rows:
                each.write_settled()
            held = self._unsettled_by(state)
            for sink in self._sinks():
                if id(sink) not in held:
                    sink.settle()
            self._held = frozenset(sink.stream_name for sink in self._sinks() if id(sink) in held)
            self._state = state.text
        for each in found.rows:
            each.write_tail()
        return None

    def _unsettled_by(self, state: State) -> set[int]:
        """The sinks of streams whose progress the tap forgets if it starts from this STATE: they stay staged."""
        if b"progress_markers" not in state.text:
            return set()
        value = load_state(state.text)
        return {id(sink) for name, sink in self._named_sinks() if has_progress_markers(value, name)}

    def _commit(self) -> None:
        sinks = list(self._sinks())
        if any(sink.generation.holding for sink in sinks):
            self._committed_at = self._clock()  # a STATE would cover rows that wait
            return
        self._committing = True  # and it stays so if it fails
        staged: list[Any] = []
        facts = Facts(held=self._held)
        for sink in sinks:
            sink.flush_settled()
        for sink in sinks:
            files, tally = sink.take_settled()
            staged += files
            if tally.read:
                _state_facts(facts, sink, tally)
            sink.generation.describe(facts)
        if staged or facts.switches or self._state != self._released:
            self.counts["files"] += self._destination.commit(staged, self._state, facts)
            self.counts["commits"] += 1
            for sink in sinks:
                sink.generation.committed()
        self._retired = [(name, sink) for name, sink in self._retired if sink.has_tail]
        if self._state is not None and self._state != self._released:
            self._print(self._state)
        self._committed_at = self._clock()
        self._batched_at = _now()
        self._committing = False

    def _print(self, state: bytes) -> None:
        self._destination.release()
        self._output.write(state + b"\n")
        self._output.flush()
        self._released = state

    def _sinks(self) -> Iterable[ArrowSink]:
        return {id(sink): sink for _, sink in self._named_sinks()}.values()

    def _named_sinks(self) -> Iterable[tuple[str, ArrowSink]]:
        """Each input stream with its sinks, those that a SCHEMA has replaced first; a sink may be of several."""
        yield from self._retired
        for name, route in self._routes.items():
            for sink in route.sinks:
                yield name, sink

    def _note(self, found: Sequence[tuple[str, Decoded]]) -> None:
        for stream, decoded in found:
            self._note_unknown(stream, decoded.unknown)
            self.bad.note(decoded)
            for column, count in decoded.discarded.items():
                self.discarded[stream, column] += count

    def _note_unknown(self, stream: str, unknown: Counter[str]) -> None:
        for name, count in sorted(unknown.items()):
            if (stream, name) not in self.unknown and len(self.unknown) >= _MOST_NAMES:
                name = "(other fields)"
            self.unknown[stream, name] += count
            self._warn(
                f'stream "{printable(stream)}": "{printable(name)}" is not in the schema, its values are not stored '
                "(on_unknown_field: warn). Add it to the tap's schema, or set on_unknown_field to drop or fail",
                stream,
                name,
            )

    def _warn(self, text: str, *key: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            self._log.warning(text)


def _state_facts(facts: Facts, sink: ArrowSink, tally: Tally) -> None:
    stream = sink.stream_name
    before = facts.counts.get(stream, RowCounts(read=0))
    facts.counts[stream] = RowCounts(
        read=before.read + tally.read,
        written=before.written + tally.written,
        repeated=before.repeated + tally.repeated,
        skipped=before.skipped + tally.skipped,
        dead=before.dead + tally.dead,
    )
    facts.schemas[stream] = sink.described
    if sink.boundary is not None:
        facts.boundaries[stream] = sink.boundary


def _line(error: InputError) -> int:
    return error.line or 0


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
