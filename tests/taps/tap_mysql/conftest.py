"""A database of the test's own on a real server, and tap-mysql on it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mariadb
import pymysql
import pytest

from melisma_tap_mysql.tap import TapMySQL

from ..sql_database import SQLDatabase, started


class Database(SQLDatabase):
    """A database, seen through PyMySQL, and tap-mysql on it."""

    tap = TapMySQL

    def connect(self, **more: Any) -> pymysql.Connection[Any]:
        """Another connection to it; each statement is a transaction."""
        return pymysql.connect(**at(self.address), database=self.name, autocommit=True, **more)

    def stream(self, table: str) -> str:
        """The name of a table's stream."""
        return f"{self.name}-{table}"


def at(address: dict[str, str]) -> dict[str, Any]:
    """What PyMySQL needs for an address."""
    return {**address, "port": int(address["port"]), "charset": "utf8mb4"}


def execute(address: dict[str, str], *statements: str) -> None:
    """Run statements outside any database."""
    with pymysql.connect(**at(address), autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def drop(address: dict[str, str], name: str) -> None:
    """Drop a database, and before it the connections that would keep it."""
    with pymysql.connect(**at(address), autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", [name])
        for (number,) in cursor.fetchall():
            with contextlib.suppress(pymysql.err.Error):  # it may have ended by itself
                cursor.execute(f"KILL {number}")
        cursor.execute(f"DROP DATABASE {name}")


@pytest.fixture(scope="session")
def address() -> Any:
    """Where the server listens."""
    return started(mariadb.start)


@pytest.fixture
def database(address: dict[str, str], tmp_path: Path) -> Iterator[Database]:
    """A new database, empty."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    execute(address, f"CREATE DATABASE {name}")
    yield Database(address, name, tmp_path)
    drop(address, name)


@pytest.fixture
def own_server(address: dict[str, str], tmp_path: Path) -> Iterator[Database]:
    """A database on a server of the test's own, whose log and settings it may change."""
    server = mariadb.MariaDB(tmp_path)
    found = server.start()
    try:
        execute(found, "CREATE DATABASE own")
        yield Database(found, "own", tmp_path)
    finally:
        server.stop()
