"""The log of a database, read through one replication slot for all streams that it feeds.

The slot is confirmed once, at the start of the reading, and only up to the position in the STATE that the run was
given: what the target has not committed, the server still has. So a run may die at any point and be run again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from melisma.errors import ConfigError, DatabaseError, UsageError
from melisma.sql.relation import Relation as Discovered
from melisma.tap.log import Boundary, Change, ChangeLog, Entry, LogStream, NewSchema, Snapshot, Truncation
from melisma_tap_postgres.discover import find_relations
from melisma_tap_postgres.pgoutput import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Insert,
    Message,
    Relation,
    Truncate,
    Tuple,
    Update,
    lsn_number,
    lsn_text,
    parse,
    time_of,
)
from melisma_tap_postgres.publication import AGAIN, Table, check_server, find_tables, publish
from melisma_tap_postgres.slot import SlotConnection, literal
from melisma_tap_postgres.sqlstate import ConnectionLost

if TYPE_CHECKING:
    import datetime as dt

    from melisma_tap_postgres.read import TableStream
    from melisma_tap_postgres.server import Server
    from melisma_tap_postgres.typemap import Column

__all__ = ["PostgresLog"]

_SLOT = """
SELECT slot_type::text AS type, plugin::text AS plugin, database::text AS database,
       current_database()::text AS here, wal_status, active_pid, confirmed_flush_lsn::text AS confirmed,
       pg_current_wal_insert_lsn()::text AS current,
       pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS held
FROM pg_replication_slots WHERE slot_name = {slot}
"""
_MEGABYTE = 1 << 20
_WIDER = {21: {23, 20, 1700}, 23: {20, 1700}, 20: {1700}, 25: {1043}, 1043: {25}}
"""Types that may become others with the same values: the integers and numeric, text and varchar. By oid."""
_PER_VALUE = 60  # bytes, beside the text

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Followed:
    """A stream with its table, as the log has it.

    Attributes:
        position: changes committed before it are known.
        places: of each column of the stream, where it stands in the log's rows; None for one that is not there.
        keys: where the key's columns stand among the stream's.
    """

    stream: TableStream
    position: int
    places: list[int | None]
    keys: list[int]


class PostgresLog(ChangeLog):
    """The log.

    Args:
        server: the connection that tables are read with.
        config: the tap's settings.
        settled: whether a catalog says what columns there are, so that new ones are left out.
    """

    def __init__(self, server: Server, config: Mapping[str, Any], *, settled: bool) -> None:
        self._server, self._config, self._settled = server, config, settled
        self._slot: str = config.get("replication_slot_name", "melisma")
        self._publication: str = config.get("replication_publication", "melisma")
        self._streams: list[TableStream] = []
        self._tables: list[Table] = []
        self._connection: SlotConnection | None = None
        self._confirmed = 0
        # How far the reading is: the end of the last transaction, and what was given out of the one behind it.
        self._position = 0
        self._given: tuple[int, int] | None = None
        self._followed: dict[int, _Followed | None] = {}
        self._told: set[Any] = set()

    def open(self, streams: Sequence[LogStream]) -> Snapshot | None:
        """See that server, tables, publication and slot are right, and make those of the last two that are missing."""
        if self._config.get("max_record_count") is not None:
            rule = "cannot go with LOG_BASED: what a limited first read leaves out would never come"
            raise ConfigError("max_record_count", rule, "Do not set it, or use another method for the trial")
        self._streams = list(streams)  # type: ignore[arg-type]
        positions = [_position(stream) for stream in self._streams]
        known = [position for position in positions if position is not None]
        self._server.begin()  # what is so now, not when the streams were discovered
        check_server(self._server)
        self._tables = find_tables(self._server, self._streams)
        exists = self._check_slot()
        self._confirmed = min(known, default=0)
        self._connection = connection = SlotConnection(self._config)
        publish(self._server, connection, self._publication, self._tables)
        if exists and len(known) == len(positions):
            connection.close()
            return None
        _log.info("PostgreSQL: taking a snapshot; the server waits for the transactions that run now")
        name = f"{self._slot}_snapshot_{connection.process}" if exists else self._slot
        position, snapshot = connection.create(name, temporary=exists)
        self._server.begin(snapshot)
        return Snapshot(lsn_text(position), (position, 0))

    def snapshot_taken(self) -> None:
        """End the transaction that all tables were read in, and what held its snapshot."""
        self._close_connection()
        self._server.begin()

    def is_before(self, position: Any, other: Any) -> bool:
        """By number."""
        return lsn_number(position) < lsn_number(other)

    def close(self) -> None:
        """End the connection."""
        self._close_connection()
        for stream in self._streams:
            stream.report()

    def entries(self) -> Iterator[Entry]:
        """The changes up to what the server had written when this began; a dropped connection goes on where it was."""
        [now] = self._server.rows("SELECT pg_current_wal_flush_lsn()::text AS lsn")
        self._server.begin()
        end, failures = lsn_number(now["lsn"]), 0
        positions = {stream.name: lsn_number(stream.log_position) for stream in self._streams}
        self._position = min(positions.values())
        _log.info(
            'PostgreSQL: reading %.1f MB of the log through slot "%s"',
            max(end - self._position, 0) / _MEGABYTE,
            self._slot,
        )
        while True:
            before = (self._position, self._given)
            try:
                yield from self._read(end, positions)
                return
            except ConnectionLost as error:
                failures = 0 if (self._position, self._given) != before else failures + 1
                if failures > self._server.retries:
                    raise
                _log.warning("%s; going on from the last change", error)
                self._close_connection()
                self._server.pause(failures)

    def _read(self, end: int, positions: Mapping[str, int]) -> Iterator[Entry]:
        self._connection = connection = SlotConnection(self._config, self._confirmed)
        connection.start(self._slot, self._position, self._publication)
        self._followed = {}
        begun, count = Begin(0, 0), 0
        for data in connection.messages():
            if isinstance(data, int):
                if begun.lsn or self._given is not None:
                    continue
                if data > self._position:
                    self._position = data
                    yield Boundary(lsn_text(data))
                if data >= end:
                    return
                continue
            message = parse(data)
            if isinstance(message, Begin):
                begun, count = message, 0
            elif isinstance(message, Commit):
                begun, self._given, self._position = Begin(0, 0), None, message.end
                yield Boundary(lsn_text(message.end))
                if message.end >= end:
                    return
            elif isinstance(message, Relation):
                yield from self._bind(message, positions)
            elif message is not None:
                count += 1
                # Of a transaction that a dropped connection cut off, some was given out before.
                if self._given is None or (begun.lsn, count) > self._given:
                    self._given = begun.lsn, count
                    yield from self._changes(message, begun, count, len(data))

    def _changes(self, message: Message, begun: Begin, place: int, size: int) -> Iterator[Entry]:
        if isinstance(message, Truncate):
            for oid in message.oids:
                followed = self._followed.get(oid)
                if followed is not None and begun.lsn >= followed.position:
                    yield Truncation(followed.stream)
            return
        followed = self._followed.get(message.oid)  # type: ignore[union-attr]
        if followed is None or begun.lsn < followed.position:
            return
        order = (begun.lsn, 2 * place)
        if isinstance(message, Insert):
            yield _change(followed, message.new, order, size)
        elif isinstance(message, Delete):
            yield _change(followed, message.old, order, size, time_of(begun.time))
        elif isinstance(message, Update):
            new, old = message.new, message.old
            if old is not None:
                new = [
                    now if now is not UNCHANGED or then is None else then for now, then in zip(new, old, strict=True)
                ]
            change = _change(followed, new, order, size)
            if old is not None:
                gone = _change(followed, old, (begun.lsn, 2 * place - 1), size, time_of(begun.time))
                if any(gone.values[key] != change.values[key] for key in followed.keys):
                    yield gone
            yield change

    def _bind(self, relation: Relation, positions: Mapping[str, int]) -> Iterator[Entry]:
        """Take note of how a table's rows look in the log from here on."""
        table = next((each for each in self._tables if each.oid == relation.oid), None)
        if table is None:
            self._followed[relation.oid] = None
            self._warn_of_another(relation)
            return
        stream = table.stream
        altered = self._altered(stream, relation)
        if altered is not None:
            yield NewSchema(stream, altered.json_schema())
            stream.adopt(altered)
        names = [name for name, _ in relation.columns]
        columns = stream.log_columns
        lacking = [name for name in columns if name not in names]
        keys = [name for name in stream.primary_keys if name in lacking]
        if keys:
            rule = f'the log has changes from when its table had no column "{keys[0]}", which is of its key now'
            raise DatabaseError("PostgreSQL", rule, stream=stream.name, fix=AGAIN)
        for name, kind in relation.columns:
            now = table.types.get(name, kind)
            if name in columns and now != kind and now not in _WIDER.get(kind, ()):
                rule = f'its column "{name}" was altered: it has another type in the log'
                fix = f"If that was just now, run it again. If not, its rows changed beside the log. {AGAIN}"
                raise DatabaseError("PostgreSQL", rule, stream=stream.name, fix=fix)
        if lacking and (stream.name, *lacking) not in self._told:
            self._told.add((stream.name, *lacking))
            _log.warning(
                'stream "%s": the log has changes from when its table had no column "%s": it is null there',
                stream.name,
                '", "'.join(lacking),
            )
        places = [names.index(name) if name in names else None for name in columns]
        order = list(columns)
        self._followed[relation.oid] = _Followed(
            stream, positions[stream.name], places, [order.index(name) for name in stream.primary_keys]
        )

    def _altered(self, stream: TableStream, relation: Relation) -> Discovered[Column] | None:
        """The table as it is now, if it has got columns since it was discovered."""
        known = stream.relation.columns
        if self._settled or all(name in known for name, _ in relation.columns):
            return None
        self._server.begin()
        found = next((each for each in find_relations(self._server, self._config) if each.stream == stream.name), None)
        return found if found is not None and found.columns.keys() - known.keys() else None

    def _warn_of_another(self, relation: Relation) -> None:
        for table in self._tables:
            mine = table.stream.relation
            if (mine.schema, mine.name) == (relation.schema, relation.name) and relation.oid not in self._told:
                self._told.add(relation.oid)
                _log.warning(
                    'stream "%s": its table was dropped and made anew. Rows of the old one stay in the target. %s',
                    table.stream.name,
                    AGAIN,
                )

    def _check_slot(self) -> bool:
        """Whether the slot is there; refuses one that cannot give all changes."""
        found = self._server.rows(_SLOT.format(slot=literal(self._slot)))
        known = [(stream, p) for stream in self._streams if (p := _position(stream)) is not None]
        if not found:
            if known:
                rule = "names a slot that is not there, but the state has a position: the changes since are lost"
                raise ConfigError("replication_slot_name", rule, _AGAIN_ALL)
            return False
        [slot] = found
        if slot["type"] != "logical" or slot["plugin"] != "pgoutput" or slot["database"] != slot["here"]:
            rule = "names a slot of another kind, or of another database"
            raise ConfigError("replication_slot_name", rule, "Set another name: the tap makes a slot of its own")
        if slot["wal_status"] == "lost" or slot["confirmed"] is None:
            rule = "names a slot whose log the server has removed (max_slot_wal_keep_size): the changes are lost"
            fix = f"Drop it with: SELECT pg_drop_replication_slot({literal(self._slot)}). {_AGAIN_ALL}"
            raise ConfigError("replication_slot_name", rule, fix)
        confirmed = lsn_number(slot["confirmed"])
        for stream, position in known:
            if position > lsn_number(slot["current"]):
                rule = f'is ahead of the server\'s log in stream "{stream.name}": was the server restored?'
                raise ConfigError("state", rule, _AGAIN_ALL)
            if position < confirmed:
                raise SlotAhead(stream.name, self._slot, lsn_text(position), slot["confirmed"])
        level = logging.WARNING if slot["wal_status"] in {"extended", "unreserved"} else logging.INFO
        held = (slot["held"] or 0) / _MEGABYTE
        _log.log(level, 'PostgreSQL: slot "%s" makes the server keep %.1f MB of its log', self._slot, held)
        return True

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_AGAIN_ALL = "To read the tables whole again, take their bookmarks out of the state"


class SlotAhead(UsageError):
    """The slot has been told to forget changes that the STATE does not cover."""

    def __init__(self, stream: str, slot: str, position: str, confirmed: str) -> None:
        super().__init__(
            f'stream "{stream}": slot "{slot}" is ahead of the state: it begins at {confirmed}, and the state is at '
            f"{position}. What was committed between them is not in the log any more: an older state was given, the "
            f"stream was left out for a time, or somebody else reads the slot. {AGAIN}"
        )


def _position(stream: LogStream) -> int | None:
    text = stream.log_position
    if text is None:
        return None
    try:
        return lsn_number(text)
    except (AttributeError, ValueError):
        rule = f'has a log_position for stream "{stream.name}" that is no position of PostgreSQL\'s log'
        raise ConfigError("state", rule, AGAIN) from None


def _change(
    followed: _Followed, row: Tuple, order: tuple[int, int], size: int, gone: dt.datetime | None = None
) -> Change:
    values = [None if place is None else row[place] for place in followed.places]
    return Change(followed.stream, values, order, size + _PER_VALUE * len(values), gone)
