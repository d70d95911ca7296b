"""JSON documents as records: the objects of one array, which may lie within objects, read as a stream.

The array's elements are cut out, each is brought onto a line of its own, and the lines go the way of a JSON Lines file.
A place is a byte in the document, after an element; its "line" is the element's number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from melisma.errors import BadFile
from melisma.formats.blocks import BLOCK_BYTES, LONGEST_RECORD, Block, Place, skip_to
from melisma.formats.jsonl import JsonlReader

__all__ = ["JsonDocumentReader"]

_BLANKS = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_READ_BYTES = 1 << 20
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]|[^ \t\r\n{}\[\],:"]++', re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n]*+")
_INSIDE = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]|"', re.DOTALL)
_MEND = "Mend the record; or set column_types for the column, or infer_rows to 0, and discover again"
_FIX = "Fetch or write the file again, or set json.records_path"


class JsonDocumentReader(JsonlReader):
    """Reads one JSON document.

    Args:
        file: its decompressed bytes, at the start.
        path: the names that lead to the array of records; none where the document is that array.
        where: the file's name, for messages.
        stream: the stream, for messages.
    """

    def __init__(self, file: BinaryIO, path: tuple[str, ...], *, where: str, stream: str) -> None:
        super().__init__(file, where=where, stream=stream)
        self._path = path

    def blocks(self, start: Place, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
        """The elements from `start` on as lines."""
        source = _Source(self._file, self.where, self._stream)
        if start > Place():
            source.skip(start.offset)
        else:
            self._enter(source)
        yield from self._elements(source, start, block_bytes)

    def _fault(self, rule: str, line: int | None, column: str | None, fix: str) -> BadFile:
        del fix  # it speaks of lines
        where = f"record {line}: {rule}"
        return BadFile(where, stream=self._stream, file=self.where, column=column, fix=_MEND)

    def _enter(self, source: _Source) -> None:
        """Go to the array."""
        source.pass_mark()
        token = source.token()
        for name in self._path:
            if token != b"{":
                raise source.bad(f'json.records_path leads through "{name}", but there is no object with it')
            token = self._member(source, name)
        if token != b"[":
            raise source.bad("there is no array of records where json.records_path says")

    def _member(self, source: _Source, name: str) -> bytes:
        while (key := source.token()) != b"}":
            if key == b",":
                continue
            if not key.startswith(b'"') or source.token() != b":":
                raise source.bad("it is not JSON")
            value = source.token()
            if self.text_of(key, source) == name:
                return value
            source.pass_over(value)
        raise source.bad(f'json.records_path names "{name}", which the document does not have')

    @staticmethod
    def text_of(key: bytes, source: _Source) -> str:
        """A JSON string's text."""
        try:
            return str(json.loads(key))
        except ValueError:
            raise source.bad("it is not JSON") from None

    def _elements(self, source: _Source, start: Place, block_bytes: int) -> Iterator[Block]:
        lines: list[bytes] = []
        size, before, number = 0, start, start.line
        first = start == Place()
        while True:
            token = source.token()
            if token == b"]":
                break
            if not first:
                if token != b",":
                    raise source.bad("after an element there is neither a comma nor the array's end")
                token = source.token()
            first = False
            if token != b"{":
                raise source.bad(f"record {number + 1} of the array is not an object")
            lines.append(source.element().translate(None, b"\r\n"))
            number, size = number + 1, size + len(lines[-1])
            if size >= block_bytes:
                end = Place(source.offset, number)
                yield Block(b"\n".join(lines) + b"\n", before, end)
                lines, size, before = [], 0, end
        if lines:
            yield Block(b"\n".join(lines) + b"\n", before, Place(source.offset - 1, number))
        source.finish(len(self._path))


class _Source:
    """The document's bytes, token by token.

    Attributes:
        offset: of the byte after the last token.
    """

    def __init__(self, file: BinaryIO, where: str, stream: str) -> None:
        self._file, self._where, self._stream = file, where, stream
        self._data, self._at, self._base = b"", 0, 0
        self._ended = False

    @property
    def offset(self) -> int:
        return self._base + self._at

    def skip(self, offset: int) -> None:
        """Go to a place."""
        skip_to(self._file, offset, self._where)
        self._base = offset

    def pass_mark(self) -> None:
        """Leave out a byte order mark at the file's start."""
        self._data = self._file.read(len(_BOM))
        self._at = len(_BOM) if self._data == _BOM else 0

    def token(self) -> bytes:
        """The next bracket, comma, colon, string, number or word."""
        while True:
            space = _SPACE.match(self._data, self._at)
            self._at = space.end() if space else self._at
            match = _TOKEN.match(self._data, self._at)
            # A word or number at the end may go on; a string that is not ended is no token yet.
            if match and (match.end() < len(self._data) or self._ended):
                self._at = match.end()
                return match[0]
            self._read_on("it is cut off")

    def finish(self, depth: int) -> None:
        """Read to the end: so many brackets are to be closed, and then nothing may follow."""
        while depth:
            depth += _depth(self.token())
        while not self._ended:
            if self._data[self._at :].strip(_BLANKS):
                break
            self._at = len(self._data)
            self._more()
        if self._data[self._at :].strip(_BLANKS):
            raise self.bad("something follows after the document's end")

    def pass_over(self, token: bytes) -> None:
        """Leave out the value that begins with `token`."""
        depth = _depth(token)
        while depth:
            depth += _depth(self.token())

    def element(self) -> bytes:
        """The rest of the object whose brace was the last token, with that brace."""
        begin, depth, position = self._at - 1, 1, self._at
        while True:
            match = _INSIDE.search(self._data, position)
            if match is None or match[0] == b'"':  # nothing, or a string whose end is not here yet
                position = match.start() if match else len(self._data)
                self._at = begin
                self._read_on("it is cut off within a record")
                begin, position = 0, position - begin
                continue
            position = match.end()
            depth += _depth(match[0])
            if not depth:
                self._at = position
                return self._data[begin:position]

    def bad(self, rule: str) -> BadFile:
        """An error at this place."""
        return BadFile(f"at byte {self.offset}: {rule}", stream=self._stream, file=self._where, fix=_FIX)

    def _read_on(self, cut_off: str) -> None:
        """Read on in the middle of something."""
        if self._ended:
            raise self.bad(cut_off)
        if len(self._data) - self._at > LONGEST_RECORD:
            raise self.bad(f"a record or text does not end within {LONGEST_RECORD >> 20} MiB")
        self._more()

    def _more(self) -> None:
        """Read on, and drop what lies before the place."""
        data = self._file.read(max(_READ_BYTES, len(self._data) - self._at))
        self._ended = not data
        self._base += self._at
        self._data, self._at = self._data[self._at :] + data, 0


def _depth(token: bytes) -> int:
    return (token in (b"{", b"[")) - (token in (b"}", b"]"))
