"""Files and directories on their way to the disk, several at a time.

A file system settles many `fsync` calls together for little more than it takes for one, if they come at the same time.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from melisma.errors import StorageError
from melisma.storage.store import refused

__all__ = ["Syncs"]

_AT_ONCE = 8
_MOST_WAITING = 64  # files stay open as long


class Syncs:
    """What is to be on the disk by the next `wait`.

    A file stays open until it is there: an error of the disk that comes after its last descriptor was closed could be
    lost.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[tuple[Future[None], Path]] = deque()

    def file(self, path: Path, sync: Callable[[], None]) -> None:
        """Begin to write out a file; `sync` does it, and closes it.

        Raises:
            StorageError: one that was begun before could not be written.
        """
        self._begin(path, sync)

    def directory(self, path: Path, *, may_fail: bool = False) -> None:
        """Begin to write out the names in a directory.

        Args:
            path: the directory.
            may_fail: it stands above what is ours, where we may have no right to read.
        """
        self._begin(path, lambda: _sync_directory(path, may_fail=may_fail))

    def wait(self) -> None:
        """Until everything is on the disk.

        Raises:
            StorageError: something could not be written.
        """
        failed: StorageError | None = None
        while self._waiting:
            try:
                self._oldest()
            except StorageError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _begin(self, path: Path, sync: Callable[[], None]) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="melisma-sync")
        self._waiting.append((self._pool.submit(sync), path))
        if len(self._waiting) > _MOST_WAITING:
            self._oldest()

    def _oldest(self) -> None:
        future, path = self._waiting.popleft()
        try:
            future.result()
        except OSError as error:
            raise refused("write", str(path), error) from error


def _sync_directory(directory: Path, *, may_fail: bool) -> None:
    with contextlib.suppress(PermissionError) if may_fail else contextlib.nullcontext():
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that have no such thing
                raise
        finally:
            os.close(descriptor)
