"""Text files as blocks of whole records, each with its exact place in the file.

A place is a byte offset in the decompressed file, so that a run that died can go on where the last committed block
ended, and a file that grew is read from its old end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from melisma.errors import BadFile
from melisma.wire.extension import native_extension

__all__ = ["Block", "Place", "line_count", "newline_end", "read_blocks", "skip_to"]

BLOCK_BYTES = 4 << 20
LONGEST_RECORD = 128 << 20
"""A record that does not end within so many bytes is taken for a fault (a quote that is never closed)."""

_SKIP_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Between two records of a file.

    Attributes:
        offset: where the next record starts: bytes in a text file (decompressed), rows in others.
        line: lines before it; 0 for files without lines.
    """

    offset: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records: their bytes, and the places before and after them."""

    data: bytes
    start: Place
    end: Place


def read_blocks(
    file: BinaryIO, start: Place, record_end: Callable[[bytes, bool], int], where: str, block_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """Cut the rest of `file`, which stands at `start`, into blocks.

    Args:
        file: decompressed bytes.
        start: where the file stands.
        record_end: given bytes that start with a record, and whether the file ends with them: how many of them are
            whole records.
        where: the file's name, for messages.
        block_bytes: about how many bytes a block has; a longer record makes a longer block.

    Raises:
        BadFile: a record is longer than `LONGEST_RECORD`.
    """
    pending, wanted, place = b"", block_bytes, start
    while True:
        data = file.read(max(wanted - len(pending), 1))
        pending += data
        if not pending:
            return
        ended = not data
        cut = record_end(pending, ended)
        if ended and not cut:
            cut = len(pending)
        if cut:
            whole, pending = pending[:cut], pending[cut:]
            end = Place(place.offset + cut, place.line + line_count(whole))
            yield Block(whole, place, end)
            place, wanted = end, block_bytes
            continue
        if len(pending) >= LONGEST_RECORD:
            raise BadFile(
                f"a record does not end within {LONGEST_RECORD >> 20} MiB",
                file=where,
                line=place.line + 1,
                fix="Look for a quote that is never closed, or check the format and the quote setting",
            )
        wanted = max(wanted, len(pending)) * 2


def line_count(data: bytes) -> int:
    """Line ends in `data`: newlines, or carriage returns in a file that has no newline."""
    native = native_extension()
    if native is None:
        return data.count(b"\n") or data.count(b"\r")
    return cast(int, native.count(data, ord("\n")) or native.count(data, ord("\r")))


def newline_end(data: bytes, ended: bool) -> int:
    """`record_end` for files with one record on each line."""
    return len(data) if ended else data.rfind(b"\n") + 1


def skip_to(file: BinaryIO, offset: int, where: str) -> None:
    """Move a file that stands at its start to `offset`; compressed ones are read up to there.

    Raises:
        BadFile: the file is shorter.
    """
    if file.seekable():
        file.seek(offset)
        return
    left = offset
    while left:
        data = file.read(min(left, _SKIP_BYTES))
        if not data:
            raise BadFile("it is shorter than when it was read last", file=where, fix="Read it from its start again")
        left -= len(data)
