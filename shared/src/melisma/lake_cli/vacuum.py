"""What nothing refers to, and removing it.

Files: those that bear this pipeline's name and that no entry names. They are listed before the journal is read, and
a writer's intent comes before its files are visible (`Place.unnamed`), so a writer or a compaction that is at work
loses nothing, whatever the clocks say.

Staging of dead runs: only while this process holds the pipeline's lock, or where the journal shows that its last
run ended or its process is gone; else a run may be at work, and all staging is left alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from melisma.lake import layout, liveness
from melisma.lake.history import History
from melisma.lake.journal import pipeline_folder
from melisma.lake.objects import Exists
from melisma.lake_cli.place import Place
from melisma.storage.store import FileInfo

__all__ = ["Garbage", "find_garbage", "remove_garbage"]


@dataclass(slots=True)
class Garbage:
    """What may go.

    Attributes:
        files: data files that no entry names.
        staging: files of dead runs that were never visible.
        uploads: handles of uploads that dead runs began, with the paths that they were for.
        young: how many more there are that are not old enough.
        busy: a run may be at work, so that staging was not looked at.
    """

    files: list[FileInfo]
    staging: list[FileInfo]
    uploads: list[tuple[str, str]]
    young: int = 0
    busy: bool = False


def find_garbage(place: Place, older_than: float) -> Garbage:
    """Look for what may go, without changing anything.

    Args:
        place: the lake.
        older_than: seconds since the last change; what is younger stays.
    """
    journal, unnamed = place.unnamed()
    with _no_run(place, journal.history) as idle:
        return _garbage(place, unnamed, older_than, idle=idle)


def remove_garbage(place: Place, older_than: float) -> Garbage:
    """Remove what `find_garbage` finds; what was removed."""
    journal, unnamed = place.unnamed()
    with _no_run(place, journal.history) as idle:
        garbage = _garbage(place, unnamed, older_than, idle=idle)
        for info in [*garbage.files, *garbage.staging]:
            place.store.delete(info.path)
        for _, handle in garbage.uploads:
            place.store.revoke(handle)
        for folder in {info.path.rpartition("/")[0] for info in garbage.staging}:
            if not place.store.glob(f"{folder}/**"):
                place.store.delete_tree(folder)
    return garbage


def _garbage(place: Place, unnamed: list[FileInfo], older_than: float, *, idle: bool) -> Garbage:
    limit = time.time_ns() - int(older_than * 1e9)
    staged = place.store.glob(f"{layout.meta_dir(place.pipeline)}/staging/**") if idle else []
    files = [info for info in unnamed if info.mtime_ns <= limit]
    staging = [info for info in staged if info.mtime_ns <= limit]
    begun = (
        [(path, handle) for path, handle in place.store.unfinished() if _is_own(path, place.pipeline)] if idle else []
    )
    uploads = [] if older_than else begun  # stores do not tell their age: they count as young
    young = len(unnamed) + len(staged) + len(begun) - len(files) - len(staging) - len(uploads)
    return Garbage(files, staging, uploads, young, busy=not idle)


def _is_own(path: str, pipeline: str) -> bool:
    name = layout.parse_file_name(path.rpartition("/")[2])
    in_meta = path.startswith(f"{layout.meta_dir(pipeline)}/")
    return in_meta or (name is not None and name.pipeline == pipeline)


@contextlib.contextmanager
def _no_run(place: Place, history: History) -> Iterator[bool]:
    """Whether certainly no run is at work; if so, and where there are locks, none begins meanwhile."""
    try:
        lock = place.objects.lock(f"{pipeline_folder(place.pipeline)}/lock")
    except Exists:
        yield False
        return
    try:
        last = history.runs.get(history.last_run)
        gone = last is None or last.clean or liveness.is_gone(history.process)
        yield gone or (lock is not None and liveness.same_kernel(history.process))
    finally:
        if lock is not None:
            lock.release()
