"""A MariaDB server of the tests' own, from Debian's packages: `mariadb.py start | stop | address`.

`start` as root installs the package if it is missing (`make services`); the tests themselves install nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from database_server import PASSWORD, USER, DatabaseServer, MissingError, listens

__all__ = ["SERVER", "MariaDB", "MissingError", "start"]

ANSWERS_WITHIN = 120  # seconds; a cold start on a busy machine takes a few


class MariaDB(DatabaseServer):
    """It listens with and without TLS, and keeps a binary log by row."""

    name, product, package, owner, first = "mariadb", "MariaDB", "mariadb-server", "mysql", "mariadbd"

    def path(self) -> str:
        """The server's own folder is in root's path only."""
        return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])

    def launch(self, folder: Path, port: int) -> None:
        """Start it with the settings of the tests.

        A server that starts removes what others have left in its folder for temporary files: each has its own.
        """
        data, temporary = folder / "data", folder / "tmp"
        data.mkdir()
        temporary.mkdir()
        self._certify(folder)
        setup = folder / "setup.sql"
        setup.write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1' WITH GRANT OPTION;\n",
            encoding="utf-8",
        )
        self.give(folder)
        where = ["--no-defaults", f"--datadir={data}"]
        prepare = [*where, "--skip-test-db", "--auth-root-authentication-method=normal"]
        self.run(self.program("mariadb-install-db"), *prepare, temporary=temporary)
        options = [
            *where,
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
        with (folder / "out").open("wb") as output:
            process = subprocess.Popen(
                self.as_owner(self.program("mariadbd"), *options),
                cwd="/",
                env={**os.environ, "TMPDIR": str(temporary)},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        until = time.monotonic() + ANSWERS_WITHIN
        while time.monotonic() < until and process.poll() is None:
            if listens(port):
                return
            time.sleep(0.1)
        process.kill()
        log = folder / "log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        raise MissingError(f"MariaDB was started and does not answer: {text.strip()[-500:]}")

    def end(self, folder: Path) -> None:
        """Kill it."""
        with contextlib.suppress(OSError, ValueError):
            number = int((folder / "data" / "server.pid").read_text(encoding="ascii"))
            if b"mariadbd" in Path(f"/proc/{number}/cmdline").read_bytes():
                os.kill(number, signal.SIGKILL)
                while Path(f"/proc/{number}").exists() and "Z" not in _state(number):
                    time.sleep(0.05)

    def authority(self) -> Path:
        """The certificate that the running server shows, and that vouches for itself."""
        return self.folder() / "server.pem"

    def _certify(self, folder: Path) -> None:
        """A key and a certificate for 127.0.0.1 that is signed with it."""
        command = [self.program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365"]
        names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", str(folder / "server.key"), "-out", str(folder / "server.pem")]
        subprocess.run([*command, *names, *files], check=True, capture_output=True)
        (folder / "server.pem").chmod(0o644)


def _state(number: int) -> str:
    """A process's state, as the kernel writes it: Z for one that has ended and was not waited for."""
    try:
        return Path(f"/proc/{number}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


SERVER = MariaDB()
start = SERVER.start

if __name__ == "__main__":
    sys.exit(SERVER.main())
