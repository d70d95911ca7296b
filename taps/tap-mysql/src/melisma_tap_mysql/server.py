"""The connection: one transaction that all streams are read in, and rows as blocks of their own bytes."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pymysql
from pymysql import err
from pymysql.constants import COMMAND
from pymysql.cursors import DictCursor

from melisma.errors import ConfigError
from melisma.sql.ahead import read_ahead
from melisma.sql.remedy import ConnectionLost
from melisma_tap_mysql.error_numbers import translated
from melisma_tap_mysql.rowset import RowsetEnded, ServerFault, binary_columns, row_blocks
from melisma_tap_mysql.settings import connection_arguments

__all__ = ["Server", "failures"]

_FIRST = (
    "SET SESSION time_zone = '+00:00'",
    "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'",
    "SET SESSION wait_timeout = 28800",
    # A target that is slow to take the rows must not end the read.
    "SET SESSION net_read_timeout = 3600, net_write_timeout = 3600",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
)
_SNAPSHOT = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
_MARK = "melisma"
# Lets go of the tables that were read since, which others may want to alter or drop; the snapshot stays.
_RELEASE = f"ROLLBACK TO SAVEPOINT {_MARK}"

_log = logging.getLogger(__name__)


class Server:
    """A MySQL or MariaDB server, read in one snapshot for as long as the connection holds.

    Attributes:
        pinned: the snapshot belongs to a place in the log, so that another would not do.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._arguments = connection_arguments(config)
        self._retries: int = config.get("connect_retries", 5)
        self._between = True  # whether no result is half read
        self.pinned = False
        self._connection = self._connect()

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query on the catalog."""
        self._settle()
        with failures(), self._connection.cursor(DictCursor) as cursor:
            cursor.execute(f"SAVEPOINT {_MARK}")
            cursor.execute(sql)
            found = list(cursor.fetchall())
            cursor.execute(_RELEASE)
            return found

    def batches(self, sql: str, stream: str) -> Iterator[list[pa.Array]]:
        """The rows of a query: for each block the columns, as the server writes them.

        Raises:
            ConnectionLost: the connection dropped; `reconnect` makes another.
            DatabaseError: the query failed.
        """
        self._settle()
        connection: Any = self._connection

        def read() -> Iterator[list[pa.Array]]:
            connection._execute_command(COMMAND.COM_QUERY, sql)
            count = connection._read_packet().read_length_encoded_integer()
            for _ in range(count + 1):  # the columns' descriptions, and the end of them
                connection._read_packet()
            for data, starts in row_blocks(connection._rfile.read1, rows=self._config.get("max_rows_per_batch")):
                yield binary_columns(data, starts, count)

        with failures(stream):
            self._run(f"SAVEPOINT {_MARK}")
            self._between = False
            yield from read_ahead(read(), self._cancel())
            self._between = True
            self._run(_RELEASE)

    def reconnect(self) -> None:
        """Leave the dropped connection, and begin a transaction, with a snapshot of its own, on another.

        Raises:
            ConnectionLost: the snapshot is pinned.
        """
        self.close()
        if self.pinned:
            rule = "the connection dropped, and with it the snapshot that the log goes on from"
            raise ConnectionLost("MySQL", rule, fix="Run it again")
        self._connection = self._connect()
        self._between = True

    def close(self) -> None:
        """End the transaction and the connection."""
        with contextlib.suppress(err.Error, OSError):
            if self._between:
                self._connection.close()
            else:
                self._connection._force_close()  # type: ignore[attr-defined]  # close() would ask the server first

    def pause(self, failures: int) -> None:
        """Wait before another try: a quarter of a second, doubled by each failure, half a minute at most."""
        time.sleep(min(0.25 * 2**failures, 30))

    @property
    def retries(self) -> int:
        """How often a lost connection is made again."""
        return self._retries

    @property
    def is_mariadb(self) -> bool:
        """Whether the server is MariaDB."""
        return _is_mariadb(self._connection)

    @property
    def arguments(self) -> dict[str, Any]:
        """What the driver needs for another connection to the same server."""
        return dict(self._arguments)

    def begin_again(self) -> None:
        """Take another snapshot, on the same connection."""
        with failures():
            self._run("ROLLBACK")
            self._run(_SNAPSHOT)

    def _settle(self) -> None:
        """A connection on which nothing is under way: another one, if a read was broken off."""
        if not self._between:
            self.reconnect()

    def _run(self, sql: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)

    def _cancel(self) -> Callable[[], None]:
        """What ends the query that runs on this connection, and the connection with it."""
        connection: Any = self._connection
        done = threading.Event()

        def cancel() -> None:
            if done.is_set():
                return
            done.set()
            with (
                contextlib.suppress(err.Error, OSError),
                pymysql.connect(**self._arguments) as other,
                other.cursor() as cursor,
            ):
                cursor.execute(f"KILL {connection.thread_id()}")
            with contextlib.suppress(OSError, AttributeError):
                connection._sock.shutdown(socket.SHUT_RDWR)

        return cancel

    def _connect(self) -> pymysql.Connection[Any]:
        failed = 0
        while True:
            try:
                with failures():
                    connection = pymysql.connect(**self._arguments)
                self._begin(connection)
                return connection
            except ConnectionLost as error:
                if failed >= self._retries:
                    raise
                _log.warning("%s; trying again", error)
                self.pause(failed)
                failed += 1

    def _begin(self, connection: pymysql.Connection[Any]) -> None:
        limit = "max_statement_time" if _is_mariadb(connection) else "max_execution_time"
        with failures(), connection.cursor() as cursor:
            for statement in (*_FIRST, f"SET SESSION {limit} = 0"):
                cursor.execute(statement)
            # Where MariaDB writes a log of this session, it keeps the locks on tables that were read until the end of
            # the transaction. Only privileged users may set it.
            with contextlib.suppress(err.OperationalError):
                cursor.execute("SET SESSION sql_log_bin = 0")
            for number, statement in enumerate(self._config.get("session_sqls") or []):
                try:
                    cursor.execute(statement)
                except (err.ProgrammingError, err.NotSupportedError, err.InternalError, err.OperationalError) as error:
                    problem = translated(error)
                    if isinstance(problem, ConnectionLost):
                        raise problem from None
                    _log.debug("MySQL: %s", error)
                    rule = "the server does not take the statement"
                    raise ConfigError(f"session_sqls[{number}]", rule, "Mend or remove it") from None
            cursor.execute(_SNAPSHOT)


def _is_mariadb(connection: Any) -> bool:
    return "mariadb" in connection.get_server_info().lower()


@contextlib.contextmanager
def failures(stream: str | None = None) -> Iterator[None]:
    """The driver's errors as ours."""
    try:
        yield
    except err.Error as error:
        _log.debug("MySQL: %s", error)
        raise translated(error, stream) from None
    except ServerFault as fault:
        try:
            err.raise_mysql_exception(fault.packet)
        except err.Error as error:
            _log.debug("MySQL: %s", error)
            raise translated(error, stream) from None
    except (OSError, RowsetEnded) as error:
        _log.debug("MySQL: %s", error)
        raise ConnectionLost("MySQL", "the connection dropped", stream=stream, fix="Run it again") from None
    except RuntimeError as error:  # how the driver says that a way to log in needs a library
        if "cryptography" not in str(error) and "nacl" not in str(error).lower():
            raise
        rule = "the server wants a way to log in that needs TLS, or a library that is not installed"
        raise ConfigError("user", rule, 'Set ssl to true, or: pip install "PyMySQL[rsa,ed25519]"') from None
