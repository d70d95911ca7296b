"""The stream: a table or view, whole or from its bookmark on."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from melisma.sql.columns import is_text
from melisma.sql.dialect import MYSQL
from melisma.sql.select import Select
from melisma.tap.log import Change
from melisma.tap.relation import RelationStream
from melisma.tap.stream import Progress
from melisma_tap_mysql.convert import Converter
from melisma_tap_mysql.server import Server
from melisma_tap_mysql.typemap import Column

if TYPE_CHECKING:
    from melisma.sql.relation import Relation
    from melisma_tap_mysql.tap import TapMySQL

__all__ = ["TableStream"]


class TableStream(RelationStream[Column]):
    """A table or view, read as one stream."""

    server: Server
    order_columns: ClassVar[Mapping[str, Any]] = {
        "_sdc_log_position": {"type": ["integer", "null"]},
        "_sdc_log_sequence": {"type": ["integer", "null"]},
    }

    def __init__(self, tap: TapMySQL, server: Server, relation: Relation[Column], schema: dict[str, Any]) -> None:
        super().__init__(tap, server, relation, schema)
        self._converter: Converter | None = None

    def read_rows(self) -> Iterator[pa.RecordBatch | Progress]:
        """The rows, and at the end what could not be said of them."""
        yield from super().read_rows()
        self.report()

    def report(self) -> None:
        """Say what could not be said in records."""
        for column, count in (self._converter.zero_dates if self._converter else {}).items():
            self.logger.warning(
                'stream "%s", column "%s": %d dates with a month or day of zero were sent as null; with '
                "dates_as_string they are text",
                self.name,
                column,
                count,
            )

    def batches(self, statement: Select, columns: Mapping[str, Column]) -> Iterator[pa.RecordBatch]:
        """The rows of one read."""
        converter = self._convert(columns)
        for arrays in self.server.batches(statement.text(MYSQL), self.name):
            yield converter.convert(arrays)

    def batch_of(self, changes: Sequence[Change]) -> pa.RecordBatch:
        """Changes as rows; their values are the columns' texts, as a query would give them."""
        columns = self.columns()
        arrays = [pa.array([change.values.get(name) for change in changes], pa.binary()) for name in columns]
        if not arrays:
            arrays = [pa.nulls(len(changes))]
        return self.with_order(self._convert(columns).convert(arrays), changes)

    def _convert(self, columns: Mapping[str, Column]) -> Converter:
        if self._converter is None or self._converter.columns != columns:
            self.report()
            self._converter = Converter(self.name, columns, self.relation.keys)
        return self._converter

    def expressions(self, columns: Mapping[str, Column]) -> list[str]:
        """What stands after SELECT for these columns."""
        return [f"{column.sql} AS {MYSQL.quote(name)}" for name, column in columns.items()]

    def as_text(self, name: str, column: Column) -> Column:
        """The column as the server writes it as text."""
        del name
        return column.as_text()

    def literal(self, name: str, value: Any) -> str:
        """SQL for a value of a column that was a key, as the STATE has it."""
        text, sorts_as = str(value), self.relation.columns[name].sorts_as
        if sorts_as == "number" and text.lstrip("-").replace(".", "", 1).isdecimal():
            return text
        if sorts_as == "binary":
            octets = text if is_text(self.schema["properties"][name]) else base64.b64decode(text).hex()
            return "x'" + "".join(digit for digit in octets if digit in "0123456789abcdefABCDEF") + "'"
        if sorts_as == "time":
            text = text.replace("T", " ").removesuffix("Z").removesuffix("+00:00")
        doubled = text.replace("'", "''")
        return f"'{doubled}'"
