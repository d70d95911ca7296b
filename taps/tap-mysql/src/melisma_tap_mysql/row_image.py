"""Rows as the binary log has them, read to the texts that a query would give.

The log has a table map (the columns' types, names and a few facts) before the rows, and for each row a bitmap of nulls
and the values one after the other, each in its type's format of storage.

Source: https://mariadb.com/kb/en/rows_event_v1v2-rows_compressed_event_v1/,
https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Table__map__event.html
"""

from __future__ import annotations

import datetime as dt
import re
import socket
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from melisma_tap_mysql.charsets import CharacterSets, is_same
from melisma_tap_mysql.typemap import Column, Kind, MyType

__all__ = ["ImageReader", "UnreadableColumn"]

Reading = Callable[[bytes, int], tuple[bytes, int]]
"""Gives the value that begins at a place, as text, and the place after it."""

_TINY, _SHORT, _LONG, _FLOAT, _DOUBLE, _LONGLONG, _INT24, _DATE, _YEAR = 1, 2, 3, 4, 5, 8, 9, 10, 13
_VARCHAR, _BIT, _TIMESTAMP2, _DATETIME2, _TIME2 = 15, 16, 17, 18, 19
_DECIMAL, _ENUM, _SET, _BLOB, _VAR_STRING, _STRING, _GEOMETRY = 246, 247, 248, 252, 253, 254, 255
_INTEGERS = {_TINY: 1, _SHORT: 2, _INT24: 3, _LONG: 4, _LONGLONG: 8}
_TYPES: dict[str, set[int]] = {
    "tinyint": {_TINY},
    "smallint": {_SHORT},
    "mediumint": {_INT24},
    "int": {_LONG},
    "bigint": {_LONGLONG},
    "float": {_FLOAT},
    "double": {_DOUBLE},
    "decimal": {_DECIMAL},
    "bit": {_BIT},
    "year": {_YEAR},
    "date": {_DATE},
    "time": {_TIME2},
    "datetime": {_DATETIME2},
    "timestamp": {_TIMESTAMP2},
    "enum": {_ENUM},
    "set": {_SET},
    "char": {_STRING},
    "binary": {_STRING},
    "uuid": {_STRING},
    "inet4": {_STRING},
    "inet6": {_STRING},
    "varchar": {_VARCHAR, _VAR_STRING},
    "varbinary": {_VARCHAR, _VAR_STRING},
    **{f"{size}{kind}": {_BLOB} for size in ("tiny", "", "medium", "long") for kind in ("text", "blob")},
}
"""By the name in information_schema: what stands for the type in the log. Others are geometries, or cannot be read."""
_SHAPES = {"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"}
_SHAPES |= {"geometrycollection", "geomcollection"}
_EPOCH = dt.datetime(1970, 1, 1)
_ESCAPED = re.compile(r"''|\\.")  # in information_schema's column_type, whatever sql_mode says
_DIGITS = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)  # bytes for so many decimal digits


class UnreadableColumn(Exception):
    """A column of the log is not what the table has now, or of a type that the log cannot be read for.

    Attributes:
        column: its name.
        rule: why.
    """

    def __init__(self, column: str, rule: str) -> None:
        super().__init__()
        self.column, self.rule = column, rule


class ImageReader:
    """Reads the rows of one table map.

    Args:
        mapped: the columns of the table map, as the library has them.
        columns: those to read, by name; others are passed over.
        sets: makes UTF-8 of texts.
    """

    def __init__(self, mapped: Sequence[Any], columns: Mapping[str, Column], sets: CharacterSets) -> None:
        self._readings: list[tuple[str | None, Reading]] = []
        for each in mapped:
            wanted = columns.get(each.name)
            if wanted is None:
                self._readings.append((None, _passing(each)))
            else:
                self._readings.append((each.name, _reading(each, wanted, sets)))

    def lacking(self, present: bytes, names: Collection[str] | None = None) -> str | None:
        """The first of the columns (by default of all that are read) that does not stand in rows with this bitmap."""
        for index, (name, _) in enumerate(self._readings):
            if name is not None and (names is None or name in names) and not present[index >> 3] & (1 << (index & 7)):
                return name
        return None

    def row(self, data: bytes, at: int, present: bytes) -> tuple[dict[str, bytes | None], int]:
        """The row that begins at a place: its columns that are read, and the place after it.

        Args:
            data: the event's rows.
            at: the place.
            present: the bitmap of the columns that stand in the row.
        """
        there = [i for i in range(len(self._readings)) if present[i >> 3] & (1 << (i & 7))]
        nulls = at
        at += (len(there) + 7) >> 3
        values: dict[str, bytes | None] = {}
        for place, index in enumerate(there):
            name, read = self._readings[index]
            if data[nulls + (place >> 3)] & (1 << (place & 7)):
                if name is not None:
                    values[name] = None
                continue
            value, at = read(data, at)
            if name is not None:
                values[name] = value
        return values, at


def _reading(mapped: Any, column: Column, sets: CharacterSets) -> Reading:
    """How a column is read to the text of `column.sql`."""
    name, kind = mapped.name, column.type
    codes = {_GEOMETRY, _BLOB} if kind.name in _SHAPES else _TYPES.get(kind.name)
    if codes is None:
        raise UnreadableColumn(name, f"is of the type {kind.name}, which is not read from the log")
    if mapped.type not in codes:
        raise UnreadableColumn(name, "had another type when the log was written than it has now")
    as_text = column.kind is Kind.TEXT
    if mapped.type in _INTEGERS:
        signed = "unsigned" not in kind.sql
        if mapped.unsigned is signed:
            was = "no sign" if mapped.unsigned else "a sign"
            raise UnreadableColumn(name, f"had {was} when the log was written, unlike now")
        return _integer(_INTEGERS[mapped.type], signed=signed)
    if mapped.type in {_FLOAT, _DOUBLE}:
        if as_text:
            raise UnreadableColumn(name, "is a float that the catalog wants as text, which is not read from the log")
        return _real("<f" if mapped.type == _FLOAT else "<d")
    if mapped.type == _DECIMAL:
        return _decimal(mapped.precision, mapped.decimals, padded="zerofill" in kind.sql)
    if mapped.type == _BIT:
        return _bit(mapped.bytes)
    if mapped.type == _YEAR:
        return _year
    if mapped.type in {_DATE, _TIME2, _DATETIME2, _TIMESTAMP2}:
        return _time(mapped)
    if mapped.type in {_ENUM, _SET}:
        return _label(mapped, kind)
    return _text(mapped, column, sets)


def _text(mapped: Any, column: Column, sets: CharacterSets) -> Reading:
    read, kind = _octets(mapped), column.type
    if mapped.type != _GEOMETRY:
        then, now = sets.of_collation(mapped.charset_id), kind.charset or "binary"
        if not is_same(then, now):
            rule = f"had the character set {then or 'of an unknown number'} when the log was written, and has {now} now"
            raise UnreadableColumn(mapped.name, rule)
    if kind.name in {"uuid", "inet4", "inet6"}:
        size = 4 if kind.name == "inet4" else 16
        write = {"uuid": _uuid, "inet4": socket.inet_ntoa, "inet6": _inet6}[kind.name]
        return _through(read, lambda value: str(write(value.ljust(size, b"\0"))).encode())
    if kind.name == "binary":
        size = int(re.sub(r"\D", "", kind.sql) or 1)
        padded = _through(read, lambda value: value.ljust(size, b"\0"))
        return _through(padded, lambda value: value.hex().upper().encode()) if column.kind is Kind.TEXT else padded
    if column.node.get("contentEncoding") or kind.name in _SHAPES:
        return read
    if kind.name.endswith(("blob", "binary")):
        return _through(read, lambda value: value.hex().upper().encode())
    return _through(read, sets.reader(kind.charset))


def _passing(mapped: Any) -> Reading:
    """How a column that nobody wants is passed over."""
    code = mapped.type
    if code in _INTEGERS:
        return _skip(_INTEGERS[code])
    if code in {_FLOAT, _DOUBLE}:
        return _skip(4 if code == _FLOAT else 8)
    if code == _DECIMAL:
        whole, part = mapped.precision - mapped.decimals, mapped.decimals
        return _skip(whole // 9 * 4 + _DIGITS[whole % 9] + part // 9 * 4 + _DIGITS[part % 9])
    if code == _BIT:
        return _skip(mapped.bytes)
    if code == _YEAR:
        return _skip(1)
    if code == _DATE:
        return _skip(3)
    if code in {_TIME2, _DATETIME2, _TIMESTAMP2}:
        return _skip({_TIME2: 3, _DATETIME2: 5, _TIMESTAMP2: 4}[code] + (mapped.fsp + 1) // 2)
    if code in {_ENUM, _SET}:
        return _skip(mapped.size)
    if code in {_VARCHAR, _VAR_STRING, _STRING, _BLOB, _GEOMETRY} or hasattr(mapped, "length_size"):
        return _octets(mapped)
    raise UnreadableColumn(mapped.name or "?", "is of a type that cannot be passed over in the log")


def _skip(size: int) -> Reading:
    return lambda _, at: (b"", at + size)


def _through(read: Reading, change: Callable[[bytes], bytes]) -> Reading:
    def reading(data: bytes, at: int) -> tuple[bytes, int]:
        value, at = read(data, at)
        return change(value), at

    return reading


def _octets(mapped: Any) -> Reading:
    if mapped.type in {_BLOB, _GEOMETRY} or hasattr(mapped, "length_size"):
        width = mapped.length_size
    else:
        width = 1 if mapped.max_length < 256 else 2

    def reading(data: bytes, at: int) -> tuple[bytes, int]:
        begin = at + width
        end = begin + int.from_bytes(data[at:begin], "little")
        return data[begin:end], end

    return reading


def _integer(size: int, *, signed: bool) -> Reading:
    def reading(data: bytes, at: int) -> tuple[bytes, int]:
        number = int.from_bytes(data[at : at + size], "little", signed=signed)
        return b"%d" % number, at + size

    return reading


def _real(form: str) -> Reading:
    size = struct.calcsize(form)

    def reading(data: bytes, at: int) -> tuple[bytes, int]:
        [number] = struct.unpack_from(form, data, at)
        return repr(number).encode(), at + size

    return reading


def _bit(size: int) -> Reading:
    return lambda data, at: (b"%d" % int.from_bytes(data[at : at + size], "big"), at + size)


def _year(data: bytes, at: int) -> tuple[bytes, int]:
    return b"%04d" % (1900 + data[at] if data[at] else 0), at + 1


def _decimal(precision: int, scale: int, *, padded: bool) -> Reading:
    """Nine digits in four bytes, from the point outwards; what is left over in as few as hold it; negative inverted."""
    whole = precision - scale
    parts = [(whole % 9, _DIGITS[whole % 9])] if whole % 9 else []
    parts += [(9, 4)] * (whole // 9)
    before = len(parts)
    parts += [(9, 4)] * (scale // 9)
    parts += [(scale % 9, _DIGITS[scale % 9])] if scale % 9 else []
    size = sum(width for _, width in parts)

    def reading(data: bytes, at: int) -> tuple[bytes, int]:
        stored = bytearray(data[at : at + size])
        positive = stored[0] & 0x80
        stored[0] ^= 0x80
        if not positive:
            stored = bytearray(octet ^ 0xFF for octet in stored)
        place, digits = 0, []
        for count, width in parts:
            digits.append(f"{int.from_bytes(stored[place : place + width], 'big'):0{count}d}")
            place += width
        front = "".join(digits[:before])
        front = front if padded else front.lstrip("0") or "0"
        back = f".{''.join(digits[before:])}" if scale else ""
        return f"{'' if positive else '-'}{front}{back}".encode(), at + size

    return reading


def _time(mapped: Any) -> Reading:
    if mapped.type == _DATE:
        return _date
    fsp = mapped.fsp
    extra = (fsp + 1) // 2
    size = {_TIME2: 3, _DATETIME2: 5, _TIMESTAMP2: 4}[mapped.type] + extra
    write = {_TIME2: _clock, _DATETIME2: _moment, _TIMESTAMP2: _since_1970}[mapped.type]

    def reading(data: bytes, at: int) -> tuple[bytes, int]:
        text, fraction = write(int.from_bytes(data[at : at + size], "big"), 8 * extra)
        if fsp:
            text += f".{fraction:0{2 * extra}d}"[: fsp + 1]
        return text.encode(), at + size

    return reading


def _date(data: bytes, at: int) -> tuple[bytes, int]:
    packed = int.from_bytes(data[at : at + 3], "little")
    return b"%04d-%02d-%02d" % (packed >> 9, packed >> 5 & 15, packed & 31), at + 3


def _clock(packed: int, bits: int) -> tuple[str, int]:
    packed -= 0x800000 << bits
    sign = "-" if packed < 0 else ""
    packed = abs(packed)
    seconds = packed >> bits
    return f"{sign}{seconds >> 12 & 1023:02d}:{seconds >> 6 & 63:02d}:{seconds & 63:02d}", packed & ((1 << bits) - 1)


def _moment(packed: int, bits: int) -> tuple[str, int]:
    seconds, fraction = (packed >> bits) - 0x8000000000, packed & ((1 << bits) - 1)
    day, clock = seconds >> 17, seconds & 0x1FFFF
    year, month = divmod(day >> 5, 13)
    date = f"{year:04d}-{month:02d}-{day & 31:02d}"
    return f"{date} {clock >> 12:02d}:{clock >> 6 & 63:02d}:{clock & 63:02d}", fraction


def _since_1970(packed: int, bits: int) -> tuple[str, int]:
    seconds, fraction = packed >> bits, packed & ((1 << bits) - 1)
    if not seconds and not fraction:
        return "0000-00-00 00:00:00", 0
    days, seconds = divmod(seconds, 86_400)
    year, month, day = _civil(days)
    return (
        f"{year:04d}-{month:02d}-{day:02d} {seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}",
        fraction,
    )


def _civil(days: int) -> tuple[int, int, int]:
    import datetime as dt

    date = dt.date(1970, 1, 1) + dt.timedelta(days)
    return date.year, date.month, date.day


def _unescaped(found: re.Match[str]) -> str:
    return {"''": "'", "\\0": "\0", "\\n": "\n", "\\r": "\r"}.get(found[0], found[0][-1])


def _label(mapped: Any, kind: MyType) -> Reading:
    labels = [_ESCAPED.sub(_unescaped, part).encode() for part in re.findall(r"'((?:[^']|'')*)'", kind.sql)]
    then = mapped.enum_values[1:] if mapped.type == _ENUM else mapped.set_values
    if [label.decode() for label in labels[: len(then)]] != list(then) and all(then):
        raise UnreadableColumn(mapped.name, "had other values to choose from when the log was written")
    size = mapped.size

    def enum(data: bytes, at: int) -> tuple[bytes, int]:
        number = int.from_bytes(data[at : at + size], "little")
        return labels[number - 1] if number else b"", at + size

    def several(data: bytes, at: int) -> tuple[bytes, int]:
        bits = int.from_bytes(data[at : at + size], "little")
        return b",".join(label for place, label in enumerate(labels) if bits >> place & 1), at + size

    return enum if mapped.type == _ENUM else several


def _uuid(stored: bytes) -> str:
    """MariaDB stores most versions with their parts in reverse, so that those of one time lie together."""
    if stored[6] & 0x80 and 0 < stored[8] < 0x60:
        stored = stored[12:] + stored[10:12] + stored[8:10] + stored[6:8] + stored[:6]
    text = stored.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _inet6(stored: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6, stored)
