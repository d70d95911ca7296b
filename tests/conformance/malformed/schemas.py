"""Schemas that cannot become columns, or hardly."""

from __future__ import annotations

from typing import Any

from malformed import AFTER, ALL, BEFORE, Case, accepted, line, record, refused, schema, state


def bad(id_: str, shows: str, says: str, column: Any, **more: Any) -> Case:
    """A SCHEMA of another stream with a column that cannot be."""
    return refused(id_, shows, schema({"c": column}, stream="t"), says, **more)


def whole(id_: str, shows: str, says: str, json_schema: Any, **more: Any) -> Case:
    """A SCHEMA of another stream that cannot be as a whole."""
    message = {"type": "SCHEMA", "stream": "t", "schema": json_schema, "key_properties": []}
    return refused(id_, shows, line(message), says, **more)


def fine(id_: str, shows: str, column: Any, says: str = "", **members: Any) -> Case:
    """A SCHEMA with an odd column, and records."""
    data = schema({"c": column}) + record(1) + record(2) + state(2) + record(3) + record(9, **members) + AFTER
    return accepted(id_, shows, data, says, (*ALL, 9))


def _deep(levels: int) -> dict[str, Any]:
    column: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        column = {"type": "object", "properties": {"c": column}}
    return column


_BOMB = {
    f"d{n}": {
        "type": "object",
        "properties": {"a": {"$ref": f"#/definitions/d{n + 1}"}, "b": {"$ref": f"#/definitions/d{n + 1}"}},
    }
    for n in range(40)
}
_WIDE = {f"column_{number}": {"type": ["null", "integer"]} for number in range(5_000)}

CASES = [
    whole("schema-empty", "`{}` for a schema", "properties", {}),
    whole("schema-no-properties", "a schema without `properties`", "properties", {"type": "object"}),
    whole(
        "schema-empty-properties",
        "a schema with empty `properties`",
        "no columns",
        {"type": "object", "properties": {}},
    ),
    whole("schema-properties-list", "`properties` is a list", "properties", {"type": "object", "properties": ["id"]}),
    whole("schema-properties-null", "`properties` is null", "properties", {"type": "object", "properties": None}),
    whole(
        "schema-not-an-object",
        "a schema of type array",
        "object",
        {"type": "array", "items": {}, "properties": {"id": {}}},
    ),
    whole("schema-type-string", "a schema of type string", "object", {"type": "string", "properties": {"id": {}}}),
    whole(
        "schema-two-kinds",
        "two sets of properties to choose from",
        "propert",
        {"anyOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "string"}}}]},
    ),
    bad("schema-column-list", "a column's schema is a list", "c", [{"type": "string"}]),
    bad("schema-column-string", "a column's schema is a text", "c", "string"),
    bad("schema-column-null", "a column's schema is null", "c", None),
    bad("schema-column-false", "a column's schema is `false`", "c", False),
    fine("schema-column-true", "a column's schema is `true`: JSON text", True, c=[1]),
    fine("schema-type-any", 'type "any": JSON text', {"type": "any"}, c=[1]),
    bad("schema-type-unknown", 'type "varchar"', "varchar", {"type": "varchar"}),
    bad("schema-type-number", "type is a number", "type", {"type": 5}),
    fine("schema-type-null", "type is null (not the text): JSON text", {"type": None}, c=[1]),
    bad("schema-type-object", "type is an object", "type", {"type": {"a": 1}}),
    bad("schema-type-list-empty", "type is an empty list", "type", {"type": []}),
    bad("schema-type-list-mixed", "type is a list with a number in it", "type", {"type": ["string", 5]}),
    bad(
        "schema-contradiction",
        "`allOf` a text and a number",
        "no value",
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
    ),
    bad(
        "schema-properties-list-nested",
        "`properties` of a column is a list",
        "properties",
        {"type": "object", "properties": ["x"]},
    ),
    bad("schema-any-of-object", "`anyOf` is not a list", "anyOf", {"anyOf": {"type": "string"}}),
    fine("schema-any-of-empty", "`anyOf` is empty: JSON text", {"anyOf": []}, c=[1]),
    fine(
        "schema-required-string",
        "`required` is a text: passed over",
        {"type": "object", "properties": {"x": {"type": "string"}}, "required": "x"},
        c={"x": "a"},
    ),
    fine(
        "schema-required-draft-3",
        "`required: true`, as in Draft 3: passed over",
        {"type": "string", "required": True},
        c="a",
    ),
    bad("schema-enum-string", "`enum` is a text", "enum", {"enum": "abc"}),
    fine("schema-minimum-text", "`minimum` is a text: passed over", {"type": "integer", "minimum": "5"}, c=1),
    fine("schema-max-length-text", "`maxLength` is a text: passed over", {"type": "string", "maxLength": "5"}, c="a"),
    fine("schema-multiple-of-zero", "`multipleOf` is 0: passed over", {"type": "number", "multipleOf": 0}, c=1.5),
    bad("schema-format-number", "`format` is a number", "format", {"type": "string", "format": 5}),
    bad(
        "schema-pattern-broken",
        "a `pattern` that is no regular expression",
        "pattern",
        {"type": "string", "pattern": "(["},
    ),
    bad("schema-pattern-look-ahead", "a `pattern` with look-ahead", "pattern", {"type": "string", "pattern": "^(?=a)"}),
    bad("schema-pattern-number", "`pattern` is a number", "pattern", {"type": "string", "pattern": 5}),
    fine(
        "schema-pattern-catastrophic",
        "a `pattern` that makes backtracking engines hang, and a text that does",
        {"type": "string", "pattern": "^(a+)+$"},
        c="a" * 50_000,
    ),
    bad(
        "schema-ref-remote",
        "a `$ref` to a URL",
        "$ref",
        {"$ref": "https://example.com/schema.json"},
        as_executable=True,
    ),
    bad("schema-ref-file", "a `$ref` to a file", "$ref", {"$ref": "file:///etc/passwd"}),
    bad("schema-ref-relative", "a `$ref` to a relative file", "$ref", {"$ref": "address.json#/definitions/a"}),
    bad("schema-ref-nowhere", "a `$ref` to what is not there", "$ref", {"$ref": "#/definitions/nothing"}),
    bad("schema-ref-number", "`$ref` is a number", "$ref", {"$ref": 5}),
    fine("schema-ref-itself", "a `$ref` to itself: JSON text", {"$ref": "#/properties/c"}, c=[1]),
    fine(
        "schema-ref-loop",
        "two `$ref` to each other: JSON text",
        {"$ref": "#/properties/c/definitions/a", "definitions": {"a": {"$ref": "#/properties/c"}}},
        c=[1],
    ),
    fine(
        "schema-ref-recursive",
        "a definition that holds itself: JSON text where it does",
        {"type": "object", "properties": {"next": {"$ref": "#/properties/c"}}},
        c={"next": {"next": {}}},
    ),
    whole(
        "schema-ref-bomb",
        "40 definitions of which each names the next twice",
        "50,000",
        {
            "type": "object",
            "definitions": {**_BOMB, "d40": {"type": "string"}},
            "properties": {"a": {"$ref": "#/definitions/d0"}},
        },
    ),
    fine("schema-deep", "objects 60 deep", _deep(60), c={"c": {"c": {}}}),
    fine("schema-deeper", "objects 200 deep: JSON text below the 64th", _deep(200), c={"c": {"c": {}}}),
    accepted("schema-wide", "5,000 columns", schema(_WIDE) + record(1) + record(2) + state(2) + record(3) + AFTER),
    fine(
        "schema-precision-text",
        "`precision` is a text: passed over",
        {"type": "number", "precision": "12", "scale": 2},
        c=1.5,
    ),
    fine(
        "schema-scale-above-precision",
        "`scale` is greater than `precision`",
        {"type": "number", "precision": 2, "scale": 12},
        c=0.5,
    ),
    fine(
        "schema-precision-negative",
        "`precision` is negative: passed over",
        {"type": "number", "precision": -5, "scale": 0},
        c=1,
    ),
    fine(
        "schema-decimal-50-10",
        "a decimal of 50 digits, cut to 38",
        {"type": "number", "precision": 50, "scale": 10},
        c=1.5,
    ),
    bad(
        "schema-column-names-case",
        "columns that differ in case only",
        "letter case",
        {"type": "object", "properties": {"a": {"type": "string"}, "A": {"type": "string"}}},
    ),
    bad("schema-items-string", "`items` is a text", "c[]", {"type": "array", "items": "string"}),
    fine(
        "schema-format-unknown", "a `format` that is not known: text", {"type": "string", "format": "colour"}, c="red"
    ),
    fine(
        "schema-default",
        "keywords that say nothing about the value",
        {"type": "string", "title": 5, "default": [], "description": None, "$comment": {}, "x-own": 1},
        c="a",
    ),
    Case(
        "schema-override-unknown-type",
        "a type in `column_types` that does not exist",
        BEFORE + AFTER,
        exit_code=2,
        says="column_types",
        landed=(),
        stdout=b"",
        config={"column_types": {"s": {"note": "varchar"}}},
        names_line=False,
        directory=None,
    ),
    Case(
        "schema-override-unknown-column",
        "a column in `column_types` that the stream does not have",
        BEFORE + AFTER,
        exit_code=2,
        says="column_types",
        landed=(),
        stdout=b"",
        config={"column_types": {"s": {"nota": "string"}}},
        names_line=False,
        directory=None,
    ),
]
