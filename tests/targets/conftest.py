"""The executable target-parquet on a lake of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

EXECUTABLE = Path(sys.executable).with_name("target-parquet")


class EvolvingLake:
    """A lake, and runs into it: each with one schema, its records and a STATE."""

    def __init__(self, folder: Path) -> None:
        self.root, self.folder = folder / "lake", folder

    def run(self, data: bytes, *arguments: str, **settings: Any) -> tuple[int, list[str], str]:
        """Exit code, the lines on stdout, and stderr."""
        config = self.folder / "config.json"
        config.write_text(json.dumps({"destination_path": str(self.root), **settings}))
        command = [str(EXECUTABLE), "--config", str(config), *arguments]
        done = subprocess.run(command, input=data, capture_output=True, timeout=120, check=False)
        err = done.stderr.decode()
        assert "Traceback" not in err, err
        return done.returncode, done.stdout.decode().splitlines(), err

    def load(
        self,
        properties: dict[str, Any],
        records: Iterable[dict[str, Any]],
        *,
        keys: tuple[str, ...] = (),
        bookmark: str = "",
        **settings: Any,
    ) -> tuple[int, str]:
        """One run of the stream `s`, with a STATE at its end; exit code and stderr."""
        records = list(records)
        data = self.messages(properties, records, keys=keys, bookmark=bookmark)
        if bookmark:
            data += self.state(bookmark, records[-1][bookmark])
        code, _, err = self.run(data, **settings)
        return code, err

    @staticmethod
    def messages(
        properties: dict[str, Any],
        records: Iterable[dict[str, Any]],
        *,
        keys: tuple[str, ...] = (),
        bookmark: str = "",
    ) -> bytes:
        """SCHEMA and RECORDs of the stream `s`, and a STATE if it has no bookmark property."""
        lines: list[dict[str, Any]] = [
            {
                "type": "SCHEMA",
                "stream": "s",
                "schema": {"type": "object", "properties": properties},
                "key_properties": list(keys),
                **({"bookmark_properties": [bookmark]} if bookmark else {}),
            }
        ]
        lines += [{"type": "RECORD", "stream": "s", "record": each} for each in records]
        lines += [] if bookmark else [{"type": "STATE", "value": {"done": True}}]
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    @staticmethod
    def state(bookmark: str, value: Any) -> bytes:
        """A STATE with the bookmark of the stream `s`."""
        known = {"replication_key": bookmark, "replication_key_value": value}
        return json.dumps({"type": "STATE", "value": {"bookmarks": {"s": known}}}).encode() + b"\n"

    def files(self, stream: str = "s") -> list[Path]:
        """The stream's files, oldest first."""
        return sorted((self.root / stream).rglob("*.parquet"), key=lambda path: path.name)

    def letters(self, stream: str = "s") -> list[Path]:
        """The stream's files of dead letters."""
        return sorted((self.root / "_melisma/default/dead_letters" / stream).glob("*"))

    def commits(self) -> list[dict[str, Any]]:
        """The journal's entries, oldest first."""
        return [json.loads(each.read_text()) for each in sorted((self.root / "_melisma/default/journal").iterdir())]


@pytest.fixture
def lake(tmp_path: Path) -> EvolvingLake:
    """An empty lake."""
    return EvolvingLake(tmp_path)
