"""Running tap-duckdb on database files of the test's own."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from melisma_tap_duckdb.tap import TapDuckDB

from ..output import Output, sync


@dataclass
class Runner:
    """A folder, and the tap on files in it."""

    folder: Path

    def duckdb(self, *statements: str, name: str = "shop.duckdb") -> str:
        """Run statements on a DuckDB file; gives its path."""
        with duckdb.connect(self.folder / name) as connection:
            for statement in statements:
                connection.execute(statement)
        return str(self.folder / name)

    def sqlite(self, *statements: str, name: str = "shop.sqlite") -> str:
        """Run statements on a SQLite file; gives its path."""
        with contextlib.closing(sqlite3.connect(self.folder / name)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        return str(self.folder / name)

    def catalog(self, config: dict[str, Any]) -> dict[str, Any]:
        """What discovery finds, with everything selected."""
        tap = TapDuckDB(config=config, setup_mapper=False)
        catalog: dict[str, Any] = json.loads(tap.catalog_json_text)
        tap.close()
        return catalog

    def sync(
        self, config: dict[str, Any], state: dict[str, Any] | None = None, catalog: dict[str, Any] | None = None
    ) -> Output:
        """Run it in this process."""
        return sync(lambda: TapDuckDB(config=config, state=state, catalog=catalog))

    def command(self, config: dict[str, Any], *arguments: str) -> list[str]:
        """The command line of the executable."""
        path = self.folder / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return [sys.executable, "-m", "melisma_tap_duckdb.tap", "--config", str(path), *arguments]

    def execute(self, config: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the executable."""
        return subprocess.run(self.command(config, *arguments), capture_output=True, text=True, check=False)


@pytest.fixture
def tap(tmp_path: Path) -> Runner:
    """An empty folder, and the tap on it."""
    return Runner(tmp_path)


def query(sql: str, **more: Any) -> dict[str, Any]:
    """A configuration with one query, `q`."""
    return {"queries": [{"name": "q", "sql": sql, **more}]}
