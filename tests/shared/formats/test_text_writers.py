"""JSON Lines, CSV, MsgPack and Arrow IPC: what is written comes back, read by other libraries."""

from __future__ import annotations

import base64
import bz2
import datetime as dt
import gzip
import io
import json
import lzma
import math
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import arro3.io
import brotli
import cramjam
import duckdb
import lz4.frame
import msgpack
import polars as pl
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "arrow"))

from strategies import SETTINGS, run_of, streams

from melisma.arrow.decode import RunDecoder
from melisma.arrow.schema import stream_schema
from melisma.arrow.types import StreamSchema
from melisma.errors import BadSchema, ConfigError
from melisma.formats.writers.chosen import FORMATS, chosen_format
from melisma.formats.writers.msgpack import by_dicts, by_structs

LIMITS = {"max_file_bytes": 1 << 30, "row_group_bytes": 1 << 20}


def written(name: str, batches: list[pa.RecordBatch], schema: StreamSchema, **settings: Any) -> bytes:
    """A file of these batches."""
    file_format = chosen_format(name, **{**LIMITS, **settings})
    file_format.check(schema.arrow, schema)
    sink = io.BytesIO()
    writer = file_format.open_file(sink, schema.arrow, schema)
    for batch in batches:
        writer.write_row_group([batch])
    writer.close()
    assert not sink.closed
    return sink.getvalue()


def as_json(value: Any) -> Any:
    """A value as it stands in JSON, numbers exact."""
    match value:
        case dict():
            return {key: as_json(each) for key, each in value.items()}
        case list():
            return [as_json(each) for each in value]
        case bytes():
            return base64.b64encode(value).decode()
        case float():
            return Decimal(repr(value))
        case dt.datetime():
            return moment(value)
        case dt.date() | dt.time():
            return value.isoformat()
        case _:
            return value


def moment(value: dt.datetime) -> str:
    """Without trailing zeros of the second."""
    text = value.astimezone(dt.UTC).isoformat().removesuffix("+00:00")
    return f"{text.rstrip('0')}Z" if "." in text else f"{text}Z"


def same_moment(text: Any) -> Any:
    """A JSON value with its times in one form."""
    if isinstance(text, dict):
        return {key: same_moment(each) for key, each in text.items()}
    if isinstance(text, list):
        return [same_moment(each) for each in text]
    if isinstance(text, str) and "." in text and text.endswith("Z") and "T" in text:
        return text.removesuffix("Z").rstrip("0") + "Z"
    if isinstance(text, str) and re.fullmatch(r"\d\d:\d\d:\d\d\.\d+", text):
        return text.rstrip("0").removesuffix(".")
    return text


def exact(text: str) -> Any:
    """JSON with exact numbers."""
    return json.loads(text, parse_float=Decimal)


def read_csv(text: str, delimiter: str = ",") -> list[list[str | None]]:
    """RFC 4180 to the letter; a field without quotes and characters is None."""
    rows: list[list[str | None]] = []
    row: list[str | None] = []
    at = 0
    while at < len(text):
        if text[at] == '"':
            end = at + 1
            while text[end] != '"' or text[end + 1] == '"':
                end += 1 if text[end] != '"' else 2
            row.append(text[at + 1 : end].replace('""', '"'))
            at = end + 1
        else:
            end = at
            while text[end] not in f"{delimiter}\n":
                assert text[end] not in '"\r'
                end += 1
            row.append(text[at:end] or None)
            at = end
        if text[at] == "\n":
            rows.append(row)
            row = []
        at += 1
    assert row == []
    return rows


def csv_text(value: Any, kind: pa.DataType) -> Any:
    """What a field should say; nested ones as JSON values."""
    if value is None or isinstance(value, str):
        return value
    if pa.types.is_nested(kind):
        return as_json(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
    if isinstance(value, dt.time):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, float):
        return value
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


@SETTINGS
@given(streams(), st.integers(0, 2))
def test_generated_streams_come_back(stream, skip) -> None:
    """Arrow to each format and back gives the same values, of slices too."""
    node, records = stream
    schema = stream_schema("s", node, ("a",) if "a" in node["properties"] else (), {})
    batch = RunDecoder(schema, validate=False, on_unknown_field="drop").decode(run_of(records)).batch.slice(skip)
    rows = batch.to_pylist(maps_as_pydicts="strict") * 2
    both = [batch, batch]
    wanted = [same_moment(as_json(row)) for row in rows]

    lines = written("jsonl", both, schema).decode().split("\n")
    assert lines.pop() == ""
    assert [same_moment(exact(line)) for line in lines] == wanted

    header, *found = read_csv(written("csv", both, schema, csv={"null_value": "NULL"}).decode())
    assert header == batch.schema.names
    for cells, row in zip(found, rows, strict=True):
        for cell, value, kind in zip(cells, row.values(), batch.schema.types, strict=True):
            wants = csv_text(value, kind)
            if wants is None:
                assert cell == "NULL"
            elif isinstance(wants, float):
                assert float(cell or "") == wants
            elif pa.types.is_nested(kind):
                assert same_moment(exact(cell or "")) == same_moment(wants)
            else:
                assert (cell or "") == wants

    packed = msgpack.Unpacker(io.BytesIO(written("msgpack", both, schema)), timestamp=3, strict_map_key=False)
    assert list(packed) == [as_msgpack(row) for row in rows]
    assert by_structs(batch, "s") in (None, bytes(by_dicts(batch)))

    for name in ("arrow", "arrow_stream"):
        read = arro3.io.read_ipc if name == "arrow" else arro3.io.read_ipc_stream
        table = pa.table(read(io.BytesIO(written(name, both, schema))))
        assert table.to_pylist(maps_as_pydicts="strict") == rows


def as_msgpack(value: Any) -> Any:
    """A value as MsgPack has it."""
    match value:
        case dict():
            return {key: as_msgpack(each) for key, each in value.items()}
        case list():
            return [as_msgpack(each) for each in value]
        case Decimal():
            return str(value)
        case dt.datetime():
            return value
        case dt.date() | dt.time():
            return value.isoformat()
        case _:
            return value


TABLE = stream_schema(
    "s",
    {
        "type": "object",
        "properties": {
            "id": {"type": "integer"},
            "t": {"type": ["string", "null"]},
            "d": {"type": ["number", "null"], "precision": 38, "scale": 9},
            "at": {"type": ["string", "null"], "format": "date-time"},
        },
    },
    ("id",),
    {},
)
ROWS: list[dict[str, Any]] = [
    {"id": 1, "t": "", "d": Decimal("0.000000001"), "at": dt.datetime(1, 1, 1, tzinfo=dt.UTC)},
    {"id": 2, "t": None, "d": None, "at": None},
    {"id": 3, "t": 'two\nlines, "quoted"', "d": Decimal("-99999999999999999999999999999.999999999"), "at": None},
    {"id": 4, "t": " blanks ", "d": Decimal(0), "at": dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.UTC)},
    {"id": 5, "t": "NULL", "d": Decimal("1.5"), "at": None},
    {"id": 6, "t": "\r", "d": None, "at": None},
]
BATCH = pa.RecordBatch.from_pylist(ROWS, schema=TABLE.arrow)
DUCKDB_COLUMNS = "{'id': 'BIGINT', 't': 'VARCHAR', 'd': 'DECIMAL(38, 9)', 'at': 'TIMESTAMPTZ'}"


def by_duckdb(path: Path, options: str) -> list[tuple[Any, ...]]:
    """A CSV file's rows."""
    source = f"read_csv(?, columns={DUCKDB_COLUMNS}, auto_detect=false, {options})"
    query = f'SELECT id, t, d, epoch_us("at") FROM {source}'  # noqa: S608
    return duckdb.execute(query, [str(path)]).fetchall()


def expected() -> list[tuple[Any, ...]]:
    """ROWS as DuckDB gives them."""
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    micro = dt.timedelta(microseconds=1)
    return [(r["id"], r["t"], r["d"], (r["at"] - epoch) // micro if r["at"] else None) for r in ROWS]


def test_duckdb_tells_null_from_empty_text_in_csv(tmp_path: Path) -> None:
    """By the quotes; or by the word for null."""
    path = tmp_path / "t.csv"
    path.write_bytes(written("csv", [BATCH], TABLE))
    plain = "delim=',', quote='\"', escape='\"', header=true, allow_quoted_nulls=false"
    assert by_duckdb(path, f"{plain}, nullstr=''") == expected()
    path.write_bytes(written("csv", [BATCH], TABLE, csv={"null_value": "NULL", "delimiter": "|", "quote": "text"}))
    options = plain.replace("','", "'|'")
    assert by_duckdb(path, f"{options}, nullstr='NULL'") == expected()
    path.write_bytes(written("csv", [BATCH], TABLE, csv={"header": False}))
    assert by_duckdb(path, f"{plain.replace('true', 'false', 1)}, nullstr=''") == expected()


def test_the_fast_way_to_msgpack_is_taken_where_it_gives_the_same_bytes() -> None:
    """Of all types but maps, to the ends of each; not where JSON has no such value."""
    properties = {
        **TABLE.json_schema["properties"],
        "u": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**64 - 1},
        "f": {"type": ["number", "null"]},
        "b": {"type": ["boolean", "null"]},
        "x": {"type": ["string", "null"], "contentEncoding": "base64"},
        "day": {"type": ["string", "null"], "format": "date"},
        "clock": {"type": ["string", "null"], "format": "time"},
        "o": {"type": ["object", "null"], "properties": {"a b": {"type": "array", "items": {"type": "number"}}}},
    }
    schema = stream_schema("s", {"type": "object", "properties": properties}, ("id",), {})
    ends = {
        "u": 2**64 - 1,
        "f": -5e-324,
        "b": True,
        "x": bytes(range(256)),
        "day": dt.date(9999, 12, 31),
        "clock": dt.time(23, 59, 59, 999999),
        "o": {"a b": [0.1, None, -0.0, 1e300]},
    }
    rows = [row | ends for row in ROWS] + [{**ROWS[1], "o": None, "f": 0.0, "clock": dt.time(1)}]
    batch = pa.RecordBatch.from_pylist(rows, schema=schema.arrow)
    assert by_structs(batch, "s") == bytes(by_dicts(batch))
    for value in (math.nan, math.inf):
        other = pa.RecordBatch.from_pylist([{**rows[0], "o": {"a b": [value]}}], schema=schema.arrow)
        assert by_structs(other, "s") is None
        [packed] = msgpack.Unpacker(io.BytesIO(written("msgpack", [other], schema)), timestamp=3)
        assert repr(packed["o"]["a b"]) == repr([value])
    node = {"m": {"type": "object", "additionalProperties": {"type": "string"}}}
    maps = stream_schema("s", {"type": "object", "properties": node}, (), {})
    assert by_structs(pa.RecordBatch.from_pylist([{"m": [("a", "b")]}], schema=maps.arrow), "s") is None


def test_polars_reads_arrow(tmp_path: Path) -> None:
    """Files and streams, of each codec, with the types."""
    for compression in ("none", "lz4", "zstd"):
        data = written("arrow", [BATCH, BATCH], TABLE, compression=compression)
        assert pl.read_ipc(io.BytesIO(data)).to_dicts() == ROWS * 2
        data = written("arrow_stream", [BATCH, BATCH], TABLE, compression=compression)
        assert pl.read_ipc_stream(io.BytesIO(data)).to_dicts() == ROWS * 2


DECODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "none": ("", lambda data: data),
    "gzip": (".gz", gzip.decompress),
    "zstd": (".zst", lambda data: zstandard.ZstdDecompressor().stream_reader(data).read()),
    "lz4": (".lz4", lz4.frame.decompress),
    "brotli": (".br", brotli.decompress),
    "snappy": (".sz", lambda data: bytes(cramjam.snappy.decompress(data))),
    "bz2": (".bz2", bz2.decompress),
    "xz": (".xz", lzma.decompress),
}


@pytest.mark.parametrize("name", ["jsonl", "csv", "msgpack"])
@pytest.mark.parametrize("compression", DECODERS)
def test_each_codec_can_be_opened_by_its_own_library(name: str, compression: str) -> None:
    """The name ends in the codec's ending, and what comes out is what stands there without a codec."""
    ending, decode = DECODERS[compression]
    assert chosen_format(name, **LIMITS, compression=compression).extension == name + ending
    data = written(name, [BATCH] * 50, TABLE, compression=compression)
    plain = written(name, [BATCH] * 50, TABLE)
    assert decode(data) == plain
    assert compression == "none" or len(data) < len(plain)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_without_rows_is_whole(name: str) -> None:
    """It is read as no rows, with its columns where the format names them."""
    data = written(name, [], TABLE)
    match name:
        case "csv":
            assert data == b"id,t,d,at\n"
        case "arrow":
            assert pl.read_ipc(io.BytesIO(data)).columns == BATCH.schema.names
        case "arrow_stream":
            assert pl.read_ipc_stream(io.BytesIO(data)).columns == BATCH.schema.names
        case _:
            assert data == b""


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"name": "xml"}, "format"),
        ({"name": "jsonl", "csv": {"delimiter": ";"}}, "csv"),
        ({"name": "csv", "csv": {"delimiter": ",,"}}, "csv.delimiter"),
        ({"name": "csv", "csv": {"delimiter": "."}}, "csv.delimiter"),
        ({"name": "csv", "csv": {"delimiter": "1"}}, "csv.delimiter"),
        ({"name": "csv", "csv": {"null_value": "a,b"}}, "csv.null_value"),
        ({"name": "csv", "csv": {"null_value": "-1"}}, "csv.null_value"),
        ({"name": "csv", "csv": {"null_value": "true"}}, "csv.null_value"),
        ({"name": "csv", "compression": "zip"}, "compression"),
        ({"name": "csv", "compression": "gzip", "compression_level": 10}, "compression_level"),
        ({"name": "arrow", "compression": "gzip"}, "compression"),
        ({"name": "arrow", "compression": "lz4", "compression_level": 1}, "compression_level"),
        ({"name": "arrow", "compression_level": 23}, "compression_level"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], setting: str) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError) as caught:
        chosen_format(**{**LIMITS, **settings})
    assert caught.value.setting == setting


def test_a_lone_column_in_csv_needs_a_word_for_null() -> None:
    """Its nulls would be blank lines; a key has none, and a word helps."""
    node = {"type": "object", "properties": {"v": {"type": ["string", "null"]}}}
    schema = stream_schema("s", node, (), {})
    batch = pa.RecordBatch.from_pylist([{"v": "a"}, {"v": None}, {"v": ""}], schema=schema.arrow)
    with pytest.raises(BadSchema, match=r"csv\.null_value"):
        written("csv", [batch], schema)
    assert written("csv", [batch], schema, csv={"null_value": "NULL"}) == b'v\na\nNULL\n""\n'
    key = stream_schema("s", {"type": "object", "properties": {"v": {"type": "string"}}}, ("v",), {})
    assert written("csv", [batch.slice(2)], key) == b'v\n""\n'
