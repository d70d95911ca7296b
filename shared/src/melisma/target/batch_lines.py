"""Lines of JSON that stand for RECORD messages, made into them: what is known of RECORD lines then holds for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import msgspec
import pyarrow as pa

from melisma.arrow.values import Misfit, timestamp_us
from melisma.errors import BadFile
from melisma.formats.blocks import Block, Place, newline_end, read_blocks
from melisma.wire.framing import Run
from melisma.wire.messages import UNREADABLE, unreadable

__all__ = ["Wrapping", "read_runs"]

_UTC = pa.timestamp("us", "UTC")
_BLOCK_BYTES = 1 << 20
_raw = msgspec.json.Decoder(msgspec.Raw)


class Wrapping:
    """What is around the records of a BATCH message.

    Args:
        stream: the stream's name.
        time_extracted: as text.
        version: of the records.
    """

    def __init__(self, stream: str, time_extracted: str | None = None, version: int | None = None) -> None:
        self.stream, self.version = stream, version
        try:
            self._extracted = None if time_extracted is None else timestamp_us(time_extracted)
        except Misfit:  # it is not the user's data
            time_extracted = self._extracted = None
        self._head = b'{"type":"RECORD","stream":%s,"record":' % json.dumps(stream).encode()
        tail = b"" if version is None else b',"version":%d' % version
        if time_extracted is not None:
            tail += b',"time_extracted":%s' % json.dumps(time_extracted).encode()
        self._tail = tail + b"}\n"

    def run(self, data: bytes, lines: Sequence[int]) -> Run:
        """Objects, each on a line of its own, as RECORD lines."""
        if not data:
            return Run(self.stream, b"", [], closed=True)
        wrapped = self._head + data[:-1].replace(b"\n", self._tail + self._head) + self._tail
        return Run(self.stream, wrapped, lines, closed=True)

    def columns(self, rows: int) -> tuple[pa.Array, pa.Array]:
        """`time_extracted` and `version` of so many records."""
        extracted = pa.nulls(rows, _UTC)
        if self._extracted is not None:
            extracted = pa.repeat(pa.scalar(self._extracted, _UTC), rows)
        versions = pa.repeat(pa.scalar(self.version, pa.int64()), rows)
        return extracted, versions


def read_runs(file: BinaryIO, wrapping: Wrapping, most_bytes: int, name: str) -> Iterator[Run | None]:
    """The records of a JSON Lines file, block by block; None instead when there are more than `most_bytes` of them.

    Raises:
        BadFile: a line is not a JSON object.
    """
    for block in read_blocks(file, Place(), newline_end, name, _BLOCK_BYTES):
        if block.end.offset > most_bytes:
            yield None
            return
        run = _run(block, wrapping, name)
        if run.lines:
            yield run


def _run(block: Block, wrapping: Wrapping, name: str) -> Run:
    data, first = block.data, block.start.line + 1
    if not block.start.offset:
        data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.endswith(b"\n"):
        data += b"\n"
    count = data.count(b"\n")
    # Each newline stands between the end of an object and the start of the next, so no value goes over one.
    if (
        data[:1] == b"{"
        and data.count(b"}\n") == count
        and data.count(b"\n{") == count - 1
        and _each_is_json(data, count)
    ):
        return wrapping.run(data, range(first, first + count))
    kept, numbers = [], []
    for number, raw in enumerate(data.split(b"\n"), first):
        line = raw.strip(b" \t\r")
        if line:
            _check(line, number, name)
            kept.append(line)
            numbers.append(number)
    return wrapping.run(b"".join(line + b"\n" for line in kept), numbers)


def _each_is_json(data: bytes, count: int) -> bool:
    try:
        return len(_raw.decode_lines(data)) == count
    except UNREADABLE:
        return False


def _check(line: bytes, number: int, name: str) -> None:
    """Each line is one object by itself: otherwise it could say something about the message that it is put into."""
    fix = "Mend the tap"
    try:
        _raw.decode(line)
    except UNREADABLE as error:
        raise BadFile(unreadable(error, line, number).rule, file=name, line=number, fix=fix) from error
    if not line.startswith(b"{"):
        raise BadFile("is not a JSON object", file=name, line=number, fix=fix)
