"""Whole tables and replication keys; what happens when the connection drops, or the run is cut short."""

from __future__ import annotations

from typing import Any

import pytest

from melisma.tap.stream import ArrowStream
from melisma_tap_postgres.server import Server

from ..sql_replication import Replication
from .conftest import kill

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


class TestReplication(Replication):
    """By tap-postgres."""

    server = Server
    product = "PostgreSQL"
    rows = 120_000
    big = (
        "CREATE TABLE big (id integer PRIMARY KEY, k integer, filler text)",
        f"INSERT INTO big SELECT i, i / 7, repeat('x', 300) FROM generate_series(1, {rows}) i ORDER BY i % 1000, i",
    )
    hundred = "SELECT i FROM generate_series(1, 100) i"
    slow = ("CREATE VIEW slow AS SELECT pg_sleep(600)::text AS v",)
    cancelled = "the server ended the query while its rows were read"

    kill = staticmethod(kill)

    def cancel(self, database: Any) -> None:
        """End the query that the tap reads, from another connection."""
        sql = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name = %s"
        assert database.rows(sql, database.name, "tap-postgres")

    def running(self, database: Any) -> int:
        """How many queries of the tap's on `slow` the server works on."""
        sql = (
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%COPY%%slow%%' AND state = 'active' "
            "AND datname = %s AND pid <> pg_backend_pid()"
        )
        [(number,)] = database.rows(sql, database.name)
        return int(number)

    @pytest.mark.parametrize("kind", KEYS)
    def test_the_next_run_starts_at_the_last_key(self, database: Any, kind: str) -> None:
        """Whatever the key's type: sorted as PostgreSQL sorts it, rows at the last value again, none before."""
        database.run("CREATE TYPE rank AS ENUM ('z', 'y', 'b', 'a', 'c', '1', '0')")
        self.starts_at_the_last_key(
            database,
            f"CREATE TABLE t (id integer, k {kind})",
            lambda first, last: (
                f"INSERT INTO t SELECT i, {KEYS[kind]} FROM generate_series({first}, {last}) i ORDER BY i DESC"
            ),
        )

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
    def test_a_method_or_key_that_cannot_work_is_an_error(self, database: Any, entry: Any, message: str) -> None:
        """Before anything is read."""
        database.run("CREATE TABLE t (id integer, f float8, j jsonb)")
        self.refuses_to_replicate(database, entry, message)

    def test_a_key_of_several_columns_resumes(self, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the key's order, which is not the table's; texts with quotes among the values."""
        keys = self.resumes_by_its_key(
            database,
            monkeypatch,
            "ba",
            "CREATE TABLE t (a integer, b text, PRIMARY KEY (b, a))",
            "INSERT INTO t SELECT i % 300, repeat('it''s \\', 30) || i / 300 FROM generate_series(0, 89999) i",
        )
        assert keys == sorted(keys)

    def test_a_key_that_is_not_a_number_is_no_position(self, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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

    def test_into_a_lake_resumed_and_with_new_rows(self, database: Any) -> None:
        """tap-postgres into target-parquet with its committed STATE: what psycopg sees is what DuckDB reads."""
        table = (
            "CREATE TABLE t (id integer PRIMARY KEY, changed timestamptz, total numeric(12,2), any_number numeric, "
            "raw bytea, tags text[], j jsonb)",
            "INSERT INTO t SELECT i, timestamptz '2024-01-01Z' + i / 10 * interval '1 hour', i / 4.0, i / 8.0, "
            "decode(lpad(to_hex(i), 8, '0'), 'hex'), ARRAY['a', i::text], jsonb_build_object('i', i) "
            "FROM generate_series(1, 1000) i",
        )
        more = "INSERT INTO t SELECT 2000 + i, (SELECT max(changed) FROM t), 7 FROM generate_series(1, 5) i"
        columns = (
            "id, extract(epoch FROM changed)::bigint, total::text, cast(any_number AS double precision), raw, tags, "
            "j::text"
        )
        for found in self.loads_a_lake(database, table, more, columns.replace("text", "varchar")):
            assert found == database.rows(f"SELECT {columns} FROM t ORDER BY id")
