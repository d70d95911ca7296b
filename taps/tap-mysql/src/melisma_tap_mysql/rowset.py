"""The rows of a query as they come over the wire, taken apart column by column.

The text protocol sends each row as one packet: a header of four bytes (the payload's length in three, a number in one),
then each value as a length and its bytes; the byte 251 stands for null. A row of 2^24 - 1 bytes and more comes in
several packets. The driver would make a Python object of every value. Here a block of rows is looked through once for
where its packets begin; then the lengths of a whole column are read at once, so the work is one pass of numpy for each
column, and Arrow gathers the bytes.

Source: https://mariadb.com/kb/en/result-set-packets/, https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["RowsetEnded", "ServerFault", "binary_columns", "row_blocks"]

_READ = 1 << 18
_HEADER = 4
_LONGEST = 0xFFFFFF  # of a packet; what is longer goes on in the next
_NULL, _TWO, _THREE, _EIGHT = 0xFB, 0xFC, 0xFD, 0xFE
_END, _FAULT = 0xFE, 0xFF
_SHORT = 9  # a packet that begins with _END and is shorter than this is no row


class ServerFault(Exception):
    """The server sent an error in place of a row.

    Attributes:
        packet: its payload.
    """

    def __init__(self, packet: bytes) -> None:
        super().__init__()
        self.packet = packet


class RowsetEnded(Exception):
    """The connection ended before the rows did."""


def row_blocks(
    read: Callable[[int], bytes], size: int = 2 << 20, rows: int | None = None
) -> Iterator[tuple[bytearray, list[int]]]:
    """The rows of a result in blocks: the bytes, and where in them each row's payload begins.

    Args:
        read: gives at least one and at most so many of the next bytes; none at the connection's end.
        size: about how many bytes a block holds; a single row may be larger.
        rows: the most rows in a block.

    Raises:
        ServerFault: the server broke off.
        RowsetEnded: the connection dropped.
    """
    data, at, starts = bytearray(), 0, list[int]()
    seen = 0  # where the first packet that is not whole begins, of a row of several
    most = rows or size
    while True:
        have = len(data)
        while at + _HEADER <= have:
            length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            begin = at + _HEADER
            end = begin + length
            if end > have:
                break
            if length == _LONGEST:
                seen, whole = _last_packet(data, max(at, seen))
                if not whole:
                    break
                row, end = _joined(data, at, seen), seen
                if starts:
                    yield data, starts
                yield row, [0]
                data, at, starts, seen = data[end:], 0, [], 0
                have = len(data)
                continue
            first = data[begin]
            if first >= _END:
                if first == _FAULT:
                    raise ServerFault(bytes(data[begin:end]))
                if length < _SHORT:
                    if starts:
                        yield data, starts
                    return
            starts.append(begin)
            at = end
            if len(starts) == most:
                break
        if starts and (at >= size or len(starts) == most):
            yield data, starts
            data, at, starts, seen = data[at:], 0, [], 0
            continue
        more = read(_READ)
        if not more:
            raise RowsetEnded
        data += more


def binary_columns(data: bytearray, starts: Sequence[int], count: int) -> list[pa.Array]:
    """The values of each of `count` columns, as the server wrote them."""
    number = len(starts)
    octets = np.frombuffer(data, np.uint8)
    at = np.array(starts, np.int64)
    # All values of all rows are items of one binary array over the block; between two of them lies an item that is
    # a length. So nothing is copied before `take` gathers a column.
    edges = np.empty((number, 2 * count), np.int32)
    absent: list[npt.NDArray[np.bool_] | None] = []
    for column in range(count):
        lengths = octets[at].astype(np.int64)
        at += 1
        absent.append(None)
        if lengths.max() >= _NULL:
            null = lengths == _NULL
            if null.any():
                absent[column] = null
                lengths[null] = 0
            for mark, width in ((_TWO, 2), (_THREE, 3), (_EIGHT, 8)):
                rows = np.flatnonzero(lengths == mark)
                if len(rows):
                    places = at[rows]
                    total = np.zeros(len(rows), np.int64)
                    for octet in range(width):
                        total |= octets[places + octet].astype(np.int64) << (8 * octet)
                    # Minus, so that a length of 252 bytes is not taken for a mark.
                    lengths[rows] = -1 - total
                    at[rows] += width
            long = lengths < 0
            if long.any():
                lengths[long] = -1 - lengths[long]
        edges[:, 2 * column] = at
        at += lengths
        edges[:, 2 * column + 1] = at
    offsets = np.append(edges.reshape(-1), np.int32(len(data)))
    items = pa.Array.from_buffers(
        pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(memoryview(data))]
    )
    first = np.arange(number, dtype=np.int64) * (2 * count)
    return [items.take(pa.array(first + 2 * column, mask=absent[column])) for column in range(count)]


def _last_packet(data: bytearray, at: int) -> tuple[int, bool]:
    """Walk along a row's packets: where the walk ends, and whether that is behind the row's last packet."""
    while at + _HEADER <= len(data):
        length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
        end = at + _HEADER + length
        if end > len(data):
            break
        at = end
        if length < _LONGEST:
            return at, True
    return at, False


def _joined(data: bytearray, at: int, end: int) -> bytearray:
    """A row of several packets, all of them there, as one payload."""
    step = _HEADER + _LONGEST
    with memoryview(data) as view:
        return bytearray().join([view[begin + _HEADER : min(begin + step, end)] for begin in range(at, end, step)])
