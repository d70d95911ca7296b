"""Holding whole columns to their JSON Schema's constraints.

Types are held by decoding, and so is a null that may or may not have been a missing member (only the row path can
tell). What is held here: nulls in keys, in required members and in lists, `enum` and `const`, bounds, lengths,
`pattern`, `multipleOf` of whole numbers, the number of items, and the formats uuid, ipv4 and ipv6. Keywords that no
column can be held to (`not`, `if`, `dependencies`, ...) are not; docs/types.md lists them.

Patterns run in RE2, whose time grows with the text and not beyond; a pattern that RE2 cannot express (look-around,
back references) is refused at the SCHEMA message rather than run in an engine that can be made to hang.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, TypeGuard

import pyarrow as pa
import pyarrow.compute as pc

from melisma.arrow.types import ColumnType, Kind, StreamSchema
from melisma.errors import BadSchema

__all__ = ["MISSING_KEY", "Validator"]

Faults = dict[int, tuple[str, str]]
"""Row -> (column, rule) of the first fault found in that row."""

_Check = Callable[[pa.Array], "pa.Array | None"]
"""Takes an array, returns a mask of the elements at fault (null: not at fault), or None when none is."""

_UUID = "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"


class Validator:
    """The constraints of one stream, compiled.

    Args:
        schema: the stream's columns.
        constraints: hold the schema's constraints; else only that no key is null.

    Raises:
        BadSchema: a pattern cannot be held safely.
    """

    def __init__(self, schema: StreamSchema, *, constraints: bool) -> None:
        self._columns: list[tuple[int, _Node]] = []
        for index, each in enumerate(schema.fields):
            if each.name in schema.key_properties:
                node = _Node(each.name, each.type, schema.stream, constraints=constraints)
                node.not_null = MISSING_KEY
            elif constraints:
                node = _Node(each.name, each.type, schema.stream, constraints=True)
                if each.required and not each.type.nullable:
                    node.not_null = _NEITHER
            else:
                continue
            if node.holds_anything:
                self._columns.append((index, node))

    def faults(self, batch: pa.RecordBatch) -> Faults:
        """The rows at fault, each with its first fault."""
        found: Faults = {}
        for index, node in self._columns:
            node.hold(batch.column(index), None, None, found)
        return found


MISSING_KEY = "is part of the key and is missing or null"
_NEITHER = "is missing or null, and the schema allows neither"
_NO_NULL = "is null, and the schema does not allow null"


class _Node:
    """The constraints of one column, or of what is nested in it."""

    def __init__(self, path: str, column: ColumnType, stream: str, *, constraints: bool) -> None:
        self.path = path
        self.not_null = ""
        self.checks = list(_checks(column, stream, path)) if constraints and column.schema.keys() - {"type"} else []
        self.kind = column.kind
        self.children: list[tuple[int, _Node]] = []
        if not constraints:
            return
        if column.kind is Kind.STRUCT:
            for index, each in enumerate(column.fields):
                child = _Node(f"{path}.{each.name}", each.type, stream, constraints=True)
                if each.required and not each.type.nullable:
                    child.not_null = _NEITHER
                self._adopt(index, child)
        elif column.kind is Kind.LIST:
            child = _Node(f"{path}[]", column.items, stream, constraints=True)
            if not column.items.nullable:
                child.not_null = _NO_NULL
            self._adopt(0, child)

    def _adopt(self, index: int, child: _Node) -> None:
        if child.holds_anything:
            self.children.append((index, child))

    @property
    def holds_anything(self) -> bool:
        return bool(self.not_null or self.checks or self.children)

    def hold(self, array: pa.Array, rows: pa.Array | None, within: pa.Array | None, found: Faults) -> None:
        """Check an array.

        Args:
            array: the values.
            rows: the row of each value, or None where they are the rows themselves.
            within: false where the object around a value is null, so that the value's null says nothing.
            found: where faults are put.
        """
        if self.not_null and array.null_count:
            null = array.is_null()
            self._add(null if within is None else pc.and_(null, within), rows, self.not_null, found)
        if array.null_count == len(array):
            return
        for rule, check in self.checks:
            mask = check(array)
            if mask is not None:
                self._add(mask, rows, rule, found)
        for index, child in self.children:
            if self.kind is Kind.STRUCT:
                child.hold(array.flatten()[index], rows, array.is_valid() if array.null_count else None, found)
            else:
                parents = pc.list_parent_indices(array)
                child.hold(array.flatten(), parents if rows is None else rows.take(parents), None, found)

    def _add(self, mask: pa.Array, rows: pa.Array | None, rule: str, found: Faults) -> None:
        at = pc.indices_nonzero(mask.fill_null(False))
        for row in (at if rows is None else rows.take(at)).to_pylist():
            found.setdefault(row, (self.path, rule))


def _checks(column: ColumnType, stream: str, path: str) -> Iterator[tuple[str, _Check]]:
    schema, kind = column.schema, column.kind
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and kind in {Kind.STRING, Kind.INTEGER, Kind.NUMBER, Kind.DECIMAL, Kind.BOOLEAN}:
        yield "is not one of the values that the schema allows", _one_of(values, column.arrow)
    if kind in {Kind.INTEGER, Kind.NUMBER, Kind.DECIMAL}:
        yield from _bounds(schema, pc.min_max)
        multiple = schema.get("multipleOf")
        if kind is Kind.INTEGER and isinstance(multiple, (int, float, Decimal)) and multiple == int(multiple) >= 2:
            yield f"is not a multiple of {multiple}", _multiple_of(int(multiple))
    elif kind is Kind.STRING:
        yield from _lengths(schema, "Length", "characters", pc.utf8_length)
        if isinstance(pattern := schema.get("pattern"), str):
            yield f"does not match the schema's pattern {pattern!r}", _matches(pattern, stream, path)
        match schema.get("format"):
            case "uuid":
                yield "is not a uuid", _matches(_UUID, stream, path)
            case "ipv4":
                yield "is not an IPv4 address", _parses(ipaddress.IPv4Address)
            case "ipv6":
                yield "is not an IPv6 address", _parses(ipaddress.IPv6Address)
    elif kind is Kind.LIST:
        yield from _lengths(schema, "Items", "items", pc.list_value_length)
        if schema.get("uniqueItems") is True:
            yield "holds an item twice, and the schema wants each once", _unique


def _bounds(schema: dict[str, Any], ends: Callable[[pa.Array], Any]) -> Iterator[tuple[str, _Check]]:
    for name, exclusive, below in (("minimum", "exclusiveMinimum", True), ("maximum", "exclusiveMaximum", False)):
        bound, strict = schema.get(name), schema.get(exclusive)
        if _is_number(bound):
            open_end = strict is True  # as Draft 4 says it
            yield _bound_rule(bound, below, open_end), _beyond(bound, below, open_end, ends)
        if _is_number(strict):
            yield _bound_rule(strict, below, True), _beyond(strict, below, True, ends)


def _bound_rule(bound: Any, below: bool, open_end: bool) -> str:
    word = "not above" if below and open_end else "below" if below else "not below" if open_end else "above"
    return f"is {word} the schema's {'minimum' if below else 'maximum'} of {bound}"


def _beyond(bound: Any, below: bool, open_end: bool, ends: Callable[[pa.Array], Any]) -> _Check:
    """Compare in Python, exactly, the least or greatest value; look at each only when that one is at fault."""

    def at_fault(value: Any) -> bool:
        if value is None:
            return False
        value = Decimal(value) if isinstance(bound, Decimal) and isinstance(value, float) else value
        if open_end and value == bound:
            return True
        return bool(value < bound if below else value > bound)

    def check(array: pa.Array) -> pa.Array | None:
        end = ends(array)["min" if below else "max"].as_py()
        return pa.array([at_fault(value) for value in array.to_pylist()]) if at_fault(end) else None

    return check


def _lengths(
    schema: dict[str, Any], word: str, unit: str, measure: Callable[[pa.Array], pa.Array]
) -> Iterator[tuple[str, _Check]]:
    low, high = schema.get(f"min{word}"), schema.get(f"max{word}")
    if _is_number(low) and low > 0:
        yield f"has fewer than {low} {unit}", lambda array: _any(pc.less(measure(array), pa.scalar(int(low))))
    if _is_number(high) and high < 2**31:
        yield f"has more than {high} {unit}", lambda array: _any(pc.greater(measure(array), pa.scalar(int(high))))


def _any(mask: pa.Array) -> pa.Array | None:
    return mask if pc.any(mask).as_py() else None


def _one_of(values: list[Any], arrow: pa.DataType) -> _Check:
    if pa.types.is_string(arrow):
        allowed = pa.array([value for value in values if isinstance(value, str)], arrow)
        return lambda array: _any(pc.and_(pc.invert(pc.is_in(array, allowed)), array.is_valid()))
    boolean = pa.types.is_boolean(arrow)
    known = [value for value in values if _is_number(value) or (boolean and isinstance(value, bool))]

    def check(array: pa.Array) -> pa.Array | None:
        distinct = array.unique().to_pylist()
        wrong = [value for value in distinct if value is not None and value not in known]
        return pc.is_in(array, pa.array(wrong, arrow)) if wrong else None

    return check


def _multiple_of(number: int) -> _Check:
    def check(array: pa.Array) -> pa.Array | None:
        divisor = pa.scalar(number, array.type)
        return _any(pc.not_equal(pc.multiply(pc.divide(array, divisor), divisor), array))

    return check


def _matches(pattern: str, stream: str, path: str) -> _Check:
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        raise BadSchema(
            "has a pattern with look-around, a back reference or another form that cannot be held in safe time",
            stream=stream,
            column=path,
            fix="Set validate_records to false, or take the pattern out of the schema",
        ) from error
    return lambda array: _any(pc.invert(pc.match_substring_regex(array, pattern)))


def _parses(parse: Callable[[str], object]) -> _Check:
    def fails(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return True
        return False

    def check(array: pa.Array) -> pa.Array | None:
        wrong = [text for text in array.unique().to_pylist() if text is not None and fails(text)]
        return pc.is_in(array, pa.array(wrong, array.type)) if wrong else None

    return check


def _unique(array: pa.Array) -> pa.Array | None:
    mask = [items is not None and len({repr(item) for item in items}) < len(items) for items in array.to_pylist()]
    return pa.array(mask) if any(mask) else None


def _is_number(value: Any) -> TypeGuard[int | float | Decimal]:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
