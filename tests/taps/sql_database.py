"""A database of a test's own, and the tap on it: what the tests of every database's tap need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from database_server import MissingError

from melisma.tap.tap import ArrowTap

from .output import Output, sync

pytest.register_assert_rewrite(f"{__package__}.sql_replication")  # its asserts say what they found

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


@dataclass
class SQLDatabase(ABC):
    """A database, seen by its owner through a client of another make, and the tap on it."""

    tap: ClassVar[type[Any]]
    address: dict[str, str]
    name: str
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    last: Output = field(default_factory=lambda: Output([]))  # of the last run, whole or not

    @abstractmethod
    def connect(self, **more: Any) -> Any:
        """Another connection to it; each statement is a transaction."""

    @abstractmethod
    def stream(self, table: str) -> str:
        """The name of a table's stream."""

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

    def config(self, **more: Any) -> dict[str, Any]:
        """A configuration for it; None takes a setting out."""
        config = {**self.address, "port": int(self.address["port"]), "database": self.name, **self.settings, **more}
        return {name: value for name, value in config.items() if value is not None}

    def catalog(self, **more: Any) -> dict[str, Any]:
        """What discovery finds, with everything selected."""
        tap = self.tap(config=self.config(**more), setup_mapper=False)
        try:
            catalog: dict[str, Any] = json.loads(tap.catalog_json_text)
        finally:
            tap.close()
        return catalog

    def incremental(self, key: str) -> dict[str, Any]:
        """The catalog, with its streams by a replication key."""
        catalog = self.catalog()
        for entry in catalog["streams"]:
            entry |= {"replication_method": "INCREMENTAL", "replication_key": key}
        return catalog

    def sync(
        self,
        state: dict[str, Any] | None = None,
        catalog: dict[str, Any] | None = None,
        before: Callable[[], None] = lambda: None,
        **more: Any,
    ) -> Output:
        """Run it in this process; `before` is called between discovery and the first read."""

        def make() -> ArrowTap:
            tap: ArrowTap = self.tap(config=self.config(**more), state=state, catalog=catalog)
            before()
            return tap

        self.last = Output([])
        return sync(make, self.last)

    def command(self, config: dict[str, Any], *arguments: str) -> list[str]:
        """The command line of the executable."""
        path = self.folder / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return [sys.executable, "-m", self.tap.__module__, "--config", str(path), *arguments]

    def execute(self, config: dict[str, Any], *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the executable."""
        return subprocess.run(
            self.command(config, *arguments),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )


def started(start: Callable[[], Any]) -> Any:
    """What starts a server gives; skips the test where there is none, but not in CI."""
    try:
        return start()
    except MissingError as error:
        if IN_CI:
            raise
        pytest.skip(str(error), allow_module_level=True)
