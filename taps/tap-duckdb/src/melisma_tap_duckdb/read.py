"""The stream: a table or a query, whole or from its bookmark on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from melisma.sql.ahead import read_ahead
from melisma.sql.select import Select
from melisma.tap.sql import SqlStream
from melisma.tap.stream import Progress
from melisma_tap_duckdb.engine import Engine, Source

if TYPE_CHECKING:
    from melisma_tap_duckdb.tap import TapDuckDB

__all__ = ["QueryStream"]


class QueryStream(SqlStream):
    """A table or a query, read as one stream."""

    def __init__(self, tap: TapDuckDB, engine: Engine, source: Source, schema: dict[str, Any]) -> None:
        super().__init__(tap, schema=schema, name=source.stream)
        self._engine, self._source = engine, source

    def read_batches(self, context: Mapping[str, Any] | None) -> Iterator[pa.RecordBatch | Progress]:
        """The rows; sorted by the replication key, and from the bookmark on, where there is one."""
        del context
        self.check()
        engine, source, start = self._engine, self._source, self.start()
        properties = self.schema["properties"]
        wanted = {name: properties[name] for name in self.read_columns}
        columns = engine.expressions(source, wanted)
        order = [self.replication_key] if self.incremental and self.replication_key else []
        if order and start is not None and engine.has_null(source, order[0]):
            self.warn_of_nulls()
        marks = [engine.start(source, order[0])] if order and start is not None else []
        sql = Select(list(columns.values()), source.sql, order, marks).text(engine.dialect)
        batches = engine.batches(source, sql, [start] if marks else [], wanted)
        yield from self.by_key(read_ahead(batches, engine.interrupt))
