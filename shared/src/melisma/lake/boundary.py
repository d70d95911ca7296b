"""Boundary rows: what a tap with an inclusive replication key sends again at the start of each run.

Such a tap asks its source for `key >= bookmark`, so the rows at the highest key come twice. We keep a hash of
each of them with the commit, and drop as many identical rows from the next run. Only rows at that one key are
looked at; a row that changed without its key changing has another hash and is kept.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections import Counter
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from melisma.lake.records import Boundary

__all__ = ["CAP", "BoundaryRows", "row_hashes"]

CAP = 1000
"""Boundary rows of a stream that are kept. With more at one key, as with a date for a key, none are dropped."""


class BoundaryRows:
    """Drops the rows that are there already, and keeps track of the highest key's rows for the next run.

    Args:
        column: the replication key's column, at the top level.
        before: the boundary that the replay decision gave; None for a new stream.
        cap: the most rows to keep.

    Attributes:
        column: that column.
    """

    def __init__(self, column: str, before: Boundary | None = None, cap: int = CAP) -> None:
        self.column, self._cap = column, cap
        self._left: Counter[str] = Counter()
        self._left_value = ""
        self._value: pa.Scalar | None = None
        self._rows: Counter[str] = Counter()
        self._before = before if before is not None and before.column == column else None
        if self._before is not None:
            self._left, self._left_value = Counter(self._before.rows), self._before.value

    @property
    def boundary(self) -> Boundary | None:
        """The boundary after all rows taken; what it was before if there were none."""
        if self._value is None:
            return self._before
        rows = self._rows if self._rows.total() <= self._cap else {}
        return Boundary(column=self.column, value=_text(self._value), rows=dict(rows))

    def take(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """The batch without the rows that the lake has already, and how many those were."""
        if self.column not in batch.schema.names:
            return batch, 0
        self._follow(batch.column(self.column).type)
        kept = self._drop_repeated(batch)
        self._note(kept)
        return kept, batch.num_rows - kept.num_rows

    def _follow(self, kind: pa.DataType) -> None:
        """The key's column has this type now: what is known of its highest value is brought to it, or forgotten."""
        if self._value is not None and self._value.type != kind:
            self._value = _parsed(_text(self._value), kind)
            if self._value is None:
                self._before, self._left, self._rows = None, Counter(), Counter()

    def _drop_repeated(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if not self._left:
            return batch
        key = batch.column(self.column)
        value = _parsed(self._left_value, key.type)
        if value is None:
            return batch  # the key's type has changed; then nothing can be said of its rows
        at_value = pc.indices_nonzero(pc.fill_null(pc.equal(key, value), False))
        if not len(at_value):
            return batch
        dropped = []
        for index, row in zip(at_value.to_pylist(), row_hashes(batch.take(at_value)), strict=True):
            if self._left[row] > 0:
                self._left[row] -= 1
                dropped.append(index)
        self._left = +self._left
        if self._value is None:
            # They are in the lake, so they are part of the boundary, whatever else comes at this key.
            assert self._before is not None  # noqa: S101 - there was something left to drop
            self._value, self._rows = value, Counter(self._before.rows)
        if not dropped:
            return batch
        rows = pa.array(range(batch.num_rows), pa.int64())
        return batch.filter(pc.invert(pc.is_in(rows, pa.array(dropped, pa.int64()))))

    def _note(self, batch: pa.RecordBatch) -> None:
        """Count the rows at the highest key so far."""
        key = batch.column(self.column)
        highest = pc.max(key) if batch.num_rows else pa.scalar(None)
        if not highest.is_valid:
            return
        if self._value is None and self._before is not None:
            self._value = _parsed(self._before.value, key.type)
            self._rows = Counter(self._before.rows)
        if self._value is None or pc.greater(highest, self._value).as_py():
            self._value, self._rows = highest, Counter()
        elif not pc.equal(highest, self._value).as_py():
            return
        at_value = batch.filter(pc.fill_null(pc.equal(key, highest), False))
        if self._rows.total() + at_value.num_rows > self._cap:
            self._rows["too many"] = self._cap + 1  # and no more work on this key
        else:
            self._rows.update(row_hashes(at_value))


def row_hashes(batch: pa.RecordBatch) -> list[str]:
    """A hash of each row's content: not of column order, null columns, or `_sdc_` columns, which differ by run."""
    names = [name for name in batch.schema.names if not name.startswith("_sdc_")]
    return [
        hashlib.sha256(json.dumps(_canonical(row), sort_keys=True).encode()).hexdigest()[:24]
        for row in batch.select(names).to_pylist()
    ]


def _canonical(value: Any) -> Any:
    """A JSON value that is equal exactly where the cell is; each kind of number in one form, tagged."""
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return {"number": str(value)}
    if isinstance(value, float):
        return {"number": str(int(value)) if value.is_integer() else repr(value)}
    if isinstance(value, Decimal):
        whole = value == value.to_integral_value()
        return {"number": str(int(value)) if whole else str(value.normalize())}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if type(value) is dt.date:  # the same moment once its column has become a timestamp
        value = dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    if isinstance(value, dt.datetime | dt.time):
        return {type(value).__name__: value.isoformat()}
    return {type(value).__name__: str(value)}


def _text(value: pa.Scalar) -> str:
    """A key as text that casts back to the same key."""
    return str(value.cast(pa.string()).as_py())


def _parsed(text: str, of_type: pa.DataType) -> pa.Scalar | None:
    if pa.types.is_timestamp(of_type) and len(text) == len("2024-01-31"):
        text += "T00:00:00Z"  # a date, before the column was widened
    try:
        return pa.scalar(text).cast(of_type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
