"""Writes into a database while `tap | target` runs by its log and the target is killed; then counts the rows.

`python tests/faults/log_loss.py` is the full run, of our tap with two load methods and of another tap beside it:
sixty seconds of changes in each of ten rounds. Exits with 1 if our tap has lost or doubled a row. --write puts the
table into docs/faults.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psycopg

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ROWS_A_SECOND = 2_000
Row = tuple[int, int, str]


@dataclass
class Source:
    """A database with a table `t` (id, v, text) that is written to.

    Attributes:
        execute: runs statements in one transaction.
        rows: reads the table.
    """

    execute: Callable[[list[str]], None]
    rows: Callable[[], list[Row]]


@dataclass
class Contestant:
    """A tap with a load method of target-parquet.

    Attributes:
        name: in the table.
        tap: its command line, after which come --config, --catalog and --state.
        config: its settings.
        stream: the table's stream.
        method: the target's load method.
        prepare: what has to be there before the first row.
        catalog: changes what discovery says.
        changes: updates and deletes are among what is written.
    """

    name: str
    tap: list[str]
    config: dict[str, Any]
    stream: str
    method: str = "append-only"
    prepare: Callable[[], None] = lambda: None
    catalog: Callable[[dict[str, Any]], None] = lambda _: None
    changes: bool = False


@dataclass
class Result:
    """What came of a round."""

    written: int = 0
    runs: int = 0
    kills: int = 0
    lost: int = 0
    doubled: int = 0
    failed: list[str] = field(default_factory=list)


class Writer(threading.Thread):
    """Writes transactions of many sizes until it is told to stop; some are rolled back."""

    def __init__(self, source: Source, seed: int, *, changes: bool) -> None:
        super().__init__(daemon=True)
        self._source, self._chance, self._changes = source, random.Random(seed), changes
        self._ended = threading.Event()
        self.next = 1
        self.written = 0
        self.failed: BaseException | None = None

    def run(self) -> None:
        began = time.monotonic()
        try:
            while not self._ended.is_set():
                self._source.execute(self._transaction())
                # So many rows a second, however long a transaction takes.
                self._ended.wait(max(0.0, began + self.written / ROWS_A_SECOND - time.monotonic()))
        except BaseException as error:
            self.failed = error

    def end(self) -> None:
        """Stop writing."""
        self._ended.set()
        self.join()
        if self.failed is not None:
            raise self.failed

    def _transaction(self) -> list[str]:
        chance, statements = self._chance, []
        for _ in range(chance.choice([1, 1, 1, 3])):
            count = chance.choice([1, 5, 20, 300])
            rows = ", ".join(f"({n}, 0, 'row {n}')" for n in range(self.next, self.next + count))
            statements.append(f"INSERT INTO t (id, v, text) VALUES {rows}")
            self.next += count
            self.written += count
            if self._changes and self.next > 10:
                statements += [self._change() for _ in range(chance.randrange(4))]
        return statements

    def _change(self) -> str:
        first = self._chance.randrange(1, self.next)
        where = f"WHERE id BETWEEN {first} AND {first + self._chance.choice([0, 3, 40])}"
        self.written += 1
        kind = self._chance.randrange(3)
        if kind == 0:
            return f"DELETE FROM t WHERE id = {first}"
        if kind == 1:
            return f"UPDATE t SET v = v + 1 {where}"
        return f"UPDATE t SET id = -id, v = v + 1 WHERE id = {first}"


def one_round(
    source: Source, contestant: Contestant, folder: Path, seed: int, seconds: float, least_kills: int = 0
) -> Result:
    """Write for so long, and until so many runs were killed; then run until one ends well; and count.

    The first run is let alone: the others are killed at a moment between their start and a little after the time that
    the last run that ended took.
    """
    chance, result = random.Random(f"{contestant.name} {seed}"), Result()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # The two ways to keep STATE take turns: what the target printed last, or what the lake says.
    pipeline = _Pipeline(contestant, folder, committed=seed % 2 == 0)
    contestant.prepare()
    writer = Writer(source, seed, changes=contestant.changes)
    writer.start()
    end, longest = time.monotonic() + seconds, 0.0
    try:
        while time.monotonic() < end or result.kills < least_kills:
            began = time.monotonic()
            killed, code = pipeline.run(chance.uniform(0.3, 1.15 * longest) if longest else None)
            longest = longest if killed else time.monotonic() - began
            result.runs += 1
            result.kills += killed
            if not killed and code:
                result.failed.append(pipeline.fault())
    finally:
        writer.end()
    for _ in range(3):
        result.runs += 1
        if pipeline.run(None)[1] == 0:
            break
    else:
        result.failed.append(pipeline.fault())
    result.written = writer.written
    result.lost, result.doubled = _count(source.rows(), folder / "lake", contestant)
    return result


class _Pipeline:
    """`tap | target-parquet`, with the STATE of the runs before."""

    def __init__(self, contestant: Contestant, folder: Path, *, committed: bool) -> None:
        self._folder, self._committed = folder, committed
        self._config, self._target = folder / "tap.json", folder / "target.json"
        self._config.write_text(json.dumps(contestant.config))
        settings = {"destination_path": str(folder / "lake"), "load_method": contestant.method, "hard_delete": True}
        self._target.write_text(json.dumps(settings | {"commit_interval_minutes": 0}))
        self._tap = [*contestant.tap, "--config", str(self._config)]
        discover = subprocess.run([*self._tap, "--discover"], capture_output=True, check=True)
        catalog = json.loads(discover.stdout)
        contestant.catalog(catalog)
        (folder / "catalog.json").write_text(json.dumps(catalog))

    def run(self, kill_after: float | None) -> tuple[bool, int]:
        """One run: whether the target was killed, and the exit code of the pipe."""
        state = self._folder / "state.json"
        target = [str(BIN / "target-parquet"), "--config", str(self._target)]
        if self._committed:
            state.write_bytes(subprocess.run([*target, "--committed-state"], capture_output=True, check=True).stdout)
        command = [*self._tap, "--catalog", str(self._folder / "catalog.json")]
        if state.exists() and state.stat().st_size > 2:
            command += ["--state", str(state)]
        printed = self._folder / "printed"
        with printed.open("wb") as output, (self._folder / "log").open("wb") as log:
            tap = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
            sink = subprocess.Popen(target, stdin=tap.stdout, stdout=output, stderr=log)
            assert tap.stdout is not None
            tap.stdout.close()
            killed = False
            try:
                sink.wait(kill_after)
            except subprocess.TimeoutExpired:
                sink.send_signal(signal.SIGKILL)
                sink.wait()
                killed = sink.returncode == -signal.SIGKILL
            tap.wait()
        lines = printed.read_bytes().split(b"\n")[:-1]
        if lines and not self._committed:
            state.write_bytes(lines[-1])
        return killed, sink.returncode or tap.returncode

    def fault(self) -> str:
        """The last line that the run logged."""
        lines = (self._folder / "log").read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if "ERROR" in line), lines[-1] if lines else "nothing was logged")


def _count(table: list[Row], lake: Path, contestant: Contestant) -> tuple[int, int]:
    """Rows of the table that the lake does not have, and rows of the lake that are not the table's."""
    files = [str(path) for path in (lake / contestant.stream).rglob("*.parquet")]
    query = "SELECT id, v, text FROM read_parquet(?, union_by_name=true)"
    found = Counter(duckdb.execute(query, [files]).fetchall() if files else [])
    expected = Counter(table)
    return (expected - found).total(), (found - expected).total()


@contextmanager
def postgres(address: dict[str, str]) -> Iterator[tuple[Source, str]]:
    """A database of its own on a PostgreSQL server, and its name."""
    name = f"loss_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(**address, dbname="postgres", autocommit=True) as server:  # type: ignore[arg-type]
        server.execute(f"CREATE DATABASE {name}")
        connection = psycopg.connect(**address, dbname=name, autocommit=True)  # type: ignore[arg-type]

        def execute(statements: list[str]) -> None:
            with connection.transaction():
                for statement in statements:
                    connection.execute(statement)  # type: ignore[call-overload]

        def rows() -> list[Row]:
            return connection.execute("SELECT id, v, text FROM t").fetchall()

        try:
            execute(["CREATE TABLE t (id bigint PRIMARY KEY, v integer, text text)"])
            yield Source(execute, rows), name
        finally:
            connection.close()
            _drop(server, name)


def _drop(server: psycopg.Connection[Any], name: str) -> None:
    """Drop a database with its slots, which have to be left by their readers first."""
    while slots := server.execute(
        "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s", [name]
    ).fetchall():
        for slot, process in slots:
            if process is None:
                server.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            else:
                server.execute("SELECT pg_terminate_backend(%s)", [process])
        time.sleep(0.05)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def postgres_settings(address: dict[str, str], name: str) -> dict[str, Any]:
    """How a tap connects."""
    return {**address, "port": int(address["port"]), "database": name, "replication_slot_name": name}


def ours(address: dict[str, str], name: str, method: str) -> Contestant:
    """tap-postgres."""
    settings = postgres_settings(address, name) | {"default_replication_method": "LOG_BASED"}
    return Contestant(
        f"tap-postgres, {method}",
        [str(BIN / "tap-postgres")],
        settings,
        "public-t",
        method,
        changes=method == "upsert",
    )


def meltanolabs(address: dict[str, str], name: str, environment: Path) -> Contestant:
    """meltanolabs-tap-postgres, which needs wal2json on the server, its slot made for it, and no first read."""

    def prepare() -> None:
        with psycopg.connect(**address, dbname=name, autocommit=True) as connection:  # type: ignore[arg-type]
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'wal2json')", [name])

    def log_based(catalog: dict[str, Any]) -> None:
        for entry in catalog["streams"]:
            chosen = entry["tap_stream_id"] == "public-t"
            entry |= {"replication_method": "LOG_BASED", "replication_key": "_sdc_lsn"}
            for each in entry["metadata"]:
                if not each["breadcrumb"]:
                    each["metadata"] |= {"selected": chosen, "replication-method": "LOG_BASED"}

    limits = {"replication_max_run_seconds": 5, "replication_idle_exit_seconds": 2}
    return Contestant(
        "meltanolabs-tap-postgres 0.10.0",
        [str(environment / "bin/tap-postgres")],
        postgres_settings(address, name) | limits | {"filter_schemas": ["public"]},
        "public-t",
        prepare=prepare,
        catalog=log_based,
    )


def server_address() -> dict[str, str]:
    """Of the tests' PostgreSQL server, which is started if it does not run."""
    sys.path.append(str(ROOT / "tests" / "services"))
    found: dict[str, str] = importlib.import_module("postgres").start()
    return found


def table_of(results: dict[str, list[Result]]) -> str:
    """The results as a table."""
    lines = [
        "| tap | rounds | rows written and changed | runs | targets killed | rounds with rows lost | rows lost "
        "| rounds with rows doubled | rows doubled |",
        "|---|" + "--:|" * 8,
    ]
    for name, rounds in results.items():
        counts = [
            len(rounds),
            *(sum(getattr(each, what) for each in rounds) for what in ("written", "runs", "kills")),
            sum(each.lost > 0 for each in rounds),
            sum(each.lost for each in rounds),
            sum(each.doubled > 0 for each in rounds),
            sum(each.doubled for each in rounds),
        ]
        lines.append(f"| {name} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    return "\n".join(lines)


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="tests/faults/log_loss.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="of writing in each round")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", default="", help="append-only, upsert or meltanolabs")
    parser.add_argument("--environments", type=Path, help="where the other tap is, or is to be, installed")
    parser.add_argument("--write", action="store_true", help="put the table into docs/faults.md")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="log-loss-"))
    address, results = server_address(), {}
    for kind in ("append-only", "upsert", "meltanolabs"):
        if options.only not in {"", kind}:
            continue
        for number in range(options.rounds):
            with postgres(address) as (source, name):
                if kind == "meltanolabs":
                    contestant = meltanolabs(address, name, _installed(options.environments or folder))
                else:
                    contestant = ours(address, name, kind)
                result = one_round(source, contestant, folder / kind, number, options.seconds)
            results.setdefault(contestant.name, []).append(result)
            sys.stdout.write(f"{contestant.name} {number + 1}: {result}\n")
            sys.stdout.flush()
    shutil.rmtree(folder, ignore_errors=True)
    table = table_of(results)
    sys.stdout.write(f"{table}\n")
    if options.write:
        from tables import commit, write_page

        given = f"{options.rounds} rounds of {options.seconds:.0f} seconds each"
        write_page("log", f"{table}\n\n{given}; `python tests/faults/log_loss.py`, commit {commit()}.")
    bad = [r for name, rounds in results.items() if name.startswith("tap-postgres") for r in rounds]
    return int(any(r.lost or r.doubled or r.failed for r in bad))


def _installed(environments: Path) -> Path:
    sys.path.insert(0, str(ROOT))
    from benchmarks.peers.environments import Environment

    environment = Environment("meltanolabs", ("meltanolabs-tap-postgres==0.10.0",))
    environment.make(environments)
    return environment.folder(environments)


if __name__ == "__main__":
    sys.exit(main())
