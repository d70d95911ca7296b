"""What target-parquet writes is the same table to every reader that lakes are built for: a test for each.

Types as each reader names them, and values at both ends of each type. The folder of a partition is no part of a
file: its column is left aside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from every_type import messages, same
from harness import Target

ARROW, POLARS, DUCKDB, SPARK_SQL = range(4)
TYPES: dict[str, tuple[str, str, str, str]] = {
    "id": ("int64", "Int64", "BIGINT", "bigint"),
    "big": ("uint64", "UInt64", "UBIGINT", "decimal(20,0)"),
    "total": ("decimal128(38, 2)", "Decimal(precision=38, scale=2)", "DECIMAL(38,2)", "decimal(38,2)"),
    "ratio": ("double", "Float64", "DOUBLE", "double"),
    "flag": ("bool", "Boolean", "BOOLEAN", "boolean"),
    "text": ("string", "String", "VARCHAR", "string"),
    "data": ("binary", "Binary", "BLOB", "binary"),
    "at": (
        "timestamp[us, tz=UTC]",
        "Datetime(time_unit='us', time_zone='UTC')",
        "TIMESTAMP WITH TIME ZONE",
        "timestamp",
    ),
    "day": ("date32[day]", "Date", "DATE", "date"),
    "clock": ("time64[us]", "Time", "TIME", "time(6)"),
    "tags": ("list<element: string>", "List(String)", "VARCHAR[]", "array<string>"),
    "counts": ("map<string, int64>", "Map(String, Int64)", "MAP(VARCHAR, BIGINT)", "map<string,bigint>"),
    "place": (
        "struct<zip: string, xy: list<element: double>>",
        "Struct({'zip': String, 'xy': List(Float64)})",
        "STRUCT(zip VARCHAR, xy DOUBLE[])",
        "struct<zip:string,xy:array<double>>",
    ),
    "free": ("string", "String", "VARCHAR", "string"),
}
"""Each column's type as Arrow, Polars, DuckDB and Spark name it."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a stream, partitioned, that the executable has written in two files."""
    target = Target(tmp_path_factory.mktemp("readers"))
    code, _, err = target.run(messages(), partition_by=["country"], batch_size_rows=2)
    assert code == 0, err
    return target.lake / "s"


def types_are(reader: int, found: dict[str, str]) -> None:
    """Every column has the type that TYPES has for a reader."""
    found.pop("country")
    assert found == {name: kinds[reader] for name, kinds in TYPES.items()}


def arrow_types_are(found: dict[str, str]) -> None:
    """Arrow's types as pandas and Dask name them, with the names of a list's items and a map's entries."""
    plain = {name: kind.removesuffix("[pyarrow]").replace(" ('counts')", "") for name, kind in found.items()}
    types_are(ARROW, plain)


def test_pyarrow_dataset(lake: Path) -> None:
    """The types are melisma's own, as docs/types.md lists them."""
    table = pa.dataset.dataset(lake, partitioning="hive").to_table()
    arrow_types_are({field.name: str(field.type) for field in table.schema})
    same(table.to_pylist())


def test_polars(lake: Path) -> None:
    """A map is a list of entries to it."""
    frame = pl.scan_parquet(lake, hive_partitioning=True).collect()
    types_are(POLARS, {name: str(kind) for name, kind in frame.schema.items()})
    same(frame.to_dicts())


def test_duckdb(lake: Path) -> None:
    """By its own reader."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        relation = connection.sql(f"FROM read_parquet('{lake}/**/*.parquet', hive_partitioning = true)")
        types_are(DUCKDB, dict(zip(relation.columns, map(str, relation.types), strict=True)))
        same([dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()])


def test_pandas(lake: Path) -> None:
    """With Arrow's types; pandas' older ones have no integers that may be null."""
    frame = pd.read_parquet(lake, dtype_backend="pyarrow")
    arrow_types_are({str(name): str(kind) for name, kind in frame.dtypes.items()})
    same(frame.to_dict("records"))


def test_dask(lake: Path) -> None:
    """Likewise."""
    import dask.dataframe as dd

    frame = dd.read_parquet(lake, dtype_backend="pyarrow")
    arrow_types_are({str(name): str(kind) for name, kind in frame.dtypes.items()})
    same(frame.compute(scheduler="synchronous").to_dict("records"))


@pytest.mark.spark
@pytest.mark.network
def test_spark(lake: Path, spark: Callable[..., Any]) -> None:
    """Unsigned integers are decimals to it, and it reads times of day once it is told to."""
    found = spark(SPARK, str(lake))
    types_are(SPARK_SQL, dict(found["types"]))
    same(found["rows"])


SPARK = """
import base64
spark.conf.set("spark.sql.timeType.enabled", "true")
frame = spark.read.parquet(data)

def plain(value):
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else value

rows = []
for row in frame.withColumn("at", frame.at.cast("string")).collect():
    rows.append({name: plain(value) for name, value in row.asDict(recursive=True).items()})
result = {"types": frame.dtypes, "rows": rows}
"""
