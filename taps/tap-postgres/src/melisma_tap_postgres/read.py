"""The stream: a table or view, whole or from its bookmark on; a dropped connection goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from melisma.errors import CatalogError
from melisma.sql.columns import is_text, unchanged
from melisma.sql.dialect import POSTGRES
from melisma.sql.key import bookmark, key_value
from melisma.sql.select import Select
from melisma.tap.log import Change, LogStream
from melisma.tap.sql import FULL_TABLE
from melisma.tap.stream import Progress
from melisma_tap_postgres.blocks import RESUME_AFTER, BlockRead
from melisma_tap_postgres.changes import ORDER, TableChanges
from melisma_tap_postgres.convert import FLAT, Converter
from melisma_tap_postgres.discover import Relation, is_valid_utf8
from melisma_tap_postgres.server import Server
from melisma_tap_postgres.sqlstate import ConnectionLost
from melisma_tap_postgres.typemap import Column

if TYPE_CHECKING:
    from melisma_tap_postgres.tap import TapPostgres

__all__ = ["TableStream"]


class TableStream(LogStream):
    """A table or view, read as one stream."""

    order_columns: ClassVar[Mapping[str, Any]] = ORDER

    def __init__(self, tap: TapPostgres, server: Server, relation: Relation, schema: dict[str, Any]) -> None:
        super().__init__(tap, schema=schema, name=relation.stream)
        self._server, self._relation = server, relation
        self._changes: TableChanges | None = None

    def read_rows(self) -> Iterator[pa.RecordBatch | Progress]:
        """The rows: by the replication key, by the primary key where the read can be gone on with, or as they come."""
        self.check()
        columns, order = self._columns(), self._order()
        for name in order:
            if name not in columns:
                columns[name] = self._relation.columns[name]
        converter = Converter(self.name, columns, check_text=not is_valid_utf8(self._server))
        blocks = None
        if not self.incremental:
            # A log goes on from one snapshot: a first read that was cut short is not gone on with in another.
            place = None if self.log_based else self.stream_state.get(RESUME_AFTER)
            blocks = BlockRead.wanted(self._server, self.config, self._relation, place, by_key=bool(order))
        if blocks is not None:
            for item in blocks.batches(self._select(columns, ())):
                yield item if isinstance(item, Progress) else converter.convert(item)
        else:
            yield from self._by_order(self._select(columns, order), order, converter)
        if self.replication_method == FULL_TABLE and self.config.get("resume_full_table"):
            yield Progress({RESUME_AFTER: None})
        self.warn_not_finite(converter.not_finite)

    def _by_order(
        self, select: Select, order: Sequence[str], converter: Converter
    ) -> Iterator[pa.RecordBatch | Progress]:
        """One read, which goes on from the last row if the connection drops and the rows have an order of their own."""
        remaining: int | None = self.config.get("max_record_count")
        failures, sent = 0, False
        while remaining is None or remaining > 0:
            try:
                statement = replace(select, limit=remaining).text(POSTGRES)
                for raw in self._server.batches(statement, self.name):
                    batch = converter.convert(raw)
                    yield batch
                    failures, sent = 0, True
                    if batch.num_rows:
                        remaining = None if remaining is None else remaining - batch.num_rows
                        place = self._place(batch, order)
                        select = replace(select, start=place, inclusive=False)
                        yield from self._progress(batch, order)
                break
            except ConnectionLost as error:
                if failures >= self._server.retries or (sent and not select.start):
                    raise
                self.logger.warning("%s; going on from the last row", error)
                self._server.pause(failures)
                failures += 1
                self._server.reconnect()

    @property
    def relation(self) -> Relation:
        """The table or view."""
        return self._relation

    def batch_of(self, changes: Sequence[Change]) -> pa.RecordBatch:
        """The log's changes with the values that `read_rows` would give."""
        if self._changes is None:
            columns = self.log_columns
            converter = Converter(self.name, columns, check_text=not is_valid_utf8(self._server))
            self._changes = TableChanges(self, self._server, columns, self._select(columns, []), converter)
        return self._changes.batch_of(changes)

    @property
    def log_columns(self) -> dict[str, Column]:
        """The columns that a change has, in the order of its values."""
        return self._columns()

    def adopt(self, relation: Relation) -> None:
        """Read changes of the table as it is now."""
        self.report()
        self._relation, self._changes = relation, None

    def report(self) -> None:
        """Say what could not be said of the log's values."""
        if self._changes is not None:
            self._changes.report()

    def _columns(self) -> dict[str, Column]:
        """How the columns that this run reads are read, as the catalog has them."""
        found = {}
        for name in self.read_columns:
            column, node = self._relation.columns.get(name), self.schema["properties"][name]
            if column is None:
                raise CatalogError(self.name, f'its column "{name}" is not there any more', "Discover again")
            if not unchanged(column.node, node):
                if not is_text(node):
                    rule = f'its column "{name}" is of another type than the catalog says'
                    raise CatalogError(self.name, rule, "Discover again, or make its type string to have it as text")
                text = f"{POSTGRES.quote(name)}::text"
                column = Column(text, {"type": ["string", "null"]}, sorts_as=column.sorts_as, type=column.type)
            found[name] = column
        return found

    def _order(self) -> list[str]:
        """The columns that sort the rows. A primary key after the replication key makes every row's place its own."""
        known, keys = self._relation.columns, list(self._relation.keys)
        exact = bool(keys) and all(known[name].sorts_as for name in keys)
        key = self.replication_key
        if not self.incremental or key is None:
            return keys if exact and self.config.get("resume_full_table") and not self.log_based else []
        if key not in known or known[key].sorts_as is None:
            rule = f'its replication key "{key}" is of a type whose values a STATE cannot hold exactly'
            raise CatalogError(self.name, rule, "Use another column")
        return [key, *(name for name in keys if name != key)] if exact else [key]

    def _select(self, columns: Mapping[str, Column], order: Sequence[str]) -> Select:
        expressions = [f"{column.sql} AS {POSTGRES.quote(name)}" for name, column in columns.items()]
        flat = [column.flat for column in columns.values() if column.flat is not None]
        if flat:
            expressions.append(f"{' AND '.join(flat)} AS {FLAT}")
        start: list[str] = []
        if self.incremental:
            value = self.start()
            if value is not None:
                start = [self._literal(order[0], value)]
                self._look_for_nulls(order[0])
        elif order:
            after = self.stream_state.get(RESUME_AFTER)
            if isinstance(after, list) and len(after) == len(order):
                self.logger.info('stream "%s": an earlier run ended within it; this one goes on there', self.name)
                start = [self._literal(name, value) for name, value in zip(order, after, strict=True)]
        return Select(expressions, self._relation.sql, order, start, inclusive=self.incremental)

    def _place(self, batch: pa.RecordBatch, order: Sequence[str]) -> list[str]:
        """SQL for the last row's place; nothing where it has none of its own."""
        keys = self._relation.keys
        if not keys or not set(keys) <= set(order):
            return []
        values = [key_value(batch, name, self.name) for name in order]
        if any(value is None for value in values):
            return []
        return [self._literal(name, value) for name, value in zip(order, values, strict=True)]

    def _progress(self, batch: pa.RecordBatch, order: Sequence[str]) -> Iterator[Progress]:
        if self.incremental:
            value = key_value(batch, order[0], self.name)
            if value is not None:
                yield Progress(bookmark(order[0], value))
        elif order:
            yield Progress({RESUME_AFTER: [key_value(batch, name, self.name) for name in order]})

    def _literal(self, name: str, value: Any) -> str:
        text = str(value).replace("'", "''")
        return f"'{text}'::{self._relation.columns[name].sorts_as}"

    def _look_for_nulls(self, key: str) -> None:
        sql = f"SELECT EXISTS (SELECT 1 FROM {self._relation.sql} WHERE {POSTGRES.quote(key)} IS NULL) AS found"  # noqa: S608
        if self._server.rows(sql)[0]["found"]:
            self.warn_of_nulls()
