"""What a command costs: CPU seconds, wall seconds, peak memory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Command", "Cost", "RunFailed", "run"]

_TAIL = 1_500


@dataclass(frozen=True, slots=True)
class Command:
    """A command line with its files.

    Attributes:
        argv: the program and its arguments.
        stdin: what it reads; nothing by default.
        stdout: where its output goes; nowhere by default.
        environment: variables beside those of this process.
        feeder: a program that writes what it reads, in place of `stdin`; its cost does not count.
    """

    argv: list[str]
    stdin: Path | None = None
    stdout: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    feeder: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run.

    Attributes:
        cpu: user and system seconds of the process and of every process that it started and waited for.
        wall: seconds.
        rss: peak resident bytes of the largest process.
    """

    cpu: float
    wall: float
    rss: int


class RunFailed(Exception):
    """A command failed, or what it wrote is not what was asked for."""


def run(command: Command, log: Path) -> Cost:
    """Run a command to its end.

    This process must stay small: the kernel counts the memory of a process from before its program was loaded.
    Modules may be kept compiled, as they are once a package is installed, whatever this machine says about that.

    Args:
        command: what to run.
        log: where its stderr goes.

    Raises:
        RunFailed: it ended with another exit code than 0.
    """
    stdout = command.stdout or Path(os.devnull)
    with (command.stdin or Path(os.devnull)).open("rb") as read, stdout.open("wb") as write, log.open("wb") as errors:
        feeder = subprocess.Popen(command.feeder, stdout=subprocess.PIPE) if command.feeder else None
        begun = time.perf_counter()
        process = subprocess.Popen(
            command.argv,
            stdin=feeder.stdout if feeder else read,
            stdout=write,
            stderr=errors,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **command.environment},
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
    if feeder and feeder.stdout:
        feeder.stdout.close()
        feeder.wait()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = log.read_bytes()[-_TAIL:].decode(errors="replace")
        raise RunFailed(f"{Path(command.argv[0]).name} ended with {process.returncode}: {tail}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024)
