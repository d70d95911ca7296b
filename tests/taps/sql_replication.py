"""Whole tables and replication keys; what happens when the connection drops, or the run is cut short."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pytest

from melisma.errors import CatalogError, ConfigError, DatabaseError
from melisma.sql.remedy import ConnectionLost
from melisma.tap.stream import ArrowStream


class Replication(ABC):
    """The tests that every database's tap passes; a subclass is its database's, and adds what only that one has.

    Attributes:
        server: the class of the tap's connection.
        product: how its errors name the database.
        rows: how many the table `big` has.
        big: the statements that make it: `id` from 1 on is its primary key, `k` has ties.
        hundred: a query of a hundred rows.
        slow: the statements that make a view `slow` whose query takes minutes.
        batches: the tap's settings for batches of a part of `big` only.
        stride: a run that is cut short goes on from every such STATE.
        cancelled: what the error says of a query that the server was told to end.
    """

    server: ClassVar[type[Any]]
    product: ClassVar[str]
    rows: ClassVar[int]
    big: ClassVar[tuple[str, ...]]
    hundred: ClassVar[str]
    slow: ClassVar[tuple[str, ...]]
    batches: ClassVar[dict[str, Any]] = {}
    stride: ClassVar[int] = 1
    cancelled: ClassVar[str]

    @abstractmethod
    def kill(self, database: Any) -> None:
        """End the tap's connection, from another one."""

    @abstractmethod
    def cancel(self, database: Any) -> None:
        """End the query that the tap reads, from another connection."""

    @abstractmethod
    def running(self, database: Any) -> int:
        """How many queries of the tap's on `slow` the server works on."""

    @pytest.fixture
    def dropped(self, database: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The connection is ended after the second batch of a read, once; gives the rows of all batches.

        Some megabytes more can be on their way by then, but not all of the table.
        """
        sizes: list[int] = []
        read = self.server.batches
        monkeypatch.setattr(self.server, "pause", lambda *_: None)

        def reading(server: Any, sql: str, stream: str) -> Iterator[Any]:
            for batch in read(server, sql, stream):
                yield batch
                sizes.append(len(batch[0]))
                if len(sizes) == 2:
                    self.kill(database)

        monkeypatch.setattr(self.server, "batches", reading)
        return sizes

    def starts_at_the_last_key(self, database: Any, table: str, insert: Callable[[int, int], str]) -> None:
        """Rows come by the key `k` of a table `t`; a second run has those at the last value again, and none before.

        Args:
            database: an empty one.
            table: the statement that makes `t`, with `id` and `k`, which rise together.
            insert: the statement that adds the rows from one `id` to another, in another order.
        """
        database.run(table, insert(0, 4))
        catalog = database.incremental("k")
        first = database.sync(catalog=catalog)
        assert [r["id"] for r in first.records()] == [0, 1, 2, 3, 4]
        bookmark = first.state["bookmarks"][database.stream("t")]
        assert bookmark["replication_key"] == "k"
        assert bookmark["replication_key_value"] in {first.records()[-1]["k"], str(first.records()[-1]["k"])}
        database.run(insert(5, 6))
        again = database.sync(first.state, catalog)
        assert [r["id"] for r in again.records()] == [4, 5, 6]

    def test_rows_without_a_key_come_first_and_once(self, database: Any, caplog: pytest.LogCaptureFixture) -> None:
        """Later runs leave them out, and say so."""
        database.run("CREATE TABLE t (id integer, k integer)", "INSERT INTO t VALUES (2, 5), (1, NULL), (3, 4)")
        catalog = database.incremental("k")
        first = database.sync(catalog=catalog)
        assert [r["id"] for r in first.records()] == [1, 3, 2]
        assert [r["id"] for r in database.sync(first.state, catalog).records()] == [2]
        assert 'some rows have no value in the replication key "k"' in caplog.text

    def refuses_to_replicate(self, database: Any, entry: dict[str, Any], message: str) -> None:
        """With this in its catalog's entry a table cannot be read, and the error says why."""
        catalog = database.catalog()
        catalog["streams"][0] |= entry
        with pytest.raises(CatalogError, match=message):
            database.sync(catalog=catalog)

    def test_all_streams_see_one_snapshot(self, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rows that are committed between two streams are not seen in the second."""
        database.run("CREATE TABLE a (n integer)", "CREATE TABLE b (n integer)", "INSERT INTO a VALUES (1)")
        read = self.server.batches

        def reading(server: Any, sql: str, stream: str) -> Iterator[Any]:
            yield from read(server, sql, stream)
            database.run("INSERT INTO a VALUES (2)", "INSERT INTO b VALUES (2)")

        monkeypatch.setattr(self.server, "batches", reading)
        output = database.sync()
        assert output.records(database.stream("a")) == [{"n": 1}]
        assert output.records(database.stream("b")) == []

    def test_a_dropped_connection_goes_on_by_replication_key(self, database: Any, dropped: list[int]) -> None:
        """With a primary key beside it each row comes once, in order, ties across the drop too."""
        database.run(*self.big)
        output = database.sync(catalog=database.incremental("k"))
        assert len(dropped) > 3
        assert [r["id"] for r in output.records()] == list(range(1, self.rows + 1))

    def test_a_dropped_connection_goes_on_by_primary_key(self, database: Any, dropped: list[int]) -> None:
        """In a full table that is read in its key's order."""
        database.run(*self.big)
        output = database.sync(resume_full_table=True)
        assert len(dropped) > 3
        assert [r["id"] for r in output.records()] == list(range(1, self.rows + 1))
        assert output.state["bookmarks"][database.stream("big")]["resume_after"] is None

    def test_a_dropped_connection_fails_a_read_without_an_order(self, database: Any, dropped: list[int]) -> None:
        """No row can be told from those that were sent, so the run fails, and says so."""
        database.run(*self.big)
        stream = database.stream("big")
        with pytest.raises(ConnectionLost, match=rf'stream "{stream}", {self.product}: .*Run it again'):
            database.sync()
        assert sum(dropped) < self.rows

    def test_a_run_that_was_cut_short_goes_on_within_the_table(
        self, database: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """From a STATE on, with `resume_full_table`: the rest, and nothing twice; after the end, all of it again."""
        monkeypatch.setattr(ArrowStream, "STATE_MSG_FREQUENCY", 1)
        database.run(*self.big)
        messages = database.sync(resume_full_table=True, **self.batches).messages
        states = [i for i, m in enumerate(messages) if m["type"] == "STATE"]
        assert len(states) > 3
        for cut in sorted({*states[:: self.stride], states[-1]}):
            settled = [m["record"]["id"] for m in messages[:cut] if m["type"] == "RECORD"]
            rest = [r["id"] for r in database.sync(messages[cut]["value"], resume_full_table=True).records()]
            if cut == states[-1]:
                assert rest == list(range(1, self.rows + 1))
            else:
                assert settled + rest == list(range(1, self.rows + 1))

    def resumes_by_its_key(
        self, database: Any, monkeypatch: pytest.MonkeyPatch, names: str, *statements: str, **settings: Any
    ) -> list[tuple[Any, ...]]:
        """A table `t` that is cut short at its second STATE goes on there; gives the keys of a whole run, in order.

        Args:
            database: an empty one.
            monkeypatch: the test's.
            names: of the columns of its primary key, a letter each, in the key's order.
            statements: they make it.
            settings: of the tap.
        """
        monkeypatch.setattr(ArrowStream, "STATE_MSG_FREQUENCY", 1)
        database.run(*statements)
        messages = database.sync(resume_full_table=True, **settings).messages
        keys = [tuple(m["record"][name] for name in names) for m in messages if m["type"] == "RECORD"]
        cut = [i for i, m in enumerate(messages) if m["type"] == "STATE"][1]
        assert messages[cut]["value"]["bookmarks"][database.stream("t")]["resume_after"]
        settled = [tuple(m["record"][name] for name in names) for m in messages[:cut] if m["type"] == "RECORD"]
        rest = database.sync(messages[cut]["value"], resume_full_table=True).records()
        assert settled + [tuple(r[name] for name in names) for r in rest] == keys
        return keys

    def test_versions_and_resuming_do_not_go_together(self, database: Any) -> None:
        """A version is what one run reads."""
        with pytest.raises(ConfigError, match=r"resume_full_table.*emit_activate_version_messages"):
            database.catalog(resume_full_table=True, emit_activate_version_messages=True)

    def test_a_full_table_can_carry_its_version(self, database: Any) -> None:
        """As in other taps: each record has it."""
        database.run("CREATE TABLE t (id integer)", "INSERT INTO t VALUES (1)")
        messages = database.sync(emit_activate_version_messages=True).messages
        version = next(m["version"] for m in messages if m["type"] == "ACTIVATE_VERSION")
        assert [m["version"] for m in messages if m["type"] == "RECORD"] == [version]

    def test_the_record_limit_is_pushed_down(self, database: Any) -> None:
        """`max_record_count` of each stream."""
        database.run(f"CREATE TABLE t AS {self.hundred}", "CREATE VIEW v AS SELECT * FROM t")
        output = database.sync(max_record_count=7)
        assert [len(output.records(database.stream(name))) for name in "tv"] == [7, 7]

    def test_a_query_that_the_server_cancels_is_an_error(self, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not tried again: it would be cancelled again."""
        database.run(*self.big)
        read = self.server.batches

        def reading(server: Any, sql: str, stream: str) -> Iterator[Any]:
            batches = read(server, sql, stream)
            yield next(batches)
            self.cancel(database)
            yield from batches

        monkeypatch.setattr(self.server, "batches", reading)
        with pytest.raises(DatabaseError, match=self.cancelled) as raised:
            database.sync()
        assert not isinstance(raised.value, ConnectionLost)

    def test_a_signal_ends_a_read_that_waits(self, database: Any) -> None:
        """SIGTERM is heard while the server works: exit code 143, and its query is cancelled there."""
        database.run(*self.slow)
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
        waiting = threading.Event()
        while not self.running(database):
            assert process.poll() is None
            waiting.wait(0.05)
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 143
        assert "Traceback" not in errors
        while self.running(database):
            waiting.wait(0.05)

    def loads_a_lake(self, database: Any, table: tuple[str, ...], more: str, landed: str) -> Iterator[list[Any]]:
        """The tap into target-parquet with its committed STATE, by the key `changed`: twice, and twice with new rows.

        Gives, after each two runs, the rows that DuckDB reads from the lake, in the order of `id`.

        Args:
            database: an empty one.
            table: the statements that make a table `t`.
            more: the statement that adds the new rows.
            landed: the columns to read, as DuckDB writes them.
        """
        folder: Path = database.folder
        target, catalog, state = (folder / f"{name}.json" for name in ("target", "catalog", "state"))
        target.write_text(json.dumps({"destination_path": str(folder / "lake")}), encoding="utf-8")
        executable = [str(Path(sys.executable).parent / "target-parquet"), "--config", str(target)]
        database.run(*table)
        catalog.write_text(json.dumps(database.incremental("changed")), encoding="utf-8")
        command = database.command(database.config(), "--catalog", str(catalog), "--state", str(state))
        for statement in ("SELECT 1", more):
            database.run(statement)
            for _ in range(2):
                committed = subprocess.run([*executable, "--committed-state"], check=True, capture_output=True)
                state.write_bytes(committed.stdout)
                done = subprocess.run(command, check=True, capture_output=True)
                subprocess.run(executable, input=done.stdout, check=True, capture_output=True)
            files = folder / "lake" / database.stream("t") / "*.parquet"
            yield duckdb.sql(f"SELECT {landed} FROM read_parquet('{files}') ORDER BY id").fetchall()
