"""An SFTP server on a folder, with one user: asyncssh's. `sftp_server.py PORT FOLDER`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import asyncssh
from servers import SFTP_KNOWN_HOSTS, SFTP_PASSWORD, SFTP_USER


class Users(asyncssh.SSHServer):
    """Lets in one user, by password."""

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (SFTP_USER, SFTP_PASSWORD)


async def serve(port: int, folder: str) -> None:
    """Serve until the process ends."""

    def files(channel: Any) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=folder)

    key = asyncssh.generate_private_key("ssh-ed25519")
    public = key.export_public_key().decode()
    SFTP_KNOWN_HOSTS.write_text(f"[127.0.0.1]:{port} {public}", encoding="utf-8")
    server = await asyncssh.listen("127.0.0.1", port, server_factory=Users, server_host_keys=[key], sftp_factory=files)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
