"""A database of the test's own on a real server, and tap-mysql on it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pymysql
import pytest

from melisma_tap_mysql.tap import TapMySQL

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


@dataclass
class Output:
    """What a run wrote."""

    messages: list[dict[str, Any]]

    def records(self, stream: str | None = None) -> list[dict[str, Any]]:
        """The records of a stream, or of all."""
        return [m["record"] for m in self.messages if m["type"] == "RECORD" and stream in {None, m["stream"]}]

    def properties(self, stream: str) -> dict[str, Any]:
        """The columns that a stream's SCHEMA names."""
        found: dict[str, Any] = next(
            m["schema"]["properties"] for m in self.messages if m["type"] == "SCHEMA" and m["stream"] == stream
        )
        return found

    @property
    def state(self) -> dict[str, Any]:
        """The last STATE."""
        found: dict[str, Any] = [m["value"] for m in self.messages if m["type"] == "STATE"][-1]
        return found


@dataclass
class Database:
    """A database, seen by its owner through PyMySQL, and the tap on it."""

    address: dict[str, str]
    name: str
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)

    def connect(self, **more: Any) -> pymysql.Connection[Any]:
        """Another connection to it; each statement is a transaction."""
        return pymysql.connect(**at(self.address), database=self.name, autocommit=True, **more)

    def run(self, *statements: str) -> None:
        """Run statements."""
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return list(cursor.fetchall())

    def stream(self, table: str) -> str:
        """The name of a table's stream."""
        return f"{self.name}-{table}"

    def config(self, **more: Any) -> dict[str, Any]:
        """A configuration for it; None takes a setting out."""
        config = {**self.address, "port": int(self.address["port"]), "database": self.name, **self.settings, **more}
        return {name: value for name, value in config.items() if value is not None}

    def catalog(self, **more: Any) -> dict[str, Any]:
        """What discovery finds."""
        tap = TapMySQL(config=self.config(**more), setup_mapper=False)
        try:
            catalog: dict[str, Any] = json.loads(tap.catalog_json_text)
        finally:
            tap.close()
        return catalog

    def incremental(self, key: str, table: str | None = None) -> dict[str, Any]:
        """The catalog, with its streams, or one of them, by a replication key."""
        catalog = self.catalog()
        for entry in catalog["streams"]:
            if table is None or entry["stream"] == self.stream(table):
                entry |= {"replication_method": "INCREMENTAL", "replication_key": key}
        return catalog

    def sync(self, state: dict[str, Any] | None = None, catalog: dict[str, Any] | None = None, **more: Any) -> Output:
        """Run it in this process."""
        output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        with contextlib.redirect_stdout(output):
            tap = TapMySQL(config=self.config(**more), state=state, catalog=catalog)
            try:
                tap.sync_all()
            finally:
                tap.close()
        output.seek(0)
        return Output([json.loads(line, parse_float=Decimal) for line in output])

    def command(self, config: dict[str, Any], *arguments: str) -> list[str]:
        """The command line of the executable."""
        path = self.folder / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return [sys.executable, "-m", "melisma_tap_mysql.tap", "--config", str(path), *arguments]

    def execute(self, config: dict[str, Any], *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the executable."""
        return subprocess.run(
            self.command(config, *arguments),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )


def at(address: dict[str, str]) -> dict[str, Any]:
    """What PyMySQL needs for an address."""
    return {**address, "port": int(address["port"]), "charset": "utf8mb4"}


def service() -> ModuleType:
    """What starts the server."""
    path = Path(__file__).parents[2] / "services" / "mariadb.py"
    spec = importlib.util.spec_from_file_location("services_mariadb", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def server() -> dict[str, str]:
    """The server's address; it is started if it does not run."""
    module = service()
    try:
        found: dict[str, str] = module.start()
    except module.MissingError as error:
        if IN_CI:
            raise
        pytest.skip(str(error), allow_module_level=True)
    return found


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
def address() -> dict[str, str]:
    """Where the server listens."""
    return server()


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
    module = service()
    module.CACHE, module.NOTE = tmp_path, tmp_path / "mariadb.json"
    found = module.start()
    try:
        execute(found, "CREATE DATABASE own")
        yield Database(found, "own", tmp_path)
    finally:
        module.stop()
