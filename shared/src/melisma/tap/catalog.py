"""JSON Schemas as they are, in catalogs.

singer-sdk's Schema class keeps the keywords that it knows and drops the others, `precision` and `scale` of decimals
among them: a catalog would lose the digits that discovery found.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from singer_sdk.singerlib import Catalog, Schema

from melisma.config import hold_to

__all__ = ["WholeSchema", "read_catalog"]

_METADATA = {
    "type": "object",
    "required": ["breadcrumb", "metadata"],
    "properties": {"breadcrumb": {"type": "array", "items": {"type": "string"}}, "metadata": {"type": "object"}},
}
_SHAPE: dict[str, Any] = {
    "type": "object",
    "required": ["streams"],
    "properties": {
        "streams": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tap_stream_id", "schema"],
                "properties": {
                    "tap_stream_id": {"type": "string"},
                    "schema": {"type": "object", "properties": {"properties": {"type": "object"}}},
                    "metadata": {"type": "array", "items": _METADATA},
                },
            },
        }
    },
}


class WholeSchema(Schema):
    """A schema that gives back every keyword it was made from."""

    _whole: dict[str, Any]

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> WholeSchema:
        """Keep a schema."""
        known = Schema.from_dict(dict(schema))
        kept = cls(**{name: getattr(known, name) for name in known.__dataclass_fields__})
        kept._whole = copy.deepcopy(dict(schema))
        return kept

    def to_dict(self) -> dict[str, Any]:
        """The schema with all its keywords."""
        return copy.deepcopy(self._whole)


def read_catalog(catalog: Mapping[str, Any]) -> Catalog:
    """A catalog whose schemas keep every keyword.

    Raises:
        ConfigError: it has not the shape of a catalog.
    """
    hold_to(_SHAPE, catalog, "catalog")
    parsed = Catalog.from_dict(copy.deepcopy(dict(catalog)))
    for stream in catalog["streams"]:
        parsed[stream["tap_stream_id"]].schema = WholeSchema.of(stream["schema"])
    return parsed
