"""Which files a run reads, and from where: by what the bookmark knows of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from melisma.errors import ConfigError
from melisma.formats.blocks import Place
from melisma.storage import codecs
from melisma.storage.filesystem import FileInfo, Store
from melisma_tap_files.seen import TAIL_BYTES, Known, SeenFiles, path_hash, tail_hash, version_hash

__all__ = ["Partial", "Plan", "Task"]


@dataclass(frozen=True, slots=True)
class Partial:
    """How far a file was read that is not finished. In the bookmark it is `partial`, null for none.

    Attributes:
        path: `path_hash` of the file.
        version: its `version_hash`.
        place: where to go on.
        tail: `tail_hash` of the bytes before that place; None where it was not taken.
    """

    path: int
    version: int
    place: Place
    tail: int | None

    def to_json(self) -> dict[str, Any]:
        """As it stands in the bookmark, always with the same keys."""
        offset, line = self.place.offset, self.place.line
        return {"path": self.path, "version": self.version, "position": offset, "line": line, "tail": self.tail}

    @classmethod
    def from_json(cls, found: Mapping[str, Any] | None, stream: str) -> Partial | None:
        """Read `to_json`.

        Raises:
            ConfigError: it is not that.
        """
        if found is None:
            return None
        try:
            numbers = [found[key] for key in ("path", "version", "position", "line")]
            if not all(type(number) is int and number >= 0 for number in numbers):
                raise TypeError
            path, version, offset, line = numbers
            return cls(path, version, Place(offset, line), found.get("tail"))
        except (KeyError, TypeError):
            fix = "Restore the state from a copy, or remove the stream's bookmark to read all files again"
            raise ConfigError(f"state, bookmarks.{stream}.partial", "is damaged", fix) from None


@dataclass(frozen=True, slots=True)
class Task:
    """One file to read, from a place on.

    Attributes:
        path: `path_hash` of the file.
        version: its `version_hash`.
    """

    info: FileInfo
    path: int
    version: int
    start: Place


class Plan:
    """Compares a listing with a bookmark.

    Args:
        store: where the files are.
        compression: the stream's setting.
        has_lines: whether the format is text that may grow.
        stream: the stream's name.
        logger: what is done and why goes there.
    """

    def __init__(self, store: Store, compression: str, *, has_lines: bool, stream: str, logger: logging.Logger) -> None:
        self._store, self._compression, self._has_lines = store, compression, has_lines
        self._stream, self._logger = stream, logger

    def tasks(self, files: list[FileInfo], seen: SeenFiles, partial: Partial | None) -> list[Task]:
        """What is to be read: the unfinished file first, then the others by path."""
        tasks: list[Task] = []
        for info in files:
            path = path_hash(self._store.display(info.path))
            version = version_hash(info.mtime_ns, info.etag)
            if partial is not None and path == partial.path:
                start = self._after_partial(info, version, partial)
                tasks.insert(0, Task(info, path, version, start))
                continue
            known = seen.get(path)
            if known is None:
                tasks.append(Task(info, path, version, Place()))
            elif known.version != version or (known.size != info.size and self.grows(info)):
                tasks.append(Task(info, path, version, self._after_change(info, known)))
        if partial is not None and not any(task.path == partial.path for task in tasks):
            self._logger.warning(
                'stream "%s": a file that was being read when the last run ended is gone; its other rows are lost',
                self._stream,
            )
        return tasks

    def grows(self, info: FileInfo) -> bool:
        """Whether the file is one that can be read on from its old end: text, not compressed."""
        codec = codecs.infer(info.path) if self._compression == "infer" else self._compression
        return self._has_lines and codec == "none"

    def tail(self, info: FileInfo, end: int) -> int | None:
        """The `tail_hash` of the file's bytes before `end`."""
        if not self.grows(info):
            return None
        with self._store.open_raw(info.path) as file:
            return tail_hash(_before(file, end))

    def _after_partial(self, info: FileInfo, version: int, partial: Partial) -> Place:
        if version == partial.version:
            return partial.place
        if self._still_begins(info, partial.place.offset, partial.tail):
            return partial.place
        self._warn_changed(info)
        return Place()

    def _after_change(self, info: FileInfo, known: Known) -> Place:
        if self._still_begins(info, known.size, known.tail):
            return Place(known.size, self._lines(info, known.size))
        self._warn_changed(info)
        return Place()

    def _still_begins(self, info: FileInfo, end: int, tail: int | None) -> bool:
        """Whether the file has only grown since its first `end` bytes were read, and the last record was whole."""
        if not self.grows(info) or info.size < end or not end:
            return False
        with self._store.open_raw(info.path) as file:
            before = _before(file, end)
            after = file.read(1)
        whole = before.endswith((b"\n", b"\r")) or after in {b"", b"\n", b"\r"}
        return len(before) == min(end, TAIL_BYTES) and whole and (tail is None or tail_hash(before) == tail)

    def _lines(self, info: FileInfo, end: int) -> int:
        """Line ends before `end`, so that messages and `_sdc_source_lineno` count from the file's start."""
        newlines = returns = 0
        with self._store.open_raw(info.path) as file:
            while end:
                data = file.read(min(end, 1 << 20))
                if not data:
                    break
                newlines, returns, end = newlines + data.count(b"\n"), returns + data.count(b"\r"), end - len(data)
        return newlines or returns

    def _warn_changed(self, info: FileInfo) -> None:
        self._logger.warning(
            'stream "%s": file "%s" has changed since it was read, other than by growing at its end, and is read '
            "again: a target that appends will hold its rows twice",
            self._stream,
            self._store.display(info.path),
        )


def _before(file: BinaryIO, end: int) -> bytes:
    start = max(end - TAIL_BYTES, 0)
    file.seek(start)
    return file.read(end - start)
