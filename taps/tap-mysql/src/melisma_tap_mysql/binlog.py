"""The binary log as the log of changes that feeds all log-based streams of a run.

A position is a file of the log, a place in it, and the server's number. It is taken at the ends of transactions only.
The log is read by replication's own protocol up to where it ended when the run began.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import random
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pymysql
from pymysql import err
from pymysql.constants import ER
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication import event as events
from pymysqlreplication import row_event as rows

from melisma.errors import ConfigError, DatabaseError, MelismaError
from melisma.sql.remedy import ConnectionLost
from melisma.tap.log import Boundary, Change, ChangeLog, LogStream, Snapshot, Truncation
from melisma_tap_mysql.charsets import CharacterSets
from melisma_tap_mysql.read import TableStream
from melisma_tap_mysql.row_image import ImageReader, UnreadableColumn
from melisma_tap_mysql.server import Server, failures

__all__ = ["BinaryLog"]

_NEEDED = {"log_bin": ("1", "ON"), "binlog_format": ("ROW",), "binlog_row_image": ("FULL",)}
_NEEDED |= {"binlog_row_metadata": ("FULL",)}
_EVENTS = (
    rows.TableMapEvent,
    rows.WriteRowsEvent,
    rows.UpdateRowsEvent,
    rows.DeleteRowsEvent,
    events.QueryEvent,
    events.XidEvent,
    events.XAPrepareEvent,
    events.RotateEvent,
    events.GtidEvent,
    events.MariadbGtidEvent,
    events.NotImplementedEvent,
    rows.PartialUpdateRowsEvent,
)
_UNREAD = {
    26: "an incident: changes are missing",
    40: "a compressed transaction (binlog_transaction_compression)",
    **dict.fromkeys(range(165, 172), "compressed events (log_bin_compress)"),
}
"""Kinds of events that cannot be read, and must not be passed over."""
_STANDALONE = 1  # flag of MariaDB's event at a transaction's begin: one statement, and no event at its end
_ENDS = {"COMMIT", "ROLLBACK"}
_BEGINS = re.compile(r"BEGIN\Z|XA (?:START|BEGIN)\b")
_WRITES = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|REPLACE|LOAD|WITH|MERGE)\b", re.IGNORECASE)
_EMPTIES = re.compile(
    r"\s*(?:TRUNCATE(?:\s+TABLE)?|DROP\s+TABLE(?:\s+IF\s+EXISTS)?)\s+(?:(`(?:[^`]|``)+`|\w+)\s*\.\s*)?(`(?:[^`]|``)+`|\w+)",
    re.IGNORECASE,
)
_COMMENTS = re.compile(r"/\*.*?\*/", re.DOTALL)
_WAY_OUT = (
    "Take the bookmark of the log-based streams out of the state: the next run reads their tables whole again. And "
    "have the server keep its log for longer (binlog_expire_logs_seconds)"
)
_AGAIN = "Take the stream's bookmark out of the state: the next run reads its table whole again"
_TABLES_AGAIN = "Read the tables by another method, or whole again: take their bookmarks out of the state"
_LOCK_WAIT = 60  # seconds; meanwhile nobody else can write

_log = logging.getLogger(__name__)


class BinaryLog(ChangeLog):
    """The binary log of a MySQL or MariaDB server."""

    def __init__(self, server: Server, config: Mapping[str, Any]) -> None:
        self._server, self._config = server, config
        self._reader: Any = None
        self._sets = CharacterSets(server)
        self._told: set[tuple[str, str]] = set()
        self._images: dict[str, tuple[Any, ImageReader]] = {}

    def open(self, streams: Sequence[LogStream]) -> Snapshot | None:
        """Hold the streams' positions to the log.

        Raises:
            ConfigError: rows of the first read would be left out.
            DatabaseError: the server has no log by row, or not any more from those positions on.
        """
        if self._config.get("max_record_count") is not None:
            rule = "cannot go with LOG_BASED: what a limited first read leaves out would never come"
            raise ConfigError("max_record_count", rule, "Do not set it, or use another method for the trial")
        self._streams = {
            (stream.relation.schema, stream.relation.name): stream
            for stream in streams
            if isinstance(stream, TableStream)
        }
        self._hold_to_settings()
        self._warn_of_cascades()
        self._number = self._server.rows("SELECT @@server_id AS number")[0]["number"]
        sizes = {row["Log_name"]: int(row["File_size"]) for row in self._server.rows("SHOW BINARY LOGS")}
        for stream in streams:
            if stream.log_position is not None:
                self._hold_to(stream.log_position, sizes, stream)
        snapshot = None
        if any(stream.log_position is None for stream in streams):
            position = self._snapshot_position()
            self._server.pinned = True
            snapshot = Snapshot(position, (_order(position["file"], position["place"]), 0))
        self._end = self._current()
        return snapshot

    def snapshot_taken(self) -> None:
        """The log goes on from here."""
        self._server.pinned = False

    def entries(self) -> Iterator[Any]:
        """The changes up to where the log ended when the run began.

        A dropped connection is made again, and what was given of the transaction that was cut off is passed over.
        """
        position = min((stream.log_position for stream in self._streams.values()), key=_place)
        yield Boundary(position)  # the last one, if no transaction ends behind it
        given = failed = 0
        while _place(position) < _place(self._end):
            passed = 0
            try:
                for entry in self._read(position):
                    if isinstance(entry, Boundary):
                        position, given, failed = entry.position, 0, 0
                    elif passed < given:
                        passed += 1
                        continue
                    else:
                        given += 1
                        passed += 1
                    yield entry
                return
            except ConnectionLost as error:
                if failed >= self._server.retries:
                    raise
                _log.warning("%s; going on from the last transaction", error)
                self._server.pause(failed)
                failed += 1
                self._server.reconnect()

    def is_before(self, position: Any, other: Any) -> bool:
        """By file and place."""
        return _place(position) < _place(other)

    def close(self) -> None:
        """End the connections."""
        if self._reader is not None:
            with contextlib.suppress(err.Error, OSError, AttributeError):
                self._reader.close()

    def _read(self, position: Mapping[str, Any]) -> Iterator[Any]:
        self.close()
        self._reader = self._connect(position)
        with _log_failures():
            yield from self._changes()

    def _changes(self) -> Iterator[Any]:
        end, inside, statements = _place(self._end), False, False
        reached = (0, 0)
        for event in self._reader:
            if isinstance(event, events.RotateEvent):
                continue
            if self._reader.wrapped:
                rule = "the log has a transaction that goes beyond 4 GB in one file, where places are not told any more"
                raise DatabaseError("MySQL", rule, fix=_WAY_OUT)
            if isinstance(event, rows.TableMapEvent):
                _number_collations(event)
                continue
            if isinstance(event, events.MariadbGtidEvent):
                inside = not event.flags & _STANDALONE
                continue
            if isinstance(event, events.GtidEvent):
                continue
            if isinstance(event, events.NotImplementedEvent | rows.PartialUpdateRowsEvent):
                _refuse(event)
                continue
            if isinstance(event, rows.RowsEvent):
                stream = self._stream_of(event)
                if stream is not None:
                    statements = True
                    yield from self._rows(event, stream)
                continue
            if isinstance(event, events.XAPrepareEvent) and not event.one_phase:
                if statements:
                    rule = "the log holds a transaction in two phases (XA), whose outcome is not known where it stands"
                    raise DatabaseError("MySQL", rule, fix=_TABLES_AGAIN)
                inside = False
                continue
            if isinstance(event, events.QueryEvent):
                # "BEGIN" and "COMMIT" stand in the log as words. Of a transaction in two phases "XA START" and "XA END"
                # do, an event that it is prepared, and much later "XA COMMIT" or "XA ROLLBACK", as one of its own.
                query = _COMMENTS.sub(" ", event.query).strip()
                word = query.upper()
                if _BEGINS.match(word):
                    inside = True
                    continue
                if word.startswith("XA END"):
                    continue
                if statements and word.startswith("ROLLBACK"):  # also to a savepoint
                    rule = (
                        "the log holds rows that were rolled back, together with changes that cannot be (temporary "
                        "tables, tables of engines without transactions)"
                    )
                    raise DatabaseError("MySQL", rule, fix=_TABLES_AGAIN)
                if word not in _ENDS:
                    yield from self._statement(query, event.schema)
                    if inside:  # a savepoint, or a table made within a transaction
                        continue
            inside = statements = False
            position = self._position(self._reader.log_file, self._reader.log_pos)
            reached = _place(position)
            yield Boundary(position)
            if reached >= end:
                return
        if not inside and reached < end:
            # Behind the last transaction there is no more than the beginning of a file. An idle server is not to be
            # asked for a file that it has removed long ago.
            yield Boundary(self._end)

    def _stream_of(self, event: Any) -> TableStream | None:
        """Whose rows they are; None if nobody's, or of one that has them already."""
        stream = self._streams.get((event.schema, event.table))
        here = (_number(self._reader.log_file), self._reader.log_pos)
        return None if stream is None or here <= _place(stream.log_position) else stream

    def _rows(self, event: Any, stream: TableStream) -> Iterator[Change]:
        file, place = self._reader.log_file, self._reader.log_pos
        image = self._image(event, stream)
        _hold_to_whole_rows(event, stream, image)
        data = event.packet.read(event.event_size - event.packet.read_bytes)
        when = dt.datetime.fromtimestamp(event.timestamp, dt.UTC)
        order, at, count = _order(file, place), 0, 0
        deletes, updates = isinstance(event, rows.DeleteRowsEvent), isinstance(event, rows.UpdateRowsEvent)
        keys = stream.primary_keys
        while at < len(data):
            values, at = image.row(data, at, event.columns_present_bitmap)
            if updates:
                before = values
                values, at = image.row(data, at, event.columns_present_bitmap2)
                if any(before.get(key) != values.get(key) for key in keys):
                    yield self._gone(stream, before, (order, count), when)
                    count += 1
            if deletes:
                yield self._gone(stream, values, (order, count), when)
            else:
                yield Change(stream, values, (order, count), _size(values))
            count += 1

    def _gone(self, stream: TableStream, values: Mapping[str, bytes | None], order: Any, when: dt.datetime) -> Change:
        keys = stream.primary_keys
        left = {key: values.get(key) for key in keys} if keys else dict(values)
        return Change(stream, left, order, _size(left), when)

    def _image(self, event: Any, stream: TableStream) -> ImageReader:
        table = self._reader.table_map[event.table_id]
        mapped = tuple(tuple(column.data.items()) for column in table.columns)  # each transaction has a map of its own
        known = self._images.get(stream.name)
        if known is not None and known[0] == mapped:
            return known[1]
        if any(column.name is None for column in table.columns):
            rule = "the log has no names of columns where it stands: binlog_row_metadata was not FULL then"
            raise DatabaseError("MySQL", rule, stream=stream.name, fix=_AGAIN)
        columns = stream.columns()
        self._look_for_new_columns(stream, columns.keys() - {column.name for column in table.columns})
        try:
            image = ImageReader(table.columns, columns, self._sets)
        except UnreadableColumn as fault:
            rule = f'its column "{fault.column}" {fault.rule}'
            raise DatabaseError("MySQL", rule, stream=stream.name, fix=f"{_AGAIN}; or deselect the column") from None
        self._images[stream.name] = (mapped, image)
        return image

    def _look_for_new_columns(self, stream: TableStream, lacking: Collection[str]) -> None:
        for name in sorted(lacking):
            if name in stream.primary_keys:
                rule = f'the log has changes from when its table had no column "{name}", which is of its key now'
                raise DatabaseError("MySQL", rule, stream=stream.name, fix=_AGAIN)
            if (stream.name, name) not in self._told:
                self._told.add((stream.name, name))
                text = 'stream "%s": the log has changes from when its table had no column "%s": it is null there'
                _log.warning(text, stream.name, name)

    def _statement(self, query: str, default: bytes | str) -> Iterator[Truncation]:
        """What a statement that the log has in words does to the streams."""
        schema = default.decode() if isinstance(default, bytes) else default
        emptied = _EMPTIES.match(query)
        if emptied is not None:
            named = _plain(emptied[1]) if emptied[1] else schema
            stream = self._streams.get((named, _plain(emptied[2])))
            here = (_number(self._reader.log_file), self._reader.log_pos)
            if stream is not None and here > _place(stream.log_position):
                yield Truncation(stream)
        elif _WRITES.match(query):
            for (where, name), stream in self._streams.items():
                if _names(query, name) and (where == schema or _names(query, where)):
                    rule = "the log has a change of it as a statement, not by row: a session set binlog_format"
                    raise DatabaseError("MySQL", rule, stream=stream.name, fix=_AGAIN)

    def _connect(self, start: Mapping[str, Any]) -> Any:
        logging.getLogger("pymysqlreplication").setLevel(logging.ERROR)  # it warns of what is an error here
        arguments = {name: value for name, value in self._server.arguments.items() if name != "database"}
        opened: list[bool] = []

        def connect(**settings: Any) -> pymysql.Connection[Any]:
            # The library makes a dropped connection again by itself, and goes on after the last event: within a
            # transaction that would be without the table maps, and rows would be passed over.
            if settings.get("db") is None:
                if opened:
                    raise ConnectionLost("MySQL", "the connection dropped", fix="Run it again")
                opened.append(True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the library says db for database
                return pymysql.connect(**settings)

        return _Reader(
            connection_settings=arguments,
            server_id=self._config.get("server_id") or random.randrange(2**31, 2**32),  # noqa: S311  only to be unlike others
            pymysql_wrapper=connect,
            log_file=start["file"],
            log_pos=start["place"],
            resume_stream=True,
            blocking=False,
            only_events=_EVENTS,
            filter_non_implemented_events=False,
            only_schemas=sorted({schema for schema, _ in self._streams}),
            only_tables=sorted({name for _, name in self._streams}),
            enable_logging=False,
        )

    def _hold_to_settings(self) -> None:
        listed = ", ".join(f"'{name}'" for name in _NEEDED)
        found = {
            row["Variable_name"]: str(row["Value"]).upper()
            for row in self._server.rows(f"SHOW GLOBAL VARIABLES WHERE variable_name IN ({listed})")
        }
        for name, values in _NEEDED.items():
            if found.get(name) not in values:
                rule = f"the server's {name} is {found.get(name, 'not there')}"
                fix = f"Log-based replication needs {name} = {values[-1]}; set it on the server"
                raise DatabaseError("MySQL", rule, fix=fix)

    def _warn_of_cascades(self) -> None:
        """Changes that InnoDB makes for a foreign key are not in the log."""
        for row in self._server.rows(_CASCADES):
            stream = self._streams.get((row["schema"], row["name"]))
            if stream is not None:
                text = (
                    'stream "%s": its foreign key "%s" changes or deletes rows by itself, and the server does not log '
                    "that: such rows stay as they were in the target"
                )
                _log.warning(text, stream.name, row["key_name"])

    def _hold_to(self, position: Any, sizes: Mapping[str, int], stream: LogStream) -> None:
        if not isinstance(position, dict) or not {"file", "place", "server"} <= position.keys():
            raise DatabaseError("MySQL", "its state holds no position of this tap", stream=stream.name, fix=_AGAIN)
        if position["server"] != self._number:
            rule = "the state's position is in another server's log: changes would be lost"
        elif position["file"] not in sizes:
            rule = "the server has removed its log from the state's position on: changes are lost"
        elif position["place"] > sizes[position["file"]]:
            rule = "the state's position lies behind the end of the server's log, which was begun anew"
        else:
            return
        raise DatabaseError("MySQL", rule, stream=stream.name, fix=_WAY_OUT)

    @property
    def says_where_a_snapshot_lies(self) -> bool:
        """Whether the server knows a snapshot's place in its log, as MariaDB does."""
        return self._server.is_mariadb

    def _snapshot_position(self) -> dict[str, Any]:
        """Where the log stood when the run's snapshot was taken."""
        if self.says_where_a_snapshot_lies:
            found = {row["Variable_name"].lower(): row["Value"] for row in self._server.rows(_SNAPSHOT_STATUS)}
            return self._position(found["binlog_snapshot_file"], int(found["binlog_snapshot_position"]))
        # MySQL does not say: another is taken, while nobody writes.
        with failures(), pymysql.connect(**self._server.arguments) as other, other.cursor() as cursor:
            cursor.execute(f"SET SESSION lock_wait_timeout = {_LOCK_WAIT}")
            try:
                cursor.execute("FLUSH TABLES WITH READ LOCK")
            except err.OperationalError as error:
                if error.args[0] != ER.LOCK_WAIT_TIMEOUT:
                    raise
                rule = (
                    f"its tables could not be locked for a moment: others held some for more than {_LOCK_WAIT} seconds"
                )
                fix = "Run it when no long query or LOCK TABLES is under way"
                raise DatabaseError("MySQL", rule, fix=fix) from None
            self._server.begin_again()
            position = self._current()
            cursor.execute("UNLOCK TABLES")
        return position

    def _current(self) -> dict[str, Any]:
        try:
            [status] = self._server.rows("SHOW MASTER STATUS")
        except MelismaError:  # MySQL from 8.4 on
            [status] = self._server.rows("SHOW BINARY LOG STATUS")
        return self._position(status["File"], int(status["Position"]))

    def _position(self, file: str, place: int) -> dict[str, Any]:
        return {"file": file, "place": place, "server": self._number}


_CASCADES = """
SELECT t.constraint_schema AS `schema`, t.table_name AS `name`, t.constraint_name AS key_name
FROM information_schema.referential_constraints t
WHERE t.delete_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT') OR t.update_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
"""
_SNAPSHOT_STATUS = "SHOW STATUS WHERE variable_name IN ('binlog_snapshot_file', 'binlog_snapshot_position')"


class _Reader(BinLogStreamReader):  # type: ignore[misc]  # the library has no types
    """The library's reader, watched for places that do not grow.

    A place has 32 bits in the log. A transaction stands in one file whatever its size, so beyond 4 GB they begin anew.
    All events are seen here, those that nobody wants too.

    Attributes:
        wrapped: whether they have begun anew in the file that is read.
    """

    wrapped = False
    _at: int | None = None
    _in: str | None = None

    @property
    def log_pos(self) -> int | None:
        """The place behind the last event."""
        return self._at

    @log_pos.setter
    def log_pos(self, place: int | None) -> None:
        # An event is smaller than 1 GB: what goes back by less is none of the log, but what the server sends first.
        if place is not None and self._at is not None and self._at - place > 1 << 31:
            self.wrapped = True
        self._at = place

    @property
    def log_file(self) -> str | None:
        """The file that is read; the library says the place in it first."""
        return self._in

    @log_file.setter
    def log_file(self, file: str | None) -> None:
        self._in, self.wrapped = file, False


@contextlib.contextmanager
def _log_failures() -> Iterator[None]:
    try:
        with failures():
            yield
    except DatabaseError as error:
        if "error 1236" not in str(error):
            raise
        rule = "the server has removed its log from the state's position on, or cannot read it: changes are lost"
        raise DatabaseError("MySQL", rule, fix=_WAY_OUT) from None


def _number_collations(event: Any) -> None:
    """Give the columns of a table map their collations' numbers, which the library gives names that it may not know."""
    numbers = iter(event.optional_metadata.charset_collation_list or ())
    for column in event.columns:
        if event._is_character_column(column.type, dbms=event.dbms):
            column.charset_id = next(numbers, None)


def _hold_to_whole_rows(event: Any, stream: TableStream, image: ImageReader) -> None:
    """An error if a column is not there, rather than null: any session may set binlog_row_image for itself."""
    keys = stream.primary_keys
    if isinstance(event, rows.WriteRowsEvent):
        lacking = image.lacking(event.columns_present_bitmap)
    elif isinstance(event, rows.UpdateRowsEvent):
        lacking = image.lacking(event.columns_present_bitmap, keys) or image.lacking(event.columns_present_bitmap2)
    else:
        lacking = image.lacking(event.columns_present_bitmap, keys or None)
    if lacking is not None:
        rule = f'a session logged only parts of rows (binlog_row_image): its column "{lacking}" is not there'
        raise DatabaseError("MySQL", rule, stream=stream.name, fix=_AGAIN)


def _refuse(event: Any) -> None:
    if isinstance(event, rows.PartialUpdateRowsEvent):
        what = "parts of JSON documents (binlog_row_value_options)"
    elif event.event_type in _UNREAD:
        what = _UNREAD[event.event_type]
    else:
        return
    raise DatabaseError("MySQL", f"the log holds {what}, which this tap does not read", fix=_WAY_OUT)


def _number(file: str) -> int:
    return int(file.rpartition(".")[2])


def _place(position: Mapping[str, Any]) -> tuple[int, int]:
    return _number(position["file"]), position["place"]


def _order(file: str, place: int) -> int:
    """One number that grows along the log."""
    return _number(file) << 32 | place


def _names(query: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", query) is not None


def _plain(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name


def _size(values: Mapping[str, bytes | None]) -> int:
    return 64 + sum(len(value) + 40 for value in values.values() if value is not None)
