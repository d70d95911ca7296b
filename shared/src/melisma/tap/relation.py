"""The stream of a table or view on a database server; a dropped connection goes on where it was."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from melisma.errors import CatalogError, ConfigError
from melisma.sql.columns import is_text, unchanged
from melisma.sql.key import bookmark, key_value
from melisma.sql.relation import ReadColumn, Relation
from melisma.sql.remedy import ConnectionLost
from melisma.sql.select import Select
from melisma.tap.log import LOG_BASED, LogStream
from melisma.tap.sql import FULL_TABLE, INCREMENTAL, refuse_missing
from melisma.tap.stream import Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from melisma.tap.tap import ArrowTap

__all__ = ["RESUME_AFTER", "RelationStream", "SqlServer", "relation_streams"]

RESUME_AFTER = "resume_after"
"""The bookmark's key in a full table: the primary key of the last row that was sent; null when all of it was.

A tap that reads a table in another way than by one SELECT has a mark of its own there.
"""

C = TypeVar("C", bound=ReadColumn)


class SqlServer(Protocol):
    """A database server, as the streams of one run see it: one transaction, for as long as the connection holds."""

    @property
    def retries(self) -> int:
        """How often a lost connection is made again."""

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query on the catalog."""

    def reconnect(self) -> None:
        """Leave the dropped connection, and begin a transaction, with a snapshot of its own, on another."""

    def pause(self, failures: int) -> None:
        """Wait before another try."""


class RelationStream(LogStream, abc.ABC, Generic[C]):
    """A table or view, read as one stream: whole, from its bookmark on, or whole for the log to go on with.

    Write `batches`, `expressions`, `literal` and `as_text`, and what `LogStream` asks for.

    Attributes:
        snapshot_is_shared: whether the snapshot that a log goes on from is there for other connections, should the one
            that reads in it drop; if not, such a read fails.
    """

    snapshot_is_shared: ClassVar[bool] = False

    def __init__(self, tap: ArrowTap, server: SqlServer, relation: Relation[C], schema: dict[str, Any]) -> None:
        super().__init__(tap, schema=schema, name=relation.stream)
        self.server, self.relation = server, relation

    def check(self) -> None:
        """Hold method and key to what there is; a view has no log."""
        super().check()
        if self.log_based and self.relation.is_view:
            fix = f"Set its method to {FULL_TABLE} or {INCREMENTAL}"
            raise CatalogError(self.name, f"it is a view, and cannot be replicated by {LOG_BASED}", fix)

    @abc.abstractmethod
    def batches(self, statement: Select, columns: Mapping[str, C]) -> Iterator[pa.RecordBatch]:
        """The rows of one read, with the types that the columns' schemas say.

        Raises:
            ConnectionLost: the connection dropped.
        """

    @abc.abstractmethod
    def expressions(self, columns: Mapping[str, C]) -> list[str]:
        """What stands after SELECT for these columns."""

    @abc.abstractmethod
    def literal(self, name: str, value: Any) -> str:
        """SQL for a value of a column that was a key, as the STATE has it."""

    @abc.abstractmethod
    def as_text(self, name: str, column: C) -> C:
        """The column as the database writes it as text."""

    def read_rows(self) -> Iterator[pa.RecordBatch | Progress]:
        """The rows: by the replication key, by the primary key where the read can be gone on with, or as they come."""
        self.check()
        columns, order = self.columns(), self._order()
        for name in order:
            if name not in columns:
                columns[name] = self.relation.columns[name]
        yield from self.read(columns, order)
        if order and not self.incremental:
            yield Progress({RESUME_AFTER: None})

    def read(self, columns: Mapping[str, C], order: Sequence[str]) -> Iterator[pa.RecordBatch | Progress]:
        """The rows, and the positions within them: by one SELECT, which goes on from the last row on a new connection.

        Args:
            columns: to read, those of `order` among them.
            order: the columns that sort the rows; none for rows as they come.
        """
        select = self._select(columns, order)
        remaining: int | None = self.config.get("max_record_count")
        failures, sent = 0, False
        while remaining is None or remaining > 0:
            try:
                for batch in self.batches(replace(select, limit=remaining), columns):
                    yield batch
                    failures, sent = 0, True
                    if batch.num_rows:
                        remaining = None if remaining is None else remaining - batch.num_rows
                        select = replace(select, start=self._place(batch, order), inclusive=False)
                        yield from self._progress(batch, order)
                break
            except ConnectionLost as error:
                gone = self.log_based and not self.snapshot_is_shared
                if gone or failures >= self.server.retries or (sent and not select.start):
                    raise
                self.logger.warning("%s; going on from the last row", error)
                self.server.pause(failures)
                failures += 1
                self.server.reconnect()

    def columns(self) -> dict[str, C]:
        """How the columns that this run reads are read, as the catalog has them.

        Raises:
            CatalogError: one is not there any more, or of another type.
        """
        found = {}
        for name in self.read_columns:
            column, node = self.relation.columns.get(name), self.schema["properties"][name]
            if column is None:
                raise CatalogError(self.name, f'its column "{name}" is not there any more', "Discover again")
            if not unchanged(column.node, node):
                if not is_text(node):
                    rule = f'its column "{name}" is of another type than the catalog says'
                    raise CatalogError(self.name, rule, "Discover again, or make its type string to have it as text")
                column = self.as_text(name, column)
            found[name] = column
        return found

    def _order(self) -> list[str]:
        """The columns that sort the rows. A primary key after the replication key makes every row's place its own."""
        known, keys = self.relation.columns, list(self.relation.keys)
        exact = bool(keys) and all(name in known and known[name].sorts_as for name in keys)
        key = self.replication_key
        if not self.incremental or key is None:
            return keys if exact and self.config.get("resume_full_table") and not self.log_based else []
        if key not in known or known[key].sorts_as is None:
            rule = f'its replication key "{key}" is of a type whose values a STATE cannot hold exactly'
            raise CatalogError(self.name, rule, "Use another column")
        return [key, *(name for name in keys if name != key)] if exact else [key]

    def _select(self, columns: Mapping[str, C], order: Sequence[str]) -> Select:
        start: list[str] = []
        if self.incremental:
            value = self.start()
            if value is not None:
                start = [self.literal(order[0], value)]
                self._look_for_nulls(order[0])
        elif order:
            after = self.stream_state.get(RESUME_AFTER)
            if isinstance(after, list) and len(after) == len(order):
                self.logger.info('stream "%s": an earlier run ended within it; this one goes on there', self.name)
                start = [self.literal(name, value) for name, value in zip(order, after, strict=True)]
        return Select(self.expressions(columns), self.relation.sql, order, start, inclusive=self.incremental)

    def _place(self, batch: pa.RecordBatch, order: Sequence[str]) -> list[str]:
        """SQL for the last row's place; nothing where it has none of its own."""
        keys = self.relation.keys
        if not keys or not set(keys) <= set(order):
            return []
        values = [key_value(batch, name, self.name) for name in order]
        if any(value is None for value in values):
            return []
        return [self.literal(name, value) for name, value in zip(order, values, strict=True)]

    def _progress(self, batch: pa.RecordBatch, order: Sequence[str]) -> Iterator[Progress]:
        if self.incremental:
            value = key_value(batch, order[0], self.name)
            if value is not None:
                yield Progress(bookmark(order[0], value))
        elif order:
            values = [key_value(batch, name, self.name) for name in order]
            if all(value is not None for value in values):
                yield Progress({RESUME_AFTER: values})

    def _look_for_nulls(self, key: str) -> None:
        column = self.relation.dialect.quote(key)
        sql = f"SELECT EXISTS (SELECT 1 FROM {self.relation.sql} WHERE {column} IS NULL) AS found"  # noqa: S608
        if self.server.rows(sql)[0]["found"]:
            self.warn_of_nulls()


T = TypeVar("T", bound=RelationStream[Any])


def relation_streams(
    tap: ArrowTap, find: Callable[[], Sequence[Relation[C]]], make: Callable[[Relation[C], dict[str, Any]], T]
) -> list[T]:
    """The streams of a database server's tap, with the columns of the catalog where one is given.

    Args:
        tap: its settings may have `resume_full_table` and `default_replication_method`.
        find: asks the server what there is.
        make: the stream of a relation, by its JSON Schema.

    Raises:
        ConfigError: two settings exclude each other.
        CatalogError: the catalog selects a stream that is not there.
    """
    if tap.config.get("resume_full_table") and tap.config.get("emit_activate_version_messages"):
        rule = "cannot go with emit_activate_version_messages: a version begins and ends with one run"
        raise ConfigError("resume_full_table", rule, "Set one of them to false")
    catalog, method = tap.input_catalog, tap.config.get("default_replication_method")
    streams = []
    for relation in find():
        entry = catalog.get_stream(relation.stream) if catalog is not None else None
        if catalog is not None and entry is None:
            continue
        stream = make(relation, entry.schema.to_dict() if entry is not None else relation.json_schema())
        stream.primary_keys = relation.keys
        if method:
            stream.forced_replication_method = FULL_TABLE if method == LOG_BASED and relation.is_view else method
        streams.append(stream)
    if catalog is not None:
        refuse_missing(catalog, {stream.name for stream in streams})
    return streams
