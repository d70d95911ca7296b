"""Stores: listing misses nothing silently, options are checked, and every failure is one plain sentence."""

from __future__ import annotations

import errno
import os
import sys
import uuid
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pyarrow as pa
import pytest
from places import SERVICES

from melisma.errors import ConfigError, MissingExtra, StorageError
from melisma.storage.filesystem import Store, open_store
from melisma.storage.object_store import azure_config
from melisma.storage.options import backend_arguments
from melisma.storage.store import refused


def local(root: Path) -> Store:
    """The store of a local directory."""
    return open_store(str(root), None, distribution="melisma-test")


@pytest.fixture(params=["local", "memory", "moto", *SERVICES])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store of each kind."""
    if request.param in SERVICES:
        place = request.getfixturevalue("new_place")(request.param)
        for name, value in place.credentials.items():
            monkeypatch.setenv(name, value)
        return open_store(f"{request.param}://{place.bucket}/root", place.options, distribution="melisma-test")
    if request.param == "moto":
        server = request.getfixturevalue("s3_server")
        for name, value in server.credentials.items():
            monkeypatch.setenv(name, value)
        url, options = f"s3://{server.new_bucket()}/root", {"endpoint_url": server.endpoint}
        return open_store(url, options, distribution="melisma-test")
    url = str(tmp_path / "root") if request.param == "local" else f"memory://{uuid.uuid4().hex}/root"
    return open_store(url, None, distribution="melisma-test")


def put(store: Store, path: str, data: bytes) -> None:
    """Write a file."""
    staged = store.stage(f"_tmp/{uuid.uuid4().hex}", path)
    staged.write(data)
    staged.close()
    store.publish(staged)
    store.sync_published()


FILES = ["a.csv", "b.txt", "d1/a.csv", "d1/x/a.csv", "d2/b.csv", ".hidden.csv", ".dir/a.csv", "d1/[1].csv", "d1/1.csv"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.csv", ["a.csv"]),
        ("a.csv", ["a.csv"]),
        ("nothing.csv", []),
        ("nowhere/*.csv", []),
        ("*/*.csv", ["d1/1.csv", "d1/[1].csv", "d1/a.csv", "d2/b.csv"]),
        ("**/a.csv", ["a.csv", "d1/a.csv", "d1/x/a.csv"]),
        ("**/*.txt", ["b.txt"]),
        ("d1/**", ["d1/1.csv", "d1/[1].csv", "d1/a.csv", "d1/x/a.csv"]),
        ("d[12]/?.csv", ["d1/1.csv", "d1/a.csv", "d2/b.csv"]),
        ("d1/[1].csv", ["d1/[1].csv"]),
        (".*.csv", [".hidden.csv"]),
        ("d1", []),
    ],
)
def test_glob(store: Store, pattern: str, expected: list[str]) -> None:
    """The same files, in order, from every kind of store; a literal name wins over the pattern it looks like."""
    for name in FILES:
        put(store, name, name.encode())
    found = store.glob(pattern)
    assert [file.path for file in found] == expected
    assert [file.size for file in found] == [len(name) for name in expected]
    assert all(file.mtime_ns > 1_600_000_000_000_000_000 for file in found)


def test_a_loop_of_symbolic_links_ends(tmp_path: Path) -> None:
    """`**` does not follow them; a named link is followed."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.csv").write_bytes(b"")
    (tmp_path / "d/up").symlink_to(tmp_path)
    assert [f.path for f in local(tmp_path).glob("**/*.csv")] == ["d/a.csv"]
    assert [f.path for f in local(tmp_path).glob("d/up/d/*.csv")] == ["d/up/d/a.csv"]


def test_a_directory_that_cannot_be_listed_is_an_error() -> None:
    """Files behind it would be missed silently otherwise."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        (Path(directory) / "closed").mkdir(mode=0o000)
        root_user = os.geteuid() == 0
        if root_user:
            os.seteuid(65534)  # root may list anything
        try:
            with pytest.raises(StorageError, match="permission is denied"):
                local(Path(directory)).glob("**/*.csv")
        finally:
            if root_user:
                os.seteuid(0)


def test_any_kind_of_bytes_is_written(store: Store) -> None:
    """Also Arrow's own buffers, which writers of Arrow and Parquet hand over; `tell` counts bytes."""
    staged = store.stage("_tmp/x", "a.bin")
    for data in (b"abc", bytearray(b"d"), memoryview(b"ef"), pa.py_buffer(b"ghi"), pa.array([1, 2]).buffers()[1]):
        staged.write(data)
    assert staged.tell() == staged.bytes_written == 9 + 16
    staged.close()
    store.publish(staged)
    assert store.read_bytes("a.bin") == b"abcdefghi" + (1).to_bytes(8, "little") + (2).to_bytes(8, "little")


def test_a_file_is_read_and_removed(store: Store) -> None:
    """Whole, in parts and from the end; what is absent is an error to read and no error to remove."""
    assert not store.exists("a/b.json")
    data = bytes(range(256)) * 2000
    put(store, "a/b.json", data)
    assert store.exists("a/b.json")
    assert store.exists("a")
    assert not store.exists("a/b")
    assert store.size("a/b.json") == len(data)
    assert store.size("a/c.json") is None
    assert store.read_bytes("a/b.json") == data
    with store.open_input("a/b.json") as file:
        file.seek(300_000)
        assert file.read(5) == data[300_000:300_005]
        file.seek(-7, os.SEEK_END)
        assert file.read() == data[-7:]
        file.seek(1)
        assert file.read(200_000) == data[1:200_001]
    assert [f.path for f in store.glob("a/**")] == ["a/b.json"]
    assert "a" in store.list_dirs("")
    store.delete("a/b.json")
    store.delete("a/b.json")
    assert not store.exists("a/b.json")
    put(store, "a/c/d", b"")
    store.delete_tree("a")
    store.delete_tree("a")
    assert store.glob("a/**") == []
    with pytest.raises(StorageError, match=r"cannot read .*root/a/b\.json: it does not exist"):
        store.open_input("a/b.json")


def test_staged_bytes_are_invisible_until_published(store: Store) -> None:
    """Published once whole; discarded without a trace; never over another file."""
    unfinished = store.stage("_tmp/1.tmp", "out/x.bin")
    unfinished.write(b"abc")
    store.discard(unfinished)
    staged = store.stage("_tmp/2.tmp", "out/y.bin")
    staged.write(b"abc")
    staged.close()
    assert store.glob("out/*") == []
    store.publish(staged)
    store.sync_published()
    assert store.read_bytes("out/y.bin") == b"abc"
    other = store.stage("_tmp/3.tmp", "out/y.bin")
    other.close()
    with pytest.raises(StorageError, match="exists already"):
        store.publish(other)
    store.discard(other)
    assert store.read_bytes("out/y.bin") == b"abc"
    assert [file.path for file in store.glob("**")] == ["out/y.bin"]
    assert list(store.unfinished()) == []


def test_what_is_revoked_can_not_be_published(store: Store) -> None:
    """By its handle alone, as another process does it; twice is fine, and so is what is published already."""
    staged = store.stage("_tmp/1.tmp", "out/x.bin")
    staged.write(b"abc")
    staged.close()
    store.revoke(staged.handle)
    store.revoke(staged.handle)
    with pytest.raises(StorageError):
        store.publish(staged)
    assert not store.exists("out/x.bin")
    whole = store.stage("_tmp/2.tmp", "out/y.bin")
    whole.close()
    store.publish(whole)
    store.revoke(whole.handle)
    assert store.read_bytes("out/y.bin") == b""


def test_a_file_that_changes_while_it_is_read_is_an_error(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object is read as it was when it was opened, or not at all: no mixture of two versions."""
    for name, value in s3_server.credentials.items():
        monkeypatch.setenv(name, value)
    bucket, client = s3_server.new_bucket(), s3_server.client()
    store = open_store(f"s3://{bucket}", {"endpoint_url": s3_server.endpoint}, distribution="melisma-test")
    client.put_object(Bucket=bucket, Key="a", Body=b"x" * 500_000)
    with store.open_raw("a") as file:
        file.read(10)
        client.put_object(Bucket=bucket, Key="a", Body=b"y" * 500_000)
        with pytest.raises(StorageError, match="has changed while it was read"):
            file.read()


def test_a_large_file_goes_out_in_parts(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several parts the bytes are the same, the ETag is as foretold, and the upload is listed until then."""
    for name, value in s3_server.credentials.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3_server.new_bucket()}/root"
    store = open_store(url, {"endpoint_url": s3_server.endpoint}, distribution="melisma-test")
    data = bytes(range(251)) * 80_000  # 20 MB: three parts
    staged = store.stage("", "a/b.bin")
    for start in range(0, len(data), 3_000_000):
        staged.write(data[start : start + 3_000_000])
    staged.close()
    assert list(store.unfinished()) == [("a/b.bin", staged.handle)]
    store.publish(staged)
    assert store.size("a/b.bin") == len(data)
    assert store.glob("a/*")[0].etag == getattr(staged, "etag", "")
    assert store.read_bytes("a/b.bin") == data
    assert list(store.unfinished()) == []


def test_a_web_server_is_read_by_name(tmp_path: Path) -> None:
    """A file of known address is read; wildcards and writing are refused."""
    (tmp_path / "x.csv").write_bytes(b"a\n1\n")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        store = open_store(url, None, distribution="melisma-test")
        assert [(file.path, file.size) for file in store.glob("x.csv")] == [("x.csv", 4)]
        assert store.glob("y.csv") == []
        assert store.read_bytes("x.csv") == b"a\n1\n"
        with pytest.raises(StorageError, match="lists no files"):
            store.glob("*.csv")
        with pytest.raises(StorageError, match="can be read, not written"):
            store.stage("t", "x")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a\x00b"])
@pytest.mark.parametrize("action", ["open_input", "exists", "delete", "glob", "delete_tree"])
def test_no_path_leads_out_of_the_root(store: Store, path: str, action: str) -> None:
    """Whatever a stream or file is called."""
    with pytest.raises(StorageError, match="leads out of it"):
        getattr(store, action)(path)


def test_schemes_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown scheme lists the known ones; a missing backend says what to install, for this connector."""
    with pytest.raises(ConfigError, match="file://, s3://, gs://, az://, sftp://"):
        open_store("ftp://host/x", None, distribution="melisma-tap-files")
    for url, extra in (("s3://bucket", "s3"), ("gs://bucket", "gs"), ("abfs://box@acc", "az"), ("sftp://host", "sftp")):
        for module in ("melisma.storage.s3", "melisma.storage.object_store", "melisma.storage.sftp"):
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtra, match=rf'pip install "melisma-tap-files\[{extra}\]"'):
            open_store(url, None, distribution="melisma-tap-files")


def test_options_are_checked_and_mapped() -> None:
    """Melisma's keys in, the library's out; unknown keys list the valid ones; values are never shown."""
    assert backend_arguments("s3", {"region": "eu", "access_key_id": "k", "anonymous": False, "profile": None}) == {
        "region": "eu",
        "access_key_id": "k",
        "anonymous": False,
    }
    assert backend_arguments("gs", {"anonymous": True}) == {"skip_signature": True}
    assert azure_config({"connection_string": "AccountName=a;AccountKey=b==;EndpointSuffix=x", "client_id": "c"}) == {
        "account_name": "a",
        "account_key": "b==",
        "client_id": "c",
    }
    with pytest.raises(ConfigError, match="Valid keys: endpoint_url, region, access_key_id") as error:
        backend_arguments("s3", {"secret": "hunter2"})
    assert "hunter2" not in str(error.value)
    with pytest.raises(ConfigError, match=r'"storage_options\.region": has the wrong type') as error:
        backend_arguments("s3", {"region": ["hunter2"]})
    assert "hunter2" not in str(error.value)
    with pytest.raises(ConfigError, match="takes no options"):
        open_store("lake", {"region": "eu"}, distribution="melisma-test")


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("gs://bucket/x", {"anonymous": True, "project": "p"}),
        ("gs://bucket/x", {"anonymous": True, "endpoint_url": "http://127.0.0.1:1"}),
        ("az://box/x", {"account_name": "a", "account_key": "c2VjcmV0"}),
        ("az://box/x", {"account_name": "a", "sas_token": "sv=1&sig=x", "endpoint_url": "http://127.0.0.1:1/a"}),
        ("az://box/x", {"account_name": "a", "tenant_id": "t", "client_id": "c", "client_secret": "s"}),
        ("abfss://box@account.dfs.core.windows.net/x", {"anonymous": True}),
    ],
)
def test_each_option_is_one_that_the_library_knows(url: str, options: dict[str, Any]) -> None:
    """Opening touches no network, and takes every key that there is."""
    assert open_store(url, options, distribution="melisma-test").display("f").endswith("/x/f")


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("gs://bucket/x", {"token_file": "/no/such/hunter2.json"}, "cannot be used for gs://"),
        ("az://box/x", {"account_name": "a", "account_key": "hunter2!"}, "cannot be used for az://"),
        ("az://box/x", {"connection_string": "hunter2"}, "is not a connection string"),
        ("s3://bucket/x", {"access_key_id": "hunter2"}, "one half of the credentials is missing"),
        ("s3://bucket/x", {"profile": "hunter2"}, "there is no such profile"),
        (
            "s3://bucket/x",
            {"access_key_id": "k", "secret_access_key": "hunter2", "endpoint_url": "hunter2"},
            "the endpoint or region is not valid",
        ),
        ("sftp://127.0.0.1:1/x", {"password": "hunter2"}, "cannot be reached"),
    ],
)
def test_options_that_can_not_work_are_refused_at_once(url: str, options: dict[str, Any], message: str) -> None:
    """In one line, without the value."""
    with pytest.raises((ConfigError, StorageError), match=message) as error:
        open_store(url, options, distribution="melisma-test")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EACCES", "EROFS", "ENOENT", "EXDEV", "EMFILE", "EIO", "EBUSY"])
def test_system_errors_become_plain_sentences(name: str) -> None:
    """One line each, without the system's own jargon around it."""
    number = getattr(errno, name)
    message = str(refused("write", "lake/x", OSError(number, os.strerror(number))))
    assert message.startswith("cannot write lake/x: ")
    assert "Errno" not in message
    assert "\n" not in message
