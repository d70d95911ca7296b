"""A PostgreSQL server of the tests' own, from Debian's packages: `postgres.py start | stop | address`.

`start` as root installs the package if it is missing (`make services`); the tests themselves install nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from database_server import PASSWORD, USER, DatabaseServer, MissingError

__all__ = ["SERVER", "MissingError", "Postgres", "start"]


class Postgres(DatabaseServer):
    """It keeps a log that can be decoded."""

    name, product, package, owner, first = "postgres", "PostgreSQL", "postgresql", "postgres", "initdb"

    def path(self) -> str:
        """Debian keeps the programs beside the version."""
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
        return os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])

    def launch(self, folder: Path, port: int) -> None:
        """Start it with the settings of the tests."""
        self.start_cluster(folder, port, {"wal_level": "logical", "max_connections": "50"})

    def start_cluster(self, folder: Path, port: int, settings: Mapping[str, str], rules: str = "") -> None:
        """Make a server's data below a folder that its user can reach, and start it.

        Args:
            folder: without data.
            port: a free one.
            settings: beside those of address and port.
            rules: its pg_hba.conf; by default a password is asked for.

        Raises:
            MissingError: PostgreSQL is not installed, or does not start.
        """
        data = folder / "data"
        self.give(folder)
        secret = folder / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        secret.chmod(0o644)
        options = ["--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        self.run(self.program("initdb"), "-D", str(data), "-U", USER, *options)
        if rules:
            (data / "pg_hba.conf").write_text(rules, encoding="utf-8")
        place = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": "", "fsync": "off"}
        arguments = " ".join(f"-c {name}='{value}'" for name, value in {**place, **settings}.items())
        start = ["-l", str(folder / "log"), "-w", "-t", "120", "-o", arguments, "start"]
        self.run(self.program("pg_ctl"), "-D", str(data), *start)

    def end(self, folder: Path) -> None:
        """Stop it at once."""
        with contextlib.suppress(MissingError):  # it does not run
            self.run(self.program("pg_ctl"), "-D", str(folder / "data"), "-m", "immediate", "-w", "stop")


SERVER = Postgres()
start = SERVER.start

if __name__ == "__main__":
    sys.exit(SERVER.main())
