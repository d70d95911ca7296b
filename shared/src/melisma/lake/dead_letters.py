"""Dead letters: records that broke their schema, kept with the reason, in the same entry as the rows around them.

Files are `_melisma/<pipeline>/dead_letters/<stream>/<run>-<n>.jsonl.zst`, one JSON object a line (`Letter`). A file
is written, staged and committed as a data file is, and like one never holds letters from both sides of the newest
STATE.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from melisma.arrow.schema import stream_schema
from melisma.errors import StorageError
from melisma.formats.writers.jsonl import JsonLinesFormat
from melisma.lake.writer import StagedFile, StreamWriter, WriteBudget

if TYPE_CHECKING:
    from melisma.storage.store import StagedObject, Store

__all__ = ["LETTERS", "DeadLetterWriter", "Letter", "LetterStaging", "read_letters"]


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
    run: str


_SCHEMA: dict[str, Any] = {
    "properties": {name: {"type": "integer" if name == "line" else "string"} for name in Letter.__struct_fields__}
}
LETTERS = stream_schema("", _SCHEMA, (), {}).arrow
"""Letters as rows, which take little memory and may wait on the disk; `run` may be null for the run that meets them."""

_FORMAT = JsonLinesFormat("zstd", row_group_bytes=4 << 20)


class LetterStaging(Protocol):
    """What a writer of letters needs of a lake."""

    run: str

    def stage_letters(self, stream: str, extension: str, /) -> StagedObject:
        """Begin the next file of a stream's dead letters."""

    def discard(self, staged: StagedObject, /) -> None:
        """Drop it."""


class DeadLetterWriter(StreamWriter):
    """Writes one stream's letters, as rows are written.

    Args:
        lake: where files are staged.
        stream: its name.
        budget: shared by the letters of all streams.
    """

    def __init__(self, lake: LetterStaging, stream: str, budget: WriteBudget) -> None:
        super().__init__(_Letters(lake), stream_schema(stream, _SCHEMA, (), {}), _FORMAT, budget)
        self._run = lake.run

    def write(self, batch: pa.RecordBatch) -> None:
        """Take letters (`LETTERS`). Until `settle` they are of the tail.

        Raises:
            StorageError: the store fails; the writer can only be abandoned then.
        """
        *columns, run = batch.columns
        super().write(pa.RecordBatch.from_arrays([*columns, pc.fill_null(run, self._run)], schema=LETTERS))

    def take_settled(self) -> list[StagedFile]:
        """Finish the files of the settled letters; the tail stays."""
        return [replace(file, kind="dead_letter") for file in super().take_settled()]


class _Letters:
    """Where a lake has its dead letters, as a writer of rows sees it."""

    folds_case = False

    def __init__(self, lake: LetterStaging) -> None:
        self._lake, self.discard = lake, lake.discard

    def stage(self, stream: str, partition: Sequence[str], extension: str) -> StagedObject:  # noqa: ARG002
        return self._lake.stage_letters(stream, extension)


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
