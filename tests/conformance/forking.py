"""Running a target hundreds of times: one process imports it, and every run is a fork of that process.

A run has its own descriptors, environment and exit code, as the executable has; only the second that the imports
take is shared. The process holds nothing but the target (no DuckDB, no pytest), so that there are no threads to fork.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

TOO_LONG = 300
"""Seconds after which a run counts as hanging and is ended by SIGALRM (exit code -14)."""

_IMPORTED_LATE = [
    "email.policy",
    "importlib_metadata._text",
    "melisma.arrow.evolve",
    "melisma.formats.parquet",
    "melisma.lake.lake",
    "melisma.lake.writer",
    "melisma.storage.filesystem",
    "melisma.storage.local",
    "melisma.target.file_sink",
    "melisma.target.load",
    "melisma.target.progress",
    "melisma.target.schema_message",
]
"""What a run would import by itself."""


@dataclass(frozen=True)
class Outcome:
    """What a run gave."""

    exit_code: int
    stdout: bytes
    stderr: str

    def log(self, level: str) -> list[str]:
        """The texts of the log lines of one level."""
        found = []
        for line in self.stderr.splitlines():
            parts = line.split(" | ", 3)
            if len(parts) == 4 and parts[1].strip() == level:
                found.append(parts[3])
        return found


class ForkedTarget:
    """The process that imports a target, and the runs of that target.

    Args:
        plugin: `module:Class` of the target.
    """

    def __init__(self, plugin: str) -> None:
        command = [sys.executable, __file__, plugin]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate(timeout=10)

    def run(self, folder: Path, *arguments: str, data: bytes = b"", env: dict[str, str] | None = None) -> Outcome:
        """Run the target as its executable would be run.

        Args:
            folder: the working directory; gets the files stdin, stdout and stderr.
            arguments: the command line.
            data: the input.
            env: environment variables besides the present ones.
        """
        assert self._server.stdin
        assert self._server.stdout
        (folder / "stdin").write_bytes(data)
        request = {"folder": str(folder), "arguments": arguments, "env": env or {}}
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        exit_code = int(self._server.stdout.readline())
        stderr = (folder / "stderr").read_bytes().decode(errors="backslashreplace")
        return Outcome(exit_code, (folder / "stdout").read_bytes(), stderr)


def _serve(plugin: str) -> None:
    module, _, name = plugin.partition(":")
    for each in [*_IMPORTED_LATE, module]:
        importlib.import_module(each)
    target = getattr(sys.modules[module], name)
    os.fsync = lambda _: None  # no run here is killed, and it takes a third of the time
    gc.freeze()
    for line in iter(sys.stdin.buffer.readline, b""):
        child = os.fork()
        if not child:
            _run(target, **json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _run(target: Any, folder: str, arguments: list[str], env: dict[str, str]) -> NoReturn:
    code: Any = 1
    try:
        signal.alarm(TOO_LONG)
        os.chdir(folder)
        os.environ.update(env)
        for descriptor, name in enumerate(["stdin", "stdout", "stderr"]):
            opened = os.open(name, os.O_RDONLY if not descriptor else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, descriptor)
            os.close(opened)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the one that read requests has a buffer
        sys.argv = [target.name, *arguments]
        target.cli()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    _serve(sys.argv[1])
