"""singer-sdk's standard target tests on target-files, read back with other libraries, for each format."""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from file_rows import read_arrow, read_csv, read_json_lines, read_msgpack
from standard import same, standard_tests

from melisma_target_files.target import TargetFiles


def as_text(sent: Any, found: Any) -> bool:
    """Whether a cell holds what was sent, in a format in which a date-time is text."""
    if isinstance(found, dict):
        return isinstance(sent, dict) and all(as_text(sent.get(key), found.get(key)) for key in {*sent, *found})
    if isinstance(found, list):
        return len(sent) == len(found) and all(map(as_text, sent, found))
    if isinstance(sent, str) and isinstance(found, str):
        return sent == found or _moment(sent) == _moment(found) is not None
    if isinstance(sent, str) and not isinstance(found, str):
        return bool(json.loads(sent) == found)  # CSV: text that looks like a number
    return same(sent, found)


def _moment(text: str) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


TestStandard, TestJsonLines, TestEachState = standard_tests(TargetFiles, ".jsonl", read_json_lines, as_text)
_, TestCsv, _ = standard_tests(
    TargetFiles, ".csv.gz", read_csv, as_text, format="csv", compression="gzip", csv={"null_value": "NULL"}
)
_, TestMsgPack, _ = standard_tests(
    TargetFiles, ".msgpack.zst", read_msgpack, as_text, format="msgpack", compression="zstd"
)
_, TestArrow, _ = standard_tests(TargetFiles, ".arrow", read_arrow, as_text, format="arrow")
