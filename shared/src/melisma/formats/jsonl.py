"""JSON Lines files as record batches, decoded as RECORD lines are: by block where that is exact, by row elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any, BinaryIO, NoReturn
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.json as pj

from melisma.arrow.decode import RunDecoder
from melisma.arrow.decode import _Inexact as Inexact
from melisma.arrow.rows import rows_to_batch
from melisma.arrow.types import Field, Kind, StreamSchema
from melisma.arrow.values import Misfit, Unknown, timestamp_us
from melisma.errors import BadFile, InputError
from melisma.formats.blocks import BLOCK_BYTES, Block, Place, newline_end, read_blocks, skip_to
from melisma.formats.csv_rows import with_zone

__all__ = ["JsonlReader"]

_FIX = "Set column_types for this column, or infer_rows to 0, and discover again; or mend the file"


class JsonlReader:
    """Reads one JSON Lines file.

    Args:
        file: its decompressed bytes, at the start.
        where: its name, for messages.
        stream: the stream, for messages.

    Attributes:
        unknown: dotted name of each member that the schema does not name -> how many values it held.
    """

    start = Place()

    def __init__(self, file: BinaryIO, *, where: str, stream: str) -> None:
        self.where, self._file, self._stream = where, file, stream
        self.unknown: Counter[str] = Counter()

    def blocks(self, start: Place, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
        """The file's lines from `start` on."""
        skip_to(self._file, start.offset, self.where)
        yield from read_blocks(self._file, start, newline_end, self.where, block_bytes)

    def sample(self, rows: int) -> Iterator[dict[str, Any]]:
        """The first `rows` records, 0 for all, with every number that has a fraction as a Decimal."""
        left = rows or -1
        for block in self.blocks(self.start):
            for _, record in self._records(block):
                yield record
                left -= 1
                if not left:
                    return

    def read(
        self, schema: StreamSchema, zone: ZoneInfo | None, start: Place, block_bytes: int = BLOCK_BYTES
    ) -> Iterator[tuple[pa.RecordBatch, Block]]:
        """The records from `start` on, with all columns of `schema`.

        Args:
            schema: the columns.
            zone: where times without an offset were meant, at the top level; None for UTC.
            start: the file's start or the end of a block.
            block_bytes: see `read_blocks`.

        Raises:
            BadFile: a line is not a JSON object, or a value does not fit; it names line and column.
        """
        local = [] if zone is None else [f.name for f in schema.fields if f.type.kind is Kind.TIMESTAMP]
        decoder = _LineDecoder(_as_text(schema, local))
        for block in self.blocks(start, block_bytes):
            batch = decoder.by_block(block)
            if batch is None:
                batch = self._by_row(block, decoder)
            if zone is not None and local:
                batch = self._in_zone(batch, local, zone, block)
            yield batch, block
        self.unknown += decoder.unknown

    def row_lines(self, block: Block, rows: int) -> pa.Array:
        """The line on which each of the block's records stands, counted from 1."""
        first = block.start.line + 1
        if block.end.line - block.start.line + (not block.data.endswith(b"\n")) == rows:
            return pa.array(range(first, first + rows), pa.int64())
        lines = block.data.split(b"\n")
        return pa.array([first + i for i, line in enumerate(lines) if _content(line, block, i)], pa.int64())

    def _by_row(self, block: Block, decoder: _LineDecoder) -> pa.RecordBatch:
        found = list(self._records(block))
        lines = [line for line, _ in found]
        unknown = Unknown(forbid=False, hold_closed=False)
        rows = rows_to_batch([record for _, record in found], decoder.schema, lines, validate=False, unknown=unknown)
        if rows.misfits:
            self._refuse(rows.misfits[0][1])
        decoder.unknown += rows.unknown
        return rows.batch

    def _refuse(self, error: InputError) -> NoReturn:
        raise self._fault(f"the value {error.rule}", error.line, error.column, error.fix or _FIX) from None

    def _records(self, block: Block) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, raw in enumerate(block.data.split(b"\n")):
            line = _content(raw, block, index)
            if not line:
                continue
            number = block.start.line + 1 + index
            try:
                record = _DECODER.decode(line.decode())
            except UnicodeDecodeError:
                raise self._bad("it is not UTF-8 text", number) from None
            except _Twice as error:
                raise self._bad("an object names this member twice", number, error.name) from None
            except RecursionError:
                raise self._bad("it is nested too deeply", number) from None
            except ValueError:
                raise self._bad("it is not JSON", number) from None
            if not isinstance(record, dict):
                raise self._bad("it is JSON, but not an object", number)
            yield number, record

    def _bad(self, rule: str, line: int, column: str | None = None) -> BadFile:
        fix = "A JSON Lines file has one object on each line: mend the line, or set the stream's format"
        return self._fault(rule, line, column, fix)

    def _fault(self, rule: str, line: int | None, column: str | None, fix: str) -> BadFile:
        return BadFile(rule, stream=self._stream, file=self.where, line=line, column=column, fix=fix)

    def _in_zone(self, batch: pa.RecordBatch, local: list[str], zone: ZoneInfo, block: Block) -> pa.RecordBatch:
        arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
        for name in local:
            moments: list[int | None] = []
            for row, text in enumerate(arrays[name].to_pylist()):
                try:
                    moments.append(None if text is None else timestamp_us(with_zone(text, zone)))
                except Misfit as misfit:
                    line = self.row_lines(block, batch.num_rows)[row].as_py()
                    raise self._fault(f"the value {misfit.rule}", line, name, misfit.fix) from None
            arrays[name] = pa.array(moments, pa.timestamp("us", "UTC"))
        return pa.record_batch(arrays)


class _LineDecoder(RunDecoder):
    """The target's decoder for RECORD lines, for records that stand by themselves."""

    def __init__(self, schema: StreamSchema) -> None:
        super().__init__(schema, validate=False)
        self.unknown: Counter[str] = Counter()
        self._bare = None
        if self._parse is not None:
            record = self._parse.explicit_schema.field("record").type
            self._bare = pj.ParseOptions(explicit_schema=pa.schema(list(record)), unexpected_field_behavior="infer")

    def by_block(self, block: Block) -> pa.RecordBatch | None:
        """The block's records, or None where the row path has to look."""
        data = block.data.removeprefix(b"\xef\xbb\xbf") if not block.start.offset else block.data
        if b"\r\n" in data:
            data = data.replace(b"\r\n", b"\n")
        if not data.endswith(b"\n"):
            data += b"\n"
        count = data.count(b"\n")
        # Every line is one object (see `melisma.arrow.decode`): it begins and ends as one, and rows equal lines.
        if self._bare is None or data.count(b"}\n") != count or data.count(b"\n{") != count - 1 or data[:1] != b"{":
            return None
        try:
            data.decode()
            table = pj.read_json(
                pa.BufferReader(data),
                read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=self._bare,
            )
            if table.num_rows != count:
                return None
            record = table.combine_chunks().to_struct_array().combine_chunks()
            batch = self._columns(record, explicit=True)
            self.unknown += self._count_unknown(record)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError, Inexact):
            return None
        return batch


class _Twice(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice(next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1))
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_object)


def _content(raw: bytes, block: Block, index: int) -> bytes:
    if not index and not block.start.offset:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    return raw.strip(b" \t\r")


def _as_text(schema: StreamSchema, names: list[str]) -> StreamSchema:
    """The schema with the columns `names` as text."""
    if not names:
        return schema
    fields = tuple(
        Field(f.name, replace(f.type, kind=Kind.STRING, arrow=pa.string()), f.required) if f.name in names else f
        for f in schema.fields
    )
    struct = pa.struct([(f.name, f.type.arrow) for f in fields])
    return replace(schema, root=replace(schema.root, fields=fields, arrow=struct))
