"""The connection that the log comes over: a replication slot, made, read, and told how far it may go.

libpq by way of `psycopg.pq`: psycopg has no replication protocol of its own. The messages are those of
https://www.postgresql.org/docs/current/protocol-replication.html.
"""

from __future__ import annotations

import contextlib
import logging
import select
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

from psycopg import Error, OperationalError, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import error_from_result

from melisma.errors import ConfigError, MelismaError
from melisma_tap_postgres.pgoutput import lsn_number, lsn_text
from melisma_tap_postgres.settings import connection_string
from melisma_tap_postgres.sqlstate import ConnectionLost, translated

__all__ = ["Keepalive", "SlotConnection", "literal", "name"]

_log = logging.getLogger(__name__)

_SETTINGS = {
    # As `server` has them, so that the log's texts are those of the snapshot.
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "statement_timeout": "0",
    # A target may take long for what it was sent, and the tap then does not answer. A machine that is gone does not
    # answer either, and the slot is free only after this time.
    "wal_sender_timeout": "10min",
}
_DATA, _KEEPALIVE = struct.Struct(">cQQq"), struct.Struct(">cQqb")
_STATUS = struct.Struct(">cQQQqb")
_IS_DATA, _IS_KEEPALIVE = b"wk"
_EPOCH = 946_684_800
_SILENCE = 1.0  # seconds after which the server is asked how far it is

Keepalive = int
"""How far the server has read: all that was committed before there has been sent."""


class SlotConnection:
    """A connection in replication mode.

    Args:
        config: the tap's settings.
        confirmed: the position that the slot may forget what lies before, and the only one that is ever confirmed.
            0 confirms nothing.
    """

    def __init__(self, config: Mapping[str, Any], confirmed: int = 0) -> None:
        self._confirmed = confirmed
        where = connection_string(config)
        given = conninfo_to_dict(where).get("options")
        options = " ".join(
            [*([str(given)] if given else []), *(f"-c {key}={value}" for key, value in _SETTINGS.items())]
        )
        text = make_conninfo(where, replication="database", client_encoding="UTF8", options=options)
        self._connection = pq.PGconn.connect_start(text.encode())
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it; a temporary slot and an exported snapshot go with it."""
        self._connection.finish()

    @property
    def process(self) -> int:
        """The server's process for this connection."""
        return self._connection.backend_pid

    def run(self, sql: str, forbidden: MelismaError) -> None:
        """Run a statement.

        Raises:
            MelismaError: the server refuses it: `forbidden` where the user may not.
        """
        self._result(sql, forbidden=forbidden)

    def create(self, slot: str, *, temporary: bool) -> tuple[int, str]:
        """Make a slot, at a position at which a snapshot is exported; gives both.

        The snapshot shows exactly what was committed before the position. It is there until the next statement on
        this connection. The server waits for the transactions that run now.
        """
        kind = "TEMPORARY " if temporary else ""
        made = self._result(f"CREATE_REPLICATION_SLOT {name(slot)} {kind}LOGICAL pgoutput EXPORT_SNAPSHOT")
        return lsn_number(made.get_value(0, 1).decode()), made.get_value(0, 2).decode()

    def start(self, slot: str, position: int, publication: str) -> None:
        """Begin to read after a position, and confirm what may be confirmed."""
        options = f"proto_version '1', publication_names {literal(name(publication))}"
        self._result(f"START_REPLICATION SLOT {name(slot)} LOGICAL {lsn_text(position)} ({options})", copy=True)
        self._status(reply=True)

    def messages(self) -> Iterator[bytes | Keepalive]:
        """The plug-in's messages, and between them how far the server is.

        Raises:
            ConnectionLost: the connection dropped.
            MelismaError: the server cannot go on.
        """
        connection, asked = self._connection, time.monotonic()
        while True:
            with _failures():
                size, data = connection.get_copy_data(1)
                if size == 0:
                    if not self._readable(_SILENCE) or time.monotonic() - asked > _SILENCE:
                        self._status(reply=True)
                        asked = time.monotonic()
                    connection.consume_input()
                    continue
                if size < 0:
                    result = connection.get_result()
                    if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
                        raise error_from_result(result)
                    raise OperationalError("server closed the connection")
            kind = data[0]
            if kind == _IS_DATA:
                yield bytes(data[_DATA.size :])
            elif kind == _IS_KEEPALIVE:
                _, end, _, reply = _KEEPALIVE.unpack_from(data)
                if reply:
                    self._status(reply=False)
                yield end

    def _connect(self) -> None:
        connection = self._connection
        with _failures():
            while (step := connection.connect_poll()) != pq.PollingStatus.OK:
                if step == pq.PollingStatus.FAILED or connection.status == pq.ConnStatus.BAD:
                    raise OperationalError(connection.get_error_message())
                waiting = [connection.socket]
                if step == pq.PollingStatus.READING:
                    select.select(waiting, [], [])
                else:
                    select.select([], waiting, [])
            connection.nonblocking = 1

    def _result(self, sql: str, *, copy: bool = False, forbidden: MelismaError | None = None) -> Any:
        connection = self._connection
        with _failures(forbidden):
            connection.send_query(sql.encode())
            self._flush()
            last = None
            while True:
                while connection.is_busy():
                    self._readable(None)
                    connection.consume_input()
                result = connection.get_result()
                if result is None:
                    break
                last = result
                if result.status == pq.ExecStatus.FATAL_ERROR:
                    raise error_from_result(result)
                if result.status == pq.ExecStatus.COPY_BOTH:
                    break
            if last is None or copy != (last.status == pq.ExecStatus.COPY_BOTH):
                raise OperationalError("server closed the connection")
            return last

    def _status(self, *, reply: bool) -> None:
        now = int((time.time() - _EPOCH) * 1_000_000)
        done = self._confirmed
        with _failures():
            self._connection.put_copy_data(_STATUS.pack(b"r", done, done, done, now, reply))
            self._flush()

    def _flush(self) -> None:
        while self._connection.flush():
            select.select([], [self._connection.socket], [])

    def _readable(self, seconds: float | None) -> bool:
        return bool(select.select([self._connection.socket], [], [], seconds)[0])


def name(text: str) -> str:
    """A name as a statement has it."""
    return '"' + text.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a statement has it."""
    return "'" + text.replace("'", "''") + "'"


@contextlib.contextmanager
def _failures(forbidden: MelismaError | None = None) -> Iterator[None]:
    """The library's errors as ours."""
    try:
        yield
    except Error as error:
        _log.debug("PostgreSQL: %s", error)
        if forbidden is not None and error.sqlstate == "42501":
            raise forbidden from None
        raise _translated(error) from None
    except (OSError, ValueError) as error:  # the socket is gone
        _log.debug("PostgreSQL: %s", error)
        raise ConnectionLost("PostgreSQL", "the connection dropped", fix="Run it again") from None


def _translated(error: Error) -> MelismaError:
    text = str(error)
    if error.sqlstate == "42501" or "replication role" in text or "must be superuser" in text:
        rule = "may not read the log"
        return ConfigError("user", rule, "Give it the right with ALTER ROLE ... REPLICATION, or use another method")
    if error.sqlstate == "53400" or "all replication slots are in use" in text:
        fix = "Raise the server's max_replication_slots, or drop slots that nobody reads"
        return ConfigError("replication_slot_name", "cannot be made: the server has as many slots as it may", fix)
    if error.sqlstate is None and "receiving copy data failed" in text:
        return ConnectionLost("PostgreSQL", "the connection dropped", fix="Run it again")
    return translated(error)
