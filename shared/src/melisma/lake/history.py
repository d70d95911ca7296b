"""What a journal comes to: its entries folded, in order, into what the next run has to know.

It is kept small, so that a checkpoint of it is read in one go: per stream only what the runner has not yet
acknowledged, capped where a lake's age could make it grow. Where a cap bites, knowledge of old positions is
lost, and the replay decision then keeps rows (`melisma.lake.replay`), never removes any.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from melisma.lake.records import (
    Boundary,
    Commit,
    Compact,
    Cut,
    End,
    FileEntry,
    Intent,
    Open,
    Process,
    Record,
    Release,
    Rollback,
)

__all__ = ["History", "Mark", "RunInfo", "StreamHistory"]

_MARKS = 5000  # positions of unacknowledged commits
_PAST = 200  # positions that were acknowledged and left
_VOID = 5000  # positions whose rows were removed again
_BOUNDARIES = 100  # marks that keep their boundary rows
_GAPS = 200  # stretches of entries whose rows of a stream are no longer there
_VOIDED_INTENTS = 10  # intents undone, which every open undoes again, for a writer that wakes up late


class Mark(Struct, omit_defaults=True, kw_only=True):
    """A position, and the last entry at which it was the stream's."""

    seq: int
    position: str
    boundary: Boundary | None = None


class RunInfo(Struct, omit_defaults=True, kw_only=True):
    """What is known of a run.

    Attributes:
        opened: the sequence number of its open entry.
        silent: its tap announced no starting STATE. None until its first commit.
        refused: streams at a position from which they must not go on; passing by does not make it a good one.
        behind: those of them that only started too early.
    """

    opened: int
    clean: bool = False
    released: bool = False
    silent: bool | None = None
    refused: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)


class StreamHistory(Struct, omit_defaults=True, kw_only=True):
    """What is known of a stream.

    Attributes:
        acked: everything up to this entry is acknowledged: it is never removed by a replay.
        marks: the positions since then, ascending; the first may be the acknowledged one itself.
        base: the acknowledged position, where the stream has one of its own.
        past: positions before that.
        void: positions whose rows are no longer there.
        gaps: entries, first and last, whose positions say nothing of this stream, or whose rows are no longer there.
        behind: those of them where none is missing: the tap had started before rows that are there.
        files: the files after `acked`, ascending.
        pending_before: files of earlier entries than this one are pending: the run that was opened there was to
            bring their rows again, and has not yet.
        full_table: the last rows came at a STATE that names the stream with an empty bookmark, or with versions.
        named: a STATE has named it.
    """

    acked: int = 0
    marks: list[Mark] = field(default_factory=list)
    base: str = ""
    past: list[Mark] = field(default_factory=list)
    void: list[str] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    behind: list[tuple[int, int]] = field(default_factory=list)
    files: list[FileEntry] = field(default_factory=list)
    pending_before: int = 0
    full_table: bool = False
    named: bool = False
    version: int | None = None
    schema: Any = None

    @property
    def pending(self) -> list[FileEntry]:
        """The files that wait to be replaced since an earlier run."""
        return [file for file in self.files if file.seq < self.pending_before]


class History(Struct, omit_defaults=True, kw_only=True):
    """The journal up to and with entry `seq`.

    Attributes:
        checkpoint: the entry at which the last checkpoint stands; `attempts`, `added` and `removed` are since.
        wholes: positions of the whole STATE, for streams that it does not name.
        announces: a tap of this pipeline has announced a starting STATE before.
        intents: what is about to become visible, by actor.
        voided: intents of fenced actors, newest last.
        undeleted: files that an entry removed and that may still be there, by the actor who is to delete them.
    """

    seq: int = 0
    checkpoint: int = 0
    state: str | None = None
    state_seq: int = 0
    last_run: str = ""
    process: Process = field(default_factory=Process)
    announces: bool = False
    runs: dict[str, RunInfo] = field(default_factory=dict)
    streams: dict[str, StreamHistory] = field(default_factory=dict)
    wholes: list[Mark] = field(default_factory=list)
    intents: dict[str, Intent] = field(default_factory=dict)
    voided: list[Intent] = field(default_factory=list)
    undeleted: dict[str, list[str]] = field(default_factory=dict)
    attempts: dict[str, str] = field(default_factory=dict)
    added: list[FileEntry] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def stream(self, name: str) -> StreamHistory:
        """What is known of `name`; an empty history is begun for a new one."""
        return self.streams.setdefault(name, StreamHistory())

    def fold(self, record: Record) -> None:
        """Take in the next entry."""
        self.seq = record.seq
        self.attempts[str(record.seq)] = record.attempt
        if isinstance(record, Open):
            self._open(record)
            return
        # An actor writes nothing more before it has done the deletes of its last entry.
        self.undeleted.pop(record.run, None)
        if isinstance(record, Intent):
            self.intents[record.run] = record
        elif isinstance(record, Commit):
            self._commit(record)
        elif isinstance(record, Compact):
            self._compact(record)
        elif isinstance(record, Rollback):
            self._rollback(record)
        elif isinstance(record, Release):
            self.runs[record.run].released = True
        else:
            assert isinstance(record, End)  # noqa: S101 - exhaustive; the decoder knows no other kind
            self.runs[record.run].clean = True

    def _open(self, record: Open) -> None:
        self.voided = [*self.voided, *self.intents.values()][-_VOIDED_INTENTS:]
        self.intents = {}
        left = [path for paths in self.undeleted.values() for path in paths]
        self.undeleted = {record.run: left} if left else {}
        self.last_run, self.process = record.run, record.process
        in_use = {file.run for stream in self.streams.values() for file in stream.files}
        self.runs = {run: info for run, info in self.runs.items() if run in in_use}
        self.runs[record.run] = RunInfo(opened=record.seq)
        waiting = min((stream.acked for stream in self.streams.values() if stream.files), default=self.seq)
        older = sum(mark.seq < waiting for mark in self.wholes)
        del self.wholes[: max(0, older - _PAST)]

    def _commit(self, record: Commit) -> None:
        run = self.runs[record.run]
        self.intents.pop(record.run, None)
        if record.announced is not None:
            run.silent = not record.announced
        self.announces = self.announces or record.announces or bool(record.announced)
        run.refused += record.refused
        run.behind += record.behind
        for name, cut in record.cuts.items():
            self._cut(self.stream(name), cut, run.opened)
        self._remove(record.run, record.removes)
        for name in record.replaced:
            _void_pending(self.stream(name))
        if record.state is not None:
            self.state, self.state_seq = record.state, record.seq
            _mark(self.wholes, Mark(seq=record.seq, position=record.whole))
            for name in run.refused:
                stream = self.stream(name)
                _extend_gap(stream.gaps, run.opened, record.seq)
                if name in run.behind:
                    _extend_gap(stream.behind, run.opened, record.seq)
            for name, position in record.positions.items():
                if name in run.refused:
                    continue
                self.stream(name).named = True
                marks = self.stream(name).marks
                boundary = record.boundaries.get(name)
                if boundary is None and marks and marks[0].position == position:
                    boundary = marks[0].boundary  # it stands where it stood when it was acknowledged
                _mark(marks, Mark(seq=record.seq, position=position, boundary=boundary))
        for name, schema in record.schemas.items():
            self.stream(name).schema = schema
        for name, version in record.versions.items():
            self.stream(name).version = version
        for file in self._add(record, record.adds):
            stream = self.stream(file.stream)
            stream.files.append(file)
            stream.full_table = file.stream in record.full_table or file.stream in record.versions

    def _cut(self, stream: StreamHistory, cut: Cut, opened: int) -> None:
        """Take in a replay decision: what is acknowledged now, and what waits to be replaced."""
        if cut.restored:
            # A deliberate rewind. What lay between is no longer a place where a tap could go on.
            stream.void += [mark.position for mark in stream.past + stream.marks if mark.seq > cut.seq]
            del stream.void[:-_VOID]
            stream.past = [mark for mark in stream.past if mark.seq <= cut.seq]
            stream.marks, stream.files = [], list(cut.restored)
        waited = stream.pending_before
        if waited and cut.seq > stream.acked:
            # Where later runs passed by, the stream stood at what was its base, which is left now.
            stream.marks = [m for m in stream.marks if m.seq < waited or m.position != stream.base]
        left = [mark for mark in stream.marks if mark.seq <= cut.seq]
        if cut.position:
            stream.past += left
            stream.marks = [Mark(seq=cut.seq, position=cut.position), *stream.marks[len(left) :]]
        else:
            stream.past += left[:-1]
            stream.marks = stream.marks[max(0, len(left) - 1) :]
        del stream.past[:-_PAST]
        stream.base = stream.marks[0].position if stream.marks and stream.marks[0].seq <= cut.seq else ""
        stream.acked = cut.seq
        stream.files = [file for file in stream.files if file.seq > cut.seq]
        stream.pending_before = (waited if stream.pending else opened) if stream.files else 0

    def _compact(self, record: Compact) -> None:
        self.intents.pop(record.run, None)
        self._remove(record.run, record.removes)
        self.added += record.adds  # their seq is that of the rows in them, not of this entry
        for name, schema in record.schemas.items():
            self.stream(name).schema = schema
        for file in record.adds:  # what dead letters of rows that are not acknowledged have become
            stream = self.stream(file.stream)
            if file.seq > stream.acked:
                stream.files = sorted([*stream.files, file], key=lambda each: each.seq)

    def _rollback(self, record: Rollback) -> None:
        self._remove(record.run, record.removes)
        self.state, self.state_seq = record.state, record.seq
        for name, stream in self.streams.items():
            stream.void = [*stream.void, *record.voided.get(name, []), *record.voided.get("", [])][-_VOID:]
            position = record.positions.get(name)
            # Their seq is that of this entry: nothing before it can become unacknowledged again.
            mark = Mark(seq=record.seq, position=position or "", boundary=record.boundaries.get(name))
            stream.marks, stream.past = ([mark] if position else []), []
            stream.acked, stream.files, stream.pending_before = record.seq, [], 0
            stream.base = position or ""
            stream.schema = record.schemas.get(name)
        self.wholes = [Mark(seq=record.seq, position=record.whole)]

    def _add(self, record: Commit, files: list[FileEntry]) -> list[FileEntry]:
        entries = [replace(file, seq=record.seq, first=record.seq, run=record.run) for file in files]
        self.added += entries
        return entries

    def _remove(self, actor: str, files: list[FileEntry]) -> None:
        if not files:
            return
        paths = {file.path for file in files}
        for name in {file.stream for file in files}:
            stream = self.stream(name)
            stream.files = [file for file in stream.files if file.path not in paths]
        self.removed += sorted(paths)
        self.undeleted[actor] = sorted(paths)


def _void_pending(stream: StreamHistory) -> None:
    """The files that waited are gone: their positions are no longer places where a tap could go on."""
    first, last = stream.acked + 1, stream.pending_before - 1
    gone = [mark for mark in stream.marks if first <= mark.seq <= last]
    stream.marks = [mark for mark in stream.marks if mark not in gone]
    stream.void = [*stream.void, *(mark.position for mark in gone)][-_VOID:]
    stream.gaps = [*stream.gaps, (first, last)][-_GAPS:]
    stream.pending_before = 0


def _extend_gap(gaps: list[tuple[int, int]], opened: int, seq: int) -> None:
    """One gap for all the commits of a run that says nothing of a stream."""
    if gaps and gaps[-1][0] == opened:
        gaps[-1] = (opened, seq)
    else:
        gaps.append((opened, seq))
        del gaps[:-_GAPS]


def _mark(marks: list[Mark], new: Mark) -> None:
    """Add a position; the latest of equal ones in a row counts."""
    if marks and marks[-1].position == new.position:
        # Without rows the boundary rows stay what they were.
        marks[-1] = Mark(seq=new.seq, position=new.position, boundary=new.boundary or marks[-1].boundary)
    else:
        marks.append(new)
    if len(marks) > _MARKS:
        del marks[1:2]  # never the first: it may be where the acknowledged rows end
    if len(marks) > _BOUNDARIES + 1:  # never the first one's, as above
        marks[-_BOUNDARIES - 1].boundary = None
