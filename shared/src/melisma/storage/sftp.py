"""Servers that speak SFTP, through fsspec: for reading. They cannot create a file only if it is absent, and durably."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import logging
import socket
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

from melisma.errors import ConfigError, MelismaError, StorageError
from melisma.storage.store import FileInfo, Store, refused
from melisma.storage.url import StoreUrl

__all__ = ["SftpStore", "open_sftp"]

_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")  # where OpenSSH looks
_SECONDS = 20  # to connect


def open_sftp(root: StoreUrl, arguments: Mapping[str, Any]) -> SftpStore:
    """Connect to a server.

    Args:
        root: its bucket is the host, with the user before an "@" and the port behind a ":".
        arguments: from `options.backend_arguments`.

    Raises:
        ConfigError: an option cannot work.
        StorageError: there is no connection, it is refused, or the server is not known to be who it says.
    """
    arguments = dict(arguments)
    keys = _HostKeys(
        str(root),
        arguments.pop("known_hosts_file", None),
        arguments.pop("host_key_fingerprint", None),
        accept=arguments.pop("accept_unknown_host", False),
    )
    user, _, place = root.bucket.rpartition("@")
    host, _, port = place.partition(":")
    if user:
        arguments.setdefault("username", user)
    if port:
        arguments.setdefault("port", int(port))
    logging.getLogger("paramiko").setLevel(logging.WARNING)  # it tells of each step of each connection
    with _failing("open", str(root)):
        return SftpStore(root, _Connection(keys, host, **{"timeout": _SECONDS, **arguments}))


class _HostKeys(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """Which servers are trusted to be who they say: by OpenSSH's files of known hosts, or by a fingerprint."""

    def __init__(self, where: str, file: str | None, fingerprint: str | None, *, accept: bool) -> None:
        self._where, self._file, self._fingerprint, self._accept = where, file, fingerprint, accept
        if fingerprint is not None and not fingerprint.startswith("SHA256:"):
            fix = "Write it as SHA256:..., as ssh-keygen -l prints it"
            raise ConfigError("storage_options.host_key_fingerprint", "is not a fingerprint", fix)

    def prepare(self, client: paramiko.SSHClient) -> None:
        """Tell a client whom it may believe."""
        client.set_missing_host_key_policy(self)
        if self._fingerprint is not None:
            return
        for name in (self._file,) if self._file is not None else _KNOWN_HOSTS:
            path = Path(name).expanduser()
            try:
                client.load_system_host_keys(str(path))
            except OSError:
                if self._file is not None:
                    fix = "Name a file such as ~/.ssh/known_hosts"
                    setting = "storage_options.known_hosts_file"
                    raise ConfigError(setting, "names a file that cannot be read", fix) from None

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:  # noqa: ARG002
        """Decide about a server that no file of known hosts names. One whose key differs never comes here."""
        digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
        found = f"SHA256:{digest}"
        if self._fingerprint is not None:
            if found != self._fingerprint.rstrip("="):
                raise StorageError(
                    "open",
                    self._where,
                    f"the server's key ({key.get_name()} {found}) is not the one of host_key_fingerprint",
                    "Make sure that it is the right server, and ask its owner for the key's fingerprint",
                )
        elif not self._accept:
            raise StorageError(
                "open",
                self._where,
                f"nothing says that it is the right server: its key ({key.get_name()} {found}) is not in known_hosts",
                "If that is the server's key, add it (ssh-keyscan), or set storage_options.host_key_fingerprint",
            )


class _Connection(SFTPFileSystem):  # type: ignore[misc]
    """fsspec's file system, which by itself believes any server."""

    cachable = False

    def __init__(self, keys: _HostKeys, host: str, **arguments: Any) -> None:
        self._keys = keys
        super().__init__(host, **arguments)

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        self._keys.prepare(self.client)
        self.client.connect(self.host, **self.ssh_kwargs)
        self.ftp = self.client.open_sftp()


class SftpStore(Store):
    """A directory of a server, behind an fsspec file system."""

    def __init__(self, root: StoreUrl, filesystem: Any) -> None:
        super().__init__(root)
        self._filesystem, self._base = filesystem, f"/{root.path}"

    def open_raw(self, path: str) -> BinaryIO:
        """See Store."""
        with _failing("read", self.display(path)):
            file = self._filesystem.open(self._full(path), "rb")
        return cast("BinaryIO", io.BufferedReader(_Input(file, self.display(path)), 1 << 20))

    def glob(self, pattern: str) -> list[FileInfo]:
        """See Store."""
        segments = [segment for segment in pattern.split("/") if segment]
        if not segments:
            return []
        if segments[-1] == "**":
            segments.append("*")
        with _failing("list", self.display(pattern)):
            full = self._full(pattern)
            if self._filesystem.isfile(full):
                return [self._info(self._filesystem.info(full))]
            found = self._filesystem.glob(self._full("/".join(segments)), detail=True)
        hidden = any(segment.startswith(".") for segment in segments)
        files = (self._info(entry) for entry in found.values() if entry["type"] == "file")
        return sorted(f for f in files if hidden or not any(s.startswith(".") for s in f.path.split("/")))

    def exists(self, path: str) -> bool:
        """See Store."""
        with _failing("read", self.display(path)):
            return bool(self._filesystem.exists(self._full(path)))

    def size(self, path: str) -> int | None:
        """See Store."""
        with _failing("read", self.display(path)):
            try:
                return int(self._filesystem.size(self._full(path)))
            except FileNotFoundError:
                return None

    def list_dirs(self, path: str) -> list[str]:
        """See Store."""
        with _failing("list", self.display(path)):
            try:
                entries = self._filesystem.ls(self._full(path), detail=True)
            except FileNotFoundError:
                return []
        return sorted(str(e["name"]).rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")

    def _full(self, path: str) -> str:
        segments = [segment for segment in path.split("/") if segment not in ("", ".")]
        if ".." in segments or "\x00" in path:
            raise StorageError("open", self.display(), "a path below it leads out of it", "Write the path without ..")
        return "/".join([self._base.rstrip("/"), *segments])

    def _info(self, entry: Mapping[str, Any]) -> FileInfo:
        changed = entry.get("mtime") or 0
        if isinstance(changed, datetime):
            changed = changed.timestamp()
        path = str(entry["name"])[len(self._base) :].lstrip("/")
        return FileInfo(path, int(entry["size"] or 0), int(changed * 1_000_000_000))


class _Input(io.RawIOBase):
    """A remote file whose read errors are StorageErrors."""

    def __init__(self, file: Any, where: str) -> None:
        self._file, self._where = file, where

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _failing("read", self._where):
            self._file.seek(offset, whence)
            return int(self._file.tell())

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        with _failing("read", self._where):
            data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            with contextlib.suppress(Exception):
                self._file.close()


@contextlib.contextmanager
def _failing(action: str, where: str) -> Iterator[None]:
    """Turn what a library raises into a StorageError; its own text may hold secrets, so only its kind is kept."""
    try:
        yield
    except MelismaError:
        raise
    except paramiko.BadHostKeyException:
        rule = "the server's key is not the one that known_hosts has: it may be another server"
        raise StorageError(action, where, rule, "If the key was changed on purpose, replace it there") from None
    except paramiko.AuthenticationException:
        raise StorageError(action, where, "the server does not accept these credentials", "Check them") from None
    except (paramiko.ssh_exception.NoValidConnectionsError, socket.gaierror, TimeoutError):
        raise StorageError(action, where, "the server cannot be reached", "Check its name and the network") from None
    except OSError as error:
        raise refused(action, where, error) from None
    except Exception as error:
        raise StorageError(action, where, f"the server failed with {type(error).__name__}") from None
