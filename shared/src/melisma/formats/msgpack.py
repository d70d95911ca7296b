"""MessagePack files: maps one after the other, or one array of maps."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgpack

from melisma.errors import BadFile

__all__ = ["MsgpackReader"]

_READ_BYTES = 1 << 20
_LONGEST_RECORD = 128 << 20
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class MsgpackReader:
    """Reads one MessagePack file.

    Values are Python's: `bytes` for binary, aware `datetime` for timestamps (text where Python's type cannot hold
    one), `int` up to 2^64 - 1, `float` for floats.

    Args:
        file: its decompressed bytes, at the start.
        where: its name, for messages.
        stream: the stream, for messages.
    """

    def __init__(self, file: BinaryIO, *, where: str, stream: str) -> None:
        self._file, self._where, self._stream = file, where, stream

    def row(self, number: int) -> int:
        """The record's number, counted from 1."""
        return number + 1

    def records(self, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The records from number `start` on, with their numbers from 0.

        Raises:
            BadFile: the file is damaged or cut off, or a value is not a map; it says at which byte and record.
        """
        unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=False,
            timestamp=0,
            object_pairs_hook=_object,
            ext_hook=_refuse_extension,
            max_buffer_size=_LONGEST_RECORD,
        )
        # Bytes handed over and bytes taken as whole records; `left` are members of the array that the file is, if so.
        fed, whole, number, left = 0, 0, 0, None
        ended = False
        while not ended:
            data = self._file.read(_READ_BYTES)
            ended = not data
            try:
                unpacker.feed(data)
                fed += len(data)
                if not whole and left is None and data and (data[0] & 0xF0 == 0x90 or data[0] in {0xDC, 0xDD}):
                    left = unpacker.read_array_header()
                    whole = unpacker.tell()
                while left != 0:
                    skipped = number < start
                    value = unpacker.skip() if skipped else unpacker.unpack()
                    whole, number = unpacker.tell(), number + 1
                    left = None if left is None else left - 1
                    if skipped:
                        continue
                    if not isinstance(value, dict):
                        raise self._bad("is not a map", number, whole)
                    yield number - 1, value
            except msgpack.OutOfData:
                continue
            except _Misfit as error:
                raise self._bad(str(error), number + 1, whole) from None
            except msgpack.BufferFull:
                raise self._bad(f"does not end within {_LONGEST_RECORD >> 20} MiB", number + 1, whole) from None
            except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
                raise self._bad("is not MessagePack", number + 1, whole) from None
            if left == 0 and (fed > whole or self._file.read(1)):
                raise self._bad("comes after the end of the array", number + 1, whole)
            if left == 0:
                return
        if left or fed > whole:
            raise self._bad("is cut off", number + 1, whole)

    def _bad(self, rule: str, number: int, offset: int) -> BadFile:
        return BadFile(
            f"record {number}, after byte {offset}, {rule}",
            stream=self._stream,
            file=self._where,
            fix="A MessagePack file has one map after the other, or one array of maps: write it again",
        )


class _Misfit(Exception):
    """Something that MessagePack has and a record has not."""


def _object(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if isinstance(key, int) and not isinstance(key, bool):
            key = str(key)
        if not isinstance(key, str):
            raise _Misfit("has a map key that is neither text nor an integer")
        if key in found:
            raise _Misfit("has a map with one key twice")
        found[key] = _value(value)
    return found


def _value(value: Any) -> Any:
    """A map's member; maps within it were seen already."""
    if isinstance(value, msgpack.Timestamp):
        return _moment(value)
    if isinstance(value, list):
        return [_value(each) for each in value]
    return value


def _moment(stamp: msgpack.Timestamp) -> Any:
    try:
        moment = _EPOCH + dt.timedelta(seconds=stamp.seconds, microseconds=stamp.nanoseconds // 1000)
    except OverflowError:
        raise _Misfit("has a time outside the years 1 to 9999") from None
    if stamp.nanoseconds % 1000:
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{stamp.nanoseconds:09}Z"
    return moment


def _refuse_extension(code: int, data: bytes) -> Any:
    del data
    raise _Misfit(f"has a value of the extension type {code}, which is not known")
