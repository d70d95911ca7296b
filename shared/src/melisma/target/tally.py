"""What became of records, counted: every one that was read is written, repeated or skipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Tally"]


@dataclass(slots=True)
class Tally:
    """Counts of one stream's records.

    Attributes:
        read: all of them.
        written: rows given to the writer.
        repeated: rows that an inclusive replication key brought again, and that the lake has.
        skipped: bad records that are left out.
        dead: bad records that are kept as dead letters.
        highest: the highest replication key among them.
    """

    read: int = 0
    written: int = 0
    repeated: int = 0
    skipped: int = 0
    dead: int = 0
    highest: Any = None

    def add(self, other: Tally) -> None:
        """Count those too."""
        self.read += other.read
        self.written += other.written
        self.repeated += other.repeated
        self.skipped += other.skipped
        self.dead += other.dead

    def see(self, batch: pa.RecordBatch, column: str | None) -> None:
        """Keep the highest value of the replication key."""
        if column is None or not batch.num_rows or column not in batch.schema.names:
            return
        highest = pc.max(batch.column(column)).as_py()
        if highest is not None and (self.highest is None or highest > self.highest):
            self.highest = highest
