"""The connection: one transaction that all streams are read in, and batches straight from binary COPY."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from adbc_driver_manager import AdbcConnection, AdbcStatement, Error
from adbc_driver_postgresql import StatementOptions, connect

from melisma.errors import DatabaseError
from melisma.sql.ahead import read_ahead
from melisma_tap_postgres.settings import connection_string
from melisma_tap_postgres.sqlstate import ConnectionLost, SnapshotLost, translated

__all__ = ["Server"]

_BYTES = 4 << 20  # of a batch, about
_FIRST = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    "SET LOCAL TimeZone = 'UTC'",
    "SET LOCAL DateStyle = 'ISO'",
    "SET LOCAL IntervalStyle = 'iso_8601'",
    "SET LOCAL standard_conforming_strings = on",
    "SET LOCAL extra_float_digits = 1",
    "SET LOCAL bytea_output = hex",
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
)

_NO_SNAPSHOT = {"22023", "42704", "55000"}  # to `SET TRANSACTION SNAPSHOT`

_log = logging.getLogger(__name__)


class Server:
    """A PostgreSQL database, read in one snapshot for as long as the connection holds.

    Args:
        config: the settings.
        snapshot: another connection's, as `snapshot` gave it; a new one by default.
    """

    def __init__(self, config: Mapping[str, Any], snapshot: str | None = None) -> None:
        self._where = connection_string(config)
        self._retries: int = config.get("connect_retries", 5)
        self._snapshot = snapshot
        self._running: AdbcStatement | None = None
        self._lock = threading.Lock()
        self._connection = self._connect()

    def snapshot(self) -> str:
        """Its snapshot, for other connections to take while this one holds."""
        return str(self.rows("SELECT pg_export_snapshot() AS name")[0]["name"])

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query on the catalog."""
        with _failures(), AdbcStatement(self._connection) as statement:
            found: list[dict[str, Any]] = _executed(statement, sql).read_all().to_pylist()
            return found

    def batches(self, sql: str, stream: str) -> Iterator[pa.RecordBatch]:
        """The rows of a query, as the driver makes them from COPY.

        Raises:
            ConnectionLost: the connection dropped; `reconnect` makes another.
            DatabaseError: the query failed.
        """
        with _failures(stream), AdbcStatement(self._connection) as statement:
            try:
                yield from read_ahead(_read(statement, sql), statement.cancel)
            except OSError as error:
                raise self._broken(error, stream) from None

    def batches_on_this_thread(self, sql: str, stream: str) -> Iterator[pa.RecordBatch]:
        """As `batches`, without reading ahead; `cancel` ends it."""
        with _failures(stream):
            statement = AdbcStatement(self._connection)
            try:
                with self._lock:
                    self._running = statement
                yield from _read(statement, sql)
            except OSError as error:
                raise self._broken(error, stream) from None
            finally:
                with self._lock:
                    self._running = None
                    statement.close()

    def cancel(self) -> None:
        """End what `batches_on_this_thread` reads on another thread; nothing if it does not."""
        with self._lock, contextlib.suppress(Error):
            if self._running is not None:
                self._running.cancel()

    def schema(self, sql: str, stream: str) -> pa.Schema:
        """The columns that a query gives."""
        with _failures(stream), AdbcStatement(self._connection) as statement:
            reader = _executed(statement, sql)
            reader.read_all()
            return reader.schema

    def begin(self, snapshot: str | None = None) -> None:
        """Leave the transaction and begin another: in a snapshot that another connection exported, or in a new one."""
        self._snapshot = snapshot
        try:
            with _failures():
                self._connection.rollback()
                self._prepare(self._connection)
        except ConnectionLost:
            self.reconnect()

    def _broken(self, error: OSError, stream: str) -> DatabaseError:
        """What a fault between two rows was, which has no SQLSTATE: the connection's end, or the query's."""
        _log.debug("PostgreSQL: %s", error)
        try:
            self._connection.rollback()
            self.rows("SELECT 1 AS answer")
        except (Error, ConnectionLost):
            return ConnectionLost("PostgreSQL", "the connection dropped", stream=stream, fix="Run it again")
        rule = "the server ended the query while its rows were read: a value it cannot reckon with, or a timeout"
        return DatabaseError("PostgreSQL", rule, stream=stream, fix="Set TAP_POSTGRES_LOGLEVEL=DEBUG to see why")

    def reconnect(self) -> None:
        """Leave the dropped connection, and begin a transaction, with a snapshot of its own, on another."""
        with contextlib.suppress(Error):
            self._connection.close()
        self._connection = self._connect()

    def close(self) -> None:
        """End the transaction and the connection."""
        with contextlib.suppress(Error):
            self._connection.close()

    def pause(self, failures: int) -> None:
        """Wait before another try: a quarter of a second, doubled by each failure, half a minute at most."""
        time.sleep(min(0.25 * 2**failures, 30))

    @property
    def retries(self) -> int:
        """How often a lost connection is made again."""
        return self._retries

    def _connect(self) -> AdbcConnection:
        failures = 0
        while True:
            try:
                with _failures():
                    # Not by the driver's DB-API, which imports all that it could make of a result: half a second.
                    connection = AdbcConnection(connect(self._where))
                    connection.set_autocommit(False)
                    self._prepare(connection)
                    return connection
            except SnapshotLost:
                raise
            except ConnectionLost as error:
                if failures >= self._retries:
                    raise
                _log.warning("%s; trying again", error)
                self.pause(failures)
                failures += 1

    def _prepare(self, connection: AdbcConnection) -> None:
        for number, sql in enumerate(_FIRST):
            _execute(connection, sql)
            if number == 0 and self._snapshot is not None:
                self._take_snapshot(connection, self._snapshot)

    def _take_snapshot(self, connection: AdbcConnection, name: str) -> None:
        try:
            _execute(connection, f"SET TRANSACTION SNAPSHOT '{name}'")
        except Error as error:
            if getattr(error, "sqlstate", None) in _NO_SNAPSHOT:
                raise SnapshotLost from None
            raise
        # The same rows in the same order, should they be read again.
        _execute(connection, "SET LOCAL max_parallel_workers_per_gather = 0")
        _execute(connection, "SET LOCAL synchronize_seqscans = off")


def _execute(connection: AdbcConnection, sql: str) -> None:
    with AdbcStatement(connection) as statement:
        statement.set_sql_query(sql)
        statement.execute_update()


def _executed(statement: AdbcStatement, sql: str) -> pa.RecordBatchReader:
    statement.set_sql_query(sql)
    return pa.RecordBatchReader.from_stream(statement.execute_query()[0])


def _read(statement: AdbcStatement, sql: str) -> Iterator[pa.RecordBatch]:
    statement.set_options(**{StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(_BYTES)})
    yield from _executed(statement, sql)


@contextlib.contextmanager
def _failures(stream: str | None = None) -> Iterator[None]:
    """The driver's errors as ours."""
    try:
        yield
    except Error as error:
        _log.debug("PostgreSQL: %s", error)
        raise translated(error, stream) from None
