"""Plain files as a destination: what is staged becomes visible, and its STATE is recorded.

A commit publishes the files, makes their names durable, and then records the STATE. A crash between the two
leaves files whose STATE is the old one; nothing is lost, and their rows come again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
from collections.abc import Sequence

from melisma.errors import ConfigError, StorageError, printable
from melisma.lake import layout
from melisma.lake.writer import StagedFile
from melisma.storage.store import StagedObject, Store, StoreLock

__all__ = ["FileLake"]

_LOG = logging.getLogger(__name__)


class FileLake:
    """One pipeline's side of a lake, for one run: `recover`, then commits, then `close`.

    Args:
        store: its root is the lake's.
        pipeline: the setting: whose data this is.

    Attributes:
        run: this run's id.
        folds_case: whether "a" and "A" are one file name there; known after `recover`.

    Raises:
        ConfigError: `pipeline` cannot be part of a file name.
    """

    def __init__(self, store: Store, pipeline: str = layout.DEFAULT_PIPELINE) -> None:
        self._store, self._pipeline = store, layout.check_pipeline(pipeline)
        self._meta = layout.meta_dir(pipeline)
        self._state_path = f"{self._meta}/state.json"
        self._staging = f"{self._meta}/staging"
        self.run = layout.new_run_id()
        self.folds_case = False
        self._numbers = itertools.count(1)
        self._segments: dict[str, str] = {}
        self._lock: StoreLock | None = None

    def recover(self) -> None:
        """Take the pipeline's lock, and remove what dead runs have staged.

        Raises:
            StorageError: another run of this pipeline is alive, or the store fails.
        """
        if self._lock is None:
            self._lock = self._store.try_lock(f"{self._meta}/lock")
            if self._lock is None:
                rule = f'another run of the pipeline "{self._pipeline}" is writing to it'
                fix = 'Wait until it has ended, or give this one its own "pipeline"'
                raise StorageError("open", self._store.display(), rule, fix)
        self.folds_case = self._store.exists(f"{self._meta.replace(layout.META, layout.META.upper(), 1)}/lock")
        for run in self._store.list_dirs(self._staging):
            if run != self.run:
                _LOG.info("removing what the run %s has left unfinished", run)
                self._store.delete_tree(f"{self._staging}/{run}")

    def committed_state(self) -> bytes:
        """The STATE of the last commit, as the JSON text that `commit` was given; `{}` for a new lake.

        Needs no lock.

        Raises:
            StorageError: it cannot be read.
        """
        if not self._store.exists(self._state_path):
            return b"{}"
        text = self._store.read_bytes(self._state_path)
        try:
            json.loads(text)
        except ValueError:
            where = self._store.display(self._state_path)
            fix = "Write the STATE to continue from into it, or remove it to begin anew"
            raise StorageError("read", where, "it is not JSON", fix) from None
        return text

    def stage(self, stream: str, partition: Sequence[str], extension: str) -> StagedObject:
        """Begin the next file of a stream.

        Args:
            stream: its name.
            partition: directory names from `layout.partition_segment`.
            extension: without the dot.
        """
        number = next(self._numbers)
        name = layout.FileName(self._pipeline, self.run, number, extension)
        final = "/".join([self._stream_dir(stream), *partition, str(name)])
        return self._store.stage(f"{self._staging}/{self.run}/{number:06d}.tmp", final)

    def discard(self, staged: StagedObject) -> None:
        """Drop what `stage` began."""
        self._store.discard(staged)

    def commit(self, staged: Sequence[StagedFile], state: bytes | None) -> None:
        """Make files visible and durable, then record the STATE that covers them.

        Args:
            staged: closed files; empty is fine.
            state: the STATE's value as JSON text, kept byte for byte; None leaves the recorded one as it is.

        Raises:
            StorageError: the store fails. What this call has published is removed again.
        """
        before = self.committed_state() if state is not None else b""
        try:
            for file in staged:
                self._store.publish(file.handle)
            if staged:
                self._store.sync_published()
            if state is not None:
                self._store.write_bytes_atomic(self._state_path, state)
        except BaseException:
            if state is None or state == before or not self._recorded(state):
                self._withdraw(staged)
            raise

    def close(self) -> None:
        """Remove the run's staging and give the lock up. Does not fail."""
        with contextlib.suppress(StorageError):
            if self._lock is not None:
                self._store.delete_tree(f"{self._staging}/{self.run}")
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    abandon = close

    def _recorded(self, state: bytes) -> bool:
        """Whether this STATE stands although recording it failed: its rows would be lost if they were removed."""
        try:
            return self.committed_state() == state
        except StorageError:
            return True

    def _withdraw(self, staged: Sequence[StagedFile]) -> None:
        for file in reversed(staged):
            try:
                self._store.withdraw(file.handle)
            except StorageError as error:
                _LOG.warning("a file of a failed commit stays: %s", error)

    def _stream_dir(self, stream: str) -> str:
        segment = self._segments.get(stream)
        if segment is None:
            segment = layout.stream_segment(stream)
            if self.folds_case:
                taken = [*self._segments.values(), *self._store.list_dirs("")]
                other = next((name for name in taken if name != segment and name.lower() == segment.lower()), None)
                if other is not None:
                    rule = f'the stream "{printable(stream)}" and the directory "{other}" differ in case only, '
                    rule += "which this file system does not tell apart"
                    raise ConfigError("destination_path", rule, "Rename one stream, or use another file system")
            self._segments[stream] = segment
        return segment
