"""A lake small enough to reason about: JSON lines for data, a model of an SDK tap, and stores that fail to order."""

# ruff: noqa: ARG002 - the methods are those of the protocols that these stand in for

from __future__ import annotations

import copy
import itertools
import json
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from melisma.lake.boundary import BoundaryRows
from melisma.lake.objects import Exists, Lock, NoReply, Objects
from melisma.lake.records import FileEntry
from melisma.lake.recover import DataFiles, Run, Settings, Staged, open_run
from melisma.wire.position import has_progress_markers, positions

QUICK = Settings(interval=0.01, pause=lambda _seconds: None)
Row = tuple[int, int]  # key, identity


class Crash(BaseException):
    """The process is gone: nothing of it may run after this, so nothing may catch it."""


@dataclass
class Faults:
    """Something happens at the n-th operation on a store, before or after it."""

    at: int = -1
    kind: str = "before"  # before | after | lost | call
    call: Callable[[], None] = lambda: None
    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def around(self, operation: Callable[[], Any], *, answers: bool) -> Any:
        with self.lock:
            self.count += 1
            hit = self.count == self.at
        if not hit:
            return operation()
        if self.kind == "before":
            raise Crash
        if self.kind == "call":
            self.call()
            return operation()
        result = operation()
        if self.kind == "lost" and answers:
            raise NoReply("lost on purpose")
        if self.kind == "after":
            raise Crash
        return result


class MemoryObjects:
    """Objects in a dict; what survives a crash."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put_if_absent(self, key: str, data: bytes) -> None:
        if key in self.kept:
            raise Exists(key)
        self.kept[key] = data

    def claim(self, key: str, data: bytes) -> bytes:
        return self.kept.setdefault(key, data)

    def put(self, key: str, data: bytes) -> None:
        self.kept[key] = data

    def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        keys = sorted(self.kept)
        return iter([key for key in keys[bisect_right(keys, after) :] if key.startswith(prefix)])

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)

    def lock(self, key: str) -> Lock | None:
        return None


class FaultyObjects:
    """Objects behind Faults. Heartbeats come from a thread and are left out of the count."""

    def __init__(self, inner: Objects, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    def put_if_absent(self, key: str, data: bytes) -> None:
        self._faults.around(lambda: self._inner.put_if_absent(key, data), answers=True)

    def claim(self, key: str, data: bytes) -> bytes | None:
        found: bytes | None = self._faults.around(lambda: self._inner.claim(key, data), answers=True)
        return found

    def put(self, key: str, data: bytes) -> None:
        if not key.endswith("heartbeat.json"):
            self._faults.around(lambda: self._inner.put(key, data), answers=True)

    def get(self, key: str) -> bytes | None:
        found: bytes | None = self._faults.around(lambda: self._inner.get(key), answers=True)
        return found

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        return iter(list(self._faults.around(lambda: self._inner.list(prefix, after), answers=True)))

    def delete(self, key: str) -> None:
        self._faults.around(lambda: self._inner.delete(key), answers=True)

    def lock(self, key: str) -> Lock | None:
        return self._inner.lock(key)


class MemoryFiles:
    """Data files in a dict of path -> rows; staged ones in another that readers do not see."""

    at_once = 1

    def __init__(self) -> None:
        self.visible: dict[str, list[Row]] = {}
        self.staged: dict[str, list[Row]] = {}

    def publish(self, handle: str, path: str) -> None:
        if handle not in self.staged:
            raise FileNotFoundError(handle)
        self.visible[path] = self.staged.pop(handle)

    def sync(self) -> None: ...

    def discard(self, handle: str) -> None:
        self.staged.pop(handle, None)

    def delete(self, path: str) -> None:
        self.visible.pop(path, None)

    def size(self, path: str) -> int | None:
        return len(self.visible[path]) if path in self.visible else None

    def stage(self, path: str, stream: str, rows: list[Row]) -> Staged:
        self.staged[f"staged/{path}"] = list(rows)
        entry = FileEntry(path=path, stream=stream, rows=len(rows), bytes=len(rows))
        return Staged(entry, f"staged/{path}")

    def rows(self, stream: str) -> Counter[Row]:
        return Counter(
            itertools.chain.from_iterable(rows for path, rows in self.visible.items() if path.startswith(f"{stream}/"))
        )


class FaultyFiles:
    """DataFiles behind Faults."""

    def __init__(self, inner: DataFiles, faults: Faults, at_once: int = 1) -> None:
        self._inner, self._faults, self.at_once = inner, faults, at_once

    def publish(self, handle: str, path: str) -> None:
        self._faults.around(lambda: self._inner.publish(handle, path), answers=False)

    def sync(self) -> None:
        self._faults.around(self._inner.sync, answers=False)

    def discard(self, handle: str) -> None:
        self._faults.around(lambda: self._inner.discard(handle), answers=False)

    def delete(self, path: str) -> None:
        self._faults.around(lambda: self._inner.delete(path), answers=False)

    def size(self, path: str) -> int | None:
        found: int | None = self._faults.around(lambda: self._inner.size(path), answers=False)
        return found


class DiskFiles:
    """Data files on disk: JSON lines, staged under `_melisma`, renamed to be published."""

    at_once = 1

    def __init__(self, root: Path) -> None:
        self.root = root

    def publish(self, handle: str, path: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / handle).rename(self.root / path)

    def sync(self) -> None: ...

    def discard(self, handle: str) -> None:
        (self.root / handle).unlink(missing_ok=True)

    def delete(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def size(self, path: str) -> int | None:
        place = self.root / path
        return place.stat().st_size if place.exists() else None

    def stage(self, path: str, stream: str, rows: list[Row]) -> Staged:
        handle = f"_melisma/staging/{path.replace('/', '-')}.tmp"
        place = self.root / handle
        place.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        place.write_text(text)
        return Staged(FileEntry(path=path, stream=stream, rows=len(rows), bytes=len(text)), handle)

    def rows(self, stream: str) -> Counter[Row]:
        found: Counter[Row] = Counter()
        for path in (self.root / stream).glob("*.jsonl"):
            found.update(tuple(json.loads(line)) for line in path.read_text().splitlines())
        return found


@dataclass
class SdkTap:
    """A tap as singer-sdk writes them: inclusive keys, a STATE every few rows, its starting STATE first.

    Attributes:
        source: the rows of each stream, in the order of their keys; streams named `u...` are read unsorted, so
            that their STATEs carry progress markers until the stream ends.
        announces: print the starting STATE, unless nothing is left of it.
    """

    source: dict[str, list[Row]]
    announces: bool = True
    every: int = 2

    def messages(self, state: dict[str, Any], streams: list[str]) -> Iterator[tuple[str, Any, Any]]:
        state = {"bookmarks": {k: v for k, v in copy.deepcopy(state).get("bookmarks", {}).items() if v}}
        for bookmark in state["bookmarks"].values():
            bookmark.pop("progress_markers", None)
        state["bookmarks"] = {k: v for k, v in state["bookmarks"].items() if v}
        if state["bookmarks"] and self.announces:
            yield "STATE", None, copy.deepcopy(state)
        last = copy.deepcopy(state)
        for stream in streams:
            yield "SCHEMA", stream, None
            bookmark = state["bookmarks"].setdefault(stream, {})
            start = bookmark.get("replication_key_value")
            if start is not None:
                bookmark["starting_replication_value"] = start
            rows = [row for row in self.source[stream] if start is None or row[0] >= start]
            sorted_ = not stream.startswith("u")
            if not sorted_:
                rows = sorted(rows, key=lambda row: (row[1] % 3, row))
            progress = bookmark if sorted_ else {}
            for number, row in enumerate(rows, 1):
                yield "RECORD", stream, row
                if not sorted_:
                    bookmark["progress_markers"] = progress
                progress["replication_key_value"] = max(row[0], progress.get("replication_key_value", row[0]))
                if number % self.every == 0 and state != last:
                    last = copy.deepcopy(state)
                    yield "STATE", None, copy.deepcopy(state)
            bookmark.pop("starting_replication_value", None)
            if bookmark.pop("progress_markers", None):
                bookmark.update(progress)
            if state != last:
                last = copy.deepcopy(state)
                yield "STATE", None, copy.deepcopy(state)


@dataclass
class Outcome:
    """What a runner saw of a run."""

    printed: list[dict[str, Any]] = field(default_factory=list)
    crashed: bool = False
    cases: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    repeated: int = 0


def load(
    objects: Objects,
    files: Any,
    stage: Callable[[str, str, list[Row]], Staged],
    messages: Iterator[tuple[str, Any, Any]],
    run_id: str,
    *,
    announces: bool = False,
    commit_every: int = 1,
    outcome: Outcome | None = None,
) -> Outcome:
    """A target, reduced to what delivery needs of one. Ends cleanly when the messages do."""
    outcome = outcome or Outcome()
    run = open_run(objects, files, "p", run_id, QUICK)
    try:
        _load(run, stage, messages, run_id, announces, commit_every, outcome)
    finally:
        run.close()
    return outcome


def _load(
    run: Run,
    stage: Callable[[str, str, list[Row]], Staged],
    messages: Iterator[tuple[str, Any, Any]],
    run_id: str,
    announces: bool,
    commit_every: int,
    outcome: Outcome,
) -> None:
    tail: dict[str, list[Row]] = {}
    settled: dict[str, list[Row]] = {}
    trackers: dict[str, BoundaryRows] = {}
    announced: str | None = None
    started, states, numbers = False, 0, itertools.count()
    state: dict[str, Any] | None = None
    last: dict[str, Any] = {}

    def commit(*, at_end: bool = False) -> None:
        nonlocal state
        if state is None and not at_end:
            return
        standing = state or last
        staged, boundaries = [], {}
        for stream, rows in settled.items():
            if not rows or has_progress_markers(standing, stream):
                continue
            key, identity = zip(*rows, strict=True)
            batch = pa.RecordBatch.from_pydict({"key": list(key), "identity": list(identity)})
            kept, repeated = trackers[stream].take(batch)
            outcome.repeated += repeated
            rows[:] = [(row["key"], row["identity"]) for row in kept.to_pylist()]
            if rows:
                staged.append(stage(f"{stream}/p-{run_id}-{next(numbers)}.jsonl", stream, rows))
            if trackers[stream].boundary is not None:
                boundaries[stream] = trackers[stream].boundary
            rows.clear()
        run.commit(staged, json.dumps(state) if state is not None else None, boundaries=boundaries)
        if state is not None:
            run.release()
            outcome.printed.append(state)
        state = None

    for kind, stream, value in messages:
        if kind == "SCHEMA":
            if not started:
                run.start(announced, announces=announces)
                started = True
            decision = run.decide(stream)
            outcome.cases[stream] = decision.case
            if decision.warning:
                outcome.warnings.append(decision.warning)
            trackers.setdefault(stream, BoundaryRows("key", decision.boundary))
        elif kind == "RECORD":
            tail.setdefault(stream, []).append(value)
        elif not started:
            announced, last = json.dumps(value), value
        else:
            for name, rows in tail.items():
                settled.setdefault(name, []).extend(rows)
            tail.clear()
            state, last, states = value, value, states + 1
            if states % commit_every == 0:
                commit()
    commit()
    # Rule G: rows after the last STATE count if their keys are not beyond it; else the tap died among them.
    whole = True
    for name, rows in tail.items():
        reached = last.get("bookmarks", {}).get(name, {}).get("replication_key_value")
        valid = [row for row in rows if reached is not None and row[0] <= reached]
        whole = whole and len(valid) == len(rows)
        settled.setdefault(name, []).extend(valid)
    if any(settled.values()):
        commit(at_end=True)
    if whole:
        run.end()


def same_place(state: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a tap goes on at the same place from both."""
    return positions(state) == positions(other)
