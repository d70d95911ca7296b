"""Parquet files: every value survives, other engines read them, and settings that cannot work are refused."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from melisma.arrow.types import ColumnType, Kind, StreamSchema
from melisma.errors import BadFile, BadSchema, ConfigError
from melisma.formats.parquet import (
    COMPRESSIONS,
    ParquetFileWriter,
    ParquetOptions,
    choose_encodings,
    file_metadata,
    read_batches,
)

ROWS = [
    {
        "text": "a\x00b😀",
        "empty": "",
        "big": 2**63 - 1,
        "unsigned": 2**64 - 1,
        "decimal": Decimal("9" * 20 + "." + "9" * 18),
        "at": datetime(1, 1, 1, tzinfo=UTC),
        "day": date(9999, 12, 31),
        "time": time(23, 59, 59, 999999),
        "raw": b"\x00\xff",
        "flag": True,
        "number": 0.1,
        "nested": {"a.b": [1, None, 3], "inner": {"x": "y"}},
        "things": [{"k": 1}, None],
        "pairs": [("k", 1), ("l", None)],
    },
    dict.fromkeys(
        ["text", "empty", "big", "unsigned", "decimal", "at", "day", "time", "raw", "flag", "number", "nested"]
    ),
]
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("empty", pa.string()),
        ("big", pa.int64()),
        ("unsigned", pa.uint64()),
        ("decimal", pa.decimal128(38, 18)),
        ("at", pa.timestamp("us", "UTC")),
        ("day", pa.date32()),
        ("time", pa.time64("us")),
        ("raw", pa.binary()),
        ("flag", pa.bool_()),
        ("number", pa.float64()),
        ("nested", pa.struct([("a.b", pa.list_(pa.int64())), ("inner", pa.struct([("x", pa.string())]))])),
        ("things", pa.list_(pa.struct([("k", pa.int64())]))),
        ("pairs", pa.map_(pa.string(), pa.int64())),
    ]
)


def write(path: Path, groups: list[pa.RecordBatch], options: ParquetOptions | None = None, **metadata: str) -> None:
    """One file of these row groups."""
    with path.open("wb") as sink:
        writer = ParquetFileWriter(sink, groups[0].schema, options or ParquetOptions(), metadata)
        for group in groups:
            writer.write_row_group([group.slice(0, 1), group.slice(1)])
        writer.close()
        assert writer.rows == sum(group.num_rows for group in groups)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_type_survives(tmp_path: Path, compression: str) -> None:
    """Each codec, each type, nested too: read back by DuckDB and Polars, and whole by our reader."""
    batch = pa.RecordBatch.from_pylist(ROWS, schema=SCHEMA)
    file = tmp_path / "file.parquet"
    write(file, [batch, batch], ParquetOptions(compression=compression))
    names = ["text", "empty", "big", "unsigned", "decimal", "day", "time", "raw", "flag", "number"]
    expected = [tuple(row[name] for name in names) for row in ROWS * 2]
    columns = ", ".join(f'"{name}"' for name in names)
    assert duckdb.execute(f"select {columns} from read_parquet(?)", [str(file)]).fetchall() == expected  # noqa: S608
    frame = pl.read_parquet(file)
    assert frame.select(names).rows() == expected
    assert frame["at"].to_list() == [row["at"] for row in ROWS * 2]
    assert frame["nested"].to_list()[0] == ROWS[0]["nested"]
    with file.open("rb") as source:
        read = list(read_batches(source, batch_rows=3))
    assert [b.num_rows for b in read] == [3, 1]
    assert pa.Table.from_batches(read).replace_schema_metadata(None) == pa.Table.from_batches([batch, batch])


def test_5000_columns_in_several_row_groups(tmp_path: Path) -> None:
    """Wide streams work: values and order of the columns stay."""
    batch = pa.record_batch([pa.array([i, i + 1, None]) for i in range(5_000)], names=[f"c{i}" for i in range(5_000)])
    file = tmp_path / "wide.parquet"
    write(file, [batch, batch])
    frame = pl.read_parquet(file)
    assert frame.columns == batch.schema.names
    assert frame.row(4) == tuple(i + 1 for i in range(5_000))


def test_the_file_says_whose_it_is(tmp_path: Path) -> None:
    """Stream, keys, JSON Schema and version stand in the metadata, where DuckDB finds them."""
    json_schema = {"properties": {"é": {"type": "integer"}}}
    root = ColumnType(Kind.STRUCT, pa.struct([("é", pa.int64())]))
    metadata = file_metadata(StreamSchema("orders", root, ("é",), json_schema))
    file = tmp_path / "file.parquet"
    write(file, [pa.record_batch([[1, 2]], names=["é"])], **metadata)
    found = duckdb.execute("select key, value from parquet_kv_metadata(?)", [str(file)]).fetchall()
    values = {key: value.decode("utf-8") for key, value in dict(found).items() if key.startswith(b"melisma.")}
    assert values.pop(b"melisma.version")
    assert values.pop(b"melisma.stream") == "orders"
    assert json.loads(values.pop(b"melisma.key_properties")) == ["é"]
    assert json.loads(values.pop(b"melisma.json_schema")) == json_schema
    assert not values


def test_encodings_fit_the_first_row_group() -> None:
    """Dictionaries for few values, deltas for other integers and times, neither where names are ambiguous."""
    many = list(range(1_000))
    table = pa.table(
        {
            "id": many,
            "at": pa.array(many, pa.timestamp("us", "UTC")),
            "price": [i / 7 for i in many],
            "country": [f"c{i % 5}" for i in many],
            "email": [f"e{i}" for i in many],
            "flag": [True] * 1_000,
            "nothing": pa.nulls(1_000, pa.string()),
            "deep": [{"tags": ["a", "b"], "n": i} for i in many],
            "deep.n": ["x"] * 1_000,
        }
    )
    dictionaries, encodings = choose_encodings(table)
    assert dictionaries == ["country", "nothing", "deep.tags.list.element"]
    assert encodings == {"id": "DELTA_BINARY_PACKED", "at": "DELTA_BINARY_PACKED"}


@pytest.mark.parametrize(
    ("values", "few"),
    [
        ([f"u{i}" for i in range(9_000)], False),
        ([None] * 8_000 + [f"u{i}" for i in range(1_000)], False),
        ([f"u{i}" if i % 20 == 0 else None for i in range(9_000)], False),
        ([f"c{i % 1_400}" for i in range(9_000)], True),
        ([f"c{i // 50}" for i in range(9_000)], True),
        (["same"] * 5, True),
    ],
)
def test_a_dictionary_is_for_values_that_repeat(values: list[str | None], few: bool) -> None:
    """Unique ones get none, however many nulls stand among or before them; a cycle and runs of equal ones do."""
    assert choose_encodings(pa.table({"s": values}))[0] == (["s"] if few else [])


def test_a_chosen_encoding_holds_when_the_data_changes(tmp_path: Path) -> None:
    """Few values first, then many; nulls first, then values: later row groups are whole all the same."""
    few = pa.record_batch([["x"] * 500, pa.nulls(500, pa.int64())], names=["s", "n"])
    many = pa.record_batch([[f"{i}" * 50 for i in range(50_000)], list(range(50_000))], names=["s", "n"])
    file = tmp_path / "file.parquet"
    write(file, [few, many])
    frame = pl.read_parquet(file)
    assert frame["s"].to_list() == few["s"].to_pylist() + many["s"].to_pylist()
    assert frame["n"].to_list() == few["n"].to_pylist() + many["n"].to_pylist()


@pytest.mark.parametrize(
    ("compression", "level", "message"),
    [
        ("zip", None, "Valid values: zstd, snappy, gzip, lz4, brotli, none"),
        ("zstd", 0, "from 1 to 22"),
        ("zstd", 23, "from 1 to 22"),
        ("gzip", 0, "from 1 to 9"),
        ("brotli", 12, "from 0 to 11"),
        ("snappy", 1, "snappy has no levels"),
        ("lz4", 1, "lz4 has no levels"),
        ("none", 1, "none has no levels"),
    ],
)
def test_levels_are_checked(compression: str, level: int | None, message: str) -> None:
    """Codec and level are checked at start, not by the first row group."""
    with pytest.raises(ConfigError, match=message):
        ParquetOptions(compression=compression, compression_level=level)


@pytest.mark.parametrize(
    ("compression", "level"), [("zstd", 1), ("zstd", 22), ("gzip", 9), ("brotli", 0), ("brotli", 11)]
)
def test_the_levels_that_are_let_in_work(tmp_path: Path, compression: str, level: int) -> None:
    """The ends of each range are taken by the encoder."""
    options = ParquetOptions(compression=compression, compression_level=level)
    write(tmp_path / "file.parquet", [pa.record_batch([["a", "b"]], names=["s"])], options)
    assert pl.read_parquet(tmp_path / "file.parquet")["s"].to_list() == ["a", "b"]


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        (pa.struct([]), "c"),
        (pa.struct([("x", pa.struct([]))]), "c.x"),
        (pa.list_(pa.struct([])), "c"),
        (pa.map_(pa.string(), pa.struct([])), "c"),
    ],
)
def test_an_object_without_members_is_refused(kind: pa.DataType, column: str) -> None:
    """However deep it stands; the column is named."""
    with pytest.raises(BadSchema, match="object without members") as error:
        ParquetFileWriter(io.BytesIO(), pa.schema([("c", kind)]), ParquetOptions())
    assert error.value.column == column


def test_columns_are_read_by_name_also_with_dots(tmp_path: Path) -> None:
    """A name with a dot is a column, not a path into a struct."""
    file = tmp_path / "file.parquet"
    write(file, [pa.record_batch([[1, 2], [{"b": 3}, None], [4, 5]], names=["a.b", "a", "c"])])
    with file.open("rb") as source:
        [batch] = read_batches(source, ["c", "a.b"])
    assert batch.to_pydict() == {"a.b": [1, 2], "c": [4, 5]}
    with file.open("rb") as source:
        [batch] = read_batches(source, ["a"])
    assert batch.to_pydict() == {"a": [{"b": 3}, None]}


def test_a_damaged_file_is_a_bad_file(tmp_path: Path) -> None:
    """Cut off, or something else: one line that names the file."""
    file = tmp_path / "file.parquet"
    write(file, [pa.record_batch([list(range(1_000))], names=["id"])])
    whole = file.read_bytes()
    for content in (b"", b"id,name\n1,secret\n", whole[:-100], whole[:4] + b"\xff" * 200 + whole[204:]):
        with pytest.raises(BadFile, match=r'file "data/x\.parquet"') as error:
            list(read_batches(io.BytesIO(content), name="data/x.parquet"))
        assert "\n" not in str(error.value)
        assert "secret" not in str(error.value)
