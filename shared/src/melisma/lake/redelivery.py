"""Dead letters fed back: what goes in, and what comes of it, change places in one entry of the journal.

It is an entry beside the runs, as a compaction is: it says nothing of STATE, acknowledges nothing, and leaves the
next run's replay decision as it was. So each file that comes of it bears the number of the entry whose letters went
in: if a tap starts before that entry, the rows go with the rest of it, and the tap sends the records again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from melisma.errors import MelismaError
from melisma.lake import failpoints
from melisma.lake.dead_letters import Letter, read_letters
from melisma.lake.journal import Fenced, Journal, is_compaction
from melisma.lake.lake import FileLake
from melisma.lake.maintenance import Overtaken
from melisma.lake.records import Compact, Cut, FileEntry, Intent, RowCounts
from melisma.lake.recover import Settings, _refuse_while_alive, _take_lock, handles, publish, undo
from melisma.lake.replay import Decision, LoadMethod

if TYPE_CHECKING:
    from melisma.lake.objects import Lock
    from melisma.lake.writer import StagedFile

__all__ = ["Redelivered", "RedeliveryLake"]


@dataclass(frozen=True, slots=True)
class Redelivered:
    """What came of one file of letters.

    Attributes:
        letters: the file.
        staged: files of rows, and of letters for what is still bad.
    """

    letters: FileEntry
    staged: Sequence[StagedFile]


class RedeliveryLake(FileLake):
    """A lake whose dead letters are fed back. Call `recover`, and `redeliver` once; no run may be under way."""

    _journal: Journal | None = None
    _lock: Lock | None = None

    def recover(self) -> None:
        """Take the pipeline, so that nobody writes meanwhile. What crashed runs have left is not touched.

        Raises:
            PipelineBusy: a run is alive.
        """
        settings = self._settings or Settings()
        self._lock = _take_lock(self._objects, self._pipeline)
        self._journal = Journal.load(self._objects, self._pipeline, settings.pause)
        _refuse_while_alive(self._journal, settings, locked=self._lock is not None)

    def close(self) -> None:
        """Remove what is staged and give the pipeline up. Does not fail."""
        super().close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def decide(self, stream: str, method: LoadMethod) -> Decision:  # noqa: ARG002
        """Nothing of earlier runs is touched."""
        return Decision(stream, Cut(case="redelivery", seq=0))

    def schema(self, stream: str) -> Mapping[str, Any] | None:
        """As of the last commit."""
        known = self._loaded.history.streams.get(stream)
        schema: Mapping[str, Any] | None = known.schema if known else None
        return schema

    def letter_files(self) -> list[FileEntry]:
        """The files of dead letters, oldest first."""
        found = [file for file in self._loaded.live_files() if file.kind == "dead_letter"]
        return sorted(found, key=lambda file: (file.seq, file.path))

    def letters(self, file: FileEntry) -> Iterator[Letter]:
        """A file's letters."""
        return read_letters(self._store, file.path)

    def redeliver(
        self, done: Sequence[Redelivered], schemas: Mapping[str, Any], counts: Mapping[str, RowCounts]
    ) -> None:
        """Put what came of the letters in their place.

        Args:
            done: for each file of letters, what came of it.
            schemas: of the streams, as far as they have changed.
            counts: what became of the letters, per stream.

        Raises:
            Overtaken: a run has begun meanwhile. Nothing is changed.
            MelismaError: more or fewer records came out than went in. Nothing is changed.
            StorageError: the store fails, or nobody knows; the next run cleans up.
        """
        journal, inputs = self._loaded, [each.letters for each in done]
        if not all(count.balanced for count in counts.values()):
            raise MelismaError("not every dead letter is accounted for; nothing is changed. Please report this")
        staged, adds = [], []
        for each in done:
            origin = each.letters
            for file in each.staged:
                entry = self._entry(file)
                staged.append(entry)
                adds.append(replace(entry.entry, seq=origin.seq, first=origin.first or origin.seq, run=origin.run))
        paths = {file.path for file in inputs}

        def revalidate() -> None:
            if paths & journal.taken:
                raise Overtaken

        record = Compact(run=self.run, adds=adds, removes=inputs, schemas=dict(schemas), counts=dict(counts))
        try:
            intent = Intent(run=self.run, staged=handles(staged), compact=True)
            journal.append(intent, passes=is_compaction, revalidate=revalidate)
            publish(staged, self._files)
            failpoints.reach("redelivery:published")
            journal.append(record, passes=is_compaction, revalidate=revalidate)
        except (Fenced, Overtaken):
            undo(handles(staged), self._files)
            raise Overtaken from None
        failpoints.reach("redelivery:after")
        for letters in inputs:
            self._files.delete(letters.path)

    @property
    def _loaded(self) -> Journal:
        if self._journal is None:
            raise MelismaError("recover() comes before everything else")
        return self._journal
