"""Stores: listing misses nothing silently, options are checked, and every failure is one plain sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from melisma.errors import ConfigError, MissingExtra, StorageError
from melisma.storage.filesystem import Store, open_store
from melisma.storage.options import backend_arguments
from melisma.storage.store import refused


def local(root: Path) -> Store:
    """The store of a local directory."""
    return open_store(str(root), None, distribution="melisma-test")


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    url = str(tmp_path / "root") if request.param == "local" else "memory://bucket/root"
    opened = open_store(url, None, distribution="melisma-test")
    opened.delete_tree("")
    return opened


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
        store.write_bytes_atomic(name, name.encode())
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


def test_a_file_is_written_read_and_removed(store: Store) -> None:
    """Small files are replaced whole; what is absent is an error to read and no error to remove."""
    assert not store.exists("a/b.json")
    store.write_bytes_atomic("a/b.json", b"one")
    store.write_bytes_atomic("a/b.json", b"two")
    assert store.exists("a/b.json")
    assert store.read_bytes("a/b.json") == b"two"
    with store.open_input("a/b.json") as file:
        file.seek(1)
        assert file.read() == b"wo"
    assert [f.path for f in store.glob("**")] == ["a/b.json"]
    assert store.list_dirs("") == ["a"]
    store.delete("a/b.json")
    store.delete("a/b.json")
    store.delete_tree("a")
    store.delete_tree("a")
    with pytest.raises(StorageError, match=r"cannot read .*root/a/b\.json: it does not exist"):
        store.open_input("a/b.json")


def test_staged_bytes_are_invisible_until_published(store: Store) -> None:
    """Published once whole; discarded without a trace; never over another file; and withdrawn again."""
    unfinished = store.stage("_tmp/1.tmp", "out/x.bin")
    unfinished.write(b"abc")
    store.withdraw(unfinished)
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
    store.withdraw(other)
    store.discard(other)
    assert store.read_bytes("out/y.bin") == b"abc"
    store.withdraw(staged)
    assert not store.exists("out/y.bin")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a\x00b"])
@pytest.mark.parametrize("action", ["open_input", "exists", "delete", "glob", "delete_tree"])
def test_no_path_leads_out_of_the_root(store: Store, path: str, action: str) -> None:
    """Whatever a stream or file is called."""
    with pytest.raises(StorageError, match="leads out of it"):
        getattr(store, action)(path)


def test_schemes_are_checked() -> None:
    """An unknown scheme lists the known ones; a missing backend says what to install, for this connector."""
    with pytest.raises(ConfigError, match="file://, s3://, gs://, az://, sftp://"):
        open_store("ftp://host/x", None, distribution="melisma-tap-files")
    for url, extra in (("s3://bucket", "s3"), ("gs://bucket", "gs"), ("abfs://box@acc", "az")):
        try:
            open_store(url, None, distribution="melisma-tap-files")
        except MissingExtra as error:
            assert f'pip install "melisma-tap-files[{extra}]"' in str(error)


def test_options_are_checked_and_mapped() -> None:
    """Melisma's keys in, the backend's out; unknown keys list the valid ones; values are never shown."""
    assert backend_arguments("s3", {"region": "eu", "access_key_id": "k", "anonymous": False, "profile": None}) == {
        "client_kwargs": {"region_name": "eu"},
        "key": "k",
        "anon": False,
    }
    assert backend_arguments("gs", {"anonymous": True}) == {"token": "anon"}
    with pytest.raises(ConfigError, match="Valid keys: endpoint_url, region, access_key_id") as error:
        backend_arguments("s3", {"secret": "hunter2"})
    assert "hunter2" not in str(error.value)
    with pytest.raises(ConfigError, match=r'"storage_options\.region": has the wrong type') as error:
        backend_arguments("s3", {"region": ["hunter2"]})
    assert "hunter2" not in str(error.value)
    with pytest.raises(ConfigError, match="takes no options"):
        open_store("lake", {"region": "eu"}, distribution="melisma-test")


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EACCES", "EROFS", "ENOENT", "EXDEV", "EMFILE", "EIO", "EBUSY"])
def test_system_errors_become_plain_sentences(name: str) -> None:
    """One line each, without the system's own jargon around it."""
    number = getattr(errno, name)
    message = str(refused("write", "lake/x", OSError(number, os.strerror(number))))
    assert message.startswith("cannot write lake/x: ")
    assert "Errno" not in message
    assert "\n" not in message
