"""Rows on the wire: whatever their lengths, and however they arrive, the columns hold what the server wrote."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melisma_tap_mysql import rowset
from melisma_tap_mysql.rowset import RowsetEnded, ServerFault, binary_columns, row_blocks

LARGEST = 0xFFFFFF
Row = list[bytes | None]


def packets(payload: bytes) -> bytes:
    """A payload as the protocol sends it."""
    parts = [payload[i : i + LARGEST] for i in range(0, len(payload) + 1, LARGEST)]
    return b"".join(len(part).to_bytes(3, "little") + b"\x07" + part for part in parts)


def value(item: bytes | None) -> bytes:
    """A value with its length, or the sign of null."""
    if item is None:
        return b"\xfb"
    size = len(item)
    if size < 251:
        return bytes([size]) + item
    mark, width = (0xFC, 2) if size < 1 << 16 else (0xFD, 3) if size < 1 << 24 else (0xFE, 8)
    return bytes([mark]) + size.to_bytes(width, "little") + item


def rowset_of(rows: list[Row], end: bytes = b"\xfe\x00\x00\x02\x00") -> bytes:
    """All rows and what ends them."""
    return b"".join(packets(b"".join(map(value, row))) for row in [*rows]) + packets(end)


def reader(data: bytes, sizes: list[int]) -> Callable[[int], bytes]:
    """Reads the data in pieces of these sizes, in turn."""
    place, turn = 0, 0

    def read(most: int) -> bytes:
        nonlocal place, turn
        size = min(most, sizes[turn % len(sizes)])
        turn += 1
        piece = data[place : place + size]
        place += size
        return piece

    return read


def read_all(data: bytes, count: int, sizes: list[int], size: int = 1 << 20, rows: int | None = None) -> list[Row]:
    """The rows, by way of the columns."""
    found: list[Row] = []
    for block, starts in row_blocks(reader(data, sizes), size, rows):
        columns = [column.to_pylist() for column in binary_columns(block, starts, count)]
        found += [list(row) for row in zip(*columns, strict=True)]
        assert rows is None or len(starts) <= rows
    return found


sized = st.one_of(st.integers(0, 20), st.sampled_from([249, 250, 251, 252, 253, 254, 255, 256, 65_535, 65_536]))
items = st.one_of(st.none(), st.tuples(sized, st.integers(0, 255)).map(lambda pair: bytes([pair[1]]) * pair[0]))


@settings(deadline=None, max_examples=150)
@given(
    rows=st.integers(1, 5).flatmap(lambda count: st.lists(st.lists(items, min_size=count, max_size=count))),
    sizes=st.lists(st.integers(1, 5_000), min_size=1),
    size=st.integers(1, 10_000),
    most=st.one_of(st.none(), st.integers(1, 4)),
)
def test_columns_are_what_was_written(rows: list[Row], sizes: list[int], size: int, most: int | None) -> None:
    """For values of any length and null, pieces and blocks of any size."""
    count = len(rows[0]) if rows else 1
    assert read_all(rowset_of(rows), count, sizes, size, most) == rows


@pytest.mark.parametrize("length", [LARGEST - 6, LARGEST - 5, LARGEST - 4, LARGEST, 2 * LARGEST + 3])
def test_a_row_of_several_packets_is_whole(length: int) -> None:
    """Just below, at and above the largest packet; rows before and after it come too."""
    rows: list[Row] = [[b"a", b"1"], [b"x" * length, None], [b"b", b"2"]]
    assert read_all(rowset_of(rows), 2, [1 << 18]) == rows


def test_a_long_row_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pieces it comes in: all of its bytes are copied when the last packet is there."""
    row: Row = [bytes(range(256)) * (60 << 12), b"end"]
    joined: list[int] = []
    join = rowset._joined

    def joining(data: bytearray, at: int, end: int) -> bytearray:
        joined.append(end - at)
        return join(data, at, end)

    monkeypatch.setattr(rowset, "_joined", joining)
    rows: list[Row] = [[b"a", b"1"], row, [b"b", None]]
    data = rowset_of(rows)
    assert read_all(data, 2, [64 << 10]) == rows
    assert len(joined) == 1
    assert joined[0] > len(row[0] or b"")


@pytest.mark.parametrize("cut", [1, 3, 6, 9])
def test_a_connection_that_ends_within_the_rows_is_told(cut: int) -> None:
    """However much of a packet there is."""
    data = rowset_of([[b"abc"]] * 3)
    with pytest.raises(RowsetEnded):
        read_all(data[:-cut], 1, [100])


def test_an_error_in_place_of_a_row_is_told() -> None:
    """With what the server sent."""
    fault = b"\xff\x25\x05#70100Query execution was interrupted"
    with pytest.raises(ServerFault) as raised:
        read_all(rowset_of([[b"abc"]], fault), 1, [100])
    assert raised.value.packet == fault
