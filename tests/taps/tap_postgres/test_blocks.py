"""Tables that are read by ranges of their blocks: several at once, in one snapshot, and from where a run ended."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from melisma.tap.stream import ArrowStream
from melisma_tap_postgres import blocks
from melisma_tap_postgres.heap import snapshot_mark
from melisma_tap_postgres.server import Server
from melisma_tap_postgres.sqlstate import ConnectionLost

from .conftest import kill

ROWS = 30_000
TABLE = (
    "CREATE TABLE big (id integer, filler text)",
    f"INSERT INTO big SELECT i, repeat('x', 200) FROM generate_series(1, {ROWS}) i",
)
PARTITIONED = (
    "CREATE TABLE big (id integer, filler text) PARTITION BY RANGE (id)",
    "CREATE TABLE small PARTITION OF big FOR VALUES FROM (0) TO (5000)",
    "CREATE TABLE rest PARTITION OF big DEFAULT PARTITION BY LIST (filler)",
    "CREATE TABLE leaf (filler text, gone integer, id integer)",
    "ALTER TABLE leaf DROP gone",
    "ALTER TABLE rest ATTACH PARTITION leaf DEFAULT",
    "CREATE TABLE none PARTITION OF rest FOR VALUES IN ('nothing')",
    TABLE[1],
)
INHERITED = (
    "CREATE TABLE big (id integer, filler text)",
    "CREATE TABLE child (more integer) INHERITS (big)",
    f"INSERT INTO big SELECT i, repeat('x', 200) FROM generate_series(1, {ROWS // 2}) i",
    f"INSERT INTO child SELECT i, repeat('x', 200), 1 FROM generate_series({ROWS // 2 + 1}, {ROWS}) i",
)
WIDE = (
    TABLE[0],
    "ALTER TABLE big ALTER filler SET STORAGE EXTERNAL",  # not compressed
    TABLE[1].replace("200", "1900"),
)
SHAPES = {"table": TABLE, "partitioned": PARTITIONED, "inherited": INHERITED}


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a megabyte for each range, a STATE after each, and batches of a quarter of it."""
    monkeypatch.setattr("melisma_tap_postgres.heap._RANGE_BYTES", 1 << 19)
    monkeypatch.setattr("melisma_tap_postgres.server._BYTES", 1 << 17)
    monkeypatch.setattr(ArrowStream, "STATE_MSG_FREQUENCY", 1)
    monkeypatch.setattr(Server, "pause", lambda *_: None)


def ids(messages: list[dict[str, Any]]) -> Counter[int]:
    """How often each id is there, of the table that is read as a whole."""
    return Counter(m["record"]["id"] for m in messages if m["type"] == "RECORD" and m["stream"] == "public-big")


ALL = Counter(range(1, ROWS + 1))


def catalog_of(database: Any) -> dict[str, Any]:
    """The catalog with the one table."""
    catalog: dict[str, Any] = database.catalog()
    catalog["streams"] = [each for each in catalog["streams"] if each["stream"] == "public-big"]
    return catalog


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("connections", [1, 3])
def test_each_row_comes_once_and_each_state_is_right(database: Any, shape: str, connections: int) -> None:
    """From every STATE on the next run sends the rest, and nothing twice; after the last, all of it again."""
    database.run(*SHAPES[shape])
    settings = {"resume_full_table": True, "parallel_reads": connections}
    catalog = catalog_of(database)
    messages = database.sync(catalog=catalog, **settings).messages
    assert ids(messages) == ALL
    states = [number for number, message in enumerate(messages) if message["type"] == "STATE"]
    assert len(states) > 5
    for cut in [*states[::4], states[-1]]:
        rest = ids(database.sync(messages[cut]["value"], catalog, **settings).messages)
        whole = messages[cut]["value"]["bookmarks"]["public-big"]["resume_after"] is None
        assert rest + (Counter() if whole else ids(messages[:cut])) == ALL


def test_without_resuming_there_is_no_position(database: Any) -> None:
    """A target that overwrites must not take a part for the whole."""
    database.run(*TABLE)
    output = database.sync(parallel_reads=2)
    assert ids(output.messages) == ALL
    assert output.state["bookmarks"]["public-big"] == {}


def test_all_connections_see_one_snapshot(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are committed once the read has begun are not seen, whichever connection would come to them."""
    database.run(*TABLE)
    read = blocks._RangeReader.read
    changed = threading.Lock()
    done: list[int] = []

    def reading(self: blocks._RangeReader, part: Any) -> Iterator[pa.RecordBatch]:
        with changed:
            if not done:
                database.run("DELETE FROM big WHERE id % 2 = 0", "UPDATE big SET id = -id WHERE id % 3 = 0")
                database.run("INSERT INTO big SELECT 0 FROM generate_series(1, 10000)")
            done.append(part[0])
        yield from read(self, part)

    monkeypatch.setattr(blocks._RangeReader, "read", reading)
    assert ids(database.sync(parallel_reads=3).messages) == ALL
    assert len(done) > 5


def cut_and_change(database: Any, *changes: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The messages up to a STATE in the middle, and that STATE; then the changes are made."""
    messages = database.sync(resume_full_table=True).messages
    states = [number for number, message in enumerate(messages) if message["type"] == "STATE"]
    cut = states[len(states) // 2]
    database.run(*changes)
    return messages[:cut], messages[cut]["value"]


def test_rows_that_changed_in_between_are_not_missed(database: Any) -> None:
    """Wherever the server puts their new versions: into blocks that were read, or behind them."""
    database.run(*TABLE, "ALTER TABLE big SET (fillfactor = 50)")
    before, state = cut_and_change(
        database,
        "DELETE FROM big WHERE id BETWEEN 100 AND 5000",
        "VACUUM big",  # makes room in the blocks that were read
        f"UPDATE big SET filler = 'new' WHERE id > {ROWS - 500}",  # from behind to the front
        "UPDATE big SET filler = 'new' WHERE id BETWEEN 10 AND 20",
        "INSERT INTO big VALUES (1000001, 'new'), (1000002, 'new')",
    )
    after = database.sync(state, resume_full_table=True)
    news = Counter(r["id"] for r in after.records() if r["filler"] == "new")
    with database.connect() as connection:
        expected = Counter(row[0] for row in connection.execute("SELECT id FROM big WHERE filler = 'new'"))
        there = Counter(row[0] for row in connection.execute("SELECT id FROM big"))
    assert news == expected
    both = ids(before) + ids(after.messages)
    assert not there - both
    changed = Counter(range(10, 21))
    assert both - there - Counter(range(100, 5001)) == changed


def test_transactions_that_are_open_meanwhile_neither_lose_nor_double_rows(database: Any) -> None:
    """One that began before the first run and ends after it, with savepoints: its rows come in the second run.

    Rows of others that ended before the first run have higher numbers than the open one, and still come once.
    """
    database.run("CREATE TABLE big (id integer, filler text)")
    with database.connect() as slow:
        slow.execute("BEGIN")
        slow.execute("INSERT INTO big SELECT i, repeat('x', 200) FROM generate_series(1, 5000) i")
        slow.execute("SAVEPOINT a")
        slow.execute("INSERT INTO big SELECT i, repeat('x', 200) FROM generate_series(5001, 6000) i")
        slow.execute("RELEASE a")
        database.run(f"INSERT INTO big SELECT i, repeat('x', 200) FROM generate_series(6001, {ROWS}) i")
        slow.execute("SAVEPOINT b")
        slow.execute("INSERT INTO big SELECT i, repeat('x', 200) FROM generate_series(1000001, 1000010) i")
        before, state = cut_and_change(database)
        assert state["bookmarks"]["public-big"]["resume_after"]["seen"]
        slow.execute("COMMIT")
    both = ids(before) + ids(database.sync(state, resume_full_table=True).messages)
    assert both == ALL + Counter(range(1000001, 1000011))


def test_a_second_cut_goes_on_from_the_second_snapshot(database: Any) -> None:
    """A run that went on within the table and was cut again is itself gone on with."""
    database.run(*TABLE)
    before, state = cut_and_change(database, "INSERT INTO big VALUES (1000001, 'new')")
    messages = database.sync(state, resume_full_table=True).messages
    cut = [number for number, message in enumerate(messages) if message["type"] == "STATE"][3]
    rest = database.sync(messages[cut]["value"], resume_full_table=True).messages
    assert ids(before) + ids(messages[:cut]) + ids(rest) == ALL + Counter([1000001])


@pytest.mark.parametrize("change", ["VACUUM FULL big", "ALTER TABLE big ALTER id TYPE bigint", "TRUNCATE big"])
def test_a_table_that_was_rewritten_is_read_from_its_start(
    database: Any, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No row lies where it lay; the log says so."""
    database.run(*TABLE)
    _, state = cut_and_change(database, change)
    rest = database.sync(state, resume_full_table=True).messages
    assert ids(rest) == (Counter() if "TRUNCATE" in change else ALL)
    assert "the table was rewritten since a run ended within it" in caplog.text


def test_a_key_is_gone_on_with_by_key(database: Any) -> None:
    """A STATE of a run by the primary key counts, also where the next run may read several ranges at once."""
    database.run(*TABLE, "ALTER TABLE big ADD PRIMARY KEY (id)")
    state = {"bookmarks": {"public-big": {"resume_after": [ROWS - 10]}}}
    rest = database.sync(state, resume_full_table=True, parallel_reads=2).messages
    assert ids(rest) == Counter(range(ROWS - 9, ROWS + 1))


@pytest.mark.parametrize(
    "statement",
    [
        f"CREATE VIEW big AS SELECT i AS id FROM generate_series(1, {ROWS}) i",
        f"CREATE UNLOGGED TABLE big AS SELECT i AS id FROM generate_series(1, {ROWS}) i LIMIT 100",
    ],
    ids=["view", "small"],
)
def test_what_has_no_ranges_is_read_in_one_go(database: Any, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views, and tables that would be one range."""
    monkeypatch.setattr(blocks._RangeReader, "read", None)
    database.run(statement)
    output = database.sync(resume_full_table=True, parallel_reads=2)
    assert ids(output.messages) == (ALL if "VIEW" in statement else Counter(range(1, 101)))


@pytest.fixture
def reader(database: Any) -> Iterator[dict[str, str]]:
    """Somebody who may read nothing yet: user and password."""
    name = f"reader_{database.name}"
    database.run(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    yield {"user": name, "password": "secret"}
    database.run(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_a_user_who_may_read_some_columns_reads_in_one_go(database: Any, reader: dict[str, str]) -> None:
    """The server shows where rows lie only to those who may read all of a table."""
    database.run(*TABLE, f"GRANT SELECT (id) ON big TO {reader['user']}")
    output = database.sync(**reader, resume_full_table=True, parallel_reads=2)
    assert ids(output.messages) == ALL


def test_rows_that_a_policy_hides_stay_hidden(database: Any, reader: dict[str, str]) -> None:
    """Partitions are read through their table, whose row security holds."""
    database.run(
        *PARTITIONED,
        f"GRANT SELECT ON big TO {reader['user']}",
        "ALTER TABLE big ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY even ON big USING (id % 2 = 0)",
    )
    output = database.sync(**reader, parallel_reads=2)
    assert ids(output.messages) == Counter(range(2, ROWS + 1, 2))


@pytest.fixture
def dropped(database: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A connection that reads ranges is ended after its third batch, once; gives the number of its process."""
    found: list[int] = []
    read = Server.batches_on_this_thread

    def reading(self: Server, sql: str, stream: str) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(read(self, sql, stream)):
            yield batch
            if number == 2 and not found:
                found.append(pids[id(self)])
                with database.connect() as connection:
                    connection.execute("SELECT pg_terminate_backend(%s)", found)

    pids: dict[int, int] = {}
    connect = Server._connect

    def connecting(self: Server) -> Any:
        self._connection = connect(self)
        pids[id(self)] = self.rows("SELECT pg_backend_pid() AS pid")[0]["pid"]
        return self._connection

    monkeypatch.setattr(Server, "_connect", connecting)
    monkeypatch.setattr(Server, "batches_on_this_thread", reading)
    return found


@pytest.mark.parametrize("connections", [1, 3])
def test_a_dropped_connection_goes_on_in_the_same_snapshot(database: Any, dropped: list[int], connections: int) -> None:
    """Within its range, after the last row that it gave; no row is lost or doubled, with a primary key or without."""
    database.run(*TABLE)
    output = database.sync(resume_full_table=True, parallel_reads=connections)
    assert dropped
    assert ids(output.messages) == ALL


def test_a_lost_snapshot_fails_the_run_and_the_next_goes_on(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all connections are ended the run fails; what its last STATE covers is not sent again."""
    database.run(*TABLE)
    read = Server.batches_on_this_thread
    count: list[int] = []

    def reading(self: Server, sql: str, stream: str) -> Iterator[pa.RecordBatch]:
        for batch in read(self, sql, stream):
            yield batch
            count.append(batch.num_rows)
            if len(count) == 20:
                kill(database)

    monkeypatch.setattr(Server, "batches_on_this_thread", reading)
    with pytest.raises(ConnectionLost, match=r"PostgreSQL: the connection .*Run it again"):
        database.sync(resume_full_table=True)
    monkeypatch.setattr(Server, "batches_on_this_thread", read)
    messages = database.last.messages
    cut = [number for number, message in enumerate(messages) if message["type"] == "STATE"][-1]
    rest = database.sync(messages[cut]["value"], resume_full_table=True)
    assert ids(messages[:cut]) + ids(rest.messages) == ALL


def test_a_killed_run_goes_on_into_a_lake(database: Any, tmp_path: Path) -> None:
    """No primary key, SIGKILL in the middle of the table, changes, and a second run: each row is in the lake once."""
    database.run(*WIDE)
    target = tmp_path / "target.json"
    settings = {"destination_path": str(tmp_path / "lake"), "max_file_mb": 1, "commit_interval_minutes": 0}
    target.write_text(json.dumps(settings), encoding="utf-8")
    executable = [str(Path(sys.executable).parent / "target-parquet"), "--config", str(target)]
    config = database.config(resume_full_table=True, parallel_reads=2)
    with (
        subprocess.Popen(database.command(config), stdout=subprocess.PIPE) as tap,
        subprocess.Popen(executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reading,
    ):
        assert tap.stdout is not None
        assert reading.stdin is not None
        assert reading.stdout is not None
        marked, beyond = False, 0
        while beyond < 2_000:  # rows after the mark, which no STATE covers
            line = tap.stdout.readline()
            assert line
            marked = marked or b'"block"' in line
            beyond += marked
            reading.stdin.write(line)
        reading.stdin.flush()
        tap.kill()
        while b'"block"' not in reading.stdout.readline():
            assert reading.poll() is None
        reading.kill()
    state = subprocess.run([*executable, "--committed-state"], check=True, capture_output=True).stdout
    assert json.loads(state)["bookmarks"]["public-big"]["resume_after"]["block"] > 0
    database.run("INSERT INTO big VALUES (1000001, 'new')")
    (tmp_path / "state.json").write_bytes(state)
    again = subprocess.run(
        database.command(config, "--state", str(tmp_path / "state.json")), check=True, capture_output=True
    )
    assert again.stdout.count(b'"RECORD"') < ROWS
    subprocess.run(executable, input=again.stdout, check=True, capture_output=True)
    files = str(tmp_path / "lake" / "public-big" / "*.parquet")
    [found] = duckdb.sql(f"SELECT count(*), count(DISTINCT id), sum(id) FROM read_parquet('{files}')").fetchall()
    assert found == (ROWS + 1, ROWS + 1, ROWS * (ROWS + 1) // 2 + 1000001)


def test_a_signal_ends_a_read_over_several_connections(database: Any) -> None:
    """SIGTERM while they wait for the pipe: exit code 143, and nothing of it is left on the server."""
    database.run(*WIDE)
    process = subprocess.Popen(
        database.command(database.config(parallel_reads=3)), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert b'"SCHEMA"' in process.stdout.readline()
    assert b'"RECORD"' in process.stdout.readline()
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"Traceback" not in errors
    waiting = threading.Event()
    left = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tap-postgres' AND datname = current_database()"
    )
    with database.connect() as connection:
        while connection.execute(left).fetchall() != [(0,)]:
            waiting.wait(0.05)


def test_a_logs_snapshot_is_read_by_several_connections(database: Any) -> None:
    """All in the snapshot of the slot's position; what is written meanwhile comes by the log, and each row once."""
    database.run(*TABLE, "ALTER TABLE big ADD PRIMARY KEY (id)")

    def write() -> None:
        database.run("INSERT INTO big VALUES (0, 'new')", "UPDATE big SET filler = 'y' WHERE id = 5")

    config = {"parallel_reads": 3, "resume_full_table": True, "default_replication_method": "LOG_BASED"}
    first = database.sync(before=write, **config)
    assert ids(first.messages) == Counter(range(ROWS + 1))
    database.run("DELETE FROM big WHERE id = 7")
    second = database.sync(first.state, **config)
    assert [(r["id"], r["_sdc_deleted_at"] is None) for r in second.records()] == [(7, False)]
    assert "resume_after" not in json.dumps(first.messages)


class _Numbers:
    """A server that says how far its transactions are."""

    def __init__(self, low: int, high: int) -> None:
        self._found = {"low": low, "high": high}

    def rows(self, sql: str) -> list[dict[str, int]]:
        return [self._found] if "pg_current_snapshot" in sql else [{"number": self._found["low"] % 2**32}]


@pytest.mark.parametrize(("age", "seen"), [(0, [1_000]), (1 << 32, [])])
def test_after_the_numbers_have_come_round_no_row_counts_as_seen(age: int, seen: list[int]) -> None:
    """A row that is as old as that may have the number of a transaction that is under way, whose rows would be lost."""
    server: Any = _Numbers(age + 1_000, age + 1_010)
    mark, _ = snapshot_mark(server, SimpleNamespace(sql="t"), SimpleNamespace(files=[]))  # type: ignore[arg-type]
    assert mark.seen == seen
