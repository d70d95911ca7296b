"""Taps and targets as processes that can be killed: forks of a process that has imported them, or the executables.

A fork has its own descriptors, environment and exit code, as the executable has; only the second that the imports
take is shared. The process that forks holds no threads: what reads a lake back runs in a fork as well.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOO_LONG = 120.0
"""Seconds after which a run counts as hanging."""

CHECKPOINT_EVERY = 12
"""Entries between two checkpoints in forked targets, so that checkpoints and pruning happen within a few runs."""


@dataclass
class Program:
    """What is run: an executable, or a function of this process.

    Attributes:
        command: the executable and its arguments; the arguments alone for a function.
        main: what a fork calls with `sys.argv` set; None for an executable.
        env: environment variables besides the present ones.
    """

    command: list[str]
    main: Callable[[], Any] | None = None
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Blow:
    """A signal, so many seconds after the start of the run, or after the journal's next entries.

    Attributes:
        victims: `target`, `tap`, or both.
        signal: its number.
        after: seconds.
        entry: count `after` from the moment when that many entries have been added to the journal; 0: from the start.
    """

    victims: tuple[str, ...]
    signal: int
    after: float
    entry: int = 0


@dataclass
class Ended:
    """What became of a run.

    Attributes:
        target: exit code; negative for a signal.
        tap: likewise.
        lines: whole lines that the target has printed.
        seconds: how long it took.
    """

    target: int
    tap: int
    lines: list[bytes]
    seconds: float


def start(program: Program, stdin: int, stdout: int, stderr: int) -> int:
    """Start a process with these descriptors; its id."""
    if program.main is None:
        environment = {**os.environ, **program.env}
        actions = [(os.POSIX_SPAWN_DUP2, each, number) for number, each in enumerate([stdin, stdout, stderr])]
        return os.posix_spawn(program.command[0], program.command, environment, file_actions=actions)
    child = os.fork()
    if child:
        return child
    code: Any = 1
    try:
        for number, descriptor in enumerate([stdin, stdout, stderr]):
            os.dup2(descriptor, number)
        os.closerange(3, 256)
        os.environ.update(program.env)
        _aim_failpoint()
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the one there was may hold a buffer
        sys.argv = program.command
        program.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


def _aim_failpoint() -> None:
    """What importing the modules would have done with the environment."""
    from melisma.lake import failpoints, journal
    from melisma.wire.blocks import BlockReader

    failpoints.aim(os.environ.get("MELISMA_FAILPOINT", ""))
    journal.CHECKPOINT_EVERY, journal.KEEP = CHECKPOINT_EVERY, 2 * CHECKPOINT_EVERY
    reader: Any = BlockReader.__init__
    reader.__kwdefaults__["idle_seconds"] = 0.02


def pipe(tap: Program, target: Program, log: Path, blow: Blow | None = None, journal: Path | None = None) -> Ended:
    """`tap | target`: run to the end, with a blow in between; what is started is waited for."""
    began = time.monotonic()
    between, from_target = os.pipe(), os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    stderr = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pids = {
        "target": start(target, between[0], from_target[1], stderr),
        "tap": start(tap, nothing, between[1], stderr),
    }
    for descriptor in (between[0], between[1], from_target[1], nothing, stderr):
        os.close(descriptor)
    codes: dict[str, int] = {}
    printed = b""
    clock = began
    entries = _entries(journal)
    pending = blow
    open_ = True
    while len(codes) < 2 or open_:
        now = time.monotonic()
        if now - began > TOO_LONG:
            for name in pids.keys() - codes.keys():
                os.kill(pids[name], signal.SIGKILL)
            raise TimeoutError(f"a run hangs: {log}")
        if pending is not None and pending.entry and _entries(journal) >= entries + pending.entry:
            pending = Blow(pending.victims, pending.signal, pending.after)
            clock = now
        if pending is not None and not pending.entry and now >= clock + pending.after:
            for name in pending.victims:
                if name not in codes:  # not waited for, so the id is still its own
                    os.kill(pids[name], pending.signal)
            pending = None
        wait = 0.0005 if pending is not None else 0.01
        if open_:
            if select.select([from_target[0]], [], [], wait)[0]:
                chunk = os.read(from_target[0], 65536)
                printed += chunk
                open_ = bool(chunk)
        else:
            time.sleep(wait)
        for name in pids.keys() - codes.keys():
            done, status = os.waitpid(pids[name], os.WNOHANG)
            if done:
                codes[name] = os.waitstatus_to_exitcode(status)
    os.close(from_target[0])
    lines = printed.split(b"\n")[:-1]
    return Ended(codes["target"], codes["tap"], lines, time.monotonic() - began)


def output_of(program: Program, log: Path) -> bytes:
    """What a program prints; it must succeed."""
    ends = os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    stderr = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pid = start(program, nothing, ends[1], stderr)
    for descriptor in (ends[1], nothing, stderr):
        os.close(descriptor)
    text = b""
    while chunk := os.read(ends[0], 65536):
        text += chunk
    os.close(ends[0])
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"{program.command} exits with {os.waitstatus_to_exitcode(status)}: {log}")
    return text


def _entries(journal: Path | None) -> int:
    """The highest number in a journal on disk; 0 without one."""
    if journal is None:
        return 0
    try:
        return max((int(entry.name[:20]) for entry in os.scandir(journal) if entry.name[0] != "."), default=0)
    except OSError:
        return 0
