"""Cutting a block of lines into runs of RECORD lines, stream by stream, and single other messages.

No line is looked at by itself where that can be helped: the beginning of a RECORD line, up to the key `"record"`, is
the same for every record of a stream, so counting how often it stands after a newline tells whether a whole block is
one run. That costs a scan at memory speed; looking at each line costs more than decoding it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from melisma.errors import BadMessage
from melisma.wire.extension import native_extension
from melisma.wire.messages import Message, envelope

__all__ = ["Framer", "NativeFramer", "Run", "framer", "split_lines"]

# A beginning that says no more than the type, the stream and the version: what follows is the record.
_BEGINNING = re.compile(rb'\{(?:\s*"(?:type|stream|version)"\s*:\s*(?:"[^"\\]*"|\d+)\s*,)+\s*"record"')
_FEW = 64  # one line in so many may differ before lines are looked at one by one
_MOST_BEGINNINGS = 20_000
_MOST_OTHERS = 4
_OTHER_BYTES = 16  # {"type": "STATE"


@dataclass(slots=True)
class Run:
    """RECORD lines of one stream, in order.

    Attributes:
        stream: the stream's name.
        data: the lines, each ended by one newline.
        lines: their numbers in the input, counted from 1.
        closed: every line is known to begin with "{" and to end with "}".
        versioned: whether the key "version" may stand in some of them.
    """

    stream: str
    data: bytes
    lines: Sequence[int]
    closed: bool = False
    versioned: bool = True


def split_lines(data: bytes) -> list[bytes]:
    """Lines with their newlines. A carriage return may stand between two parts of a line's JSON: it ends no line."""
    return io.BytesIO(data).readlines()


class Framer:
    """Cuts blocks; remembers how each stream's RECORD lines begin. `line` counts the lines seen."""

    def __init__(self) -> None:
        self.line = 0
        self._streams: dict[bytes, str] = {}
        self._latest = b""
        self._others: set[bytes] = set()  # how lines that are not RECORDs have begun
        self._versioned = True
        self._apart = True

    def cut(self, block: bytes, *, states_apart: bool = True) -> Iterator[Run | Message]:
        """Yield the block's runs and other messages.

        Records of different streams may change places between two other messages; the records of one stream, and
        everything around a message that is not a RECORD, keep their order.

        Args:
            block: whole lines, each ended by a newline.
            states_apart: False if records may change places with STATE messages, too: a stream's records come in
                fewer runs then. Those after a STATE may be yielded before it; those before it never come after it.
                Lines with a version are kept apart from STATEs all the same.

        Raises:
            BadMessage: a line is not a Singer message.
        """
        if self.line == 0 and block.startswith(b"\xef\xbb\xbf"):
            block = block[3:]
        self._versioned = self._names_a_version(block)
        self._apart = states_apart or self._versioned
        yield from self._cut(block)

    def _names_a_version(self, block: bytes) -> bool:
        return b'"version"' in block

    def _cut(self, block: bytes) -> Iterator[Run | Message]:
        count = block.count(b"\n")
        first = self.line + 1
        begin = self._latest
        if begin and count:
            # One scan tells that each line ends as an object does and that the next begins as this stream's do.
            others = count - block.count(b"}\n" + begin) - (block.startswith(begin) and block.endswith(b"}\n"))
            if others == 0:
                self.line += count
                yield Run(self._streams[begin], block, range(first, first + count), True, self._versioned)
                return
            if others <= count // _FEW:
                yield from self._between(block, begin, others)
                return
        yield from self._line_by_line(block.split(b"\n"), first)

    def _between(self, block: bytes, begin: bytes, others: int) -> Iterator[Run | Message]:
        """A block of one stream with a few other lines in it."""
        starts = self._known_others(block)
        known = len(starts) == others  # then each other line before the next begin closes as well
        if not known:
            starts = _differing(block, begin)
        position = 0
        for start in [*starts, len(block)]:
            if start > position:
                yield self._run(block[position:start], begin, known)
            if start < len(block):
                end = block.index(b"\n", start) + 1
                yield from self._line_by_line([block[start : end - 1]], self.line + 1)
                self.line += 1
                position = end

    def _known_others(self, block: bytes) -> list[int]:
        """Where lines start that begin as other messages before have; a search for what is expected is cheap."""
        starts = [0] if block.startswith(tuple(self._others)) else []
        for other in self._others:
            marked, at = b"\n" + other, -1
            while (at := block.find(marked, at + 1)) >= 0:
                starts.append(at + 1)
        return sorted(starts)

    def _run(self, data: bytes, begin: bytes, known: bool) -> Run:
        count = data.count(b"\n")
        first = self.line + 1
        self.line += count
        closed = data.endswith(b"}\n") and (known or data.count(b"}\n" + begin) == count - 1)
        return Run(self._streams[begin], data, range(first, first + count), closed, self._versioned)

    def _line_by_line(self, lines: list[bytes], first: int) -> Iterator[Run | Message]:
        single = len(lines) == 1
        streams = self._streams
        grouped: dict[str, tuple[list[bytes], list[int]]] = {}
        states: list[Message] = []
        number = first - 1
        for raw in lines:
            number += 1
            begin = raw[: raw.find(b'"record"', 0, 512) + 8]
            stream = streams.get(begin)
            if stream is None or raw[-1:] != b"}":
                line = raw.strip(b" \t\r")
                if not line:
                    continue
                try:
                    found = envelope(line, number)
                except BadMessage:
                    yield from self._runs(grouped)  # what came before it: a fault in that is the first
                    yield from states
                    raise
                if found.type != "RECORD":
                    if len(self._others) < _MOST_OTHERS:
                        self._others.add(line[:_OTHER_BYTES])
                    states.append(Message(found.type, line, number))
                    if self._apart or found.type != "STATE":
                        yield from self._runs(grouped)
                        yield from states
                        grouped.clear()
                        states.clear()
                    continue
                stream = str(found.stream)
                self._learn(line, stream)
                raw = line
            else:
                self._latest = begin
            group = grouped.get(stream)
            if group is None:
                grouped[stream] = ([raw], [number])
            else:
                group[0].append(raw)
                group[1].append(number)
        yield from self._runs(grouped)
        yield from states
        if not single:
            self.line = number - (lines[-1] == b"")

    def _learn(self, line: bytes, stream: str) -> None:
        beginning = _beginning(line)
        if beginning is not None:
            if len(self._streams) >= _MOST_BEGINNINGS:
                self._streams.clear()
            self._latest = beginning
            self._streams[beginning] = stream

    def _runs(self, grouped: dict[str, tuple[list[bytes], list[int]]]) -> Iterator[Run]:
        for stream, (lines, numbers) in grouped.items():
            closed = all(line[:1] == b"{" and line[-1:] == b"}" for line in lines)
            lines.append(b"")
            yield Run(stream, b"\n".join(lines), numbers, closed, self._versioned)


class NativeFramer(Framer):
    """The same by `melisma-native`: one scan, whatever order the streams' lines come in.

    Args:
        extension: the module `melisma_native`.
    """

    def __init__(self, extension: Any) -> None:
        super().__init__()
        self._native, self._contains = extension.Framer(), extension.contains
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._beginnings = 0

    def _names_a_version(self, block: bytes) -> bool:
        return bool(self._contains(block, b'"version"'))

    def _cut(self, block: bytes) -> Iterator[Run | Message]:
        if not block:
            return
        self._native.clear()  # an earlier block may not have been cut to its end
        states: list[Message] = []
        at, number = 0, self.line + 1
        while True:
            at, number = self._native.scan(block, at, number)
            self.line = number - 1
            if at == len(block):
                break
            end = block.index(b"\n", at)
            line = block[at:end].strip(b" \t\r")
            if line:
                try:
                    found = envelope(line, number)
                except BadMessage:
                    yield from self._taken(block)
                    yield from states
                    raise
                if found.type == "RECORD":
                    start = block.index(line, at)
                    closed = line[:1] == b"{" and line[-1:] == b"}"
                    self._native.add(self._number(str(found.stream), line), start, start + len(line), number, closed)
                else:
                    states.append(Message(found.type, line, number))
                    if self._apart or found.type != "STATE":
                        yield from self._taken(block)
                        yield from states
                        states.clear()
            at, number = end + 1, number + 1
        yield from self._taken(block)
        yield from states

    def _number(self, stream: str, line: bytes) -> int:
        number = self._numbers.setdefault(stream, len(self._names))
        if number == len(self._names):
            self._names.append(stream)
        beginning = _beginning(line)
        if beginning is not None:
            if self._beginnings >= _MOST_BEGINNINGS:
                self._native.forget()
                self._beginnings = 0
            self._native.learn(beginning, number)
            self._beginnings += 1
        return number

    def _taken(self, block: bytes) -> Iterator[Run]:
        for number, data, first, numbers, count, closed in self._native.take(block):
            lines = range(first, first + count) if numbers is None else memoryview(numbers).cast("Q")
            yield Run(self._names[number], data, lines, closed, self._versioned)


def framer() -> Framer:
    """The framer for an input: the native one where it is installed."""
    extension = native_extension()
    return Framer() if extension is None else NativeFramer(extension)


def _beginning(line: bytes) -> bytes | None:
    """How a RECORD line begins, up to the key of its record, if that tells its type and stream and no more."""
    match = _BEGINNING.match(line)
    return match[0] if match and b'"type"' in match[0] and b'"stream"' in match[0] else None


def _differing(block: bytes, begin: bytes) -> list[int]:
    """Where the lines start that do not begin with `begin`, in order; found by counting in halves."""
    marked = b"\n" + begin
    found: list[int] = []
    todo = [(0, len(block))]  # ranges that start at a line's start and end after a newline
    while todo:
        low, high = todo.pop()
        if low >= high:
            continue
        begins = block.count(marked, low, high) + block.startswith(begin, low)
        if begins == block.count(b"\n", low, high):
            continue
        middle = block.rfind(b"\n", low, (low + high) // 2) + 1
        if middle <= low:
            middle = block.find(b"\n", low, high) + 1
        if middle >= high:  # a single line
            found.append(low)
            continue
        todo.append((middle, high))
        todo.append((low, middle))
    return found
