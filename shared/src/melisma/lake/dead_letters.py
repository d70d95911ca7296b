"""Dead letters: records that broke their schema, kept with the reason, in the same entry as the rows around them.

Files are `_melisma/<pipeline>/dead_letters/<stream>/<run>-<n>.jsonl.zst`, one JSON object a line (`Letter`). A file
is staged and committed as a data file is, and like one never holds letters from both sides of the newest STATE.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, Protocol

import msgspec

from melisma.errors import StorageError
from melisma.lake.writer import StagedFile
from melisma.storage.codecs import open_encoded

if TYPE_CHECKING:
    from melisma.storage.store import StagedObject, Store

__all__ = ["DeadLetterWriter", "Letter", "LetterStaging", "read_letters"]

EXTENSION = "jsonl.zst"

_BUFFER = 4 << 20
"""So many bytes of letters after the newest STATE wait in memory; more go to a file of their own."""

_JSON = msgspec.json.Encoder()


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter.

    Attributes:
        stream: the stream that the record was to go to, after stream maps.
        line: its line in that run's input.
        column: the column at fault, nested ones with dots.
        reason: the rule that it broke.
        run: the run that met it.
        at: when, UTC.
        record: the RECORD line as it came.
    """

    stream: str
    line: int
    column: str | None
    reason: str
    at: str
    record: str
    run: str = ""


class LetterStaging(Protocol):
    """What a writer of letters needs of a lake."""

    run: str

    def stage_letters(self, stream: str, extension: str, /) -> StagedObject:
        """Begin the next file of a stream's dead letters."""

    def discard(self, staged: StagedObject, /) -> None:
        """Drop it."""


class DeadLetterWriter:
    """Writes one stream's letters; `settle`, `take_settled` and `abandon` are a sink's writer's."""

    def __init__(self, lake: LetterStaging, stream: str) -> None:
        self._lake, self._stream = lake, stream
        self._settled: _LetterFile | None = None
        self._tail: _LetterFile | None = None
        self._done: list[StagedFile] = []
        self._buffer: list[bytes] = []
        self._size = 0

    def write(self, letters: Iterable[Letter]) -> None:
        """Take letters. Until `settle` they are of the tail."""
        for letter in letters:
            line = _JSON.encode(msgspec.structs.replace(letter, run=letter.run or self._lake.run)) + b"\n"
            self._buffer.append(line)
            self._size += len(line)
        if self._size > _BUFFER:
            self._tail = self._tail or _LetterFile(self._lake, self._stream)
            self._drain(self._tail)

    def settle(self) -> None:
        """A STATE was read: every letter so far comes before it."""
        if self._tail is not None:
            self._done.append(self._tail.close())
            self._tail = None
        if self._buffer:
            self._settled = self._settled or _LetterFile(self._lake, self._stream)
            self._drain(self._settled)

    def take_settled(self) -> Sequence[StagedFile]:
        """Finish the files of the settled letters; the tail stays."""
        if self._settled is not None:
            self._done.append(self._settled.close())
            self._settled = None
        done, self._done = self._done, []
        return done

    def abandon(self) -> None:
        """Drop everything."""
        for file in (self._settled, self._tail):
            if file is not None:
                self._lake.discard(file.staged)
        for done in self._done:
            self._lake.discard(done.handle)
        self._settled = self._tail = None
        self._done, self._buffer, self._size = [], [], 0

    def _drain(self, file: _LetterFile) -> None:
        file.write(self._buffer)
        self._buffer, self._size = [], 0


class _LetterFile:
    def __init__(self, lake: LetterStaging, stream: str) -> None:
        self.staged = lake.stage_letters(stream, EXTENSION)
        self._stream = stream
        self._packed = open_encoded(self.staged, "zstd")
        self._rows = 0

    def write(self, lines: Sequence[bytes]) -> None:
        self._packed.write(b"".join(lines))
        self._rows += len(lines)

    def close(self) -> StagedFile:
        self._packed.close()
        self.staged.close()
        staged = self.staged
        return StagedFile(self._stream, staged.final_path, staged, self._rows, staged.bytes_written, kind="dead_letter")


def read_letters(store: Store, path: str) -> Iterator[Letter]:
    """The letters of a file, in order.

    Raises:
        StorageError: the file cannot be read, or is not one of dead letters.
    """
    decoder = msgspec.json.Decoder(Letter)
    source: BinaryIO = store.open_input(path, "zstd")
    with source:
        for line in source:
            try:
                yield decoder.decode(line)
            except msgspec.MsgspecError as error:
                fix = "Restore it from a backup"
                raise StorageError("read", store.display(path), "it does not hold dead letters", fix) from error
