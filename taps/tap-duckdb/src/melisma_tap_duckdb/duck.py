"""DuckDB: the catalog of a file, the columns of a query, Arrow batches from the engine."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from melisma.errors import BadRecord, BadSchema, CatalogError, ConfigError, DatabaseError, MelismaError, StorageError
from melisma.sql.columns import is_text, unchanged
from melisma.sql.dialect import DUCKDB
from melisma_tap_duckdb.engine import Engine, Node, Source, Table, safe_line
from melisma_tap_duckdb.typemap import Mapped, map_type

__all__ = ["DuckDBEngine"]

_ROWS = 16_384
_TABLES = """
SELECT t.schema_name, t.table_name, t.comment, k.constraint_column_names
FROM (SELECT database_name, schema_name, table_name, comment FROM duckdb_tables() WHERE NOT internal
      UNION ALL
      SELECT database_name, schema_name, view_name, comment FROM duckdb_views() WHERE NOT internal) t
LEFT JOIN duckdb_constraints() k
  ON k.database_name = t.database_name AND k.schema_name = t.schema_name AND k.table_name = t.table_name
  AND k.constraint_type = 'PRIMARY KEY'
WHERE t.database_name = ?
ORDER BY t.schema_name, t.table_name
"""
_COMMENTS = """
SELECT column_name, comment FROM duckdb_columns()
WHERE database_name = ? AND schema_name = ? AND table_name = ? AND comment IS NOT NULL
"""

_log = logging.getLogger(__name__)


class DuckDBEngine(Engine):
    """DuckDB in this process, on a file or in memory."""

    dialect = DUCKDB

    def __init__(self, config: Mapping[str, Any]) -> None:
        path = config.get("path")
        file = ":memory:" if path is None else str(Path(path).expanduser())
        with _failures(file):
            self._connection = duckdb.connect(file, read_only=path is not None)
            [(self._database,)] = self._connection.execute("SELECT current_database()").fetchall()
        self._file = file
        # A name in a query is never one of this program's variables.
        self._connection.execute("SET python_enable_replacements = false")
        self._connection.execute("SET TimeZone = 'UTC'")
        for name, value in (config.get("duckdb_settings") or {}).items():
            self._set(name, value)
        for index, statement in enumerate(config.get("init_sql") or []):
            self._run_first(statement, f"init_sql[{index}]")

    def tables(self) -> list[Table]:
        """The file's tables and views."""
        with _failures(self._file):
            rows = self._connection.execute(_TABLES, [self._database]).fetchall()
        return [Table(schema, name, tuple(keys or ()), comment) for schema, name, comment, keys in rows]

    def query(self, sql: str, setting: str) -> str:
        """The query in brackets."""
        with _failures(self._file, setting=setting):
            statements = self._connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise ConfigError(setting, "is not one SELECT", "Put other statements into init_sql")
        return f"(\n{_without_semicolon(sql)}\n)"

    def columns(self, source: Source) -> dict[str, Node]:
        """The columns, with the comments that a table has."""
        found = {name: mapped.node for name, mapped in self._mapped(source).items()}
        if source.table is not None:
            names = [self._database, source.table.schema, source.table.name]
            for name, comment in self._connection.execute(_COMMENTS, names).fetchall():
                found[name]["description"] = comment
        return found

    def expressions(self, source: Source, wanted: Mapping[str, Node]) -> dict[str, str]:
        """The columns as they are, or cast; where the catalog says text, as DuckDB writes it."""
        mapped = self._mapped(source)
        found = {}
        for name, node in wanted.items():
            if name not in mapped:
                raise CatalogError(source.stream, f'its column "{name}" is not there any more', "Discover again")
            quoted = self.dialect.quote(name)
            if unchanged(mapped[name].node, node):
                sql = mapped[name].cast(quoted)
            elif is_text(node):
                sql = f"CAST({quoted} AS VARCHAR)"
            else:
                rule = f'its column "{name}" is of another type than the catalog says'
                raise CatalogError(source.stream, rule, "Discover again, or make its type string to have it as text")
            found[name] = f"{sql} AS {quoted}"
        return found

    def start(self, source: Source, key: str) -> str:
        """The key in the type that its column has."""
        kinds = dict(zip(*self._described(source), strict=True))
        return f"CAST(? AS {kinds[key]})"

    def has_null(self, source: Source, key: str) -> bool:
        """Asked of DuckDB, which looks at the columns' statistics first."""
        sql = f"SELECT 1 FROM {source.sql} WHERE {self.dialect.quote(key)} IS NULL LIMIT 1"  # noqa: S608  quoted
        with _failures(self._file, stream=source.stream):
            return bool(self._connection.execute(sql).fetchall())  # nothing may be left waiting when the stream is read

    def batches(
        self, source: Source, sql: str, values: Sequence[Any], wanted: Mapping[str, Node]
    ) -> Iterator[pa.RecordBatch]:
        """Batches as DuckDB streams them; it keeps a sort within its memory limit, or on disk."""
        del wanted  # the statement casts to what the catalog says
        with _failures(self._file, stream=source.stream):
            relation = self._connection.sql(sql, params=[str(value) for value in values] or None)
            yield from _reader(relation)

    def interrupt(self) -> None:
        """End the statement that runs."""
        self._connection.interrupt()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _mapped(self, source: Source) -> dict[str, Mapped]:
        found = {}
        for name, kind in zip(*self._described(source), strict=True):
            try:
                found[name] = map_type(kind, name)
            except BadSchema as error:
                raise BadSchema(error.rule, stream=source.stream, column=error.column, fix=error.fix) from None
        return found

    def _described(self, source: Source) -> tuple[list[str], list[Any]]:
        with _failures(self._file, setting=source.setting, stream=source.stream):
            relation = self._connection.sql(f"SELECT * FROM {source.sql}")  # noqa: S608  the source is SQL
            return list(relation.columns), list(relation.types)

    def _set(self, name: str, value: Any) -> None:
        setting = f"duckdb_settings.{name}"
        if not re.fullmatch(r"\w+", name, re.ASCII):
            raise ConfigError(setting, "is not the name of a DuckDB setting")
        text = str(value).replace("'", "''")
        try:
            self._connection.execute(f"SET {name} = '{text}'")
        except duckdb.Error as error:
            _log.debug("DuckDB: %s", error)
            raise ConfigError(setting, "is not a setting of DuckDB, or has a value that DuckDB refuses") from None

    def _run_first(self, statement: str, setting: str) -> None:
        try:
            self._connection.execute(statement)
        except duckdb.Error as error:
            _log.debug("DuckDB: %s", error)  # its text may quote the statement, which may hold a secret
            rule = f"DuckDB refuses it ({type(error).__name__})"
            raise ConfigError(setting, rule, "Set TAP_DUCKDB_LOGLEVEL=DEBUG to see why") from None


def _reader(relation: Any) -> Iterator[pa.RecordBatch]:
    read = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader  # the name before DuckDB 1.5
    yield from read(_ROWS)


def _without_semicolon(sql: str) -> str:
    """The statement up to its semicolons, if it has some; comments may follow them."""
    data = sql.encode()  # tokens are placed by bytes
    for offset, kind in reversed(duckdb.tokenize(sql)):
        if data[offset : offset + 1] == b";" and kind == duckdb.token_type.operator:
            data = data[:offset]
        elif kind != duckdb.token_type.comment:
            break
    return data.decode()


@contextlib.contextmanager
def _failures(file: str, *, setting: str | None = None, stream: str | None = None) -> Iterator[None]:
    """DuckDB's errors as ours: one line, and never a value of a row."""
    try:
        yield
    except duckdb.Error as error:
        _log.debug("DuckDB: %s", error)
        raise _translated(error, file, setting, stream) from None
    except OSError as error:  # pyarrow's name for what a stream of batches says
        _log.debug("DuckDB: %s", error)
        raise _while_streaming(str(error), stream) from None


def _translated(error: Exception, file: str, setting: str | None, stream: str | None) -> MelismaError:
    text = safe_line(str(error))
    if "lock" in text and isinstance(error, duckdb.IOException):
        rule = "another process has it open for writing, and DuckDB allows one writer or many readers"
        return StorageError("open", file, rule, "Stop that process, or give the tap a copy of the file")
    wrong = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.SyntaxException)
    if isinstance(error, wrong) and setting is not None:
        return ConfigError(setting, text)
    if "extension" in text:
        rule = "it needs an extension of DuckDB that is not installed and cannot be fetched"
        return DatabaseError("DuckDB", rule, stream=stream, fix="Install it with init_sql: INSTALL and LOAD")
    return _while_streaming(str(error), stream, kind=type(error))


def _while_streaming(text: str, stream: str | None, kind: type[Exception] | None = None) -> MelismaError:
    """By the words that DuckDB puts first in its messages."""
    head = safe_line(text).partition(":")[0]
    if "Conversion Error" in text or "Out of Range" in text:
        rule = "a value cannot be converted to the type that the query, or JSON, needs"
        fix = "A HUGEINT of more than 38 digits is read with a query that casts it to VARCHAR"
        return BadRecord(rule, stream=stream, fix=fix)
    if "Arrow" in text and kind is duckdb.NotImplementedException:
        fix = "Read it with a query that casts the column to VARCHAR, or take a newer DuckDB"
        return DatabaseError("DuckDB", "this version has no Arrow form for a column's type", stream=stream, fix=fix)
    if "Out of Memory" in text:
        fix = "Set duckdb_settings.memory_limit higher, or duckdb_settings.temp_directory"
        return DatabaseError("DuckDB", "its memory limit is reached", stream=stream, fix=fix)
    if kind is duckdb.IOException or "IO Error" in text:
        return DatabaseError("DuckDB", safe_line(text), stream=stream)
    rule = f"the query failed ({head})" if re.fullmatch(r"[A-Za-z ]{1,40}", head) else "the query failed"
    return DatabaseError("DuckDB", rule, stream=stream, fix="Set TAP_DUCKDB_LOGLEVEL=DEBUG to see why")
