"""The lake as a destination: all of a commit or none of it, and nothing visible before it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pytest

from melisma.arrow.types import ColumnType, Field, Kind, StreamSchema
from melisma.errors import ConfigError, StorageError
from melisma.formats.parquet import ParquetOptions
from melisma.lake.lake import FileLake
from melisma.lake.writer import StreamWriter, WriteBudget
from melisma.storage.filesystem import open_store

SCHEMA = StreamSchema(
    "orders",
    ColumnType(
        Kind.STRUCT, pa.struct([("id", pa.int64())]), fields=(Field("id", ColumnType(Kind.INTEGER, pa.int64())),)
    ),
    ("id",),
    {"type": "object"},
)
TINY_FILES = ParquetOptions(row_group_rows=10, max_file_bytes=1)


def lake_at(root: Path | str, pipeline: str = "default") -> FileLake:
    """A lake that is not open yet."""
    return FileLake(open_store(str(root), None, distribution="melisma-test"), pipeline)


def write(lake: FileLake, ids: range, options: ParquetOptions = TINY_FILES) -> StreamWriter:
    """A writer that has these rows, as its tail."""
    writer = StreamWriter(lake, SCHEMA, options, WriteBudget())
    writer.write(pa.record_batch([pa.array(ids, pa.int64())], schema=SCHEMA.arrow))
    return writer


def rows(root: Path) -> list[int]:
    """What a reader sees."""
    if not list(root.glob("*/*.parquet")):
        return []
    found = duckdb.execute("select id from read_parquet(?) order by id", [f"{root}/*/*.parquet"]).fetchall()
    return [row[0] for row in found]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The lake's root; not there yet."""
    return tmp_path / "lake"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root and the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # lazy: a lake may hold its lock still


def test_nothing_is_visible_before_the_commit(root: Path) -> None:
    """Files appear at the commit, with their STATE, byte for byte as the tap wrote it."""
    lake = lake_at(root)
    lake.recover()
    assert lake.committed_state() == b"{}"
    staged = write(lake, range(95)).close(tail=True)
    assert len(staged) == 10
    assert rows(root) == []
    state = b'{"bookmarks": {"orders": {"id": 1e2, "x": 0.1000}}}'
    lake.commit(staged, state)
    assert rows(root) == list(range(95))
    assert lake.committed_state() == state
    lake.close()
    assert not (root / "_melisma/default/staging" / lake.run).exists()


def test_a_commit_without_rows_records_its_state(root: Path) -> None:
    """A STATE alone is committed too; a commit without a STATE keeps the recorded one."""
    lake = lake_at(root)
    lake.recover()
    lake.commit([], b'{"a": 1}')
    lake.commit(write(lake, range(3)).close(tail=True), None)
    assert lake.committed_state() == b'{"a": 1}'


def test_a_second_live_run_is_refused(root: Path) -> None:
    """One pipeline, one run: the second is told so; another pipeline, or the next run, is not in the way."""
    first = lake_at(root)
    first.recover()
    with pytest.raises(StorageError, match='another run of the pipeline "default"'):
        lake_at(root).recover()
    lake_at(root, "other").recover()
    first.close()
    lake_at(root).recover()


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_lake import *
lake = lake_at({root!r})
lake.recover()
staged = write(lake, range(95)).close(tail=True)
open_writer = write(lake, range(5), ParquetOptions(row_group_rows=2))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_nothing_visible_and_the_next_cleans_up(root: Path) -> None:
    """After kill -9 no reader sees a file; the next run removes what was staged, and takes the lock."""
    code = KILLED.format(tests=str(Path(__file__).parent), root=str(root))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not list(root.rglob("*.parquet"))
    assert len(list(root.rglob("*.tmp"))) == 11
    lake = lake_at(root)
    lake.recover()
    assert not list(root.rglob("*.tmp"))
    lake.commit(write(lake, range(7)).close(tail=True), b'{"a": 1}')
    assert rows(root) == list(range(7))


def test_a_full_disk_while_writing_is_one_plain_error(small_disk: Path) -> None:
    """The rows before are kept, nothing of the failed attempt is visible, and there is space again."""
    lake = lake_at(small_disk / "lake")
    lake.recover()
    lake.commit(write(lake, range(10)).close(tail=True), b'{"a": 1}')
    writer = StreamWriter(lake, SCHEMA, ParquetOptions(row_group_rows=1_000, compression="none"), WriteBudget())
    with pytest.raises(StorageError, match="no space is left on the device") as error:
        for start in range(0, 10_000_000, 1_000):
            ids = [(start + i) * 7919 * 7919 % 1_000_003 for i in range(1_000)]
            writer.write(pa.record_batch([pa.array(ids, pa.int64())], schema=SCHEMA.arrow))
    assert "\n" not in str(error.value)
    writer.abandon()
    lake.close()
    assert rows(small_disk / "lake") == list(range(10))
    again = lake_at(small_disk / "lake")
    again.recover()
    again.commit(write(again, range(10, 20)).close(tail=True), b'{"a": 2}')
    assert rows(small_disk / "lake") == list(range(20))


def test_a_full_disk_while_committing_takes_the_files_back(small_disk: Path) -> None:
    """If the STATE cannot be recorded, the files that are visible already go again, and the old STATE stands."""
    lake = lake_at(small_disk / "lake")
    lake.recover()
    lake.commit(write(lake, range(10)).close(tail=True), b'{"a": 1}')
    staged = write(lake, range(10, 35)).close(tail=True)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(StorageError, match="no space is left"):
        lake.commit(staged, b'{"a": 2}')
    filler.unlink()
    assert rows(small_disk / "lake") == list(range(10))
    assert lake.committed_state() == b'{"a": 1}'


def test_files_whose_state_stands_are_kept_when_recording_fails_late(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new STATE is in place but its fsync fails: removing the files would lose rows, so they stay."""
    store = open_store(str(root), None, distribution="melisma-test")
    lake = FileLake(store)
    lake.recover()
    staged = write(lake, range(10)).close(tail=True)
    whole = store.write_bytes_atomic

    def late(path: str, data: bytes) -> None:
        whole(path, data)
        raise StorageError("write", path, "the device failed")

    monkeypatch.setattr(store, "write_bytes_atomic", late)
    with pytest.raises(StorageError):
        lake.commit(staged, b'{"a": 2}')
    assert rows(root) == list(range(10))
    assert lake.committed_state() == b'{"a": 2}'


def test_a_place_without_permission_is_one_plain_error() -> None:
    """A root that this user may not write: one sentence that says so."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o555)
        root_user = os.geteuid() == 0
        if root_user:
            os.seteuid(65534)  # root may write anywhere
        try:
            with pytest.raises(StorageError, match=r"permission is denied\. Grant this user access to it$"):
                lake_at(f"{directory}/lake").recover()
        finally:
            if root_user:
                os.seteuid(0)
            Path(directory).chmod(0o700)


def test_a_broken_state_file_is_not_taken_for_a_new_lake(root: Path) -> None:
    """A STATE that cannot be read is an error: `{}` would load everything again."""
    lake = lake_at(root)
    lake.recover()
    (root / "_melisma/default/state.json").write_bytes(b'{"a"')
    with pytest.raises(StorageError, match="not JSON"):
        lake.committed_state()


def test_names_that_cannot_be_told_apart_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that folds case, `Orders` and `orders` would mix: refused, and values encode capitals."""
    lake = lake_at(root)
    lake.recover()
    assert lake.folds_case is (root / "_MELISMA").exists()
    lake.folds_case = True
    lake.discard(lake.stage("orders", (), "parquet"))
    with pytest.raises(ConfigError, match="differ in case only"):
        lake.stage("Orders", (), "parquet")


def test_the_same_lake_works_in_a_remote_store() -> None:
    """Through fsspec: stage, commit and read back; and an aborted commit leaves nothing."""
    store = open_store("memory://bucket/lake", None, distribution="melisma-test")
    lake = FileLake(store)
    lake.recover()
    assert lake.committed_state() == b"{}"
    staged = write(lake, range(25)).close(tail=True)
    assert store.glob("orders/*") == []
    lake.commit(staged, b'{"a": 1}')
    assert [f.path for f in store.glob("**/*.parquet")] == [f.path for f in staged]
    assert lake.committed_state() == b'{"a": 1}'
    writer = write(lake, range(25))
    writer.abandon()
    assert len(store.glob("orders/*")) == len(staged)
    lake.close()
    store.delete_tree("")
