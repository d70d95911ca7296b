"""Who reads tables of a database: ours, other taps, loaders, and the raw limits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contestants import HERE, Contestant, Job, Work
from benchmarks.data import SHAPES
from benchmarks.growth import Case
from benchmarks.measure import Command
from benchmarks.peers.environments import (
    DLT_SQL,
    INGESTR,
    MELTANO_POSTGRES,
    PIPELINEWISE_POSTGRES,
    SDK,
    SLING,
    Environment,
)
from benchmarks.peers.ours import program
from benchmarks.postgres import Table

__all__ = ["WORKS", "database_growth"]

_SIZES = (1, 10)


def _written(job: Job, name: str, settings: dict[str, Any]) -> str:
    path = job.output.with_name(f"{name}.json")
    path.write_text(json.dumps(settings), encoding="utf-8")
    return str(path)


def _module(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]


def _ours(job: Job, **settings: Any) -> list[str]:
    table = Table(job.source)
    config = table.settings | {"filter_schemas": [table.schema]} | settings
    return [program("tap-postgres"), "--config", _written(job, "tap", config)]


def _meltano(job: Job) -> list[str]:
    table = Table(job.source)
    return _selected(MELTANO_POSTGRES, job, table.settings | {"filter_schemas": [table.schema]})


def _pipelinewise(job: Job) -> list[str]:
    table = Table(job.source)
    settings = {name: value for name, value in table.settings.items() if name != "database"}
    more = {"dbname": table.address["database"], "filter_schemas": table.schema}
    return _selected(PIPELINEWISE_POSTGRES, job, settings | more)


def _selected(environment: Environment, job: Job, config: dict[str, Any]) -> list[str]:
    """A tap that reads nothing without a catalog, which is made first and does not count."""
    executable = str(environment.folder(job.environments) / "bin/tap-postgres")
    path, catalog = _written(job, "tap", config), str(job.output.with_name("catalog.json"))
    subprocess.run(_module("postgres", "selected-catalog", executable, path, catalog), check=True)
    return [executable, "--config", path, "--catalog", catalog]


def _packages(environment: Environment, job: Job) -> Path:
    """Where its packages are."""
    return next(environment.folder(job.environments).glob("lib/python*/site-packages"))


def _target(job: Job) -> list[str]:
    return [program("target-parquet"), "--config", _written(job, "target", {"destination_path": str(job.output)})]


def _plain_target(job: Job) -> list[str]:
    config = _written(job, "target", {"destination_path": str(job.output), "validate_records": False})
    python = SDK.folder(job.environments) / "bin/python"
    return [str(python), str(HERE / "peers/plain_sdk_target.py"), "--config", config]


def _records(tap: Callable[..., list[str]], **settings: Any) -> Callable[[Job], Command]:
    return lambda job: Command(tap(job, **settings), stdout=job.output / "out.singer")


def _pipe(
    tap: Callable[..., list[str]], target: Callable[[Job], list[str]], **settings: Any
) -> Callable[[Job], Command]:
    return lambda job: Command(_module("pipe", *tap(job, **settings), "--", *target(job)))


def _limit(task: str) -> Callable[[Job], Command]:
    return lambda job: Command(_module("postgres", task, job.source, job.output))


def _psql(job: Job) -> Command:
    table = Table(job.source)
    copy = f"COPY {table.schema}.events TO STDOUT (FORMAT csv, HEADER)"
    return Command(["psql", table.url, "--quiet", "--command", copy], stdout=job.output / "out.csv")


def _connectorx(job: Job) -> Command:
    python = DLT_SQL.folder(job.environments) / "bin/python"
    table = Table(job.source)
    return Command([str(python), str(HERE / "peers/connectorx_read.py"), table.url, table.schema, str(job.output)])


def _dlt(backend: str) -> Callable[[Job], Command]:
    def command(job: Job) -> Command:
        table, python = Table(job.source), DLT_SQL.folder(job.environments) / "bin/python"
        script = str(HERE / "peers/dlt_database.py")
        return Command(
            [str(python), script, table.url, table.schema, backend, str(job.output)],
            environment={"DLT_DATA_DIR": str(job.output / "home"), "RUNTIME__DLTHUB_TELEMETRY": "false"},
        )

    return command


def _ingestr(job: Job) -> Command:
    table, executable = Table(job.source), INGESTR.folder(job.environments) / "bin/ingestr"
    source = ["--source-uri", table.url, "--source-table", f"{table.schema}.events", "--sql-backend", "pyarrow"]
    target = ["--dest-uri", f"duckdb:///{job.output}/out.duckdb", "--dest-table", "main.events"]
    return Command(
        [str(executable), "ingest", *source, *target, "--yes", "--progress", "log"],
        environment={"DISABLE_TELEMETRY": "true", "DLT_DATA_DIR": str(job.output / "home")},
    )


def _sling(job: Job) -> Command:
    table, executable = Table(job.source), _packages(SLING, job) / "sling_linux_amd64/bin/sling-linux-amd64"
    source = ["--src-conn", f"{table.url}?sslmode=disable", "--src-stream", f"{table.schema}.events"]
    target = f"file://{job.output}/out.parquet"
    return Command(
        [str(executable), "run", *source, "--tgt-object", target],
        environment={
            "SLING_DISABLE_TELEMETRY": "true",
            "SLING_DUCKDB_COMPUTE": "false",
            "SLING_HOME_DIR": str(job.output / "home"),
        },
    )


def _peer(
    name: str, command: Callable[[Job], Command], *environments: Environment, form: str = "parquet", **more: Any
) -> Contestant:
    return Contestant(name, command, form, environments=environments, **more)


_PARALLEL = {"parallel_reads": 2}

WORKS = (
    Work(
        "postgres-records",
        "PostgreSQL to RECORD lines: the events' 15 columns",
        "events",
        (
            Contestant("melisma tap-postgres", _records(_ours), "singer"),
            Contestant("melisma tap-postgres, two ranges at once", _records(_ours, **_PARALLEL), "singer"),
            _peer("meltanolabs-tap-postgres", _records(_meltano), MELTANO_POSTGRES, form="singer", slow=True),
            _peer(
                "pipelinewise-tap-postgres", _records(_pipelinewise), PIPELINEWISE_POSTGRES, form="singer", slow=True
            ),
            Contestant("limit: psql, COPY as CSV", _psql, "csv-files"),
            Contestant("limit: ADBC to an Arrow file", _limit("adbc-arrow"), "arrow-files"),
            _peer("limit: connectorx to an Arrow file", _connectorx, DLT_SQL, form="arrow-files"),
        ),
        input="postgres",
        group="postgres",
        rounds=2,
    ),
    Work(
        "postgres-parquet",
        "PostgreSQL to Parquet (zstd), end to end: the events' 15 columns",
        "events",
        (
            Contestant("melisma tap-postgres, target-parquet", _pipe(_ours, _target), "parquet"),
            Contestant(
                "melisma tap-postgres, target-parquet: BATCH (Arrow)",
                _pipe(_ours, _target, batch_config={"encoding": {"format": "arrow"}}),
                "parquet",
            ),
            _peer(
                "meltanolabs-tap-postgres, plain BatchSink, validation off",
                _pipe(_meltano, _plain_target),
                MELTANO_POSTGRES,
                SDK,
                slow=True,
            ),
            _peer(
                "pipelinewise-tap-postgres, plain BatchSink, validation off",
                _pipe(_pipelinewise, _plain_target),
                PIPELINEWISE_POSTGRES,
                SDK,
                slow=True,
            ),
            *(
                _peer(f"dlt sql_table, {backend}", _dlt(backend), DLT_SQL, within="out/events", slow=slow)
                for backend, slow in (("connectorx", False), ("pyarrow", True))
            ),
            _peer("ingestr, to DuckDB", _ingestr, INGESTR, form="duckdb", slow=True),
            _peer("sling", _sling, SLING),
            Contestant("limit: ADBC, pyarrow", _limit("adbc-parquet"), "parquet"),
        ),
        input="postgres",
        group="postgres",
        rounds=2,
    ),
)


def database_growth() -> list[tuple[Case, Callable[[Job], Command]]]:
    """What tap-postgres reads to see how cost and memory grow, and its command."""
    ways: tuple[tuple[str, dict[str, Any]], ...] = (("one read", {}), ("two ranges at once", _PARALLEL))
    return [
        (
            Case(
                f"{copies} million events, {name}",
                SHAPES["events"],
                copies,
                f"1 million events, {name}" if copies > 1 else "",
            ),
            _records(_ours, **settings),
        )
        for name, settings in ways
        for copies in _SIZES
    ]
