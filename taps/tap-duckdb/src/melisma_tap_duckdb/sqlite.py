"""SQLite: any cell may hold any kind of value, whatever its column says, so every value is looked at.

Read with Python's own sqlite3, which gives integers, doubles, text and bytes as they are stored. DuckDB reads SQLite
files by an extension, and ADBC guesses a column's type from its first rows.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote as url_quote

import pyarrow as pa

from melisma.errors import BadRecord, CatalogError, ConfigError, DatabaseError, StorageError
from melisma.sql.columns import plain
from melisma.sql.dialect import SQLITE
from melisma_tap_duckdb.engine import Engine, Node, Source, Table, safe_line

__all__ = ["SQLiteEngine"]

_ROWS = 10_000
_INTEGER: Node = {"type": "integer"}
_NUMBER: Node = {"type": "number"}
_STRING: Node = {"type": "string"}
_BINARY: Node = {"type": "string", "contentEncoding": "base64"}
_JSON: Node = {"type": "string", "contentMediaType": "application/json"}
_BOOLEAN: Node = {"type": "boolean"}
_EXACT_DOUBLE = 2**53

_log = logging.getLogger(__name__)


class SQLiteEngine(Engine):
    """One SQLite file, read within one transaction: all streams see it as it was at the first read."""

    dialect = SQLITE

    def __init__(self, path: str) -> None:
        self._file = path
        self._views = 0
        uri = f"file:{url_quote(str(Path(path).expanduser()))}?mode=ro"
        with self._failures():
            # Batches are read on another thread, one stream after the other.
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()

    def tables(self) -> list[Table]:
        """The file's tables and views."""
        sql = (
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        with self._failures():
            names = [name for (name,) in self._connection.execute(f"{sql} ORDER BY name")]
            return [Table("main", name, self._keys(name)) for name in names]

    def query(self, sql: str, setting: str) -> str:
        """The query as a temporary view, of which SQLite says the columns' declared types."""
        self._views += 1
        name = f"melisma_query_{self._views}"
        try:
            self._connection.execute(f"CREATE TEMP VIEW {name} AS {sql}")
            self._connection.execute(f"SELECT * FROM temp.{name} LIMIT 0")  # noqa: S608  our own name
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise ConfigError(setting, f"SQLite refuses it as one SELECT: {safe_line(str(error))}") from None
        return f"temp.{name}"

    def columns(self, source: Source) -> dict[str, Node]:
        """By what is declared; where that allows several kinds of values, by all values that there are."""
        declared = self._declared(source)
        nodes = {name: _by_declaration(kind) for name, kind in declared.items()}
        open_ones = [name for name, node in nodes.items() if node is None]
        found = self._looked_at(source, open_ones)
        return {name: _nullable(node if node is not None else found[name]) for name, node in nodes.items()}

    def expressions(self, source: Source, wanted: Mapping[str, Node]) -> dict[str, str]:
        """The columns as they are: their values are held to the catalog's types when they are read."""
        declared = self._declared(source)
        found = {}
        for name, node in wanted.items():
            if name not in declared:
                raise CatalogError(source.stream, f'its column "{name}" is not there any more', "Discover again")
            _reader(node, source.stream, name)
            found[name] = self.dialect.quote(name)
        return found

    def start(self, source: Source, key: str) -> str:
        """The value as it is."""
        del source, key
        return "?"

    def has_null(self, source: Source, key: str) -> bool:
        """One look."""
        sql = f"SELECT 1 FROM {source.sql} WHERE {self.dialect.quote(key)} IS NULL LIMIT 1"  # noqa: S608  quoted
        with self._failures(source.stream):
            return self._connection.execute(sql).fetchone() is not None

    def batches(
        self, source: Source, sql: str, values: Sequence[Any], wanted: Mapping[str, Node]
    ) -> Iterator[pa.RecordBatch]:
        """Batches of rows, each value held to its column's type."""
        readers = [(name, _reader(node, source.stream, name)) for name, node in wanted.items()]
        with self._failures(source.stream):
            cursor = self._connection.execute(sql, list(values))
            while rows := cursor.fetchmany(_ROWS):
                if not readers:
                    yield pa.RecordBatch.from_struct_array(pa.array([{}] * len(rows), pa.struct([])))
                    continue
                arrays = [read(cells) for (_, read), cells in zip(readers, zip(*rows, strict=True), strict=True)]
                yield pa.record_batch(arrays, names=[name for name, _ in readers])

    def interrupt(self) -> None:
        """End the statement that runs."""
        self._connection.interrupt()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _keys(self, table: str) -> tuple[str, ...]:
        rows = self._connection.execute("SELECT name, pk FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", [table])
        return tuple(name for name, _ in rows)

    def _declared(self, source: Source) -> dict[str, str]:
        schema, _, view = source.sql.partition(".")
        name = source.table.name if source.table is not None else view
        where = "main" if source.table is not None else schema
        sql = "SELECT name, type FROM pragma_table_xinfo(?, ?) WHERE hidden <> 1 ORDER BY cid"
        with self._failures(source.stream):
            return {column: kind or "" for column, kind in self._connection.execute(sql, [name, where])}

    def _looked_at(self, source: Source, names: list[str]) -> dict[str, Node]:
        if not names:
            return {}
        kinds = ("integer", "real", "text", "blob")
        tests = [f"coalesce(max(typeof({self.dialect.quote(name)}) = '{kind}'), 0)" for name in names for kind in kinds]
        found: dict[str, Node] = {}
        with self._failures(source.stream):
            # SQLite takes a hundred arguments, and two thousand columns, at most.
            for at in range(0, len(names), 100):
                part = tests[at * 4 : (at + 100) * 4]
                row = self._connection.execute(f"SELECT {', '.join(part)} FROM {source.sql}").fetchone()  # noqa: S608
                for i, name in enumerate(names[at : at + 100]):
                    found[name] = _by_values({kind for kind, there in zip(kinds, row[i * 4 :], strict=False) if there})
        return found

    @contextlib.contextmanager
    def _failures(self, stream: str | None = None) -> Iterator[None]:
        """SQLite's errors as ours: one line, and never a value of a row."""
        try:
            yield
        except sqlite3.Error as error:
            text = str(error)
            _log.debug("SQLite: %s", text)
            if "locked" in text:
                fix = "Run it again when that is done, or give the tap a copy of the file"
                raise StorageError("read", self._file, "another process is writing to it", fix) from None
            if "decode to UTF-8" in text:
                fix = "Read it with a query that casts the column to BLOB"
                raise BadRecord("a text is not valid UTF-8", stream=stream, fix=fix) from None
            raise DatabaseError("SQLite", safe_line(text), stream=stream) from None


def _by_declaration(declared: str) -> Node | None:
    """By SQLite's own rules of affinity (https://www.sqlite.org/datatype3.html); None where it may be anything."""
    kind = declared.upper()
    if kind in {"BOOLEAN", "BOOL"}:
        return _BOOLEAN
    if "INT" in kind:
        return _INTEGER
    if any(word in kind for word in ("CHAR", "CLOB", "TEXT")):
        return _STRING
    if "BLOB" in kind:
        return _BINARY
    if any(word in kind for word in ("REAL", "FLOA", "DOUB")):
        return _NUMBER
    return None


def _by_values(kinds: set[str]) -> Node:
    if kinds <= {"text"}:
        return _STRING
    if kinds == {"integer"}:
        return _INTEGER
    if kinds <= {"integer", "real"}:
        return _NUMBER
    return _BINARY if kinds == {"blob"} else _JSON


class _Reader:
    """Makes columns of one type of a stream; a value of another kind is an error."""

    def __init__(self, stream: str, column: str, types: set[type], arrow: pa.DataType) -> None:
        self._stream, self._column, self._types, self._arrow = stream, column, types, arrow

    def __call__(self, cells: Sequence[Any]) -> pa.Array:
        """The cells of one column."""
        wrong = set(map(type, cells)) - self._types - {type(None)}
        if wrong:
            raise self._misfit(f"a value is {_KINDS[min(wrong, key=str)]}, which its type does not hold")
        return pa.array(self._ready(cells), self._arrow)

    def _ready(self, cells: Sequence[Any]) -> Sequence[Any]:
        return cells

    def _misfit(self, rule: str) -> BadRecord:
        fix = "Read it with a query that casts the column, or discover again"
        return BadRecord(rule, stream=self._stream, column=self._column, fix=fix)


class _Doubles(_Reader):
    def _ready(self, cells: Sequence[Any]) -> Sequence[Any]:
        for cell in cells:
            if type(cell) is int and abs(cell) > _EXACT_DOUBLE and int(float(cell)) != cell:
                raise self._misfit("an integer has more digits than a double holds")
        return [float(cell) if type(cell) is int else cell for cell in cells]


class _Booleans(_Reader):
    def _ready(self, cells: Sequence[Any]) -> Sequence[Any]:
        if set(cells) - {0, 1, None}:
            raise self._misfit("a value is an integer other than 0 and 1")
        return [None if cell is None else bool(cell) for cell in cells]


class _JsonTexts(_Reader):
    def _ready(self, cells: Sequence[Any]) -> Sequence[Any]:
        try:
            return [None if cell is None else json.dumps(cell, ensure_ascii=False, allow_nan=False) for cell in cells]
        except ValueError:
            raise self._misfit("a value is an infinite number, which JSON does not have") from None


_KINDS = {int: "an integer", float: "a real number", str: "text", bytes: "a blob"}


def _reader(node: Node, stream: str, column: str) -> _Reader:
    """What reads a column of a catalog's type."""
    found = plain(node)
    kind = found["type"]
    if kind == "integer":
        return _Reader(stream, column, {int}, pa.int64())
    if kind == "number":
        return _Doubles(stream, column, {int, float}, pa.float64())
    if kind == "boolean":
        return _Booleans(stream, column, {int}, pa.bool_())
    if kind == "string" and "contentEncoding" in found:
        return _Reader(stream, column, {bytes}, pa.binary())
    if kind == "string" and "contentMediaType" in found:
        return _JsonTexts(stream, column, {int, float, str}, pa.string())
    if kind == "string":
        return _Reader(stream, column, {str}, pa.string())
    rule = f'its column "{column}" has a type that SQLite does not have'
    raise CatalogError(stream, rule, "Valid types: integer, number, boolean, string")


def _nullable(node: Node) -> Node:
    return {**node, "type": [node["type"], "null"]}
