"""LOG_BASED on a real server: a snapshot, then the log, without a gap and without a row twice."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from melisma.errors import BadRecord, DatabaseError
from melisma_tap_postgres.server import Server

from .test_types import GOLDEN, VALUES, as_written, fill

LOG = {"default_replication_method": "LOG_BASED"}


def rows(output: Any, stream: str = "public-t") -> list[tuple[Any, ...]]:
    """A stream's records: the table's columns, and whether they say that the row is gone."""
    return [
        (
            *(value for name, value in record.items() if not name.startswith("_sdc_")),
            record["_sdc_deleted_at"] is not None,
        )
        for record in output.records(stream)
    ]


def test_a_table_is_read_whole_and_then_by_the_log(database: Any) -> None:
    """Inserts, updates and deletes come in order; what is known is not sent again."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    first = database.sync(**LOG)
    assert rows(first) == [(1, "a", False), (2, "b", False)]
    database.run("INSERT INTO t VALUES (3, 'c')", "UPDATE t SET v = 'A' WHERE id = 1", "DELETE FROM t WHERE id = 2")
    second = database.sync(first.state, **LOG)
    assert rows(second) == [(3, "c", False), (1, "A", False), (2, None, True)]
    order = [(r["_sdc_lsn"], r["_sdc_lsn_sequence"]) for r in [*first.records()[:1], *second.records()]]
    assert order == sorted(set(order))
    assert database.sync(second.state, **LOG).records() == []


def test_the_logs_values_are_those_of_the_table(database: Any) -> None:
    """For every type of the golden: what comes from the log is what comes from the table, and stands in the golden."""
    fill(database)
    first = database.sync(**LOG)
    for number in range(len(VALUES)):
        database.run(f"INSERT INTO t{number:03} SELECT place + 100, v FROM t{number:03}")
    second = database.sync(first.state, **LOG)
    lines = []
    for number, (kind, values) in enumerate(VALUES.items()):
        stream = f"public-t{number:03}"
        found = {record["place"]: record["v"] for record in [*first.records(stream), *second.records(stream)]}
        places = range(len(values) + 1)
        assert [found[place + 100] for place in places] == [found[place] for place in places], kind
        lines.append(f"{kind}\n    {json.dumps(second.properties(stream)['v'])}")
        written = zip([*values, "NULL"], places, strict=True)
        lines += [f"    {value} -> {as_written(found[place + 100])}" for value, place in written]
    assert "\n".join(lines) + "\n" == GOLDEN.read_text(encoding="utf-8")


def test_each_type_comes_as_text_where_the_catalog_says_so(database: Any) -> None:
    """As from the table: the text that PostgreSQL casts the value to."""
    fill(database)
    catalog = database.log_based()
    for entry in catalog["streams"]:
        entry["schema"]["properties"]["v"] = {"type": ["string", "null"]}
    first = database.sync(catalog=catalog)
    for number in range(len(VALUES)):
        database.run(f"INSERT INTO t{number:03} SELECT place + 100, v FROM t{number:03}")
    second = database.sync(first.state, catalog)
    for number, kind in enumerate(VALUES):
        stream = f"public-t{number:03}"
        table, log = ({r["place"] % 100: r["v"] for r in each.records(stream)} for each in (first, second))
        assert log == table, kind


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("date", "'infinity'"),
        ("date", "'0044-03-15 BC'"),
        ("timestamp", "'-infinity'"),
        ("timestamptz", "'294276-12-31 23:59:59+00'"),
        ("timestamptz", "'0044-03-15 10:00+00 BC'"),
    ],
)
def test_a_date_that_json_cannot_say_is_an_error_or_text(database: Any, kind: str, value: str) -> None:
    """The same as from the table."""
    database.run(f"CREATE TABLE t (id integer PRIMARY KEY, v {kind}, w {kind}[])")
    state = database.sync(**LOG).state
    database.run(f"INSERT INTO t VALUES (1, '2024-01-01', NULL), (2, {value}, NULL), (3, NULL, ARRAY[{value}::{kind}])")
    with pytest.raises(BadRecord, match=r'stream "public-t", column "v": .* dates_as_string to true'):
        database.sync(state, **LOG)
    records = database.sync(state, **LOG, dates_as_string=True).records()
    with database.connect(options="-c TimeZone=UTC") as connection:
        expected = connection.execute("SELECT v::text, w::text[] FROM t ORDER BY id").fetchall()
    assert [(record["v"], record["w"]) for record in records] == expected


def test_a_midnight_and_a_nested_array_are_the_errors_that_they_are_from_the_table(database: Any) -> None:
    """No form in JSON, and more dimensions than the type says."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY, v time)", "CREATE TABLE u (id integer PRIMARY KEY, v int[])")
    state = database.sync(**LOG).state
    database.run("INSERT INTO u VALUES (1, '{1}'), (2, '{{1,2},{3,4}}')")
    with pytest.raises(BadRecord, match='stream "public-u": an array has more than one dimension'):
        database.sync(state, **LOG)
    catalog = database.log_based("public-t")
    database.run("INSERT INTO t VALUES (1, '23:59:59.5'), (2, '24:00')")
    with pytest.raises(BadRecord, match='column "v": a time of day is not before 24:00:00'):
        database.sync(state, catalog)


def test_not_a_number_is_null_and_warned_of(database: Any, caplog: pytest.LogCaptureFixture) -> None:
    """In numerics as in floats."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY, f float8, n numeric, d numeric(5,2))")
    state = database.sync(**LOG).state
    database.run("INSERT INTO t VALUES (1, 'NaN', 'NaN', 'NaN')")
    assert rows(database.sync(state, **LOG)) == [(1, None, None, None, False)]
    assert caplog.text.count("1 values that JSON has no number for") == 3


def test_a_key_that_changes_is_a_delete_and_an_insert(database: Any) -> None:
    """In this order, and with different places in the order columns."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a')")
    state = database.sync(**LOG).state
    database.run("UPDATE t SET id = 2")
    output = database.sync(state, **LOG)
    assert rows(output) == [(1, None, True), (2, "a", False)]
    assert len({record["_sdc_lsn_sequence"] for record in output.records()}) == 2


def test_a_large_value_that_an_update_left_alone_is_looked_up(database: Any) -> None:
    """The log does not have it. It is never null; a row that is gone since is left out until its delete comes."""
    big = "repeat(md5(random()::text), 300)"
    database.run(
        "CREATE TABLE t (id integer PRIMARY KEY, n integer, big text, bigs text[])",
        "ALTER TABLE t ALTER big SET STORAGE EXTERNAL, ALTER bigs SET STORAGE EXTERNAL",
        f"INSERT INTO t SELECT i, 0, {big}, ARRAY[{big}, NULL] FROM generate_series(1, 4) i",
    )
    first = database.sync(**LOG)
    database.run("UPDATE t SET n = 1", "UPDATE t SET id = 30 WHERE id = 3", "DELETE FROM t WHERE id = 4")
    output = database.sync(first.state, **LOG)
    with database.connect() as connection:
        there = {row[0]: row[2:] for row in connection.execute("SELECT * FROM t")}
    live = [record for record in output.records() if record["_sdc_deleted_at"] is None]
    assert [record["id"] for record in live] == [1, 2, 30]
    assert {record["id"]: (record["big"], record["bigs"]) for record in live} == there
    assert [r["id"] for r in output.records() if r["_sdc_deleted_at"]] == [3, 4]


def test_with_a_full_replica_identity_large_values_and_deleted_rows_are_whole(database: Any) -> None:
    """Nothing is looked up, and a delete has all columns; a table without a key can be followed."""
    database.run(
        "CREATE TABLE t (id integer, n integer, big text)",
        "ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
        "ALTER TABLE t REPLICA IDENTITY FULL",
        "INSERT INTO t VALUES (1, 0, repeat('x', 9000)), (2, 0, repeat('y', 9000))",
    )
    state = database.sync(**LOG).state
    database.run("UPDATE t SET n = 1 WHERE id = 1", "DELETE FROM t WHERE id = 1", "DELETE FROM t")
    assert rows(database.sync(state, **LOG)) == [
        (1, 1, "x" * 9000, False),
        (1, 1, "x" * 9000, True),
        (2, 0, "y" * 9000, True),
    ]


def test_several_tables_come_through_one_slot_in_one_run(database: Any) -> None:
    """With one position; a transaction over both is in one STATE or in none."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY)", "CREATE TABLE u (id integer PRIMARY KEY)")
    state = database.sync(**LOG).state
    with database.connect() as connection, connection.transaction():
        connection.execute("INSERT INTO t SELECT generate_series(1, 3)")
        connection.execute("INSERT INTO u SELECT generate_series(1, 2)")
        connection.execute("INSERT INTO t VALUES (4)")
    output = database.sync(state, **LOG)
    assert rows(output) == [(1, False), (2, False), (3, False), (4, False)]
    assert rows(output, "public-u") == [(1, False), (2, False)]
    assert len({record["_sdc_lsn"] for record in output.records()}) == 1
    assert len({each["log_position"] for each in output.state["bookmarks"].values()}) == 1
    with database.connect() as connection:
        assert connection.execute(
            "SELECT count(*) FROM pg_replication_slots WHERE database = %s", [database.name]
        ).fetchall() == [(1,)]


def test_what_is_rolled_back_is_not_sent(database: Any) -> None:
    """Nor a savepoint's."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY)")
    state = database.sync(**LOG).state
    with database.connect() as connection:
        with contextlib.suppress(ZeroDivisionError), connection.transaction():
            connection.execute("INSERT INTO t VALUES (1)")
            raise ZeroDivisionError
        with connection.transaction():
            connection.execute("INSERT INTO t VALUES (2)")
            with contextlib.suppress(ZeroDivisionError), connection.transaction():
                connection.execute("INSERT INTO t VALUES (3)")
                raise ZeroDivisionError
    assert rows(database.sync(state, **LOG)) == [(2, False)]


def test_a_transaction_that_is_open_during_the_run_comes_with_the_next(database: Any) -> None:
    """Its rows are before the bookmark in the log, and its commit behind it."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY)")
    state = database.sync(**LOG).state
    with database.connect() as other, other.transaction():
        other.execute("INSERT INTO t VALUES (1)")
        database.run("INSERT INTO t VALUES (2)")
        output = database.sync(state, **LOG)
        assert rows(output) == [(2, False)]
    assert rows(database.sync(output.state, **LOG)) == [(1, False)]


def test_the_snapshot_has_what_was_committed_before_it_and_the_log_the_rest(database: Any) -> None:
    """Rows that are written all the while, in transactions of every length, come once each, and none is missing."""
    database.run("CREATE TABLE t (id bigserial PRIMARY KEY, v integer)")
    stop = threading.Event()

    def write(width: int) -> None:
        with database.connect() as connection:
            while not stop.is_set():
                with connection.transaction():
                    for n in range(width):
                        connection.execute("INSERT INTO t (v) VALUES (%s)", [n])

    writers = [threading.Thread(target=write, args=(width,)) for width in (1, 3, 20)]
    for writer in writers:
        writer.start()
    try:
        outputs = [database.sync(**LOG)]
        for _ in range(3):
            outputs.append(database.sync(outputs[-1].state, **LOG))
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    outputs.append(database.sync(outputs[-1].state, **LOG))
    with database.connect() as connection:
        expected = [row[0] for row in connection.execute("SELECT id FROM t ORDER BY id")]
    assert len(expected) > 100
    assert sorted(record["id"] for output in outputs for record in output.records()) == expected


def test_a_connection_that_drops_before_a_first_row_goes_on_in_the_logs_snapshot(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is committed meanwhile comes by the log, and once: the new connection does not see it."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    read, ended = Server.batches, []

    def reading(self: Server, sql: str, stream: str) -> Iterator[pa.RecordBatch]:
        if not ended:
            ended.append(self.rows("SELECT pg_backend_pid() AS pid")[0]["pid"])
            database.run(f"SELECT pg_terminate_backend({ended[0]}, 60000)", "INSERT INTO t VALUES (2)")
        return read(self, sql, stream)

    monkeypatch.setattr(Server, "batches", reading)
    monkeypatch.setattr(Server, "pause", lambda *_: None)
    assert rows(database.sync(**LOG)) == [(1, False), (2, False)]
    assert ended


def test_a_stream_that_comes_later_gets_a_snapshot_of_its_own(database: Any) -> None:
    """Its table joins the publication; the older stream goes on by the log, and both come once."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    state = database.sync(**LOG).state
    database.run("CREATE TABLE u (id integer PRIMARY KEY)", "INSERT INTO u VALUES (1)", "INSERT INTO t VALUES (2)")
    output = database.sync(state, **LOG)
    assert rows(output) == [(2, False)]
    assert rows(output, "public-u") == [(1, False)]
    database.run("INSERT INTO u VALUES (2)", "INSERT INTO t VALUES (3)")
    last = database.sync(output.state, **LOG)
    assert rows(last) == [(3, False)]
    assert rows(last, "public-u") == [(2, False)]


def test_a_partitioned_table_is_one_stream(database: Any) -> None:
    """Changes of its partitions, also of one that came later, are its own; a row that moves is one row."""
    database.run(
        "CREATE TABLE t (id integer, part text, v integer, PRIMARY KEY (id, part)) PARTITION BY LIST (part)",
        "CREATE TABLE t_a PARTITION OF t FOR VALUES IN ('a')",
        "INSERT INTO t VALUES (1, 'a', 1)",
    )
    state = database.sync(**LOG).state
    database.run(
        "CREATE TABLE t_b PARTITION OF t FOR VALUES IN ('b')",
        "INSERT INTO t VALUES (2, 'b', 2)",
        "UPDATE t SET v = 3 WHERE id = 1",
        "UPDATE t SET part = 'b' WHERE id = 1",
    )
    assert rows(database.sync(state, **LOG)) == [
        (2, "b", 2, False),
        (1, "a", 3, False),
        (1, "a", None, True),
        (1, "b", 3, False),
    ]


def test_columns_come_and_go(database: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A new column is null in older changes, and said to be; one that is gone since is not sent."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY, old text)", "INSERT INTO t VALUES (1, 'a')")
    state = database.sync(**LOG).state
    database.run(
        "INSERT INTO t VALUES (2, 'b')",
        "ALTER TABLE t ADD new integer",
        "INSERT INTO t VALUES (3, 'c', 3)",
        "ALTER TABLE t DROP old",
        "INSERT INTO t VALUES (4, 4)",
    )
    output = database.sync(state, **LOG)
    assert rows(output) == [(2, None, False), (3, 3, False), (4, 4, False)]
    assert 'when its table had no column "new": it is null there' in caplog.text


def test_a_column_that_comes_within_the_run_has_a_new_schema(database: Any) -> None:
    """Without a catalog: the SCHEMA message comes before the first row that has it. With one it is left out."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY)")
    state, catalog = database.sync(**LOG).state, database.log_based()
    alter = ("INSERT INTO t VALUES (1)", "ALTER TABLE t ADD new integer", "INSERT INTO t VALUES (2, 2)")
    output = database.sync(state, before=lambda: database.run(*alter), **LOG)
    messages = [m for m in output.messages if m["type"] in {"SCHEMA", "RECORD"}]
    assert [m["type"] for m in messages] == ["SCHEMA", "RECORD", "SCHEMA", "RECORD"]
    assert "new" not in messages[0]["schema"]["properties"]
    assert list(messages[2]["schema"]["properties"])[:2] == ["id", "new"]
    assert messages[3]["record"]["new"] == 2
    chosen = database.sync(state, catalog)
    assert rows(chosen) == [(1, False), (2, False)]


def test_a_column_that_became_wider_goes_on_and_another_type_is_an_error(database: Any) -> None:
    """An integer is the same as a bigint. Another type has changed rows, and the log knows nothing of it."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY, v varchar(3), at timestamp)")
    state = database.sync(**LOG).state
    database.run("INSERT INTO t VALUES (1, 'a', '2024-01-01')", "ALTER TABLE t ALTER id TYPE bigint, ALTER v TYPE text")
    database.run("INSERT INTO t VALUES (3000000000, 'abcd', '2024-01-01')")
    output = database.sync(state, **LOG)
    assert [(r["id"], r["v"]) for r in output.records()] == [(1, "a"), (3000000000, "abcd")]
    database.run("INSERT INTO t VALUES (2)", "ALTER TABLE t ALTER at TYPE timestamptz")
    with pytest.raises(DatabaseError, match=r'column "at" was altered: .* take its bookmark out of the state'):
        database.sync(output.state, **LOG)


def test_a_truncated_table_is_a_new_version(database: Any) -> None:
    """With emit_activate_version_messages; the rows that follow bear it."""
    config = {**LOG, "emit_activate_version_messages": True}
    database.run("CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    first = database.sync(**config)
    database.run("INSERT INTO t VALUES (2)", "TRUNCATE t", "INSERT INTO t VALUES (3)")
    messages = [m for m in database.sync(first.state, **config).messages if m["type"] in {"RECORD", "ACTIVATE_VERSION"}]
    assert [m["type"] for m in messages] == ["RECORD", "ACTIVATE_VERSION", "RECORD"]
    assert messages[0]["version"] < messages[1]["version"] == messages[2]["version"]
