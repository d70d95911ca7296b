"""What every store can do, whichever system is behind it.

Paths given to a store are relative to its root, with "/" between segments; a store never leaves its root.
"""

from __future__ import annotations

import abc
import errno
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

from melisma.errors import StorageError
from melisma.storage import codecs
from melisma.storage.url import StoreUrl, display

__all__ = ["FileInfo", "StagedObject", "Store", "refused"]


@dataclass(frozen=True, slots=True, order=True)
class FileInfo:
    """One file as a listing shows it.

    Attributes:
        path: relative to the store's root.
        size: bytes as stored, that is compressed.
        mtime_ns: when it was last changed, in nanoseconds since 1970; 0 where the store does not say.
        etag: the store's own mark of the content, or None; local files have none.
    """

    path: str
    size: int
    mtime_ns: int
    etag: str | None = None


class StagedObject(io.RawIOBase, abc.ABC):
    """A file being written, which no reader can see until `Store.publish`.

    After `close` the bytes are on their way, where `handle` can stop them: they are durable after `Store.publish` and
    `Store.sync_published`. Each of them raises StorageError if the store cannot promise that.

    Attributes:
        final_path: where `Store.publish` will show it.
        handle: what another process can revoke it by (`Store.revoke`), for good; known once it is closed.
        bytes_written: bytes handed over so far.
    """

    final_path: str
    handle: str
    bytes_written: int

    def writable(self) -> bool:
        """It is for writing only."""
        return True

    def tell(self) -> int:
        """The position, which is always the end: a staged object is written from front to back."""
        return self.bytes_written


class Store(abc.ABC):
    """A directory tree of files, local or remote, below one root.

    What is abstract here is for reading; a store that cannot keep two writers apart has no more.

    Attributes:
        at_once: how many requests at a time take less time than one after the other.
    """

    at_once: ClassVar[int] = 1

    distribution = "melisma"  # the connector's own, which a missing extra is to be installed with

    def __init__(self, root: StoreUrl) -> None:
        self.root = root

    def display(self, path: str = "") -> str:
        """Where `path` is, for messages: without credentials."""
        return display(str(self.root.join(path)))

    def open_input(
        self, path: str, compression: str = "infer", *, max_expansion: int = codecs.MAX_EXPANSION
    ) -> BinaryIO:
        """Open a file for reading as a stream of its decompressed bytes, buffered; the caller closes it.

        It is seekable when the file is not compressed.

        Args:
            path: relative to the root.
            compression: one of `codecs.COMPRESSIONS`; `infer` goes by the name's ending.
            max_expansion: how many times its stored size it may have decompressed (`codecs.MAX_EXPANSION`); 0 for
                no limit.

        Raises:
            StorageError: it cannot be opened or read.
            MissingExtra: the codec's library is not installed.
            BadFile: while reading: it is not what `compression` says, is damaged, cut off, or expands too far.
        """
        return codecs.open_decoded(
            self.open_raw(path),
            compression,
            path,
            self.display(path),
            max_expansion=max_expansion,
            distribution=self.distribution,
        )

    def read_bytes(self, path: str) -> bytes:
        """The whole of a small file, as stored."""
        with self.open_raw(path) as file:
            return file.read()

    @abc.abstractmethod
    def open_raw(self, path: str) -> BinaryIO:
        """Open a file for reading as stored: buffered and seekable. Read errors are StorageErrors."""

    @abc.abstractmethod
    def glob(self, pattern: str) -> list[FileInfo]:
        """The files that match, sorted by path; an absent directory matches nothing.

        `*`, `?` and `[...]` match within one segment, `**` any number of directories (it does not follow
        symbolic links). Names with a leading dot match only where the pattern has the dot. A pattern that is
        itself the path of a file means that file.

        Raises:
            StorageError: a directory on the way cannot be listed; files are never missed silently.
        """

    @abc.abstractmethod
    def exists(self, path: str) -> bool:
        """Whether a file or directory is there."""

    @abc.abstractmethod
    def size(self, path: str) -> int | None:
        """A file's size in bytes as stored, or None if there is none."""

    @abc.abstractmethod
    def list_dirs(self, path: str) -> list[str]:
        """The names of the directories directly below `path`, sorted; none if it is absent."""

    def stage(self, temporary_path: str, final_path: str) -> StagedObject:  # noqa: ARG002
        """Begin a file that will appear at `final_path`.

        `temporary_path` is where its bytes stand until then, for stores that need a name for them; stores with
        unfinished uploads use none.
        """
        raise self._read_only("write", final_path)

    def publish(self, staged: StagedObject) -> None:
        """Show a closed staged object at its final path. Durable only after `sync_published`.

        Raises:
            StorageError: something is at the final path already (it is never overwritten), the object was
                revoked, or the store fails.
        """
        raise self._read_only("write", staged.final_path)

    def sync_published(self) -> None:  # noqa: B027 - most stores have nothing to do
        """Make the names of everything published since the last call survive a crash."""

    def discard(self, staged: StagedObject) -> None:
        """Drop a staged object, closed or not; nothing of it remains. A published one stays where it is."""
        raise self._read_only("delete", staged.final_path)

    def revoke(self, handle: str) -> None:
        """Make it impossible to publish what another process has staged under `handle`. Gone already: fine."""
        raise self._read_only("delete", handle)

    def unfinished(self) -> Iterator[tuple[str, str]]:
        """The final paths and handles of what anybody has staged without a temporary path, and not published."""
        return iter(())

    def delete(self, path: str) -> None:
        """Remove a file, or an empty directory; what is absent already is fine."""
        raise self._read_only("delete", path)

    def delete_tree(self, path: str) -> None:
        """Remove a directory with all that is in it; what is absent already is fine."""
        raise self._read_only("delete", path)

    def _read_only(self, action: str, path: str) -> StorageError:
        return StorageError(action, self.display(path), f"places of {self.root.scheme}:// can be read, not written")


_RULES = {
    errno.ENOSPC: ("no space is left on the device", "Free some space, then run it again"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space or raise the quota, then run it again"),
    errno.EACCES: ("permission is denied", "Grant this user access to it"),
    errno.EPERM: ("the operation is not permitted", "Grant this user access, or use a file system with hard links"),
    errno.EROFS: ("the file system is read-only", "Choose a place that can be written"),
    errno.ENOENT: ("it does not exist", "Check the path"),
    errno.ENOTDIR: ("a part of the path is a file, not a directory", "Check the path"),
    errno.EISDIR: ("it is a directory, not a file", "Check the path"),
    errno.EEXIST: ("it exists already, and is not overwritten", "Another run wrote it: check that one run is active"),
    errno.EXDEV: (
        "its directory is on another file system than the root, so it cannot be moved into place at once",
        "Keep the whole lake on one file system",
    ),
    errno.ENAMETOOLONG: ("the name is too long for the file system", "Shorten the stream's name or the path"),
    errno.EMFILE: ("too many files are open", 'Lower "max_open_files", or raise the limit (ulimit -n)'),
    errno.ENFILE: ("too many files are open on this machine", 'Lower "max_open_files"'),
    errno.EFBIG: ("the file is too big for the file system", 'Lower "max_file_size_mb"'),
    errno.ENOTSUP: ("the file system has no hard links", "Choose a file system that has them"),
    errno.EIO: ("the device failed", "Check the disk"),
}


def refused(action: str, where: str, error: OSError, kind: type[StorageError] = StorageError) -> StorageError:
    """The StorageError, or one of its `kind`, that says in plain words what the system said in its own."""
    number = error.errno
    if number is None and isinstance(error, FileNotFoundError):
        number = errno.ENOENT
    elif number is None and isinstance(error, PermissionError):
        number = errno.EACCES
    if number in _RULES:
        return kind(action, where, *_RULES[number])
    name = errno.errorcode.get(number, str(number)) if number else type(error).__name__
    return kind(action, where, f"the store failed with {name}")
