"""Whole tables and replication keys; what happens when the connection drops, or the run is cut short."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from melisma.errors import CatalogError, ConfigError, DatabaseError
from melisma.tap.stream import ArrowStream
from melisma_tap_postgres.server import Server
from melisma_tap_postgres.sqlstate import ConnectionLost

ROWS = 120_000
BIG = (
    "CREATE TABLE big (id integer PRIMARY KEY, k integer, filler text)",
    f"INSERT INTO big SELECT i, i / 7, repeat('x', 300) FROM generate_series(1, {ROWS}) i ORDER BY i % 1000, i",
)
KEYS = {
    "bigint": "(i - 3)::bigint",
    "numeric": "i * 1.25 - 2",
    "numeric(12,2)": "i * 1.25 - 2",
    "date": "DATE '2024-02-27' + i",
    "timestamp": "TIMESTAMP '2024-02-29 23:59:59.999998' + i * INTERVAL '1 microsecond'",
    "timestamptz": "TIMESTAMPTZ '2024-02-29 23:59:59+05:30' + i * INTERVAL '1 hour'",
    "time": "TIME '10:00' + i * INTERVAL '1 minute'",
    "interval": "i * INTERVAL '9 days'",
    "text": "'it''s \\ ' || i",
    "char(3)": "'k' || i",
    "uuid": "('00000000-0000-0000-0000-00000000000' || i)::uuid",
    "rank": "(ARRAY['z', 'y', 'b', 'a', 'c', '1', '0'])[i + 1]::rank",
    "inet": "('9.0.0.' || i * 3)::inet",
}


def kill(database: Any) -> None:
    """End the tap's connection, from another one."""
    with database.connect() as connection:
        sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name = %s"
        assert connection.execute(sql, [database.name, "tap-postgres"]).fetchall()


@pytest.fixture
def dropped(database: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The connection is ended after the second batch of a read, once; gives the rows of all batches.

    Some megabytes more can be on their way by then, but not all of the table.
    """
    sizes: list[int] = []
    read = Server.batches
    monkeypatch.setattr(Server, "pause", lambda *_: None)

    def reading(self: Server, sql: str, stream: str) -> Iterator[pa.RecordBatch]:
        for batch in read(self, sql, stream):
            yield batch
            sizes.append(batch.num_rows)
            if len(sizes) == 2:
                kill(database)

    monkeypatch.setattr(Server, "batches", reading)
    return sizes


@pytest.mark.parametrize("kind", KEYS)
def test_the_next_run_starts_at_the_last_key(database: Any, kind: str) -> None:
    """Whatever the key's type: sorted as PostgreSQL sorts it, rows at the last value again, none before."""
    database.run(
        "CREATE TYPE rank AS ENUM ('z', 'y', 'b', 'a', 'c', '1', '0')",
        f"CREATE TABLE t (id integer, k {kind})",
        f"INSERT INTO t SELECT i, {KEYS[kind]} FROM generate_series(0, 4) i ORDER BY i DESC",
    )
    catalog = database.incremental("k")
    first = database.sync(catalog=catalog)
    assert [r["id"] for r in first.records()] == [0, 1, 2, 3, 4]
    bookmark = first.state["bookmarks"]["public-t"]
    assert bookmark["replication_key"] == "k"
    assert bookmark["replication_key_value"] in {first.records()[-1]["k"], str(first.records()[-1]["k"])}
    database.run(f"INSERT INTO t SELECT i, {KEYS[kind]} FROM generate_series(5, 6) i ORDER BY i DESC")
    again = database.sync(first.state, catalog)
    assert [r["id"] for r in again.records()] == [4, 5, 6]


def test_rows_without_a_key_come_first_and_once(database: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Later runs leave them out, and say so."""
    database.run("CREATE TABLE t (id integer, k integer)", "INSERT INTO t VALUES (2, 5), (1, NULL), (3, 4)")
    catalog = database.incremental("k")
    first = database.sync(catalog=catalog)
    assert [r["id"] for r in first.records()] == [1, 3, 2]
    assert [r["id"] for r in database.sync(first.state, catalog).records()] == [2]
    assert 'some rows have no value in the replication key "k"' in caplog.text


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"replication_method": "BY_HAND"}, "cannot be replicated by BY_HAND. Valid methods: FULL_TABLE, INCREM"),
        ({"replication_method": "INCREMENTAL"}, "INCREMENTAL, but it has no replication key"),
        ({"replication_method": "INCREMENTAL", "replication_key": "f"}, '"f" is neither an integer'),
        ({"replication_method": "INCREMENTAL", "replication_key": "j"}, '"j" is neither an integer'),
        ({"replication_method": "INCREMENTAL", "replication_key": "nope"}, '"nope" is no column'),
    ],
)
def test_a_method_or_key_that_cannot_work_is_an_error(database: Any, entry: Any, message: str) -> None:
    """Before anything is read."""
    database.run("CREATE TABLE t (id integer, f float8, j jsonb)")
    catalog = database.catalog()
    catalog["streams"][0] |= entry
    with pytest.raises(CatalogError, match=message):
        database.sync(catalog=catalog)


def test_all_streams_see_one_snapshot(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are committed between two streams are not seen in the second."""
    database.run("CREATE TABLE a (n integer)", "CREATE TABLE b (n integer)", "INSERT INTO a VALUES (1)")
    read = Server.batches

    def reading(self: Server, sql: str, stream: str) -> Iterator[pa.RecordBatch]:
        yield from read(self, sql, stream)
        database.run("INSERT INTO a VALUES (2)", "INSERT INTO b VALUES (2)")

    monkeypatch.setattr(Server, "batches", reading)
    output = database.sync()
    assert (output.records("public-a"), output.records("public-b")) == ([{"n": 1}], [])


def test_a_dropped_connection_goes_on_by_replication_key(database: Any, dropped: list[int]) -> None:
    """With a primary key beside it each row comes once, in order, ties across the drop too."""
    database.run(*BIG)
    output = database.sync(catalog=database.incremental("k"))
    assert len(dropped) > 3
    assert [r["id"] for r in output.records()] == list(range(1, ROWS + 1))


def test_a_dropped_connection_goes_on_by_primary_key(database: Any, dropped: list[int]) -> None:
    """In a full table that is read in its key's order."""
    database.run(*BIG)
    output = database.sync(resume_full_table=True)
    assert len(dropped) > 3
    assert [r["id"] for r in output.records()] == list(range(1, ROWS + 1))
    assert output.state["bookmarks"]["public-big"]["resume_after"] is None


def test_a_dropped_connection_fails_a_read_without_an_order(database: Any, dropped: list[int]) -> None:
    """No row can be told from those that were sent, so the run fails, and says so."""
    database.run(*BIG)
    with pytest.raises(ConnectionLost, match=r'stream "public-big", PostgreSQL: .*Run it again'):
        database.sync()
    assert sum(dropped) < ROWS


def test_a_run_that_was_cut_short_goes_on_within_the_table(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From each STATE on, with `resume_full_table`: the rest, and nothing twice; after the end, all of it again."""
    monkeypatch.setattr(ArrowStream, "STATE_MSG_FREQUENCY", 1)
    database.run(*BIG)
    messages = database.sync(resume_full_table=True).messages
    states = [i for i, m in enumerate(messages) if m["type"] == "STATE"]
    assert len(states) > 3
    for cut in states:
        settled = [m["record"]["id"] for m in messages[:cut] if m["type"] == "RECORD"]
        rest = [r["id"] for r in database.sync(messages[cut]["value"], resume_full_table=True).records()]
        if cut == states[-1]:
            assert rest == list(range(1, ROWS + 1))
        else:
            assert settled + rest == list(range(1, ROWS + 1))


def test_a_key_of_several_columns_resumes(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the key's order, which is not the table's; texts with quotes among the values."""
    monkeypatch.setattr(ArrowStream, "STATE_MSG_FREQUENCY", 1)
    database.run(
        "CREATE TABLE t (a integer, b text, PRIMARY KEY (b, a))",
        "INSERT INTO t SELECT i % 300, repeat('it''s \\', 30) || i / 300 FROM generate_series(0, 89999) i",
    )
    messages = database.sync(resume_full_table=True).messages
    keys = [(m["record"]["b"], m["record"]["a"]) for m in messages if m["type"] == "RECORD"]
    assert keys == sorted(keys)
    cut = [i for i, m in enumerate(messages) if m["type"] == "STATE"][1]
    assert messages[cut]["value"]["bookmarks"]["public-t"]["resume_after"]
    settled = [(m["record"]["b"], m["record"]["a"]) for m in messages[:cut] if m["type"] == "RECORD"]
    rest = database.sync(messages[cut]["value"], resume_full_table=True).records()
    assert settled + [(r["b"], r["a"]) for r in rest] == keys


def test_a_key_that_is_not_a_number_is_no_position(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A STATE cannot hold it, so every STATE holds the last position that can be gone on from."""
    monkeypatch.setattr(ArrowStream, "STATE_MSG_FREQUENCY", 1)
    database.run(
        "CREATE TABLE t (id numeric(9, 1) PRIMARY KEY, filler text)",
        "INSERT INTO t SELECT i, repeat('x', 300) FROM generate_series(1, 30000) i",
        "INSERT INTO t VALUES ('NaN')",
    )
    messages = database.sync(resume_full_table=True).messages
    ids = [m["record"]["id"] for m in messages if m["type"] == "RECORD"]
    states = [m["value"] for m in messages if m["type"] == "STATE"]
    assert len(states) > 2
    for state in states[1:-1]:
        rest = [r["id"] for r in database.sync(state, resume_full_table=True).records()]
        assert rest
        assert rest == ids[-len(rest) :]


def test_versions_and_resuming_do_not_go_together(database: Any) -> None:
    """A version is what one run reads."""
    with pytest.raises(ConfigError, match=r"resume_full_table.*emit_activate_version_messages"):
        database.catalog(resume_full_table=True, emit_activate_version_messages=True)


def test_a_full_table_can_carry_its_version(database: Any) -> None:
    """As in other taps: each record has it."""
    database.run("CREATE TABLE t (id integer)", "INSERT INTO t VALUES (1)")
    messages = database.sync(emit_activate_version_messages=True).messages
    version = next(m["version"] for m in messages if m["type"] == "ACTIVATE_VERSION")
    assert [m["version"] for m in messages if m["type"] == "RECORD"] == [version]


def test_the_record_limit_is_pushed_down(database: Any) -> None:
    """`max_record_count` of each stream."""
    database.run("CREATE TABLE t AS SELECT i FROM generate_series(1, 100) i", "CREATE VIEW v AS SELECT * FROM t")
    output = database.sync(max_record_count=7)
    assert [len(output.records(f"public-{name}")) for name in "tv"] == [7, 7]


def test_a_query_that_the_server_cancels_is_an_error(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not tried again: it would be cancelled again."""
    database.run(*BIG)
    read = Server.batches

    def reading(self: Server, sql: str, stream: str) -> Iterator[pa.RecordBatch]:
        batches = read(self, sql, stream)
        yield next(batches)
        with database.connect() as connection:
            connection.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'tap-postgres' "
                "AND datname = current_database()"
            )
        yield from batches

    monkeypatch.setattr(Server, "batches", reading)
    with pytest.raises(DatabaseError, match=r"the server ended the query while its rows were read"):
        database.sync()


def test_a_signal_ends_a_read_that_waits(database: Any) -> None:
    """SIGTERM is heard while the server works: exit code 143, and its query is cancelled there."""
    database.run("CREATE VIEW slow AS SELECT pg_sleep(600)::text AS v")
    catalog = database.folder / "catalog.json"
    catalog.write_text(json.dumps(database.catalog()), encoding="utf-8")
    process = subprocess.Popen(
        database.command(database.config(), "--catalog", str(catalog)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert '"SCHEMA"' in process.stdout.readline()
    running = (
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%COPY%%slow%%' AND state = 'active' AND datname = %s "
        "AND pid <> pg_backend_pid()"
    )
    with database.connect() as connection:
        waiting = threading.Event()
        while connection.execute(running, [database.name]).fetchall() == [(0,)]:
            assert process.poll() is None
            waiting.wait(0.05)
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 143
        assert "Traceback" not in errors
        while connection.execute(running, [database.name]).fetchall() != [(0,)]:
            waiting.wait(0.05)


def test_into_a_lake_resumed_and_with_new_rows(database: Any, tmp_path: Path) -> None:
    """tap-postgres into target-parquet with its committed STATE: what psycopg sees is what DuckDB reads."""
    target = tmp_path / "target.json"
    target.write_text(json.dumps({"destination_path": str(tmp_path / "lake")}), encoding="utf-8")
    executable = [str(Path(sys.executable).parent / "target-parquet"), "--config", str(target)]
    database.run(
        "CREATE TABLE t (id integer PRIMARY KEY, changed timestamptz, total numeric(12,2), any_number numeric, "
        "raw bytea, tags text[], j jsonb)",
        "INSERT INTO t SELECT i, timestamptz '2024-01-01Z' + i / 10 * interval '1 hour', i / 4.0, i / 8.0, "
        "decode(lpad(to_hex(i), 8, '0'), 'hex'), ARRAY['a', i::text], jsonb_build_object('i', i) "
        "FROM generate_series(1, 1000) i",
    )
    (tmp_path / "catalog.json").write_text(json.dumps(database.incremental("changed")), encoding="utf-8")
    more = "INSERT INTO t SELECT 2000 + i, (SELECT max(changed) FROM t), 7 FROM generate_series(1, 5) i"
    columns = (
        "id, extract(epoch FROM changed)::bigint, total::text, cast(any_number AS double precision), raw, tags, j::text"
    )
    for statement in ("SELECT 1", more):
        database.run(statement)
        for _ in range(2):
            state = subprocess.run([*executable, "--committed-state"], check=True, capture_output=True).stdout
            (tmp_path / "state.json").write_bytes(state)
            arguments = ["--catalog", str(tmp_path / "catalog.json"), "--state", str(tmp_path / "state.json")]
            done = subprocess.run(database.command(database.config(), *arguments), check=True, capture_output=True)
            subprocess.run(executable, input=done.stdout, check=True, capture_output=True)
        files = str(tmp_path / "lake" / "public-t" / "*.parquet")
        landed = duckdb.sql(f"SELECT {columns.replace('text', 'varchar')} FROM read_parquet('{files}') ORDER BY id")
        with database.connect() as connection:
            assert landed.fetchall() == connection.execute(f"SELECT {columns} FROM t ORDER BY id").fetchall()
