"""A table read by ranges of its blocks: over several connections at once, and from where an earlier run ended.

Every row lies in a block, and one snapshot sees one version of it in one place. So ranges of blocks that touch each
other, read in one snapshot, give every row once: that holds for a table and its partitions together, which are cut by
the same numbers, so that the server's own rules of who may see what hold as in any other query of the table.

A later run has another snapshot. What it finds beyond the blocks that were read is sent as it is. In the blocks that
were read, it looks for rows that the earlier snapshot did not see: new ones, and new versions of changed ones, which
may lie anywhere. So no row is missed. A row that was changed in between comes in both versions, as it would by a
replication key; an unchanged row stays where it is, and comes once. What rewrites the whole table (VACUUM FULL,
CLUSTER, some forms of ALTER TABLE) moves every row: then the read starts anew, with a warning.

Which rows the earlier snapshot saw is told by `xmin`, the transaction that wrote a row. All that are older than `low`
were over when the snapshot was taken. Those from `low` on count as unseen, but for the few that the snapshot did see in
this table, which are listed as `seen`: subtransactions have numbers that no snapshot lists.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from melisma.sql.dialect import POSTGRES
from melisma.sql.parallel import read_in_order
from melisma.sql.relation import Relation
from melisma.sql.select import Select
from melisma.tap.relation import RESUME_AFTER
from melisma.tap.stream import Progress
from melisma_tap_postgres.heap import Heap, Mark, Range, find_heap, snapshot_mark
from melisma_tap_postgres.server import Server
from melisma_tap_postgres.sqlstate import ConnectionLost
from melisma_tap_postgres.typemap import Column

__all__ = ["BlockRead"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BlockRead:
    """A read of one table by ranges of its blocks.

    Attributes:
        server: in whose snapshot it is read.
        config: the settings.
        stream: the stream's name.
        heap: where the table's rows lie.
        before: the mark of an earlier run that ended within the table.
    """

    server: Server
    config: Mapping[str, Any]
    stream: str
    relation: Relation[Column]
    heap: Heap
    before: Mark | None

    @classmethod
    def wanted(
        cls, server: Server, config: Mapping[str, Any], relation: Relation[Column], place: Any, *, by_key: bool
    ) -> BlockRead | None:
        """The read of a full table by its blocks; None where it is not wanted, or cannot be.

        Args:
            server: in whose snapshot it is read.
            config: the settings, which may ask for it.
            relation: the table.
            place: where an earlier run ended, as its STATE has it: a mark, a primary key, or None.
            by_key: whether a read can be gone on with by the primary key.
        """
        resumes = config.get("resume_full_table")
        before = Mark.read(place) if resumes else None
        begun_by_key = resumes and by_key and isinstance(place, list)
        asked = config.get("parallel_reads", 1) > 1 or (resumes and not by_key)
        if begun_by_key or not (before or asked) or config.get("max_record_count") is not None:
            return None
        heap = find_heap(server, relation)
        if heap is None or (before is None and len(heap.ranges()) < 2):
            return None
        return cls(server, config, relation.stream, relation, heap, before)

    def batches(self, select: Select) -> Iterator[pa.RecordBatch | Progress]:
        """The rows of a SELECT as the driver makes them; with `resume_full_table` the position after each range."""
        resumes = self.config.get("resume_full_table")
        mark, high = snapshot_mark(self.server, self.relation, self.heap)
        before = self.before
        if before is not None and not before.holds(self.heap, high):
            _log.warning(
                'stream "%s": the table was rewritten since a run ended within it, so it is read from its start',
                self.stream,
            )
        elif before is not None:
            _log.info('stream "%s": an earlier run ended within it; this one goes on there', self.stream)
            unseen = replace(select, conditions=[before.unseen(high)]).text(POSTGRES)
            yield from self.server.batches(unseen, self.stream)
            mark = replace(mark, block=before.block)
            yield Progress({RESUME_AFTER: mark.value()})
        ranges = self.heap.ranges(mark.block)
        count = min(self.config.get("parallel_reads", 1), len(ranges))
        snapshot = self.server.snapshot()
        readers = [_RangeReader(self.config, snapshot, self.stream, select) for _ in range(count)]
        try:
            for (_, end), batch in read_in_order(ranges, readers):
                if batch is not None:
                    yield batch
                elif resumes and end is not None:
                    yield Progress({RESUME_AFTER: replace(mark, block=end).value()})
        finally:
            for reader in readers:
                reader.close()


class _RangeReader:
    """Reads ranges of blocks on a connection of its own; one that drops is made again, and goes on where it was.

    Args:
        config: the settings.
        snapshot: of the run.
        stream: the stream's name.
        select: the rows without a range.
    """

    def __init__(self, config: Mapping[str, Any], snapshot: str, stream: str, select: Select) -> None:
        self._config, self._snapshot, self._stream, self._select = config, snapshot, stream, select
        self._server: Server | None = None

    def read(self, part: Range) -> Iterator[pa.RecordBatch]:
        """A range's rows: in one snapshot always the same ones, in the order in which they lie."""
        first, end = part
        upto = [] if end is None else [f"melisma_source.ctid < '({end},0)'"]
        statement = replace(self._select, conditions=[f"melisma_source.ctid >= '({first},0)'", *upto]).text(POSTGRES)
        taken = failures = 0
        while True:
            skip = taken
            try:
                self._server = self._server or Server(self._config, self._snapshot)
                for batch in self._server.batches_on_this_thread(statement, self._stream):
                    new = batch.slice(min(skip, batch.num_rows))
                    skip -= batch.num_rows - new.num_rows
                    if new.num_rows or not taken:
                        yield new
                    taken, failures = taken + new.num_rows, 0 if new.num_rows else failures
                return
            except ConnectionLost as error:
                if self._server is None or failures >= self._server.retries:
                    raise
                _log.warning("%s; going on from the last row", error)
                self._server.pause(failures)
                failures += 1
                self._server.reconnect()

    def cancel(self) -> None:
        """End the query that runs."""
        if self._server is not None:
            self._server.cancel()

    def close(self) -> None:
        """End the connection."""
        if self._server is not None:
            self._server.close()
