"""What `postgres.py` and `mariadb.py` share: a database server that is started once for all who ask.

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
from abc import ABC, abstractmethod
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent.parent / ".cache" / "services"
USER, PASSWORD = "melisma", "melisma-tests"


class MissingError(Exception):
    """Why there is no server."""


class DatabaseServer(ABC):
    """A server from one of Debian's packages.

    Attributes:
        name: of the script, and of the note of what was started.
        product: its name for people.
        package: what installs it.
        owner: the system's user that it runs as, if root starts it.
        first: the program that it cannot be started without.

    Args:
        cache: the folder of the note and of the data.
    """

    name: str
    product: str
    package: str
    owner: str
    first: str

    def __init__(self, cache: Path = CACHE) -> None:
        self._cache = cache
        self._note_path = cache / f"{self.name}.json"

    @abstractmethod
    def path(self) -> str:
        """Where its programs are, in the form of PATH."""

    @abstractmethod
    def launch(self, folder: Path, port: int) -> None:
        """Start it on a port, with its data below a new folder, and wait until it answers.

        Raises:
            MissingError: it does not start.
        """

    @abstractmethod
    def end(self, folder: Path) -> None:
        """End what `launch` started, if it runs."""

    def start(self) -> dict[str, str]:
        """Start the server if it does not run; gives `host`, `port`, `user` and `password`.

        Raises:
            MissingError: it is not installed, or does not start.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        with (self._cache / f"{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self.address() or self._start()

    def _start(self) -> dict[str, str]:
        self.program(self.first)
        self.stop()
        reachable = all(part.stat().st_mode & 0o001 for part in [self._cache, *self._cache.parents])
        folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=self._cache if reachable else None))
        port = free_port()
        self._note_path.write_text(json.dumps({**address_at(port), "folder": str(folder)}), encoding="utf-8")
        try:
            self.launch(folder, port)
        except MissingError:
            self.stop()
            raise
        found = self.address()
        if found is None:
            raise MissingError(f"{self.product} was started and does not answer")
        return found

    def stop(self) -> None:
        """Stop it, and remove its data."""
        note = self._note()
        if note is not None:
            self.end(Path(note["folder"]))
            shutil.rmtree(note["folder"], ignore_errors=True)
            self._note_path.unlink(missing_ok=True)

    def address(self) -> dict[str, str] | None:
        """Where it listens; None if it does not."""
        note = self._note()
        if note is None or not listens(int(note["port"])):
            return None
        return {name: note[name] for name in ("host", "port", "user", "password")}

    def folder(self) -> Path:
        """Where the running server's files are.

        Raises:
            MissingError: it does not run.
        """
        note = self._note()
        if note is None:
            raise MissingError(f"{self.product} is not running")
        return Path(note["folder"])

    def _note(self) -> dict[str, str] | None:
        try:
            found = json.loads(self._note_path.read_text(encoding="utf-8"))
            return {name: found[name] for name in ("host", "port", "user", "password", "folder")}
        except (OSError, ValueError, KeyError):
            return None

    def program(self, name: str) -> str:
        """One of its programs.

        Raises:
            MissingError: it is not installed.
        """
        found = shutil.which(name, path=self.path())
        if found is None:
            raise MissingError(f"{self.product} is not installed: apt-get install {self.package}")
        return found

    def as_owner(self, *command: str) -> list[str]:
        """A command that runs as the server's user where this is root, whom servers refuse to run as."""
        switch = ["setpriv", f"--reuid={self.owner}", f"--regid={self.owner}", "--init-groups"]
        return [*(switch if os.geteuid() == 0 else []), *command]

    def give(self, folder: Path) -> None:
        """Make a folder and what is in it the server's user's."""
        if os.geteuid() == 0:
            owner = pwd.getpwnam(self.owner)
            for path in (folder, *folder.rglob("*")):
                os.chown(path, owner.pw_uid, owner.pw_gid)

    def run(self, *command: str, temporary: Path | None = None) -> None:
        """Run a program as the server's user, with a folder of its own for temporary files where one is given.

        Raises:
            MissingError: it fails.
        """
        environment = {**os.environ, **({} if temporary is None else {"TMPDIR": str(temporary)})}
        # Not into pipes: a server that it starts would keep them open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                self.as_owner(*command), cwd="/", env=environment, stdout=output, stderr=output, check=False
            )
            output.seek(0)
            text = output.read().decode(errors="replace")
        if done.returncode:
            raise MissingError(f"{Path(command[0]).name} fails: {text.strip()[-500:]}")

    def install(self) -> None:
        """Install the server's package, as root and where there is apt-get."""
        if os.geteuid() or shutil.which("apt-get") is None or shutil.which(self.first, path=self.path()):
            return
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", self.package]):
            subprocess.run(["apt-get", *command], check=True, env=environment, stdout=subprocess.DEVNULL)

    def main(self) -> int:
        """Do as the command line says; 1 if there is no server and CI needs one."""
        if sys.argv[1:] == ["stop"]:
            self.stop()
            return 0
        try:
            if sys.argv[1:] == ["start"]:
                self.install()
            found = self.start() if sys.argv[1:] == ["start"] else self.address()
        except MissingError as error:
            sys.stdout.write(f"{self.name:9} {error}\n")
            return 1 if os.environ.get("CI") else 0
        text = "is not running" if found is None else f"{found['host']}:{found['port']}"
        sys.stdout.write(f"{self.name:9} {text}  ({self.product}, from Debian's packages)\n")
        return 0


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether something takes connections there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5):
            return True
    except OSError:
        return False


def address_at(port: int) -> dict[str, str]:
    """The address of a server on this machine."""
    return {"host": "127.0.0.1", "port": str(port), "user": USER, "password": PASSWORD}
