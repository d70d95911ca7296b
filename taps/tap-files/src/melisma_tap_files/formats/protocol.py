"""What a format is to the tap: a file's columns from a sample, and its rows from a place on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol
from zoneinfo import ZoneInfo

import pyarrow as pa

from melisma.arrow.types import Field, StreamSchema
from melisma.formats.blocks import Place
from melisma_tap_files.settings import StreamSettings

__all__ = ["FileFormat", "Rows", "Sampler", "Wanted", "numbers"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some of a file's rows.

    Attributes:
        batch: their columns.
        end: the place after them, where reading can go on.
        lines: each row's line, or its number in a file without lines; counted from 1.
    """

    batch: pa.RecordBatch
    end: Place
    lines: Callable[[], pa.Array]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be read.

    Attributes:
        schema: the stream's columns, as the catalog has them.
        selected: the names of those that are sent.
        zone: where times without an offset were meant; None for UTC.
        unknown: counts what the files hold beyond the schema, by dotted name.
    """

    schema: StreamSchema
    selected: frozenset[str]
    zone: ZoneInfo | None
    unknown: Counter[str]

    @property
    def fields(self) -> list[Field]:
        """The selected columns."""
        return [each for each in self.schema.fields if each.name in self.selected]


class Sampler(Protocol):
    """Gathers what files look like."""

    def add(self, file: BinaryIO, where: str, rows: int) -> None:
        """Look at the first `rows` rows of a file, 0 for all."""

    def schema(self) -> pa.Schema:
        """The narrowest columns that hold everything seen; JSON text has Arrow's JSON type."""


class FileFormat(Protocol):
    """One format.

    Attributes:
        has_lines: whether it is text, whose places are bytes, and which may grow at its end.
        has_types: whether files say their types themselves, so that `column_types` has nothing to say.
    """

    has_lines: bool
    has_types: bool

    def sampler(self, settings: StreamSettings, zone: ZoneInfo | None) -> Sampler:
        """A new sampler."""

    def read(
        self, file: BinaryIO, where: str, settings: StreamSettings, wanted: Wanted, start: Place
    ) -> Iterator[Rows]:
        """A file's rows from `start` on; `Place()` is its start.

        Columns that the file does not have are missing in the batches.
        """


def numbers(first: int, count: int) -> Callable[[], pa.Array]:
    """`Rows.lines` of rows that follow one another; the first has the number `first`."""
    return lambda: pa.array(range(first, first + count), pa.int64())
