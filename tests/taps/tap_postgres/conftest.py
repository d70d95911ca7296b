"""A database of the test's own on a real server, and tap-postgres on it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import postgres
from melisma_tap_postgres.tap import TapPostgres

from ..sql_database import SQLDatabase, started


class Database(SQLDatabase):
    """A database, seen through psycopg, and tap-postgres on it."""

    tap = TapPostgres

    def connect(self, **more: Any) -> psycopg.Connection[Any]:
        """Another connection to it; each statement is a transaction."""
        return psycopg.connect(**self.address, dbname=self.name, autocommit=True, **more)

    def stream(self, table: str) -> str:
        """The name of the stream of a table in the schema `public`."""
        return f"public-{table}"

    def log_based(self, *streams: str) -> dict[str, Any]:
        """The catalog, with its streams, or some of them, by the log; the others are not selected."""
        catalog = self.catalog()
        for entry in catalog["streams"]:
            entry["replication_method"] = "LOG_BASED"
            if streams and entry["stream"] not in streams:
                root = next(each for each in entry["metadata"] if not each["breadcrumb"])
                root["metadata"]["selected"] = False
        return catalog


def kill(database: Database) -> None:
    """End the tap's connection, from another one."""
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name = %s"
    assert database.rows(sql, database.name, "tap-postgres")


@pytest.fixture(scope="session")
def address() -> Any:
    """Where the server listens."""
    return started(postgres.start)


def slots(connection: psycopg.Connection[Any], name: str) -> list[tuple[str]]:
    """The database's slots, once nobody reads them."""
    while True:
        sql = "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s"
        found = connection.execute(sql, [name]).fetchall()
        if not any(process for _, process in found):
            return [(slot,) for slot, _ in found]
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        time.sleep(0.02)


@pytest.fixture
def database(address: dict[str, str], tmp_path: Path) -> Iterator[Database]:
    """A new database, empty."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(**address, dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        # Slots are the whole server's.
        yield Database(address, name, tmp_path, {"replication_slot_name": name})
        for (slot,) in slots(connection, name):
            connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
