"""By SSH: a server of asyncssh that leads to the database, and what it asks for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from melisma.errors import ConfigError, DatabaseError
from melisma_tap_postgres import tunnel

KNOWN = "of the guide"


@dataclass
class Ssh:
    """A server with one user, who has a key with a password, and a password.

    Attributes:
        asked: where it was asked to lead to.
        clients: the connections that are open.
    """

    folder: Path
    port: int = 0
    asked: list[tuple[str, int]] = field(default_factory=list)
    clients: list[asyncssh.SSHServerConnection] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop | None = None

    def settings(self, **more: Any) -> dict[str, Any]:
        """The setting for the user's key."""
        return {
            "enable": True,
            "host": "127.0.0.1",
            "port": self.port,
            "username": "guide",
            "private_key": str(self.folder / "key"),
            "private_key_password": KNOWN,
            "known_hosts": str(self.folder / "known_hosts"),
            **more,
        }

    def drop(self) -> None:
        """End all connections."""
        assert self.loop is not None
        for client in self.clients[:]:
            self.loop.call_soon_threadsafe(client.abort)

    async def serve(self, started: threading.Event, end: asyncio.Event) -> None:
        """Serve."""
        host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        (self.folder / "key").write_bytes(user_key.export_private_key(passphrase=KNOWN))
        allowed = asyncssh.import_authorized_keys(user_key.export_public_key().decode())
        ssh = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                ssh.clients.append(conn)

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == ("guide", KNOWN)

            def connection_requested(self, dest_host: str, dest_port: int, *_: Any) -> bool:
                ssh.asked.append((dest_host, dest_port))
                return True

        listener = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Server, server_host_keys=[host_key], authorized_client_keys=allowed
        )
        self.port, self.loop = listener.get_port(), asyncio.get_running_loop()
        line = f"[127.0.0.1]:{self.port} {host_key.export_public_key().decode()}"
        (self.folder / "known_hosts").write_text(line, encoding="utf-8")
        started.set()
        await end.wait()
        listener.close()


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ssh]:
    """The server."""
    monkeypatch.setattr(tunnel, "_open", {})  # those of other tests lead elsewhere
    server, started, ends = Ssh(tmp_path), threading.Event(), []

    async def run() -> None:
        ends.append(asyncio.Event())
        await server.serve(started, ends[0])

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert started.wait(30)
    yield server
    assert server.loop is not None
    server.loop.call_soon_threadsafe(ends[0].set)
    thread.join()


@pytest.fixture
def table(database: Any) -> Any:
    """A database with a table."""
    database.run("CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    return database


def test_the_database_is_reached_by_the_tunnel(table: Any, ssh: Ssh) -> None:
    """Tables and log, by a key that is in a file or in the setting, or by a password."""
    output = table.sync(ssh_tunnel=ssh.settings(), default_replication_method="LOG_BASED")
    assert output.records()[0]["id"] == 1
    assert set(ssh.asked) == {(table.address["host"], int(table.address["port"]))}
    assert len(ssh.asked) >= 3  # the tables', the snapshot's and the log's connections
    assert len(ssh.clients) == 1
    key = (ssh.folder / "key").read_text(encoding="utf-8")
    ways = [{"private_key": key}, {"private_key": "", "password": KNOWN}]
    for way in ways:
        tunnel._open.clear()
        assert table.sync(ssh_tunnel=ssh.settings(**way)).records() == [{"id": 1}]
    url = f"postgresql://{table.address['user']}:{table.address['password']}@127.0.0.1:{table.address['port']}/{table.name}"
    assert table.sync(sqlalchemy_url=url, ssh_tunnel=ssh.settings()).records() == [{"id": 1}]


def test_a_tunnel_that_drops_is_made_again(table: Any, ssh: Ssh) -> None:
    """At the same port, and the run goes on."""
    state = table.sync(ssh_tunnel=ssh.settings(), default_replication_method="LOG_BASED").state
    table.run("INSERT INTO t VALUES (2)")
    again = table.sync(
        state, before=ssh.drop, ssh_tunnel=ssh.settings(), default_replication_method="LOG_BASED", connect_retries=8
    )
    assert [record["id"] for record in again.records()] == [2]
    assert len(ssh.clients) == 2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"private_key": "", "password": "wrong"}, ConfigError, "the SSH server refuses the user"),
        ({"private_key_password": "wrong"}, ConfigError, "no private key that can be read"),
        ({"private_key": "nowhere"}, ConfigError, "no private key that can be read"),
        ({"known_hosts": "nowhere"}, ConfigError, '"ssh_tunnel.known_hosts": there is no such file'),
        ({"host": ""}, ConfigError, '"ssh_tunnel.host": must be set'),
        ({"port": 1}, DatabaseError, "the SSH server cannot be reached"),
    ],
)
def test_what_is_wrong_is_said(table: Any, ssh: Ssh, change: dict[str, Any], error: type, message: str) -> None:
    """In one line, with the setting."""
    with pytest.raises(error, match=message):
        table.sync(ssh_tunnel=ssh.settings(**change))


def test_an_unknown_ssh_server_is_refused(table: Any, ssh: Ssh) -> None:
    """Its key has to be known: whoever answers would see the password."""
    (ssh.folder / "known_hosts").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="does not have the SSH server's key"):
        table.sync(ssh_tunnel=ssh.settings())
    assert ssh.asked == []


def test_a_file_of_known_hosts_that_cannot_be_read_is_an_error_and_no_hang(table: Any, ssh: Ssh) -> None:
    """The tunnel's thread ends with an error that asyncssh has no class for; its text may quote the file."""
    (ssh.folder / "known_hosts").write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="asyncssh cannot work with it"):
        table.sync(ssh_tunnel=ssh.settings())
