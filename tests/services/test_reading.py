"""SFTP and HTTP on real servers: what is there is read whole, and every refusal is one plain sentence."""

from __future__ import annotations

import gzip
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import CACHE, SFTP_PASSWORD, SFTP_USER

from melisma.errors import StorageError
from melisma.storage.filesystem import open_store

DATA = bytes(range(256)) * 9000


@pytest.fixture(params=["sftp", "http"])
def folder(request: pytest.FixtureRequest, service: Callable[[str], str]) -> tuple[str, Path, dict[str, str]]:
    """A folder of a server: its URL, its path here, and the options."""
    address = service(request.param)
    name = uuid.uuid4().hex
    path = CACHE / "data" / request.param / name
    path.mkdir()
    options = {"username": SFTP_USER, "password": SFTP_PASSWORD} if request.param == "sftp" else {}
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
    options = {"username": SFTP_USER, "password": SFTP_PASSWORD}
    store = open_store(f"{address}/{name}", options, distribution="melisma-test")
    assert [info.path for info in store.glob("**/*.csv")] == ["2024/a.csv", "2025/x/a.csv"]
    assert [info.path for info in store.glob("20*/a.csv")] == ["2024/a.csv"]
    assert [info.path for info in store.glob(".*.csv")] == [".hidden.csv"]
    [info] = store.glob("2024/b.txt")
    assert info.mtime_ns // 10**9 == int((path / "2024/b.txt").stat().st_mtime)
    assert store.list_dirs("") == ["2024", "2025"]
    assert store.glob("nowhere/*.csv") == []


def test_a_wrong_password_is_one_sentence(service: Callable[[str], str]) -> None:
    """Without it."""
    options = {"username": SFTP_USER, "password": "hunter2"}
    with pytest.raises(StorageError, match="does not accept these credentials") as error:
        open_store(f"{service('sftp')}/x", options, distribution="melisma-test")
    assert "hunter2" not in str(error.value)
