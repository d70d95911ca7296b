"""Objects as files: read by ranges, from any place."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import obstore
from obstore import exceptions

from melisma.errors import StorageError
from melisma.storage.store import FileInfo

if TYPE_CHECKING:
    from melisma.storage.object_store import ObjectStore

__all__ = ["READ_AHEAD", "Ranges"]

READ_AHEAD = (64 << 10, 8 << 20)
"""Bytes that are fetched at a time: after a jump, and at most."""


class Ranges(io.RawIOBase):
    """An object read by ranges, further ahead the longer it is read in order, and only as it was when opened."""

    def __init__(self, store: ObjectStore, path: str, info: FileInfo) -> None:
        self._store, self._path, self._info = store, path, info
        self._key = store.key(path)
        self._position, self._start, self._data = 0, 0, memoryview(b"")
        self._ahead = READ_AHEAD[0]

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position; nothing is fetched yet."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._info.size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, from what was fetched or with the next request."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._info.size - self._position)
        if wanted <= 0:
            return 0
        within = self._position - self._start
        if not 0 <= within < len(self._data):
            in_order = self._position == self._start + len(self._data)
            self._ahead = min(self._ahead * 2, READ_AHEAD[1]) if in_order else READ_AHEAD[0]
            self._fetch(max(wanted, self._ahead))
            within = 0
        count = min(wanted, len(self._data) - within)
        view[:count] = self._data[within : within + count]
        self._position += count
        return count

    def _fetch(self, length: int) -> None:
        end = min(self._position + length, self._info.size)
        options: Any = {"range": (self._position, end)}
        if self._info.etag:
            options["if_match"] = f'"{self._info.etag}"'
        with self._store.failing("read", self._path):
            try:
                found = bytes(obstore.get(self._store.objects, self._key, options=options).bytes())
            except exceptions.PreconditionError:
                found = b""
        if len(found) != end - self._position:
            where = self._store.display(self._path)
            raise StorageError("read", where, "it has changed while it was read", "Run it again")
        self._start, self._data = self._position, memoryview(found)
