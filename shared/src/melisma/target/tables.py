"""The tables of a run's streams: what the destination knows of them, and each schema's way in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from melisma.arrow.metadata import METADATA_COLUMNS
from melisma.arrow.table import Table
from melisma.errors import printable
from melisma.lake.partition import parse_partition_by
from melisma.target.contract import Contract, Evolution, plan

if TYPE_CHECKING:
    from melisma.arrow.types import StreamSchema
    from melisma.target.target import ArrowTarget

__all__ = ["Tables", "discarded"]


class Tables:
    """Keeps each stream's table during a run. Changes count when a commit takes them to the destination.

    Args:
        target: its configuration holds the contract, its destination the tables as last committed.

    Raises:
        ConfigError: the contract is not one.
    """

    def __init__(self, target: ArrowTarget) -> None:
        self._target = target
        self._contract = Contract(target.config.get("schema_contract"))
        self._tables: dict[str, Table] = {}

    def evolve(self, incoming: StreamSchema, *, computed: frozenset[str]) -> Evolution:
        """A schema's way into its stream's table.

        Args:
            incoming: the tap's schema as columns, with those that the target fills in.
            computed: the names of the latter.

        Raises:
            BadSchema: the contract forbids a change, or there is no way to make it.
        """
        stream = incoming.stream
        known = self._tables.get(stream)
        if known is None and not self._is_replaced:
            known = Table.described(self._target.destination.schema(stream))
        evolution = plan(incoming, known, self._contract, fixed=self._fixed(incoming), computed=computed)
        self._tables[stream] = evolution.table
        for line in _told(evolution):
            self._target.logger.warning(line)
        return evolution

    @property
    def _is_replaced(self) -> bool:
        """Whether this run's rows take the place of all others, so that any change is fine."""
        config = self._target.config
        return bool(config.get("load_method") == "overwrite" and not config.get("schema_contract"))

    def _fixed(self, incoming: StreamSchema) -> frozenset[str]:
        partitions = parse_partition_by(self._target.config.get("partition_by"), incoming.stream)
        bookmark = self._target.replication_keys.get(incoming.stream)
        rests = {*incoming.key_properties, *(each.column for each in partitions)}
        return frozenset(rests | {bookmark} if bookmark is not None else rests)


def _told(evolution: Evolution) -> Iterable[str]:
    """What a person should know of a schema's changes, a line for each."""
    for change in evolution.changes:
        if change.column in METADATA_COLUMNS:
            continue
        where = f'stream "{printable(evolution.stream)}", column "{printable(change.column)}": {change}'
        mode = evolution.discarded.get(change.column)
        if mode is not None:
            left_out = "its values are not stored" if mode == "discard_value" else "records with it are left out"
            yield f"{where}; {left_out} (schema_contract: {mode})"
        elif change.kind == "variant":
            yield f'{where}; new values go to the column "{printable(change.variant)}"'
        elif change.kind == "wider":
            yield f"{where}; files from now on have the wider type (docs/evolution.md says how readers join them)"


def discarded(counts: Counter[tuple[str, str]]) -> Iterable[str]:
    """What was left out of columns, a line for each."""
    for (stream, column), count in counts.items():
        where = f'stream "{printable(stream)}", column "{printable(column)}"'
        yield f"{where}: {count} values not stored (schema_contract: discard_value)"
