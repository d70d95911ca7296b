"""Whole tables and replication keys; what happens when the connection drops, or the run is cut short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from melisma_tap_mysql.server import Server

from ..sql_replication import Replication

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
CONNECTIONS = "FROM information_schema.processlist WHERE db = %s AND id <> connection_id()"


class TestReplication(Replication):
    """By tap-mysql."""

    server = Server
    product = "MySQL"
    rows = 60_000
    big = (
        "CREATE TABLE big (id integer PRIMARY KEY, k integer, filler text)",
        f"INSERT INTO big SELECT seq, seq DIV 7, repeat('x', 600) FROM seq_1_to_{rows} ORDER BY seq % 1000, seq",
    )
    hundred = "SELECT seq AS i FROM seq_1_to_100"
    slow = (
        "CREATE TABLE t (id integer)",
        "INSERT INTO t VALUES (1)",
        "CREATE VIEW slow AS SELECT sleep(600) AS v FROM t",
    )
    batches = {"max_rows_per_batch": 25_000}  # noqa: RUF012
    stride = 5
    cancelled = r"the server cancelled the query.* \(error 1317\)"

    def kill(self, database: Any) -> None:
        """End the tap's connection, from another one."""
        connections = database.rows(f"SELECT id {CONNECTIONS}", database.name)
        assert connections
        for (number,) in connections:
            database.run(f"KILL {number}")

    def cancel(self, database: Any) -> None:
        """End the query that the tap reads, from another connection."""
        [(number,)] = database.rows(f"SELECT id {CONNECTIONS}", database.name)
        database.run(f"KILL QUERY {number}")

    def running(self, database: Any) -> int:
        """How many queries of the tap's on `slow` the server works on."""
        sql = f"SELECT count(*) {CONNECTIONS} AND info LIKE '%%melisma_source%%'"
        [(number,)] = database.rows(sql, database.name)
        return int(number)

    @pytest.mark.parametrize("kind", KEYS)
    def test_the_next_run_starts_at_the_last_key(self, database: Any, kind: str) -> None:
        """Whatever the key's type: sorted as the server sorts it, rows at the last value again, none before."""
        self.starts_at_the_last_key(
            database,
            f"CREATE TABLE t (id integer, k {kind})",
            lambda first, last: f"INSERT INTO t SELECT seq, {KEYS[kind]} FROM seq_{first}_to_{last} ORDER BY seq DESC",
        )

    def test_a_key_of_text_dates_goes_on(self, database: Any) -> None:
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
    def test_a_method_or_key_that_cannot_work_is_an_error(self, database: Any, entry: Any, message: str) -> None:
        """Before anything is read. An enum is sorted by number, and compared as text."""
        database.run("CREATE TABLE t (id integer, f double, j json, e enum('b', 'a'))")
        self.refuses_to_replicate(database, entry, message)

    def test_a_table_that_was_read_can_be_altered(self, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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

    def test_a_key_of_several_columns_resumes(self, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the key's order, which is not the table's; texts with quotes and bytes among the values."""
        keys = self.resumes_by_its_key(
            database,
            monkeypatch,
            "bca",
            "CREATE TABLE t (a integer, b varchar(90) COLLATE utf8mb4_bin, c binary(4), PRIMARY KEY (b, c, a))",
            "INSERT INTO t SELECT seq % 3, CONCAT(repeat('it''s \\\\', 9), seq DIV 30), "
            "unhex(lpad(hex(4294967295 - seq DIV 3), 8, '0')) FROM seq_0_to_29999",
            max_rows_per_batch=7_000,
        )
        assert len(set(keys)) == 30_000

    def test_into_a_lake_resumed_and_with_new_rows(self, database: Any) -> None:
        """tap-mysql into target-parquet with its committed STATE: what PyMySQL sees is what DuckDB reads."""
        table = (
            "CREATE TABLE t (id integer PRIMARY KEY, changed datetime(3), total decimal(12,2), large bigint unsigned, "
            "raw varbinary(9), e enum('a', 'b'), j json)",
            "INSERT INTO t SELECT seq, TIMESTAMP '2024-01-01 00:00:00' + INTERVAL seq DIV 10 HOUR, seq / 4, "
            "18446744073709551615 - seq, unhex(lpad(hex(seq), 8, '0')), 1 + seq % 2, json_object('i', seq) "
            "FROM seq_1_to_1000",
        )
        more = (
            "INSERT INTO t (id, changed, total) SELECT 2000 + seq, latest, 7 FROM seq_1_to_5, "
            "(SELECT max(changed) AS latest FROM t) AS l"
        )
        landed = "id, epoch(changed)::bigint, total::varchar, large::varchar, hex(raw), e, j"
        columns = "id, unix_timestamp(changed), CAST(total AS CHAR), CAST(large AS CHAR), hex(raw), CAST(e AS CHAR), j"
        for found in self.loads_a_lake(database, table, more, landed):
            with database.connect(init_command="SET time_zone = '+00:00'") as connection, connection.cursor() as cursor:
                cursor.execute(f"SELECT {columns} FROM t ORDER BY id")
                expected = [tuple(int(v) if i == 1 else v for i, v in enumerate(row)) for row in cursor.fetchall()]
            assert found == expected
