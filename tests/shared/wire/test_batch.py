"""BATCH messages, read and written."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from singer_sdk.helpers._batch import SDKBatchMessage

from melisma.errors import BadMessage
from melisma.wire.batch import Batch, batch_line, read_batch
from melisma.wire.messages import Message


def message(**changes: Any) -> Message:
    """A BATCH message as singer-sdk writes it, with other values; `...` leaves a key out."""
    found: dict[str, Any] = {
        "type": "BATCH",
        "stream": "s",
        "encoding": {"format": "jsonl", "compression": "gzip"},
        "manifest": ["file:///a"],
        **changes,
    }
    found = {key: value for key, value in found.items() if value is not ...}
    return Message("BATCH", json.dumps(found).encode(), 7)


def test_singer_sdks_message_is_read() -> None:
    """The message of a tap of singer-sdk, which leaves version and compression null."""
    theirs = SDKBatchMessage(stream="s", encoding={"format": "parquet"}, manifest=["file:///a", "file:///b"])
    line = json.dumps(theirs.to_dict()).encode()
    assert read_batch(Message("BATCH", line, 3)) == Batch("s", "parquet", "none", ("file:///a", "file:///b"), 3)


def test_what_is_written_is_read() -> None:
    """Our own message comes back, with time and version."""
    at = dt.datetime(2024, 1, 2, 3, 4, 5, 678, dt.UTC)
    line = batch_line("ü", "arrow", "zstd", ["file:///a"], time_extracted=at, version=9)
    assert line.endswith(b"}\n")
    found = read_batch(Message("BATCH", line, 1))
    assert found == Batch("ü", "arrow", "zstd", ("file:///a",), 1, "2024-01-02T03:04:05.000678Z", 9)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stream": ...}, 'without "stream"'),
        ({"stream": 1}, '"stream" is not a name'),
        ({"encoding": ...}, 'without "encoding"'),
        ({"encoding": "jsonl"}, '"encoding" is not an object'),
        ({"encoding": {"format": "avro"}}, "jsonl, parquet, arrow"),
        ({"encoding": {"format": ["jsonl"]}}, "jsonl, parquet, arrow"),
        ({"encoding": {"format": "jsonl", "compression": "xz"}}, "gzip, zstd, none"),
        ({"manifest": ...}, 'without "manifest"'),
        ({"manifest": "file:///a"}, "list of file names"),
        ({"manifest": [None]}, "list of file names"),
        ({"manifest": [""]}, "list of file names"),
        ({"manifest": ["a"] * 10_001}, "10000 files"),
    ],
)
def test_what_is_no_batch_message_is_refused(changes: dict[str, Any], says: str) -> None:
    """One line, which names the message's line and the rule."""
    with pytest.raises(BadMessage, match=r"^line 7: a BATCH message ") as raised:
        read_batch(message(**changes))
    assert says in str(raised.value)
