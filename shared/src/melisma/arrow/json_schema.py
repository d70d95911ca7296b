"""Arrow to JSON Schema: what a tap that reads Arrow writes into its catalog.

The other direction of the table in `docs/types.md`. Mapping the result back with `melisma.arrow.schema` gives the
same columns, with widths brought to melisma's own: int64 or uint64, float64, microseconds, decimals of at most 38
digits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from melisma.arrow.numeric import stored_digits
from melisma.errors import BadSchema, printable

__all__ = ["json_schema"]

_UINT64 = {"minimum": 0, "maximum": 2**64 - 1}

_SCALARS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("boolean",), {"type": "boolean"}),
    (("uint64",), {"type": "integer", **_UINT64}),
    (("integer",), {"type": "integer"}),
    (("floating",), {"type": "number"}),
    (("string", "large_string", "string_view", "null"), {"type": "string"}),
    (("timestamp",), {"type": "string", "format": "date-time"}),
    (("date",), {"type": "string", "format": "date"}),
    (("time",), {"type": "string", "format": "time"}),
    (("duration",), {"type": "string", "format": "duration"}),
    (
        ("binary", "large_binary", "fixed_size_binary", "binary_view"),
        {"type": "string", "contentEncoding": "base64"},
    ),
)
"""By the first of the tests `pyarrow.types.is_...` that holds."""


def json_schema(schema: pa.Schema) -> dict[str, Any]:
    """The JSON Schema of a table's records; every column and member may be null.

    A decimal says its digits in `precision` and `scale` beside `"type": "number"`, and not in `multipleOf`: a
    validator takes the remainder of each value, which Python's decimal refuses beyond 28 digits and doubles get
    wrong (0.07 is no multiple of 0.01), so that other targets would fail on correct data.

    Raises:
        BadSchema: two columns have the same name, or a type has no form in JSON.
    """
    return {"type": "object", "properties": _properties(schema, None)}


def _properties(fields: Iterable[pa.Field], path: str | None) -> dict[str, Any]:
    repeated = [name for name, count in Counter(field.name for field in fields).items() if count > 1]
    if repeated:
        rule = f'two columns have the same name "{printable(repeated[0])}", which a JSON object cannot hold'
        raise BadSchema(rule, column=path, fix="Rename one of them in the source")
    return {field.name: _node(field.type, field.name if path is None else f"{path}.{field.name}") for field in fields}


def _node(arrow: pa.DataType, path: str) -> dict[str, Any]:
    node = _not_null(arrow, path)
    return {**node, "type": [node["type"], "null"]}


def _not_null(arrow: pa.DataType, path: str) -> dict[str, Any]:
    types = pa.types
    if isinstance(arrow, pa.BaseExtensionType):
        return _not_null(arrow.storage_type, path)
    if types.is_dictionary(arrow) or types.is_run_end_encoded(arrow):
        return _not_null(arrow.value_type, path)
    if types.is_decimal(arrow):
        precision, scale = stored_digits(arrow.precision, arrow.scale)
        return {"type": "number", "precision": precision, "scale": scale}
    if types.is_struct(arrow):
        return {"type": "object", "properties": _properties(list(arrow), path)}
    if types.is_map(arrow) and not types.is_nested(arrow.key_type):
        return {"type": "object", "additionalProperties": _node(arrow.item_type, f"{path}.*")}
    if _is_list(arrow):
        return {"type": "array", "items": _node(arrow.value_type, f"{path}[]")}
    for tests, node in _SCALARS:
        if any(getattr(types, f"is_{test}")(arrow) for test in tests):
            return dict(node)
    rule = f"the Arrow type {arrow} has no JSON form"
    raise BadSchema(rule, column=path, fix="Remove the column, or turn it into text in the source")


def _is_list(arrow: pa.DataType) -> bool:
    types = pa.types
    tests = (
        types.is_list,
        types.is_large_list,
        types.is_fixed_size_list,
        types.is_list_view,
        types.is_large_list_view,
    )
    return any(test(arrow) for test in tests)
