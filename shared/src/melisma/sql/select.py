"""The SELECT behind a stream: the columns that are wanted, from a key on, in its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from melisma.sql.dialect import Dialect

__all__ = ["Select"]

_SOURCE = "melisma_source"


@dataclass(frozen=True, slots=True)
class Select:
    """One read of a table or a query.

    Attributes:
        columns: SQL expressions, each with its alias.
        source: a table's name, or a query in brackets.
        order: names of the source's columns that sort the rows; none for whatever order the database has.
        start: SQL for the values to start from, one for each of `order` or for the first of them; none to start at
            the first row.
        inclusive: whether rows at the start itself are read again. A replication key may have rows still to come at
            its highest value; a primary key has not.
        limit: the most rows to read; None for all.
        conditions: SQL that is true of the rows to read; it names the source `melisma_source`.
    """

    columns: Sequence[str]
    source: str
    order: Sequence[str] = ()
    start: Sequence[str] = ()
    inclusive: bool = True
    limit: int | None = None
    conditions: Sequence[str] = ()

    def text(self, dialect: Dialect) -> str:
        """The statement. Rows whose sort key is null come first, and only without a start."""
        # Named in full: an alias of the same name, perhaps a cast to text, would sort otherwise.
        names = [f"{_SOURCE}.{dialect.quote(name)}" for name in self.order]
        lines = [f"SELECT {', '.join(self.columns) or 'NULL'}", f"FROM {self.source} AS {_SOURCE}"]
        conditions = list(self.conditions)
        if self.start:
            sign = ">=" if self.inclusive else ">"
            left, right = ", ".join(names[: len(self.start)]), ", ".join(self.start)
            conditions.append(f"{left} {sign} {right}" if len(self.start) == 1 else f"({left}) {sign} ({right})")
        if conditions:
            lines.append(f"WHERE {' AND '.join(conditions)}")
        if names:
            # With a start there are no nulls, and an index is of use as it is.
            nulls = "" if self.start else dialect.nulls_first
            lines.append(f"ORDER BY {', '.join(name + nulls for name in names)}")
        if self.limit is not None:
            lines.append(f"LIMIT {self.limit}")
        return "\n".join(lines)
