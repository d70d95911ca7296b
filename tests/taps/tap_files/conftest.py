"""Running tap-files on files of the test's own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from melisma_tap_files.tap import TapFiles


@dataclass
class Output:
    """What a run wrote."""

    messages: list[dict[str, Any]]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records, of whichever stream."""
        return [m["record"] for m in self.messages if m["type"] == "RECORD"]

    @property
    def schema(self) -> dict[str, Any]:
        """The first stream's columns."""
        found: dict[str, Any] = next(m["schema"]["properties"] for m in self.messages if m["type"] == "SCHEMA")
        return found

    @property
    def state(self) -> dict[str, Any]:
        """The last STATE."""
        found: dict[str, Any] = [m["value"] for m in self.messages if m["type"] == "STATE"][-1]
        return found


@dataclass
class Runner:
    """A folder of files, and the tap on it."""

    folder: Path

    def write(self, name: str, text: str | bytes, *, mtime: float | None = None) -> Path:
        """Write a file; `mtime` is its time of change."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        if mtime is not None:
            os.utime(path, (mtime, mtime))
        return path

    def config(self, pattern: str, stream: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
        """A configuration with one stream, `s`."""
        return {"streams": [{"name": "s", "path": str(self.folder / pattern), **(stream or {})}], **settings}

    def catalog(self, config: dict[str, Any]) -> dict[str, Any]:
        """What discovery finds, with everything selected."""
        catalog: dict[str, Any] = json.loads(TapFiles(config=config, setup_mapper=False).catalog_json_text)
        return catalog

    def sync(
        self, config: dict[str, Any], state: dict[str, Any] | None = None, catalog: dict[str, Any] | None = None
    ) -> Output:
        """Run it in this process."""
        output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        with contextlib.redirect_stdout(output):
            TapFiles(config=config, state=state, catalog=catalog).sync_all()
        output.seek(0)
        return Output([json.loads(line, parse_float=Decimal) for line in output])

    def execute(self, config: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the executable."""
        return subprocess.run(self.command(config, *arguments), capture_output=True, text=True, check=False)

    def command(self, config: dict[str, Any], *arguments: str) -> list[str]:
        """The command line of the executable."""
        path = self.folder.parent / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return [sys.executable, "-m", "melisma_tap_files.tap", "--config", str(path), *arguments]


@pytest.fixture
def files(tmp_path: Path) -> Runner:
    """An empty folder, and the tap on it."""
    folder = tmp_path / "files"
    folder.mkdir()
    return Runner(folder)


Write = Callable[..., Path]
