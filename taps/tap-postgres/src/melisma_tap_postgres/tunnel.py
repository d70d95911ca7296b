"""An SSH tunnel to the server: a port of this machine that leads there for as long as the process lives.

asyncssh keeps it on a thread of its own. A connection to the SSH server that drops is made again, on the same port.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from melisma.errors import ConfigError, DatabaseError, MelismaError, MissingExtra

__all__ = ["local_port"]

_LONGEST_PAUSE = 30.0
_log = logging.getLogger(__name__)
_open: dict[tuple[str, int], int] = {}
_lock = threading.Lock()


def local_port(settings: Mapping[str, Any], host: str, port: int) -> int:
    """The port of 127.0.0.1 that leads to a host and port as the SSH server sees them.

    Args:
        settings: the setting `ssh_tunnel`.
        host: the database server.
        port: its port.

    Raises:
        ConfigError: the SSH server, or what it asks for, is not right.
        DatabaseError: it cannot be reached.
        MissingExtra: asyncssh is not installed.
    """
    with _lock:
        if (host, port) not in _open:
            opened: Future[int] = Future()
            options = _options(settings)

            def keep() -> None:
                asyncio.run(_keep(options, (host, port), opened))

            threading.Thread(target=keep, name="ssh tunnel", daemon=True).start()
            _open[host, port] = opened.result()
        return _open[host, port]


def _options(settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        import asyncssh
    except ImportError:
        raise MissingExtra("an SSH tunnel", "melisma-tap-postgres", "ssh") from None
    if not settings.get("host"):
        raise ConfigError("ssh_tunnel.host", "must be set")
    options = {
        "host": settings["host"],
        "port": settings.get("port", 22),
        "keepalive_interval": 30,
        "config": None,
    }
    if settings.get("username"):
        options["username"] = settings["username"]
    if settings.get("password"):
        options["password"] = settings["password"]
    if settings.get("private_key"):
        try:
            options["client_keys"] = [_key(settings["private_key"], settings.get("private_key_password"))]
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, OSError):
            fix = "Set a path, or the key itself, and private_key_password if it has one"
            raise ConfigError("ssh_tunnel.private_key", "is no private key that can be read", fix) from None
    if settings.get("known_hosts"):
        path = Path(settings["known_hosts"]).expanduser()
        if not path.is_file():
            raise ConfigError("ssh_tunnel.known_hosts", "there is no such file")
        options["known_hosts"] = str(path)
    return options


def _key(text: str, password: str | None) -> Any:
    import asyncssh

    if text.lstrip().startswith("-----BEGIN"):
        return asyncssh.import_private_key(text.strip() + "\n", password)
    return asyncssh.read_private_key(str(Path(text).expanduser()), password)


async def _keep(options: Mapping[str, Any], server: tuple[str, int], opened: Future[int]) -> None:
    """Open the tunnel, say at which port, and open it there again whenever it closes."""
    import asyncssh

    port, pause = 0, 0.25
    while True:
        try:
            async with asyncssh.connect(**options) as connection:
                listener = await connection.forward_local_port("127.0.0.1", port, *server)
                port, pause = listener.get_port(), 0.25
                if not opened.done():
                    opened.set_result(port)
                await connection.wait_closed()
            _log.warning("SSH: the connection of the tunnel dropped; making another")
        except Exception as error:  # whoever waits for the tunnel must hear of it
            _log.debug("SSH: %s", error)
            if not opened.done():
                opened.set_exception(_translated(error))
                return
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _translated(error: Exception) -> MelismaError:
    import asyncssh

    if isinstance(error, asyncssh.PermissionDenied):
        fix = "Check username, and private_key or password"
        return ConfigError("ssh_tunnel", "the SSH server refuses the user", fix)
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        fix = "Write its key into that file, as ssh-keyscan prints it"
        return ConfigError("ssh_tunnel.known_hosts", "does not have the SSH server's key", fix)
    if isinstance(error, ValueError):  # such as a known_hosts that cannot be read, or no name of the user's own
        fix = "Set username; see that known_hosts is as ssh-keyscan prints it. The log at DEBUG says more"
        return ConfigError("ssh_tunnel", "asyncssh cannot work with it", fix)
    return DatabaseError("the SSH tunnel", "the SSH server cannot be reached", fix="Check ssh_tunnel.host and port")
