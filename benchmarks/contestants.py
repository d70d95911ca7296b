"""What runs against what: ours, the peers and the raw limits, each with its command line and how it is read back."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.data import CSV_COLUMNS, SHAPES
from benchmarks.measure import Command
from benchmarks.peers.environments import DLT, DUCKDB, JSONL, SDK, Environment
from benchmarks.peers.ours import program

__all__ = ["NATIVE", "WORKS", "Contestant", "Job", "Work", "target"]

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Job:
    """One run: what is read, where to, and where the peers' environments are.

    Attributes:
        source: the input file.
        output: an empty folder.
        environments: the folder of the peers' environments.
        shape: the input's shape.
    """

    source: Path
    output: Path
    environments: Path
    shape: str

    def config(self, **settings: object) -> str:
        """Write a configuration file; returns its path."""
        path = self.output.parent / "config.json"
        path.write_text(json.dumps(settings))
        return str(path)


@dataclass(frozen=True, slots=True)
class Contestant:
    """One of those that do a work.

    Attributes:
        name: as in the table.
        command: its command line for a job.
        form: how its output is read back, see `benchmarks.readback`.
        slow: whether it gets fewer rows.
        within: the folder of the output that holds the rows.
        environments: what it needs installed beside our own environment.
        module: what it needs in our own environment; it is left out where that is not there.
    """

    name: str
    command: Callable[[Job], Command]
    form: str
    slow: bool = False
    within: str = ""
    environments: tuple[Environment, ...] = ()
    module: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """A thing to be done; the first contestant that takes part is what the others are compared with.

    Attributes:
        name: for `--only`.
        title: over the table.
        shape: of the input.
        contestants: in the table's order.
        input: what is read: the shape's Singer stream (`singer`), the events as a file (`csv`, `parquet`), or several
            times as many of them (`many.csv`, `many.parquet`; see `benchmarks.batch`); or a table of them (`postgres`;
            see `benchmarks.postgres`).
        group: a name for `--only` that several works share.
        rounds: the most rounds that it gets, where it takes long.
    """

    name: str
    title: str
    shape: str
    contestants: tuple[Contestant, ...]
    input: str = "singer"
    group: str = ""
    rounds: int = 9


def target(config: Path, output: Path, *, native: bool, **settings: object) -> Command:
    """target-parquet, with the native extension or without."""
    config.write_text(json.dumps({"destination_path": str(output), **settings}))
    environment = {} if native else {"MELISMA_NATIVE": "0"}
    return Command([program("target-parquet"), "--config", str(config)], environment=environment)


def _target(*, native: bool, **settings: object) -> Callable[[Job], Command]:
    def command(job: Job) -> Command:
        made = target(job.output.parent / "config.json", job.output, native=native, **settings)
        return replace(made, stdin=job.source)

    return command


def _plain_target(*, validate: bool) -> Callable[[Job], Command]:
    def command(job: Job) -> Command:
        config = job.config(destination_path=str(job.output), validate_records=validate)
        python = SDK.folder(job.environments) / "bin/python"
        return Command([str(python), str(HERE / "peers/plain_sdk_target.py"), "--config", config], stdin=job.source)

    return command


def _target_jsonl(job: Job) -> Command:
    config = job.config(destination_path=str(job.output))
    return Command([str(JSONL.folder(job.environments) / "bin/target-jsonl"), "--config", config], stdin=job.source)


def _target_duckdb(job: Job) -> Command:
    config = job.config(path=str(job.output / "out.duckdb"), default_target_schema="main")
    return Command([str(DUCKDB.folder(job.environments) / "bin/target-duckdb"), "--config", config], stdin=job.source)


def _dlt(job: Job) -> Command:
    python = DLT.folder(job.environments) / "bin/python"
    return Command(
        [str(python), str(HERE / "peers/dlt_pipeline.py"), str(job.source), str(job.output)],
        environment={"DLT_DATA_DIR": str(job.output / "home"), "RUNTIME__DLTHUB_TELEMETRY": "false"},
    )


def _limit(engine: str, task: str) -> Callable[[Job], Command]:
    def command(job: Job) -> Command:
        module = [sys.executable, "-m", "benchmarks.limits", engine, task]
        return Command([*module, str(job.source), str(job.output), job.shape])

    return command


def _convert(task: str, kind: str) -> Callable[[Job], Command]:
    def command(job: Job) -> Command:
        ours = [program("tap-files"), program("target-parquet")] if task == "pipe" else []
        return Command([sys.executable, "-m", "benchmarks.batch", task, str(job.source), str(job.output), kind, *ours])

    return command


_CSV_TYPES = {
    name: kind
    for name, each in SHAPES["events"].properties.items()
    if name in CSV_COLUMNS and (kind := each["type"]) in ("integer", "number")
}


def _tap_files(*, native: bool) -> Callable[[Job], Command]:
    def command(job: Job) -> Command:
        config = job.config(streams=[{"name": "events", "path": str(job.source), "key_properties": ["id"]}])
        environment = {} if native else {"MELISMA_NATIVE": "0"}
        argv = [program("tap-files"), "--config", config]
        return Command(argv, stdout=job.output / "out.singer", environment=environment)

    return command


def _plain_tap(job: Job) -> Command:
    config = job.config(path=str(job.source), types=_CSV_TYPES)
    python = SDK.folder(job.environments) / "bin/python"
    script = str(HERE / "peers/plain_sdk_tap.py")
    return Command([str(python), script, "--config", config], stdout=job.output / "out.singer")


NATIVE = "melisma_native"
_OURS = (
    Contestant("melisma target-parquet (native)", _target(native=True), "parquet", module=NATIVE),
    Contestant(
        "melisma target-parquet (native), unknown fields dropped",
        _target(native=True, on_unknown_field="drop"),
        "parquet",
        module=NATIVE,
    ),
    Contestant("melisma target-parquet (pure)", _target(native=False), "parquet"),
    Contestant(
        "melisma target-parquet (pure), unknown fields dropped",
        _target(native=False, on_unknown_field="drop"),
        "parquet",
    ),
)
_PLAIN = Contestant(
    "plain singer-sdk BatchSink, validation on", _plain_target(validate=True), "parquet", slow=True, environments=(SDK,)
)
_PEERS = (
    _PLAIN,
    Contestant(
        "plain singer-sdk BatchSink, validation off",
        _plain_target(validate=False),
        "parquet",
        slow=True,
        environments=(SDK,),
    ),
    Contestant("target-jsonl", _target_jsonl, "jsonl", slow=True, environments=(JSONL,)),
    Contestant("target-duckdb", _target_duckdb, "duckdb", slow=True, environments=(DUCKDB,)),
    Contestant("dlt, filesystem", _dlt, "parquet", slow=True, within="out/events", environments=(DLT,)),
)
_DUCKDB = Contestant("limit: DuckDB read_json", _limit("duckdb", "parquet"), "parquet")
_LIMITS = (
    _DUCKDB,
    Contestant("limit: Polars scan_ndjson", _limit("polars", "parquet"), "parquet"),
    Contestant("limit: pyarrow.json", _limit("pyarrow", "parquet"), "parquet"),
)
_RECORD_LIMITS = (
    Contestant("limit: DuckDB, COPY to JSON", _limit("duckdb", "records"), "records"),
    Contestant("limit: Polars, scan to sink_ndjson", _limit("polars", "records"), "records"),
    Contestant("limit: arro3, read to write_ndjson", _limit("arro3", "records"), "records"),
)

WORKS = (
    Work("events", "Singer stream to Parquet (zstd): events", "events", (*_OURS, *_PEERS, *_LIMITS)),
    *(
        Work(name, f"Singer stream to Parquet (zstd): {SHAPES[name].title}", name, (*_OURS, _PLAIN, _DUCKDB))
        for name in ("narrow", "wide", "turns", "text")
    ),
    Work(
        "csv",
        "CSV to RECORD lines: the events' 13 plain columns",
        "events",
        (
            Contestant("melisma tap-files (native)", _tap_files(native=True), "singer", module=NATIVE),
            Contestant("melisma tap-files (pure)", _tap_files(native=False), "singer"),
            Contestant("plain singer-sdk tap, csv.DictReader", _plain_tap, "singer", slow=True, environments=(SDK,)),
            *_RECORD_LIMITS,
        ),
        input="csv",
    ),
    Work(
        "parquet",
        "Parquet to RECORD lines: the events' 15 columns",
        "events",
        (
            Contestant("melisma tap-files (native)", _tap_files(native=True), "singer", module=NATIVE),
            Contestant("melisma tap-files (pure)", _tap_files(native=False), "singer"),
            Contestant("plain singer-sdk tap, to_pylist", _plain_tap, "singer", slow=True, environments=(SDK,)),
            *_RECORD_LIMITS,
        ),
        input="parquet",
    ),
    *(
        Work(
            f"batch-{kind}",
            f"{title} to Parquet (zstd), by BATCH: the events' 13 plain columns",
            "events",
            (
                Contestant("melisma tap-files, target-parquet: BATCH (Arrow)", _convert("pipe", kind), "parquet"),
                Contestant("limit: DuckDB", _convert("duckdb", kind), "parquet"),
                Contestant("limit: Polars", _convert("polars", kind), "parquet"),
            ),
            input=f"many.{kind}",
        )
        for kind, title in (("csv", "CSV"), ("parquet", "Parquet"))
    ),
)
"""Everything that is measured."""
