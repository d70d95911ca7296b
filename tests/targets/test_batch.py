"""target-parquet takes BATCH messages: in every encoding, under the same STATE barrier, and only files it may read."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import zstandard

sys.path.insert(0, str(Path(__file__).parent))

from harness import Message, Target, record, schema, state

from melisma.wire.exchange import Exchange

PRIVATE = "pr1vate"


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """The executable on an empty lake."""
    return Target(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder whose files may be read."""
    folder = tmp_path / "batches"
    folder.mkdir()
    return folder


def batch(*files: Path | str, kind: str = "jsonl", compression: str | None = None, **more: Any) -> Message:
    """A BATCH message of the stream `s`."""
    encoding = {"format": kind} if compression is None else {"format": kind, "compression": compression}
    manifest = [file.as_uri() if isinstance(file, Path) else file for file in files]
    return {"type": "BATCH", "stream": "s", "encoding": encoding, "manifest": manifest, **more}


def jsonl(path: Path, rows: Iterable[Any], pack: Callable[[bytes], bytes] = bytes) -> Path:
    """A JSON Lines file; a plain integer becomes `n`."""
    records = [{"n": row} if isinstance(row, int) else row for row in rows]
    path.write_bytes(pack(b"".join(json.dumps(each).encode() + b"\n" for each in records)))
    return path


def arrow(path: Path, rows: pa.RecordBatch, compression: str | None = None) -> Path:
    """An Arrow IPC file."""
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, rows.schema, options=options) as writer:
        writer.write_batch(rows)
    return path


def parquet(path: Path, rows: pa.RecordBatch, compression: str = "NONE") -> Path:
    """A Parquet file."""
    pq.write_table(pa.Table.from_batches([rows]), path, compression=compression)
    return path


def test_every_encoding_is_read(target: Target, root: Path) -> None:
    """The stock ones, ours, and gzip that is not told of, as singer-sdk's taps write it."""
    zstd = zstandard.ZstdCompressor().compress
    numbers = pa.record_batch({"n": pa.array([7, 8])})
    messages = [
        schema(),
        batch(jsonl(root / "1.jsonl", [1])),
        batch(jsonl(root / "2.jsonl.gz", [2], gzip.compress), compression="gzip"),
        batch(jsonl(root / "3.jsonl.gz", [3], gzip.compress), compression="none"),
        batch(jsonl(root / "4.jsonl.zst", [4], zstd), compression="zstd"),
        batch(parquet(root / "5.parquet", numbers), kind="parquet"),
        batch(parquet(root / "6.parquet", numbers, "gzip"), kind="parquet", compression="gzip"),
        batch(arrow(root / "7.arrow", numbers), kind="arrow"),
        batch(str(arrow(root / "8.arrow", numbers, "zstd")), kind="arrow", compression="zstd"),
        batch(jsonl(root / "9.jsonl", [5]), jsonl(root / "10.jsonl", [6])),
        record(9),
        state({"done": 1}),
    ]
    code, out, err = target.run(messages, batch_roots=[str(root)])
    assert code == 0, err
    assert out == ['{"done": 1}']
    assert [n for (n,) in target.rows()] == [1, 2, 3, 4, 5, 6, *[7] * 4, *[8] * 4, 9]
    assert "15 records" in err
    assert len(list(root.iterdir())) == 10  # they are not ours to remove


def test_state_covers_batches_as_it_covers_records(target: Target, root: Path) -> None:
    """What comes before the newest STATE is committed when a later file is broken; that file's first rows are not."""
    messages = [
        schema(),
        record(1),
        batch(jsonl(root / "1.jsonl", [2, 3])),
        state({"done": 1}),
        batch(jsonl(root / "2.jsonl", [4]), jsonl(root / "3.jsonl", [5, {"n": PRIVATE}])),
        state({"done": 2}),
    ]
    code, out, err = target.run(messages, batch_roots=[str(root)])
    assert code == 3
    assert out == ['{"done": 1}']
    assert target.rows() == [(1,), (2,), (3,)]
    assert 'stream "s", file "3.jsonl", column "n", line 2: ' in err
    assert PRIVATE not in err


def test_bad_records_in_files(target: Target, root: Path) -> None:
    """They are skipped or kept as dead letters from every encoding, and the others land."""
    numbers = pa.record_batch({"n": pa.array([3, 4000, 5])})
    messages = [
        schema(properties={"n": {"type": "integer", "maximum": 100}}),
        batch(jsonl(root / "1.jsonl", [1, 2000])),
        batch(parquet(root / "2.parquet", numbers), kind="parquet"),
        batch(arrow(root / "3.arrow", numbers), kind="arrow"),
        state({}),
    ]
    code, _, err = target.run(messages, batch_roots=[str(root)], on_bad_record="dead_letter")
    assert code == 0, err
    assert [n for (n,) in target.rows()] == [1, 3, 3, 5, 5]
    assert "3 records kept as dead letters" in err
    files = (target.lake / "_melisma/default/dead_letters/s").glob("*")
    texts = [zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read() for file in files]
    kept = [json.loads(line)["record"] for text in texts for line in text.splitlines()]
    assert sorted(json.loads(each)["record"]["n"] for each in kept) == [2000, 4000, 4000]


def test_metadata_maps_and_unknown_fields(target: Target, root: Path) -> None:
    """What the target does to records it does to the rows of files: `_sdc_*` columns, stream maps, warnings."""
    rows = pa.record_batch({"n": pa.array([1, 2]), "other": ["a", "b"]})
    at = "2024-01-02T03:04:05.000000Z"
    messages = [
        schema(),
        batch(arrow(root / "1.arrow", rows), kind="arrow", time_extracted=at, version=7),
        state({}),
    ]
    settings = {"batch_roots": [str(root)], "add_record_metadata": True}
    code, _, err = target.run(messages, **settings)
    assert code == 0, err
    assert '"other" is not in the schema' in err
    columns = "n, _sdc_extracted_at::VARCHAR, _sdc_table_version, _sdc_received_at IS NULL"
    assert [row[0::2] for row in target.rows(columns=columns)] == [(1, 7), (2, 7)]
    assert all(row[1].startswith("2024-01-0") for row in target.rows(columns=columns))
    mapped = Target(target.folder / "mapped")
    mapped.folder.mkdir()
    code, _, err = mapped.run(messages, batch_roots=[str(root)], stream_maps={"s": {"twice": "int(n * 2)"}})
    assert code == 0, err
    assert mapped.rows(columns="n, twice") == [(1, 2), (2, 4)]


def test_a_private_file_is_removed_once_it_is_read(target: Target) -> None:
    """Files of a tap of ours on this machine need no setting, and nothing of them is left."""
    with pytest.raises(ZeroDivisionError), Exchange(1 << 20, None) as exchange:
        path = arrow(exchange.folder / "1.arrow", pa.record_batch({"n": pa.array([1])}))
        code, _, err = target.run([schema(), batch(path, kind="arrow"), state({})])
        assert code == 0, err
        assert not path.exists()
        raise ZeroDivisionError  # a tap that fails does not wait
    assert not exchange.folder.exists()
    assert target.rows() == [(1,)]


def test_without_the_setting_no_folder_is_open(target: Target, root: Path) -> None:
    """The default lets nothing be read but private folders."""
    code, _, err = target.run([schema(), batch(jsonl(root / "1.jsonl", [1])), state({})])
    assert code == 3
    assert "batch_roots" in err
