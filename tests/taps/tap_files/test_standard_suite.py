"""singer-sdk's own suite of tests for taps, on each format."""

from __future__ import annotations

import datetime as dt
import tempfile
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from singer_sdk.testing import get_tap_test_class

from melisma_tap_files.tap import TapFiles

_TEMPORARY = tempfile.TemporaryDirectory(prefix="tap-files-suite-")  # goes when the process ends
_FOLDER = Path(_TEMPORARY.name)
(_FOLDER / "a.csv").write_text(
    "id,name,price,ok,day,at\n1,x,1.5,true,2024-01-01,2024-01-01T00:00:00Z\n2,,,,,\n", encoding="utf-8"
)
(_FOLDER / "a.jsonl").write_text('{"id":1,"o":{"a":[1,2]},"m":1}\n{"id":2,"o":null,"m":"x"}\n', encoding="utf-8")
pq.write_table(
    pa.table(
        {
            "id": [1, 2],
            "price": pa.array([Decimal("1.10"), None], pa.decimal128(9, 2)),
            "at": [dt.datetime(2024, 1, 1), None],
            "who": [{"name": "x"}, None],
            "raw": [b"\x00", None],
        }
    ),
    _FOLDER / "a.parquet",
)

CONFIG = {
    "streams": [
        {"name": "csv", "path": str(_FOLDER / "*.csv"), "key_properties": ["id"]},
        {"name": "jsonl", "path": str(_FOLDER / "*.jsonl"), "key_properties": ["id"]},
        {"name": "parquet", "path": str(_FOLDER / "*.parquet"), "key_properties": ["id"]},
    ],
    "add_file_metadata": True,
}

TestTapFiles = get_tap_test_class(tap_class=TapFiles, config=CONFIG)
