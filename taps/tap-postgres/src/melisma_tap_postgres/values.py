"""The log's texts as the values that reading the table gives.

The log has each value as its type's output function writes it. Most types are read from that text here. For the rest
(arrays, composites and whatever else is read by an expression of its own) the texts go back to the server, which casts
them to the type and evaluates the very expression by which the table is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from melisma.errors import BadRecord
from melisma.sql.dialect import POSTGRES
from melisma_tap_postgres.convert import FLAT, Converter
from melisma_tap_postgres.pgoutput import Tuple
from melisma_tap_postgres.slot import literal
from melisma_tap_postgres.typemap import Column

if TYPE_CHECKING:
    from melisma_tap_postgres.server import Server

__all__ = ["LogValues", "array_of", "from_text"]

_DAY = re.compile(rb"\d{4}-\d\d-\d\d( |$)(?!.*BC)")
_BEYOND = b"9999-12-31"
_TIME = re.compile(rb"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?")


class LogValues:
    """Makes the batches of one stream.

    Args:
        server: where the rest is evaluated.
        stream: the stream's name.
        columns: how each of its columns is read from the table.
        raw: the types that the driver gives them.
        converter: the stream's.
    """

    def __init__(
        self, server: Server, stream: str, columns: Mapping[str, Column], raw: pa.Schema, converter: Converter
    ) -> None:
        self._server, self._stream, self._columns, self._raw = server, stream, columns, raw
        self._converter = converter

    def batch(self, rows: Sequence[Tuple]) -> pa.RecordBatch:
        """The rows, whose values stand in the columns' order.

        Raises:
            BadRecord: a value that no record can hold.
        """
        if not self._columns:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * len(rows), pa.struct([])))
        texts = dict(zip(self._columns, zip(*rows, strict=True), strict=True)) if rows else {}
        asked = [
            name
            for name, column in self._columns.items()
            if not column.as_logged and any(value is not None for value in texts.get(name, ()))
        ]
        answers = self._evaluated(asked, texts, len(rows)) if asked else {}
        arrays = [
            answers[name] if name in answers else self._local(name, texts.get(name, ())) for name in self._columns
        ]
        names = list(self._columns)
        if FLAT in self._raw.names:
            arrays.append(answers.get(FLAT, pa.repeat(pa.scalar(True), len(rows))))
            names.append(FLAT)
        return self._converter.convert(pa.record_batch(arrays, names=names))

    def _local(self, name: str, texts: Sequence[bytes | None]) -> pa.Array:
        kind = self._raw.field(name).type
        if not self._columns[name].as_logged:  # all null
            return pa.nulls(len(texts), kind)
        try:
            return from_text(texts, kind)
        except (pa.ArrowInvalid, ValueError) as error:
            rule = "the log has a value that is not of the column's type as it is now"
            if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error).upper().replace("-", ""):
                rule = "a text is not UTF-8, and the database's encoding, SQL_ASCII, promises none"
            fix = "Was the type altered? Then take the stream's bookmark out of the state, to read it whole again"
            raise BadRecord(rule, stream=self._stream, column=name, fix=fix) from None

    def _evaluated(
        self, names: Sequence[str], texts: Mapping[str, Sequence[bytes | None]], count: int
    ) -> dict[str, pa.Array]:
        columns = {name: self._columns[name] for name in names}
        values = ", ".join(array_of(texts[name]) for name in names)
        typed = ", ".join(
            f"v{place}::{column.type} AS {POSTGRES.quote(name)}" for place, (name, column) in enumerate(columns.items())
        )
        wanted = [f"{column.sql} AS {POSTGRES.quote(name)}" for name, column in columns.items()]
        flat = [column.flat for column in columns.values() if column.flat is not None]
        if flat:
            wanted.append(f"{' AND '.join(flat)} AS {FLAT}")
        given = ", ".join(f"v{place}" for place in range(len(names)))
        sql = (
            f"SELECT {', '.join(wanted)} FROM (SELECT {typed}, place "  # noqa: S608
            f"FROM unnest({values}) WITH ORDINALITY AS logged ({given}, place)) AS typed ORDER BY place"
        )
        table = pa.Table.from_batches(list(self._server.batches(sql, self._stream))).combine_chunks()
        [batch] = table.to_batches()
        if batch.num_rows != count:
            raise BadRecord("the server did not evaluate every value of the log", stream=self._stream)
        return dict(zip(batch.schema.names, batch.columns, strict=True))


def array_of(texts: Sequence[bytes | None]) -> str:
    """Texts as an SQL array of texts."""
    return f"ARRAY[{', '.join('NULL' if text is None else literal(text.decode()) for text in texts)}]::text[]"


def from_text(texts: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    """An array from what the types' output functions write.

    Raises ValueError, or ArrowInvalid, which is one, for a text that is no value of the type. Times of the calendar
    that Arrow cannot hold become one that lies behind the last day that JSON can say.
    """
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if types.is_boolean(kind):
        return pc.equal(_strings(texts), "t")
    if types.is_binary(kind) or types.is_large_binary(kind):
        return pa.array([None if text is None else bytes.fromhex(text[2:].decode()) for text in texts], kind)
    if types.is_time64(kind):
        return pa.array([None if text is None else _microseconds(text) for text in texts], pa.int64()).view(kind)
    if types.is_date32(kind) or types.is_timestamp(kind):
        beyond = [text is not None and _DAY.match(text) is None for text in texts]
        if not any(beyond):
            return _strings(texts).cast(kind)
        known = [_BEYOND if lost else text for text, lost in zip(texts, beyond, strict=True)]
        integers = pa.int32() if types.is_date32(kind) else pa.int64()
        last = pa.scalar(2**31 - 1 if types.is_date32(kind) else 2**63 - 1, integers)
        plain = pa.date32() if types.is_date32(kind) else pa.timestamp(kind.unit)
        cast = _strings([None if text is None else text.removesuffix(b"+00") for text in known]).cast(plain)
        return pc.if_else(pa.array(beyond), last, cast.view(integers)).view(kind)
    return _strings(texts).cast(kind)


def _strings(texts: Sequence[bytes | None]) -> pa.Array:
    return pa.array(texts, pa.binary()).cast(pa.string())


def _microseconds(text: bytes) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError
    hours, minutes, seconds = (int(found[part]) for part in (1, 2, 3))
    return ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + int((found[4] or b"").ljust(6, b"0"))
