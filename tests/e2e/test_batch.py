"""BATCH between real executables: the same table as by RECORD, and nothing lost, doubled or left behind by kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("batch")]

BIN = Path(sys.executable).parent
THINGS = """
from singer_sdk import Stream, Tap, typing as th

class Things(Stream):
    name = "things"
    primary_keys = ("id",)
    replication_key = "at"
    is_sorted = True
    schema = th.PropertiesList(
        th.Property("id", th.IntegerType, required=True),
        th.Property("at", th.DateTimeType),
        th.Property("price", th.NumberType),
        th.Property("tags", th.ArrayType(th.StringType)),
        th.Property("who", th.ObjectType(th.Property("name", th.StringType), th.Property("age", th.IntegerType))),
    ).to_dict()

    def get_records(self, context):
        for i in range(25):
            tags = [["a", "b"], [], None][i % 3]
            who = {"name": "\\u00e9", "age": i} if i % 4 else None
            yield {"id": i, "at": f"2024-01-01T00:00:{i:02}Z", "price": i / 4, "tags": tags, "who": who}

class TapThings(Tap):
    name = "tap-things"
    config_jsonschema = th.PropertiesList().to_dict()

    def discover_streams(self):
        return [Things(self)]

TapThings.cli()
"""


def configure(folder: Path, name: str, **settings: Any) -> str:
    """Write a configuration file; its path."""
    path = folder / name
    path.write_text(json.dumps(settings))
    return str(path)


def pipe(tap: list[str], target: list[str], log: Path) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """Start `tap | target`."""
    with log.open("ab") as errors:
        first = subprocess.Popen(tap, stdout=subprocess.PIPE, stderr=errors)
        assert first.stdout
        second = subprocess.Popen(target, stdin=first.stdout, stdout=subprocess.PIPE, stderr=errors)
        first.stdout.close()
    return first, second


def ended(*processes: subprocess.Popen[bytes]) -> list[int]:
    """Wait for processes to end; their exit codes."""
    codes = []
    for process in processes:
        codes.append(process.wait(timeout=180))
        if process.stdout and not process.stdout.closed:
            process.stdout.close()
    return codes


def left_of(tap: subprocess.Popen[bytes]) -> list[Path]:
    """What is left of a tap's private folder."""
    places = [Path("/dev/shm"), Path(tempfile.gettempdir())]  # noqa: S108
    return [each for place in places for each in (place / f"melisma-{os.getuid()}").glob(f"run-{tap.pid}-*")]


def query(lake: Path, columns: str) -> list[tuple[Any, ...]]:
    """A stream's rows by DuckDB, in order."""
    return duckdb.sql(f"SELECT {columns} FROM read_parquet('{lake}/**/*.parquet') ORDER BY ALL").fetchall()  # noqa: S608


@pytest.mark.parametrize("encoding", ["jsonl:gzip", "jsonl:none", "parquet:gzip", "parquet:none"])
def test_a_tap_of_singer_sdk(encoding: str, tmp_path: Path) -> None:
    """A tap as one writes it with singer-sdk, in each encoding of its own: the rows are those of its RECORDs."""
    kind, compression = encoding.split(":")
    (tmp_path / "tap.py").write_text(THINGS)
    tables = []
    for name in ("records", "batches"):
        batch_config: dict[str, Any] = {
            "encoding": {"format": kind, "compression": compression},
            "storage": {"root": (tmp_path / "root").as_uri(), "prefix": "things-"},
            "batch_size": 10,
        }
        tap = configure(tmp_path, "tap.json", **({"batch_config": batch_config} if name == "batches" else {}))
        target = configure(
            tmp_path, "target.json", destination_path=str(tmp_path / name), batch_roots=[str(tmp_path / "root")]
        )
        processes = pipe(
            [sys.executable, str(tmp_path / "tap.py"), "--config", tap],
            [str(BIN / "target-parquet"), "--config", target],
            tmp_path / "log",
        )
        assert ended(*processes) == [0, 0], (tmp_path / "log").read_text()
        tables.append(query(tmp_path / name, 'id, "at", price, tags, who'))
    assert len(list((tmp_path / "root").iterdir())) == 3
    assert len(tables[0]) == 25
    assert tables[0] == tables[1]


def rich(path: Path) -> None:
    """A Parquet file of many types."""
    count = 5_000
    numbers = range(count)
    table = pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "small": pa.array([n % 100 for n in numbers], pa.int8()),
            "large": pa.array([2**64 - 1 - n for n in numbers], pa.uint64()),
            "price": pa.array([Decimal(n) / 8 for n in numbers], pa.decimal128(20, 3)),
            "share": pa.array([None if n % 7 == 0 else n / 3 for n in numbers], pa.float64()),
            "short": pa.array([n / 3 for n in numbers], pa.float32()),
            "odd": pa.array([[float("nan"), float("inf"), 1.5][n % 3] for n in numbers]),
            "word": pa.array([f"w{n % 50}" for n in numbers]).dictionary_encode(),
            "at": pa.array([n * 1_000_000 for n in numbers], pa.timestamp("us", "UTC")),
            "naive": pa.array([n * 1_000 for n in numbers], pa.timestamp("ms")),
            "day": pa.array([n % 9_000 for n in numbers], pa.int32()).cast(pa.date32()),
            "clock": pa.array([n * 1_000 for n in numbers], pa.time64("us")),
            "data": pa.array([bytes([n % 256]) for n in numbers]),
            "who": pa.array([{"name": f"é{n}", "age": n} if n % 3 else None for n in numbers]),
            "tags": pa.array([["a"] * (n % 3) if n % 5 else None for n in numbers]),
            "labels": pa.array([[("k", n)] for n in numbers], pa.map_(pa.string(), pa.int64())),
        }
    )
    pq.write_table(table, path, row_group_size=1_500)


@pytest.mark.parametrize(
    "encoding", [("arrow", "none"), ("arrow", "zstd"), ("parquet", "zstd"), ("jsonl", "zstd"), ("jsonl", "gzip")]
)
def test_our_own_pair_gives_the_same_table(encoding: tuple[str, str], tmp_path: Path) -> None:
    """Every type of a Parquet file arrives by BATCH as it does by RECORD; the private folder is gone afterwards."""
    rich(tmp_path / "rich.parquet")
    tables, state = [], []
    for name in ("records", "batches"):
        settings: dict[str, Any] = {"streams": [{"name": "rich", "path": str(tmp_path / "rich.parquet")}]}
        if name == "batches":
            settings["batch_config"] = {"encoding": {"format": encoding[0], "compression": encoding[1]}}
        target = configure(tmp_path, "target.json", destination_path=str(tmp_path / name), add_record_metadata=True)
        tap, loaded = pipe(
            [str(BIN / "tap-files"), "--config", configure(tmp_path, "tap.json", **settings)],
            [str(BIN / "target-parquet"), "--config", target],
            tmp_path / "log",
        )
        assert loaded.stdout
        state.append(json.loads(loaded.stdout.read().splitlines()[-1]))
        assert ended(tap, loaded) == [0, 0], (tmp_path / "log").read_text()
        assert left_of(tap) == []
        tables.append(query(tmp_path / name / "rich", "COLUMNS('^[a-z]'), _sdc_extracted_at IS NULL"))
    assert len(tables[0]) == 5_000
    assert tables[0] == tables[1]
    assert state[0] == state[1]


def test_an_incremental_run_goes_on_where_batches_ended(tmp_path: Path) -> None:
    """STATE after BATCH covers what came before it: the next run reads what is new, by either way."""
    source = tmp_path / "in"
    source.mkdir()
    target = configure(tmp_path, "target.json", destination_path=str(tmp_path / "lake"))
    state: bytes = b"{}"
    for number, batch_config in enumerate([{"encoding": {"format": "arrow"}}, None, {"encoding": {"format": "jsonl"}}]):
        (source / f"{number}.csv").write_text("id\n" + "".join(f"1{number}{n:03}\n" for n in range(100)))
        (tmp_path / "state.json").write_bytes(state)
        more = {"batch_config": batch_config} if batch_config else {}
        config = configure(tmp_path, "tap.json", streams=[{"name": "ids", "path": f"{source}/*.csv"}], **more)
        tap, loaded = pipe(
            [str(BIN / "tap-files"), "--config", config, "--state", str(tmp_path / "state.json")],
            [str(BIN / "target-parquet"), "--config", target],
            tmp_path / "log",
        )
        assert loaded.stdout
        state = loaded.stdout.read().splitlines()[-1]
        assert ended(tap, loaded) == [0, 0], (tmp_path / "log").read_text()
    expected = [(int(f"1{number}{n:03}"),) for number in range(3) for n in range(100)]
    assert query(tmp_path / "lake/ids", "id") == expected


@pytest.mark.parametrize("victims", ["target", "tap", "both"])
def test_killed_half_way_and_run_again(victims: str, tmp_path: Path) -> None:
    """After kill -9 the next run, from the committed STATE, leaves each row once and nothing of the killed run."""
    source, rows = tmp_path / "in", 1_500
    source.mkdir()
    for number in range(40):
        (source / f"{number:02}.csv").write_text(
            "id,text\n" + "".join(f"{number * rows + n},{'x' * 80}\n" for n in range(rows))
        )
    tap = [
        str(BIN / "tap-files"),
        "--config",
        configure(
            tmp_path,
            "tap.json",
            streams=[{"name": "ids", "path": f"{source}/*.csv"}],
            # A small room makes the tap wait for the target, so that neither is done when the other is killed.
            batch_config={"encoding": {"format": "arrow"}, "batch_size": 400, "max_unread_mb": 0.05},
        ),
    ]
    config = configure(tmp_path, "target.json", destination_path=str(tmp_path / "lake"), commit_interval_minutes=0)
    target = [str(BIN / "target-parquet"), "--config", config]
    first, second = pipe(tap, target, tmp_path / "log")
    journal = tmp_path / "lake/_melisma/default/journal"
    deadline = time.monotonic() + 120
    while len(list(journal.glob("*"))) < 12 and time.monotonic() < deadline:
        assert second.poll() is None
        time.sleep(0.005)
    for name, process in (("tap", first), ("target", second)):
        if victims in {name, "both"}:
            process.send_signal(signal.SIGKILL)
    codes = ended(first, second)
    assert any(codes)
    state = subprocess.run([*target, "--committed-state"], capture_output=True, check=True).stdout
    (tmp_path / "state.json").write_bytes(state)
    assert 0 < len(query(tmp_path / "lake/ids", "id")) < 40 * rows, "nothing was cut off"
    again = pipe([*tap, "--state", str(tmp_path / "state.json")], target, tmp_path / "log")
    assert ended(*again) == [0, 0], (tmp_path / "log").read_text()
    assert query(tmp_path / "lake/ids", "id") == [(n,) for n in range(40 * rows)]
    assert left_of(first) == []
    assert left_of(again[0]) == []
