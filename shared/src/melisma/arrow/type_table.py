"""The page `docs/types.md`, worked out from the mapping itself.

Each row is an example that is mapped when the page is written, so that the page cannot say other than what the
code does; only the remarks are prose. `python -m melisma.arrow.type_table > docs/types.md` writes it anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from melisma.arrow.column_types import TYPE_NAMES, named_type
from melisma.arrow.json_schema import json_schema
from melisma.arrow.refs import MAX_ALTERNATIVES, MAX_DEPTH, MAX_NODES
from melisma.arrow.schema import stream_schema
from melisma.arrow.types import ColumnType, Kind

__all__ = ["markdown"]

_Rows = tuple[tuple[dict[str, Any], str], ...]

_SCALARS: _Rows = (
    ({"type": "boolean"}, ""),
    ({"type": "integer"}, "A value beyond 64 bits is an error that names the override."),
    ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, "As SQL taps write a bigint."),
    ({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, "Bounds from 0 to at most 2^64-1."),
    ({"type": "integer", "minimum": 0, "maximum": 2**64}, "Any other bound beyond 64 bits."),
    ({"type": "number"}, "The nearest double, by definition."),
    ({"type": "number", "multipleOf": 0.01}, "`multipleOf` says how many digits follow the point."),
    (
        {"type": "number", "multipleOf": 0.01, "minimum": -1e8, "maximum": 1e8, "exclusiveMaximum": True,
         "exclusiveMinimum": True},
        "Bounds on both sides say how many digits come before it.",
    ),
    ({"type": "number", "multipleOf": 1}, "A whole number of any size."),
    ({"type": "number", "multipleOf": 1e-38}, "Fewer than 10 digits would be left before the point: 18 follow it."),
    ({"type": "number", "precision": 12, "scale": 4}, "Also inside `decimal: {...}`. Before `multipleOf`."),
    ({"type": "number", "precision": 50, "scale": 10}, "Wider than 38 digits: 38, at most 18 of them after the point."),
    ({"type": "string", "format": "singer.decimal"}, "Also `decimal`, `x-singer.decimal`, and with digits."),
    ({"type": "string"}, "Other formats (uuid, email, ...) and encodings stay strings."),
    ({"type": "string", "format": "date-time"}, "No offset means UTC. More than six fraction digits is an error."),
    ({"type": "string", "format": "date"}, ""),
    ({"type": "string", "format": "time"}, ""),
    ({"type": "string", "contentEncoding": "base64"}, "The bytes, decoded."),
)  # fmt: skip

_NESTED: _Rows = (
    ({"type": "object", "properties": {"id": {"type": "integer"}, "zip": {"type": "string"}}},
     "With or without `additionalProperties`; see fields without a name in the schema."),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, "A schema for the values, and no `properties`."),
    ({"type": "object"}, "No properties, empty ones, or `patternProperties` alone."),
    ({"type": "array", "items": {"type": "string"}}, ""),
    ({"type": "array"}, "Also `items: {}`, `items: true` and a list of schemas (a tuple)."),
    ({"type": "array", "items": {"type": ["integer", "string"]}}, "The items mix types: each is JSON text."),
    ({}, "Also `true`. `false` is an error."),
)  # fmt: skip

_UNIONS: _Rows = (
    ({"type": ["null", "string"]}, "Null aside, one type is left."),
    ({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}, "`oneOf` likewise."),
    ({"type": ["integer", "number"]}, "Integers and plain numbers."),
    ({"type": ["integer", "number"], "multipleOf": 0.01}, "Integers and decimals: a decimal that holds both."),
    ({"type": ["integer", "string"], "format": "singer.decimal"}, "Numbers and decimals in text."),
    ({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string"}]},
     "Strings of different formats: the text as it came."),
    ({"oneOf": [{"const": "open"}, {"const": "closed"}]}, "Values of one type, and an `enum` of them all."),
    ({"type": ["string", "integer"]},
     'Anything else mixed. The string keeps its quotes (`"7"`), the number has none (`7`).'),
    ({"anyOf": [{"type": "string"}, {"type": "object", "properties": {"id": {"type": "string"}}}]},
     "For example an id, or the object when expanded."),
    ({"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "boolean"}}}]},
     "Merged: all properties, the tighter bounds."),
    ({"enum": ["a", "b", None]}, "Without `type`, the values say it; or `properties`, `items`, `format`, bounds, ..."),
    ({"type": "null"}, "Nothing but null is expected; whatever comes is kept."),
)  # fmt: skip

_ARROW: tuple[tuple[str, pa.DataType], ...] = (
    ("bool", pa.bool_()),
    ("int8 to int64, uint8 to uint32", pa.int32()),
    ("uint64", pa.uint64()),
    ("float16, float32, float64", pa.float32()),
    ("decimal32, 64, 128, 256 (p, s)", pa.decimal128(12, 4)),
    ("string, large_string, string_view", pa.string()),
    ("binary, large, fixed size, view", pa.binary()),
    ("date32, date64", pa.date32()),
    ("timestamp, any unit and zone", pa.timestamp("ns")),
    ("time32, time64", pa.time64("us")),
    ("duration", pa.duration("s")),
    ("null", pa.null()),
    ("struct", pa.struct([("id", pa.int64())])),
    ("list, large, fixed size, views", pa.list_(pa.string())),
    ("map", pa.map_(pa.string(), pa.int64())),
    ("dictionary, run-end encoded", pa.dictionary(pa.int8(), pa.string())),
    ("extension types", pa.uuid()),
)

_PAGE = """\
# Types

<!-- Written by melisma.arrow.type_table; a test compares. Write it anew with:
     python -m melisma.arrow.type_table > docs/types.md -->

How a Singer stream's JSON Schema becomes columns, and how the columns of a tap become JSON Schema. The rule behind
both tables: lossless or an error, never a silent change. Where no column type holds every value that the schema
allows, the column becomes *JSON text*: a string column that holds each value as JSON, exactly.

How a column then stands in a file of each format is in [formats](formats.md#what-targets-write).

## From JSON Schema to columns

Every column and member may hold null in the file. Null is allowed by the schema where `type`, `enum` or `const` names
it, where `nullable: true` stands (OpenAPI), or where nothing says what the value is; elsewhere a null is a bad record.

### Plain values

{scalars}

`exclusiveMinimum` and `exclusiveMaximum` may be numbers, or booleans as in Draft 4 and in what PipelineWise taps write.
A decimal's value that does not fit its digits is never rounded: it is an error that names the override.

### Objects and arrays

{nested}

### Choices

{unions}

### References

`$ref` is followed inside the schema (`#/definitions/...`, `#/$defs/...`, any JSON pointer). A reference that leads to a
file or a URL is refused, and so is one that names nothing. Where a definition holds itself, the inner one becomes JSON
text; so does what lies more than {depth} levels deep, and a choice between more than {alternatives} schemas. A schema
that comes to more than {nodes} nodes with all references followed is refused.

### What values are held to

With `validate_records`, values are held to `required`, null, `enum`, `const`, bounds, lengths, `pattern` and formats.
Where one column takes in several choices, to what all of them demand, or to one of all their values. What lies inside
JSON text is not looked into.
`not`, `if`, `dependencies` and `contains` are not looked at.

### Fields without a name in the schema

A record's field that `properties` does not name falls under the setting `on_unknown_field`, whatever type
`additionalProperties` gives it.

## Overrides

`column_types` sets a column's type, whatever the schema says, per stream and column:

```json
{{
  "column_types": {{
    "orders": {{"total": "decimal(38,9)", "address.zip": "string", "tags[]": "integer", "labels.*": "json"}}
  }}
}}
```

A member of an object is written `address.zip`, the items of an array `tags[]`, the values of a map `labels.*`, as in
error messages. Names of columns are written exactly as the stream has them. An override for the items makes an array
without `items` a list, and one for the values makes an object without properties a map. A column keeps its place and
whether it may be null; its bounds, formats and other constraints go with the type that they belonged to. It is the
way out of a schema that cannot be mapped, too: what is under an override is not looked at.

{overrides}

The names may be written in any letter case. In `decimal(p,s)`, p is 1 to 38 digits in all, s of them
after the point. An override for a column that the stream does not have is an error.

## From Arrow to JSON Schema

What a tap that reads typed data writes into its catalog. Everything may be null (left out here).

{arrow}

A decimal says its digits in `precision` and `scale`, which validators pass over, and not in `multipleOf`: of values
with more than 28 digits Python's decimal refuses the remainder, and with doubles 0.07 is no multiple of 0.01, so that
other targets would fail on correct data. Unions and calendar intervals have no form in JSON and are an error.

## Names

Columns and members keep their names exactly: upper case, dots, blanks, emoji, NUL and the empty name too. (DuckDB shows
an empty name as one of its own, such as `C1`. Where a library hands tables on through Arrow's C interface, a name ends
at its first NUL.)

## What is an error

A schema that cannot be mapped ends the run with exit code 3 and one line that names the stream and the column:

- the stream's schema is not an object with `properties` (an empty one is a stream without columns);
- a type that JSON Schema does not have (`int`), or a keyword of the wrong shape (`properties` as a list);
- no value can match (`false`; `allOf` of a string and an integer);
- a `$ref` out of the schema, or to nothing; a schema that grows without end;
- two columns, or two members of one object, that differ only in letter case: DuckDB and Spark cannot tell them apart;
- a name that is not valid Unicode;
- `key_properties` that names a column twice, or one that is not there.

A wrong `column_types` ends it with exit code 2.
"""


def markdown() -> str:
    """The page as Markdown."""
    overrides = [(f"`{name}`", f"`{_arrow_name(_override(name)).replace('38, 9', 'p, s')}`") for name in TYPE_NAMES]
    arrow = [(name, _code(_without_null(json_schema(pa.schema([("c", t)]))))) for name, t in _ARROW]
    return _PAGE.format(
        scalars=_mapping_table(_SCALARS),
        nested=_mapping_table(_NESTED),
        unions=_mapping_table(_UNIONS),
        overrides=_table(("Name", "Column"), overrides),
        arrow=_table(("Arrow", "JSON Schema"), arrow),
        depth=MAX_DEPTH,
        alternatives=f"{MAX_ALTERNATIVES:,}",
        nodes=f"{MAX_NODES:,}",
    )


def _override(name: str) -> ColumnType:
    return named_type("column_types", name.replace("(p,s)", "(38,9)"))


def _mapping_table(rows: _Rows) -> str:
    cells = []
    for node, remark in rows:
        column = stream_schema("example", {"properties": {"c": node}}).fields[0].type
        cells.append((_code(node), f"`{_arrow_name(column)}`", remark))
    return _table(("JSON Schema", "Column", ""), cells)


def _arrow_name(column: ColumnType) -> str:
    if column.kind is Kind.JSON:
        return "JSON text"
    if column.kind is Kind.STRUCT:
        return f"struct<{', '.join(f'{f.name}: {_arrow_name(f.type)}' for f in column.fields)}>"
    if column.kind is Kind.LIST:
        return f"list<{_arrow_name(column.items)}>"
    if column.kind is Kind.MAP:
        return f"map<string, {_arrow_name(column.items)}>"
    return str(column.arrow).replace("tz=", "").replace("double", "float64").replace("[day]", "")


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A column's node as it reads without its nulls."""

    def plain(node: dict[str, Any]) -> dict[str, Any]:
        node = {**node, "type": node["type"][0]}
        if "properties" in node:
            node["properties"] = {name: plain(member) for name, member in node["properties"].items()}
        for key in ("items", "additionalProperties"):
            if key in node:
                node[key] = plain(node[key])
        return node

    return plain(schema["properties"]["c"])


def _code(value: object) -> str:
    return f"`{json.dumps(value)}`"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.stdout.write(markdown())
