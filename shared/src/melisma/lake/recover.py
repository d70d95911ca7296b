"""One run on a lake of plain files: fence, undo, redo; then intent, publish, commit; then STATE.

The order of the steps is the whole point; docs/delivery.md argues what each crash point leaves.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import msgspec

from melisma import __version__
from melisma.errors import ConfigError, InputError, MelismaError, StorageError, UsageError
from melisma.lake import failpoints, liveness
from melisma.lake.history import History
from melisma.lake.journal import Fenced, Journal, pipeline_folder
from melisma.lake.layout import stream_segment
from melisma.lake.objects import Exists, Refused, prove_put_if_absent
from melisma.lake.records import (
    Boundary,
    Commit,
    End,
    FileEntry,
    Intent,
    Open,
    Release,
    RowCounts,
    StagedFile,
)
from melisma.lake.replay import Decision, LoadMethod, OnRewind, Start, StateBehind, decide
from melisma.wire.position import has_progress_markers, is_empty_bookmark, load_state, positions

if TYPE_CHECKING:
    from collections.abc import Callable

    from melisma.lake.objects import Lock, Objects

__all__ = ["DataFiles", "Run", "Settings", "Staged", "committed_state", "open_run"]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class DataFiles(Protocol):
    """The lake's files, as far as a commit moves them. Paths are relative to the lake's root."""

    @property
    def at_once(self) -> int:
        """How many calls at a time take less time than one after the other."""

    def publish(self, handle: str, path: str) -> None:
        """Give a durable staged file its final name. Fails if the handle was revoked, or the name is taken."""

    def sync(self) -> None:
        """Make the names given since the last call durable."""

    def discard(self, handle: str) -> None:
        """Revoke a staged file, so that nobody can publish it any more. No error if there is none."""

    def delete(self, path: str) -> None:
        """Delete a file. No error if there is none."""

    def size(self, path: str) -> int | None:
        """A file's size in bytes, or None if there is none."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A whole, durable, invisible file: what the entry will say of it, and the handle to publish it with."""

    entry: FileEntry
    handle: str


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run deals with others.

    Attributes:
        on_rewind: what to do if a tap starts before rows that were acknowledged.
        interval: seconds between heartbeats.
        pause: sleeps that many seconds.
    """

    on_rewind: OnRewind = "append"
    interval: float = liveness.INTERVAL
    pause: Callable[[float], None] = time.sleep


def committed_state(objects: Objects, pipeline: str) -> str | None:
    """The JSON text of the STATE that was last committed; None if none was. Needs no lock and changes nothing."""
    return Journal.load(objects, pipeline).history.state


def open_run(objects: Objects, files: DataFiles, pipeline: str, run: str, settings: Settings | None = None) -> Run:
    """Take over a pipeline: when this returns, what crashed runs left without an entry is gone.

    Args:
        objects: where the journal is.
        files: the lake's files.
        pipeline: a safe path segment.
        run: an id that no other run has had.
        settings: see Settings.

    Raises:
        PipelineBusy: another run is alive.
        StorageError: the store fails, or cannot keep two runs apart.
    """
    settings = settings or Settings()
    lock = _take_lock(objects, pipeline)
    try:
        journal = Journal.load(objects, pipeline, settings.pause)
        _refuse_while_alive(journal, settings, locked=lock is not None)
        if journal.history.seq == 0:
            journal.ask(lambda: prove_put_if_absent(objects, f"{pipeline_folder(pipeline)}/probe-{run}"))
        failpoints.reach("open:before")
        record = Open(run=run, process=liveness.this_process(), melisma=__version__)
        try:
            # Whoever gets in between is alive, unless it is a compaction.
            journal.append(record)
        except Fenced:
            raise liveness.PipelineBusy(pipeline) from None
        failpoints.reach("open:after")
        _undo_and_redo(journal.history, files)
        failpoints.reach("open:recovered")
        return Run(journal, files, run, lock, settings)
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def _take_lock(objects: Objects, pipeline: str) -> Lock | None:
    try:
        return objects.lock(f"{pipeline_folder(pipeline)}/lock")
    except Exists:
        raise liveness.PipelineBusy(pipeline) from None


def _refuse_while_alive(journal: Journal, settings: Settings, *, locked: bool) -> None:
    """START 1. The lock is believed where one kernel decides on it; over a network a heartbeat is."""
    history = journal.history
    last = history.runs.get(history.last_run)
    if last is None or last.clean or liveness.is_gone(history.process):
        return
    if locked and liveness.same_kernel(history.process):
        return
    key = _heartbeat_key(journal.pipeline)
    if liveness.beats(lambda: journal.ask(lambda: journal.objects.get(key)), settings.pause, settings.interval):
        raise liveness.PipelineBusy(journal.pipeline)


def _heartbeat_key(pipeline: str) -> str:
    return f"{pipeline_folder(pipeline)}/heartbeat.json"


def _undo_and_redo(history: History, files: DataFiles) -> None:
    """START 4 and 5. Everybody who could bring these files back is fenced by now."""
    for intent in history.voided:
        undo(intent.staged, files)
    for paths in history.undeleted.values():
        for path in paths:
            files.delete(path)
            failpoints.reach("redo:one")


def undo(staged: Iterable[StagedFile], files: DataFiles) -> None:
    """Remove files that no entry names. Revoke first: between the two nobody may publish."""
    for file in staged:
        files.discard(file.handle)
        failpoints.reach("undo:discarded")
        files.delete(file.path)


class Run:
    """A run that has its pipeline to itself. Made by `open_run`."""

    def __init__(self, journal: Journal, files: DataFiles, run: str, lock: Lock | None, settings: Settings) -> None:
        self.journal, self.run = journal, run
        self._files, self._lock, self._settings = files, lock, settings
        self._heartbeat = liveness.Heartbeat(journal.objects, _heartbeat_key(journal.pipeline), run, settings.interval)
        self._heartbeat.start()
        # Decisions rest on what was there when the run was opened, whatever it commits itself.
        self._opened = msgspec.json.decode(msgspec.json.encode(journal.history), type=History)
        self._start: Start | None = None
        self._decisions: dict[str, Decision] = {}
        self._unrecorded: dict[str, Decision] = {}
        self._replaced: set[str] = set()
        self._schemas: dict[str, Any] = {}
        self._last_state: str | None = None
        self._first = True
        self._released = False
        self.removed: frozenset[str] = frozenset()  # by the last commit

    def committed_state(self) -> str | None:
        """The JSON text of the STATE that was last committed, byte for byte; None if none was."""
        return self.journal.history.state

    def version(self, stream: str) -> int | None:
        """The version of a stream's table that was last made the current one; None if none was."""
        known = self.journal.history.streams.get(stream)
        return known.version if known else None

    def live_files(self, stream: str) -> list[FileEntry]:
        """The files that make up a stream now."""
        return list(self.journal.live_files(stream))

    def schema(self, stream: str) -> Any:
        """The schema of a stream as last committed; None for a new one."""
        known = self.journal.history.streams.get(stream)
        return known.schema if known else None

    def claim(self, stream: str) -> None:
        """Make the stream's folder this pipeline's own, or refuse it. It is if this pipeline committed rows of it.

        Raises:
            ConfigError: another pipeline writes there, and each would remove what the other wrote.
        """
        key = f"_melisma/streams/{stream_segment(stream)}.json"
        mine = msgspec.json.encode({"pipeline": self.journal.pipeline}) + b"\n"
        objects, ask = self.journal.objects, self.journal.ask
        if self.schema(stream) is None and ask(lambda: objects.claim(key, mine)) != mine:
            raise ConfigError(
                "pipeline",
                f'stream "{stream}" in this lake belongs to another pipeline',
                "Use that pipeline's name, another destination_path, or another name for the stream",
            )

    def start(self, announced: str | bytes | None, *, announces: bool = False) -> None:
        """How the tap began: the STATE before its first SCHEMA, if one came. Before the first `decide` or `commit`."""
        text = announced.decode("utf-8") if isinstance(announced, bytes) else announced
        self._start = Start(load_state(text) if text is not None else None, announces)
        self._last_state = text

    def decide(self, stream: str, method: LoadMethod = "append-only") -> Decision:
        """The replay decision for a stream of this run, once and for all; log its warning, drop its boundary rows.

        Raises:
            StateAhead, StateBehind: the tap starts where it must not.
        """
        if stream not in self._decisions:
            decision = self._decide(stream, method)
            self._decisions[stream] = self._unrecorded[stream] = decision
        return self._decisions[stream]

    def commit(
        self,
        staged: Iterable[Staged],
        state: str | bytes | None,
        *,
        schemas: Mapping[str, Any] | None = None,
        boundaries: Mapping[str, Boundary] | None = None,
        versions: Mapping[str, int] | None = None,
        removes: Iterable[FileEntry] = (),
        counts: Mapping[str, RowCounts] | None = None,
        held: Collection[str] = (),
    ) -> int:
        """Make staged files and STATE durable and visible together; the entry's number.

        After this call `release` and then the STATE may go out. If it raises, no STATE of it may ever go out.

        Args:
            staged: whole and durable; data and dead letters.
            state: the STATE's JSON text as it came; None where rows come after the last one (the tail of an
                input): that one is still where the tap stands.
            schemas: of the streams here; those that have not changed are left out of the entry.
            boundaries: of the streams with rows here.
            versions: the generation that the rows of a stream belong to (ACTIVATE_VERSION).
            removes: files that this commit replaces, beyond what the replay decision replaces.
            counts: what became of the rows, per stream; must balance.
            held: streams for which the STATE carries progress markers; their rows here came before an earlier STATE.

        Raises:
            Fenced: another run has taken over; what was staged is gone.
            StorageError: it failed, or nobody knows; the next open cleans up.
        """
        staged = list(staged)
        record = self._record(staged, state, list(removes), dict(counts or {}), held)
        self._add_facts(record, schemas or {}, boundaries or {}, versions or {})

        def revalidate() -> None:
            self._refuse_taken(record.removes)

        self.journal.checkpoint_when_due()
        try:
            if staged:
                self._publish(staged, revalidate)
            failpoints.reach("commit:before")
            revalidate()  # a compaction may have come between this run's last two entries
            self.journal.append(record, revalidate=revalidate)
        except (Fenced, Refused):  # no entry names the files, and none will: they need not wait for the next run
            with contextlib.suppress(StorageError):  # then the next run does it
                undo(handles(staged), self._files)
            raise
        failpoints.reach("commit:after")
        self._settle(record)
        for file in record.removes:
            self._files.delete(file.path)
            failpoints.reach("delete:one")
        failpoints.reach("delete:after")
        return record.seq

    def release(self) -> None:
        """Call before each STATE goes out. The first time it says in the journal that the runner may have one now."""
        if self._released:
            return
        self.journal.append(Release(run=self.run))
        self._released = True
        failpoints.reach("release:after")

    def end(self) -> None:
        """Everything is settled: the next run need not look back. Not after a failure or a signal."""
        failpoints.reach("end:before")
        self.journal.append(End(run=self.run))
        failpoints.reach("end:after")
        self.journal.checkpoint_when_due()

    def abandon(self, staged: Iterable[Staged]) -> None:
        """Revoke what is staged and not committed: after a signal, or a failure before `commit`."""
        for file in staged:
            self._files.discard(file.handle)

    def close(self) -> None:
        """Stop the heartbeat and give the lock back. Says nothing about success."""
        self._heartbeat.stop()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decide(self, stream: str, method: LoadMethod) -> Decision:
        if self._start is None:
            raise MelismaError("start() comes before the first decision")
        start, settings, live = self._start, self._settings, self.journal.live_files
        decision = decide(self._opened, stream, start, method=method, on_rewind=settings.on_rewind, live=live)
        if any(file.replaces for file in decision.remove):
            # An earlier run merged; with its files rows would go that were acknowledged before it.
            return decide(self._opened, stream, start, method="upsert")
        return decision

    def _record(
        self,
        staged: list[Staged],
        state: str | bytes | None,
        removes: list[FileEntry],
        counts: dict[str, RowCounts],
        held: Collection[str],
    ) -> Commit:
        """The entry, with what the replay decisions and the STATE ask for."""
        for stream, count in counts.items():
            if not count.balanced:
                raise MelismaError(
                    f'stream "{stream}": {count.read} rows were read, but not as many are accounted for; '
                    "nothing of them is committed. Please report this"
                )
        if isinstance(state, bytes):
            state = state.decode("utf-8")
        if state is None:
            state = self._last_state
        value = load_state(state) if state is not None else {}
        found = positions(value)
        with_rows = {file.entry.stream for file in staged}
        for stream in sorted(with_rows):
            decision = self.decide(stream)
            if has_progress_markers(value, stream) and stream not in held:
                raise MelismaError(
                    f'stream "{stream}": its rows cannot be committed at a STATE with progress markers. '
                    "Please report this"
                )
            if decision.remove and stream not in self._replaced:
                known = {file.path for file in removes}
                removes += [file for file in decision.remove if file.path not in known]
        refused, behind = self._decide_the_rest() if self._first else ([], [])
        return Commit(
            run=self.run,
            adds=[file.entry for file in staged],
            removes=removes,
            state=state,
            positions=found.streams,
            whole=found.whole,
            replaced=sorted(s for s in with_rows - self._replaced if self._decisions[s].remove),
            cuts={stream: decision.cut for stream, decision in self._unrecorded.items()},
            refused=refused,
            behind=behind,
            full_table=sorted(s for s in with_rows if is_empty_bookmark(value, s)),
            counts=counts,
            announced=self._start is not None and not self._start.silent if self._first else None,
            announces=self._first and self._start is not None and self._start.announces,
        )

    def _decide_the_rest(self) -> tuple[list[str], list[str]]:
        """Streams that wait since earlier runs and may not come in this one keep their files waiting.

        Says which of them would be refused, as they are if and when they come; and which of those have only started
        too early.
        """
        refused: list[str] = []
        behind: list[str] = []
        for stream in self._opened.streams:
            if stream in self._decisions or self._start is None:
                continue
            try:
                self._unrecorded[stream] = self._decide(stream, "append-only")
            except UsageError as error:
                refused.append(stream)
                if isinstance(error, StateBehind):
                    behind.append(stream)
        return refused, behind

    def _add_facts(
        self,
        record: Commit,
        schemas: Mapping[str, Any],
        boundaries: Mapping[str, Boundary],
        versions: Mapping[str, int],
    ) -> None:
        for stream, version in versions.items():
            known = self.journal.history.streams.get(stream)
            if known is not None and known.version is not None and version < known.version:
                raise InputError(
                    "the tap's version of this table is older than the one in the lake",
                    stream=stream,
                    fix="Set the clock of the tap's machine right",
                )
        record.schemas = {stream: schema for stream, schema in schemas.items() if schema != self.schema(stream)}
        record.boundaries, record.versions = dict(boundaries), dict(versions)

    def _publish(self, staged: list[Staged], revalidate: Callable[[], None]) -> None:
        """Step 9: the intent, then the names."""
        self.journal.append(Intent(run=self.run, staged=handles(staged)), revalidate=revalidate)
        failpoints.reach("intent:after")
        try:
            publish(staged, self._files)
        except Exception as error:
            # The likeliest reason is that another run has taken over and revoked the handles.
            with contextlib.suppress(MelismaError):
                self.journal.read_on()
            if self.journal.history.last_run == self.run:
                with contextlib.suppress(StorageError):  # then the next run does it
                    undo(handles(staged), self._files)
                raise
            undo(handles(staged), self._files)
            raise Fenced(self.journal.pipeline) from error

    def _refuse_taken(self, removes: list[FileEntry]) -> None:
        """A file that a compaction has taken into another one can no longer be removed by itself."""
        for file in removes:
            if file.path in self.journal.taken:
                raise Refused("replace", file.path, "a compaction has rewritten it meanwhile", "Run it again")

    def _settle(self, record: Commit) -> None:
        self._first, self._last_state = False, record.state
        self.removed = frozenset(file.path for file in record.removes)
        self._unrecorded = {}
        self._replaced |= {file.stream for file in record.adds}


def publish(staged: Iterable[Staged], files: DataFiles) -> None:
    """Step 9: give each file its name, and look whether it is there whole."""
    staged = list(staged)
    for _ in _each(lambda file: files.publish(file.handle, file.entry.path), staged, files.at_once):
        failpoints.reach("publish:one")
    files.sync()
    sizes = _each(lambda file: files.size(file.entry.path), staged, files.at_once)
    for file, size in zip(staged, sizes, strict=True):
        if size != file.entry.bytes:
            raise StorageError(
                "publish",
                file.entry.path,
                f"it has {'no' if size is None else size} bytes there, not {file.entry.bytes}",
                "Run it again: this commit is undone then",
            )


def _each(call: Callable[[Staged], _T], staged: Sequence[Staged], at_once: int) -> Iterator[_T]:
    """What a call gives for each file, in their order; after a failure none is begun, and none is under way."""
    if at_once == 1 or len(staged) < 2:
        yield from map(call, staged)
        return
    with ThreadPoolExecutor(min(at_once, len(staged)), "melisma-publish") as pool:
        yield from pool.map(call, staged)


def handles(staged: Iterable[Staged]) -> list[StagedFile]:
    """What an intent says of staged files."""
    return [StagedFile(path=file.entry.path, handle=file.handle) for file in staged]
