"""Files that Spark writes are read right: whole folders of them, as it leaves them. Needs Java."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.network]

PROGRAM = """
import datetime as dt, decimal
from pyspark.sql import Row
from pyspark.sql.types import *

kind = StructType([
    StructField("id", LongType()), StructField("small", ByteType()), StructField("total", DecimalType(12, 2)),
    StructField("ratio", DoubleType()), StructField("flag", BooleanType()), StructField("text", StringType()),
    StructField("day", DateType()), StructField("at", TimestampType()), StructField("place", StringType()),
])
moment = dt.datetime(2024, 2, 29, 12, 0, 0, 123000, dt.timezone.utc)
rows = [
    (1, 1, decimal.Decimal("1.50"), 0.1, True, 'a "b",\\n\\u00e9', dt.date(2024, 2, 29), moment, "Wien/1"),
    (2, None, None, None, None, None, None, None, None),
    (2**62, -128, decimal.Decimal("-9999999999.99"), 1e300, False, "x", dt.date(1, 1, 1), moment, "x"),
]
frame = spark.createDataFrame(rows, kind)
nested = frame.selectExpr("*", "array(text, null) AS tags", "map('k', id) AS counts", "struct(id, day) AS pair",
                          "CAST(text AS BINARY) AS data")
for codec in ("snappy", "zstd", "gzip", "lz4", "none"):
    nested.write.option("compression", codec).parquet(f"{data}/parquet-{codec}")
nested.write.partitionBy("place").parquet(f"{data}/parquet-parts")
spark.conf.set("spark.sql.parquet.outputTimestampType", "INT96")
nested.write.parquet(f"{data}/parquet-int96")
for codec in ("none", "gzip", "bzip2"):
    nested.drop("data").write.option("compression", codec).json(f"{data}/json-{codec}")
    frame.write.options(compression=codec, header=True, escape='"', emptyValue="").csv(f"{data}/csv-{codec}")
result = None
"""

SCALARS: list[dict[str, Any]] = [
    {
        "id": 1,
        "small": 1,
        "total": Decimal("1.5"),
        "ratio": Decimal("0.1"),
        "flag": True,
        "text": 'a "b",\né',
        "day": "2024-02-29",
        "at": "2024-02-29T12:00:00.123Z",
        "place": "Wien/1",
    },
    {"id": 2, **dict.fromkeys(["small", "total", "ratio", "flag", "text", "day", "at", "place"])},
    {
        "id": 2**62,
        "small": -128,
        "total": Decimal("-9999999999.99"),
        "ratio": Decimal("1e300"),
        "flag": False,
        "text": "x",
        "day": "0001-01-01",
        "at": "2024-02-29T12:00:00.123Z",
        "place": "x",
    },
]


@pytest.fixture(scope="module")
def written(spark: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders."""
    folder = tmp_path_factory.mktemp("spark")
    spark(PROGRAM, str(folder))
    return folder


def nested(row: dict[str, Any], *, data: bool = True) -> dict[str, Any]:
    """A row of the frame with nested columns."""
    import base64

    text = row["text"]
    binary = {"data": text if text is None else base64.b64encode(text.encode()).decode()} if data else {}
    more = {"tags": [text, None], "counts": {"k": row["id"]}, "pair": {"id": row["id"], "day": row["day"]}}
    return {**row, **more, **binary}


def read(files: Any, pattern: str, stream: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The rows of a folder, by their ids."""
    found: list[dict[str, Any]] = files.sync(files.config(pattern, stream)).records
    return sorted(found, key=lambda row: row["id"])


@pytest.mark.parametrize("codec", ["snappy", "zstd", "gzip", "lz4", "none"])
def test_parquet(files: Any, written: Path, codec: str) -> None:
    """Every codec; what else lies in the folder is passed over."""
    files.folder = written / f"parquet-{codec}"
    assert (files.folder / "_SUCCESS").exists()
    assert read(files, "*.parquet") == [nested(row) for row in SCALARS]


def test_a_dataset_in_partitions(files: Any, written: Path) -> None:
    """The folders are a column, decoded, null too."""
    files.folder = written / "parquet-parts"
    assert read(files, "**/*.parquet", {"hive_partitions": True}) == [nested(row) for row in SCALARS]


def test_times_in_96_bits(files: Any, written: Path) -> None:
    """What Spark and Hive wrote in earlier days."""
    files.folder = written / "parquet-int96"
    found = read(files, "*.parquet")
    assert [row["at"] for row in found] == [row["at"] for row in SCALARS]


@pytest.mark.parametrize("codec", ["none", "gzip", "bzip2"])
def test_json_lines(files: Any, written: Path, codec: str) -> None:
    """Members that are null are not written; which texts are times is said by column_types or seen in the sample."""
    files.folder = written / f"json-{codec}"
    found = read(files, "*.json*", {"format": "jsonl"})
    assert found == [nested(row, data=False) for row in SCALARS]


@pytest.mark.parametrize("codec", ["none", "gzip", "bzip2"])
def test_csv(files: Any, written: Path, codec: str) -> None:
    """With a header, and a quote doubled as RFC 4180 has it."""
    files.folder = written / f"csv-{codec}"
    assert read(files, "*.csv*") == SCALARS
