"""JSON Schema to columns: the goldens hold the table, the rest what a table cannot show."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melisma.arrow import schema as schema_module
from melisma.arrow import type_table
from melisma.arrow.schema import stream_schema
from melisma.arrow.types import ColumnType, Kind, StreamSchema
from melisma.errors import BadSchema, ConfigError

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "types"


def render(schema: StreamSchema) -> str:
    """A stream's columns as text: one line for each, what it holds indented below."""
    lines = [f"{schema.stream}, key: {', '.join(map(repr, schema.key_properties)) or 'none'}"]
    lines += ["closed"] if schema.root.closed else []

    def add(name: str, column: ColumnType, depth: int, *, required: bool = False) -> None:
        notes = [] if column.nullable else ["not null"]
        notes += ["required"] if required else []
        notes += ["closed"] if column.closed else []
        notes += [f"{k}={json.dumps(v)}" for k, v in column.schema.items() if k not in ("type", "required")]
        nested = column.kind in {Kind.STRUCT, Kind.LIST, Kind.MAP}
        arrow = column.kind.value if nested or column.kind is Kind.JSON else str(column.arrow)
        lines.append(f"{'  ' * depth}{json.dumps(name, ensure_ascii=False)}: {', '.join([arrow, *notes])}")
        for member in column.fields:
            add(member.name, member.type, depth + 1, required=member.required)
        if column.item is not None:
            add("[]" if column.kind is Kind.LIST else "*", column.item, depth + 1)

    for field in schema.fields:
        add(field.name, field.type, 0, required=field.required)
    return "\n".join(lines) + "\n"


def column(node: object, **overrides: str) -> ColumnType:
    """The column that one node becomes."""
    return stream_schema("s", {"type": "object", "properties": {"c": node}}, (), overrides).fields[0].type


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    """A schema as a real tap writes it gives the columns of the golden beside it (REGENERATE=1 rewrites them)."""
    message = json.loads(path.read_text())
    schema = stream_schema(message["stream"], message["schema"], message["key_properties"], message.get("column_types"))
    golden = path.with_suffix(".txt")
    if os.environ.get("REGENERATE"):
        golden.write_text(render(schema))
    assert render(schema) == golden.read_text()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_golden_with_decimals(path: Path) -> None:
    """A schema whose fractions were read as Decimal gives the same columns as one read as float."""
    message = json.loads(path.read_text(), parse_float=Decimal)
    floats = json.loads(path.read_text())
    types = message.get("column_types")
    assert (
        stream_schema("s", message["schema"], (), types).arrow == stream_schema("s", floats["schema"], (), types).arrow
    )


def test_page_is_in_step() -> None:
    """docs/types.md is what the mapping says today."""
    assert (ROOT / "docs" / "types.md").read_text() == type_table.markdown()


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"multipleOf": 0.05}, "decimal128(38, 2)"),
        ({"multipleOf": 9.999999999999999e-24}, "decimal128(38, 23)"),
        ({"multipleOf": Decimal("1E-28")}, "decimal128(38, 28)"),
        ({"multipleOf": Decimal("1E-29")}, "decimal128(38, 18)"),
        ({"multipleOf": 1000}, "decimal128(38, 0)"),
        ({"multipleOf": 0}, "double"),
        ({"multipleOf": 0.01, "minimum": 0}, "decimal128(38, 2)"),
        ({"multipleOf": 0.01, "minimum": 0, "maximum": 100}, "decimal128(5, 2)"),
        ({"multipleOf": 0.01, "minimum": 0, "exclusiveMaximum": 100}, "decimal128(4, 2)"),
        ({"multipleOf": 0.01, "minimum": -99.5, "maximum": 1e6}, "decimal128(9, 2)"),
        ({"multipleOf": 1, "minimum": 0, "maximum": 0}, "decimal128(1, 0)"),
        ({"precision": 5, "scale": -2}, "decimal128(7, 0)"),
        ({"precision": 3, "scale": 5}, "decimal128(5, 5)"),
        ({"precision": 10}, "decimal128(38, 18)"),
        ({"scale": 4}, "decimal128(38, 4)"),
        ({"precision": "ten", "scale": True}, "double"),
        ({"precision": 76, "scale": 38}, "decimal128(38, 18)"),
    ],
)
def test_decimal_digits(node: dict[str, Any], expected: str) -> None:
    """A number's digits are read from what the tap says about them."""
    assert str(column({"type": "number", **node}).arrow) == expected


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"minimum": -(2**63), "maximum": 2**63 - 1}, pa.int64()),
        ({"minimum": -(2.0**63), "maximum": 2.0**63}, pa.int64()),
        ({"exclusiveMaximum": 2**63}, pa.int64()),
        ({"maximum": 2**63, "exclusiveMaximum": True}, pa.int64()),
        ({"minimum": 0}, pa.int64()),
        ({"minimum": 0, "maximum": 2**63}, pa.uint64()),
        ({"minimum": 0, "maximum": 2.0**64}, pa.uint64()),
        ({"exclusiveMinimum": -1, "exclusiveMaximum": 2**64}, pa.uint64()),
        ({"minimum": -1, "maximum": 2**63}, pa.decimal128(38, 0)),
        ({"maximum": 2**64 - 1}, pa.decimal128(38, 0)),
        ({"minimum": -(2**63) - 1}, pa.decimal128(38, 0)),
        ({"maximum": 10**5000}, pa.decimal128(38, 0)),
        ({"maximum": Decimal("1E+999999")}, pa.decimal128(38, 0)),
        ({"minimum": float("-inf"), "maximum": "10"}, pa.int64()),
    ],
)
def test_integer_width(bounds: dict[str, Any], expected: pa.DataType) -> None:
    """An integer is as wide as its bounds need, inclusive or exclusive, Draft 4 or later."""
    assert column({"type": "integer", **bounds}).arrow == expected


@pytest.mark.parametrize(
    ("node", "kind", "nullable"),
    [
        ({"type": "string", "nullable": True}, Kind.STRING, True),
        ({"type": "string", "enum": ["a", None]}, Kind.STRING, True),
        ({"type": ["string", "null"], "enum": ["a"]}, Kind.STRING, True),
        ({"const": 3}, Kind.INTEGER, False),
        ({"const": True}, Kind.BOOLEAN, False),
        ({"const": None}, Kind.JSON, True),
        ({"enum": [{"a": 1}]}, Kind.JSON, False),
        ({"format": "date"}, Kind.DATE, True),
        ({"type": "string", "anyOf": [{"format": "date"}, {"type": "null"}]}, Kind.DATE, True),
        ({"allOf": [{"type": "integer"}], "nullable": True}, Kind.INTEGER, True),
        ({"allOf": [{"type": ["integer", "string"]}, {"type": ["number"]}]}, Kind.INTEGER, False),
        ({"anyOf": [{"type": "string"}, False]}, Kind.STRING, False),
        ({"anyOf": [{"type": "string"}, {}]}, Kind.JSON, True),
        ({"anyOf": [{"type": "string", "format": "uuid"}, {"type": "string", "format": "uri"}]}, Kind.STRING, False),
        ({"anyOf": [{"type": "string", "format": "decimal"}, {"type": "number"}]}, Kind.DECIMAL, False),
        ({"anyOf": [{"type": "string", "format": "decimal"}, {"type": "string"}]}, Kind.STRING, False),
        ({"type": "any"}, Kind.JSON, True),
        ({"type": "array", "items": False}, Kind.JSON, False),
        ({"type": None, "description": "x"}, Kind.JSON, True),
    ],
)
def test_choices(node: dict[str, Any], kind: Kind, nullable: bool) -> None:
    """Null, missing types and combinations come down to one kind."""
    found = column(node)
    assert (found.kind, found.nullable) == (kind, nullable)


def test_choices_of_one_shape_keep_only_what_all_demand() -> None:
    """A struct that must have `a` or `b` requires neither, and bounds of one choice bind nobody."""
    node = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"], "properties": {"b": {"maxLength": 3}}}],
    }
    found = column(node)
    assert found.kind is Kind.STRUCT
    assert [f.required for f in found.fields] == [False, False]
    assert [f.type.schema for f in found.fields] == [{"type": "string"}, {"type": "string"}]


def test_constraints_are_in_one_form() -> None:
    """The validator sees exclusive bounds as numbers, no null, and the tighter of two bounds."""
    node = {
        "type": ["null", "integer"],
        "maximum": 9,
        "exclusiveMaximum": True,
        "enum": [1, None],
        "allOf": [{"minimum": 0}, {"minimum": 1, "title": "x"}],
    }
    assert column(node).schema == {"type": "integer", "enum": [1], "exclusiveMaximum": 9, "minimum": 1}


def test_unknown_fields_that_a_pattern_allows_are_not_dropped_unseen() -> None:
    """An object is closed only if its schema really allows no other fields."""
    node = {"type": "object", "properties": {"a": {}}, "additionalProperties": False}
    assert column(node).closed
    assert not column({**node, "patternProperties": {"^x": {}}}).closed


def test_depth_is_limited() -> None:
    """What lies deeper than 64 levels becomes JSON text; neither deep nesting nor deep choices break the mapping."""
    deep: dict[str, Any] = {"type": "string"}
    choices: dict[str, Any] = {"type": "string"}
    for _ in range(300):
        deep = {"type": "object", "properties": {"a": deep}}
        choices = {"anyOf": [choices, {"type": "null"}]}
    found, levels = column(deep), 1
    while found.fields:
        found, levels = found.fields[0].type, levels + 1
    assert (found.kind, levels) == (Kind.JSON, 65)
    assert column(choices).kind is Kind.JSON


def test_references_that_multiply_are_refused() -> None:
    """Thirty definitions of two references each do not eat the machine."""
    definitions: dict[str, Any] = {
        f"d{i}": {"type": "object", "properties": {n: {"$ref": f"#/definitions/d{i + 1}"} for n in "ab"}}
        for i in range(30)
    }
    definitions["d30"] = {"type": "string"}
    schema = {"properties": {"c": {"$ref": "#/definitions/d0"}}, "definitions": definitions}
    with pytest.raises(BadSchema, match="more than 50,000 nodes"):
        stream_schema("s", schema)
    assert stream_schema("s", schema, (), {"c": "json"}).fields[0].type.kind is Kind.JSON


def test_a_wide_definition_that_is_named_often_is_refused() -> None:
    """Columns that are alike count as others do."""
    wide = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(1_000)}}
    properties = {f"c{i}": {"$ref": "#/definitions/wide"} for i in range(60)}
    with pytest.raises(BadSchema, match="more than 50,000 nodes"):
        stream_schema("s", {"properties": properties, "definitions": {"wide": wide}})


def test_five_thousand_columns() -> None:
    """A very wide stream keeps every column, in order."""
    names = [f"column_{i}" for i in range(5000)]
    node = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
    schema = stream_schema("s", {"type": "object", "properties": dict.fromkeys(names, node)})
    assert schema.arrow.names == names


def test_names_survive_parquet(tmp_path: Path) -> None:
    """Any name comes back from a file, the empty one and one with NUL too."""
    names = ["", "a.b", "UPPER", "nul\0inside", "\U0001f3b5", "'\"`;--"]
    schema = stream_schema("s", {"properties": {name: {"type": "integer"} for name in names}}).arrow
    path = tmp_path / "names.parquet"
    pq.write_table(pa.table([[i] for i in range(len(names))], schema=schema), path)
    assert pq.read_schema(path).names == names
    read = duckdb.read_parquet(str(path))
    assert read.columns[1:] == names[1:]  # DuckDB gives the empty name one of its own
    assert read.fetchall() == [tuple(range(len(names)))]


REFUSED: list[tuple[str, object, object, str]] = [
    ("not an object", [], (), "not an object"),
    ("no properties", {"type": "object"}, (), "no properties"),
    ("empty", {}, (), "no properties"),
    ("properties is a list", {"properties": []}, (), '"properties" in its schema is a list'),
    ("root is a string", {"type": "string", "properties": {}}, (), "type is not object"),
    ("root has variants", {"anyOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, (), "more than one set"),
    ("root points to itself", {"$ref": "#", "properties": {}}, (), "no properties"),
    ("unknown type", {"properties": {"c": {"type": "int"}}}, (), 'column "c": unknown type "int"'),
    ("type is an object", {"properties": {"c": {"type": [{}]}}}, (), 'column "c": type is not a name'),
    ("false", {"properties": {"c": False}}, (), 'column "c": no value can match'),
    ("contradiction", {"properties": {"c": {"allOf": [{"const": 1}, {"const": 2}]}}}, (), "no value can match"),
    ("column is a string", {"properties": {"c": "string"}}, (), 'column "c": its schema is a string'),
    ("column is null", {"properties": {"c": None}}, (), 'column "c": its schema is null'),
    ("enum is an object", {"properties": {"c": {"enum": {}}}}, (), '"enum" in its schema is an object'),
    ("url", {"properties": {"a": {"properties": {"b": {"$ref": "http://x/y#/z"}}}}}, (), 'column "a.b": $ref "http'),
    ("file", {"properties": {"c": {"items": {"$ref": "x.json"}}}}, (), 'column "c[]": $ref "x.json" leads out'),
    ("nothing there", {"properties": {"c": {"$ref": "#/definitions/x"}}}, (), "names nothing"),
    ("not a pointer", {"properties": {"c": {"$ref": "#name"}}}, (), "names nothing"),
    ("not a schema there", {"properties": {"c": {"$ref": "#/title"}}, "title": "x"}, (), "is a string"),
    ("case", {"properties": {"Id": {}, "iD": {}}}, (), 'columns "Id" and "iD" differ only in letter case'),
    ("case, nested", {"properties": {"c": {"properties": {"A": {}, "a": {}}}}}, (), 'column "c": members "A" and "a"'),
    ("half a surrogate", {"properties": {"\ud800": {}}}, (), "not valid Unicode"),
    ("key missing", {"properties": {"c": {}}}, ["id"], 'column "id": key_properties names it, but'),
    ("key twice", {"properties": {"id": {}}}, ["id", "id"], "twice"),
    ("key is a string", {"properties": {"id": {}}}, "id", "not a list"),
    ("key is a number", {"properties": {"id": {}}}, [1], "not a list"),
]


@pytest.mark.parametrize(("schema", "key", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused(schema: Any, key: Any, message: str) -> None:
    """What cannot be mapped is one line that names the stream, the place and the rule."""
    with pytest.raises(BadSchema) as caught:
        stream_schema("orders", schema, key)
    text = str(caught.value)
    assert text.startswith('stream "orders"')
    assert message in text
    assert "\n" not in text
    assert caught.value.fix


def test_no_key_and_no_columns_are_fine() -> None:
    """Taps write null for no key; a stream may have no columns, and say that it is nullable."""
    schema = stream_schema("s", {"type": ["null", "object"], "properties": {}}, None)
    assert (schema.key_properties, schema.fields) == ((), ())


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ({"x": "string"}, "no such column"),
        ({"TOTAL": "string"}, 'Did you mean "total"?'),
        ({"address.zap": "string"}, 'Did you mean "address.zip"'),
        ({"total": "text"}, "Valid names are string, integer, uint64"),
        ({"total": "decimal(39,0)"}, "p is 1 to 38"),
        ({"total": "decimal(5,6)"}, "p is 1 to 38"),
        ({"total": 5}, "Valid names are"),
    ],
)
def test_wrong_override(types: Any, message: str) -> None:
    """A wrong override is an error that names the setting and what would be right."""
    schema = {"properties": {"total": {"type": "number"}, "address": {"properties": {"zip": {"type": "string"}}}}}
    with pytest.raises(ConfigError) as caught:
        stream_schema("orders", schema, (), types)
    assert f"column_types.orders.{next(iter(types))}" in str(caught.value)
    assert message in str(caught.value)


def test_override_keeps_nullability_and_drops_constraints() -> None:
    """An override replaces the type with all that was said about it, but not whether null is allowed."""
    found = column({"type": "string", "format": "date-time", "maxLength": 20}, c=" Decimal( 38 , 9 ) ")
    assert found == ColumnType(Kind.DECIMAL, pa.decimal128(38, 9), nullable=False)


_KEYWORDS = [
    *("type", "properties", "items", "anyOf", "allOf", "$ref", "enum", "const", "a", "A", "multipleOf", "minimum"),
    *("maximum", "exclusiveMaximum", "additionalProperties", "required", "format", "nullable"),
]
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["string", "#", "date", "#/properties/a"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(_KEYWORDS), children, max_size=4),
    max_leaves=20,
)


_SCALARS = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "integer", "number", "boolean", "null", "object", ["string", "null"], "none"])},
    optional={
        "format": st.sampled_from(["date", "time", "date-time", "uuid", "int64"]),
        "maximum": st.sampled_from([1, 1.0, True, "1", Decimal(1), 2**63, 2**70]),
        "maxLength": st.integers(0, 3),
        "nullable": st.booleans(),
        "multipleOf": st.sampled_from([1, 0.01, Decimal("0.01")]),
        "precision": st.integers(1, 40),
        "enum": st.just(["a"]),
        "description": st.text(max_size=3),
    },
)


@given(st.lists(_SCALARS | _JSON, min_size=2, max_size=5))
def test_columns_that_were_read_before_are_read_the_same(nodes: list[Any]) -> None:
    """What is kept of a node is what the node says, whatever came before it."""

    def read(node: Any) -> str:
        try:
            found = column(node)
        except BadSchema as error:
            return str(error)
        return repr(found)

    alone = []
    for node in nodes:
        schema_module._LEAVES.clear()
        alone.append(read(node))
    assert [read(node) for node in nodes + nodes] == alone + alone


@given(_JSON)
def test_any_json_maps_or_is_refused(node: Any) -> None:
    """Whatever stands where a schema should, there is a column or a BadSchema, never another exception."""
    try:
        found = stream_schema("s", {"properties": {"a": node, "b": {"type": "string"}}})
    except BadSchema as error:
        assert "\n" not in str(error)
    else:
        assert found.arrow.names == ["a", "b"]
