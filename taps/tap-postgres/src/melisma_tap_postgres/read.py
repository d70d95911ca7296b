"""The stream: a table or view, whole or from its bookmark on, by one SELECT or by ranges of its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from melisma.sql.dialect import POSTGRES
from melisma.sql.select import Select
from melisma.tap.log import Change
from melisma.tap.relation import RESUME_AFTER, RelationStream
from melisma.tap.sql import FULL_TABLE
from melisma.tap.stream import Progress
from melisma_tap_postgres.blocks import BlockRead
from melisma_tap_postgres.changes import ORDER, TableChanges
from melisma_tap_postgres.convert import FLAT, Converter
from melisma_tap_postgres.discover import is_valid_utf8
from melisma_tap_postgres.server import Server
from melisma_tap_postgres.typemap import Column

if TYPE_CHECKING:
    from melisma.sql.relation import Relation
    from melisma_tap_postgres.tap import TapPostgres

__all__ = ["TableStream"]


class TableStream(RelationStream[Column]):
    """A table or view, read as one stream."""

    server: Server
    order_columns: ClassVar[Mapping[str, Any]] = ORDER
    snapshot_is_shared: ClassVar[bool] = True  # by the connection that made it for the log
    _converter: Converter

    def __init__(self, tap: TapPostgres, server: Server, relation: Relation[Column], schema: dict[str, Any]) -> None:
        super().__init__(tap, server, relation, schema)
        self._changes: TableChanges | None = None

    def read_rows(self) -> Iterator[pa.RecordBatch | Progress]:
        """The rows, and at the end what could not be said of them."""
        yield from super().read_rows()
        self.warn_not_finite(self._converter.not_finite)

    def read(self, columns: Mapping[str, Column], order: Sequence[str]) -> Iterator[pa.RecordBatch | Progress]:
        """The rows, and the positions within them: by ranges of blocks where that is wanted and can be."""
        self._converter = self._convert(columns)
        blocks = None
        if not self.incremental:
            # A log goes on from one snapshot: a first read that was cut short is not gone on with in another.
            place = None if self.log_based else self.stream_state.get(RESUME_AFTER)
            blocks = BlockRead.wanted(self.server, self.config, self.relation, place, by_key=bool(order))
        if blocks is None:
            yield from super().read(columns, order)
        else:
            for item in blocks.batches(self._whole(columns)):
                yield item if isinstance(item, Progress) else self._converter.convert(item)
        if not order and self.replication_method == FULL_TABLE and self.config.get("resume_full_table"):
            yield Progress({RESUME_AFTER: None})

    def batches(self, statement: Select, columns: Mapping[str, Column]) -> Iterator[pa.RecordBatch]:
        """The rows of one read."""
        del columns
        for batch in self.server.batches(statement.text(POSTGRES), self.name):
            yield self._converter.convert(batch)

    def batch_of(self, changes: Sequence[Change]) -> pa.RecordBatch:
        """The log's changes with the values that `read_rows` would give."""
        if self._changes is None:
            columns = self.log_columns
            self._changes = TableChanges(self, self.server, columns, self._whole(columns), self._convert(columns))
        return self._changes.batch_of(changes)

    @property
    def log_columns(self) -> dict[str, Column]:
        """The columns that a change has, in the order of its values."""
        return self.columns()

    def adopt(self, relation: Relation[Column]) -> None:
        """Read changes of the table as it is now."""
        self.report()
        self.relation, self._changes = relation, None

    def report(self) -> None:
        """Say what could not be said of the log's values."""
        if self._changes is not None:
            self._changes.report()

    def expressions(self, columns: Mapping[str, Column]) -> list[str]:
        """What stands after SELECT for these columns; with arrays, whether all of a row's have one dimension."""
        expressions = [f"{column.sql} AS {POSTGRES.quote(name)}" for name, column in columns.items()]
        flat = [column.flat for column in columns.values() if column.flat is not None]
        return [*expressions, f"{' AND '.join(flat)} AS {FLAT}"] if flat else expressions

    def as_text(self, name: str, column: Column) -> Column:
        """The column as the server writes it as text."""
        text = f"{POSTGRES.quote(name)}::text"
        return Column(text, {"type": ["string", "null"]}, sorts_as=column.sorts_as, type=column.type)

    def literal(self, name: str, value: Any) -> str:
        """SQL for a value of a column that was a key, as the STATE has it."""
        text = str(value).replace("'", "''")
        return f"'{text}'::{self.relation.columns[name].sorts_as}"

    def _convert(self, columns: Mapping[str, Column]) -> Converter:
        return Converter(self.name, columns, check_text=not is_valid_utf8(self.server))

    def _whole(self, columns: Mapping[str, Column]) -> Select:
        return Select(self.expressions(columns), self.relation.sql)
