"""A small lake, written by three runs of a target, and the command line in this process."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from melisma.lake_cli.main import commands

BIN = Path(sys.executable).parent
COLUMNS = {
    "id": {"type": "integer"},
    "customer": {"type": ["string", "null"]},
    "country": {"type": "string"},
    "total": {"type": "number", "multipleOf": 0.01},
}
WIDER = {**COLUMNS, "discount": {"type": "number"}}


def order(number: int, **more: Any) -> dict[str, Any]:
    """A record: odd ones go to Germany, even ones to France."""
    country = "de" if number % 2 else "fr"
    return {"id": number, "customer": f"c{number}", "country": country, "total": number * 1.5, **more}


def state(number: int) -> dict[str, Any]:
    """Where a tap of orders stands after a number."""
    return {"bookmarks": {"orders": {"replication_key": "id", "replication_key_value": number}}}


def messages(start: int, rows: Sequence[dict[str, Any]], end: int, columns: dict[str, Any]) -> list[dict[str, Any]]:
    """What a tap of orders sends that starts from a STATE and says so."""
    schema = {"type": "object", "properties": columns}
    return [
        *([{"type": "STATE", "value": state(start)}] if start else []),
        {"type": "SCHEMA", "stream": "orders", "schema": schema, "key_properties": ["id"]},
        *({"type": "RECORD", "stream": "orders", "record": row} for row in rows),
        {"type": "STATE", "value": state(end)},
    ]


RUNS = (
    messages(0, [order(n) for n in range(1, 5)], 4, COLUMNS),
    messages(4, [order(n) for n in range(5, 9)], 8, COLUMNS),
    messages(8, [order(n, discount=0.1) for n in range(8, 11)], 10, WIDER),  # order 8 was changed: it comes again
)


@dataclass
class Result:
    """How a command ended."""

    code: int
    out: str
    errors: list[str]

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


class Lake:
    """A lake in a folder of its own, and the commands on it."""

    def __init__(self, folder: Path, caplog: pytest.LogCaptureFixture | None = None) -> None:
        self.folder, self.root, self._caplog = folder, folder / "lake", caplog

    def load(self, lines: Sequence[dict[str, Any]], *, pipeline: str = "shop") -> tuple[int, str]:
        """A run of the target: its exit code and what it wrote to stderr."""
        config = self.config(pipeline)
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        command = [str(BIN / "target-parquet"), "--config", str(config)]
        result = subprocess.run(command, input=data, capture_output=True, check=False, cwd=self.folder)
        return result.returncode, result.stderr.decode()

    def config(self, pipeline: str = "shop") -> Path:
        """The target's configuration file."""
        path = self.folder / "target.json"
        settings = {"destination_path": "lake", "pipeline": pipeline, "partition_by": ["country"]}
        path.write_text(json.dumps(settings))
        return path

    def run(self, *arguments: str) -> Result:
        """`melisma lake <arguments> --path <this lake>`, in this process."""
        return self.call("lake", *arguments, "--path", str(self.root))

    def call(self, *arguments: str) -> Result:
        """`melisma <arguments>`, in this process."""
        assert self._caplog is not None
        self._caplog.clear()
        result = CliRunner().invoke(commands, list(arguments))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        records = self._caplog.records
        errors = [r.getMessage() for r in records if r.name == "melisma" and r.levelno >= logging.WARNING]
        return Result(result.exit_code, result.stdout, errors)

    def files(self) -> list[Path]:
        """Everything that a reader could take for data."""
        return sorted(self.root.rglob("*.parquet"))

    def everything(self) -> dict[str, bytes]:
        """Every file with its content; locks come and go."""
        found = (path for path in self.root.rglob("*") if path.is_file() and path.name != "lock")
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}
