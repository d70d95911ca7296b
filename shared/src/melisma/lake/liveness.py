"""Whether the run that a journal shows as under way is still alive.

Only to be polite: a run that is wrongly taken for dead is fenced and loses nothing that it committed.
No clock is compared with another machine's: a heartbeat is alive if it changes while we watch.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from melisma.errors import MelismaError, StorageError
from melisma.lake.objects import NoReply
from melisma.lake.records import Process

if TYPE_CHECKING:
    from collections.abc import Callable

    from melisma.lake.objects import Objects

__all__ = ["INTERVAL", "Heartbeat", "PipelineBusy", "beats", "is_gone", "same_kernel", "this_process"]

INTERVAL = 10.0
"""Seconds between two heartbeats."""

_log = logging.getLogger(__name__)


class PipelineBusy(MelismaError):
    """Another run of the pipeline is under way."""

    def __init__(self, pipeline: str) -> None:
        super().__init__(
            f'pipeline "{pipeline}": another run is under way, and two would load the same rows. '
            "Wait for it to end, or give this one a pipeline of its own"
        )


def this_process() -> Process:
    """This process, in terms with which another one on the same machine can look for it."""
    pid = os.getpid()
    return Process(host=platform.node(), boot=_boot(), pid_namespace=_namespace(), pid=pid, started=_started(pid))


def same_kernel(process: Process) -> bool:
    """Whether `process` ran since this machine was started, so that this kernel knew of its locks."""
    return bool(process.boot) and process.boot == _boot()


def is_gone(process: Process) -> bool:
    """Whether `process` certainly no longer runs: this machine, this boot, the same view of it, and not there."""
    if not same_kernel(process) or process.host != platform.node() or process.pid_namespace != _namespace():
        return False
    return _started(process.pid) != process.started


def beats(objects: Objects, key: str, pause: Callable[[float], None], interval: float = INTERVAL) -> bool:
    """Watch a heartbeat for two and a half intervals: whether it changes."""
    before = objects.get(key)
    for _ in range(5):
        pause(interval / 2)
        if objects.get(key) != before:
            return True
    return False


class Heartbeat:
    """Says that this run is alive, in an object that changes every `interval` seconds.

    A failed beat is no failure of the run: the worst that follows is that the run is fenced.
    """

    def __init__(self, objects: Objects, key: str, run: str, interval: float = INTERVAL) -> None:
        self._objects, self._key, self._run, self._interval = objects, key, run, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="melisma-heartbeat", daemon=True)

    def start(self) -> None:
        """Beat once, then go on in the background."""
        self._put(0)
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat(self) -> None:
        count = 0
        while not self._stop.wait(self._interval):
            count += 1
            self._put(count)

    def _put(self, count: int) -> None:
        try:
            self._objects.put(self._key, f'{{"run": "{self._run}", "beat": {count}}}\n'.encode())
        except (NoReply, StorageError):
            _log.debug("heartbeat not written", exc_info=True)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - not a path: "pid:[4026531836]"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process was started, in its kernel's ticks; empty if it is not there."""
    try:
        # The second field is the program's name in brackets and may hold anything; the 22nd is the start time.
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
