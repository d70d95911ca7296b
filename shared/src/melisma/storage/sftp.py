"""Servers that speak SFTP, through fsspec: for reading. They cannot create a file only if it is absent, and durably."""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, BinaryIO, cast

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

from melisma.errors import MelismaError, StorageError
from melisma.storage.store import FileInfo, Store, refused
from melisma.storage.url import StoreUrl

__all__ = ["SftpStore", "open_sftp"]


def open_sftp(root: StoreUrl, arguments: Mapping[str, Any]) -> SftpStore:
    """Connect to a server.

    Args:
        root: its bucket is the host, with the user before an "@" and the port behind a ":".
        arguments: from `options.backend_arguments`.

    Raises:
        StorageError: there is no connection, or it is refused.
    """
    arguments = dict(arguments)
    user, _, place = root.bucket.rpartition("@")
    host, _, port = place.partition(":")
    if user:
        arguments.setdefault("username", user)
    if port:
        arguments.setdefault("port", int(port))
    with _failing("open", str(root)):
        return SftpStore(root, SFTPFileSystem(host, **arguments))


class SftpStore(Store):
    """A directory of a server, behind an fsspec file system."""

    def __init__(self, root: StoreUrl, filesystem: Any) -> None:
        super().__init__(root)
        self._filesystem, self._base = filesystem, f"/{root.path}"

    def open_raw(self, path: str) -> BinaryIO:
        """See Store."""
        with _failing("read", self.display(path)):
            file = self._filesystem.open(self._full(path), "rb")
        return cast("BinaryIO", io.BufferedReader(_Input(file, self.display(path)), 1 << 20))

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
                return int(self._filesystem.size(self._full(path)))
            except FileNotFoundError:
                return None

    def list_dirs(self, path: str) -> list[str]:
        """See Store."""
        with _failing("list", self.display(path)):
            try:
                entries = self._filesystem.ls(self._full(path), detail=True)
            except FileNotFoundError:
                return []
        return sorted(str(e["name"]).rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")

    def _full(self, path: str) -> str:
        segments = [segment for segment in path.split("/") if segment not in ("", ".")]
        if ".." in segments or "\x00" in path:
            raise StorageError("open", self.display(), "a path below it leads out of it", "Write the path without ..")
        return "/".join([self._base.rstrip("/"), *segments])

    def _info(self, entry: Mapping[str, Any]) -> FileInfo:
        changed = entry.get("mtime") or 0
        if isinstance(changed, datetime):
            changed = changed.timestamp()
        path = str(entry["name"])[len(self._base) :].lstrip("/")
        return FileInfo(path, int(entry["size"] or 0), int(changed * 1_000_000_000))


class _Input(io.RawIOBase):
    """A remote file whose read errors are StorageErrors."""

    def __init__(self, file: Any, where: str) -> None:
        self._file, self._where = file, where

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _failing("read", self._where):
            self._file.seek(offset, whence)
            return int(self._file.tell())

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        with _failing("read", self._where):
            data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            with contextlib.suppress(Exception):
                self._file.close()


@contextlib.contextmanager
def _failing(action: str, where: str) -> Iterator[None]:
    """Turn what a library raises into a StorageError; its own text may hold secrets, so only its kind is kept."""
    try:
        yield
    except MelismaError:
        raise
    except paramiko.AuthenticationException:
        raise StorageError(action, where, "the server does not accept these credentials", "Check them") from None
    except (paramiko.ssh_exception.NoValidConnectionsError, socket.gaierror, TimeoutError):
        raise StorageError(action, where, "the server cannot be reached", "Check its name and the network") from None
    except OSError as error:
        raise refused(action, where, error) from None
    except Exception as error:
        raise StorageError(action, where, f"the server failed with {type(error).__name__}") from None
