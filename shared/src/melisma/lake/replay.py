"""The replay decision: which rows of earlier runs a tap is about to send again.

A pure function of the journal's history and of what the tap announced, stream by stream. The table is in
docs/delivery.md; the letters are its rows. Two rules stand above it: an announced position is an
acknowledgement, so only what lies after it is ever removed; and in doubt rows are kept, with a warning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from melisma.errors import MelismaError, UsageError, printable
from melisma.lake.records import Boundary, Cut, FileEntry
from melisma.wire.position import Position, positions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from melisma.lake.history import History, Mark, StreamHistory
    from melisma.wire.position import State

__all__ = ["Decision", "LoadMethod", "OnRewind", "Start", "StateAhead", "StateBehind", "decide"]

LoadMethod = Literal["append-only", "overwrite", "upsert"]
OnRewind = Literal["append", "replace", "fail"]


class StateAhead(UsageError):
    """The tap starts after rows that the lake no longer has: going on would leave a hole."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        super().__init__(
            f'stream "{printable(stream)}": the tap starts from a STATE whose rows were removed from the lake '
            "(a rollback, or a replay from an earlier STATE), so rows would be missing. "
            "Start the tap with the STATE that --committed-state prints"
        )


class StateBehind(UsageError):
    """The tap starts before rows that it was told are safe, and `on_rewind` is `fail`, or cannot be done."""

    def __init__(self, stream: str, rule: str, fix: str) -> None:
        self.stream = stream
        super().__init__(f'stream "{printable(stream)}": {rule}. {fix}')


@dataclass(frozen=True, slots=True)
class Start:
    """How the tap began.

    Attributes:
        announced: the STATE that came before the first SCHEMA; None if none came.
        announces: the tap says of itself, or a setting says, that it announces every starting STATE.
    """

    announced: State | None = None
    announces: bool = False
    positions: Position = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", positions(self.announced or {}))

    @property
    def silent(self) -> bool:
        """Nothing was announced, or a STATE with nothing in it: singer-sdk 0.29 to 0.44 prints `{}`."""
        return not self.positions.whole


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a stream's rows of earlier runs.

    Attributes:
        remove: files that the first commit with rows of the stream replaces.
        cut: what that commit records of the decision.
        boundary: the rows that an inclusive tap sends again first; identical ones are to be dropped.
        warning: one line for the log, where rows may now be there twice.
    """

    stream: str
    cut: Cut
    remove: tuple[FileEntry, ...] = ()
    boundary: Boundary | None = None
    warning: str = ""

    @property
    def case(self) -> str:
        """The row of the table."""
        return self.cut.case


def decide(
    history: History,
    stream: str,
    start: Start,
    *,
    method: LoadMethod = "append-only",
    on_rewind: OnRewind = "append",
    live: Callable[[str], Iterable[FileEntry]] | None = None,
) -> Decision:
    """The decision for one stream. The history is that of the moment when the run was opened.

    Args:
        history: not changed.
        stream: the stream's name in the input.
        start: how the tap began.
        method: the stream's load method.
        on_rewind: what to do if the tap starts before rows that were acknowledged.
        live: all live files of a stream; needed for `on_rewind: replace` only.

    Raises:
        StateAhead: case d.
        StateBehind: case e, if `on_rewind` says so.
    """
    known = history.streams.get(stream)
    now = history.seq
    if known is None:
        known = type(history)().stream(stream)
    position = start.positions.of(stream)
    named = stream in start.positions.streams
    if method != "append-only":
        return _decision(stream, "a", known, now, position)
    unclean = _unclean_files(history, known)
    if known.full_table and unclean and not named:
        return _decision(stream, "b", known, unclean[0].seq - 1, "")
    if start.silent:
        return _silent(history, stream, known, start, unclean)
    match = _match(history, known, position, named=named)
    if match is not None:
        seq, boundary = match
        decision = _decision(stream, "c", known, max(seq, known.acked), "")
        return Decision(stream, decision.cut, decision.remove, boundary)
    if position in known.void or (not named and _in_gap(history, known, position)):
        raise StateAhead(stream)
    earlier = _before(history, known, position, named=named)
    if earlier is not None or (not named and (known.past or known.marks)):
        return _rewind(stream, known, now, position, earlier, on_rewind, live)
    warning = (
        f'stream "{printable(stream)}": the tap starts from a STATE that this lake has not seen, so rows that it sends '
        "again will be there twice, and rows before it are not looked for"
    )
    return _decision(stream, "f", known, now, position, warning)


def _silent(
    history: History, stream: str, known: StreamHistory, start: Start, unclean: Sequence[FileEntry]
) -> Decision:
    chain = [history.runs[file.run] for file in unclean]
    started_silent = bool(chain) and all(run.silent for run in chain)
    if started_silent and not any(run.released for run in chain):
        return _decision(stream, "g", known, unclean[0].seq - 1, "")
    announces = start.announces or start.announced is not None or history.announces
    if started_silent and announces:
        return _decision(stream, "h", known, unclean[0].seq - 1, "")
    warning = ""
    if unclean:
        warning = (
            f'stream "{printable(stream)}": the last run did not end and the tap does not say where it starts, so rows '
            "that it sends again will be there twice. Give the tap the STATE that --committed-state prints"
        )
    boundary = known.marks[-1].boundary if known.marks else None
    decision = _decision(stream, "i", known, history.seq, "", warning)
    return Decision(stream, decision.cut, decision.remove, boundary, warning)


def _rewind(
    stream: str,
    known: StreamHistory,
    now: int,
    position: str,
    earlier: Mark | None,
    on_rewind: OnRewind,
    live: Callable[[str], Iterable[FileEntry]] | None,
) -> Decision:
    rule = "the tap starts before rows that are in the lake and that it was told are safe"
    if on_rewind == "fail":
        raise StateBehind(stream, rule, "Set on_rewind to append or replace, or start from --committed-state")
    # The rows at that place are in the lake whatever becomes of those after it.
    boundary = earlier.boundary if earlier is not None else None
    if on_rewind == "append":
        warning = f'stream "{printable(stream)}": {rule}, so they will be there twice (on_rewind: append)'
        decision = _decision(stream, "e", known, now, position, warning)
        return Decision(stream, decision.cut, decision.remove, boundary, warning)
    if earlier is None and not known.named:
        # It is sent from the beginning only if the STATE has lost it; one that never had it says nothing of it.
        raise StateBehind(
            stream,
            f"{rule}, and no STATE has ever named it, so it is not known which rows come again",
            "Set on_rewind to append, or roll the lake back",
        )
    after = earlier.seq if earlier is not None else 0
    if live is None:
        raise MelismaError("on_rewind: replace needs the list of live files")
    files = sorted((file for file in live(stream) if file.seq > after), key=lambda file: file.seq)
    if any(file.first and file.first <= after for file in files):
        raise StateBehind(
            stream,
            f"{rule}, and compaction has put rows from before and after that place into one file",
            "Set on_rewind to append, or roll the lake back",
        )
    cut = Cut(case="e", seq=after, position=position, restored=files)
    return Decision(stream, cut, tuple(files), boundary)


def _decision(stream: str, case: str, known: StreamHistory, seq: int, position: str, warning: str = "") -> Decision:
    pending = tuple(file for file in known.files if file.seq > seq)
    return Decision(stream, Cut(case=case, seq=seq, position=position), pending, None, warning)


def _unclean_files(history: History, known: StreamHistory) -> list[FileEntry]:
    """The stream's newest unacknowledged files, as far back as the runs that wrote them did not end."""
    found: list[FileEntry] = []
    for file in reversed(known.files):
        run = history.runs.get(file.run)
        if run is None or run.clean:
            break
        found.append(file)
    return found[::-1]


def _match(history: History, known: StreamHistory, position: str, *, named: bool) -> tuple[int, Boundary | None] | None:
    """The latest entry, not before the acknowledged one, at which the stream stood at `position`, and its boundary."""
    if named:
        found = [mark for mark in known.marks if mark.position == position]
        if not found:
            return None
        boundary = next((mark.boundary for mark in reversed(found) if mark.boundary is not None), None)
        if known.pending and found[-1].seq >= known.pending_before and position == known.base:
            # A later run passed by without a row of this stream: it stands where it stood, and its files wait.
            return known.acked, boundary
        return found[-1].seq, boundary
    floor = max((mark.seq for mark in history.wholes if mark.seq <= known.acked), default=0)
    for mark in reversed(history.wholes):
        if mark.position == position and mark.seq >= floor and not _within(known.gaps, mark.seq):
            waits = known.pending and mark.seq >= known.pending_before
            return (known.acked if waits else mark.seq), None
    if known.base and position == known.base and known.marks and known.marks[0].seq == known.acked:
        return known.acked, None  # a run started there from a place not known, and nothing is acknowledged since
    return None


def _before(history: History, known: StreamHistory, position: str, *, named: bool) -> Mark | None:
    """The entry before the acknowledged one at which the stream stood at `position`, if it is remembered."""
    marks = known.past if named else [mark for mark in history.wholes if not _within(known.gaps, mark.seq)]
    return next((mark for mark in reversed(marks) if mark.position == position), None)


def _in_gap(history: History, known: StreamHistory, position: str) -> bool:
    found = [mark.seq for mark in history.wholes if mark.position == position and _within(known.gaps, mark.seq)]
    return any(not _within(known.behind, seq) for seq in found)


def _within(gaps: Iterable[tuple[int, int]], seq: int) -> bool:
    return any(first <= seq <= last for first, last in gaps)
