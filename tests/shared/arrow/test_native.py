# ruff: noqa: E501 - a table of cases reads best with a case a line
"""The native decoder gives what the row path gives, or leaves the run to it."""

from __future__ import annotations

import datetime as dt
import gc
import json
import math
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SETTINGS, Json, outcome, run_of, streams

from melisma.arrow.decode import RunDecoder
from melisma.arrow.native import NativeBatch, native_decoder
from melisma.arrow.schema import stream_schema
from melisma.arrow.types import StreamSchema
from melisma.errors import BadMessage
from melisma.wire.framing import Run

melisma_native = pytest.importorskip("melisma_native", reason="melisma-native is not built: make native")


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the native decoder, whatever the environment says."""
    monkeypatch.delenv("MELISMA_NATIVE", raising=False)


def natively(schema: StreamSchema, run: Run, **options: Any) -> NativeBatch | None:
    """What the native decoder itself makes of a run."""
    given = {"validate": True, "on_unknown_field": "warn", "ignored": frozenset(), "envelope": False, **options}
    decoder = native_decoder(schema, **given)
    assert decoder is not None
    return decoder.decode(run)


def told(schema: StreamSchema, run: Run, *, by_block: bool, **options: Any) -> Any:
    """All that a decoder says of a run, or that it refuses it."""
    try:
        decoded = RunDecoder(schema, by_block=by_block, **options).decode(run)
    except BadMessage as error:
        return str(error)
    return *outcome(decoded), decoded.unknown, None if decoded.versions is None else decoded.versions.to_pylist()


def lines(*texts: str) -> Run:
    """Lines as they stand."""
    return Run("s", "".join(text + "\n" for text in texts).encode(), range(1, len(texts) + 1))


def of_one(node: dict[str, Json], value: str) -> tuple[StreamSchema, Run]:
    """A stream of one column `a`, and a run of one record with this text for its value."""
    schema = stream_schema("s", {"properties": {"a": node}})
    return schema, lines('{"type":"RECORD","stream":"s","record":{"a":' + value + "}}")


# ---------------------------------------------------------------- the law

_SPACES = st.sampled_from(["", "", "", " ", "\t", " \r "])
_SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def spelled(draw: st.DrawFn, value: Json) -> str:
    """A JSON text of a value, in one of the many ways to write it."""
    space = draw(_SPACES)
    if isinstance(value, str):
        return '"' + "".join(_character(draw, each) for each in value) + '"'
    if isinstance(value, dict):
        members = [f"{space}{spelled(draw, name)}{space}:{space}{spelled(draw, each)}" for name, each in value.items()]
        return "{" + ",".join(draw(st.permutations(members))) + space + "}"
    if isinstance(value, list):
        return "[" + ",".join(f"{space}{spelled(draw, each)}{space}" for each in value) + "]"
    if isinstance(value, float):
        return draw(st.sampled_from([repr(value), f"{value:.17e}", f"{Decimal(value):f}", f"{value:.3f}"]))
    return json.dumps(value)


def _character(draw: st.DrawFn, character: str) -> str:
    forms = [character, f"\\u{ord(character):04x}" if ord(character) < 0x10000 else json.dumps(character)[1:-1]]
    if character in _SHORT:
        forms = [_SHORT[character], forms[1]]
    elif ord(character) < 0x20:
        forms = forms[1:]
    return draw(st.sampled_from([forms[0], *forms]))


@SETTINGS
@given(streams(), st.booleans(), st.sampled_from(["warn", "fail", "drop"]), st.booleans(), st.data())
def test_native_equals_rows(
    stream: tuple[dict[str, Json], list[Json]], validate: bool, unknown: str, envelope: bool, data: st.DataObject
) -> None:
    """For any schema and records, however they are spelled, the native decoder gives the row path's rows and counts."""
    schema = stream_schema("s", stream[0])
    spelling = data.draw(st.booleans())
    run = run_of(stream[1], (lambda record: data.draw(_spelling(record))) if spelling else json.dumps)
    options = {"validate": validate, "on_unknown_field": unknown, "envelope": envelope}
    assert told(schema, run, by_block=True, **options) == told(schema, run, by_block=False, **options)


@st.composite
def _spelling(draw: st.DrawFn, value: Json) -> str:
    return spelled(draw, value)


_PIECES = st.sampled_from(
    [
        b'"', b"\\", b",", b":", b"{", b"}", b"[", b"]", b"\n", b" ", b"0", b"-", b"1", b".", b"e5", b"+", b"E-7", b"T", b"Z", b"=",
        b"null", b"true", b"\\u00e9", b"\\ud800", b"\xff", b"\x00", b"\xc3\xa9", b'"a":1,', b'"u":1,', b"9" * 20,
    ]
)  # fmt: skip


@SETTINGS
@given(streams(), st.data())
def test_a_damaged_line_is_never_taken_for_another(
    stream: tuple[dict[str, Json], list[Json]], data: st.DataObject
) -> None:
    """With bytes flipped, cut out or put in, the native decoder still equals the row path, or leaves the run to it."""
    schema = stream_schema("s", stream[0])
    whole = bytearray(run_of(stream[1]).data)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole)))
        cut = data.draw(st.integers(0, 2))
        whole[at : at + cut] = data.draw(_PIECES | st.binary(max_size=1))
    run = Run("s", bytes(whole), range(1, whole.count(b"\n") + 1))
    options = {"validate": data.draw(st.booleans()), "envelope": True}
    assert told(schema, run, by_block=True, **options) == told(schema, run, by_block=False, **options)


# ---------------------------------------------------------------- what is taken, and what is not


@pytest.mark.parametrize(
    ("node", "text", "stored"),
    [
        ({"type": "boolean"}, "true", True),
        ({"type": "integer"}, "-9223372036854775808", -(2**63)),
        ({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, "18446744073709551615", 2**64 - 1),
        ({"type": "number"}, "0.1", 0.1),
        ({"type": "number"}, "-0.0", -0.0),
        ({"type": "number"}, "9007199254740993", 9007199254740992.0),
        ({"type": "number"}, "2.2250738585072011e-308", 2.2250738585072011e-308),
        ({"type": "number"}, "0.30000000000000004441", 0.30000000000000004),
        ({"type": "number"}, "1e-400", 0.0),
        ({"type": "number", "multipleOf": 0.01}, "651.59", Decimal("651.59")),
        ({"type": "number", "multipleOf": 0.01}, "-12e-1", Decimal("-1.20")),
        ({"type": "number", "multipleOf": 0.01}, "1" + "0" * 35 + ".25", Decimal("1" + "0" * 35 + ".25")),
        ({"type": "string", "format": "singer.decimal"}, '"-.5"', Decimal("-.5")),
        ({"type": "string"}, '"\\ud83d\\ude00\\u0000\\/é"', "\U0001f600\x00/é"),
        ({"type": "string", "format": "date-time"}, '"2024-02-29t23:59:59.1200000+0530"', dt.datetime(2024, 2, 29, 18, 29, 59, 120000, dt.UTC)),
        ({"type": "string", "format": "date-time"}, '"0001-01-01"', dt.datetime(1, 1, 1, tzinfo=dt.UTC)),
        ({"type": "string", "format": "date-time"}, '"9999-12-31T23:59:59.999999Z"', dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.UTC)),
        ({"type": "string", "format": "date"}, '"2024-02-29T00:00:00.000Z"', dt.date(2024, 2, 29)),
        ({"type": "string", "format": "time"}, '"23:59"', dt.time(23, 59)),
        ({"type": "string", "contentEncoding": "base64"}, '"/+8="', b"\xff\xef"),
        ({"type": "array", "items": {"type": ["null", "integer"]}}, "[1, null , 2]", [1, None, 2]),
        ({"type": "array", "items": {"type": "string"}}, "[]", []),
        ({"type": "object", "properties": {"b": {"type": "string"}}}, '{ "b" : "x" }', {"b": "x"}),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, '{"x":1,"\\u0079":2}', [("x", 1), ("y", 2)]),
        ({}, '{ "a" : [1.10, -0.0, "\\u00e9\\n\\/", true, null, {}], "b": 12 }', '{"a":[1.10,-0.0,"é\\n/",true,null,{}],"b":12}'),
        ({"type": ["null", "integer"]}, "null", None),
    ],
)  # fmt: skip
def test_values_of_every_kind_are_taken(node: dict[str, Json], text: str, stored: Json) -> None:
    """Plain values of every kind, and those at the edges, are decoded natively and as the row path decodes them."""
    schema, run = of_one(node, text)
    found = natively(schema, run)
    assert found is not None
    found.batch.validate(full=True)
    (value,) = found.batch.column(0).to_pylist()
    assert value == stored
    if isinstance(stored, float):
        assert math.copysign(1, value) == math.copysign(1, stored)
    rows = RunDecoder(schema, by_block=False).decode(run)
    assert found.batch.equals(rows.batch)
    assert found.batch.schema == rows.batch.schema


_INTEGER, _NUMBER, _TEXT = {"type": "integer"}, {"type": "number"}, {"type": "string"}
_MOMENT, _BYTES = {"type": "string", "format": "date-time"}, {"type": "string", "contentEncoding": "base64"}


@pytest.mark.parametrize(
    ("node", "text"),
    [
        *[(_INTEGER, text) for text in ("1.0", "1e3", "-0", "01", "+1", "9223372036854775808", "true", '"1"', "null", "-", "NaN")],
        *[(_NUMBER, text) for text in ("1e400", "-0", "1.", ".5", "1e", "1e99999", "Infinity", '"1"', "0x1", "1" * 1001)],
        *[({"type": "number", "multipleOf": 0.01}, text) for text in ("1.005", "1" + "0" * 36, '"1_0"', '" 1"', '"NaN"', '"1e"', '""', '"."')],
        *[(_TEXT, text) for text in ("1", '"\\ud800"', '"\\udc00"', '"\\ud800\\u0041"', '"\\x"', '"\\u12g4"', '"\t"', '"a', "'a'")],
        *[(_MOMENT, text) for text in ('"2024-02-30"', '"2024-01-01T24:00:00Z"', '"2024-01-01T00:00:00.1234567"', '"0001-01-01T00:00:00+01:00"', '"0000-01-01"', '"2024-01-01T00:00:00.Z"', '"2024-1-1"', '"2024-01-01T00:00:00+24:00"', '"2024\\u002d01-01"')],
        *[(_BYTES, text) for text in ('"a"', '"aGk"', '"aG=k"', '"aGl="', '"aGk=\\n"')],
        ({"type": "array", "items": _INTEGER}, "[1,]"),
        ({"type": "array", "items": _INTEGER}, "[1"),
        ({"type": "object", "additionalProperties": _INTEGER}, '{"x":1,"\\u0078":2}'),
        ({"type": "object", "properties": {"b": _TEXT}}, '{"b":"x","\\u0062":"y"}'),
        ({"type": "object", "properties": {"b": _TEXT}}, '{"u":1,"u":null}'),
        ({"type": "object", "properties": {"b": _TEXT}, "required": ["b"]}, "{}"),
        ({"type": "object", "properties": {"b": _TEXT}, "additionalProperties": False}, '{"u":null}'),
        ({"type": "object", "properties": {"b": _TEXT}}, '{"u":%s}' % ("[" * 100 + "]" * 100)),
        *[({}, text) for text in ("1e5", "-0", "0.0000001", '{"x":1,"x":2}', "1" * 19, '"\\u0041"', "[" * 100 + "]" * 100)],
        ({}, "{" + ",".join(f'"{n % 30}":1' for n in range(31)) + "}"),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_left_to_the_row_path(node: dict[str, Json], text: str) -> None:
    """Wrong types, other spellings, values that do not fit and broken JSON are for the row path."""
    assert natively(*of_one(node, text)) is None


@pytest.mark.parametrize(
    "line",
    [
        '{"type":"STATE","stream":"s","record":{"a":1}}',
        '{"type":"RECORD","stream":"t","record":{"a":1}}',
        '{"type":"RECORD","stream":"s","record":null}',
        '{"type":"RECORD","stream":"s"}',
        '{"stream":"s","record":{"a":1}}',
        '{"type":"RECORD","record":{"a":1}}',
        '{"type":"RECORD","stream":"s","record":{"a":1},"record":{"a":2}}',
        '{"type":"RECORD","stream":"s","record":{"a":1},"stream":"s"}',
        '{"type":"RECORD","stream":"s","record":{"a":1}}{}',
        '{"type":"RECORD","stream":"s",\n"record":{"a":1}}',
        '{"type":"RECORD","stream":"s","record":{"a":1}}\n',
        "",
    ],
)
def test_lines_that_are_not_one_record_are_left_to_the_row_path(line: str) -> None:
    """Whatever is wrong with an envelope is said by the row path."""
    schema = stream_schema("s", {"properties": {"a": {"type": "integer"}}})
    good = '{"type":"RECORD","stream":"s","record":{"a":1}}'
    assert natively(schema, lines(good, line)) is None
    assert natively(schema, lines(line, good)) is None
    unended = lines(good)
    unended.data = unended.data[:-1]
    assert natively(schema, unended) is None


@pytest.mark.parametrize(
    "version", ["7", "-0", "1.0", "1e3", "true", "null", '"7"', "-9223372036854775808", "9" * 30, "{}", None]
)
@pytest.mark.parametrize(
    "extracted", ['"2024-01-01T00:00:00.5+01:00"', '"2024-01-01T00 "', '"soon"', "1", "null", "[]", '"\\u0031"', None]
)
def test_the_envelope_is_read_as_by_rows(version: str | None, extracted: str | None) -> None:
    """`time_extracted` and `version` are kept where they are a date-time and an integer, in whatever place they stand."""
    members = [f'"{k}": {v}' for k, v in (("version", version), ("time_extracted", extracted)) if v is not None]
    parts = ['"type":"RECORD"', *members, '"stream":"s"', '"other": {"x": [1]}', '"record":{"a":1}']
    schema = stream_schema("s", {"properties": {"a": {"type": "integer"}}})
    run = lines(*("{" + ", ".join(order) + "}" for order in (parts, parts[::-1], sorted(parts), parts)))
    options = {"validate": True, "envelope": True}
    assert told(schema, run, by_block=True, **options) == told(schema, run, by_block=False, **options)
    assert natively(schema, run, envelope=True) is not None or '"\\u0031"' in run.data.decode() or version == "-0"


def test_unknown_members_are_counted_by_dotted_name() -> None:
    """Values of unknown members are counted at every depth; null ones and ignored ones are not."""
    inner = {"type": "object", "properties": {"b": {"type": "integer"}}}
    schema = stream_schema("s", {"properties": {"a": inner, "l": {"type": "array", "items": inner}}})
    record = {"u": {"deep": 1}, "n": None, "i": 1, "a": {"b": 1, "x": 1}, "l": [{"x": 1, "y": None}, {"x": "2"}]}
    run = run_of([record, record])
    found = natively(schema, run, ignored=frozenset({"i"}))
    assert found is not None
    assert found.unknown == {"u": 2, "a.x": 2, "l.x": 4}
    assert natively(schema, run, on_unknown_field="fail") is None
    dropped = natively(schema, run, on_unknown_field="drop")
    assert dropped is not None
    assert dropped.unknown == {}
    assert dropped.batch.equals(found.batch)


def test_a_decoder_begins_anew_with_each_run() -> None:
    """Neither what came before nor a run that was left half-way shows in the next."""
    node = {"type": ["null", "object"], "properties": {"t": {"type": "string"}, "f": {"type": "boolean"}}}
    schema = stream_schema("s", {"properties": {"a": node, "l": {"type": "array", "items": {"type": "string"}}}})
    decoder = native_decoder(schema, validate=True, on_unknown_field="warn", ignored=frozenset(), envelope=True)
    assert decoder is not None
    good = run_of([{"a": {"t": "x", "f": True}, "u": 1}, {"l": ["y", "z"]}, {"a": None, "l": []}])
    broken = run_of([{"a": {"t": "other"}, "u": 1, "w": 1}, {"l": ["w", 1]}])
    expected = RunDecoder(schema, by_block=False, envelope=True).decode(good)
    first = decoder.decode(good)
    for _ in range(3):
        assert decoder.decode(broken) is None
        found = decoder.decode(good)
        assert found is not None
        assert found.batch.equals(expected.batch)
        assert found.extracted == expected.extracted
        assert found.unknown == {"u": 1}
    del decoder
    gc.collect()
    assert first is not None
    assert first.batch.equals(expected.batch)


def test_a_decoder_may_be_shared_by_threads() -> None:
    """Runs that are handed over at once from several threads are decoded one after the other."""
    schema = stream_schema("s", {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}})
    decoder = native_decoder(schema, validate=True, on_unknown_field="warn", ignored=frozenset(), envelope=False)
    assert decoder is not None
    runs = [run_of([{"a": n, "b": str(n)}] * 500) for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(decoder.decode, runs)):
            assert found is not None
            assert found.batch.column(0).unique().to_pylist() == [number]
            assert found.batch.num_rows == 500


def test_many_columns_in_any_order() -> None:
    """5,000 columns are found in the schema's order, in another one, and where most are missing."""
    schema = stream_schema("s", {"properties": {f"c{n}": {"type": ["null", "integer"]} for n in range(5000)}})
    ordered = {f"c{n}": n for n in range(5000)}
    found = natively(schema, run_of([ordered, dict(reversed(ordered.items())), {"c4999": 4999}]))
    assert found is not None
    assert found.batch.column(4999).to_pylist() == [4999] * 3
    assert found.batch.column(7).to_pylist() == [7, 7, None]


def test_names_that_must_be_escaped_are_found() -> None:
    """Columns whose names hold quotes, backslashes, control characters or letters beyond ASCII."""
    names = ['q"q', "b\\s", "n\nl", "é", "\U0001f600", "", " "]
    schema = stream_schema("s", {"properties": {name: {"type": "integer"} for name in names}})
    for dump in (json.dumps, lambda record: json.dumps(record, ensure_ascii=False)):
        found = natively(schema, run_of([dict.fromkeys(names, 3)] * 2, dump))
        assert found is not None
        assert found.batch.to_pylist() == [dict.fromkeys(names, 3)] * 2


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """`MELISMA_NATIVE=0` leaves it unused, and so does a column that it does not know."""
    schema = stream_schema("s", {"properties": {"a": {"type": "integer"}}})
    options: dict[str, Any] = {"validate": True, "on_unknown_field": "warn", "ignored": frozenset(), "envelope": False}
    assert native_decoder(schema, **options) is not None
    monkeypatch.setenv("MELISMA_NATIVE", "0")
    assert native_decoder(schema, **options) is None


def test_the_run_decoder_uses_it() -> None:
    """Where it is built, a run is decoded natively, validated, and its bad records named."""
    schema = stream_schema("s", {"properties": {"a": {"type": "integer", "minimum": 2}, "j": {}}})
    decoded = RunDecoder(schema).decode(run_of([{"a": 1}, {"a": 2, "j": [1, {}]}]))
    assert decoded.by_block
    assert [(row, error.column) for row, error in decoded.bad] == [(0, "a")]
    assert decoded.batch == pa.record_batch([[2], ["[1,{}]"]], schema=schema.arrow)
