"""A database of the test's own on a real server, and tap-postgres on it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from melisma_tap_postgres.tap import TapPostgres

from ..output import Output, sync

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


@dataclass
class Database:
    """A database, seen by its owner through psycopg, and the tap on it."""

    address: dict[str, str]
    name: str
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    last: Output = field(default_factory=lambda: Output([]))  # of the last run, whole or not

    def connect(self, **more: Any) -> psycopg.Connection[Any]:
        """Another connection to it; each statement is a transaction."""
        return psycopg.connect(**self.address, dbname=self.name, autocommit=True, **more)

    def run(self, *statements: str) -> None:
        """Run statements."""
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def config(self, **more: Any) -> dict[str, Any]:
        """A configuration for it."""
        return {**self.address, "port": int(self.address["port"]), "database": self.name, **self.settings, **more}

    def catalog(self, **more: Any) -> dict[str, Any]:
        """What discovery finds, with everything selected."""
        tap = TapPostgres(config=self.config(**more), setup_mapper=False)
        try:
            catalog: dict[str, Any] = json.loads(tap.catalog_json_text)
        finally:
            tap.close()
        return catalog

    def incremental(self, key: str, stream: str | None = None) -> dict[str, Any]:
        """The catalog, with its streams, or one of them, by a replication key."""
        catalog = self.catalog()
        for entry in catalog["streams"]:
            if stream in {None, entry["stream"]}:
                entry |= {"replication_method": "INCREMENTAL", "replication_key": key}
        return catalog

    def log_based(self, *streams: str) -> dict[str, Any]:
        """The catalog, with its streams, or some of them, by the log; the others are not selected."""
        catalog = self.catalog()
        for entry in catalog["streams"]:
            entry["replication_method"] = "LOG_BASED"
            if streams and entry["stream"] not in streams:
                root = next(each for each in entry["metadata"] if not each["breadcrumb"])
                root["metadata"]["selected"] = False
        return catalog

    def sync(
        self,
        state: dict[str, Any] | None = None,
        catalog: dict[str, Any] | None = None,
        before: Callable[[], None] = lambda: None,
        **more: Any,
    ) -> Output:
        """Run it in this process; `before` is called between discovery and the first read."""

        def make() -> TapPostgres:
            tap = TapPostgres(config=self.config(**more), state=state, catalog=catalog)
            before()
            return tap

        self.last = Output([])
        return sync(make, self.last)

    def command(self, config: dict[str, Any], *arguments: str) -> list[str]:
        """The command line of the executable."""
        path = self.folder / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return [sys.executable, "-m", "melisma_tap_postgres.tap", "--config", str(path), *arguments]

    def execute(self, config: dict[str, Any], *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the executable."""
        return subprocess.run(
            self.command(config, *arguments),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )


def service() -> Any:
    """The module that starts servers."""
    path = Path(__file__).parents[2] / "services" / "postgres.py"
    spec = importlib.util.spec_from_file_location("services_postgres", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(start: Callable[[], dict[str, str]]) -> dict[str, str]:
    """A server's address; skips the test where there is no PostgreSQL, but not in CI."""
    try:
        return start()
    except Exception as error:
        if IN_CI or type(error).__name__ != "MissingError":
            raise
        pytest.skip(str(error), allow_module_level=True)


def server() -> dict[str, str]:
    """The server's address; it is started if it does not run."""
    return started(service().start)


@pytest.fixture(scope="session")
def address() -> dict[str, str]:
    """Where the server listens."""
    return server()


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
