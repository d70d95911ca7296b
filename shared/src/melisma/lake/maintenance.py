"""What a person does to a lake through its journal: compaction beside a running writer, and rollback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from melisma.errors import MelismaError, UsageError
from melisma.lake import failpoints
from melisma.lake.journal import Fenced, Journal
from melisma.lake.records import Commit, Compact, Intent, Open, Record, Rollback
from melisma.lake.recover import handles, publish, undo
from melisma.wire.position import load_state, positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from melisma.lake.objects import Objects
    from melisma.lake.records import FileEntry
    from melisma.lake.recover import DataFiles, Run, Staged

__all__ = ["Overtaken", "can_compact", "compact", "plan_rollback", "rollback"]


class Overtaken(MelismaError):
    """A writer changed the files that were being compacted. Nothing was changed."""

    def __init__(self) -> None:
        super().__init__("a writer has changed these files meanwhile; nothing was compacted. Run it again")


def can_compact(journal: Journal, file: FileEntry) -> bool:
    """Whether a replay can no longer remove this file by itself."""
    stream = journal.history.streams.get(file.stream)
    return file.kind == "data" and stream is not None and file.seq <= stream.acked


def compact(
    objects: Objects,
    files: DataFiles,
    pipeline: str,
    run: str,
    inputs: Sequence[FileEntry],
    staged: Sequence[Staged],
) -> int:
    """Put staged files in the place of `inputs`, which hold the same rows; the entry's number.

    A writer may be at work meanwhile and is not fenced.

    Args:
        objects: where the journal is.
        files: the lake's files.
        pipeline: whose files they are.
        run: an id that no other actor has had.
        inputs: live files of one stream, and of one version of its table, for which `can_compact` holds.
        staged: whole, durable and invisible files.

    Raises:
        Overtaken: the inputs changed, or another run was opened. What was staged is gone.
    """
    journal = Journal.load(objects, pipeline)
    paths = {file.path for file in inputs}
    live = {file.path for file in journal.live_files(inputs[0].stream)}
    named = handles(staged)
    if not paths <= live or not all(can_compact(journal, file) for file in inputs):
        undo(named, files)
        raise Overtaken

    def revalidate() -> None:
        if paths & journal.taken or not all(can_compact(journal, file) for file in inputs):
            raise Overtaken

    last, first = max(file.seq for file in inputs), min(file.first or file.seq for file in inputs)
    replaces = any(file.replaces for file in inputs)
    adds = [replace(file.entry, seq=last, first=first, version=inputs[0].version, replaces=replaces) for file in staged]
    try:
        journal.append(Intent(run=run, staged=named, compact=True), passes=_beside, revalidate=revalidate)
        try:
            publish(staged, files)
        except Exception:
            journal.read_on()
            if any(intent.run == run for intent in journal.history.voided):
                raise Overtaken from None
            raise
        journal.append(Compact(run=run, adds=adds, removes=list(inputs)), passes=_beside, revalidate=revalidate)
    except (Fenced, Overtaken):
        undo(named, files)
        raise Overtaken from None
    failpoints.reach("compact:after")
    for file_in in inputs:
        files.delete(file_in.path)
    return journal.history.seq


def rollback(run: Run, files: DataFiles, to: int) -> int:
    """Bring the lake back to what it was after entry `to`; the number of the new entry.

    The runner's STATE is then ahead of the lake; a tap that starts from it is refused until it is set back.

    Args:
        run: just opened, without a commit of its own.
        files: the lake's files.
        to: a commit.

    Raises:
        UsageError: a later commit replaced files that were there, and they are gone.
        StorageError: the entry is pruned.
    """
    journal = run.journal
    record = plan_rollback(journal, to, run.run)
    journal.append(record)
    failpoints.reach("rollback:after")
    for file in record.removes:
        files.delete(file.path)
    return record.seq


def plan_rollback(journal: Journal, to: int, run: str = "") -> Rollback:
    """The entry that brings the lake back to what it was after entry `to`. Changes nothing.

    Raises:
        UsageError, StorageError: as `rollback`.
    """
    then = journal.history_at(to)
    if then.seq != to or then.state is None:
        raise UsageError(f"entry {to} is not one that the lake can go back to. Choose one from: melisma lake log")
    live = list(journal.live_files())
    removes = [file for file in live if file.seq > to]
    gone = [file for file in removes if (file.first or file.seq) <= to]
    voided: dict[str, list[str]] = {"": []}
    for record in journal.records(list(range(to + 1, journal.history.seq + 1))):
        if isinstance(record, Commit | Rollback):
            gone += [file for file in record.removes if (file.first or file.seq) <= to]
        if isinstance(record, Commit):
            voided[""].append(record.whole)
            for stream, position in record.positions.items():
                voided.setdefault(stream, []).append(position)
    if gone:
        raise UsageError(
            f'the lake cannot go back to entry {to}: file "{gone[0].path}" was replaced since. '
            "Choose a later one from: melisma lake log"
        )
    found = positions(load_state(then.state))
    return Rollback(
        run=run,
        to=to,
        removes=removes,
        state=then.state,
        positions=found.streams,
        whole=found.whole,
        schemas={name: stream.schema for name, stream in then.streams.items() if stream.schema is not None},
        boundaries={
            name: stream.marks[-1].boundary
            for name, stream in then.streams.items()
            if stream.marks and stream.marks[-1].boundary is not None
        },
        voided={stream: sorted(set(names)) for stream, names in voided.items() if names},
    )


def _beside(record: Record) -> bool:
    """What may come between two entries of a compaction."""
    return not isinstance(record, Open | Rollback)
