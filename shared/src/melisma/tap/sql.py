"""A stream of a SQL database: methods of replication, and the place of a run in its key."""

from __future__ import annotations

import abc
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from melisma.errors import CatalogError
from melisma.sql.key import bookmark, bookmark_value, check_key, key_value
from melisma.tap.stream import ArrowStream, Progress

if TYPE_CHECKING:
    import pyarrow as pa
    from singer_sdk.singerlib import Catalog

__all__ = ["FULL_TABLE", "INCREMENTAL", "SqlStream", "refuse_missing"]

FULL_TABLE = "FULL_TABLE"
INCREMENTAL = "INCREMENTAL"


def refuse_missing(catalog: Catalog, found: Container[str]) -> None:
    """Refuse a catalog that selects a stream which is not there: its data would stop in silence.

    Raises:
        CatalogError: it does.
    """
    for name, entry in catalog.items():
        if name not in found and entry.metadata.root.selected:
            fix = "Discover again, or deselect it"
            raise CatalogError(name, "is selected, but it is not there, or may not be read", fix)


class SqlStream(ArrowStream, abc.ABC):
    """A table or a query: whole each time, or by a replication key.

    Attributes:
        methods: the methods of replication that the connector has.
    """

    methods: ClassVar[tuple[str, ...]] = (FULL_TABLE, INCREMENTAL)

    def apply_catalog(self, catalog: Catalog) -> None:
        """Take what the catalog says; `check` comes when the stream is read.

        A catalog that says nothing of method and key leaves those that the settings gave.
        """
        key, keys = self.replication_key, self.primary_keys
        super().apply_catalog(catalog)
        self.replication_key = self.replication_key or key
        self.primary_keys = self.primary_keys or keys

    def check(self) -> None:
        """Hold method and key to what there is.

        Raises:
            CatalogError: the method is not one of ours, or the key is missing or of no use.
        """
        method, key = self.replication_method, self.replication_key
        if method not in self.methods:
            rule = f"it cannot be replicated by {method}"
            raise CatalogError(self.name, rule, f"Valid methods: {', '.join(self.methods)}")
        if method == INCREMENTAL:
            if not key:
                fix = "Set replication-key to a column that grows with every change, or the method to FULL_TABLE"
                raise CatalogError(self.name, "its method is INCREMENTAL, but it has no replication key", fix)
            check_key(self.name, key, self.schema["properties"])

    @property
    def incremental(self) -> bool:
        """Whether this run reads by the replication key."""
        return self.replication_method == INCREMENTAL

    @cached_property
    def read_columns(self) -> list[str]:
        """The columns to read: those that this run sends, and the replication key."""
        names = list(self.selected_columns)
        key = self.replication_key
        if self.incremental and key and key not in names:
            names.append(key)
        return names

    def get_replication_key_signpost(self, context: Mapping[str, Any] | None = None) -> None:
        """None: bookmarks come from what was read, so none can run ahead of the clock."""

    def start(self) -> Any:
        """The replication key's value to start from; None to start at the first row."""
        key = self.replication_key
        if not self.incremental or not key:
            return None
        value = bookmark_value(self.stream_state, key)
        if value is None and self.stream_state.get("replication_key_value") is not None:
            self.logger.warning(
                'stream "%s": the state was made with another replication key, so it is read from its first row',
                self.name,
            )
        return value

    def by_key(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch | Progress]:
        """Batches sorted by the replication key, each followed by the position that it leads to.

        The next run reads the rows at that position again: more of them may have come since.
        """
        key = self.replication_key
        for batch in batches:
            yield batch
            if key and self.incremental and batch.num_rows:
                value = key_value(batch, key, self.name)
                if value is not None:
                    yield Progress(bookmark(key, value))

    def warn_of_nulls(self) -> None:
        """Say that rows are left out."""
        self.logger.warning(
            'stream "%s": some rows have no value in the replication key "%s". They were sent by the first run, and '
            "are left out now: nothing tells which of them are new",
            self.name,
            self.replication_key,
        )
