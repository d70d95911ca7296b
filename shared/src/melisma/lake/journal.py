"""The journal: numbered entries, each created only if its number is free.

Knows the order of entries and whose they are, not what is in the files that they name. A number that is taken
is what tells a writer that another one has gone on; so whoever appends after an entry has seen it.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import msgspec

from melisma.errors import MelismaError, StorageError
from melisma.lake import failpoints
from melisma.lake.history import History
from melisma.lake.objects import Exists, NoReply
from melisma.lake.records import FORMAT, Compact, Damaged, FileEntry, Intent, Record, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from melisma.lake.objects import Objects

__all__ = ["CHECKPOINT_EVERY", "Fenced", "Journal", "is_compaction", "pipeline_folder"]

CHECKPOINT_EVERY = 100
"""Entries between two checkpoints: a start reads one checkpoint and fewer entries than this, and a crash's."""

KEEP = 1000
"""Entries that stay behind the newest, for `melisma lake log` and `rollback`."""

_WAITS = (0.0, 0.2, 1.0, 3.0, 8.0)  # seconds before each further try, when a store does not answer
_T = TypeVar("_T")


class Fenced(MelismaError):
    """Another run has taken over this pipeline. Nothing that this run committed before is lost."""

    def __init__(self, pipeline: str) -> None:
        super().__init__(
            f'pipeline "{pipeline}": another run has taken over, so this one stops; what it had committed stays. '
            "Let only one run of a pipeline be under way"
        )


class _Checkpoint(msgspec.Struct, kw_only=True):
    """The history up to `seq`; its `checkpoint` is the one before, its `added` and `removed` are since that."""

    format: int
    seq: int
    history: History


class _Hint(msgspec.Struct):
    checkpoint: int


def is_compaction(record: Record) -> bool:
    """Whether an entry may stand between two of a writer without fencing it."""
    return isinstance(record, Compact) or (isinstance(record, Intent) and record.compact)


def pipeline_folder(pipeline: str) -> str:
    """Where a pipeline's own objects are, relative to the lake's root."""
    return f"_melisma/{pipeline}"


class Journal:
    """A pipeline's journal and what it comes to.

    Args:
        objects: where it is.
        pipeline: whose it is; a safe path segment.
        pause: sleeps that many seconds between two tries.
    """

    def __init__(self, objects: Objects, pipeline: str, pause: Callable[[float], None] = time.sleep) -> None:
        self.objects, self.pipeline, self.history = objects, pipeline, History()
        self._pause, self._folder = pause, pipeline_folder(pipeline)
        self.taken: set[str] = set()  # files that others removed while we were appending
        self._older = 0  # the checkpoint before the newest

    @classmethod
    def load(cls, objects: Objects, pipeline: str, pause: Callable[[float], None] = time.sleep) -> Journal:
        """Read the newest checkpoint and what comes after it. Changes nothing.

        Raises:
            StorageError: the store fails, an entry is damaged or missing, or a newer melisma wrote it.
        """
        journal = cls(objects, pipeline, pause)
        for last_try in (False, False, True):
            journal._read_checkpoint()
            try:
                journal.read_on()
            except _Gap as gap:
                # A writer may have pruned between the two reads; then there is a newer checkpoint by now.
                if last_try:
                    raise StorageError(
                        "read",
                        journal.key(gap.seq),
                        "this entry is missing, and without it the lake's state is not known",
                        "Restore the folder _melisma from a backup",
                    ) from None
            else:
                break
        return journal

    def key(self, seq: int) -> str:
        """The key of an entry."""
        return f"{self._folder}/journal/{seq:020}.json"

    def append(
        self,
        record: Record,
        *,
        passes: Callable[[Record], bool] = is_compaction,
        revalidate: Callable[[], None] | None = None,
    ) -> int:
        """Create the next entry and say its number. When this returns, the entry is durable and in force.

        Args:
            record: its number, attempt and time are filled in.
            passes: which entries of others may have come since ours without fencing us.
            revalidate: called after each of those; raises if `record` no longer holds.

        Raises:
            Fenced: another run has gone on. This record is not in force and never will be.
            StorageError: it failed, or it is not known whether it did. Only the next open may clean up.
        """
        record.format, record.attempt, record.at = FORMAT, uuid.uuid4().hex, datetime.now(UTC).isoformat()
        while True:
            record.seq = self.history.seq + 1
            other = self._put(record)
            if other is None:
                break
            if not passes(other):
                raise Fenced(self.pipeline)
            self.history.fold(other)
            self.taken.update(file.path for file in getattr(other, "removes", []))
            if revalidate is not None:
                revalidate()
        self._confirm(record)
        self.history.fold(record)
        return record.seq

    def read_on(self) -> None:
        """Take in the entries that others have created since."""
        seqs = [_seq(key) for key in self.ask(lambda: list(self._list("journal", self.history.seq)))]
        for expected, seq in enumerate(seqs, self.history.seq + 1):
            if seq != expected:
                raise _Gap(expected)
        for record in self.records(seqs):
            self.history.fold(record)

    def records(self, seqs: list[int]) -> Iterator[Record]:
        """The entries with these numbers, in the order given."""

        def read(seq: int) -> Record:
            key = self.key(seq)
            data = self.ask(lambda: self.objects.get(key))
            if data is None:
                raise _Gap(seq)
            record: Record = decode(data, Record, key)
            if record.seq != seq:
                raise Damaged("read", key, "the entry bears another number than its name", "Restore it from a backup")
            return record

        if len(seqs) < 4:
            yield from map(read, seqs)
        else:
            with ThreadPoolExecutor(8, "melisma-journal") as pool:
                yield from pool.map(read, seqs)

    def checkpoint_when_due(self) -> None:
        """Write a checkpoint after every hundred entries and prune what lies far behind. Losing one costs nothing."""
        if self.history.seq - self.history.checkpoint >= CHECKPOINT_EVERY:
            self.checkpoint()
            self.prune()

    def checkpoint(self) -> None:
        """Write a checkpoint at the newest entry. Whoever writes it, its content is the same."""
        seq, history = self.history.seq, self.history
        data = encode(_Checkpoint(format=FORMAT, seq=seq, history=history))
        with contextlib.suppress(Exists):
            self.ask(lambda: self.objects.put_if_absent(self._checkpoint_key(seq), data))
        failpoints.reach("checkpoint:written")
        hint = encode(_Hint(seq))
        self.ask(lambda: self.objects.put(f"{self._folder}/checkpoint.hint", hint))
        self._older, history.checkpoint = history.checkpoint, seq
        history.attempts, history.added, history.removed = {}, [], []

    def prune(self, keep: int | None = None) -> None:
        """Delete entries behind the checkpoint before the newest, ascending, all but the newest `keep` (KEEP)."""
        limit = self.key(min(self._older, self.history.seq - (KEEP if keep is None else keep)))
        for key in self.ask(lambda: list(self._list("journal", 0))):
            if key >= limit:
                break
            self.ask(lambda key=key: self.objects.delete(key))  # type: ignore[misc]
            failpoints.reach("prune:one")

    def live_files(self, stream: str | None = None) -> Iterator[FileEntry]:
        """The files that make up the lake now, newest first. Reads all checkpoints: the lake's age counts here."""
        removed: set[str] = set()
        history = self.history
        while True:
            removed.update(history.removed)
            for file in reversed(history.added):
                if file.path not in removed and stream in {None, file.stream}:
                    yield file
            if not history.checkpoint:
                return
            history = self._read(history.checkpoint)

    def history_at(self, seq: int) -> History:
        """What the journal came to at an earlier entry.

        Raises:
            StorageError: the entries since the checkpoint before it are pruned.
        """
        then = Journal(self.objects, self.pipeline, self._pause)
        for key in reversed(self.ask(lambda: list(self._list("checkpoint", 0)))):
            if _seq(key) <= seq:
                then._take(self._read(_seq(key)), _seq(key))
                break
        try:
            for record in self.records(list(range(then.history.seq + 1, seq + 1))):
                then.history.fold(record)
        except _Gap as gap:
            raise StorageError("read", self.key(gap.seq), f"entry {seq} lies too far back: it is pruned") from None
        return then.history

    def _put(self, record: Record) -> Record | None:
        """Create the entry; another's entry that stands there instead, or None if it is ours."""
        key, data = self.key(record.seq), encode(record)
        for wait in _WAITS:
            self._pause(wait)
            try:
                self.objects.put_if_absent(key, data)
            except (Exists, NoReply):
                # Either way it may be there, and be ours: the reply of a put can be lost.
                found = self.ask(lambda: self.objects.get(key))
            else:
                return None
            if found is not None:
                other: Record = decode(found, Record, key)
                return None if other.attempt == record.attempt else other
        raise StorageError(
            "write", key, "the store does not answer, so it is not known whether this commit counts", "Run it again"
        )

    def _confirm(self, record: Record) -> None:
        """Make sure that the number just taken was never taken before and pruned.

        Entries are pruned only behind a checkpoint, and checkpoints stay. So without a checkpoint at or after it
        the number was free; with one, the checkpoint says whose entry stood there.
        """
        later = self.ask(lambda: next(self._list("checkpoint", record.seq - 1), None))
        if later is None or self._read(_seq(later)).attempts.get(str(record.seq)) == record.attempt:
            return
        self.ask(lambda: self.objects.delete(self.key(record.seq)))
        raise Fenced(self.pipeline)

    def _read_checkpoint(self) -> None:
        """Begin at the newest checkpoint that can be read. The hint only saves a long listing."""
        self.history, self._older = History(), 0
        for since in dict.fromkeys((self._hint(), 0)):
            for key in reversed(self.ask(lambda since=since: list(self._list("checkpoint", since - 1)))):  # type: ignore[misc]
                try:
                    return self._take(self._read(_seq(key)), _seq(key))
                except Damaged:
                    continue  # the entries behind the one before it are still there
        return None

    def _take(self, history: History, seq: int) -> None:
        self._older, history.checkpoint = history.checkpoint, seq
        history.attempts, history.added, history.removed = {}, [], []
        self.history = history

    def _read(self, seq: int) -> History:
        """The history in the checkpoint at `seq`, as it was written."""
        key = self._checkpoint_key(seq)
        data = self.ask(lambda: self.objects.get(key))
        if data is None:
            raise Damaged("read", key, "this checkpoint is missing", "Restore the folder _melisma from a backup")
        checkpoint: _Checkpoint = decode(data, _Checkpoint, key)
        return checkpoint.history

    def _hint(self) -> int:
        data = self.ask(lambda: self.objects.get(f"{self._folder}/checkpoint.hint"))
        try:
            return msgspec.json.decode(data or b"", type=_Hint).checkpoint
        except msgspec.MsgspecError:
            return 0

    def _list(self, kind: str, after: int) -> Iterator[str]:
        folder = f"{self._folder}/{kind}/"
        return self.objects.list(folder, f"{folder}{max(after, 0):020}.json")

    def _checkpoint_key(self, seq: int) -> str:
        return f"{self._folder}/checkpoint/{seq:020}.json"

    def ask(self, operation: Callable[[], _T]) -> _T:
        """Do what can be done twice until the store answers."""
        for wait in _WAITS[1:]:
            try:
                return operation()
            except NoReply:
                self._pause(wait)
        try:
            return operation()
        except NoReply as error:
            raise StorageError("reach", self._folder, "the store does not answer", "Run it again") from error


class _Gap(Exception):
    """An entry is not there although a later one is."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        super().__init__(seq)


def _seq(key: str) -> int:
    return int(key.rpartition("/")[2].removesuffix(".json"))
