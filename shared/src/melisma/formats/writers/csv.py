"""CSV (RFC 4180, lines ending in a line feed), a column at a time.

Null and the empty text are told apart: null is `null_value`, never in quotes; text that is empty, or looks like a
null, is in quotes. What is nested is JSON text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from melisma.arrow.encode import json_lines
from melisma.arrow.types import StreamSchema
from melisma.errors import BadSchema, ConfigError
from melisma.formats.writers.compressed import CompressedFormat

__all__ = ["CsvFormat"]

_TEXT = pa.large_string()
_COLUMN = "c"
_IN_VALUES = '"+-.:\r\n'
_LIKE_A_VALUE = re.compile(r"[+.\d-]|(true|false|inf|nan)$")
_SPECIAL = re.compile(r'["\r\n]')


@dataclass(frozen=True, slots=True)
class CsvFormat(CompressedFormat):
    """How CSV is written.

    Attributes:
        delimiter: one character between fields.
        header: whether the first line has the columns' names.
        quote_all: put every text in quotes, not only those that need it. Numbers and times never are.
        null_value: how null is written.
    """

    name: ClassVar[str] = "csv"

    delimiter: str = ","
    header: bool = True
    quote_all: bool = False
    null_value: str = ""

    def __post_init__(self) -> None:
        CompressedFormat.__post_init__(self)
        if len(self.delimiter) != 1 or self.delimiter.isalnum() or self.delimiter in _IN_VALUES:
            rule = "is not one character, or one that numbers, times, quotes or lines have"
            raise ConfigError("csv.delimiter", rule, 'Set one such as "," ";" "|" or a tab')
        if _SPECIAL.search(self.null_value) or self.delimiter in self.null_value:
            raise ConfigError("csv.null_value", "would need quotes, and null has none", "Set a plain word, or nothing")
        if _LIKE_A_VALUE.match(self.null_value):
            rule = "could be a number, a time or a boolean, which have no quotes either"
            raise ConfigError("csv.null_value", rule, 'Set a word such as "NULL", or nothing')

    def check(self, schema: pa.Schema, stream: StreamSchema) -> None:
        """Refuse a single column whose nulls would be blank lines, which readers pass over.

        Raises:
            BadSchema: it is so.
        """
        if len(schema) == 1 and not self.null_value and schema.names[0] not in stream.key_properties:
            rule = "is the only column, and in CSV its nulls would be blank lines, which readers pass over"
            fix = 'Set csv.null_value, for example to "NULL", or add_record_metadata to true'
            raise BadSchema(rule, stream=stream.stream, column=schema.names[0], fix=fix)

    def head(self, schema: pa.Schema) -> bytes:
        """The line of names."""
        if not self.header:
            return b""
        names = self._quoted(pa.array(schema.names, _TEXT)).to_pylist()
        return (self.delimiter.join(names) + "\n").encode()

    def body(self, batch: pa.RecordBatch, stream: str) -> Any:
        """Rows as lines."""
        if not batch.num_columns:
            return b"\n" * batch.num_rows
        columns = [self._column(column, stream) for column in batch.columns]
        columns[-1] = pc.binary_join_element_wise(columns[-1], pa.scalar("\n", _TEXT), pa.scalar("", _TEXT))
        lines = pc.binary_join_element_wise(*columns, pa.scalar(self.delimiter, _TEXT))
        start, end = _ends(lines)
        return memoryview(lines.buffers()[2])[start:end] if end > start else b""

    def _column(self, array: pa.Array, stream: str) -> pa.Array:
        texts = _texts(array, stream)
        if _is_text(array.type):
            texts = self._quoted(texts)
        return texts.fill_null(self.null_value) if texts.null_count else texts

    def _quoted(self, texts: pa.Array) -> pa.Array:
        needs = self._needing(texts)
        if needs is None:
            return texts
        inside = pc.replace_substring(texts, '"', '""')
        quoted = pc.binary_join_element_wise(pa.scalar('"', _TEXT), inside, pa.scalar('"', _TEXT), pa.scalar("", _TEXT))
        return quoted if self.quote_all else pc.if_else(needs, quoted, texts)

    def _needing(self, texts: pa.Array) -> pa.Array | None:
        """Which texts need quotes; None for none."""
        if self.quote_all:
            return pc.is_valid(texts)
        # Blanks at the ends are data, and some readers take those of plain fields off.
        special = rf'[{re.escape(self.delimiter)}"\r\n]|^\s|\s$'
        needs = pc.or_(pc.equal(texts, ""), pc.match_substring_regex(texts, special))
        if self.null_value:
            needs = pc.or_(needs, pc.equal(texts, self.null_value))
        return needs if pc.any(needs).as_py() else None


def _is_text(kind: pa.DataType) -> bool:
    """Whether values can have any character in them."""
    types = pa.types
    return bool(types.is_string(kind) or types.is_nested(kind) or types.is_binary(kind))


def _texts(array: pa.Array, stream: str) -> pa.Array:
    """Each value as text, without quotes; nulls stay."""
    kind, types = array.type, pa.types
    if types.is_nested(kind):
        lines = json_lines(pa.record_batch([array], names=[_COLUMN]), stream=stream).decode().split("\n")
        before, after = len(f'{{"{_COLUMN}":'), len("}")
        valid = array.is_valid().to_pylist()
        found = [line[before:-after] if there else None for line, there in zip(lines, valid, strict=False)]
        return pa.array(found, _TEXT)
    if types.is_binary(kind):
        encode = base64.b64encode
        return pa.array([None if v is None else encode(v).decode() for v in array.to_pylist()], _TEXT)
    if types.is_decimal(kind):
        return _decimals(array)
    if types.is_timestamp(kind):
        texts = array.cast(pa.timestamp("us")).cast(pa.string())
        texts = pc.binary_replace_slice(texts, 10, 11, "T")
        return pc.binary_join_element_wise(texts, "Z", "").cast(_TEXT)
    return array.cast(pa.string()).cast(_TEXT)


def _decimals(array: pa.Array) -> pa.Array:
    """All digits; Arrow writes small ones with an exponent."""
    texts = array.cast(pa.string())
    if pc.any(pc.match_substring(texts, "E")).as_py():
        texts = pa.array([None if v is None else f"{v:f}" for v in array.to_pylist()], pa.string())
    return texts.cast(_TEXT)


def _ends(array: pa.Array) -> Sequence[int]:
    """Where the data of an array with 64-bit offsets begins and ends."""
    offsets = memoryview(array.buffers()[1]).cast("q")
    return offsets[array.offset], offsets[array.offset + len(array)]
