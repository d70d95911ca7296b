"""The SELECT behind a stream: the columns that are wanted, from a key on, in its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from melisma.sql.dialect import Dialect

__all__ = ["Select"]


@dataclass(frozen=True, slots=True)
class Select:
    """One read of a table or a query.

    Attributes:
        columns: SQL expressions, each with its alias.
        source: what stands after FROM.
        order: names of the columns that sort the rows; none for whatever order the database has.
        start: SQL for the values to start from, one for each of `order`; none to start at the first row.
        inclusive: whether rows at the start itself are read again. A replication key may have rows still to come at
            its highest value; a primary key has not.
    """

    columns: Sequence[str]
    source: str
    order: Sequence[str] = ()
    start: Sequence[str] = ()
    inclusive: bool = True

    def text(self, dialect: Dialect) -> str:
        """The statement. Rows whose sort key is null come first, and only without a start."""
        names = [dialect.quote(name) for name in self.order]
        lines = [f"SELECT {', '.join(self.columns) or 'NULL'}", f"FROM {self.source}"]
        if self.start:
            sign = ">=" if self.inclusive else ">"
            left, right = ", ".join(names), ", ".join(self.start)
            lines.append(f"WHERE {left} {sign} {right}" if len(names) == 1 else f"WHERE ({left}) {sign} ({right})")
        if names:
            lines.append(f"ORDER BY {', '.join(name + dialect.nulls_first for name in names)}")
        return "\n".join(lines)
