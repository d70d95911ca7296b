"""What the tap asks of a database engine, and which one reads a file."""

from __future__ import annotations

import abc
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melisma.errors import ConfigError, StorageError
from melisma.sql.dialect import Dialect

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Engine", "Source", "Table", "open_engine", "safe_line"]

Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view of the file."""

    schema: str
    name: str
    keys: tuple[str, ...] = ()
    comment: str | None = None

    @property
    def stream(self) -> str:
        """The stream's name: that of the table, in other schemas than `main` with the schema's before it."""
        return self.name if self.schema == "main" else f"{self.schema}-{self.name}"


@dataclass(frozen=True, slots=True)
class Source:
    """What a stream reads.

    Attributes:
        stream: the stream's name, for messages.
        sql: what stands after FROM.
        setting: the setting that it comes from; None for a table.
        table: the table; None for a query.
    """

    stream: str
    sql: str
    setting: str | None = None
    table: Table | None = None


class Engine(abc.ABC):
    """A database engine with one file open for reading, or none."""

    dialect: Dialect

    @abc.abstractmethod
    def tables(self) -> list[Table]:
        """The tables and views of the file."""

    @abc.abstractmethod
    def query(self, sql: str, setting: str) -> str:
        """A query as what stands after FROM.

        Raises:
            ConfigError: it is not one SELECT.
        """

    @abc.abstractmethod
    def columns(self, source: Source) -> dict[str, Node]:
        """The columns as JSON Schema; they may be null."""

    @abc.abstractmethod
    def expressions(self, source: Source, wanted: Mapping[str, Node]) -> dict[str, str]:
        """SQL for each of the columns that a catalog has, in the form that its schema says.

        Raises:
            CatalogError: a column is not there, or is of another type now.
        """

    @abc.abstractmethod
    def start(self, source: Source, key: str) -> str:
        """SQL for the value to start from, with one placeholder."""

    @abc.abstractmethod
    def has_null(self, source: Source, key: str) -> bool:
        """Whether a row of the source has no value in the column."""

    @abc.abstractmethod
    def batches(
        self, source: Source, sql: str, values: Sequence[Any], wanted: Mapping[str, Node]
    ) -> Iterator[pa.RecordBatch]:
        """Run a statement; `wanted` are its columns, as the catalog has them."""

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Make a statement that runs on another thread stop."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the file."""


def open_engine(config: Mapping[str, Any]) -> Engine:
    """The engine for the configured file: SQLite for SQLite's files, DuckDB for its own and for none.

    Raises:
        ConfigError: there is no such file, or it is of another kind.
        StorageError: it is locked, or cannot be read.
    """
    path = config.get("path")
    head = b"" if path is None else _head(path)
    if head.startswith(b"SQLite format 3\0"):
        from melisma_tap_duckdb.sqlite import SQLiteEngine

        if config.get("init_sql") or config.get("duckdb_settings"):
            setting = "init_sql" if config.get("init_sql") else "duckdb_settings"
            raise ConfigError(setting, "is for DuckDB, and the path is a SQLite file", "Remove it")
        return SQLiteEngine(str(path))
    if path is not None and head[8:12] != b"DUCK":
        rule = "is neither a DuckDB nor a SQLite file"
        fix = "Read Parquet, CSV and JSON files in a query, with read_parquet, read_csv or read_json"
        raise ConfigError("path", rule, fix)
    from melisma_tap_duckdb.duck import DuckDBEngine

    return DuckDBEngine(config)


def safe_line(text: str) -> str:
    """The first line of an engine's message, without what may hold a signature in a URL."""
    return re.sub(r"\?[^\s\"']*", "?...", text.strip().splitlines()[0] if text.strip() else "")


def _head(path: str) -> bytes:
    try:
        with Path(path).expanduser().open("rb") as file:
            return file.read(16)
    except FileNotFoundError:
        raise ConfigError("path", "there is no such file", "Check the path") from None
    except OSError as error:
        raise StorageError("open", path, str(error.strerror)) from None
