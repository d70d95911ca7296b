"""SFTP and HTTP on real servers: what is there is read whole, and every refusal is one plain sentence."""

from __future__ import annotations

import base64
import gzip
import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from servers import CACHE, SFTP_KNOWN_HOSTS, SFTP_PASSWORD, SFTP_USER

from melisma.errors import ConfigError, StorageError
from melisma.storage.filesystem import open_store

DATA = bytes(range(256)) * 9000
USER = {"username": SFTP_USER, "password": SFTP_PASSWORD}
KNOWN = {"known_hosts_file": str(SFTP_KNOWN_HOSTS)}


@pytest.fixture(params=["sftp", "http"])
def folder(request: pytest.FixtureRequest, service: Callable[[str], str]) -> tuple[str, Path, dict[str, str]]:
    """A folder of a server: its URL, its path here, and the options."""
    address = service(request.param)
    name = uuid.uuid4().hex
    path = CACHE / "data" / request.param / name
    path.mkdir()
    options = USER | KNOWN if request.param == "sftp" else {}
    return f"{address}/{name}", path, options


def test_a_file_is_read(folder: tuple[str, Path, dict[str, str]]) -> None:
    """Whole, from the middle, from the end, and decompressed."""
    url, path, options = folder
    (path / "a.bin").write_bytes(DATA)
    (path / "b c.csv.gz").write_bytes(gzip.compress(DATA))
    store = open_store(url, options, distribution="melisma-test")
    assert store.size("a.bin") == len(DATA)
    assert store.read_bytes("a.bin") == DATA
    with store.open_raw("a.bin") as file:
        file.seek(1_000_000)
        assert file.read(5) == DATA[1_000_000:1_000_005]
        file.seek(-7, 2)
        assert file.read() == DATA[-7:]
    with store.open_input("b c.csv.gz") as file:
        assert file.read() == DATA
    assert [(info.path, info.size) for info in store.glob("a.bin")] == [("a.bin", len(DATA))]
    assert store.glob("none.bin") == []
    assert store.size("none.bin") is None
    assert not store.exists("none.bin")
    with pytest.raises(StorageError, match=r"none\.bin: it does not exist"):
        store.open_raw("none.bin")
    with pytest.raises(StorageError, match="can be read, not written"):
        store.stage("t", "x")


def test_files_of_an_sftp_server_are_listed(service: Callable[[str], str]) -> None:
    """By wildcards in every part of the path, with their times; hidden ones only when asked for."""
    address, name = service("sftp"), uuid.uuid4().hex
    path = CACHE / "data" / "sftp" / name
    for file in ("2024/a.csv", "2024/b.txt", "2025/x/a.csv", ".hidden.csv"):
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_bytes(b"x")
    store = open_store(f"{address}/{name}", USER | KNOWN, distribution="melisma-test")
    assert [info.path for info in store.glob("**/*.csv")] == ["2024/a.csv", "2025/x/a.csv"]
    assert [info.path for info in store.glob("20*/a.csv")] == ["2024/a.csv"]
    assert [info.path for info in store.glob(".*.csv")] == [".hidden.csv"]
    [info] = store.glob("2024/b.txt")
    assert info.mtime_ns // 10**9 == int((path / "2024/b.txt").stat().st_mtime)
    assert store.list_dirs("") == ["2024", "2025"]
    assert store.glob("nowhere/*.csv") == []


def test_a_wrong_password_is_one_sentence(service: Callable[[str], str]) -> None:
    """Without it."""
    options = {**KNOWN, "username": SFTP_USER, "password": "hunter2"}
    with pytest.raises(StorageError, match="does not accept these credentials") as error:
        open_store(f"{service('sftp')}/x", options, distribution="melisma-test")
    assert "hunter2" not in str(error.value)


def fingerprint() -> str:
    """The key of the SFTP server, as ssh-keygen -l prints it."""
    key = base64.b64decode(SFTP_KNOWN_HOSTS.read_text().split()[2])
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def test_a_server_that_is_not_known_is_not_believed(
    service: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent to it, the password least of all; known_hosts, a fingerprint or the user's word let it in."""
    address = service("sftp")
    monkeypatch.setenv("HOME", str(tmp_path))

    def connect(**options: Any) -> None:
        open_store(address, USER | options, distribution="melisma-test").list_dirs("")

    with pytest.raises(StorageError, match="is not in known_hosts") as error:
        connect()
    assert fingerprint() in str(error.value)
    assert SFTP_PASSWORD not in str(error.value)
    connect(host_key_fingerprint=fingerprint())
    connect(accept_unknown_host=True)
    with pytest.raises(StorageError, match="is not the one of host_key_fingerprint"):
        connect(host_key_fingerprint="SHA256:" + "A" * 43, accept_unknown_host=True)
    with pytest.raises(ConfigError, match=r"host_key_fingerprint.*is not a fingerprint"):
        connect(host_key_fingerprint="0a:1b")
    with pytest.raises(ConfigError, match=r"known_hosts_file.*cannot be read"):
        connect(known_hosts_file=str(tmp_path / "none"))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(SFTP_KNOWN_HOSTS.read_text())
    connect()


def test_a_server_whose_key_is_another_is_refused(service: Callable[[str], str], tmp_path: Path) -> None:
    """Also where servers that nothing names are accepted."""
    address = service("sftp")
    name = SFTP_KNOWN_HOSTS.read_text().split()[0]
    file = tmp_path / "known_hosts"
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    file.write_text(f"{name} {key}")
    options = {**USER, "known_hosts_file": str(file), "accept_unknown_host": True}
    with pytest.raises(StorageError, match="the server's key is not the one that known_hosts has"):
        open_store(address, options, distribution="melisma-test")
