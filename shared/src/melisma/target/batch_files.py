"""The files that BATCH messages name: which may be read, and opening them so that nothing else can be read instead.

A manifest comes with the input, so nothing in it is trusted. A file is read only from the private folder of an
exchange (`melisma.wire.exchange`), or from below a root that the configuration names; everything else is refused
before it is touched. Local paths are resolved first, so that neither `..` nor a symbolic link leads out of a root.
No URL is ever fetched by its own scheme: a remote file is asked from the store of the root that it lies below.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from melisma.errors import BadFile, BadMessage, ConfigError, printable
from melisma.storage.filesystem import open_store
from melisma.storage.store import Store
from melisma.storage.url import parse
from melisma.wire.batch import Batch
from melisma.wire.exchange import JoinedExchanges, run_folder

__all__ = ["BatchFile", "BatchFiles"]

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_MEGABYTE = 1 << 20


class BatchFile:
    """One open file.

    Attributes:
        name: its last segment, for messages.
        file: its bytes as stored.
        size: how many.
        private: whether it lies in the private folder of an exchange: then it may be mapped, and is removed.
    """

    def __init__(self, name: str, file: BinaryIO, size: int, path: Path | None = None) -> None:
        self.name, self.file, self.size, self._path = name, file, size, path
        self.private = path is not None

    def buffer(self) -> pa.Buffer:
        """The whole file: mapped where it is private, read where others may still write to it."""
        if not self.size:
            return pa.py_buffer(b"")
        if not self.private:
            return pa.py_buffer(self.file.read())
        # All pages at once: to be faulted in one by one costs more than to read the file.
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        return pa.py_buffer(mmap.mmap(self.file.fileno(), self.size, flags=flags, prot=mmap.PROT_READ))

    def remove(self) -> None:
        """Its rows are taken: a private file is removed, which tells the tap to go on."""
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()


class BatchFiles:
    """Finds and opens the files of manifests.

    Args:
        roots: paths and URLs below which files may be read, besides private folders.
        options: the setting `storage_options`, for roots that are URLs.
        distribution: the connector's own, for messages.
        most_bytes: the largest file, as stored.

    Raises:
        ConfigError: a root is not a path or URL.
    """

    def __init__(
        self, roots: Sequence[str], options: Mapping[str, Any] | None, *, distribution: str, most_bytes: int
    ) -> None:
        self._most_bytes = most_bytes
        self._exchanges = JoinedExchanges()
        self._local: list[Path] = []
        self._stores: list[Store] = []
        for root in roots:
            place = parse(root, setting="batch_roots")
            if place.scheme == "file":
                self._local.append(Path(os.path.realpath(place.path)))
            else:
                self._stores.append(open_store(root, options, distribution=distribution, setting="batch_roots"))

    @contextlib.contextmanager
    def open(self, url: str, batch: Batch) -> Iterator[BatchFile]:
        """Open a file of a manifest.

        Raises:
            BadMessage: it may not be read; nothing was touched.
            BadFile: it is not there, too large, or no file.
        """
        path = _local_path(url)
        opened = self._remote(url, batch) if path is None else self._at(path, batch)
        with contextlib.closing(opened.file):
            if opened.size > self._most_bytes:
                raise self.too_large(batch, opened.name)
            yield opened

    def too_large(self, batch: Batch, name: str) -> BadFile:
        """The error for a file that is larger than `max_batch_file_mb`, as stored or unpacked."""
        return BadFile(
            f"holds more than {self._most_bytes // _MEGABYTE} MiB",
            stream=batch.stream,
            file=name,
            fix="Let the tap write smaller files (batch_size), or raise max_batch_file_mb",
        )

    def leave(self) -> None:
        """The run is over: let go of private folders, and remove those that nobody else holds."""
        self._exchanges.leave()

    def _at(self, path: str, batch: Batch) -> BatchFile:
        resolved = os.path.realpath(path)
        folder = run_folder(resolved)
        if folder is None and not any(Path(resolved).is_relative_to(root) for root in self._local):
            raise _refused(batch)
        name = printable(Path(resolved).name)
        try:
            if folder is not None:
                self._exchanges.join(folder)
            # Neither a symbolic link put there meanwhile, nor a pipe that blocks.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.fdopen(os.open(resolved, flags), "rb")
        except FileNotFoundError:
            raise _bad(
                batch, name, "is not there", "Run the tap again; its files must stay until they are read"
            ) from None
        except IsADirectoryError:
            raise _bad(batch, name, "is not a file", "Mend the tap") from None
        except OSError as error:
            raise _bad(batch, name, f"cannot be read: {error.strerror}", "Grant this user access to it") from None
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or os.path.realpath(resolved) != resolved:
            file.close()
            raise _bad(batch, name, "is not a file", "Mend the tap")
        return BatchFile(name, file, found.st_size, None if folder is None else Path(resolved))

    def _remote(self, url: str, batch: Batch) -> BatchFile:
        try:
            place = parse(url, setting="manifest")
        except ConfigError:
            raise _refused(batch) from None
        segments = place.path.split("/")
        for store in self._stores:
            root = store.root
            above = [each for each in root.path.split("/") if each]
            inside = segments[: len(above)] == above and len(segments) > len(above)
            if (place.scheme, place.bucket) != (root.scheme, root.bucket) or not inside:
                continue
            if any(each in {"", ".", ".."} for each in segments) or set(place.path) & set("?#%\\\0"):
                break
            path, name = "/".join(segments[len(above) :]), printable(segments[-1])
            size = store.size(path)
            if size is None:
                raise _bad(batch, name, "is not there", "Run the tap again; its files must stay until they are read")
            return BatchFile(name, store.open_raw(path), size)
        raise _refused(batch)


def _local_path(url: str) -> str | None:
    """The absolute path that a file URL or a plain path means; None for other URLs. A relative path is none."""
    if not _REMOTE.match(url):
        return url if url.startswith("/") and "\0" not in url else None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme.lower() != "file" or parts.netloc not in {"", "localhost"} or parts.query or parts.fragment:
        return None
    path = unquote(parts.path, errors="surrogateescape")
    return path if path.startswith("/") and "\0" not in path else None


def _refused(batch: Batch) -> BadMessage:
    return BadMessage(
        "a BATCH message names a file outside the folders that may be read",
        stream=batch.stream,
        line=batch.line,
        fix='If it is to be read, add its folder to the setting "batch_roots"',
    )


def _bad(batch: Batch, name: str, rule: str, fix: str) -> BadFile:
    return BadFile(rule, stream=batch.stream, file=name, fix=fix)
