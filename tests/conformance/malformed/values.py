"""Records whose values break their schema: every kind of column with every wrong kind of value, and its edges."""

from __future__ import annotations

import json
from typing import Any

from malformed import AFTER, ALL, PRIVATE, Case, accepted, line, record, refused, schema, state

LONG_NUMBER = "7" * 400
OF_KIND: dict[str, dict[str, Any]] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "uint64": {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
    "number": {"type": "number"},
    "decimal": {"type": "number", "precision": 12, "scale": 2},
    "wide-decimal": {"type": "number", "precision": 38, "scale": 0},
    "string": {"type": "string"},
    "date-time": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "binary": {"type": "string", "contentEncoding": "base64"},
    "object": {"type": "object", "properties": {"x": {"type": "integer"}}},
    "array": {"type": "array", "items": {"type": "integer"}},
    "map": {"type": "object", "additionalProperties": {"type": "integer"}},
}


def before(column: dict[str, Any], **more: Any) -> bytes:
    """Five lines as `malformed.BEFORE`, with a column `c`."""
    return schema({"c": column}, **more) + record(1) + record(2) + state(2) + record(3)


def with_value(text: str, column: str = "c") -> bytes:
    """A RECORD with a value as the text says it, which need not be JSON."""
    return record(9)[:-3] + f', "{column}": {text}'.encode() + b"}}\n"


def bad(id_: str, shows: str, kind: str | dict[str, Any], text: str, says: str, **more: Any) -> Case:
    """A record with a value that its column cannot hold."""
    column = OF_KIND[kind] if isinstance(kind, str) else kind
    hidden = (text.strip('"[]{}'),) if len(text.strip('"[]{}')) >= 6 and PRIVATE not in text else ()
    data = before(column) + with_value(text) + AFTER
    return Case(id_, shows, data, **({"says": says, "skip": ALL, "hidden": hidden} | more))


def good(id_: str, shows: str, kind: str | dict[str, Any], text: str, says: str = "") -> Case:
    """A record with a value that looks odd and fits."""
    column = OF_KIND[kind] if isinstance(kind, str) else kind
    return accepted(id_, shows, before(column) + with_value(text) + AFTER, says, (*ALL, 9))


_WRONG = {
    "boolean": ["text", "number", "object", "array"],
    "integer": ["text", "true", "fraction", "object", "array"],
    "number": ["text", "true", "object", "array"],
    "decimal": ["text", "true", "object", "array"],
    "string": ["number", "true", "object", "array"],
    "date-time": ["text", "number", "true", "object", "array"],
    "date": ["text", "number", "true", "array"],
    "time": ["text", "number", "true", "array"],
    "binary": ["number", "true", "object", "array"],
    "object": ["text", "number", "true", "array"],
    "array": ["text", "number", "true", "object"],
    "map": ["text", "number", "true", "array"],
}
_VALUES = {
    "text": (json.dumps(PRIVATE), "a text"),
    "number": ("987654321", "a number"),
    "fraction": ("98765432.5", "a fraction"),
    "true": ("true", "`true`"),
    "object": (json.dumps({"x": PRIVATE}), "an object"),
    "array": (json.dumps([PRIVATE]), "an array"),
}
_SAYS = {
    "text": "text",
    "number": "number",
    "fraction": "fraction",
    "true": "boolean",
    "object": "object",
    "array": "array",
}
_SAYS_OF_TEXT = {"date-time": "not a date-time", "date": "not a date", "time": "not a time", "decimal": "not a number"}


def _wrong_types() -> list[Case]:
    cases = []
    for kind, wrong in _WRONG.items():
        for each in wrong:
            text, called = _VALUES[each]
            says = _SAYS_OF_TEXT.get(kind, "text") if each == "text" else _SAYS[each]
            article = "an" if kind[0] in "aio" else "a"
            cases.append(bad(f"{kind}-{each}", f"{called} for {article} {kind}", kind, text, says))
    return cases


_REQUIRED = {"required": ["id", "c"]}
_CLOSED = {"type": "object", "properties": {"x": {"type": "integer"}}, "additionalProperties": False}
_HOLDS_REQUIRED = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
_TIMES = OF_KIND["date-time"]


def _nested(column: dict[str, Any], depth: int = 5) -> dict[str, Any]:
    for _ in range(depth):
        column = {"type": "object", "properties": {"c": column}}
    return column


def required(id_: str, shows: str, fault: bytes, says: str) -> Case:
    """A record that breaks a schema in which `c` is required."""
    good_one = {number: record(number, c="x") for number in (1, 2, 3, 4)}
    head = schema({"c": {"type": "string"}}, **_REQUIRED) + good_one[1] + good_one[2] + state(2) + good_one[3]
    return Case(id_, shows, head + fault + good_one[4] + state(9), says=says, skip=ALL)


CASES = [
    *_wrong_types(),
    # Integers
    bad("integer-2-63", "2^63 for an integer", "integer", "9223372036854775808", "does not fit int64"),
    bad("integer-below", "-2^63-1 for an integer", "integer", "-9223372036854775809", "does not fit int64"),
    bad("integer-40-digits", "40 digits for an integer", "integer", "1234567890" * 4, "does not fit int64"),
    bad("integer-400-digits", "400 digits for an integer", "integer", LONG_NUMBER, "does not fit"),
    bad("integer-10000-digits", "10,000 digits for an integer", "integer", "7" * 10_000, "more digits", skip=None),
    bad("integer-1e400", "1e400 for an integer", "integer", "1e400", "does not fit"),
    bad("integer-1e999999999", "1e999999999 for an integer", "integer", "1e999999999", "does not fit"),
    bad(
        "integer-1e99999999999999999999",
        "1e99999999999999999999 for an integer",
        "integer",
        "1e99999999999999999999",
        "more digits",
        skip=None,
    ),
    bad(
        "number-1e99999999999999999999",
        "1e99999999999999999999 for a number",
        "number",
        "1e99999999999999999999",
        "more digits",
        skip=None,
    ),
    bad("integer-tiny", "1e-9 for an integer", "integer", "1e-9", "fraction"),
    good("integer-point-zero", "5.0 for an integer", "integer", "5.0"),
    good("integer-exponent", "1e3 for an integer", "integer", "1e3"),
    good("integer-largest", "2^63-1 for an integer", "integer", "9223372036854775807"),
    good("integer-minus-zero", "-0 for an integer", "integer", "-0"),
    bad("uint64-2-64", "2^64 for an unsigned integer", "uint64", "18446744073709551616", "does not fit uint64"),
    bad("uint64-negative", "-1 for an unsigned integer", "uint64", "-1", "does not fit uint64"),
    good("uint64-largest", "2^64-1 for an unsigned integer", "uint64", "18446744073709551615"),
    # Numbers
    bad("number-1e400", "1e400 for a number", "number", "1e400", "beyond float64"),
    bad("number-400-digits", "400 digits for a number", "number", LONG_NUMBER, "beyond float64"),
    good("number-tiny", "1e-400 for a number: zero is the nearest", "number", "1e-400"),
    good("number-long", "a number of 60 digits: the nearest double", "number", "0." + "123456789012" * 5),
    good("number-integer", "a number without a fraction", "number", "5"),
    bad("number-in-text", "a number written as a text", "number", '"98765.4321"', "text"),
    # Decimals
    bad("decimal-fraction", "3 fraction digits for a decimal(12,2)", "decimal", "98765.432", "fraction digits"),
    bad("decimal-whole", "11 whole digits for a decimal(12,2)", "decimal", "98765432101.5", "whole digits"),
    bad(
        "decimal-39-digits",
        "39 digits for a decimal(38,0)",
        "wide-decimal",
        "9" * 39,
        "whole digits",
        as_executable=True,
    ),
    bad("decimal-1e400", "1e400 for a decimal", "decimal", "1e400", "whole digits"),
    bad("decimal-1e-400", "1e-400 for a decimal", "decimal", "1e-400", "fraction digits"),
    bad("decimal-nan-text", '"NaN" for a decimal', "decimal", '"NaN"', "not a number"),
    bad("decimal-text-space", '" 1.5" for a decimal', "decimal", '" 1.5"', "not a number"),
    bad("decimal-text-underscore", '"1_000" for a decimal', "decimal", '"1_000"', "not a number"),
    bad("decimal-text-comma", '"1,5" for a decimal', "decimal", '"1,5"', "not a number"),
    bad("decimal-text-empty", "an empty text for a decimal", "decimal", '""', "not a number"),
    bad("decimal-text-arabic", "Arabic digits for a decimal", "decimal", '"١٢٣"', "not a number"),
    good("decimal-as-text", "a decimal written as a text", "decimal", '"12.50"'),
    good("decimal-38-digits", "38 digits for a decimal(38,0)", "wide-decimal", "9" * 38),
    good("decimal-trailing-zeros", "12.5000 for a decimal(12,2)", "decimal", "12.5000"),
    good("decimal-exponent", "1.5e3 for a decimal(12,2)", "decimal", "1.5e3"),
    # Text
    bad("lone-surrogate", "half a surrogate pair", "string", r'"\ud800 987654321"', "surrogate", skip=None),
    good("surrogate-pair", "an emoji as an escaped surrogate pair", "string", r'"\ud83d\ude00"'),
    good("escaped-nul", r"an escaped NUL in a text", "string", r'"a\u0000b"'),
    good("empty-text", "an empty text", "string", '""'),
    # Moments
    bad(
        "date-time-7-digits", "7 fraction digits", "date-time", '"2024-01-31T23:59:59.1234567Z"', "six fraction digits"
    ),
    bad("date-time-impossible", "30 February", "date-time", '"2024-02-30T00:00:00Z"', "not a date that exists"),
    bad(
        "date-time-29-february",
        "29 February of a common year",
        "date-time",
        '"2023-02-29T00:00:00Z"',
        "not a date that exists",
    ),
    bad("date-time-year-0", "the year 0", "date-time", '"0000-01-01T00:00:00Z"', "years 1 to 9999"),
    bad("date-time-year-10000", "the year 10000", "date-time", '"10000-01-01T00:00:00Z"', "not a date-time"),
    bad(
        "date-time-out-of-years",
        "9999-12-31 west of Greenwich, in UTC the year 10000",
        "date-time",
        '"9999-12-31T23:00:00-05:00"',
        "outside the years",
    ),
    bad(
        "date-time-before-years",
        "0001-01-01 east of Greenwich, in UTC the year 0",
        "date-time",
        '"0001-01-01T00:00:00+05:00"',
        "outside the years",
    ),
    bad("date-time-hour-24", "24:00:00", "date-time", '"2024-01-31T24:00:00Z"', "time of day"),
    bad("date-time-minute-60", "a minute of 60", "date-time", '"2024-01-31T23:60:00Z"', "time of day"),
    bad("date-time-leap-second", "a leap second", "date-time", '"2016-12-31T23:59:60Z"', "time of day"),
    bad("date-time-month-13", "month 13", "date-time", '"2024-13-01T00:00:00Z"', "not a date that exists"),
    bad("date-time-offset", "an offset of 25 hours", "date-time", '"2024-01-31T00:00:00+25:00"', "offset"),
    bad("date-time-zone-name", "the name of a zone", "date-time", '"2024-01-31T00:00:00 CET"', "not a date-time"),
    bad("date-time-american", "an American date", "date-time", '"01/31/2024 10:00"', "not a date-time"),
    bad("date-time-empty", "an empty text for a date-time", "date-time", '""', "not a date-time"),
    bad("date-time-unix", "seconds since 1970, as a text", "date-time", '"1700000000"', "not a date-time"),
    bad("date-time-space", "a space before a date-time", "date-time", '" 2024-01-31T00:00:00Z"', "not a date-time"),
    good("date-time-naive", "a date-time without an offset: UTC", "date-time", '"2024-01-31 10:00:00"'),
    good("date-time-year-1", "the first moment of the year 1", "date-time", '"0001-01-01T00:00:00Z"'),
    good("date-time-year-9999", "the last moment of the year 9999", "date-time", '"9999-12-31T23:59:59.999999Z"'),
    good("date-time-zeros", "9 fraction digits, the last three zeros", "date-time", '"2024-01-31T00:00:00.123456000Z"'),
    bad("date-impossible", "31 April", "date", '"2024-04-31"', "not a date that exists"),
    bad("date-year-0", "the year 0, for a date", "date", '"0000-01-01"', "years 1 to 9999"),
    bad("date-year-10000", "the year 10000, for a date", "date", '"10000-01-01"', "not a date"),
    bad("date-negative", "a year before Christ", "date", '"-0044-03-15"', "not a date"),
    bad("date-with-time", "a time other than midnight, for a date", "date", '"2024-01-31T10:00:00Z"', "not a date"),
    bad("date-short", "2024-1-5", "date", '"2024-1-5"', "not a date"),
    good("date-midnight", "a date with midnight", "date", '"2024-01-31T00:00:00Z"'),
    bad("time-hour-24", "24:00:00, for a time", "time", '"24:00:00"', "time of day"),
    bad("time-offset", "a time with an offset", "time", '"10:00:00+02:00"', "time of day"),
    bad("time-7-digits", "a time with 7 fraction digits", "time", '"10:00:00.1234567"', "six fraction digits"),
    bad("time-afternoon", "10:00 PM", "time", '"10:00 PM"', "time of day"),
    # base64
    bad("binary-broken", "base64 with a character too few", "binary", '"QUJDRA="', "not base64"),
    bad("binary-letters", "base64 with other characters", "binary", f'"{PRIVATE}!"', "not base64"),
    bad("binary-url-safe", "base64 of the URL alphabet", "binary", '"_-_-_-_-"', "not base64"),
    bad("binary-line-breaks", "base64 with a line break", "binary", r'"QUJD\nREVG"', "not base64"),
    good("binary-empty", "no bytes", "binary", '""'),
    # Constraints
    bad(
        "enum",
        "a value that `enum` does not have",
        {"type": "string", "enum": ["a", "b"]},
        f'"{PRIVATE}"',
        "not one of the values",
    ),
    bad(
        "enum-number",
        "a number that `enum` does not have",
        {"type": "integer", "enum": [1, 2]},
        "987654321",
        "not one of the values",
    ),
    bad("const", "another value than `const`", {"const": "a"}, f'"{PRIVATE}"', "not one of the values"),
    bad(
        "pattern",
        "a text that does not match `pattern`",
        {"type": "string", "pattern": "^[a-z]+$"},
        f'"{PRIVATE}"',
        "pattern",
    ),
    bad(
        "min-length",
        "a text that is too short",
        {"type": "string", "minLength": 40},
        f'"{PRIVATE}"',
        "fewer than 40 characters",
    ),
    bad(
        "max-length",
        "a text that is too long",
        {"type": "string", "maxLength": 5},
        f'"{PRIVATE}"',
        "more than 5 characters",
        as_executable=True,
    ),
    good("max-length-emoji", "5 emoji where 5 characters may be", {"type": "string", "maxLength": 5}, '"😀😀😀😀😀"'),
    bad("minimum", "a number below `minimum`", {"type": "integer", "minimum": 1}, "-987654321", "below"),
    bad("maximum", "a number above `maximum`", {"type": "number", "maximum": 10}, "987654.25", "above"),
    bad(
        "exclusive-minimum",
        "a number at `exclusiveMinimum`",
        {"type": "number", "exclusiveMinimum": 10},
        "10",
        "not above",
    ),
    bad(
        "exclusive-maximum-draft-4",
        "a number at a maximum that is exclusive as in Draft 4",
        {"type": "integer", "maximum": 10, "exclusiveMaximum": True},
        "10",
        "not below",
    ),
    bad(
        "multiple-of",
        "a number that is not a multiple",
        {"type": "integer", "multipleOf": 10},
        "987654321",
        "not a multiple",
    ),
    bad("uuid", "a text that is no uuid", {"type": "string", "format": "uuid"}, f'"{PRIVATE}"', "uuid"),
    bad("ipv4", "a text that is no IPv4 address", {"type": "string", "format": "ipv4"}, '"256.1.1.1"', "IPv4"),
    bad("ipv6", "a text that is no IPv6 address", {"type": "string", "format": "ipv6"}, '"12345::1"', "IPv6"),
    bad(
        "min-items",
        "an array that is too short",
        {"type": "array", "items": {"type": "string"}, "minItems": 2},
        f'["{PRIVATE}"]',
        "fewer than 2 items",
    ),
    bad(
        "max-items",
        "an array that is too long",
        {"type": "array", "items": {"type": "string"}, "maxItems": 0},
        f'["{PRIVATE}"]',
        "more than 0 items",
    ),
    bad(
        "unique-items",
        "an array with an item twice",
        {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        f'["{PRIVATE}", "{PRIVATE}"]',
        "twice",
    ),
    good(
        "min-properties",
        "an object with too few members: `minProperties` is not held",
        {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 2},
        '{"a": "b"}',
    ),
    accepted(
        "constraints-off",
        "values beyond `maximum` and `enum`, with `validate_records: false`",
        before({"type": "string", "enum": ["a"], "maxLength": 1}) + with_value(f'"{PRIVATE}"') + AFTER,
        landed=(*ALL, 9),
        config={"validate_records": False},
    ),
    Case(
        "type-although-constraints-off",
        "a text for an integer, with `validate_records: false`",
        before(OF_KIND["integer"]) + with_value(f'"{PRIVATE}"') + AFTER,
        says="text",
        config={"validate_records": False},
    ),
    # Null and missing
    refused(
        "key-missing",
        "a record without its key",
        record(9).replace(b'"id": 9, ', b""),
        "part of the key",
        skip=ALL,
        as_executable=True,
    ),
    refused("key-null", "a record whose key is null", record(9).replace(b": 9", b": null"), "null", skip=ALL),
    Case(
        "key-missing-unvalidated",
        "a record without its key, with `validate_records: false`",
        before({}) + line({"type": "RECORD", "stream": "s", "record": {"note": PRIVATE}}) + AFTER,
        says="part of the key",
        config={"validate_records": False},
    ),
    required("required-missing", "a record without a required column", record(9), "missing"),
    required("required-null", "null in a required column that does not allow it", record(9, c=None), "null"),
    bad("null-not-allowed", "null in a column that does not allow it", "string", "null", "null"),
    good("null-allowed", "null in a column that allows it", {"type": ["null", "integer"]}, "null"),
    good("missing-not-required", "a column that is missing and not required", "string", "null".replace("null", '""')),
    # Nested
    bad(
        "nested-type",
        "a text for an integer, five objects deep",
        _nested(OF_KIND["integer"]),
        '{"c": {"c": {"c": {"c": {"c": "' + PRIVATE + '"}}}}}',
        "c.c.c.c.c.c",
    ),
    bad("nested-null", "null in an object's member that does not allow it", "object", '{"x": null}', "c.x"),
    bad("nested-required", "an object without a required member", _HOLDS_REQUIRED, "{}", "c.x"),
    bad(
        "nested-required-in-array",
        "an object in an array without a required member",
        {"type": "array", "items": _HOLDS_REQUIRED},
        '[{"x": 1}, {}]',
        "c[].x",
    ),
    bad("nested-item", "a text in an array of integers", "array", f'[1, "{PRIVATE}"]', "c[]"),
    bad("nested-item-null", "null in an array that does not allow it", "array", "[1, null]", "c[]"),
    bad(
        "nested-array-in-array",
        "a number for an array in an array",
        {"type": "array", "items": OF_KIND["array"]},
        "[[1], 987654321]",
        "c[]",
        hidden=("987654321",),
    ),
    bad("nested-map-value", "a text in a map of integers", "map", f'{{"{PRIVATE}": "{PRIVATE}"}}', "c.*"),
    bad(
        "nested-closed",
        "a member that the schema forbids (`additionalProperties: false`)",
        _CLOSED,
        f'{{"x": 1, "y": "{PRIVATE}"}}',
        "c.y",
    ),
    bad(
        "nested-date",
        "an impossible date in an array",
        {"type": "array", "items": OF_KIND["date"]},
        '["2024-02-28", "2024-02-30"]',
        "c[]",
        hidden=("2024-02-30",),
    ),
    bad(
        "nested-bounds",
        "a number above `maximum` in an object in an array",
        {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer", "maximum": 5}}}},
        '[{"x": 1}, {"x": 987654321}]',
        "c[].x",
        hidden=("987654321",),
    ),
    good("object-key-twice", "an object that names a member twice: the last counts", "object", '{"x": 1, "x": 2}'),
    good("json-text-mixed", "any value in a column without a type", {}, '[1, "a", {"b": null}]'),
    # Fields without a name in the schema
    accepted(
        "unknown-field",
        "a field that the schema does not name (`on_unknown_field: warn`)",
        before({}) + with_value(f'"{PRIVATE}"', "more") + AFTER,
        '"more" is not in the schema',
        (*ALL, 9),
    ),
    Case(
        "unknown-field-fail",
        "a field that the schema does not name (`on_unknown_field: fail`)",
        before({}) + with_value(f'"{PRIVATE}"', "more") + AFTER,
        says='"more"',
        config={"on_unknown_field": "fail"},
        skip=ALL,
    ),
    Case(
        "unknown-field-null-fail",
        "a field that the schema does not name, null (`on_unknown_field: fail`)",
        before({}) + with_value("null", "more") + AFTER,
        says='"more"',
        config={"on_unknown_field": "fail"},
        skip=ALL,
    ),
    accepted(
        "unknown-field-drop",
        "a field that the schema does not name (`on_unknown_field: drop`)",
        before({}) + with_value(f'"{PRIVATE}"', "more") + AFTER,
        landed=(*ALL, 9),
        config={"on_unknown_field": "drop"},
    ),
    accepted(
        "unknown-field-newline",
        "a field whose name holds a newline and a forged log line",
        before({}) + with_value(f'"{PRIVATE}"', r"m\nERROR | forged") + AFTER,
        "is not in the schema",
        (*ALL, 9),
    ),
    Case(
        "unknown-field-closed",
        "a field that the schema forbids (`additionalProperties: false`)",
        before({}, additionalProperties=False) + with_value(f'"{PRIVATE}"', "more") + AFTER,
        says='"more"',
        skip=ALL,
    ),
    accepted(
        "unknown-fields-many",
        "5,000 fields that the schema does not name",
        before({}) + record(9, **{f"f{n}": PRIVATE for n in range(5_000)}) + AFTER,
        "not in the schema",
        (*ALL, 9),
    ),
    # Two faults
    Case(
        "two-bad-records",
        "two bad records: the first is named",
        before(OF_KIND["integer"]) + with_value(f'"{PRIVATE}"') + with_value("[]") + AFTER,
        says="is text, not an integer",
        skip=ALL,
    ),
    Case(
        "bad-record-then-bad-line",
        "a bad record, then a line that is not JSON: the first is named",
        before(OF_KIND["integer"]) + with_value(f'"{PRIVATE}"') + b"{{{\n" + AFTER,
        says="is text, not an integer",
    ),
    Case(
        "bad-record-then-cut",
        "a bad record, then a line that breaks off",
        before(OF_KIND["integer"]) + with_value(f'"{PRIVATE}"') + b'{"type": "RE',
        says="is text, not an integer",
    ),
]
