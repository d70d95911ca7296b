"""Replication by the binary log: nothing lost, nothing twice, and the values that a query would give."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from melisma.errors import CatalogError, ConfigError, DatabaseError
from melisma.sql.remedy import ConnectionLost
from melisma.tap.stream import ArrowStream
from melisma_tap_mysql import binlog
from melisma_tap_mysql.binlog import BinaryLog
from melisma_tap_mysql.row_image import ImageReader
from melisma_tap_mysql.server import Server

from .conftest import at, execute
from .kinds import VALUES, fill, fill_rows

ORDER = ("_sdc_log_position", "_sdc_log_sequence", "_sdc_deleted_at")


def plain(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without the log's columns; a delete says so."""
    found = []
    for record in records:
        kept = {name: value for name, value in record.items() if name not in ORDER}
        found.append(kept | ({"gone": True} if record["_sdc_deleted_at"] else {}))
    return found


@pytest.fixture
def logged(database: Any) -> Any:
    """The database, read by its log."""
    database.settings["default_replication_method"] = "LOG_BASED"
    return database


def test_a_table_is_read_whole_once_and_then_by_the_log(logged: Any) -> None:
    """Inserts, updates, deletes and changed keys, in the order of the log."""
    logged.run("CREATE TABLE t (id integer PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'one'), (2, NULL)")
    first = logged.sync()
    assert plain(first.records()) == [{"id": 1, "v": "one"}, {"id": 2, "v": None}]
    assert logged.sync(first.state).records() == []
    logged.run(
        "INSERT INTO t VALUES (3, 'three')",
        "UPDATE t SET v = 'uno' WHERE id = 1",
        "DELETE FROM t WHERE id = 2",
        "UPDATE t SET id = 30 WHERE id = 3",
    )
    second = logged.sync(first.state)
    assert plain(second.records()) == [
        {"id": 3, "v": "three"},
        {"id": 1, "v": "uno"},
        {"id": 2, "v": None, "gone": True},
        {"id": 3, "v": None, "gone": True},
        {"id": 30, "v": "three"},
    ]
    orders = [(r["_sdc_log_position"], r["_sdc_log_sequence"]) for r in (*first.records()[:1], *second.records())]
    assert orders == sorted(set(orders))
    assert second.properties(logged.stream("t"))["_sdc_deleted_at"]["format"] == "date-time"
    assert logged.sync(second.state).records() == []


def test_the_log_gives_the_values_of_a_query_for_every_type(logged: Any) -> None:
    """The same rows, by a snapshot and by the log, are the same records; also as text and with dates as text."""
    fill(logged, rows=False)
    logged.run(
        "CREATE TABLE many (id integer PRIMARY KEY, u uuid, i inet6, d decimal(65,30), f float, g double, "
        "p point, t time(4), m timestamp(2) NULL, s set('a','b','c'), y year)"
    )
    before = logged.sync()
    with logged.connect() as connection, connection.cursor() as cursor:
        fill_rows(cursor)
        cursor.execute("SET SESSION sql_mode = 'NO_UNSIGNED_SUBTRACTION'")
        cursor.execute(
            "INSERT INTO many SELECT seq, uuid(), unhex(md5(seq)), (rand(seq) - 0.5) * pow(10, seq % 34), "
            "(rand(seq + 1) - 0.5) * pow(10, seq % 60 - 30), (rand(seq + 2) - 0.5) * pow(10, seq % 600 - 300), "
            "point(rand(seq + 3) * pow(10, seq % 40 - 20), -rand(seq + 4) * pow(10, seq % 20)), "
            "sec_to_time((rand(seq + 5) - 0.5) * 6000000), from_unixtime(rand(seq + 6) * 2e9), seq % 8, "
            "1901 + seq % 250 FROM seq_1_to_2000"
        )
        # Versions of UUIDs that the server keeps in another order.
        cursor.execute("UPDATE many SET u = concat(left(u, 14), hex(id % 16), substr(u, 16)) WHERE id <= 200")
        cursor.execute("UPDATE many SET u = concat(left(u, 19), hex(id DIV 16 % 16), substr(u, 21)) WHERE id <= 256")
        cursor.execute("UPDATE many SET i = concat('::', hex(id), ':', hex(id * 7)) WHERE id % 10 = 0")
        cursor.execute("UPDATE many SET i = concat('::ffff:10.0.', id % 256, '.1') WHERE id % 10 = 1")
    by_log, by_query = logged.sync(before.state), logged.sync()
    streams = [f"t{number:03}" for number in range(len(VALUES))] + ["many"]
    for stream, kind in zip(streams, [*VALUES, "many"], strict=True):
        last = {next(iter(r.values())): r for r in plain(by_log.records(logged.stream(stream)))}
        assert list(last.values()) == plain(by_query.records(logged.stream(stream))), kind
        assert last, kind
    # As text too, but for floats, which the log has no text of, and digits that only a query fills up with zeros.
    kinds = dict(zip(map(logged.stream, streams), [*VALUES, "double"], strict=True))
    texts = logged.catalog()
    texts["streams"] = [e for e in texts["streams"] if not re.search("float|double|zerofill", kinds[e["stream"]])]
    for entry in texts["streams"]:
        entry["schema"]["properties"]["v"] = {"type": ["string", "null"]}
    by_log, by_query = logged.sync(before.state, texts), logged.sync(None, texts)
    for entry in texts["streams"]:
        found = plain(by_log.records(entry["stream"]))
        assert found == plain(by_query.records(entry["stream"])), kinds[entry["stream"]]


def test_texts_of_every_character_set_are_what_the_server_says(logged: Any) -> None:
    """Character sets of one byte whole, those of several in examples."""
    single = [
        "latin1",
        "latin2",
        "cp1250",
        "cp1251",
        "cp1256",
        "cp1257",
        "cp850",
        "cp852",
        "cp866",
        "koi8r",
        "koi8u",
        "greek",
        "hebrew",
        "latin5",
        "latin7",
        "macroman",
        "macce",
        "geostd8",
        "armscii8",
        "tis620",
        "keybcs2",
        "dec8",
        "hp8",
        "swe7",
        "ascii",
    ]
    several = {
        "sjis": "日本カ",
        "cp932": "日本①",
        "ujis": "日本カ",
        "gbk": "中国龍",
        "gb2312": "中国",
        "big5": "中國",
        "euckr": "한국",
        "ucs2": "Zoë",
        "utf16": "Zoë 😀",
        "utf16le": "Zoë 😀",
        "utf32": "Zoë 😀",
        "utf8mb3": "Zoë €",
    }
    columns = ", ".join(f"{name} varchar(20) CHARACTER SET {name}" for name in [*single, *several])
    logged.run(f"CREATE TABLE t (id integer PRIMARY KEY, {columns})")
    state = logged.sync().state
    with logged.connect() as connection, connection.cursor() as cursor:
        for number in range(1, 256):
            # A byte that the set has no character for is a question mark.
            values = ", ".join(f"CONVERT(CHAR({number} USING {name}) USING utf8mb4)" for name in single)
            cursor.execute(f"INSERT IGNORE INTO t (id, {', '.join(single)}) SELECT {number}, {values}")
        texts = ", ".join(f"'{text}'" for text in several.values())
        cursor.execute(f"INSERT INTO t (id, {', '.join(several)}) VALUES (0, {texts})")
    by_log = {r["id"]: r for r in plain(logged.sync(state).records())}
    by_query = {r["id"]: r for r in plain(logged.sync().records())}
    differing = {name for n in by_query for name in by_query[n] if by_query[n][name] != by_log[n][name]}
    assert differing == set()
    assert {name: by_log[0][name] for name in several} == several


@pytest.mark.parametrize("is_mariadb", [True, False])
def test_nothing_falls_between_snapshot_and_log(logged: Any, monkeypatch: pytest.MonkeyPatch, is_mariadb: bool) -> None:
    """What is committed while the tables are read comes by the log of the same run or the next, once.

    Also in the way that MySQL takes, which does not say where in its log a snapshot lies.
    """
    monkeypatch.setattr(BinaryLog, "says_where_a_snapshot_lies", is_mariadb)
    logged.run("CREATE TABLE a (id integer PRIMARY KEY)", "CREATE TABLE b (id integer PRIMARY KEY)")
    logged.run("INSERT INTO a VALUES (1)")
    read = Server.batches

    def reading(self: Server, sql: str, stream: str) -> Iterator[Any]:
        yield from read(self, sql, stream)
        logged.run("INSERT INTO a SELECT max(id) + 1 FROM a", "INSERT INTO b SELECT count(*) + 1 FROM b")

    monkeypatch.setattr(Server, "batches", reading)
    first = logged.sync()
    monkeypatch.undo()
    second = logged.sync(first.state)
    for name in ("a", "b"):
        found = [r["id"] for output in (first, second) for r in output.records(logged.stream(name))]
        assert found == [row[0] for row in logged.rows(f"SELECT id FROM {name} ORDER BY id")]


def test_a_transaction_is_whole_or_not_there(logged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every STATE stands at a transaction's end: a run that starts from it sends what comes after it."""
    monkeypatch.setattr(ArrowStream, "STATE_MSG_FREQUENCY", 1)
    logged.run("CREATE TABLE t (id integer PRIMARY KEY, n integer, filler text)")
    state = logged.sync().state
    with logged.connect() as connection, connection.cursor() as cursor:
        connection.autocommit(False)
        for number in range(30):
            for row in range(5):
                cursor.execute(f"INSERT INTO t VALUES ({number * 5 + row}, {number}, repeat('x', 900))")
            connection.rollback() if number % 3 == 2 else connection.commit()
    messages = logged.sync(state).messages
    states = [i for i, m in enumerate(messages) if m["type"] == "STATE" and i > 2]
    assert len(states) > 5
    ids = [m["record"]["id"] for m in messages if m["type"] == "RECORD"]
    assert ids == [row[0] for row in logged.rows("SELECT id FROM t ORDER BY id")]
    for cut in states[::4]:
        settled = [m["record"]["id"] for m in messages[:cut] if m["type"] == "RECORD"]
        assert len(settled) % 5 == 0
        assert settled + [r["id"] for r in logged.sync(messages[cut]["value"]).records()] == ids


def test_columns_that_come_and_go(logged: Any) -> None:
    """Changes are read by the names in the log: what a row did not have is null, and what is gone is left out."""
    logged.run("CREATE TABLE t (a integer, id integer PRIMARY KEY, b text)")
    state = logged.sync().state
    logged.run(
        "INSERT INTO t VALUES (1, 1, 'x')",
        "ALTER TABLE t DROP a, ADD c integer FIRST",
        "INSERT INTO t VALUES (7, 2, 'y')",
        "ALTER TABLE t ADD d date AFTER c",
        "INSERT INTO t VALUES (8, '2024-02-29', 3, 'z')",
    )
    assert sorted((tuple(sorted(r.items(), key=str)) for r in plain(logged.sync(state).records())), key=str) == sorted(
        (
            tuple(sorted(r.items(), key=str))
            for r in [
                {"c": None, "d": None, "id": 1, "b": "x"},
                {"c": 7, "d": None, "id": 2, "b": "y"},
                {"c": 8, "d": "2024-02-29", "id": 3, "b": "z"},
            ]
        ),
        key=str,
    )


def test_a_column_that_had_another_type_is_an_error(logged: Any) -> None:
    """With the way out."""
    logged.run("CREATE TABLE t (id integer PRIMARY KEY, v integer)")
    state = logged.sync().state
    logged.run("INSERT INTO t VALUES (1, 1)", "ALTER TABLE t MODIFY v text")
    message = r'-t", MySQL: its column "v" had another type when the log was written.*bookmark out of the state'
    with pytest.raises(DatabaseError, match=message):
        logged.sync(state)
    state["bookmarks"].pop(logged.stream("t"))
    assert plain(logged.sync(state).records()) == [{"id": 1, "v": "1"}]


def test_a_truncated_table_is_another_version(logged: Any, caplog: pytest.LogCaptureFixture) -> None:
    """With versions; without, it is warned of."""
    logged.run("CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    first = logged.sync(emit_activate_version_messages=True)
    logged.run("INSERT INTO t VALUES (2)", "TRUNCATE TABLE t", "INSERT INTO t VALUES (3)")
    messages = logged.sync(first.state, emit_activate_version_messages=True).messages
    seen = [
        (m["type"], m["record"]["id"] if m["type"] == "RECORD" else None)
        for m in messages
        if m["type"] in {"RECORD", "ACTIVATE_VERSION"}
    ]
    assert seen[-3:] == [("RECORD", 2), ("ACTIVATE_VERSION", None), ("RECORD", 3)]
    assert [r["id"] for r in logged.sync(first.state).records()] == [2, 3]
    assert "its table was truncated" in caplog.text


def test_tables_without_a_key_and_with_hidden_columns(logged: Any) -> None:
    """A delete has the whole row; generated columns come as a query gives them."""
    logged.run(
        "CREATE TABLE t (n integer, v text, thrice integer AS (n * 3) STORED, hidden integer INVISIBLE DEFAULT 7)"
    )
    state = logged.sync().state
    logged.run("INSERT INTO t (n, v) VALUES (1, 'a')", "DELETE FROM t WHERE n = 1")
    row = {"n": 1, "v": "a", "thrice": 3, "hidden": 7}
    assert plain(logged.sync(state).records()) == [row, row | {"gone": True}]


def test_only_selected_columns_come(logged: Any) -> None:
    """Others are passed over, whatever their type."""
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(VALUES))
    logged.run(f"CREATE TABLE t ({columns}, id integer PRIMARY KEY)")
    catalog = logged.catalog()
    for entry in catalog["streams"][0]["metadata"]:
        entry["metadata"]["selected"] = entry["breadcrumb"] in ([], ["properties", "id"])
    state = logged.sync(catalog=catalog).state
    with logged.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = ''")
        cursor.execute(f"INSERT INTO t VALUES ({', '.join(values[0] for values in VALUES.values())}, 5)")
    assert plain(logged.sync(state, catalog).records()) == [{"id": 5}]


def test_a_view_has_no_log(logged: Any) -> None:
    """It is read whole where LOG_BASED is the default, and refused where the catalog asks for it."""
    logged.run("CREATE TABLE t (id integer PRIMARY KEY)", "CREATE VIEW v AS SELECT 1 AS one")
    catalog = logged.catalog()
    methods = {entry["stream"]: entry["replication_method"] for entry in catalog["streams"]}
    assert methods == {logged.stream("t"): "LOG_BASED", logged.stream("v"): "FULL_TABLE"}
    for entry in catalog["streams"]:
        entry["replication_method"] = "LOG_BASED"
    with pytest.raises(CatalogError, match='-v": it is a view, and cannot be replicated by LOG_BASED'):
        logged.sync(catalog=catalog)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"file": "log.000000"}, "the server has removed its log from the state's position on: changes are lost"),
        ({"place": 2**31}, "lies behind the end of the server's log"),
        ({"server": 77}, "is in another server's log: changes would be lost"),
    ],
)
def test_a_position_that_is_not_in_the_log_is_an_error(logged: Any, changed: Any, message: str) -> None:
    """Before anything is written, with the way out."""
    logged.run("CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    state = logged.sync().state
    state["bookmarks"][logged.stream("t")]["log_position"] |= changed
    with pytest.raises(DatabaseError, match=rf"{message}.*binlog_expire_logs_seconds"):
        logged.sync(state)
    state["bookmarks"].pop(logged.stream("t"))
    assert plain(logged.sync(state).records()) == [{"id": 1}]


def test_the_log_goes_on_in_another_file(logged: Any) -> None:
    """A position is compared by the file first."""
    logged.run("CREATE TABLE t (id integer PRIMARY KEY)")
    state = logged.sync().state
    logged.run("INSERT INTO t VALUES (1)", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (2)")
    again = logged.sync(state)
    assert plain(again.records()) == [{"id": 1}, {"id": 2}]
    orders = [r["_sdc_log_position"] for r in again.records()]
    assert orders == sorted(orders)
    assert logged.sync(again.state).records() == []


def test_an_idle_database_moves_on_with_the_log(own_server: Any) -> None:
    """The position is in the newest file after each run, so that older ones may be removed."""
    own_server.settings["default_replication_method"] = "LOG_BASED"
    own_server.run("CREATE TABLE t (id integer PRIMARY KEY)", "CREATE TABLE other (id integer PRIMARY KEY)")
    state = own_server.sync().state
    for number in range(3):
        own_server.run("FLUSH BINARY LOGS", *[f"INSERT INTO other VALUES ({number})"] * (number == 1))
        [*_, (last, size, *_)] = own_server.rows("SHOW BINARY LOGS")
        state = own_server.sync(state).state
        position = state["bookmarks"]["own-t"]["log_position"]
        assert position["file"] == last
        assert position["place"] >= size


def test_a_limit_of_records_is_refused(logged: Any) -> None:
    """What a limited first read leaves out would never come."""
    logged.run("CREATE TABLE t (id integer PRIMARY KEY)")
    with pytest.raises(ConfigError, match='"max_record_count": cannot go with LOG_BASED'):
        logged.sync(max_record_count=5)


def test_a_key_that_the_log_lacks_is_an_error(logged: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Another column that came later is null, and warned of."""
    logged.run("CREATE TABLE t (a integer PRIMARY KEY)")
    state = logged.sync().state
    logged.run("INSERT INTO t VALUES (1)", "ALTER TABLE t ADD b integer DEFAULT 7")
    assert plain(logged.sync(state).records()) == [{"a": 1, "b": None}]
    assert 'from when its table had no column "b": it is null there' in caplog.text
    logged.run("ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (a, b)")
    with pytest.raises(DatabaseError, match='had no column "b", which is of its key now'):
        logged.sync(state)


def test_a_log_that_the_server_removed_is_an_error(own_server: Any) -> None:
    """Purged, or begun anew: nothing is written, and the message says the way out, which works."""
    own_server.settings["default_replication_method"] = "LOG_BASED"
    own_server.run("CREATE TABLE t (id integer PRIMARY KEY)")
    state = own_server.sync().state
    own_server.run("INSERT INTO t VALUES (1)", "FLUSH BINARY LOGS")
    while len(files := own_server.rows("SHOW BINARY LOGS")) > 1:  # it keeps one until InnoDB does not need it
        own_server.run(f"PURGE BINARY LOGS TO '{files[-1][0]}'")
        time.sleep(0.05)
    path = own_server.folder / "state.json"
    path.write_text(json.dumps(state), encoding="utf-8")
    done = own_server.execute(own_server.config(), "--state", str(path))
    assert done.returncode == 1
    assert '"RECORD"' not in done.stdout
    assert 'stream "own-t", MySQL: the server has removed its log from the state' in done.stderr
    again = own_server.sync({"bookmarks": {}})
    assert plain(again.records()) == [{"id": 1}]
    own_server.run("INSERT INTO t VALUES (2)", "RESET MASTER")
    with pytest.raises(DatabaseError, match=r"changes are lost|which was begun anew"):
        own_server.sync(again.state)


@pytest.mark.parametrize(
    ("name", "value"), [("binlog_row_image", "MINIMAL"), ("binlog_row_metadata", "NO_LOG"), ("binlog_format", "MIXED")]
)
def test_a_server_that_logs_too_little_is_an_error(own_server: Any, name: str, value: str) -> None:
    """The message names the setting; what was logged before it was mended is an error too, not a guess."""
    own_server.settings["default_replication_method"] = "LOG_BASED"
    own_server.run("CREATE TABLE t (id integer PRIMARY KEY)")
    state = own_server.sync().state
    [(before,)] = own_server.rows(f"SELECT @@GLOBAL.{name}")
    own_server.run(f"SET GLOBAL {name} = '{value}'")
    own_server.run("INSERT INTO t VALUES (1)")
    with pytest.raises(DatabaseError, match=f"the server's {name} is {value}. Log-based replication needs {name} ="):
        own_server.sync(state)
    own_server.run(f"SET GLOBAL {name} = '{before}'")
    if name == "binlog_row_metadata":
        with pytest.raises(DatabaseError, match="the log has no names of columns where it stands"):
            own_server.sync(state)


def test_a_compressed_log_is_an_error(own_server: Any) -> None:
    """Its events cannot be read, and are not passed over."""
    own_server.settings["default_replication_method"] = "LOG_BASED"
    own_server.run("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    state = own_server.sync().state
    own_server.run("SET GLOBAL log_bin_compress = ON")
    own_server.run("INSERT INTO t VALUES (1, repeat('x', 5000))")
    with pytest.raises(DatabaseError, match=r"the log holds compressed events \(log_bin_compress\)"):
        own_server.sync(state)


def test_a_snapshot_that_is_lost_fails_the_run(logged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one would belong to another place in the log: rows would come twice."""
    logged.run("CREATE TABLE a (id integer PRIMARY KEY)", "CREATE TABLE b (id integer PRIMARY KEY)")
    read = Server.batches

    def reading(self: Server, sql: str, stream: str) -> Iterator[Any]:
        yield from read(self, sql, stream)
        for (number,) in logged.rows(
            "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> connection_id()", logged.name
        ):
            logged.run(f"KILL {number}")

    monkeypatch.setattr(Server, "batches", reading)
    catalog = logged.catalog()
    catalog["streams"][0]["replication_method"] = "FULL_TABLE"
    with pytest.raises(DatabaseError, match="Run it again"):
        logged.sync(catalog=catalog)


def test_a_change_that_is_logged_as_a_statement_is_an_error(logged: Any) -> None:
    """A session can turn the log by row off; its changes must not be passed over."""
    logged.run("CREATE TABLE t (id integer PRIMARY KEY)", "CREATE TABLE other (id integer PRIMARY KEY)")
    state = logged.sync().state
    state["bookmarks"].pop(logged.stream("other"))
    logged.run("SET SESSION binlog_format = 'STATEMENT'", "INSERT INTO t VALUES (1)")
    with pytest.raises(DatabaseError, match='-t", MySQL: the log has a change of it as a statement'):
        logged.sync(state)
    # A table of the same name in another database is another table.
    execute(logged.address, f"CREATE DATABASE {logged.name}_more", f"USE {logged.name}_more", "CREATE TABLE t (id int)")
    try:
        state = logged.sync().state
        execute(
            logged.address, f"USE {logged.name}_more", "SET binlog_format = 'STATEMENT'", "INSERT INTO t VALUES (1)"
        )
        assert logged.sync(state).records() == []
    finally:
        execute(logged.address, f"DROP DATABASE {logged.name}_more")


def test_a_foreign_key_that_acts_by_itself_is_warned_of(logged: Any, caplog: pytest.LogCaptureFixture) -> None:
    """InnoDB deletes the rows without a word in the log. If that ever changes, the warning can go."""
    logged.run(
        "CREATE TABLE p (id integer PRIMARY KEY)",
        "CREATE TABLE c (id integer PRIMARY KEY, p integer, "
        "CONSTRAINT of_parent FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE)",
        "INSERT INTO p VALUES (1)",
        "INSERT INTO c VALUES (1, 1)",
    )
    state = logged.sync().state
    assert '-c": its foreign key "of_parent" changes or deletes rows by itself' in caplog.text
    logged.run("DELETE FROM p")
    assert logged.rows("SELECT * FROM c") == []
    output = logged.sync(state)
    assert plain(output.records(logged.stream("p"))) == [{"id": 1, "gone": True}]
    assert output.records(logged.stream("c")) == []


def test_a_transaction_in_two_phases_is_an_error(logged: Any) -> None:
    """Its rows stand in the log before its outcome."""
    logged.run("CREATE TABLE t (id integer PRIMARY KEY)")
    state = logged.sync().state
    logged.run("XA START 'x'", "INSERT INTO t VALUES (1)", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'")
    with pytest.raises(DatabaseError, match=r"a transaction in two phases \(XA\)"):
        logged.sync(state)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_rows_that_were_rolled_back_are_an_error(logged: Any, end: str) -> None:
    """They stand in the log where something of the transaction cannot be rolled back; nothing is given as committed."""
    logged.run("CREATE TABLE t (id integer PRIMARY KEY)", "CREATE TABLE m (id integer) ENGINE = MyISAM")
    catalog = logged.catalog()
    catalog["streams"] = [entry for entry in catalog["streams"] if entry["stream"] == logged.stream("t")]
    state = logged.sync(catalog=catalog).state
    first = ["INSERT INTO t VALUES (1)"] if end == "ROLLBACK" else []
    undone = ["SAVEPOINT s", "INSERT INTO t VALUES (2)", "INSERT INTO m VALUES (1)", "ROLLBACK TO s"]
    within = undone if end == "COMMIT" else ["CREATE TEMPORARY TABLE u (a integer)", "DROP TEMPORARY TABLE u"]
    logged.run("BEGIN", *first, *within, end)
    assert logged.rows("SELECT * FROM t") == []
    with pytest.raises(DatabaseError, match="rows that were rolled back, together with changes that cannot be"):
        logged.sync(state, catalog)
    assert plain(logged.sync(catalog=catalog).records()) == []


def test_a_savepoint_of_innodb_alone_is_read(logged: Any) -> None:
    """The server itself takes out of the log what was rolled back."""
    logged.run("CREATE TABLE t (id integer PRIMARY KEY)")
    state = logged.sync().state
    inserts = [f"INSERT INTO t VALUES ({number})" for number in range(3)]
    logged.run("BEGIN", inserts[0], "SAVEPOINT s", inserts[1], "ROLLBACK TO s", inserts[2], "COMMIT")
    assert plain(logged.sync(state).records()) == [{"id": 0}, {"id": 2}]


@pytest.mark.parametrize("image", ["MINIMAL", "NOBLOB"])
@pytest.mark.parametrize(
    "change", ["UPDATE t SET n = 2", "UPDATE t SET id = 7", "INSERT INTO t (id) VALUES (8)", "DELETE FROM keyless"]
)
def test_parts_of_rows_are_an_error(logged: Any, image: str, change: str) -> None:
    """Any session may log less than the server is set to: what is not there is not taken for null."""
    logged.run(
        "CREATE TABLE t (id integer PRIMARY KEY, n integer, b text)",
        "INSERT INTO t VALUES (1, 1, 'long')",
        "CREATE TABLE keyless (n integer, u integer NOT NULL UNIQUE, b text)",
        "INSERT INTO keyless VALUES (1, 1, 'long')",
    )
    state = logged.sync().state
    logged.run(f"SET SESSION binlog_row_image = {image}", change)
    message = r"a session logged only parts of rows \(binlog_row_image\): its column .* is not there.*bookmark out"
    with pytest.raises(DatabaseError, match=message):
        logged.sync(state)


def test_parts_of_rows_that_are_enough_are_read(logged: Any) -> None:
    """A delete takes the key only, and columns that nobody wants may be missing."""
    logged.run("CREATE TABLE t (id integer PRIMARY KEY, n integer, b text)", "INSERT INTO t VALUES (1, 1, 'long')")
    catalog = logged.catalog()
    for entry in catalog["streams"][0]["metadata"]:
        entry["metadata"]["selected"] = entry["breadcrumb"] != ["properties", "b"]
    state = logged.sync(catalog=catalog).state
    logged.run("SET SESSION binlog_row_image = NOBLOB", "UPDATE t SET n = 2")
    logged.run("SET SESSION binlog_row_image = MINIMAL", "DELETE FROM t")
    found = plain(logged.sync(state, catalog).records())
    assert found == [{"id": 1, "n": 2}, {"id": 1, "n": None, "gone": True}]


@pytest.mark.parametrize(
    ("column", "change", "rule"),
    [
        ("v text", "CONVERT TO CHARACTER SET latin1", "had the character set utf8mb4 .* and has latin1 now"),
        ("v char(5) CHARACTER SET latin1", "CONVERT TO CHARACTER SET utf8mb4", "had the character set latin1 "),
        (
            "v text COLLATE utf8mb4_uca1400_ai_ci",
            "MODIFY v text CHARACTER SET latin2",
            "had the character set utf8mb4 ",
        ),
        ("v varchar(5)", "MODIFY v varbinary(20)", "had the character set utf8mb4 .* and has binary now"),
        ("v integer", "MODIFY v integer unsigned", "had a sign when the log was written, unlike now"),
        ("v tinyint unsigned", "MODIFY v tinyint", "had no sign when the log was written, unlike now"),
    ],
)
def test_a_column_whose_bytes_meant_something_else_is_an_error(
    logged: Any, column: str, change: str, rule: str
) -> None:
    """The same type in the log, and other values: with the way out."""
    logged.run(f"CREATE TABLE t (id integer PRIMARY KEY, y year, {column})")
    state = logged.sync().state
    logged.run("INSERT INTO t VALUES (1, 2000, '7')", f"ALTER TABLE t {change}")
    with pytest.raises(DatabaseError, match=rf'its column "v" {rule}.*bookmark out of the state'):
        logged.sync(state)
    state["bookmarks"].pop(logged.stream("t"))
    again = logged.sync(state)
    logged.run("INSERT INTO t VALUES (2, 2000, '8')")
    assert len(logged.sync(again.state).records()) == 1


@pytest.mark.parametrize("before", ["utf8mb4", "utf8mb3"])
def test_bytes_that_mean_the_same_are_read(logged: Any, before: str) -> None:
    """In another collation of the same character set, and in one that goes on from another."""
    logged.run(f"CREATE TABLE t (id integer PRIMARY KEY, v text CHARACTER SET {before})")
    state = logged.sync().state
    logged.run("INSERT INTO t VALUES (1, 'Zoë')", "ALTER TABLE t MODIFY v text COLLATE utf8mb4_uca1400_ai_ci")
    assert plain(logged.sync(state).records()) == [{"id": 1, "v": "Zoë"}]


def test_the_lock_for_a_snapshot_does_not_wait_for_ever(own_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waits nobody else can write. When the others are done the run works."""
    monkeypatch.setattr(BinaryLog, "says_where_a_snapshot_lies", False)
    monkeypatch.setattr(binlog, "_LOCK_WAIT", 1)
    own_server.settings["default_replication_method"] = "LOG_BASED"
    own_server.run("CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with own_server.connect() as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLES t WRITE")
        with pytest.raises(DatabaseError, match="others held some for more than 1 seconds"):
            own_server.sync()
    assert plain(own_server.sync().records()) == [{"id": 1}]


@pytest.mark.parametrize("retries", [0, 2])
def test_a_dropped_connection_goes_on_within_a_transaction(
    own_server: Any, monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    """Each row comes once. Without a retry left the run fails, and the next one has all of the transaction."""
    own_server.settings |= {"default_replication_method": "LOG_BASED", "connect_retries": retries}
    own_server.run("CREATE TABLE t (id integer PRIMARY KEY, filler text)")
    state = own_server.sync().state
    own_server.run("INSERT INTO t SELECT -seq, 'x' FROM seq_1_to_10")
    own_server.run("INSERT INTO t SELECT seq, repeat('x', 2000) FROM seq_1_to_20000")
    expected = [-number for number in range(1, 11)] + list(range(1, 20_001))
    counted: list[int] = []
    read = ImageReader.row

    def reading(self: Any, *arguments: Any) -> Any:
        counted.append(1)
        if len(counted) in {100, 9_000}:
            for (number,) in own_server.rows(
                "SELECT id FROM information_schema.processlist WHERE command = 'Binlog Dump'"
            ):
                own_server.run(f"KILL {number}")
        return read(self, *arguments)

    monkeypatch.setattr(ImageReader, "row", reading)
    monkeypatch.setattr(Server, "pause", lambda *_: None)
    if retries:
        assert [r["id"] for r in own_server.sync(state).records()] == expected
        assert len(counted) > len(expected)
        return
    with pytest.raises(ConnectionLost, match="Run it again"):
        own_server.sync(state)
    monkeypatch.undo()
    assert [r["id"] for r in own_server.sync(state).records()] == expected


def test_the_privileges_that_it_takes(logged: Any) -> None:
    """SELECT, and to read the log."""
    user = f"log_{logged.name}"[:60]
    login = {"user": user, "password": "p"}
    logged.run("CREATE TABLE t (id integer PRIMARY KEY)", f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'p'")
    logged.run(f"GRANT SELECT ON t TO {user}@'127.0.0.1'")
    try:
        with pytest.raises(ConfigError, match=r"the user lacks a privilege.*REPLICATION SLAVE"):
            logged.sync(**login)
        logged.run(f"GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO {user}@'127.0.0.1'")
        state = logged.sync(**login).state
        logged.run("INSERT INTO t VALUES (1)")
        assert plain(logged.sync(state, **login).records()) == [{"id": 1}]
    finally:
        logged.run(f"DROP USER {user}@'127.0.0.1'")


def test_the_bookmark_is_what_the_docs_say(logged: Any) -> None:
    """A file, a place in it, and the server's number; the same for all streams."""
    logged.run("CREATE TABLE a (id integer PRIMARY KEY)", "CREATE TABLE b (id integer PRIMARY KEY)")
    state = json.loads(json.dumps(logged.sync().state))
    positions = [bookmark["log_position"] for bookmark in state["bookmarks"].values()]
    assert len(positions) == 2
    assert positions[0] == positions[1]
    assert positions[0].keys() == {"file", "place", "server"}
    with pymysql.connect(**at(logged.address)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@server_id")
        assert cursor.fetchall() == ((positions[0]["server"],),)
