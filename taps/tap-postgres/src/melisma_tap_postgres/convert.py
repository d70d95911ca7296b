"""What the driver gives, brought into what records need; what JSON cannot say is an error, or counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from melisma.errors import BadRecord
from melisma_tap_postgres.typemap import Column

__all__ = ["FLAT", "Converter"]

FLAT = "melisma_flat"
"""The last column of a read with arrays: whether all of a row's arrays have one dimension."""

_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # 0001-01-01, 9999-12-31
_DAY_US = 86_400_000_000
_NOT_NUMBERS = pa.array(["nan", "inf", "-inf", "NaN", "Infinity", "-Infinity"])


class Converter:
    """Converts the batches of one stream.

    Attributes:
        not_finite: column -> how many NaNs and infinities of numerics became null.
    """

    def __init__(self, stream: str, columns: Mapping[str, Column], *, check_text: bool) -> None:
        self._stream, self._columns, self._check_text = stream, columns, check_text
        self.not_finite: Counter[str] = Counter()

    def convert(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with exact types.

        Raises:
            BadRecord: a value that no record can hold.
        """
        if self._check_text:
            try:
                batch.validate(full=True)
            except pa.ArrowInvalid:
                rule = "a text is not UTF-8, and the database's encoding, SQL_ASCII, promises none"
                raise BadRecord(rule, stream=self._stream, fix="Mend the text, or deselect the column") from None
        if not self._columns:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * batch.num_rows, pa.struct([])))
        names = list(self._columns)
        if batch.num_columns > len(names) and not pc.all(batch.column(len(names)), skip_nulls=False).as_py():
            rule = "an array has more than one dimension, which its type does not say"
            fix = "Make the array columns' type string in the catalog to have them as PostgreSQL writes them"
            raise BadRecord(rule, stream=self._stream, fix=fix)
        return pa.record_batch(
            [self._column(name, batch.column(i), self._columns[name]) for i, name in enumerate(names)], names=names
        )

    def _column(self, name: str, array: pa.Array, column: Column) -> pa.Array:
        if isinstance(array.type, pa.BaseExtensionType):
            array = array.storage
        if pa.types.is_date32(array.type):
            self._within(name, array.view(pa.int32()), _FIRST_DAY, _LAST_DAY)
        elif pa.types.is_timestamp(array.type):
            self._within(name, array.view(pa.int64()), _FIRST_DAY * _DAY_US, (_LAST_DAY + 1) * _DAY_US - 1)
        elif column.digits is not None or column.node.get("format") == "singer.decimal":
            array = self._finite(name, array)
            if column.digits is not None:
                array = array.cast(pa.decimal128(*column.digits))
        return array

    def _finite(self, name: str, array: pa.Array) -> pa.Array:
        lost = pc.is_in(array, _NOT_NUMBERS)
        count = pc.sum(lost).as_py() or 0
        if count:
            self.not_finite[name] += count
            array = pc.if_else(lost, None, array)
        return array

    def _within(self, name: str, numbers: pa.Array, low: int, high: int) -> None:
        bounds = pc.min_max(numbers).as_py()
        if bounds["min"] is not None and (bounds["min"] < low or bounds["max"] > high):
            rule = "a date is infinite, or lies outside the years 1 to 9999, which JSON's date formats cannot say"
            fix = "Set dates_as_string to true, or the column's type to string in the catalog"
            raise BadRecord(rule, stream=self._stream, column=name, fix=fix)
