"""Local directories as a store: temporary name, fsync, hard link into place, fsync of the directories."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from melisma.errors import StorageError
from melisma.storage.store import FileInfo, StagedObject, Store, refused
from melisma.storage.syncing import Syncs
from melisma.storage.url import StoreUrl

__all__ = ["LocalStore"]

_BUFFER = 1 << 16
_MAGIC = re.compile(r"[*?\[]")


class LocalStore(Store):
    """A local directory. It is created by the first write."""

    def __init__(self, root: StoreUrl) -> None:
        super().__init__(root)
        self._base = Path(root.path)
        self._unsynced: set[Path] = set()
        self._syncs = Syncs()
        self._durable: set[Path] = set()  # directories whose own names are known to survive a crash

    def open_raw(self, path: str) -> BinaryIO:
        """See Store."""
        full = self._full(path)
        try:
            return io.BufferedReader(_LocalInput(full), _BUFFER)
        except OSError as error:
            raise refused("read", str(full), error) from error

    def glob(self, pattern: str) -> list[FileInfo]:
        """See Store."""
        segments = [segment for segment in pattern.split("/") if segment]
        if not segments:
            return []
        literal = self._full(pattern)
        if literal.is_file():
            return [_info("/".join(segments), literal.stat())]
        found = dict(self._match(self._base, "", segments))
        return [_info(path, status) for path, status in sorted(found.items())]

    def exists(self, path: str) -> bool:
        """See Store."""
        full = self._full(path)
        try:
            full.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise refused("read", str(full), error) from error
        return True

    def size(self, path: str) -> int | None:
        """See Store."""
        full = self._full(path)
        try:
            return full.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise refused("read", str(full), error) from error

    @property
    def directory(self) -> Path:
        """The root as the system knows it."""
        return self._base

    def stage(self, temporary_path: str, final_path: str) -> StagedObject:
        """See Store."""
        temporary, final = self._full(temporary_path), self._full(final_path)
        try:
            try:
                return _LocalStaged(temporary, final, temporary_path, final_path, self._syncs)
            except FileNotFoundError:
                temporary.parent.mkdir(parents=True, exist_ok=True)
                return _LocalStaged(temporary, final, temporary_path, final_path, self._syncs)
        except OSError as error:
            raise refused("write", str(temporary), error) from error

    def publish(self, staged: StagedObject) -> None:
        """See Store. Needs hard links: a rename would overwrite what is there."""
        assert isinstance(staged, _LocalStaged)  # noqa: S101 - only our own `stage` makes them
        final = staged.final
        if not staged.closed:
            raise StorageError("write", str(final), "it is not finished yet")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            self._unsynced.add(final.parent)
            os.link(staged.temporary, final)
        except OSError as error:
            raise refused("write", str(final), error) from error
        with contextlib.suppress(OSError):  # a second name of the file does no harm; `recover` removes it
            staged.temporary.unlink()

    def sync_published(self) -> None:
        """See Store. Covers the directories above too, once: another run may have made them and died."""
        above = {
            directory.parent
            for changed in self._unsynced
            for directory in (changed, *changed.parents)
            if directory not in self._durable and directory.is_relative_to(self._base)
        }
        for directory in sorted(self._unsynced | above):
            # What stands above the root may be a directory that we may pass through, not read.
            self._syncs.directory(directory, may_fail=not directory.is_relative_to(self._base))
        self._syncs.wait()
        for changed in self._unsynced:
            self._durable.update((changed, *changed.parents))
        self._unsynced.clear()

    def discard(self, staged: StagedObject) -> None:
        """See Store."""
        assert isinstance(staged, _LocalStaged)  # noqa: S101 - only our own `stage` makes them
        staged.drop()

    def revoke(self, handle: str) -> None:
        """See Store. The handle is the temporary path."""
        self.delete(handle)

    def delete(self, path: str) -> None:
        """See Store."""
        full = self._full(path)
        try:
            if full.is_dir() and not full.is_symlink():
                full.rmdir()
            else:
                full.unlink(missing_ok=True)
        except OSError as error:
            raise refused("delete", str(full), error) from error

    def delete_tree(self, path: str) -> None:
        """See Store."""
        full = self._full(path)
        try:
            shutil.rmtree(full)
        except FileNotFoundError:
            return
        except OSError as error:
            raise refused("delete", str(full), error) from error

    def list_dirs(self, path: str) -> list[str]:
        """See Store."""
        full = self._full(path)
        try:
            with os.scandir(full) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise refused("list", str(full), error) from error

    def _full(self, path: str) -> Path:
        segments = [segment for segment in path.split("/") if segment not in ("", ".")]
        full = self._base.joinpath(*segments)
        if ".." in segments or "\x00" in path:
            raise StorageError("open", self.display(), "a path below it leads out of it", "Write the path without ..")
        return full

    def _match(self, directory: Path, prefix: str, segments: list[str]) -> Iterator[tuple[str, os.stat_result]]:
        segment, rest = segments[0], segments[1:]
        try:
            if segment == "**":
                rest = rest or ["*"]
                yield from self._match(directory, prefix, rest)
                for entry in _entries(directory):
                    if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                        yield from self._match(directory / entry.name, f"{prefix}{entry.name}/", segments)
            elif _MAGIC.search(segment):
                matches = re.compile(fnmatch.translate(segment)).match
                for entry in _entries(directory):
                    if not matches(entry.name) or (entry.name.startswith(".") and not segment.startswith(".")):
                        continue
                    if rest:
                        if entry.is_dir():
                            yield from self._match(directory / entry.name, f"{prefix}{entry.name}/", rest)
                    elif entry.is_file():
                        yield prefix + entry.name, entry.stat()
            elif rest:
                yield from self._match(directory / segment, f"{prefix}{segment}/", rest)
            else:
                status = (directory / segment).stat()
                if stat.S_ISREG(status.st_mode):
                    yield prefix + segment, status
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise refused("list", str(directory), error) from error


class _LocalInput(io.FileIO):
    """A local file whose read errors are StorageErrors."""

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise refused("read", str(self.name), error) from error

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            raise refused("read", str(self.name), error) from error


class _LocalStaged(StagedObject):
    def __init__(self, temporary: Path, final: Path, handle: str, final_path: str, syncs: Syncs) -> None:
        self.temporary, self.final, self._syncs = temporary, final, syncs
        self.handle, self.final_path, self.bytes_written = handle, final_path, 0
        self._raw = io.FileIO(temporary, "xb")
        self._file = io.BufferedWriter(self._raw, _BUFFER)

    def write(self, data: Any) -> int:
        try:
            count = self._file.write(data)
        except OSError as error:
            raise refused("write", str(self.temporary), error) from error
        self.bytes_written += count
        return count

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        try:
            self._file.flush()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._raw.close()
            raise refused("write", str(self.temporary), error) from error
        self._syncs.file(self.temporary, self._sync)

    def _sync(self) -> None:
        with self._raw:
            os.fsync(self._raw.fileno())

    def drop(self) -> None:
        if not self.closed:
            super().close()
            # What the buffer still holds is not wanted: close the descriptor under it, without a flush.
            with contextlib.suppress(OSError):
                self._raw.close()
        with contextlib.suppress(OSError):
            self.temporary.unlink()

    def __del__(self) -> None:
        """Leave nothing half-closed, and never fsync from the garbage collector."""
        with contextlib.suppress(Exception):
            self._raw.close()


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return list(entries)


def _info(path: str, status: os.stat_result) -> FileInfo:
    return FileInfo(path, status.st_size, status.st_mtime_ns)
