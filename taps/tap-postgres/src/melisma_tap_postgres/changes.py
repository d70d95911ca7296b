"""Changes of one table: values that the log leaves out are looked up, and then all are as the table's own read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from melisma.errors import DatabaseError
from melisma.sql.dialect import POSTGRES
from melisma.sql.select import Select
from melisma.tap.log import Change
from melisma_tap_postgres.convert import Converter
from melisma_tap_postgres.pgoutput import UNCHANGED
from melisma_tap_postgres.typemap import Column
from melisma_tap_postgres.values import LogValues, array_of

if TYPE_CHECKING:
    from melisma_tap_postgres.read import TableStream
    from melisma_tap_postgres.server import Server

__all__ = ["ORDER", "TableChanges"]

ORDER: Mapping[str, Any] = {
    "_sdc_lsn": {"type": ["integer", "null"], "description": "Where the transaction's commit stands in the log."},
    "_sdc_lsn_sequence": {"type": ["integer", "null"], "description": "The change's place within its transaction."},
}


class TableChanges:
    """Makes batches of a table's changes.

    Args:
        stream: the table's stream.
        server: where values are looked up.
        columns: of a change, in the order of its values.
        select: the table's read with these columns.
        converter: its conversion.
    """

    def __init__(
        self, stream: TableStream, server: Server, columns: Mapping[str, Column], select: Select, converter: Converter
    ) -> None:
        self._stream, self._server, self._columns, self._converter = stream, server, columns, converter
        raw = server.schema(replace(select, limit=0).text(POSTGRES), stream.name)
        self._values = LogValues(server, stream.name, columns, raw, converter)
        self._left_out = 0

    def batch_of(self, changes: Sequence[Change]) -> pa.RecordBatch:
        """The rows, with the columns that the log adds."""
        changes = self._completed(changes)
        batch = self._values.batch([change.values for change in changes])
        self._server.begin()  # not to hold back the server's clean-up until the next batch
        return self._stream.with_order(batch, changes)

    def report(self) -> None:
        """Say what was lost on the way."""
        self._stream.warn_not_finite(self._converter.not_finite)
        if self._left_out:
            self._stream.logger.warning(
                'stream "%s": %d updates of rows that are gone since, or have another key, were left out: they did not '
                "change a large value, so the log does not have it. The end of those rows is in the log. With "
                "REPLICA IDENTITY FULL nothing is left out",
                self._stream.name,
                self._left_out,
            )

    def _completed(self, changes: Sequence[Change]) -> list[Change]:
        """The changes with the values that the log does not have, as they are now.

        A value that was changed since is in the log again, further on. A row that is not there any more is left out:
        its delete is in the log, further on, and a null would be a lie until then.
        """
        names = list(self._columns)
        lacking = [change for change in changes if any(value is UNCHANGED for value in change.values)]
        if not lacking:
            return list(changes)
        wanted = [place for place in range(len(names)) if any(change.values[place] is UNCHANGED for change in lacking)]
        keys = [names.index(name) for name in self._stream.primary_keys]
        if any(change.values[key] is UNCHANGED for change in lacking for key in keys):
            fix = f"Run: ALTER TABLE {self._stream.relation.sql} REPLICA IDENTITY FULL"
            raise DatabaseError("PostgreSQL", "the log leaves out a key", stream=self._stream.name, fix=fix)
        found = self._look_up([[change.values[key] for key in keys] for change in lacking], keys, wanted)
        gone = set()
        for number, change in enumerate(lacking):
            row = found.get(number)
            if row is None:
                gone.add(id(change))
                continue
            for place, text in zip(wanted, row, strict=True):
                if change.values[place] is UNCHANGED:
                    change.values[place] = text
        self._left_out += len(gone)
        return [change for change in changes if id(change) not in gone]

    def _look_up(
        self, values: Sequence[Sequence[Any]], keys: Sequence[int], wanted: Sequence[int]
    ) -> dict[int, list[bytes | None]]:
        """Number of the row -> texts, as the log would have them, of the columns that are wanted."""
        names = [POSTGRES.quote(name) for name in self._columns]
        types = [column.type for column in self._columns.values()]
        given = ", ".join(f"v{key}" for key in keys)
        texts = ", ".join(
            # What `format` writes for %s is what the type's output function gives.
            f"CASE WHEN num_nulls(found.{names[place]}) = 0 THEN format('%s', found.{names[place]}) END AS t{place}"
            for place in wanted
        )
        sql = (
            f"SELECT place, {texts} FROM unnest({', '.join(map(array_of, zip(*values, strict=True)))}) "  # noqa: S608
            f"WITH ORDINALITY AS logged ({given}, place) JOIN {self._stream.relation.sql} AS found ON "
            + " AND ".join(f"found.{names[key]} = logged.v{key}::{types[key]}" for key in keys)
        )
        self._server.begin()
        return {
            row["place"] - 1: [None if (text := row[f"t{place}"]) is None else text.encode() for place in wanted]
            for row in self._server.rows(sql)
        }
