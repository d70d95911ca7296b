"""What a commit does to rows that are there: merge with them, or replace a whole generation of them.

A generation is what belongs together of a stream: the rows of one version of its table (ACTIVATE_VERSION), or of one
run with the load method overwrite. It takes the place of the one before in a single entry, and only when it is whole.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from melisma.errors import MelismaError, printable
from melisma.formats.parquet import ParquetOptions
from melisma.lake.changes import Changes
from melisma.lake.merge import KEY_BYTES, KeyRanges, merge
from melisma.lake.records import FileEntry
from melisma.lake.rewrite import DataFile, RewriteLake
from melisma.lake.writer import StagedFile

__all__ = ["GenerationRefused", "LiveFiles", "Plan", "PlannedFile", "Switch", "Versioned", "plan"]


class GenerationRefused(MelismaError):
    """A new generation would leave too little of the old one. The old one stays whole."""

    def __init__(self, stream: str, old: int, new: int, fix: str) -> None:
        self.stream = stream
        super().__init__(
            f'stream "{printable(stream)}": {new} rows would take the place of {old}, which looks like a tap or a '
            f"source that failed; the old rows stay, and nothing of this commit is kept. {fix}"
        )


@dataclass(frozen=True, slots=True)
class Versioned:
    """What a writer has finished, with the version of the table that the rows belong to."""

    item: Any
    version: int


@dataclass(frozen=True, slots=True)
class Switch:
    """The commit puts a new generation in the place of all others.

    Attributes:
        version: of the rows that stay besides those that come; None if none stay.
        soft: the others' rows are kept, and marked as deleted.
        options: how files with such marks are written; needed for `soft`.
        allow_empty: the new one may have no rows.
        max_shrink_percent: how much smaller it may be, in rows, than what it replaces.
    """

    version: int | None
    soft: bool
    options: ParquetOptions | None = None
    allow_empty: bool = False
    max_shrink_percent: float = 100


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file that the commit adds, and what its entry says besides what the file is.

    Attributes:
        file: staged.
        version: see `FileEntry`.
        replaces: see `FileEntry`.
    """

    file: StagedFile
    version: int | None = None
    replaces: bool = False


@dataclass(slots=True)
class Plan:
    """What a commit adds and removes."""

    files: list[PlannedFile] = field(default_factory=list)
    removes: list[FileEntry] = field(default_factory=list)
    spent: list[Changes] = field(default_factory=list)


class LiveFiles:
    """The files that make up streams now, read once from the journal and kept in step with the run's own commits.

    Args:
        read: reads the live files of a stream.
    """

    def __init__(self, read: Callable[[str], Sequence[FileEntry]]) -> None:
        self._read = read
        self._files: dict[str, dict[str, FileEntry]] = {}
        self.ranges: dict[str, KeyRanges] = {}

    def of(self, stream: str) -> list[FileEntry]:
        """The data files of a stream, as of the last commit."""
        if stream not in self._files:
            self._files[stream] = {file.path: file for file in self._read(stream) if file.kind == "data"}
        return list(self._files[stream].values())

    def key_ranges(self, stream: str) -> KeyRanges:
        """What is known of the files' keys."""
        return self.ranges.setdefault(stream, {})

    def committed(self, seq: int, run: str, added: Sequence[FileEntry], removed: frozenset[str]) -> None:
        """An entry of this run is in force; `removed` are paths."""
        for files in self._files.values():
            for path in removed & files.keys():
                del files[path]
        for file in added:
            if file.stream in self._files and file.kind == "data":
                self._files[file.stream][file.path] = replace(file, seq=seq, first=seq, run=run)


def plan(
    lake: RewriteLake,
    staged: Sequence[StagedFile | Changes | Versioned],
    switches: dict[str, Switch],
    live: LiveFiles,
    *,
    key_bytes: int = KEY_BYTES,
) -> Plan:
    """Work out what a commit adds and removes; merges and marks are staged by the way.

    Args:
        lake: where the files are.
        staged: what the writers have finished, in order.
        switches: by stream.
        live: the files that are there.
        key_bytes: see `melisma.lake.merge`.

    Raises:
        GenerationRefused: a new generation is too small.
        BadSchema: rows cannot be merged.
        StorageError: the store fails, or a file has gone.
    """
    found = Plan()
    streams: dict[str, list[tuple[StagedFile | Changes, int | None]]] = {stream: [] for stream in switches}
    for each in staged:
        item, version = (each.item, each.version) if isinstance(each, Versioned) else (each, None)
        streams.setdefault(item.stream, []).append((item, version))
    try:
        for stream, items in streams.items():
            _plan_stream(lake, items, switches.get(stream), stream, live, key_bytes, found)
    except BaseException:
        for planned in found.files:
            with contextlib.suppress(MelismaError):
                lake.discard(planned.file.handle)
        raise
    for changes in found.spent:
        changes.close()
    return found


def _plan_stream(
    lake: RewriteLake,
    items: Sequence[tuple[StagedFile | Changes, int | None]],
    switch: Switch | None,
    stream: str,
    live: LiveFiles,
    key_bytes: int,
    found: Plan,
) -> None:
    files = [(item, version) for item, version in items if isinstance(item, StagedFile)]
    changes = [(item, version) for item, version in items if isinstance(item, Changes)]
    found.spent += [item for item, _ in changes]
    if switch is None and not changes:
        found.files += [PlannedFile(file, version) for file, version in files]
        return
    there = live.of(stream)
    old = [file for file in there if switch is not None and (switch.version is None or file.version != switch.version)]
    if switch is not None and switch.version is not None:
        for file, version in files:
            if version != switch.version and file.kind == "data":
                lake.discard(file.handle)  # replaced before anyone saw it
        files = [each for each in files if each[1] == switch.version or each[0].kind != "data"]
        changes = [each for each in changes if each[1] == switch.version]
    added = [PlannedFile(file, version, file.kind == "data") for file, version in files]
    removes: list[FileEntry] = []
    gone = {file.path for file in old}
    soft = switch is not None and switch.soft
    now = dt.datetime.now(dt.UTC)
    if changes:
        kept = there if soft else [file for file in there if file.path not in gone]
        merged = merge(
            lake,
            [item for item, _ in changes],
            kept,
            live.key_ranges(stream),
            key_bytes=key_bytes,
            mark=(lambda file: file.path in gone) if soft else None,
            deleted_at=now,
        )
        # Later versions are written later: all changes of one commit are of the last one's.
        version = changes[-1][1]
        added += [PlannedFile(file, version, replaces=bool(merged.removes)) for file in merged.added]
        added += [PlannedFile(file, before.version, replaces=True) for file, before in merged.rewritten]
        removes += merged.removes
        if not soft:
            removes += old
    elif soft and switch is not None and switch.options is not None:
        for entry in old:
            data = DataFile(lake, entry)
            if not data.all_deleted():
                rest = data.rewrite(None, now, switch.options)
                added += [PlannedFile(rest, entry.version, replaces=True)] if rest is not None else []
                removes.append(entry)
    else:
        removes += old
    found.files += added
    found.removes += removes
    if switch is not None:
        _guard(stream, switch, old, [file for file in there if file.path not in gone], added, removes)


def _guard(
    stream: str,
    switch: Switch,
    old: Sequence[FileEntry],
    same: Sequence[FileEntry],
    added: Sequence[PlannedFile],
    removes: Sequence[FileEntry],
) -> None:
    """Refuse a generation that is empty, or much smaller than what it replaces."""
    before = sum(file.rows for file in old)
    removed = {file.path for file in removes}
    new = sum(file.rows for file in same if file.path not in removed)
    marked = {file.version for file in old}
    new += sum(
        each.file.rows
        for each in added
        if each.file.kind == "data" and (switch.version is None or each.version not in marked)
    )
    if before and not new and not switch.allow_empty:
        fix = "If the source is empty now, set allow_empty_overwrite to true"
        raise GenerationRefused(stream, before, new, fix)
    if new and new * 100 < before * (100 - switch.max_shrink_percent):
        fix = "If it has shrunk so much, set max_shrink_percent to 100, or to what is usual"
        raise GenerationRefused(stream, before, new, fix)
