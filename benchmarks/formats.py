"""What the formats besides Parquet cost: written from Arrow batches, loaded from a Singer stream, read by tap-files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.contestants import Contestant, Job, Work
from benchmarks.measure import Command
from benchmarks.peers.environments import CSV, JSONL, Environment
from benchmarks.peers.ours import program

__all__ = ["FORMATS"]

ROOT = Path(__file__).resolve().parent.parent


def _writer(name: str, writer: str, form: str) -> Contestant:
    """One that makes a file of the events' Parquet file (`benchmarks.convert`)."""

    def command(job: Job) -> Command:
        return Command([sys.executable, "-m", "benchmarks.convert", writer, str(job.source), str(job.output)])

    return Contestant(name, command, form)


def _target(name: str, executable: str, form: str, **settings: object) -> Contestant:
    """A target of ours, reading a Singer stream."""

    def command(job: Job) -> Command:
        config = job.config(destination_path=str(job.output), **settings)
        return Command([program(executable), "--config", config], stdin=job.source)

    return Contestant(name, command, form)


def _peer(environment: Environment, executable: str, form: str, setting: str) -> Contestant:
    """A target of others, with its folder in a setting."""

    def command(job: Job) -> Command:
        found = environment.folder(job.environments) / "bin" / executable
        return Command([str(found), "--config", job.config(**{setting: str(job.output)})], stdin=job.source)

    return Contestant(environment.name, command, form, slow=True, environments=(environment,))


def _converted(job: Job, writer: str, ending: str) -> Path:
    """The events' file in another format, made once and not measured."""
    path = job.source.with_suffix(f".{ending}")
    if not path.exists():
        command = [sys.executable, "-m", "benchmarks.convert", writer, str(job.source), str(job.output)]
        subprocess.run(command, check=True, cwd=ROOT)
        (job.output / f"out.{ending}").rename(path)
    return path


def _tap(ending: str, writer: str) -> Callable[[Job], Command]:
    def command(job: Job) -> Command:
        path = _converted(job, writer, ending)
        config = job.config(streams=[{"name": "events", "path": str(path), "key_properties": ["id"]}])
        return Command([program("tap-files", "avro", "msgpack"), "--config", config], stdout=job.output / "out.singer")

    return command


FORMATS = (
    *(
        Work(
            "formats",
            f"Arrow batches to Avro ({codec}): the events",
            "events",
            (
                _writer("melisma", f"melisma-avro-{codec}", "avro"),
                _writer("fastavro, and dicts by pyarrow", f"fastavro-{codec}", "avro"),
            ),
            input="parquet",
            rounds=1,
        )
        for codec in ("snappy", "deflate")
    ),
    Work(
        "formats",
        "Arrow batches to JSON Lines: the events",
        "events",
        (
            _writer("melisma", "melisma-jsonl", "jsonl"),
            _writer("msgspec, and dicts by pyarrow", "msgspec-jsonl", "jsonl"),
            _writer("limit: Polars write_ndjson", "polars-jsonl", "jsonl"),
        ),
        input="parquet",
        rounds=1,
    ),
    Work(
        "formats",
        "Arrow batches to CSV: the events",
        "events",
        (
            _writer("melisma", "melisma-csv", "csv-files"),
            _writer("Python's csv, and dicts by pyarrow", "python-csv", "csv-files"),
            _writer("limit: pyarrow.csv, without the 2 nested columns", "pyarrow-csv", "csv-files"),
        ),
        input="parquet",
        rounds=1,
    ),
    Work(
        "formats",
        "Arrow batches to MsgPack: the events",
        "events",
        (
            _writer("melisma", "melisma-msgpack", "msgpack"),
            _writer("msgpack, and dicts by pyarrow", "msgpack", "msgpack"),
        ),
        input="parquet",
        rounds=1,
    ),
    Work(
        "formats",
        "Arrow batches to Arrow IPC (zstd): the events",
        "events",
        (
            _writer("melisma", "melisma-arrow", "arrow-files"),
            _writer("limit: pyarrow", "pyarrow-arrow", "arrow-files"),
        ),
        input="parquet",
        rounds=1,
    ),
    Work(
        "formats",
        "Singer stream to files: events",
        "events",
        (
            _target("melisma target-files, JSON Lines", "target-files", "jsonl"),
            _target("melisma target-files, CSV", "target-files", "csv-files", format="csv"),
            _target("melisma target-files, MsgPack", "target-files", "msgpack", format="msgpack"),
            _target("melisma target-files, Arrow IPC (zstd)", "target-files", "arrow-files", format="arrow"),
            _target("melisma target-avro (snappy)", "target-avro", "avro"),
            _peer(JSONL, "target-jsonl", "jsonl", "destination_path"),
            _peer(CSV, "target-csv", "csv-files", "output_path"),
        ),
        rounds=1,
    ),
    Work(
        "formats",
        "Files to RECORD lines, by tap-files: the events' 15 columns",
        "events",
        (
            Contestant("JSON Lines", _tap("jsonl", "melisma-jsonl"), "singer"),
            Contestant("Avro (snappy)", _tap("avro", "melisma-avro-snappy"), "singer"),
            Contestant("MsgPack", _tap("msgpack", "melisma-msgpack"), "singer"),
            Contestant("Arrow IPC (zstd)", _tap("arrow", "melisma-arrow"), "singer"),
        ),
        input="parquet",
        rounds=1,
    ),
)
"""Each is a table of its own under one name, for `--only formats`."""
