"""What a catalog says of a column, held against what the database says of it now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["is_text", "plain", "unchanged"]

Node = dict[str, Any]


def plain(node: Mapping[str, Any]) -> Node:
    """A column's schema without what does not bear on its values: null, titles, descriptions."""
    kinds = node.get("type", [])
    types = [kinds] if isinstance(kinds, str) else [kind for kind in kinds if kind != "null"]
    kept: Node = {key: value for key, value in node.items() if key not in {"type", "title", "description"}}
    if isinstance(node.get("properties"), dict):
        kept["properties"] = {name: plain(member) for name, member in node["properties"].items()}
    for member in ("items", "additionalProperties"):
        if isinstance(node.get(member), dict):
            kept[member] = plain(node[member])
    return {"type": types[0] if len(types) == 1 else types, **kept}


def unchanged(now: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
    """Whether a column can be read as the catalog has it: the same type, or text with more said of it."""
    found, wanted = plain(now), plain(then)
    return found == wanted or found == {"type": "string"} == {"type": wanted["type"]}


def is_text(node: Mapping[str, Any]) -> bool:
    """Whether the catalog wants the column as text and nothing else: a way out for every type."""
    return plain(node) == {"type": "string"}
