"""Runs a file target from its command line, target-parquet unless told otherwise, and reads back what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb

__all__ = ["EXECUTABLE", "Message", "Target", "lines", "record", "schema", "state", "wait_for"]

EXECUTABLE = Path(sys.executable).with_name("target-parquet")

Message = dict[str, Any]

MEASURED = """
import pathlib, sys
from melisma_target_parquet.target import TargetParquet
path = sys.argv.pop(1)
try:
    TargetParquet.cli()
finally:
    pathlib.Path(path).write_text(pathlib.Path("/proc/self/status").read_text())
"""
"""The executable, which says at its end how much memory it has had. What a parent can ask for, ru_maxrss, may be the
parent's own."""


def schema(stream: str = "s", properties: Message | None = None, keys: list[str] | None = None, **more: Any) -> Message:
    """A SCHEMA message; an integer `n` unless told otherwise."""
    node = {"type": "object", "properties": properties or {"n": {"type": "integer"}}, **more}
    return {"type": "SCHEMA", "stream": stream, "schema": node, "key_properties": keys or []}


def record(value: Any, stream: str = "s", **more: Any) -> Message:
    """A RECORD message; a plain integer becomes `n`."""
    return {"type": "RECORD", "stream": stream, "record": {"n": value} if isinstance(value, int) else value, **more}


def state(value: Any) -> Message:
    """A STATE message."""
    return {"type": "STATE", "value": value}


class Target:
    """Runs the executable on a lake of its own."""

    def __init__(self, folder: Path, executable: str = "target-parquet") -> None:
        self.lake = folder / "lake"
        self.folder = folder
        self.executable = EXECUTABLE.with_name(executable)
        self.environment: Mapping[str, str] = {}

    def config(self, **settings: Any) -> Path:
        """A configuration file."""
        path = self.folder / "config.json"
        path.write_text(json.dumps({"destination_path": str(self.lake), **settings}))
        return path

    def start(self, *arguments: str, **settings: Any) -> subprocess.Popen[bytes]:
        """Start it with pipes on all sides."""
        command = [str(self.executable), "--config", str(self.config(**settings)), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **self.environment})

    def run(self, messages: Iterable[Message] | bytes, *arguments: str, **settings: Any) -> tuple[int, list[str], str]:
        """Run it to its end: exit code, the lines on stdout, and stderr."""
        data = messages if isinstance(messages, bytes) else lines(messages)
        with self.start(*arguments, **settings) as process:
            out, err = process.communicate(data, timeout=600)
        text = err.decode()
        assert "Traceback" not in text, text
        return process.returncode, out.decode().splitlines(), text

    def peak(self, data: Iterable[bytes], *, code: int = 0, **settings: Any) -> int:
        """Run it to its end, with this exit code; gives the most memory that it has had, in bytes."""
        status = self.folder / "status"
        command = [sys.executable, "-c", MEASURED, str(status), "--config", str(self.config(**settings))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert process.stdin is not None
            for each in data:
                process.stdin.write(each)
            process.stdin.close()
        assert process.returncode == code
        return int(status.read_text().split("VmHWM:")[1].split("kB")[0]) * 1024

    def rows(self, stream: str = "s", columns: str = "*") -> list[tuple[Any, ...]]:
        """What a stream holds, read by DuckDB."""
        if not list((self.lake / stream).rglob("*.parquet")):
            return []
        files = f"read_parquet('{self.lake}/{stream}/**/*.parquet', union_by_name=true, hive_partitioning=true)"
        return list(duckdb.sql(f"SELECT {columns} FROM {files} ORDER BY ALL").fetchall())  # noqa: S608

    def files(self) -> list[Path]:
        """Everything a reader could take for data."""
        return [path for path in self.lake.rglob("*.parquet") if path.is_file()]


def lines(messages: Iterable[Message]) -> bytes:
    """Messages as a tap writes them."""
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def wait_for(what: Callable[[], object]) -> None:
    """Wait until something is so; far longer than it takes on a busy machine."""
    deadline = time.monotonic() + 300
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
