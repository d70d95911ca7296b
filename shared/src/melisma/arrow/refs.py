"""A JSON Schema node as plain alternatives: `$ref`, `allOf`, `anyOf` and `oneOf` worked out.

JSON Schema lets a node point elsewhere, add conditions and offer choices, all at once and nested. The type mapping
needs none of that: it wants to know which plain nodes a value may match. `Document.alternatives` gives them, with
the drafts' differences, null and keywords of no concern already gone.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from melisma.errors import BadSchema, printable

__all__ = ["KEYWORDS", "MAX_DEPTH", "TYPES", "Alternative", "Document", "same_value"]

MAX_DEPTH = 64
"""Levels of nesting that become columns of their own; what lies deeper becomes JSON text."""

MAX_ALTERNATIVES = 1_000
"""Choices that one node may offer. More than that says nothing about a type; the node becomes JSON text."""

MAX_NODES = 50_000
"""Nodes that a stream's schema may come to with every `$ref` followed. Twenty definitions that each name the next
one twice already ask for a million."""

TYPES = ("boolean", "integer", "number", "string", "object", "array")

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_TIGHTER = {
    "minimum": max,
    "exclusiveMinimum": max,
    "minLength": max,
    "minItems": max,
    "minProperties": max,
    "maximum": min,
    "exclusiveMaximum": min,
    "maxLength": min,
    "maxItems": min,
    "maxProperties": min,
}
_NUMBERS = frozenset((*_BOUNDS, *_COUNTS, "multipleOf"))
_SHAPES: dict[str, type | None] = {
    **dict.fromkeys(("properties", "patternProperties", "decimal"), dict),
    **dict.fromkeys(("enum", "anyOf", "oneOf", "allOf"), list),
    **dict.fromkeys(("format", "pattern", "contentEncoding", "$ref"), str),
    **dict.fromkeys(("type", "nullable", "const", "required", "items", "prefixItems"), None),
    **dict.fromkeys(("additionalProperties", "uniqueItems", "precision", "scale"), None),
    **dict.fromkeys(_NUMBERS, None),
}
"""The keywords that matter, with what their value must be where anything else has no meaning."""

KEYWORDS = _SHAPES.keys()
"""The keywords that matter."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One plain node that a value may match.

    Attributes:
        keywords: the node without `$ref` and combinations. `type` is a list without "null", or absent where the
            schema does not say; an empty list means that only null matches. `nullable` is True where null is
            named. Bounds are numbers, exclusive ones too (Draft 4 has booleans).
        active: the references that were followed on the way here; meeting one of them again is a recursion.
        opaque: what may stand here cannot be said (a recursion, too deep, too many choices).
    """

    keywords: dict[str, Any]
    active: frozenset[str]
    opaque: bool = False

    @property
    def allows_null(self) -> bool:
        """Whether null matches: it is named, or nothing says what the value must be."""
        if self.opaque or self.keywords.get("nullable"):
            return True
        return not any(keyword in self.keywords for keyword in ("type", "enum", "const"))


class Document:
    """A stream's JSON Schema, in which references are followed.

    Args:
        stream: the stream's name, for errors.
        schema: the whole schema; references are resolved inside it and nowhere else.
    """

    def __init__(self, stream: str, schema: dict[str, Any]) -> None:
        self._stream = stream
        self._schema = schema
        self._nodes = 0
        identifier = schema.get("$id", schema.get("id"))
        self._identifier = identifier.rstrip("#") if isinstance(identifier, str) else ""

    def alternatives(
        self, node: object, active: frozenset[str] = frozenset(), *, column: str | None = None, depth: int = 0
    ) -> list[Alternative]:
        """What a value at `node` may match; empty if nothing does.

        Args:
            node: an object or boolean of the schema.
            active: the references followed so far.
            column: where we are, for errors.
            depth: how many combinations this one stands in.

        Raises:
            BadSchema: the node is no schema, or a reference leads nowhere or out of the document.
        """
        self.count(column)
        if node is False:
            return []
        keywords = self._plain({} if node is True else node, column)
        reference = keywords.pop("$ref", None)
        groups = [[part] for part in keywords.pop("allOf", ())]
        groups += [choice for key in ("anyOf", "oneOf") if (choice := keywords.pop(key, None))]
        found = [Alternative(keywords, active)]
        if reference is None and not groups:
            return found
        if depth >= MAX_DEPTH:
            return [Alternative(keywords, active, opaque=True)]
        if reference is not None:
            found = _both(found, self._referred(reference, active, column, depth))
        for group in groups:
            options = [self.alternatives(part, active, column=column, depth=depth + 1) for part in group]
            found = _both(found, list(itertools.chain.from_iterable(options)))
        return found

    def count(self, column: str | None) -> None:
        """Count a node that was read.

        Raises:
            BadSchema: there are too many of them.
        """
        self._nodes += 1
        if self._nodes > MAX_NODES:
            rule = f"the schema comes to more than {MAX_NODES:,} nodes when its references are followed"
            raise self._error(rule, column, 'Keep a column near the top as text: column_types: {"<column>": "json"}')

    def _referred(self, reference: str, active: frozenset[str], column: str | None, depth: int) -> list[Alternative]:
        pointer = reference.removeprefix(self._identifier) if self._identifier else reference
        if pointer and not pointer.startswith("#"):
            rule = f'$ref "{printable(reference)}" leads out of the schema, and nothing is fetched'
            raise self._error(rule, column, "Put the definition into the schema (under definitions or $defs)")
        pointer = unquote(pointer.removeprefix("#"))
        if pointer in active:
            return [Alternative({}, active, opaque=True)]
        return self.alternatives(self._at(pointer, column), active | {pointer}, column=column, depth=depth + 1)

    def _at(self, pointer: str, column: str | None) -> object:
        """The node at a JSON pointer (RFC 6901)."""
        node: object = self._schema
        head, *tokens = pointer.split("/")
        found = not head  # a pointer starts with a slash, or is empty
        for token in tokens:
            key = token.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and key in node:
                node = node[key]
            elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
                node = node[int(key)]
            else:
                found = False
        if not found:
            rule = f'$ref "#{printable(pointer)}" names nothing in the schema'
            raise self._error(rule, column, "Add the definition, or set column_types for the column")
        return node

    def _plain(self, node: object, column: str | None) -> dict[str, Any]:
        """The keywords of a node that matter, in one form whatever draft they were written in."""
        if not isinstance(node, dict):
            raise self._error(f"its schema is {_json_name(node)}, not an object", column, 'Write {"type": ...}')
        kept = {}
        for key, value in node.items():
            if key not in _SHAPES or (value is None and key != "const"):
                continue
            shape = _SHAPES[key]
            if shape is not None and not isinstance(value, shape):
                rule = f'"{key}" in its schema is {_json_name(value)}, not {_json_name(shape())}'
                raise self._error(rule, column, f'Mend or remove "{key}"')
            kept[key] = value
        if not isinstance(kept.get("required"), list):
            kept.pop("required", None)  # Draft 3 has a boolean here, which speaks to the parent
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if kept.get(exclusive) is True and bound in kept:
                kept[exclusive] = kept.pop(bound)  # Draft 4: a boolean that turns the bound into an exclusive one
        for key in _NUMBERS & kept.keys():
            if not _is_finite_number(kept[key]):
                del kept[key]
        self._set_type(kept, column)
        return kept

    def _set_type(self, kept: dict[str, Any], column: str | None) -> None:
        """Turn `type` into a list, and every way to say null into `nullable`."""
        nullable = kept.pop("nullable", False) is True
        if "type" in kept:
            types = kept["type"] if isinstance(kept["type"], list) else [kept["type"]]
            for name in types:
                if name not in (*TYPES, "null", "any"):
                    rule = f'unknown type "{printable(name)}"' if isinstance(name, str) else "type is not a name"
                    valid = ", ".join((*TYPES, "null"))
                    raise self._error(rule, column, f"Valid types are {valid}; or set column_types for the column")
            nullable = nullable or "null" in types
            if "any" in types:  # Draft 3
                del kept["type"]
            else:
                kept["type"] = [name for name in dict.fromkeys(types) if name != "null"]
        if None in kept.get("enum", ()):
            nullable = True
            kept["enum"] = [value for value in kept["enum"] if value is not None]
            if not kept["enum"]:
                del kept["enum"]
                kept["type"] = []
        if "const" in kept and kept["const"] is None:
            del kept["const"]
            nullable, kept["type"] = True, []
        if nullable:
            kept["nullable"] = True

    def _error(self, rule: str, column: str | None, fix: str) -> BadSchema:
        return BadSchema(rule, stream=self._stream, column=column, fix=fix)


def _both(left: list[Alternative], right: list[Alternative]) -> list[Alternative]:
    """The alternatives of a value that matches one on each side."""
    if len(left) * len(right) > MAX_ALTERNATIVES:
        return [Alternative({}, frozenset(), opaque=True)]
    merged = [
        Alternative(_merge(a.keywords, b.keywords), a.active | b.active, a.opaque or b.opaque)
        for a in left
        for b in right
    ]
    return [m for m in merged if m.opaque or m.keywords.get("type") != [] or "nullable" in m.keywords]


def _merge(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """What both nodes say, as one node.

    Null is kept where either names it: people who write `allOf: [...], nullable: true` mean it, though the
    standard reads it otherwise.
    """
    merged = {**right, **left}
    possible = True
    for key in left.keys() & right.keys():
        a, b = left[key], right[key]
        if key in _TIGHTER:
            merged[key] = _TIGHTER[key](a, b)
        elif key == "type":
            merged[key] = [t for t in TYPES if (t in a and _includes(b, t)) or (t in b and _includes(a, t))]
        elif key == "enum":
            merged[key] = [x for x in a if any(same_value(x, y) for y in b)]
            possible = possible and bool(merged[key])
        elif key == "const":
            possible = possible and same_value(a, b)
        elif key in ("properties", "patternProperties"):
            common = {name: _conjunction(a[name], b[name]) for name in a if name in b}
            merged[key] = {**a, **b, **common}
        elif key == "required":
            merged[key] = [*a, *(name for name in b if name not in a)]
        elif key == "additionalProperties":
            merged[key] = False if a is False or b is False else _conjunction(a, b)
        elif key == "items" and isinstance(a, dict) and isinstance(b, dict):
            merged[key] = _conjunction(a, b)
    if not possible:
        merged["type"] = []
    return merged


def _includes(types: list[str], name: str) -> bool:
    return name in types or (name == "integer" and "number" in types)


def _conjunction(a: object, b: object) -> object:
    if a is True or a == b:
        return b
    return a if b is True else {"allOf": [a, b]}


def same_value(a: object, b: object) -> bool:
    """Whether two JSON values are equal. Python holds True and 1 for equal; JSON does not."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _is_finite_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return False
    return value.is_finite() if isinstance(value, Decimal) else isinstance(value, int) or math.isfinite(value)


def _json_name(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
