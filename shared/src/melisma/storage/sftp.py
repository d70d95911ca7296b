"""Remote stores through fsspec.

What is staged stands in a local temporary file and is uploaded by `publish`; a later version holds unfinished
uploads instead. There is no lock.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, BinaryIO, cast

from melisma.errors import MelismaError, MissingExtra, StorageError
from melisma.storage.options import BACKENDS
from melisma.storage.store import FileInfo, StagedObject, Store, StoreLock, refused
from melisma.storage.url import StoreUrl

__all__ = ["RemoteStore", "open_remote"]

_LOG = logging.getLogger(__name__)


def open_remote(root: StoreUrl, arguments: Mapping[str, Any], distribution: str) -> Store:
    """Open a remote store.

    Raises:
        MissingExtra: the backend of this scheme is not installed.
    """
    import fsspec  # here: local stores do not pay for it

    backend = BACKENDS[root.scheme]
    try:
        fsspec.get_filesystem_class(backend.protocol)
    except ImportError:
        raise MissingExtra(f"access to {root.scheme}://", distribution, backend.extra) from None
    arguments = dict(arguments)
    if root.scheme == "sftp":
        user, at, host = root.bucket.rpartition("@")
        arguments["host"] = host
        if at:
            arguments.setdefault("username", user)
    elif root.scheme == "az" and "@" in root.bucket:
        container, _, host = root.bucket.partition("@")
        arguments.setdefault("account_name", host.partition(".")[0])
        root = StoreUrl(root.scheme, container, root.path)
    with _failing("open", str(root)):
        return RemoteStore(root, fsspec.filesystem(backend.protocol, **arguments))


class RemoteStore(Store):
    """A bucket, container or server behind an fsspec file system."""

    def __init__(self, root: StoreUrl, filesystem: Any) -> None:
        super().__init__(root)
        self._filesystem = filesystem
        host = "" if root.scheme == "sftp" else root.bucket
        self._base = "/".join(part for part in (host, root.path) if part)
        if root.scheme in ("sftp", "memory"):
            self._base = f"/{self._base}"

    def open_raw(self, path: str) -> BinaryIO:
        """See Store."""
        with _failing("read", self.display(path)):
            return cast("BinaryIO", self._filesystem.open(self._full(path), "rb"))

    def glob(self, pattern: str) -> list[FileInfo]:
        """See Store."""
        segments = [segment for segment in pattern.split("/") if segment]
        if not segments:
            return []
        if segments[-1] == "**":
            segments.append("*")
        with _failing("list", self.display(pattern)):
            full = self._full(pattern)
            if self._filesystem.isfile(full):
                return [self._info(self._filesystem.info(full))]
            found = self._filesystem.glob(self._full("/".join(segments)), detail=True)
        hidden = any(segment.startswith(".") for segment in segments)
        files = (self._info(entry) for entry in found.values() if entry["type"] == "file")
        return sorted(f for f in files if hidden or not any(s.startswith(".") for s in f.path.split("/")))

    def exists(self, path: str) -> bool:
        """See Store."""
        with _failing("read", self.display(path)):
            return bool(self._filesystem.exists(self._full(path)))

    def size(self, path: str) -> int | None:
        """See Store."""
        with _failing("read", self.display(path)):
            try:
                self._filesystem.invalidate_cache()
                return int(self._filesystem.size(self._full(path)))
            except FileNotFoundError:
                return None

    def write_bytes_atomic(self, path: str, data: bytes) -> None:
        """See Store."""
        with _failing("write", self.display(path)):
            self._make_parent(path)
            self._filesystem.pipe_file(self._full(path), data)

    def stage(self, temporary_path: str, final_path: str) -> StagedObject:  # noqa: ARG002 - needs no name
        """See Store."""
        self._full(final_path)
        return _Spooled(final_path)

    def publish(self, staged: StagedObject) -> None:
        """See Store."""
        assert isinstance(staged, _Spooled)  # noqa: S101 - only our own `stage` makes them
        where = self.display(staged.final_path)
        with _failing("write", where):
            full = self._full(staged.final_path)
            if self._filesystem.exists(full):
                raise refused("write", where, FileExistsError(17, ""))
            self._make_parent(staged.final_path)
            staged.published = True
            self._filesystem.put_file(staged.file.name, full)
        staged.drop()

    def withdraw(self, staged: StagedObject) -> None:
        """See Store."""
        assert isinstance(staged, _Spooled)  # noqa: S101 - only our own `stage` makes them
        if staged.published:
            self.delete(staged.final_path)

    def sync_published(self) -> None:
        """See Store. A remote store has answered only when it was durable."""

    def discard(self, staged: StagedObject) -> None:
        """See Store."""
        assert isinstance(staged, _Spooled)  # noqa: S101 - only our own `stage` makes them
        staged.drop()

    def delete(self, path: str) -> None:
        """See Store."""
        with _failing("delete", self.display(path)), contextlib.suppress(FileNotFoundError):
            self._filesystem.rm(self._full(path))

    def delete_tree(self, path: str) -> None:
        """See Store."""
        with _failing("delete", self.display(path)), contextlib.suppress(FileNotFoundError):
            self._filesystem.rm(self._full(path), recursive=True)

    def list_dirs(self, path: str) -> list[str]:
        """See Store."""
        with _failing("list", self.display(path)):
            try:
                entries = self._filesystem.ls(self._full(path), detail=True)
            except FileNotFoundError:
                return []
        return sorted(str(e["name"]).rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")

    def try_lock(self, path: str) -> StoreLock | None:
        """See Store. Nothing is locked yet: the journal of the lake fences runs on remote stores."""
        _LOG.debug("no lock is taken for %s", self.display(path))
        return _NoLock()

    def _make_parent(self, path: str) -> None:
        """Object stores have no directories; servers need them made."""
        if self.root.scheme in ("sftp", "memory"):
            self._filesystem.makedirs(self._full(path).rpartition("/")[0], exist_ok=True)

    def _full(self, path: str) -> str:
        segments = [segment for segment in path.split("/") if segment not in ("", ".")]
        if ".." in segments or "\x00" in path:
            raise StorageError("open", self.display(), "a path below it leads out of it", "Write the path without ..")
        return "/".join([self._base, *segments])

    def _info(self, entry: Mapping[str, Any]) -> FileInfo:
        changed = next(
            (entry[key] for key in ("LastModified", "last_modified", "updated", "mtime", "created") if entry.get(key)),
            0,
        )
        if isinstance(changed, str):
            changed = datetime.fromisoformat(changed)
        if isinstance(changed, datetime):
            changed = changed.timestamp()
        etag = next((str(entry[key]).strip('"') for key in ("ETag", "etag") if entry.get(key)), None)
        path = str(entry["name"])[len(self._base) :].lstrip("/")
        return FileInfo(path, int(entry["size"] or 0), int(changed * 1_000_000_000), etag)


class _Spooled(StagedObject):
    def __init__(self, final_path: str) -> None:
        self.final_path, self.bytes_written = final_path, 0
        self.published = False
        # A file with a name, since backends upload by path; it goes with `drop`, or with the object.
        self.file = tempfile.NamedTemporaryFile("wb", prefix="melisma-", delete=True)  # noqa: SIM115

    def write(self, data: Any) -> int:
        try:
            count = self.file.write(data)
        except OSError as error:
            raise refused("write", self.file.name, error) from error
        self.bytes_written += count
        return count

    def close(self) -> None:
        if not self.closed:
            super().close()
            try:
                self.file.flush()
            except OSError as error:
                raise refused("write", self.file.name, error) from error

    def drop(self) -> None:
        super().close()
        with contextlib.suppress(OSError):
            self.file.close()


class _NoLock(StoreLock):
    def release(self) -> None:
        pass


@contextlib.contextmanager
def _failing(action: str, where: str) -> Iterator[None]:
    """Turn what a backend raises into a StorageError; its own text may hold secrets, so only its kind is kept."""
    try:
        yield
    except MelismaError:
        raise
    except OSError as error:
        raise refused(action, where, error) from error
    except Exception as error:
        raise StorageError(action, where, f"the store failed with {type(error).__name__}") from error
