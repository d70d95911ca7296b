"""Where a table's rows lie on the server's disk, and what a run saw there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from melisma.sql.relation import Relation
from melisma_tap_postgres.server import Server
from melisma_tap_postgres.typemap import Column

__all__ = ["Heap", "Mark", "Range", "find_heap", "snapshot_mark"]

_RANGE_BYTES = 16 << 20  # on the server's disk, about
_FIRST_VERSION = 140_000  # with scans of a range of row addresses
_MOST_SEEN = 1_000
_TRANSACTIONS = 1 << 32  # `xmin` is the number of a transaction modulo this
_XMIN = "melisma_source.xmin::text::bigint"
_PARTS = """
WITH RECURSIVE parts AS (
  SELECT {table}::regclass::oid AS oid UNION SELECT inhrelid FROM pg_inherits JOIN parts ON inhparent = parts.oid
)
SELECT a.amname::text AS method, c.oid::bigint AS oid,
       pg_relation_filenode(c.oid)::bigint AS file,
       pg_relation_size(c.oid) / current_setting('block_size')::bigint AS blocks, pg_table_size(c.oid) AS bytes
FROM parts JOIN pg_class c ON c.oid = parts.oid LEFT JOIN pg_am a ON a.oid = c.relam
WHERE c.relkind <> 'p'
ORDER BY c.oid
"""


Range = tuple[int, int | None]
"""First and last blocks, the last not included; None for no end, so that no row is left out."""


@dataclass(frozen=True, slots=True)
class Heap:
    """Where a table's rows lie.

    Attributes:
        blocks: of each of its parts.
        bytes: of each of its parts, with values that are stored beside the rows.
        files: the parts' numbers, and those of their files, which change when a part is rewritten.
    """

    blocks: Sequence[int]
    bytes: Sequence[int]
    files: Sequence[Sequence[int]]

    def ranges(self, start: int = 0) -> list[Range]:
        """Ranges from a block on, each of about as many bytes."""
        parts = sorted(zip(self.blocks, self.bytes, strict=True))
        ends = [blocks for blocks, _ in parts]
        weights = [0.0]  # bytes for each block number, in the parts that reach so far
        for blocks, size in reversed(parts):
            weights.append(weights[-1] + (size / blocks if blocks else 0.0))
        found: list[Range] = []
        while True:
            weight = weights[len(ends) - bisect_right(ends, start)]
            end = start + max(1, int(_RANGE_BYTES / weight)) if weight else None
            if end is None or end >= ends[-1]:
                return [*found, (start, None)]
            found.append((start, end))
            start = end


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a table was read, and what was seen: a bookmark.

    Attributes:
        block: the first that was not read.
        low: the number of the oldest transaction that was not over when the snapshot was taken.
        seen: numbers, modulo 2^32, of those from `low` on whose rows were seen nevertheless.
        files: as `Heap` has them.
    """

    block: int
    low: int
    seen: Sequence[int]
    files: Sequence[Sequence[int]]

    @classmethod
    def read(cls, value: Any) -> Mark | None:
        """From a STATE; None if it is none."""
        if not isinstance(value, dict) or value.keys() != {"block", "low", "seen", "files"}:
            return None
        return cls(**value)

    def value(self) -> dict[str, Any]:
        """For a STATE."""
        return {"block": self.block, "low": self.low, "seen": list(self.seen), "files": [*map(list, self.files)]}

    def holds(self, heap: Heap, high: int) -> bool:
        """Whether the rows that were seen lie where they lay, and `xmin` can still tell them from others."""
        return [*map(list, self.files)] == [*map(list, heap.files)] and 0 <= high - self.low < _TRANSACTIONS // 2

    def unseen(self, high: int) -> str:
        """SQL for the rows in the blocks that were read which were not seen.

        Args:
            high: the number of the first transaction that cannot be seen now.
        """
        listed = ", ".join(map(str, self.seen))
        known = f" AND {_XMIN} NOT IN ({listed})" if listed else ""
        return f"melisma_source.ctid < '({self.block},0)' AND {_between(self.low, high)}{known}"


def find_heap(server: Server, relation: Relation[Column]) -> Heap | None:
    """Where a table's rows lie; None if it cannot be read by blocks.

    That is so for views and foreign tables, tables with another way of storage, servers before PostgreSQL 14, and users
    who may not read all columns. The table is locked against being rewritten for as long as the connection holds.
    """
    name = relation.sql.replace("'", "''")
    [found] = server.rows(
        "SELECT current_setting('server_version_num')::int AS version, "
        f"has_table_privilege('{name}', 'SELECT') AS whole"
    )
    parts = server.rows(_PARTS.format(table=f"'{name}'"))
    if found["version"] < _FIRST_VERSION or not found["whole"] or any(part["method"] != "heap" for part in parts):
        return None
    server.rows(f"SELECT 1 FROM {relation.sql} LIMIT 0")  # noqa: S608  a lock on it and its partitions
    parts = server.rows(_PARTS.format(table=f"'{name}'"))
    if not parts:
        return None
    return Heap(
        [part["blocks"] for part in parts],
        [part["bytes"] for part in parts],
        [[part["oid"], part["file"]] for part in parts],
    )


def snapshot_mark(server: Server, relation: Relation[Column], heap: Heap) -> tuple[Mark, int]:
    """The mark of a read that has not begun, and the first transaction that the connection's snapshot cannot see."""
    [found] = server.rows(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS low, "
        "pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS high"
    )
    seen: list[int] = []
    # Once the numbers have come round, an old row may have one that is in use again: then nothing counts as seen, and
    # rows of transactions that were under way come twice.
    if found["low"] < found["high"] < _TRANSACTIONS:
        rows = server.rows(
            f"SELECT DISTINCT {_XMIN} AS number FROM {relation.sql} AS melisma_source "  # noqa: S608
            f"WHERE {_between(found['low'], found['high'])} LIMIT {_MOST_SEEN + 1}"
        )
        # With more of them the STATE would be too large; then their rows come twice.
        seen = sorted(row["number"] for row in rows) if len(rows) <= _MOST_SEEN else []
    return Mark(0, found["low"], seen, heap.files), found["high"]


def _between(low: int, high: int) -> str:
    """SQL for rows that a transaction wrote whose number is `low` or higher, and below `high`; 0 to 2 are none's."""
    distance = f"(({_XMIN} - {low % _TRANSACTIONS}) & {_TRANSACTIONS - 1})"
    return f"{_XMIN} > 2 AND {distance} < {high - low}"
