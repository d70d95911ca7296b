"""Generated schemas with records that mostly fit, and what the tests of the decode paths share."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from melisma.arrow.decode import Decoded
from melisma.wire.framing import Run

Json = Any

_digits = st.integers(-(10**18), 10**18)
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_zones = st.sampled_from(["", "Z", "+00:00", "-05:30", "+0200", "+14"])


@st.composite
def moments(draw: st.DrawFn) -> str:
    """Date-times in many forms, some of them wrong."""
    moment = draw(st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30)))
    fraction = draw(st.sampled_from(["", ".5", ".123456", ".1234560", ".123456789", "."]))
    separator = draw(st.sampled_from(["T", " ", "t"]))
    return f"{moment:%Y-%m-%d}".rjust(10, "0") + separator + f"{moment:%H:%M:%S}{fraction}{draw(_zones)}"


_odd = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1.5,
        1e300,
        2**63,
        2**64,
        -(2**63),
        "",
        "x",
        "2024-02-30",
        "12:00",
        "1e5",
        [],
        {},
        [None],
        "\x00",
    ]
)

LEAVES: dict[str, tuple[dict[str, Json], st.SearchStrategy[Json]]] = {
    "integer": ({"type": "integer"}, st.integers(-(2**63), 2**63 - 1) | st.sampled_from([1.0, 2e3])),
    "bounded": ({"type": "integer", "minimum": 0, "maximum": 10}, st.integers(0, 10)),
    "even": ({"type": "integer", "multipleOf": 2}, _digits.map(lambda n: n * 2)),
    "unsigned": ({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, st.integers(0, 2**64 - 1)),
    "number": ({"type": "number"}, st.floats(allow_nan=False, allow_infinity=False) | _digits),
    "low": ({"type": "number", "exclusiveMaximum": 5}, st.floats(-5, 4)),
    "decimal": ({"type": "number", "multipleOf": 0.01}, st.decimals(-1000, 1000, places=2).map(float) | _digits),
    "decimal text": (
        {"type": "string", "format": "singer.decimal"},
        st.decimals(-1000, 1000, places=3).map(str) | st.sampled_from(["1.", ".5", "+1", "1E+2", "0e99", "-0.0"]),
    ),
    "boolean": ({"type": "boolean"}, st.booleans()),
    "string": ({"type": "string"}, _text),
    "short": ({"type": "string", "maxLength": 4, "minLength": 1}, st.text("añ😀", min_size=1, max_size=4)),
    "choice": ({"type": "string", "enum": ["a", "b", "\u00e9"]}, st.sampled_from(["a", "b", "\u00e9"])),
    "pattern": ({"type": "string", "pattern": "^[a-c]+$"}, st.text("abc", min_size=1)),
    "uuid": ({"type": "string", "format": "uuid"}, st.uuids().map(str)),
    "moment": ({"type": "string", "format": "date-time"}, moments()),
    "date": ({"type": "string", "format": "date"}, st.dates().map(lambda d: d.isoformat())),
    "time": ({"type": "string", "format": "time"}, st.times().map(lambda t: t.isoformat())),
    "binary": ({"type": "string", "contentEncoding": "base64"}, st.sampled_from(["", "aGk=", "AAEC", "/+8="])),
    "json": ({}, st.recursive(st.none() | _digits | _text, lambda inner: st.lists(inner, max_size=2), max_leaves=3)),
}


@st.composite
def nodes(draw: st.DrawFn, depth: int = 2) -> tuple[dict[str, Json], st.SearchStrategy[Json]]:
    """A JSON Schema node with a strategy for values that mostly fit it."""
    shape = draw(st.sampled_from(["leaf"] * 6 + (["object", "array", "map"] if depth else [])))
    if shape == "object":
        schema, members = draw(objects(depth - 1))
        return _nullable(draw, schema, members)
    if shape == "array":
        schema, values = draw(nodes(depth - 1))
        return _nullable(draw, {"type": "array", "items": schema}, st.lists(values, max_size=3))
    if shape == "map":
        schema, values = draw(nodes(0))
        made = {"type": "object", "additionalProperties": schema}
        return _nullable(draw, made, st.dictionaries(_text, values, max_size=2))
    schema, values = LEAVES[draw(st.sampled_from(sorted(LEAVES)))]
    return _nullable(draw, schema, values)


def _nullable(
    draw: st.DrawFn, schema: dict[str, Json], values: st.SearchStrategy[Json]
) -> tuple[dict[str, Json], st.SearchStrategy[Json]]:
    if "type" in schema and draw(st.booleans()):
        enum = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
        return {**schema, "type": [schema["type"], "null"], **enum}, st.none() | values
    return schema, values


@st.composite
def objects(draw: st.DrawFn, depth: int) -> tuple[dict[str, Json], st.SearchStrategy[Json]]:
    """An object's schema with a strategy for values that mostly fit it."""
    names = draw(st.lists(st.sampled_from(["a", "b", "c", "d e", "é"]), min_size=1, max_size=4, unique=True))
    members = {name: draw(nodes(depth)) for name in names}
    schema: dict[str, Json] = {"type": "object", "properties": {name: made[0] for name, made in members.items()}}
    if draw(st.booleans()):
        schema["required"] = draw(st.lists(st.sampled_from(names), unique=True))
    if draw(st.integers(0, 4)) == 0:
        schema["additionalProperties"] = False
    values = st.fixed_dictionaries(
        {name: made[1] for name, made in members.items() if name in schema.get("required", [])},
        optional={name: made[1] for name, made in members.items() if name not in schema.get("required", [])},
    )
    return schema, values


@st.composite
def streams(draw: st.DrawFn) -> tuple[dict[str, Json], list[Json]]:
    """A stream's schema and records; now and then a record has an odd value or an unknown member."""
    schema, values = draw(objects(2))
    records = draw(st.lists(values, min_size=1, max_size=6))
    for record in records:
        if draw(st.integers(0, 5)) == 0:
            record[draw(st.sampled_from([*schema["properties"], "unknown"]))] = draw(_odd)
    return schema, records


def run_of(records: list[Json], dump: Callable[[Json], str] = json.dumps) -> Run:
    """Records as a tap writes them; the first stands on line 10."""
    lines = [
        b'{"type":"RECORD","stream":"s","record":%s,"time_extracted":"2024-01-01T00:00:00Z"}\n' % dump(record).encode()
        for record in records
    ]
    return Run("s", b"".join(lines), range(10, 10 + len(lines)), closed=True)


def outcome(decoded: Decoded) -> Any:
    """All that a decoder says, in a form that can be compared and read."""
    decoded.batch.validate(full=True)
    return (
        decoded.batch.schema,
        [repr(row) for row in decoded.batch.to_pylist()],
        decoded.batch.num_rows,
        [(row, error.line) for row, error in decoded.bad],
        None if decoded.extracted is None else decoded.extracted.to_pylist(),
    )


SETTINGS = settings(
    max_examples=int(os.environ.get("MELISMA_EXAMPLES", "400")), deadline=None, suppress_health_check=list(HealthCheck)
)
