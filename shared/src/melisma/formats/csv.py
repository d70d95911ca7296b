"""CSV files as record batches: whole blocks by Arrow's CSV reader, single rows where a block has something else.

The row path (`melisma.formats.csv_rows`) says what a value means; the block path may only give the same. Arrow's reader
is more lenient in three points, which are looked for: leading zeros and hexadecimal digits in numbers, and floats
beyond float64. Where some field of a block begins as such a number would, all numbers are read as text, looked at, and
cast: parsing twice costs more. Whatever Arrow refuses goes through the row path, which gives the batch or names line
and column.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from melisma.arrow.types import ColumnType, Field, Kind
from melisma.errors import BadFile, ConfigError
from melisma.formats.blocks import BLOCK_BYTES, LONGEST_RECORD, Block, Place, read_blocks, skip_to
from melisma.formats.csv_rows import FALSE, TRUE, RowPattern, RowReader, UnclosedQuote

__all__ = ["CsvDialect", "CsvReader"]

_SINGLE_BYTE = ("ascii", "cp125", "cp437", "cp85", "iso8859", "koi8", "latin", "mac")
_FAILED_COLUMN = re.compile(r"In CSV column #(\d+)")
_BLOCK_KINDS = frozenset(
    {
        Kind.BOOLEAN,
        Kind.INTEGER,
        Kind.NUMBER,
        Kind.DECIMAL,
        Kind.STRING,
        Kind.TIMESTAMP,
        Kind.DATE,
        Kind.TIME,
        Kind.JSON,
    }
)
_NUMERIC = frozenset({Kind.INTEGER, Kind.NUMBER, Kind.DECIMAL})
_ODD_NUMBER = r"^[ \t]*[+-]?0[0-9xX]"


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How a CSV file is written.

    Attributes:
        header: whether the first record holds the names; or the names themselves, of a file without.
        escape: a character that takes the meaning from the next one; None for none.
        skip_rows: lines before the header, or before the first record.
        null_values: texts that mean null. In a text column a quoted one is text.
    """

    delimiter: str = ","
    quote: str = '"'
    escape: str | None = None
    encoding: str = "utf-8"
    header: bool | tuple[str, ...] = True
    skip_rows: int = 0
    null_values: tuple[str, ...] = ("",)

    @property
    def block_encoding(self) -> str | None:
        """The encoding in which records can be cut as bytes, or None: then the file is read as UTF-8 made of it."""
        name = codecs.lookup(self.encoding).name
        if name in {"utf-8", "utf-8-sig", "ascii"}:
            return "utf-8"
        return name if name.startswith(_SINGLE_BYTE) else None


@dataclass(slots=True)
class _Reading:
    """What is known of how this file's columns have to be read.

    Attributes:
        naive: columns of date-times without an offset.
        by_row: whether a column has a type that only the row path reads.
        quoted_nulls: whether columns other than text hold quoted nulls (`""`).
        odd: whether some field began as an odd number does; then most blocks have such a field.
    """

    naive: set[str] = field(default_factory=set)
    by_row: bool = False
    quoted_nulls: bool = False
    odd: bool = False


class CsvReader:
    """Reads one CSV file.

    Args:
        file: its decompressed bytes, at the start.
        dialect: how it is written.
        where: its name, for messages.
        stream: the stream, for messages.

    Attributes:
        names: the columns' names, as the header or the dialect has them.
        start: the place of the first record.

    Raises:
        BadFile: it has no header, or names a column twice.
    """

    def __init__(self, file: BinaryIO, dialect: CsvDialect, *, where: str, stream: str) -> None:
        self.dialect, self.where, self._stream = dialect, where, stream
        self._encoding = dialect.block_encoding or "utf-8"
        self._file = file if dialect.block_encoding else _as_utf8(file, dialect.encoding, where)
        self._record = RowPattern(dialect)
        self._closed = True
        self.names, self.start = self._head()

    def blocks(self, start: Place, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
        """The file's records from `start` on, which is `self.start` or a block's end."""
        if self._file.seekable():
            self._file.seek(start.offset)
            lead = b""
        else:
            lead = self._taken[start.offset :]
            if start.offset > len(self._taken):
                skip_to(self._file, start.offset - len(self._taken), self.where)
        yield from read_blocks(_Lead(lead, self._file), start, self.record_end, self.where, block_bytes)  # type: ignore[arg-type]

    def record_end(self, data: bytes, ended: bool) -> int:
        """How many bytes of `data`, which starts with a record, are whole records."""
        if ended:
            self._closed = self._quote not in data or self._is_closed(data)
            return len(data)
        if self._quote not in data and (self._escape is None or self._escape not in data):
            cut = data.rfind(b"\n") + 1
            return cut or data.rfind(b"\r", 0, -1) + 1
        match = self._record.records.match(data)
        return match.end() if match else 0

    def _is_closed(self, data: bytes) -> bool:
        """Whether no quote is open at the end of the file; Arrow's reader would close it."""
        whole = self._record.records.match(data)
        last = self._record.record.match(data, whole.end() if whole else 0)
        return last is not None and last.end() == len(data)

    def read(
        self, fields: Sequence[Field], zone: ZoneInfo | None, start: Place, block_bytes: int = BLOCK_BYTES
    ) -> Iterator[tuple[pa.RecordBatch, Block]]:
        """The records from `start` on, with the columns of `fields` that the file has.

        Args:
            fields: the columns wanted and their types.
            zone: where times without an offset were meant; None for UTC.
            start: `self.start` or the end of a block.
            block_bytes: see `read_blocks`.

        Raises:
            BadFile: a row or a value does not fit; it names line and column.
        """
        wanted = [each for each in fields if each.name in set(self.names)]
        rows = RowReader(self.dialect, self.names, wanted, zone, where=self.where, stream=self._stream)
        state = _Reading(by_row=any(each.type.kind not in _BLOCK_KINDS for each in wanted))
        for block in self.blocks(start, block_bytes):
            data = self._utf8(block)
            batch = None
            if data is not None and self._closed and not state.by_row:
                batch = self._by_block(data, wanted, zone, state)
            if batch is None:
                batch = rows.read(self._text(block), block.start.line)
            yield batch, block

    def sample(self, rows: int) -> Iterator[pa.RecordBatch]:
        """The first `rows` records, 0 for all, with every column as text."""
        fields = [Field(name, ColumnType(Kind.STRING, pa.string())) for name in self.names]
        left = rows
        for batch, _ in self.read(fields, None, self.start, BLOCK_BYTES if not rows else BLOCK_BYTES // 8):
            yield batch.slice(0, left) if rows else batch
            left -= batch.num_rows
            if rows and left <= 0:
                return

    def row_lines(self, block: Block, rows: int) -> pa.Array:
        """The line on which each of the block's rows starts, counted from 1."""
        first = block.start.line + 1
        lines = block.end.line - block.start.line + (not block.data.endswith((b"\n", b"\r")))
        if lines == rows:  # neither a blank line nor a line end within quotes
            return pa.array(range(first, first + rows), pa.int64())
        return pa.array([line for line, _ in self._record.rows(self._text(block), block.start.line)], pa.int64())

    # The block path.

    def _by_block(
        self, data: bytes, wanted: Sequence[Field], zone: ZoneInfo | None, state: _Reading
    ) -> pa.RecordBatch | None:
        """The block's columns, or None where the row path has to look."""
        if not wanted:
            return None
        numbers = {each.name: each.type.arrow for each in wanted if each.type.kind in _NUMERIC}
        state.odd = bool(numbers) and (state.odd or self._odd_numbers(data))
        for _ in range(len(wanted) + 1):
            types = {each.name: _read_as(each, state.naive) for each in wanted}
            try:
                table = self._by_text(data, types, numbers, state) if state.odd else self._parse(data, types, state)
            except pa.ArrowInvalid as error:
                match = _FAILED_COLUMN.search(str(error))
                failed = self.names[int(match[1])] if match else None
                column = next((each for each in wanted if each.name == failed), None)
                if column is None or column.type.kind is not Kind.TIMESTAMP or column.name in state.naive:
                    return None
                state.naive.add(column.name)
                continue
            return None if table is None else _checked(table, wanted, zone, state)
        return None

    def _by_text(
        self, data: bytes, types: dict[str, pa.DataType], numbers: dict[str, pa.DataType], state: _Reading
    ) -> pa.Table | None:
        """As `_parse`, with every number looked at as text; None if one is odd."""
        as_text = dict.fromkeys(numbers, pa.string())
        texts = None
        if not state.quoted_nulls:
            try:
                texts = self._parse_once(data, types | as_text, quoted_null=False)
            except pa.ArrowInvalid:
                if self._quote * 2 not in data:
                    raise
        if texts is not None:
            if any(_looks_odd(texts.column(name)) for name in numbers):
                return None
            with contextlib.suppress(pa.ArrowInvalid):  # it takes no blanks, for example
                return pa.table({name: texts.column(name).cast(kind) for name, kind in types.items()})
        else:
            texts = self._parse_once(data, as_text, quoted_null=False)
        if any(pc.any(pc.match_substring_regex(texts.column(name), _ODD_NUMBER)).as_py() for name in numbers):
            return None
        return self._parse(data, types, state)

    def _parse(self, data: bytes, types: dict[str, pa.DataType], state: _Reading) -> pa.Table:
        if not state.quoted_nulls:
            try:
                return self._parse_once(data, types, quoted_null=False)
            except pa.ArrowInvalid:
                if self._quote * 2 not in data:
                    raise
        # A quoted null value ("") is null in every column but text, and Arrow's reader has one rule for all.
        texts = {name: kind for name, kind in types.items() if pa.types.is_string(kind)}
        typed = {name: kind for name, kind in types.items() if name not in texts}
        tables = []
        if typed:
            tables.append(self._parse_once(data, typed, quoted_null=True))
            state.quoted_nulls = True
        if texts:
            tables.append(self._parse_once(data, texts, quoted_null=False))
        columns = {name: table.column(name) for table in tables for name in table.column_names}
        return pa.table({name: columns[name] for name in types})

    def _parse_once(self, data: bytes, types: dict[str, pa.DataType], *, quoted_null: bool) -> pa.Table:
        dialect = self.dialect
        return pcsv.read_csv(
            pa.BufferReader(_owned(data)),
            read_options=pcsv.ReadOptions(column_names=self.names, block_size=len(data) + 1),
            parse_options=pcsv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char=dialect.quote or False,
                double_quote=bool(dialect.quote),
                escape_char=dialect.escape or False,
                newlines_in_values=True,
            ),
            convert_options=pcsv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=list(dialect.null_values),
                strings_can_be_null=True,
                quoted_strings_can_be_null=quoted_null,
                true_values=list(TRUE),
                false_values=list(FALSE),
            ),
        )

    def _odd_numbers(self, data: bytes) -> bool:
        """Whether a field may start with a zero that a digit or an x follows. Finds too much, never too little."""
        starts = "".join(f"\\x{byte:02x}" for byte in b"\r\n\t +" + self._delimiter + self._quote)
        pattern = f"(?:^|[{starts}])-*0[0-9xX]"  # RE2 goes through the block once, whatever it holds
        offsets = pa.py_buffer(struct.pack("<2q", 0, len(data)))
        text = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(data)])
        return bool(pc.match_substring_regex(text, pattern)[0].as_py())

    # The head of the file.

    def _head(self) -> tuple[list[str], Place]:
        self._delimiter = self.dialect.delimiter.encode(self._encoding)
        self._quote = self.dialect.quote.encode(self._encoding) or b"\0\xff\0"
        self._escape = self.dialect.escape.encode(self._encoding) if self.dialect.escape else None
        self._taken = b""
        while True:
            more = self._file.read(BLOCK_BYTES // 16 if not self._taken else len(self._taken))
            self._taken += more
            found = self._names(self._taken, ended=not more)
            if found is not None:
                return found
            if len(self._taken) >= LONGEST_RECORD:
                raise BadFile("its header does not end", file=self.where, line=1, fix="Check the format and csv.quote")

    def _names(self, data: bytes, *, ended: bool) -> tuple[list[str], Place] | None:
        """Names and first place, or None when more bytes are needed."""
        offset = 3 if data.startswith(codecs.BOM_UTF8) and self._encoding == "utf-8" else 0
        line = 0
        for _ in range(self.dialect.skip_rows):
            end = _line_end(data, offset, ended)
            if end is None:
                return None
            line, offset = line + (end > offset), end
        if isinstance(self.dialect.header, tuple):
            return self._distinct(list(self.dialect.header), line + 1), Place(offset, line)
        while True:  # blank lines before the header are passed over, as between records
            end = self._first_end(data, offset, ended)
            if end is None:
                return None
            record = data[offset:end]
            if record.strip(b"\r\n") or end >= len(data):
                break
            line, offset = line + 1, end
        if not record.strip(b"\r\n"):
            if not ended:
                return None
            if self.dialect.header:
                raise BadFile("it is empty: it has no header", file=self.where, fix="Remove it, or set csv.header")
            return [], Place(offset, line)
        try:
            _, fields = next(self._record.rows(self._decoded(record, line), line))
        except UnclosedQuote:
            rule = "a quote in the header is never closed"
            raise BadFile(rule, file=self.where, line=line + 1, fix="Check csv.quote") from None
        texts = [text for text, _ in fields]
        if not self.dialect.header:
            return [f"column_{number}" for number in range(1, len(texts) + 1)], Place(offset, line)
        names = [text or f"column_{number}" for number, text in enumerate(texts, 1)]
        after = line + max(record.count(b"\n"), record.count(b"\r") if b"\n" not in record else 0)
        return self._distinct(names, line + 1), Place(end, after)

    def _first_end(self, data: bytes, offset: int, ended: bool) -> int | None:
        match = self._record.record.match(data, offset)
        if match and (match.end() < len(data) or ended):
            return match.end()
        return len(data) if ended else None

    def _distinct(self, names: list[str], line: int) -> list[str]:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise BadFile(
                    "the header names this column twice",
                    stream=self._stream,
                    file=self.where,
                    column=name,
                    line=line,
                    fix="Rename one of them, or give the names in csv.header and set csv.skip_rows",
                )
            seen.add(name)
        return names

    # Encodings.

    def _utf8(self, block: Block) -> bytes | None:
        if self._encoding == "utf-8":
            return block.data
        with contextlib.suppress(UnicodeDecodeError):
            return block.data.decode(self._encoding).encode()
        return None

    def _text(self, block: Block) -> str:
        return self._decoded(block.data, block.start.line)

    def _decoded(self, data: bytes, line: int) -> str:
        try:
            return data.decode(self._encoding)
        except UnicodeDecodeError as error:
            at = line + 1 + data.count(b"\n", 0, error.start)
            raise _not_encoded(self.dialect.encoding, self.where, at) from None


class _Lead(io.RawIOBase):
    """Bytes that were read already, then the rest of the file."""

    def __init__(self, lead: bytes, file: BinaryIO) -> None:
        self._lead, self._rest = lead, file

    def read(self, size: int = -1) -> bytes:
        if self._lead:
            data, self._lead = self._lead[:size], self._lead[size:]
            return data
        return self._rest.read(size)


class _Utf8(io.RawIOBase):
    """A file in any encoding, as UTF-8."""

    def __init__(self, file: BinaryIO, encoding: str, where: str) -> None:
        self._file, self._encoding, self._where = file, encoding, where
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._lines = 0

    def read(self, size: int = -1) -> bytes:
        while True:
            data = self._file.read(size)
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeDecodeError:
                raise _not_encoded(self._encoding, self._where, self._lines + 1) from None
            self._lines += text.count("\n")
            if text or not data:
                return text.encode()


def _as_utf8(file: BinaryIO, encoding: str, where: str) -> BinaryIO:
    return _Utf8(file, encoding, where)  # type: ignore[return-value]  # only `read` and `seekable` are used


def _not_encoded(encoding: str, where: str, line: int) -> BadFile:
    rule = f"the bytes are not text in the encoding {encoding}"
    return BadFile(
        rule, file=where, line=line, fix="Set csv.encoding to the file's own encoding (latin-1, cp1252, ...)"
    )


def _line_end(data: bytes, offset: int, ended: bool) -> int | None:
    end = data.find(b"\n", offset) + 1
    if end:
        return end
    return len(data) if ended else None


def _checked(table: pa.Table, wanted: Sequence[Field], zone: ZoneInfo | None, state: _Reading) -> pa.RecordBatch | None:
    """The table as a batch, or None where a number is beyond its type."""
    arrays = []
    for each in wanted:
        column = table.column(each.name)
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if each.type.kind is Kind.NUMBER and pc.all(pc.is_finite(array)).as_py() is False:
            return None
        if each.type.kind is Kind.DECIMAL and _too_wide(array):
            return None
        if each.name in state.naive:
            array = _in_zone(array, zone)
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([(f.name, f.type.arrow) for f in wanted]))


def _owned(data: bytes) -> pa.Buffer:
    """A copy that is Arrow's own.

    A thread of its pool may let go of what it read a moment after the call. Where that is an object of Python's, and
    Python is ending meanwhile, the process aborts. Any block may be the last one, and what follows it be done soon.
    """
    buffer = pa.allocate_buffer(len(data))
    memoryview(buffer).cast("B")[:] = data
    return buffer


def _looks_odd(texts: pa.ChunkedArray) -> bool:
    """Whether one of the numbers is odd; one that begins with a blank is not looked at, and not cast either."""
    zero = pc.starts_with(texts, "0")
    if pc.any(zero).as_py():
        zero = pc.and_not(zero, pc.starts_with(texts, "0."))
    signed = pc.or_(pc.starts_with(texts, "-"), pc.starts_with(texts, "+"))
    suspect = texts.filter(pc.or_(zero, signed))
    return bool(pc.any(pc.match_substring_regex(suspect, _ODD_NUMBER)).as_py())


def _read_as(column: Field, naive: set[str]) -> pa.DataType:
    return pa.timestamp("us") if column.name in naive else column.type.arrow


def _too_wide(array: pa.Array) -> bool:
    """Whether a value has more digits than its decimal type: Arrow's reader holds the scale only."""
    ends, limit = pc.min_max(array).as_py(), Decimal(10) ** (array.type.precision - array.type.scale)
    return ends["max"] is not None and bool(ends["max"] >= limit or ends["min"] <= -limit)


def _in_zone(array: pa.Array, zone: ZoneInfo | None) -> Any:
    if zone is None:
        return array.cast(pa.timestamp("us", "UTC"))
    local = pc.assume_timezone(array, zone.key, ambiguous="earliest", nonexistent="earliest")
    return local.cast(pa.timestamp("us", "UTC"))


def check_encoding(setting: str, encoding: str) -> None:
    """Refuse an encoding that Python does not know.

    Raises:
        ConfigError: it is not known.
    """
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise ConfigError(setting, "is not a known encoding", "For example utf-8, latin-1, cp1252, utf-16") from None
