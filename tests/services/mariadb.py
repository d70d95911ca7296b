"""A MariaDB server of the tests' own, from Debian's packages: `mariadb.py start | stop | address`.

`start` as root installs the package if it is missing (`make services`); the tests themselves install nothing.

Its data lies below `.cache/services`, where the server's user can reach that, or else in a temporary folder that the
note there names. It listens on a free port of this machine only, with and without TLS, and keeps a binary log by row.
Starting twice is as good as once.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache" / "services"
NOTE = CACHE / "mariadb.json"
USER, PASSWORD = "melisma", "melisma-tests"
PACKAGE = "mariadb-server"
ANSWERS_WITHIN = 120  # seconds; a cold start on a busy machine takes a few


class MissingError(Exception):
    """Why there is no server."""


def start() -> dict[str, str]:
    """Start the server if it does not run; gives `host`, `port`, `user` and `password`.

    Raises:
        MissingError: MariaDB is not installed, or does not start.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "mariadb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = address()
        return found if found is not None else _start()


def stop() -> None:
    """Stop it, and remove its data."""
    note = _note()
    if note is None:
        return
    folder = Path(note["folder"])
    try:
        number = int((folder / "data" / "server.pid").read_text(encoding="ascii"))
        if b"mariadbd" in Path(f"/proc/{number}/cmdline").read_bytes():
            os.kill(number, signal.SIGKILL)
            while Path(f"/proc/{number}").exists() and "Z" not in _state(number):
                time.sleep(0.05)
    except (OSError, ValueError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
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


def authority() -> str:
    """The path of the certificate that the server shows, and that vouches for itself."""
    note = _note()
    if note is None:
        raise MissingError("MariaDB is not running")
    return str(Path(note["folder"]) / "server.pem")


def install() -> None:
    """Install the server's package, as root and where there is apt-get."""
    if os.geteuid() or shutil.which("apt-get") is None or shutil.which("mariadbd", path=_path()):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", PACKAGE]):
        subprocess.run(["apt-get", *command], check=True, env=environment, stdout=subprocess.DEVNULL)


def _start() -> dict[str, str]:
    server, prepare = _program("mariadbd"), _program("mariadb-install-db")
    stop()
    folder = Path(tempfile.mkdtemp(prefix="mariadb-", dir=CACHE if _reachable(CACHE) else None))
    data, temporary = folder / "data", folder / "tmp"
    data.mkdir()
    temporary.mkdir()
    _certificate(folder)
    setup = folder / "setup.sql"
    setup.write_text(
        f"CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
        f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1' WITH GRANT OPTION;\n",
        encoding="utf-8",
    )
    if os.geteuid() == 0:
        owner = pwd.getpwnam("mysql")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _as_server(
        prepare,
        "--no-defaults",
        f"--datadir={data}",
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
        temporary=temporary,
    )
    options = [
        "--no-defaults",
        f"--datadir={data}",
        f"--init-file={setup}",
        f"--socket={folder / 'socket'}",
        "--bind-address=127.0.0.1",
        f"--port={port}",
        "--skip-name-resolve",
        "--pid-file=server.pid",
        f"--log-error={folder / 'log'}",
        f"--ssl-cert={folder / 'server.pem'}",
        f"--ssl-key={folder / 'server.key'}",
        "--server-id=1",
        "--log-bin=log",
        "--binlog-format=ROW",
        "--binlog-row-image=FULL",
        "--binlog-row-metadata=FULL",
        "--character-set-server=utf8mb4",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-buffer-pool-size=128M",
        "--sync-binlog=0",
        "--max-connections=100",
        "--max-allowed-packet=64M",
    ]
    as_user = _as_user()
    with (folder / "out").open("wb") as output:
        process = subprocess.Popen(
            [*as_user, server, *options],
            cwd="/",
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    note = {"host": "127.0.0.1", "port": str(port), "user": USER, "password": PASSWORD, "folder": str(folder)}
    NOTE.write_text(json.dumps(note), encoding="utf-8")
    until = time.monotonic() + ANSWERS_WITHIN
    while time.monotonic() < until:
        found = address()
        if found is not None:
            return found
        if process.poll() is not None:
            break
        time.sleep(0.1)
    log = folder / "log"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    raise MissingError(f"MariaDB was started and does not answer: {text.strip()[-500:]}")


def _certificate(folder: Path) -> None:
    """A key and a certificate for 127.0.0.1 that is signed with it."""
    command = [_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "server.key"), "-out", str(folder / "server.pem")]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    (folder / "server.pem").chmod(0o644)


def _program(name: str) -> str:
    found = shutil.which(name, path=_path())
    if found is None:
        raise MissingError(f"MariaDB is not installed: apt-get install {PACKAGE}")
    return found


def _path() -> str:
    """Where programs are; the server's own folder is in root's path only."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])


def _as_user() -> list[str]:
    return ["setpriv", "--reuid=mysql", "--regid=mysql", "--init-groups"] if os.geteuid() == 0 else []


def _as_server(*command: str, temporary: Path) -> None:
    """Run a program as the user that the server is to run as, which root is not.

    A server that starts removes what others have left in its folder for temporary files: each has its own.
    """
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [*_as_user(), *command], cwd="/", env=environment, stdout=output, stderr=output, check=False
        )
        output.seek(0)
        text = output.read().decode(errors="replace")
    if done.returncode:
        raise MissingError(f"{Path(command[0]).name} fails: {text.strip()[-500:]}")


def _state(number: int) -> str:
    """A process's state, as the kernel writes it: Z for one that has ended and was not waited for."""
    try:
        return Path(f"/proc/{number}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


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
        sys.stdout.write(f"mariadb   {error}\n")
        return 1 if os.environ.get("CI") else 0
    text = "is not running" if found is None else f"{found['host']}:{found['port']}"
    sys.stdout.write(f"mariadb   {text}  (MariaDB, from Debian's packages)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
