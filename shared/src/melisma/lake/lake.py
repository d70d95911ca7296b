"""Plain files as a destination: data and STATE become durable together, in one entry of the journal.

The protocol is in `recover` and `journal`; here it meets the store (`melisma.storage`) and the target's load.
docs/delivery.md says what each crash point leaves.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from melisma.errors import ConfigError, MelismaError, StorageError, printable
from melisma.lake import layout, maintenance
from melisma.lake.changes import Changes
from melisma.lake.generation import LiveFiles, Switch, Versioned, plan
from melisma.lake.merge import KEY_BYTES
from melisma.lake.objects import Objects, objects_of
from melisma.lake.records import Boundary, FileEntry, RowCounts
from melisma.lake.recover import Run, Settings, Staged, committed_state, open_run
from melisma.lake.replay import Decision, LoadMethod
from melisma.lake.writer import StagedFile
from melisma.storage.store import StagedObject, Store

__all__ = ["Facts", "FileLake"]

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Facts:
    """What a commit says of its streams besides their files.

    Attributes:
        schemas: each stream's JSON Schema and key.
        boundaries: the rows at each stream's highest replication key.
        versions: the generation that a stream's rows belong to.
        counts: what became of the records that were read.
        switches: streams whose rows are replaced by a new generation.
        held: streams whose progress the STATE forgets; what is committed of them came before an earlier one.
    """

    schemas: dict[str, Any] = field(default_factory=dict)
    boundaries: dict[str, Boundary] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    counts: dict[str, RowCounts] = field(default_factory=dict)
    switches: dict[str, Switch] = field(default_factory=dict)
    held: frozenset[str] = frozenset()


class FileLake:
    """One pipeline's side of a lake, for one run: `recover`, `start`, then commits, then `end` or not, then `close`.

    Args:
        store: its root is the lake's.
        pipeline: the setting: whose data this is.
        settings: how the run deals with others.
        key_bytes: how many bytes of keys an upsert looks at together; see `melisma.lake.merge`.

    Attributes:
        run: this run's id.
        folds_case: whether "a" and "A" are one file name there; known after `recover`.

    Raises:
        ConfigError: `pipeline` cannot be part of a file name.
    """

    def __init__(
        self,
        store: Store,
        pipeline: str = layout.DEFAULT_PIPELINE,
        settings: Settings | None = None,
        *,
        key_bytes: int = KEY_BYTES,
    ) -> None:
        self._store, self._pipeline, self._settings = store, layout.check_pipeline(pipeline), settings
        self._staging = f"{layout.meta_dir(pipeline)}/staging"
        self._objects: Objects = objects_of(store)
        self._files = _LakeFiles(store)
        self.run = layout.new_run_id()
        self.folds_case = False
        self._numbers = itertools.count(1)
        self._segments: dict[str, str] = {}
        self._key_bytes = key_bytes
        self._live = LiveFiles(lambda stream: self._opened.live_files(stream))
        self._run: Run | None = None
        self._started = False

    def recover(self) -> None:
        """Take the pipeline for this run, and remove what dead runs have left without an entry.

        Raises:
            PipelineBusy: another run of this pipeline is alive.
            StorageError: the store fails, or cannot keep two runs apart.
        """
        # Looked for before the run opens: what a compaction begins after that is not a dead run's.
        left, uploads = self._store.list_dirs(self._staging), list(self._store.unfinished())
        self._run = open_run(self._objects, self._files, self._pipeline, self.run, self._settings)
        meta = layout.meta_dir(self._pipeline)
        self.folds_case = self._store.exists(meta.replace(layout.META, layout.META.upper(), 1))
        for run in left:
            if run != self.run:
                _LOG.info("removing what the run %s has left unfinished", run)
                self._store.delete_tree(f"{self._staging}/{run}")
        for path, handle in uploads:
            if self._is_of_another_run(path):
                _LOG.info("revoking an upload that another run has left unfinished: %s", path)
                self._store.revoke(handle)

    def committed_state(self) -> bytes:
        """The STATE of the last commit, as the JSON text that `commit` was given; `{}` for a new lake.

        Needs no lock.
        """
        return (committed_state(self._objects, self._pipeline) or "{}").encode()

    def start(self, announced: bytes | None, *, announces: bool) -> None:
        """How the tap began: the STATE before its first SCHEMA, and whether it says that it always sends one."""
        self._opened.start(announced, announces=announces)
        self._started = True

    def decide(self, stream: str, method: LoadMethod) -> Decision:
        """What becomes of a stream's rows of earlier runs; claims the stream's folder.

        Raises:
            ConfigError: the stream belongs to another pipeline.
            UsageError: the tap starts where it must not.
        """
        self._opened.claim(stream)
        decision = self._opened.decide(stream, method)
        if decision.warning:
            _LOG.warning(decision.warning)
        elif decision.remove:
            rows = sum(file.rows for file in decision.remove)
            _LOG.info(
                'stream "%s": %d rows of an earlier run were not acknowledged; the tap sends them again, '
                "and the first commit replaces them",
                printable(stream),
                rows,
            )
        return decision

    def stage(self, stream: str, partition: Sequence[str], extension: str) -> StagedObject:
        """Begin the next file of a stream.

        Args:
            stream: its name.
            partition: directory names from `layout.partition_segment`.
            extension: without the dot.
        """
        number = next(self._numbers)
        name = layout.FileName(self._pipeline, self.run, number, extension)
        return self._stage(number, "/".join([self._stream_dir(stream), *partition, str(name)]))

    def stage_letters(self, stream: str, extension: str) -> StagedObject:
        """Begin the next file of a stream's dead letters (`melisma.lake.dead_letters`)."""
        number = next(self._numbers)
        folder = f"{layout.meta_dir(self._pipeline)}/dead_letters/{layout.stream_segment(stream)}"
        return self._stage(number, f"{folder}/{self.run}-{number:06d}.{extension}")

    def discard(self, staged: StagedObject) -> None:
        """Drop what `stage` began."""
        self._store.discard(staged)

    def open_data(self, path: str) -> BinaryIO:
        """Open a data file for reading; it is seekable."""
        return self._store.open_raw(path)

    def live_files(self, stream: str) -> list[FileEntry]:
        """The data files that make up a stream now."""
        return self._live.of(stream)

    def version(self, stream: str) -> int | None:
        """The version of a stream's table that was last made the current one; None if none was."""
        return self._opened.version(stream)

    def commit(
        self,
        staged: Sequence[StagedFile | Changes | Versioned],
        state: bytes | None,
        facts: Facts | None = None,
    ) -> int:
        """Make files and STATE durable and visible together, or nothing of it.

        Args:
            staged: closed files; empty is fine.
            state: the newest STATE's value as JSON text, kept byte for byte; None if none came in this run.
            facts: what the entry says of the streams besides their files.

        Returns:
            How many files it added.

        Raises:
            Fenced: another run has taken over.
            GenerationRefused: a new generation is too small.
            StorageError: the store fails; the next run cleans up.
        """
        facts = facts or Facts()
        planned = plan(self, staged, facts.switches, self._live, key_bytes=self._key_bytes)
        try:
            entries = [self._entry(each.file, each.version, replaces=each.replaces) for each in planned.files]
        except StorageError:  # the store did not take one of them: nobody else knows of the others any more
            for each in planned.files:
                with contextlib.suppress(StorageError):
                    self.discard(each.file.handle)
            raise
        if not self._started:
            self.start(None, announces=False)
        seq = self._opened.commit(
            entries,
            state,
            schemas=facts.schemas,
            boundaries=facts.boundaries,
            versions=facts.versions,
            removes=planned.removes,
            counts=facts.counts,
            held=facts.held,
        )
        for each in planned.files:
            self._files.forget(each.file.handle)
        self._live.committed(seq, self.run, [each.entry for each in entries], self._opened.removed)
        return len(entries)

    def release(self) -> None:
        """Call before a STATE goes out."""
        self._opened.release()

    def end(self) -> None:
        """Everything is committed; the next run need not look back."""
        self._opened.end()

    def close(self) -> None:
        """Remove the run's staging and give the pipeline up. Does not fail."""
        with contextlib.suppress(StorageError):
            self._store.delete_tree(f"{self._staging}/{self.run}")
        if self._run is not None:
            self._run.close()
            self._run = None

    def compact(self, inputs: Sequence[FileEntry], staged: Sequence[StagedFile]) -> int:
        """Put staged files in the place of live ones that hold the same rows; needs no `recover`. The entry's number.

        Raises:
            Overtaken: a writer has changed the inputs. Nothing is changed, and what was staged is gone.
        """
        versions = {file.version for file in inputs}  # one: they are compacted apart
        replaces = any(file.replaces for file in inputs)
        entries = [self._entry(each, next(iter(versions)), replaces=replaces) for each in staged]
        return maintenance.compact(self._objects, self._files, self._pipeline, self.run, inputs, entries)

    def rollback(self, to: int) -> int:
        """Bring the lake back to what it was after entry `to`; after `recover`. The new entry's number.

        Raises:
            UsageError: the lake cannot go back there.
        """
        seq = maintenance.rollback(self._opened, self._files, to)
        self._opened.end()
        return seq

    def schema(self, stream: str) -> Mapping[str, Any] | None:
        """What the journal says of a stream's schema as last committed; None for a new stream."""
        known: Mapping[str, Any] | None = self._opened.schema(stream)
        return known

    def _stage(self, number: int, final: str) -> StagedObject:
        temporary = f"{self._staging}/{self.run}/{number:06d}.tmp"
        return self._store.stage(temporary, final)

    def _is_of_another_run(self, path: str) -> bool:
        """Whether an unpublished file is this pipeline's, and not this run's."""
        name = layout.parse_file_name(path.rpartition("/")[2])
        own = path.startswith(f"{layout.meta_dir(self._pipeline)}/") or (
            name is not None and name.pipeline == self._pipeline
        )
        return own and self.run not in path

    def _entry(self, file: StagedFile, version: int | None = None, *, replaces: bool = False) -> Staged:
        entry = FileEntry(
            path=file.path,
            stream=file.stream,
            rows=file.rows,
            bytes=file.bytes,
            kind=file.kind,
            version=version,
            replaces=replaces,
        )
        return Staged(entry, self._files.add(file.handle))

    @property
    def _opened(self) -> Run:
        if self._run is None:
            raise MelismaError("recover() comes before everything else")
        return self._run

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


class _LakeFiles:
    """The lake's files as the journal's protocol moves them (`recover.DataFiles`).

    A handle is what the store can revoke a staged file by, in any process (`StagedObject.handle`).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._staged: dict[str, StagedObject] = {}
        self.at_once = store.at_once

    def add(self, staged: StagedObject) -> str:
        self._staged[staged.handle] = staged
        return staged.handle

    def forget(self, staged: StagedObject) -> None:
        del self._staged[staged.handle]

    def publish(self, handle: str, path: str) -> None:  # noqa: ARG002 - the staged object knows its path
        self._store.publish(self._staged[handle])

    def sync(self) -> None:
        self._store.sync_published()

    def discard(self, handle: str) -> None:
        staged = self._staged.pop(handle, None)
        if staged is not None:
            self._store.discard(staged)
        else:
            self._store.revoke(handle)

    def delete(self, path: str) -> None:
        self._store.delete(path)

    def size(self, path: str) -> int | None:
        return self._store.size(path)
