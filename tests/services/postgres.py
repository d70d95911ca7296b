"""A PostgreSQL server of the tests' own, from Debian's packages: `postgres.py start | stop | address`.

`start` as root installs the package if it is missing (`make services`); the tests themselves install nothing.

Its data lies below `.cache/services`, where the server's user can reach that, or else in a temporary folder that the
note there names. It listens on a free port of this machine only. Starting twice is as good as once.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache" / "services"
NOTE = CACHE / "postgres.json"
USER, PASSWORD = "melisma", "melisma-tests"
PACKAGE = "postgresql"


class MissingError(Exception):
    """Why there is no server."""


def start() -> dict[str, str]:
    """Start the server if it does not run; gives `host`, `port`, `user` and `password`.

    Raises:
        MissingError: PostgreSQL is not installed, or does not start.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "postgres.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = address()
        return found if found is not None else _start()


def stop() -> None:
    """Stop it, and remove its data."""
    note = _note()
    if note is not None:
        stop_cluster(note["data"])
        NOTE.unlink(missing_ok=True)


def address() -> dict[str, str] | None:
    """Where it listens; None if it does not."""
    note = _note()
    if note is None:
        return None
    try:
        with socket.create_connection((note["host"], int(note["port"])), 5):
            return {name: note[name] for name in ("host", "port", "user", "password")}
    except OSError:
        return None


def install() -> None:
    """Install the server's package, as root and where there is apt-get."""
    if os.geteuid() or shutil.which("apt-get") is None or any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", PACKAGE]):
        subprocess.run(["apt-get", *command], check=True, env=environment, stdout=subprocess.DEVNULL)


def _start() -> dict[str, str]:
    stop()
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=CACHE if _reachable(CACHE) else None))
    note = start_cluster(folder, {"wal_level": "logical", "max_connections": "50"})
    NOTE.write_text(json.dumps(note), encoding="utf-8")
    found = address()
    if found is None:
        raise MissingError("PostgreSQL was started and does not answer")
    return found


def start_cluster(folder: Path, settings: dict[str, str], rules: str = "") -> dict[str, str]:
    """Make a server's data below a folder that its user can reach, and start it.

    Args:
        folder: an empty one.
        settings: beside those of address and port.
        rules: its pg_hba.conf; by default a password is asked for.

    Raises:
        MissingError: PostgreSQL is not installed, or does not start.
    """
    data = folder / "data"
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        for path in [folder, *folder.iterdir()]:
            os.chown(path, owner.pw_uid, owner.pw_gid)
    secret = folder / "password"
    secret.write_text(PASSWORD, encoding="utf-8")
    secret.chmod(0o644)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
    _as_server(_program("initdb"), "-D", str(data), "-U", USER, *options)
    if rules:
        (data / "pg_hba.conf").write_text(rules, encoding="utf-8")
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "off",
        **settings,
    }
    arguments = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
    _as_server(
        _program("pg_ctl"), "-D", str(data), "-l", str(folder / "log"), "-w", "-t", "120", "-o", arguments, "start"
    )
    return {"host": "127.0.0.1", "port": str(port), "user": USER, "password": PASSWORD, "data": str(data)}


def stop_cluster(data: str) -> None:
    """Stop a server, and remove its folder."""
    _as_server(_program("pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop", check=False)
    shutil.rmtree(Path(data).parent, ignore_errors=True)


def _program(name: str) -> str:
    """One of the server's programs; Debian keeps them beside the version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    found = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))
    if found is None:
        raise MissingError(f"PostgreSQL is not installed: apt-get install {PACKAGE}")
    return found


def _as_server(*command: str, check: bool = True) -> None:
    """Run a program as a user that the server agrees to run as, which root is not."""
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
    # Not into pipes: the server would keep them open.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run([*as_user, *command], cwd="/", stdout=output, stderr=output, check=False)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if check and done.returncode:
        raise MissingError(f"{Path(command[0]).name} fails: {text.strip()[-500:]}")


def _reachable(folder: Path) -> bool:
    """Whether every user can go into the folder."""
    return all(part.stat().st_mode & 0o001 for part in [folder, *folder.parents])


def _note() -> dict[str, str] | None:
    try:
        found: dict[str, str] = json.loads(NOTE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def main() -> int:
    """Do as the command line says; 1 if there is no server and CI needs one."""
    if sys.argv[1:] == ["stop"]:
        stop()
        return 0
    try:
        if sys.argv[1:] == ["start"]:
            install()
        found = start() if sys.argv[1:] == ["start"] else address()
    except MissingError as error:
        sys.stdout.write(f"postgres  {error}\n")
        return 1 if os.environ.get("CI") else 0
    text = "is not running" if found is None else f"{found['host']}:{found['port']}"
    sys.stdout.write(f"postgres  {text}  (PostgreSQL, from Debian's packages)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
