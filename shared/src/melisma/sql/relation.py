"""A table or view of a database server, as discovery finds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from melisma.sql.dialect import Dialect

__all__ = ["ReadColumn", "Relation"]


class ReadColumn(Protocol):
    """How a column is read."""

    @property
    def sql(self) -> str:
        """The expression."""

    @property
    def node(self) -> dict[str, Any]:
        """Its JSON Schema; it may be null."""

    @property
    def sorts_as(self) -> str | None:
        """What the database needs to know to take a key's value for one of this type; None: it cannot be one."""


C = TypeVar("C", bound=ReadColumn)


@dataclass(slots=True)
class Relation(Generic[C]):
    """A table or view.

    Attributes:
        dialect: how its database writes names.
        columns: how each is read, in the table's order.
        keys: the primary key's columns, in the key's order.
        is_view: whether it is a view, of which no log says anything; False where the log itself finds that out.
    """

    dialect: Dialect
    schema: str
    name: str
    comment: str | None = None
    columns: dict[str, C] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    is_view: bool = False

    @property
    def stream(self) -> str:
        """The stream's name."""
        return f"{self.schema}-{self.name}"

    @property
    def sql(self) -> str:
        """What stands after FROM."""
        return self.dialect.path([self.schema, self.name])

    def json_schema(self) -> dict[str, Any]:
        """The stream's JSON Schema, with the comments as descriptions; a key's columns are never null."""
        properties: dict[str, Any] = {}
        for name, column in self.columns.items():
            node = dict(column.node)
            if name in self.keys:
                node["type"] = [kind for kind in node["type"] if kind != "null"]
            if name in self.comments:
                node["description"] = self.comments[name]
            properties[name] = node
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        return schema | ({"description": self.comment} if self.comment else {})
