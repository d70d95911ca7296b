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
import pytest

from melisma.errors import CatalogError, ConfigError, DatabaseError
from melisma.sql.remedy import ConnectionLost
from melisma.tap.stream import ArrowStream
from melisma_tap_mysql.server import Server

ROWS = 60_000
BIG = (
    "CREATE TABLE big (id integer PRIMARY KEY, k integer, filler text)",
    f"INSERT INTO big SELECT seq, seq DIV 7, repeat('x', 600) FROM seq_1_to_{ROWS} ORDER BY seq % 1000, seq",
)
KEYS = {
    "bigint": "CAST(seq AS SIGNED) - 3",
    "bigint unsigned": "18446744073709551600 + seq",
    "decimal(12,2)": "seq * 1.25 - 2",
    "decimal(60,2)": "seq * 1.25 - 2",
    "bit(9)": "seq",
    "year": "2020 + seq",
    "date": "DATE '2024-02-27' + INTERVAL seq DAY",
    "datetime(6)": "TIMESTAMP '2024-02-29 23:59:59.999998' + INTERVAL seq MICROSECOND",
    "timestamp(3) null": "TIMESTAMP '2024-02-29 23:59:59' + INTERVAL seq HOUR",
    "time": "SEC_TO_TIME((seq + 9) * 36000)",
    "varchar(20)": "CONCAT('it''s \\\\ ', seq)",
    "varchar(20) character set latin1": "CONCAT('ü', seq)",
    "char(3)": "CONCAT('k', seq)",
    "uuid": "CONCAT('00000000-0000-0000-0000-00000000000', seq)",
    "inet6": "CONCAT('2001:db8::', seq)",
}


def kill(database: Any) -> None:
    """End the tap's connection, from another one."""
    connections = database.rows(
        "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> connection_id()", database.name
    )
    assert connections
    for (number,) in connections:
        database.run(f"KILL {number}")


@pytest.fixture
def dropped(database: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The connection is ended after the second block of a read, once; gives the rows of all blocks.

    Some megabytes more can be on their way by then, but not all of the table.
    """
    sizes: list[int] = []
    read = Server.batches
    monkeypatch.setattr(Server, "pause", lambda *_: None)

    def reading(self: Server, sql: str, stream: str) -> Iterator[Any]:
        for arrays in read(self, sql, stream):
            yield arrays
            sizes.append(len(arrays[0]))
            if len(sizes) == 2:
                kill(database)

    monkeypatch.setattr(Server, "batches", reading)
    return sizes


@pytest.mark.parametrize("kind", KEYS)
def test_the_next_run_starts_at_the_last_key(database: Any, kind: str) -> None:
    """Whatever the key's type: sorted as the server sorts it, rows at the last value again, none before."""
    database.run(
        f"CREATE TABLE t (id integer, k {kind})",
        f"INSERT INTO t SELECT seq, {KEYS[kind]} FROM seq_0_to_4 ORDER BY seq DESC",
    )
    catalog = database.incremental("k")
    first = database.sync(catalog=catalog)
    assert [r["id"] for r in first.records()] == [0, 1, 2, 3, 4]
    bookmark = first.state["bookmarks"][database.stream("t")]
    assert bookmark["replication_key"] == "k"
    assert bookmark["replication_key_value"] in {first.records()[-1]["k"], str(first.records()[-1]["k"])}
    database.run(f"INSERT INTO t SELECT seq, {KEYS[kind]} FROM seq_5_to_6 ORDER BY seq DESC")
    again = database.sync(first.state, catalog)
    assert [r["id"] for r in again.records()] == [4, 5, 6]


def test_a_key_of_text_dates_goes_on(database: Any) -> None:
    """With `dates_as_string` the bookmark is the server's own text, zero dates too."""
    database.run(
        "CREATE TABLE t (id integer, k datetime(3))",
        "SET SESSION sql_mode = ''",
        "INSERT INTO t VALUES (1, '0000-00-00'), (2, '2024-02-00 10:00'), (3, '2024-02-29 10:00:00.125')",
    )
    database.settings["dates_as_string"] = True
    catalog = database.incremental("k")
    first = database.sync(catalog=catalog)
    assert [r["id"] for r in first.records()] == [1, 2, 3]
    assert [r["id"] for r in database.sync(first.state, catalog).records()] == [3]


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
        ({"replication_method": "INCREMENTAL"}, "INCREMENTAL, but it has no replication key"),
        ({"replication_method": "INCREMENTAL", "replication_key": "f"}, '"f" is neither an integer'),
        ({"replication_method": "INCREMENTAL", "replication_key": "j"}, '"j" is neither an integer'),
        ({"replication_method": "INCREMENTAL", "replication_key": "e"}, '"e" is of a type whose values a STATE'),
        ({"replication_method": "INCREMENTAL", "replication_key": "nope"}, '"nope" is no column'),
    ],
)
def test_a_method_or_key_that_cannot_work_is_an_error(database: Any, entry: Any, message: str) -> None:
    """Before anything is read. An enum is sorted by number, and compared as text."""
    database.run("CREATE TABLE t (id integer, f double, j json, e enum('b', 'a'))")
    catalog = database.catalog()
    catalog["streams"][0] |= entry
    with pytest.raises(CatalogError, match=message):
        database.sync(catalog=catalog)


def test_all_streams_see_one_snapshot(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are committed between two streams are not seen in the second."""
    database.run("CREATE TABLE a (n integer)", "CREATE TABLE b (n integer)", "INSERT INTO a VALUES (1)")
    read = Server.batches

    def reading(self: Server, sql: str, stream: str) -> Iterator[Any]:
        yield from read(self, sql, stream)
        database.run("INSERT INTO a VALUES (2)", "INSERT INTO b VALUES (2)")

    monkeypatch.setattr(Server, "batches", reading)
    output = database.sync()
    assert output.records(database.stream("a")) == [{"n": 1}]
    assert output.records(database.stream("b")) == []


def test_a_table_that_was_read_can_be_altered(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on with others: its transaction holds no lock on what it has read."""
    database.run("CREATE TABLE a (n integer)", "CREATE TABLE b (n integer)", "INSERT INTO a VALUES (1)")
    read = Server.batches

    def reading(self: Server, sql: str, stream: str) -> Iterator[Any]:
        yield from read(self, sql, stream)
        if stream == database.stream("a"):
            database.run("SET SESSION lock_wait_timeout = 1", "ALTER TABLE a ADD more integer")

    monkeypatch.setattr(Server, "batches", reading)
    assert database.sync().records(database.stream("a")) == [{"n": 1}]
    monkeypatch.undo()
    assert list(database.sync().records(database.stream("a"))[0]) == ["n", "more"]


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
    assert output.state["bookmarks"][database.stream("big")]["resume_after"] is None


def test_a_dropped_connection_fails_a_read_without_an_order(database: Any, dropped: list[int]) -> None:
    """No row can be told from those that were sent, so the run fails, and says so."""
    database.run(*BIG)
    with pytest.raises(ConnectionLost, match=r'-big", MySQL: .*Run it again'):
        database.sync()
    assert sum(dropped) < ROWS


def test_a_run_that_was_cut_short_goes_on_within_the_table(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From each STATE on, with `resume_full_table`: the rest, and nothing twice; after the end, all of it again."""
    monkeypatch.setattr(ArrowStream, "STATE_MSG_FREQUENCY", 1)
    database.run(*BIG)
    messages = database.sync(resume_full_table=True, max_rows_per_batch=25_000).messages
    states = [i for i, m in enumerate(messages) if m["type"] == "STATE"]
    assert len(states) > 3
    for cut in states[::5] + states[-1:]:
        settled = [m["record"]["id"] for m in messages[:cut] if m["type"] == "RECORD"]
        rest = [r["id"] for r in database.sync(messages[cut]["value"], resume_full_table=True).records()]
        if cut == states[-1]:
            assert rest == list(range(1, ROWS + 1))
        else:
            assert settled + rest == list(range(1, ROWS + 1))


def test_a_key_of_several_columns_resumes(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the key's order, which is not the table's; texts with quotes and bytes among the values."""
    monkeypatch.setattr(ArrowStream, "STATE_MSG_FREQUENCY", 1)
    database.run(
        "CREATE TABLE t (a integer, b varchar(90) COLLATE utf8mb4_bin, c binary(4), PRIMARY KEY (b, c, a))",
        "INSERT INTO t SELECT seq % 3, CONCAT(repeat('it''s \\\\', 9), seq DIV 30), "
        "unhex(lpad(hex(4294967295 - seq DIV 3), 8, '0')) FROM seq_0_to_29999",
    )
    messages = database.sync(resume_full_table=True, max_rows_per_batch=7_000).messages
    keys = [tuple(m["record"][name] for name in "bca") for m in messages if m["type"] == "RECORD"]
    assert len(set(keys)) == 30_000
    cut = [i for i, m in enumerate(messages) if m["type"] == "STATE"][1]
    assert messages[cut]["value"]["bookmarks"][database.stream("t")]["resume_after"]
    settled = [tuple(m["record"][name] for name in "bca") for m in messages[:cut] if m["type"] == "RECORD"]
    rest = database.sync(messages[cut]["value"], resume_full_table=True).records()
    assert settled + [tuple(r[name] for name in "bca") for r in rest] == keys


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
    database.run("CREATE TABLE t AS SELECT seq AS i FROM seq_1_to_100", "CREATE VIEW v AS SELECT * FROM t")
    output = database.sync(max_record_count=7)
    assert [len(output.records(database.stream(name))) for name in "tv"] == [7, 7]


def test_a_query_that_the_server_cancels_is_an_error(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not tried again: it would be cancelled again."""
    database.run(*BIG)
    read = Server.batches

    def reading(self: Server, sql: str, stream: str) -> Iterator[Any]:
        batches = read(self, sql, stream)
        yield next(batches)
        [(number,)] = database.rows(
            "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> connection_id()", database.name
        )
        database.run(f"KILL QUERY {number}")
        yield from batches

    monkeypatch.setattr(Server, "batches", reading)
    with pytest.raises(DatabaseError, match=r"the server cancelled the query.* \(error 1317\)") as raised:
        database.sync()
    assert not isinstance(raised.value, ConnectionLost)


def test_a_signal_ends_a_read_that_waits(database: Any) -> None:
    """SIGTERM is heard while the server works: exit code 143, and its query is cancelled there."""
    database.run("CREATE TABLE t (id integer)", "INSERT INTO t VALUES (1)")
    database.run("CREATE VIEW slow AS SELECT sleep(600) AS v FROM t")
    catalog = database.catalog()
    catalog["streams"] = [s for s in catalog["streams"] if s["stream"] == database.stream("slow")]
    path = database.folder / "catalog.json"
    path.write_text(json.dumps(catalog), encoding="utf-8")
    process = subprocess.Popen(
        database.command(database.config(), "--catalog", str(path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert '"SCHEMA"' in process.stdout.readline()
    running = "SELECT count(*) FROM information_schema.processlist WHERE db = %s AND info LIKE '%%melisma_source%%'"
    running += " AND id <> connection_id()"
    waiting = threading.Event()
    while database.rows(running, database.name) == [(0,)]:
        assert process.poll() is None
        waiting.wait(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Traceback" not in errors
    while database.rows(running, database.name) != [(0,)]:
        waiting.wait(0.05)


def test_into_a_lake_resumed_and_with_new_rows(database: Any, tmp_path: Path) -> None:
    """tap-mysql into target-parquet with its committed STATE: what PyMySQL sees is what DuckDB reads."""
    target = tmp_path / "target.json"
    target.write_text(json.dumps({"destination_path": str(tmp_path / "lake")}), encoding="utf-8")
    executable = [str(Path(sys.executable).parent / "target-parquet"), "--config", str(target)]
    database.run(
        "CREATE TABLE t (id integer PRIMARY KEY, changed datetime(3), total decimal(12,2), large bigint unsigned, "
        "raw varbinary(9), e enum('a', 'b'), j json)",
        "INSERT INTO t SELECT seq, TIMESTAMP '2024-01-01 00:00:00' + INTERVAL seq DIV 10 HOUR, seq / 4, "
        "18446744073709551615 - seq, unhex(lpad(hex(seq), 8, '0')), 1 + seq % 2, json_object('i', seq) "
        "FROM seq_1_to_1000",
    )
    (tmp_path / "catalog.json").write_text(json.dumps(database.incremental("changed")), encoding="utf-8")
    more = (
        "INSERT INTO t (id, changed, total) SELECT 2000 + seq, latest, 7 FROM seq_1_to_5, "
        "(SELECT max(changed) AS latest FROM t) AS l"
    )
    landed = "id, epoch(changed)::bigint, total::varchar, large::varchar, hex(raw), e, j"
    columns = "id, unix_timestamp(changed), CAST(total AS CHAR), CAST(large AS CHAR), hex(raw), CAST(e AS CHAR), j"
    for statement in ("SELECT 1", more):
        database.run(statement)
        for _ in range(2):
            state = subprocess.run([*executable, "--committed-state"], check=True, capture_output=True).stdout
            (tmp_path / "state.json").write_bytes(state)
            arguments = ["--catalog", str(tmp_path / "catalog.json"), "--state", str(tmp_path / "state.json")]
            done = subprocess.run(database.command(database.config(), *arguments), check=True, capture_output=True)
            subprocess.run(executable, input=done.stdout, check=True, capture_output=True)
        files = str(tmp_path / "lake" / database.stream("t") / "*.parquet")
        found = duckdb.sql(f"SELECT {landed} FROM read_parquet('{files}') ORDER BY id").fetchall()
        with database.connect(init_command="SET time_zone = '+00:00'") as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT {columns} FROM t ORDER BY id")
            expected = [tuple(int(v) if i == 1 else v for i, v in enumerate(row)) for row in cursor.fetchall()]
        assert found == expected
