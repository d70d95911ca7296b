"""A stream's JSON Schema, as the journal keeps it, in words that fit into a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["changes", "column_types", "type_text"]


def column_types(facts: Mapping[str, Any] | None) -> dict[str, str]:
    """The columns of a stream and their types; empty if the journal knows none.

    They are those of the table that all its files can be read as; of older entries, those of the tap's schema.
    """
    columns = (facts or {}).get("columns")
    if isinstance(columns, Mapping):
        return {name: _table_type(each) for name, each in columns.items()}
    schema = (facts or {}).get("schema")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return {name: type_text(node) for name, node in properties.items()} if isinstance(properties, Mapping) else {}


def _table_type(described: Any) -> str:
    """A column's type as `melisma.arrow.table` describes it."""
    if not isinstance(described, Mapping):
        return str(described)
    ((kind, inner),) = described.items()
    if kind == "object":
        return f"object<{', '.join(f'{name}: {_table_type(each)}' for name, each in inner.items())}>"
    return f"{kind}<{_table_type(inner)}>"


def type_text(node: Any) -> str:
    """A type as one word: `integer`, `string?` (nullable), `string(date-time)`, `array<string>`."""
    if not isinstance(node, Mapping):
        return "any"
    if "$ref" in node:
        return str(node["$ref"]).rpartition("/")[2]
    options = node.get("anyOf") or node.get("oneOf")
    if isinstance(options, list):
        texts = [type_text(option) for option in options]
        nullable = "null" in texts or any(text.endswith("?") for text in texts)
        kinds = dict.fromkeys(text.removesuffix("?") for text in texts if text != "null")
        return "|".join(kinds) + ("?" if nullable else "")
    kind = node.get("type", "any")
    names = [kind] if isinstance(kind, str) else list(kind)
    plain = [_detailed(name, node) for name in names if name != "null"]
    if not plain:
        return "null"
    return "|".join(plain) + ("?" if "null" in names else "")


def changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """What differs between two schemas of a stream, in one line; empty if no column and no key does."""
    new = column_types(after)
    if before is None:
        return f"first seen, {len(new)} columns"
    old = column_types(before)
    parts = [f"+{name} {kind}" for name, kind in new.items() if name not in old]
    parts += [f"-{name}" for name in old if name not in new]
    parts += [f"{name}: {old[name]} -> {kind}" for name, kind in new.items() if name in old and old[name] != kind]
    if before.get("key_properties") != after.get("key_properties"):
        parts.append(f"key: {_key(before)} -> {_key(after)}")
    return ", ".join(parts)


def _detailed(name: str, node: Mapping[str, Any]) -> str:
    if name == "array" and isinstance(node.get("items"), Mapping):
        return f"array<{type_text(node['items'])}>"
    if name == "object" and isinstance(node.get("properties"), Mapping):
        return f"object<{', '.join(f'{key}: {type_text(value)}' for key, value in node['properties'].items())}>"
    detail = node.get("format") or node.get("contentEncoding")
    if name == "string" and detail:
        return f"string({detail})"
    if name == "number" and "multipleOf" in node:
        return f"number(multipleOf {node['multipleOf']})"
    return name


def _key(facts: Mapping[str, Any]) -> str:
    return "(" + ", ".join(facts.get("key_properties") or []) + ")"
