"""What target-avro writes, read by Apache's Java library, which Spark brings: every type, with every codec."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from every_type import COLUMNS, messages, same
from harness import Target

pytestmark = [pytest.mark.spark, pytest.mark.network]

CODECS = ["null", "deflate", "snappy", "zstandard", "bzip2", "xz"]

PROGRAM = """
java = spark._jvm
model = java.org.apache.avro.generic.GenericData()
for name in ("DecimalConversion", "UUIDConversion"):
    model.addLogicalTypeConversion(getattr(java.org.apache.avro, "Conversions$" + name)())
for name in ("DateConversion", "TimeMicrosConversion", "TimestampMicrosConversion"):
    model.addLogicalTypeConversion(getattr(java.org.apache.avro.data, "TimeConversions$" + name)())
result = {}
for codec, path in data.items():
    datums = java.org.apache.avro.generic.GenericDatumReader(None, None, model)
    reader = java.org.apache.avro.file.DataFileReader(java.java.io.File(path), datums)
    rows = []
    while reader.hasNext():
        rows.append(model.toString(reader.next()))
    result[codec] = {"codec": reader.getMetaString("avro.codec"), "rows": rows}
    reader.close()
"""


def test_java_reads_every_type_with_every_codec(spark: Callable[..., Any], tmp_path: Path) -> None:
    """Logical types are what Java has for them; the values are exact."""
    files = {}
    for codec in CODECS:
        (tmp_path / codec).mkdir()
        target = Target(tmp_path / codec, "target-avro")
        code, _, err = target.run(messages(), compression=codec)
        assert code == 0, err
        [path] = (target.lake / "s").glob("*.avro")
        files[codec] = str(path)
    found = spark(PROGRAM, files)
    assert {codec: each["codec"] for codec, each in found.items()} == {codec: codec for codec in CODECS}
    for each in found.values():
        rows = [json.loads(row, parse_float=Decimal) for row in each["rows"]]
        assert all(set(row) == set(COLUMNS) for row in rows)
        for row in rows:
            row["data"] = None if row["data"] is None else row["data"].encode("latin-1")
        same(rows)
