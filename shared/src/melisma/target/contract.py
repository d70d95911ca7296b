"""What a changed schema may do to a stream's table: the setting `schema_contract`, and what follows from it.

`evolve` lets the table grow by columns and by wider types; a type that cannot share the column gets a column of its
own beside it, `<column>__<type>`. `freeze` refuses every change. `discard_value` and `discard_row` keep the table as
it is and leave out the values, or the records, that would change it. docs/evolution.md has the rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from melisma.arrow.evolve import (
    JSON_TEXT,
    beyond_double,
    convert,
    holds_integers,
    join,
    misfits,
    named,
    reading,
    stored,
)
from melisma.arrow.metadata import METADATA_COLUMNS
from melisma.arrow.table import Table
from melisma.arrow.types import ColumnType, Field, Kind, StreamSchema
from melisma.errors import BadRecord, BadSchema, ConfigError, printable

if TYPE_CHECKING:
    from melisma.arrow.decode import Decoded

__all__ = ["MODES", "Change", "Contract", "Evolution", "NotInContract", "plan"]

Mode = Literal["evolve", "freeze", "discard_value", "discard_row"]
MODES: tuple[Mode, ...] = ("evolve", "freeze", "discard_value", "discard_row")
"""What `schema_contract` may say."""

_NESTED = {Kind.STRUCT, Kind.LIST, Kind.MAP, Kind.JSON}
_WAYS_OUT = 'Set schema_contract to "evolve", "discard_value" or "discard_row" for it, or change the tap\'s schema back'


class NotInContract(BadRecord):
    """A record has a value that the stream's contract leaves out (`discard_row`)."""


class Contract:
    """The setting `schema_contract`: one mode, or modes by stream, or by stream and column; `*` for all others.

    Raises:
        ConfigError: it says something else.
    """

    def __init__(self, setting: Any = None) -> None:
        self._setting: dict[str, Any] = {"*": setting} if isinstance(setting, str) else setting or {}
        for stream, value in self._setting.items():
            columns = value if isinstance(value, Mapping) else {"*": value}
            for column, mode in columns.items():
                if mode not in MODES:
                    name = "schema_contract" if isinstance(setting, str) else f"schema_contract.{stream}.{column}"
                    raise ConfigError(printable(name), "is not a contract", f"Valid values: {', '.join(MODES)}")

    def mode(self, stream: str, column: str) -> Mode:
        """What holds for a column; the most particular word counts, the stream's before the column's."""
        for name in (stream, "*"):
            value = self._setting.get(name)
            value = value.get(column, value.get("*")) if isinstance(value, Mapping) else value
            if value is not None:
                return value  # type: ignore[no-any-return]
        return "evolve"


@dataclass(frozen=True, slots=True)
class Change:
    """What a schema does to a column of the table: `new`, `wider`, `variant` or `dropped`; `key` for the key itself."""

    kind: str
    column: str
    before: str = ""
    after: str = ""
    variant: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "new":
                return f"is new ({self.after})"
            case "wider":
                return f"changes its type from {self.before} to {self.after}"
            case "variant":
                return f"changes its type from {self.before} to {self.after}, which cannot share a column"
            case "dropped":
                return "is no longer in the tap's schema"
            case _:
                return "the key changes"


@dataclass(slots=True)
class Evolution:
    """A schema's way into the stream's table.

    Attributes:
        columns: what is written: every column of the table.
        reads: what is decoded: the tap's columns, read so that they fit.
        changes: what the schema changes; empty for one that fits the table as it is.
        names: tap's column -> the table's, for those that are stored.
        discarded: tap's columns that are left out -> `discard_value` or `discard_row`.
    """

    stream: str
    table: Table
    columns: StreamSchema
    reads: StreamSchema
    changes: list[Change] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    discarded: dict[str, Mode] = field(default_factory=dict)
    computed: frozenset[str] = frozenset()

    def apply(self, decoded: Decoded, lines: Sequence[int]) -> Decoded:
        """Bring a decoded run to the table's columns, `computed` ones aside.

        Args:
            decoded: read by `reads`; changed in place.
            lines: the line of each record that went into it.
        """
        self._note_large(decoded)
        target = [each for each in self.columns.fields if each.name not in self.computed]
        if decoded.batch.schema.names == [each.name for each in target] and all(
            each.type.arrow == column.type for each, column in zip(target, decoded.batch.schema, strict=True)
        ):
            return decoded
        self._discard(decoded, lines)
        arrays = self._arrays(decoded, lines, target)
        schema = pa.schema([(each.name, each.type.arrow) for each in target])
        decoded.batch = _batch(arrays, schema, decoded.batch.num_rows)
        return decoded

    def _discard(self, decoded: Decoded, lines: Sequence[int]) -> None:
        faults: dict[int, tuple[str, str]] = {}
        for name, mode in self.discarded.items():
            column = decoded.batch.column(name)
            if mode == "discard_row":
                for row in pc.indices_nonzero(column.is_valid()).to_pylist():
                    faults.setdefault(row, (name, "has a value that the stream's contract leaves out"))
            elif column.null_count < len(column):
                decoded.discarded[name] += len(column) - column.null_count
        self._take_out(decoded, lines, faults, NotInContract, "schema_contract: discard_row")

    def _arrays(self, decoded: Decoded, lines: Sequence[int], target: Sequence[Field]) -> list[pa.Array]:
        came = {lake: name for name, lake in self.names.items()}
        types = {each.name: each.type for each in self.reads.fields}
        while True:
            try:
                return [
                    convert(decoded.batch.column(came[each.name]), types[came[each.name]], each.type)
                    if each.name in came
                    else pa.nulls(decoded.batch.num_rows, each.type.arrow)
                    for each in target
                ]
            except pa.ArrowInvalid:
                faults: dict[int, tuple[str, str]] = {}
                for each in target:
                    if each.name in came:
                        name = came[each.name]
                        for row in misfits(decoded.batch.column(name), types[name], each.type):
                            faults.setdefault(row, (name, f"does not fit the lake's {named(each.type)} exactly"))
                if not faults:
                    raise
                fix = 'Set column_types to "json" for this column: its values then get a column of their own'
                self._take_out(decoded, lines, faults, BadRecord, fix)

    def _take_out(
        self,
        decoded: Decoded,
        lines: Sequence[int],
        faults: Mapping[int, tuple[str, str]],
        error: type[BadRecord],
        fix: str,
    ) -> None:
        if not faults:
            return
        bad = {record for record, _ in decoded.bad}
        kept = [record for record in range(len(lines)) if record not in bad]
        for row, (column, rule) in faults.items():
            record = kept[row]
            found = error(rule, stream=self.stream, column=column, line=lines[record], fix=fix)
            decoded.bad.append((record, found))
        decoded.bad.sort(key=lambda each: each[0])
        decoded.keep(pa.array([row not in faults for row in range(decoded.batch.num_rows)]))

    def _note_large(self, decoded: Decoded) -> None:
        came = set(decoded.batch.schema.names) if decoded.large is None else decoded.large
        if not came:
            return
        for each in self.reads.fields:
            name = self.names.get(each.name)
            if name is None or name in self.table.large or each.name not in came:
                continue
            if decoded.large is not None or (
                holds_integers(each.type) and beyond_double(decoded.batch.column(each.name), each.type)
            ):
                self.table.large.add(name)


def plan(
    incoming: StreamSchema,
    known: Table | None,
    contract: Contract,
    *,
    fixed: frozenset[str] = frozenset(),
    computed: frozenset[str] = frozenset(),
) -> Evolution:
    """Decide how a stream's schema goes into its table.

    Args:
        incoming: the tap's schema as columns.
        known: the table so far; None for a new stream, whose first schema makes it.
        contract: what may change.
        fixed: columns that other things rest on (the key, the bookmark, partitions): they cannot move to a variant.
        computed: columns that the target fills in.

    Raises:
        BadSchema: the contract forbids a change, or there is no way to make it.
    """
    stream = incoming.stream
    new = {each.name: each for each in incoming.fields}
    table = Table({}, set(), incoming.key_properties) if known is None else known
    columns, large = dict(table.columns), table.large
    cases = {name.lower(): name for name in columns}
    changes: list[Change] = []
    names: dict[str, str] = {}
    discarded: dict[str, Mode] = {}
    for name, each in new.items():
        if known is None:
            columns[name], names[name] = stored(each.type), name
            continue
        change, place, joined = _fit(stream, name, each.type, columns, cases, large, new.keys())
        mode = "evolve" if name in METADATA_COLUMNS else contract.mode(stream, name)
        if change is not None:
            changes.append(change)
            if mode == "freeze":
                raise BadSchema(f"{change}, and schema_contract is freeze", stream=stream, column=name, fix=_WAYS_OUT)
            if mode != "evolve":
                if name in fixed:
                    raise BadSchema(
                        f"{change}, and values of a key, a replication key or a partition cannot be left out",
                        stream=stream,
                        column=name,
                        fix=f'Set schema_contract to "evolve" for it instead of "{mode}"',
                    )
                discarded[name] = mode
                continue
            if change.kind == "variant" and name in fixed | computed:
                raise BadSchema(
                    f"{change}, and it is a key, a replication key or a partition column",
                    stream=stream,
                    column=name,
                    fix=_override(change.before, stream),
                )
        columns[place], names[name], cases[place.lower()] = joined, place, place
    changes += _left(stream, new, table, contract, names) if known is not None else []
    if known is not None and known.key_properties != incoming.key_properties:
        if contract.mode(stream, "*") == "freeze":
            raise BadSchema("its key changes, and schema_contract is freeze", stream=stream, fix=_WAYS_OUT)
        changes.append(Change("key", ""))
    table.columns, table.key_properties = columns, incoming.key_properties
    reads = tuple(_read(each, columns[names[name]]) if name in names else each for name, each in new.items())
    return Evolution(
        stream,
        table,
        _with_fields(incoming, tuple(_written(name, each, new, names) for name, each in columns.items())),
        _with_fields(incoming, reads),
        changes,
        names,
        discarded,
        computed,
    )


def _fit(
    stream: str,
    name: str,
    new: ColumnType,
    columns: Mapping[str, ColumnType],
    cases: Mapping[str, str],
    large: set[str],
    coming: Collection[str],
) -> tuple[Change | None, str, ColumnType]:
    """The change that a column of the tap makes, where its values go, and as which type.

    `cases` finds the columns by their names in small letters.
    """
    known = columns.get(name)
    if known is None:
        _refuse_other_case(stream, name, cases)
        return Change("new", name, after=named(new)), name, stored(new)
    joined = join(known, new, large=name in large)
    if joined is not None:
        same = joined.arrow == known.arrow
        return None if same else Change("wider", name, named(known), named(joined)), name, joined
    base, text = f"{name}__", new.kind not in _NESTED
    for variant, each in columns.items():
        if variant.startswith(base) and variant not in coming and (each.kind is not Kind.JSON) is text:
            joined = join(each, new, large=variant in large)
            if joined is not None:
                same = joined.arrow == each.arrow
                return None if same else Change("wider", name, named(each), named(joined), variant), variant, joined
    variant = base + (new.kind.value if text else Kind.JSON.value)
    if variant in coming or variant in columns:
        raise BadSchema(
            f'changes its type from {named(known)} to {named(new)}, and there is a column "{printable(variant)}" '
            "already where such values would go",
            stream=stream,
            column=name,
            fix="Rename one of them with stream_maps",
        )
    _refuse_other_case(stream, variant, cases)
    return Change("variant", name, named(known), named(new), variant), variant, stored(new) if text else JSON_TEXT


def _left(
    stream: str, new: Mapping[str, Field], table: Table, contract: Contract, names: Mapping[str, str]
) -> list[Change]:
    """The columns that the tap no longer sends."""
    taken = {*new, *names.values(), *METADATA_COLUMNS}
    variants = {f"{name}__{kind.value}" for name in table.columns for kind in Kind}
    gone = [name for name in table.columns if name not in taken | variants]
    for name in gone:
        if contract.mode(stream, name) == "freeze":
            rule = f"{Change('dropped', name)}, and schema_contract is freeze"
            raise BadSchema(rule, stream=stream, column=name, fix=_WAYS_OUT)
    return [Change("dropped", name) for name in gone]


def _refuse_other_case(stream: str, name: str, cases: Mapping[str, str]) -> None:
    other = cases.get(name.lower(), name)
    if other != name:
        raise BadSchema(
            f'differs only in letter case from the lake\'s column "{printable(other)}", which readers such as DuckDB '
            "and Spark cannot tell apart",
            stream=stream,
            column=name,
            fix="Rename it with stream_maps",
        )


def _override(before: str, stream: str) -> str:
    return (
        f'Set column_types to "{before}" for it if its values fit that, or give the stream '
        f"{printable(stream)} another name with stream_maps (__alias__) and load it anew"
    )


def _read(each: Field, lake: ColumnType) -> Field:
    read = reading(each.type, lake)
    return each if read is each.type else replace(each, type=read)


def _written(name: str, column: ColumnType, new: Mapping[str, Field], names: Mapping[str, str]) -> Field:
    came = new.get(name)
    if came is None:
        return Field(name, column)
    if names.get(name) == name and column.kind is came.type.kind is Kind.STRING and came.type.schema.get("format"):
        # What its values are held to in this run; files of it may say so.
        column = replace(column, schema={"format": came.type.schema["format"]})
    return Field(name, column, came.required)


def _with_fields(schema: StreamSchema, fields: tuple[Field, ...]) -> StreamSchema:
    arrow = pa.struct([(each.name, each.type.arrow) for each in fields])
    root = replace(schema.root, arrow=arrow, fields=fields)
    return StreamSchema(schema.stream, root, schema.key_properties, schema.json_schema)


def _batch(arrays: list[pa.Array], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    if not arrays:
        return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, type=pa.struct([])))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
