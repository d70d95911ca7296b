"""A database's way of writing SQL, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["DUCKDB", "MYSQL", "POSTGRES", "SQLITE", "Dialect"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """The facts of one database that SQL text depends on.

    Attributes:
        name: what users call it.
        quote_mark: what stands around a name, doubled within it.
        nulls_first: what follows a sort key so that nulls come first.
    """

    name: str
    quote_mark: str = '"'
    nulls_first: str = " NULLS FIRST"

    def quote(self, name: str) -> str:
        """A name as SQL, whatever it holds."""
        mark = self.quote_mark
        return f"{mark}{name.replace(mark, mark * 2)}{mark}"

    def path(self, names: Sequence[str]) -> str:
        """A qualified name: schema and table."""
        return ".".join(self.quote(name) for name in names)


DUCKDB = Dialect("DuckDB")
MYSQL = Dialect("MySQL", "`", nulls_first="")  # it sorts nulls first by itself
POSTGRES = Dialect("PostgreSQL")
SQLITE = Dialect("SQLite")
