"""Start, stop and list the servers of the storage tests: `make services`, `make services-stop`.

Starting twice is as good as once; what is installed and runs is left as it is. A server that cannot be had here is
noted with the reason, which its tests give when they are skipped; with CI set that is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from servers import CACHE, SERVERS, MissingError, Server, install

STATE = CACHE / "state.json"
PATIENCE = 120  # seconds for a server to listen, on a busy machine


def main() -> int:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(prog="make services", description=__doc__)
    parser.add_argument("action", choices=["start", "stop", "status"])
    action = parser.parse_args().action
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked():
        state = read_state()
        if action == "stop":
            for name in reversed(SERVERS):
                stop(state.pop(name, {}))
            STATE.unlink(missing_ok=True)
            return 0
        if action == "start":
            for name, server in SERVERS.items():
                if not is_up(state.get(name, {})):
                    state[name] = start(name, server, state)
                    STATE.write_text(json.dumps(state, indent=1), encoding="utf-8")
    for name, server in SERVERS.items():
        found = state.get(name, {})
        line = found.get("endpoint") if is_up(found) else found.get("missing", "is not running")
        sys.stdout.write(f"{name:9} {line}  ({server.what})\n")
    missing = [name for name in SERVERS if not is_up(state.get(name, {}))]
    return 1 if missing and (action == "status" or os.environ.get("CI")) else 0


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Only one of us at a time."""
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_state() -> dict[str, dict[str, Any]]:
    """What was started, by name."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(STATE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def start(name: str, server: Server, state: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Install and start one; gives its endpoint and process, or what is missing."""
    begun = time.monotonic()
    try:
        for program in server.needs:
            install(program)
    except MissingError as error:
        return {"missing": str(error)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = server.command(port, {key: found.get("endpoint", "") for key, found in state.items()})
    with (CACHE / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(server.environment or {})},
            start_new_session=True,
        )
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if listens(port):
            scheme = "sftp" if name == "sftp" else "http"
            seconds = round(time.monotonic() - begun, 1)
            address = f"{scheme}://127.0.0.1:{port}"
            return {"endpoint": address, "pid": process.pid, "began": begin_of(process.pid), "seconds": seconds}
        time.sleep(0.1)
    process.kill()
    return {"missing": f"it does not start; see {CACHE / name}.log"}


def listens(port: int) -> bool:
    """Whether something takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def is_up(found: dict[str, Any]) -> bool:
    """Whether the process that was started is there and listens."""
    return is_ours(found) and listens(int(found["endpoint"].rpartition(":")[2]))


def begin_of(pid: int) -> str:
    """When a process began, as the system words it; empty if there is none, or only its remains."""
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    state, _, began = result.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else began.strip()


def is_ours(found: dict[str, Any]) -> bool:
    """Whether the process is the one that was started: its number may be another's by now."""
    return "pid" in found and begin_of(found["pid"]) == found["began"]


def stop(found: dict[str, Any]) -> None:
    """End a process that was started here."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_ours(found):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(found["pid"], number)
        for _ in range(50):
            if not is_ours(found):
                return
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
