"""Manifests that must not be followed, and BATCH files that are not what they are said to be."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import zstandard
from forking import ForkedTarget

Message = dict[str, Any]

PRIVATE = "pr1vate"
SCHEMA: Message = {
    "type": "SCHEMA",
    "stream": "s",
    "schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
    "key_properties": [],
}
RECORD: Message = {"type": "RECORD", "stream": "s", "record": {"n": 0}}


def batch(*files: Path | str, kind: str = "jsonl", compression: str | None = None, **more: Any) -> Message:
    """A BATCH message of the stream `s`."""
    encoding = {"format": kind} if compression is None else {"format": kind, "compression": compression}
    manifest = [file.as_uri() if isinstance(file, Path) else file for file in files]
    return {"type": "BATCH", "stream": "s", "encoding": encoding, "manifest": manifest, **more}


def jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """A JSON Lines file; a plain integer becomes `n`."""
    records = [{"n": row} if isinstance(row, int) else row for row in rows]
    path.write_bytes(b"".join(json.dumps(each).encode() + b"\n" for each in records))
    return path


def arrow(path: Path, rows: pa.RecordBatch) -> Path:
    """An Arrow IPC file."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
        writer.write_batch(rows)
    return path


def parquet(path: Path, rows: pa.RecordBatch) -> Path:
    """A Parquet file."""
    pq.write_table(pa.Table.from_batches([rows]), path)
    return path


def hostile(root: Path) -> dict[str, tuple[Message, str]]:
    """Manifests that must not be followed, and files that are not what they are said to be: what the error says."""
    outside = jsonl(root.parent / f"{PRIVATE}.jsonl", [1])
    (root / "link.jsonl").symlink_to(outside)
    (root / "up").symlink_to(root.parent)
    os.mkfifo(root / "pipe")
    numbers = pa.record_batch({"n": pa.array([1, 2])})
    whole = arrow(root / "whole.arrow", numbers).read_bytes()
    (root / "cut.arrow").write_bytes(whole[:-30])
    (root / "cut.parquet").write_bytes(parquet(root / "whole.parquet", numbers).read_bytes()[:-5])
    damaged = bytearray(arrow(root / "text.arrow", pa.record_batch({"n": ["abc"]})).read_bytes())
    at = damaged.index(b"abc")
    damaged[at : at + 3] = b"\xff\xfe\xfd"
    (root / "damaged.arrow").write_bytes(damaged)
    packed = gzip.compress(b'{"n":1}\n' * 1000)
    (root / "cut.jsonl.gz").write_bytes(packed[:-12])
    jsonl(root / "plain.jsonl", [1])
    (root / "bomb.jsonl.gz").write_bytes(gzip.compress(b'{"n":1}\n' * 1_000_000))
    (root / "bomb.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(b'{"n":1}\n' * 1_000_000))
    (root / "window.zst").write_bytes(b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00")  # asks for 2 GiB
    (root / "large.jsonl").write_bytes(b" " * (2 << 20))
    refused = 'outside the folders that may be read. If it is to be read, add its folder to the setting "batch_roots"'
    other = pa.record_batch({"x": pa.array([1])})
    return {
        "outside": (batch(outside), refused),
        "dots": (batch(f"{root.as_uri()}/../{PRIVATE}.jsonl"), refused),
        "encoded dots": (batch(f"{root.as_uri()}/%2e%2e/{PRIVATE}.jsonl"), refused),
        "link": (batch(root / "link.jsonl"), refused),
        "link to a folder": (batch(root / "up" / f"{PRIVATE}.jsonl"), refused),
        "http": (batch(f"http://localhost/{PRIVATE}"), refused),
        "host": (batch(f"file://example.com{root}/plain.jsonl"), refused),
        "scheme": (batch(f"s3://bucket/{PRIVATE}"), refused),
        "relative": (batch("batches/plain.jsonl"), refused),
        "nul": (batch(f"{root.as_uri()}/%00"), refused),
        "not there": (batch(root / "no.jsonl"), 'file "no.jsonl": is not there'),
        "directory": (batch(root), "is not a file"),
        "pipe": (batch(root / "pipe"), "is not a file"),
        "cut arrow": (batch(root / "cut.arrow", kind="arrow"), "is not a whole Arrow IPC file"),
        "cut parquet": (batch(root / "cut.parquet", kind="parquet"), "is not a whole Parquet file"),
        "damaged": (batch(root / "damaged.arrow", kind="arrow"), "is not a whole Arrow IPC file"),
        "cut gzip": (batch(root / "cut.jsonl.gz", compression="gzip"), "gzip data is cut off"),
        "wrong codec": (batch(root / "plain.jsonl", compression="gzip"), "not gzip data"),
        "wrong codec zstd": (batch(root / "plain.jsonl", compression="zstd"), "not zstd data"),
        "wrong format": (batch(root / "whole.parquet", kind="arrow"), "is not a whole Arrow IPC file"),
        "wrong columns": (batch(arrow(root / "x.arrow", other), kind="arrow"), "none of its columns"),
        "wrong type": (batch(root / "text.arrow", kind="arrow"), 'file "text.arrow", column "n", line 1: '),
        "bomb": (batch(root / "bomb.jsonl.gz", compression="gzip"), "holds more than 1 MiB"),
        "bomb zstd": (batch(root / "bomb.jsonl.zst", compression="zstd"), "holds more than 1 MiB"),
        "window": (batch(root / "window.zst", compression="zstd"), "zstd data is damaged"),
        "large": (batch(root / "large.jsonl"), "max_batch_file_mb"),
    }


def test_hostile_manifests_and_files(target_parquet: ForkedTarget, tmp_path: Path) -> None:
    """Each ends the run with exit code 3 and one line; nothing before it is lost, and no path outside is told."""
    root = tmp_path / "batches"
    root.mkdir()
    for name, (message, says) in hostile(root).items():
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        config = {"destination_path": "lake", "batch_roots": [str(root)], "max_batch_file_mb": 1}
        (folder / "config.json").write_text(json.dumps(config))
        messages = [SCHEMA, RECORD, {"type": "STATE", "value": {"done": 0}}, message, {"type": "STATE", "value": {}}]
        data = b"".join(json.dumps(each).encode() + b"\n" for each in messages)
        outcome = target_parquet.run(folder, "--config", "config.json", data=data)
        errors = outcome.log("ERROR")
        assert (outcome.exit_code, len(errors)) == (3, 1), (name, outcome.stderr)
        assert says in errors[0], (name, errors)
        assert 'stream "s"' in errors[0]
        assert PRIVATE not in outcome.stderr, name
        assert outcome.stdout == b'{"done": 0}\n', name
        files = [str(path) for path in (folder / "lake" / "s").rglob("*.parquet")]
        assert duckdb.read_parquet(files).fetchall() == [(0,)], name
