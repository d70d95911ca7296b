"""The messages of PostgreSQL's own output plug-in, `pgoutput`, protocol version 1: bytes in, changes out.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html. Transactions come whole and in the
order of their commits; a table's Relation message comes before its first change and again after it was altered.
"""

from __future__ import annotations

import datetime as dt
import struct
from dataclasses import dataclass
from typing import Final

from melisma.errors import DatabaseError

__all__ = [
    "UNCHANGED",
    "Begin",
    "Commit",
    "Delete",
    "Insert",
    "Message",
    "Relation",
    "Truncate",
    "Tuple",
    "Unchanged",
    "Update",
    "lsn_number",
    "lsn_text",
    "parse",
    "time_of",
]

_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_INT16, _INT32, _INT64 = struct.Struct(">h"), struct.Struct(">I"), struct.Struct(">Q")
_BEGIN, _COMMIT = struct.Struct(">QqI"), struct.Struct(">bQQq")
_ATTRIBUTE = struct.Struct(">Ii")
_NULL, _UNCHANGED, _TEXT = b"nut"


class Unchanged:
    """A value that the log does not have: it is stored apart from its row (TOAST), and the update left it alone."""


UNCHANGED: Final = Unchanged()
Tuple = list[bytes | Unchanged | None]


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction begins.

    Attributes:
        lsn: where its commit stands.
        time: of the commit, in microseconds since 2000.
    """

    lsn: int
    time: int


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction ends.

    Attributes:
        end: the position behind its commit: a reader that starts from there gets what was committed after it.
    """

    end: int


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as it was when the changes that follow were made.

    Attributes:
        columns: name and type's oid of each.
    """

    oid: int
    schema: str
    name: str
    columns: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Insert:
    """A new row."""

    oid: int
    new: Tuple


@dataclass(frozen=True, slots=True)
class Update:
    """A row was changed.

    Attributes:
        old: the row before it, or as much of it as the table's replica identity has; None where that did not change.
    """

    oid: int
    old: Tuple | None
    new: Tuple


@dataclass(frozen=True, slots=True)
class Delete:
    """A row is gone; `old` has at least the columns of the table's replica identity."""

    oid: int
    old: Tuple


@dataclass(frozen=True, slots=True)
class Truncate:
    """All rows of some tables are gone."""

    oids: tuple[int, ...]


Message = Begin | Commit | Relation | Insert | Update | Delete | Truncate


def parse(data: bytes) -> Message | None:
    """A message; None for one that says nothing of rows (Origin, Type, Message).

    Raises:
        DatabaseError: it is none of protocol version 1.
    """
    kind = data[:1]
    try:
        if kind == b"I":
            return Insert(_INT32.unpack_from(data, 1)[0], _tuple(data, 6)[0])
        if kind == b"U":
            return _update(data)
        if kind == b"D":
            return Delete(_INT32.unpack_from(data, 1)[0], _tuple(data, 6)[0])
        if kind == b"B":
            lsn, time, _ = _BEGIN.unpack_from(data, 1)
            return Begin(lsn, time)
        if kind == b"C":
            return Commit(_COMMIT.unpack_from(data, 1)[2])
        if kind == b"R":
            return _relation(data)
        if kind == b"T":
            count = _INT32.unpack_from(data, 1)[0]
            return Truncate(struct.unpack_from(f">{count}I", data, 6))
    except (struct.error, IndexError, ValueError) as error:
        raise DatabaseError("PostgreSQL", "a message of the log ends too early") from error
    if kind in {b"O", b"Y", b"M"}:
        return None
    raise DatabaseError("PostgreSQL", "the log has a message that protocol version 1 does not know")


def time_of(microseconds: int) -> dt.datetime:
    """A time of the protocol."""
    return _EPOCH + dt.timedelta(microseconds=microseconds)


def lsn_text(lsn: int) -> str:
    """A position as PostgreSQL writes it: `16/B374D848`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_number(text: str) -> int:
    """A position as a number. Raises ValueError if it is none."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def _update(data: bytes) -> Update:
    oid, kind, at = _INT32.unpack_from(data, 1)[0], data[5:6], 6
    if kind == b"N":
        return Update(oid, None, _tuple(data, at)[0])
    old, at = _tuple(data, at)
    return Update(oid, old, _tuple(data, at + 1)[0])


def _tuple(data: bytes, at: int) -> tuple[Tuple, int]:
    """The values from a place on, and the place behind them."""
    count = _INT16.unpack_from(data, at)[0]
    at += 2
    values: Tuple = []
    for _ in range(count):
        kind = data[at]
        at += 1
        if kind == _TEXT:
            start = at + 4
            at = start + _INT32.unpack_from(data, at)[0]
            if at > len(data):
                raise ValueError
            values.append(data[start:at])
        elif kind == _NULL:
            values.append(None)
        elif kind == _UNCHANGED:
            values.append(UNCHANGED)
        else:
            raise DatabaseError("PostgreSQL", "the log has a value that is not text, though text was asked for")
    return values, at


def _relation(data: bytes) -> Relation:
    oid = _INT32.unpack_from(data, 1)[0]
    schema, at = _name(data, 5)
    name, at = _name(data, at)
    count = _INT16.unpack_from(data, at + 1)[0]  # after the replica identity's kind
    at += 3
    columns = []
    for _ in range(count):
        column, at = _name(data, at + 1)  # after the flags
        columns.append((column, _ATTRIBUTE.unpack_from(data, at)[0]))
        at += _ATTRIBUTE.size
    return Relation(oid, schema or "pg_catalog", name, tuple(columns))


def _name(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1
