"""The slot, the publication and the connection of LOG_BASED: what is made, what is refused, and what is never lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from melisma.errors import CatalogError, ConfigError, MelismaError
from melisma_tap_postgres.pgoutput import lsn_number
from melisma_tap_postgres.slot import SlotConnection

LOG = {"default_replication_method": "LOG_BASED"}


def slot(database: Any) -> tuple[int, int]:
    """How far the slot was confirmed, and from where the server keeps its log."""
    sql = "SELECT confirmed_flush_lsn::text, restart_lsn::text FROM pg_replication_slots WHERE slot_name = %s"
    with database.connect() as connection:
        [(confirmed, kept)] = connection.execute(sql, [database.name]).fetchall()
    return lsn_number(confirmed), lsn_number(kept)


def until_free(database: Any) -> None:
    """Wait until the server has noticed that the last run is gone: its end of the connection holds the slot so long."""
    deadline = time.monotonic() + 60
    while database.rows("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", database.name):
        assert time.monotonic() < deadline, "the slot is still in use"
        time.sleep(0.05)


def position(state: dict[str, Any], stream: str = "public-t") -> int:
    """A stream's position in a STATE."""
    return lsn_number(state["bookmarks"][stream]["log_position"])


def ids(output: Any, stream: str = "public-t") -> list[int]:
    """The keys of a stream's records."""
    return [record["id"] for record in output.records(stream)]


@pytest.fixture
def table(database: Any) -> Any:
    """A database with a table of one row."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY, v text)", "INSERT INTO t VALUES (1)")
    return database


def test_the_slot_goes_no_further_than_the_state_that_the_run_was_given(table: Any) -> None:
    """Not to what was read, however often: until a STATE comes back, the server keeps it, and gives it again."""
    first = table.sync(**LOG)
    made, _ = slot(table)
    table.run("INSERT INTO t VALUES (2)")
    outputs = [table.sync(first.state, **LOG) for _ in range(3)]
    assert [ids(output) for output in outputs] == [[2]] * 3
    assert slot(table)[0] == position(first.state) >= made  # more where others write on the server meanwhile
    assert ids(table.sync(outputs[0].state, **LOG)) == []
    assert slot(table)[0] == position(outputs[0].state) > made


def test_a_run_without_changes_moves_on(table: Any) -> None:
    """To where the server was: so an idle database does not make it keep its log for ever."""
    state = table.sync(**LOG).state
    other = f"{table.name}_other"
    with table.connect() as connection:
        connection.execute(f"CREATE DATABASE {other}")
    try:
        kept = [slot(table)[1]]
        for _ in range(4):
            with psycopg.connect(**table.address, dbname=other, autocommit=True) as connection:
                connection.execute("CREATE TABLE noise AS SELECT generate_series(1, 1000)")
                connection.execute("DROP TABLE noise")
                connection.execute("CHECKPOINT")  # it tells the log which transactions run
            before, state = position(state), table.sync(state, **LOG).state
            assert position(state) > before
            kept.append(slot(table)[1])
        assert kept[-1] > kept[0]
    finally:
        with table.connect() as connection:
            connection.execute(f"DROP DATABASE {other}")


def test_a_slot_ahead_of_the_state_is_an_error(table: Any) -> None:
    """An older state would leave out what the slot has forgotten; the message says what happened and the way out."""
    old = table.sync(**LOG).state
    table.run("INSERT INTO t VALUES (2)")
    new = table.sync(old, **LOG).state
    table.sync(new, **LOG)
    with pytest.raises(
        MelismaError, match=r'"public-t": slot .* is ahead of the state: .* take its bookmark out'
    ) as found:
        table.sync(old, **LOG)
    assert found.value.exit_code == 2
    del old["bookmarks"]["public-t"]
    assert ids(table.sync(old, **LOG)) == [1, 2]


def test_a_stream_that_was_left_out_for_a_time_is_an_error(database: Any) -> None:
    """The others have moved the slot; its own changes are gone."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY)", "CREATE TABLE u (id integer PRIMARY KEY)")
    state = database.sync(**LOG).state
    alone = database.log_based("public-t")
    for n in range(3):
        database.run(f"INSERT INTO t VALUES ({n})")
        state = database.sync(state, alone).state
    with pytest.raises(MelismaError, match=r'"public-u": slot .* is ahead of the state'):
        database.sync(state, **LOG)


def test_a_slot_that_is_gone_is_an_error(table: Any) -> None:
    """With a position in the state; the message names the way out."""
    state = table.sync(**LOG).state
    until_free(table)
    table.run(f"SELECT pg_drop_replication_slot('{table.name}')")
    with pytest.raises(ConfigError, match="a slot that is not there, but the state has a position"):
        table.sync(state, **LOG)
    assert ids(table.sync(**LOG)) == [1]


def test_a_state_ahead_of_the_servers_log_is_an_error(table: Any) -> None:
    """A server that was restored would send nothing until its log comes there again."""
    state = table.sync(**LOG).state
    state["bookmarks"]["public-t"]["log_position"] = "FFFF/0"
    with pytest.raises(ConfigError, match='"state": is ahead of the server\'s log in stream "public-t"'):
        table.sync(state, **LOG)


def test_a_slot_of_another_kind_is_refused(table: Any) -> None:
    """It is somebody else's."""
    table.run(f"SELECT pg_create_physical_replication_slot('{table.name}')")
    try:
        with pytest.raises(ConfigError, match="a slot of another kind, or of another database"):
            table.sync(**LOG)
    finally:
        table.run(f"SELECT pg_drop_replication_slot('{table.name}')")


def test_a_slot_that_is_in_use_is_an_error(table: Any) -> None:
    """After some tries: the process of a run that died may be about to end."""
    state = table.sync(**LOG).state
    until_free(table)
    other = SlotConnection(table.config())
    try:
        other.start(table.name, position(state), "melisma")
        with pytest.raises(MelismaError, match=r"slot is in use \(SQLSTATE 55006\)\. Is another run"):
            table.sync(state, **LOG, connect_retries=1)
    finally:
        other.close()


def test_a_user_without_the_right_to_the_log_is_told_so(table: Any) -> None:
    """And how to get it."""
    role = f"{table.name}_reader"
    reader = {**LOG, "user": role, "password": role}
    table.run(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'", f"GRANT SELECT ON t TO {role}")
    try:
        with pytest.raises(ConfigError, match=r"may not read the log. .* ALTER ROLE .* REPLICATION"):
            table.sync(**reader)
        table.run(f"ALTER ROLE {role} REPLICATION")
        with pytest.raises(ConfigError, match=r'owner run: CREATE PUBLICATION "melisma" FOR TABLE "public"."t" WITH'):
            table.sync(**reader)
        table.run("CREATE PUBLICATION melisma FOR ALL TABLES WITH (publish_via_partition_root = true)")
        state = table.sync(**reader).state
        table.run("INSERT INTO t VALUES (2)")
        assert ids(table.sync(state, **reader)) == [2]
    finally:
        table.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["CREATE TABLE u (id integer)"], "replica identity does not have .* REPLICA IDENTITY FULL"),
        (
            ["CREATE TABLE u (id integer PRIMARY KEY)", "ALTER TABLE u REPLICA IDENTITY NOTHING"],
            "no delete could be told",
        ),
        (["CREATE UNLOGGED TABLE u (id integer PRIMARY KEY)"], "is an unlogged table"),
        (
            ["CREATE TABLE u (id integer PRIMARY KEY)", "CREATE TABLE c (PRIMARY KEY (id)) INHERITS (u)"],
            "tables inherit from its table",
        ),
        (["CREATE VIEW u AS SELECT * FROM t"], "is no table"),
        (["CREATE TABLE u (id integer PRIMARY KEY, g integer GENERATED ALWAYS AS (id) STORED)"], '"g" is generated'),
    ],
)
def test_a_table_that_cannot_be_followed_is_refused(table: Any, statements: list[str], message: str) -> None:
    """Before anything is written, and before a publication would make its owner's updates fail."""
    table.run(*statements)
    with pytest.raises(CatalogError, match=f'stream "public-u": .*{message}'):
        table.sync(**LOG)
    with table.connect() as connection:
        assert connection.execute("SELECT 1 FROM pg_publication").fetchall() == []


@pytest.mark.parametrize(
    ("publication", "message"),
    [
        ("FOR ALL TABLES WITH (publish = 'insert, update')", "does not publish every delete"),
        ("FOR TABLE part, t (id) WITH (publish_via_partition_root = true)", 'does not have its column "v"'),
        ("FOR TABLE part", "has the changes of its partitions, and not as the table's"),
    ],
)
def test_a_publication_that_leaves_something_out_is_refused(table: Any, publication: str, message: str) -> None:
    """Its changes would be missing in silence."""
    table.run(
        "CREATE TABLE part (id integer PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (1) TO (9)",
        f"CREATE PUBLICATION melisma {publication}",
    )
    with pytest.raises(MelismaError, match=message):
        table.sync(**LOG)


def test_a_table_that_left_the_publication_is_an_error(table: Any) -> None:
    """What happened meanwhile is not in the log."""
    state = table.sync(**LOG).state
    table.run("DROP PUBLICATION melisma")
    with pytest.raises(CatalogError, match='not in the publication "melisma", so its changes since the last run'):
        table.sync(state, **LOG)


@pytest.mark.parametrize("every", [1, 7, 50])
def test_a_connection_that_drops_goes_on_where_it_was(table: Any, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also within a transaction, again and again: each change is sent once, in order."""
    state = table.sync(**LOG).state
    with table.connect() as connection:
        for first in (100, 200, 300):
            with connection.transaction():
                for key in range(first, first + 20):
                    connection.execute("INSERT INTO t VALUES (%s)", [key])
    messages = SlotConnection.messages

    def dropping(self: SlotConnection) -> Iterator[Any]:
        for number, message in enumerate(messages(self)):
            if number == 30 + every:
                with table.connect() as other:
                    other.execute("SELECT pg_terminate_backend(%s)", [self.process])
            yield message

    monkeypatch.setattr(SlotConnection, "messages", dropping)
    monkeypatch.setattr("melisma_tap_postgres.server.Server.pause", lambda *_: None)
    output = table.sync(state, **LOG)
    assert ids(output) == [key for first in (100, 200, 300) for key in range(first, first + 20)]


def test_a_connection_that_cannot_be_made_again_fails_and_loses_nothing(
    table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run sends what the last STATE does not cover."""
    state = table.sync(**LOG).state
    table.run("INSERT INTO t VALUES (2)")
    start = SlotConnection.start

    def dying(self: SlotConnection, *where: Any) -> None:
        start(self, *where)
        self.close()

    with monkeypatch.context() as patch:
        patch.setattr(SlotConnection, "start", dying)
        patch.setattr("melisma_tap_postgres.server.Server.pause", lambda *_: None)
        with pytest.raises(MelismaError, match="connection") as found:
            table.sync(state, **LOG)
    assert found.value.exit_code == 1
    assert ids(table.sync(state, **LOG)) == [2]


def test_a_position_of_another_kind_is_an_error(table: Any) -> None:
    """Of another database, say."""
    with pytest.raises(ConfigError, match="no position of PostgreSQL's log"):
        table.sync({"bookmarks": {"public-t": {"log_position": 17}}}, **LOG)


def test_a_limit_of_records_is_refused(table: Any) -> None:
    """The first read would count as whole."""
    with pytest.raises(ConfigError, match='"max_record_count": cannot go with LOG_BASED'):
        table.sync(**LOG, max_record_count=1)


def test_a_trial_reads_the_table_and_leaves_the_server_as_it_is(table: Any) -> None:
    """`--test` makes neither slot nor publication."""
    done = table.execute(table.config(**LOG), "--test")
    assert done.returncode == 0, done.stderr
    with table.connect() as connection:
        assert connection.execute("SELECT 1 FROM pg_publication").fetchall() == []
        assert (
            connection.execute("SELECT 1 FROM pg_replication_slots WHERE database = %s", [table.name]).fetchall() == []
        )
