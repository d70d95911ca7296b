"""The lake as a destination: all of a commit or none of it, and nothing visible before it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import SERVICES

from melisma.arrow.types import ColumnType, Field, Kind, StreamSchema
from melisma.errors import ConfigError, MelismaError, StorageError
from melisma.formats.parquet import ParquetOptions
from melisma.lake.lake import FileLake
from melisma.lake.liveness import PipelineBusy
from melisma.lake.objects import ObjectsOnDisk, Refused
from melisma.lake.recover import Settings
from melisma.lake.writer import StreamWriter, WriteBudget
from melisma.storage.filesystem import StagedObject, Store, open_store
from melisma.storage.store import refused

SCHEMA = StreamSchema(
    "orders",
    ColumnType(
        Kind.STRUCT, pa.struct([("id", pa.int64())]), fields=(Field("id", ColumnType(Kind.INTEGER, pa.int64())),)
    ),
    ("id",),
    {"type": "object"},
)
QUICK = Settings(interval=0.01, pause=lambda _seconds: None)
TINY_FILES = ParquetOptions(row_group_rows=10, max_file_bytes=1)


def lake_at(root: Path | str, pipeline: str = "default") -> FileLake:
    """A lake that is not open yet."""
    return FileLake(open_store(str(root), None, distribution="melisma-test"), pipeline)


def write(lake: FileLake, ids: range, options: ParquetOptions = TINY_FILES) -> StreamWriter:
    """A writer that has these rows, as its tail."""
    writer = StreamWriter(lake, SCHEMA, options, WriteBudget())
    writer.write(pa.record_batch([pa.array(ids, pa.int64())], schema=SCHEMA.arrow))
    return writer


def write_as(lake: FileLake, stream: str, ids: range) -> StreamWriter:
    """The same for another stream."""
    writer = StreamWriter(lake, replace(SCHEMA, stream=stream), TINY_FILES, WriteBudget())
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
    assert len(staged) > 2
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
    with pytest.raises(PipelineBusy, match='pipeline "default": another run is under way'):
        lake_at(root).recover()
    lake_at(root, "other").recover()
    first.close()
    lake_at(root).recover()


HERE = Path(__file__).parent
KILLED = """
import os, signal, sys
sys.path[:0] = {tests!r}
from test_lake import *
lake = lake_at({root!r})
lake.recover()
staged = write(lake, range(95)).close(tail=True)
open_writer = write(lake, range(5), ParquetOptions(row_group_rows=2))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_nothing_visible_and_the_next_cleans_up(root: Path) -> None:
    """After kill -9 no reader sees a file; the next run removes what was staged, and takes the lock."""
    code = KILLED.format(tests=[str(HERE), str(HERE.parents[1] / "services"), str(HERE.parents[1])], root=str(root))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not list(root.rglob("*.parquet"))
    assert len(list(root.rglob("*.tmp"))) > 3
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
    lake.release()
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
    """If the entry cannot be written, the files that are visible already go again, and the old STATE stands."""
    lake = lake_at(small_disk / "lake")
    lake.recover()
    lake.commit(write(lake, range(10)).close(tail=True), b'{"a": 1}')
    staged = write(lake, range(10, 35)).close(tail=True)
    put, filler = lake._objects.put_if_absent, small_disk / "filler"

    def fills_up(key: str, data: bytes) -> None:
        """The disk has room for the intent and none for the entry."""
        if b'"commit"' in data:
            assert rows(small_disk / "lake") == list(range(35))
            with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
        put(key, data)

    lake._objects.put_if_absent = fills_up  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="no space is left on the device"):
        lake.commit(staged, b'{"a": 2}')
    assert filler.exists()
    assert rows(small_disk / "lake") == list(range(10))
    filler.unlink()
    assert lake.committed_state() == b'{"a": 1}'


@pytest.mark.parametrize("broken", ["put", "publish"])
def test_what_a_failed_commit_has_shown_goes_at_once(root: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Where it is certain that no entry names them, the files do not wait for the next run."""
    lake = lake_at(root)
    lake.recover()
    staged = write(lake, range(25)).close(tail=True)
    if broken == "put":
        put = lake._objects.put_if_absent

        def refuses(key: str, data: bytes) -> None:
            if b'"commit"' in data:
                raise Refused("write", key, "no space is left on the device")
            put(key, data)

        monkeypatch.setattr(lake._objects, "put_if_absent", refuses)
    else:
        publish, left = lake._store.publish, [1]

        def fails(handle: StagedObject) -> None:
            if not left:
                raise StorageError("write", handle.final_path, "the device failed")
            left.pop()
            publish(handle)

        monkeypatch.setattr(lake._store, "publish", fails)
    with pytest.raises(StorageError):
        lake.commit(staged, b'{"a": 2}')
    assert rows(root) == []
    assert lake.committed_state() == b"{}"


def test_files_that_an_entry_may_name_stay_until_the_next_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry is in place but its fsync fails: removing the files would lose rows, so they stay."""
    lake = lake_at(root)
    lake.recover()
    staged = write(lake, range(10)).close(tail=True)
    put = lake._objects.put_if_absent

    def late(key: str, data: bytes) -> None:
        put(key, data)
        if b'"commit"' in data:
            raise StorageError("write", key, "the device failed")

    monkeypatch.setattr(lake._objects, "put_if_absent", late)
    with pytest.raises(StorageError):
        lake.commit(staged, b'{"a": 2}')
    assert rows(root) == list(range(10))
    lake.close()
    again = lake_at(root)
    again.recover()
    assert rows(root) == list(range(10))
    assert again.committed_state() == b'{"a": 2}'


def test_a_place_without_permission_is_one_plain_error() -> None:
    """A root that this user may not write: one sentence that says so. The rest of the store's rules are alike."""
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


def test_data_is_on_the_disk_before_the_entry_that_names_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file, its folder and the new parents of that are synced before the entry gets its name."""
    synced: list[str] = []
    sync, link = os.fsync, os.link

    def note_sync(descriptor: int) -> None:
        synced.append(os.path.relpath(Path(f"/proc/self/fd/{descriptor}").readlink(), root))
        sync(descriptor)

    def note_link(source: Path, target: Path, **more: Any) -> None:
        link(source, target, **more)
        synced.append(f"named {os.path.relpath(target, root)}")

    lake = lake_at(root)
    lake.recover()
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "link", note_link)
    [file] = write(lake, range(5)).close(tail=True)
    lake.commit([file], b'{"a": 1}')
    entry = synced.index(f"named _melisma/default/journal/{3:020}.json")
    named = synced.index(f"named {file.path}")
    temporary = [at for at, what in enumerate(synced) if what.startswith("_melisma/default/staging/")]
    assert temporary
    assert max(temporary) < entry
    assert max(synced.index(folder, named) for folder in ("orders", ".")) < entry


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_the_journal_speaks_as_plainly_as_the_store(root: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """What the system refuses to the journal is said in the words in which it is said of data."""
    objects = ObjectsOnDisk(root)
    plain = str(refused("write", str(root / "a"), OSError(number, "")))

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(Refused) as error:
        objects.put_if_absent("a", b"")
    assert str(error.value) == plain
    assert not (root / "a").exists()


def test_a_broken_entry_is_not_taken_for_a_new_lake(root: Path) -> None:
    """A journal that cannot be read is an error: `{}` would load everything again."""
    lake = lake_at(root)
    lake.recover()
    lake.commit([], b'{"a": 1}')
    entries = sorted((root / "_melisma/default/journal").iterdir())
    entries[-1].write_bytes(b'{"a"')
    with pytest.raises(StorageError, match="cannot read"):
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


@pytest.fixture(params=["memory", "moto", *SERVICES])
def remote(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Store]:
    """Opens one and the same place of an object store again and again, as several processes do."""
    if request.param == "memory":
        url = f"memory://{uuid.uuid4().hex}/lake"
        return lambda: open_store(url, None, distribution="melisma-test")
    if request.param in SERVICES:
        place = request.getfixturevalue("new_place")(request.param)
        for name, value in place.credentials.items():
            monkeypatch.setenv(name, value)
        return lambda: open_store(place.url, place.options, distribution="melisma-test")
    server = request.getfixturevalue("s3_server")
    for name, value in server.credentials.items():
        monkeypatch.setenv(name, value)
    url, options = f"s3://{server.new_bucket()}/some/lake", {"endpoint_url": server.endpoint}
    return lambda: open_store(url, options, distribution="melisma-test")


def visible(store: Store) -> list[int]:
    """What a reader sees, read by pyarrow from the bytes that are there."""
    found: list[int] = []
    for info in store.glob("*/*.parquet"):
        found += pq.read_table(pa.BufferReader(store.read_bytes(info.path)))["id"].to_pylist()
    return sorted(found)


def test_the_same_lake_works_in_an_object_store(remote: Callable[[], Store]) -> None:
    """Stage, commit and read back; an aborted commit leaves nothing."""
    lake, store = FileLake(remote(), settings=QUICK), remote()
    lake.recover()
    assert lake.committed_state() == b"{}"
    staged = write(lake, range(25)).close(tail=True)
    assert store.glob("orders/*") == []
    lake.commit(staged, b'{"a": 1}')
    assert [f.path for f in store.glob("**/*.parquet")] == [f.path for f in staged]
    assert lake.committed_state() == b'{"a": 1}'
    write(lake, range(25)).abandon()
    lake.close()
    assert len(store.glob("orders/*")) == len(staged)
    assert list(store.unfinished()) == []
    assert store.glob("_melisma/default/staging/**") == []


def test_when_the_store_does_not_take_a_file_the_others_go_too(remote: Callable[[], Store]) -> None:
    """What is sent in the background fails when the commit asks for it: nothing is there, and nothing is left over."""
    lake, store = FileLake(remote(), settings=QUICK), remote()
    lake.recover()
    staged = [file for _ in range(3) for file in write(lake, range(5)).close(tail=True)]
    handles = [file.handle for file in staged]
    assert all(each.handle for each in handles)  # all of them are there
    failed: Future[Any] = Future()
    failed.set_exception(StorageError("write", "it", "it was refused on purpose"))
    setattr(handles[1], "_begun" if hasattr(handles[1], "_begun") else "_closing", failed)
    with pytest.raises(StorageError, match="refused on purpose"):
        lake.commit(staged, b'{"a": 1}')
    assert lake.committed_state() == b"{}"
    assert store.glob("orders/**") == []
    assert store.glob("_melisma/default/staging/**") == []
    assert len(list(store.unfinished())) <= 1  # the one whose name nobody was told


def test_a_run_that_was_taken_over_can_publish_nothing(remote: Callable[[], Store]) -> None:
    """The next run revokes what it has staged, so that even a request that comes late changes nothing."""
    zombie, store = FileLake(remote(), settings=QUICK), remote()
    zombie.recover()
    zombie.commit(write(zombie, range(5)).close(tail=True), b'{"a": 1}')
    zombie.release()
    staged = write(zombie, range(5, 25)).close(tail=True)
    unfinished = write(zombie, range(25, 90), ParquetOptions(row_group_rows=2))
    other = FileLake(remote(), "other", settings=QUICK)
    other.recover()
    kept = write_as(other, "theirs", range(3)).close(tail=True)
    zombie._run._heartbeat.stop()  # type: ignore[union-attr]  # it hangs, as seen from outside
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("melisma.lake.liveness.is_gone", lambda _process: True)
        lake = FileLake(remote(), settings=QUICK)
        lake.recover()
    assert {path.partition("/")[0] for path, _ in store.unfinished()} <= {"theirs"}
    for file in staged:
        with pytest.raises(StorageError):
            zombie._store.publish(file.handle)
    with pytest.raises(MelismaError):
        zombie.commit(staged, b'{"a": 2}')
    unfinished.abandon()
    assert visible(store) == list(range(5))
    lake.commit(write(lake, range(5, 9)).close(tail=True), b'{"a": 3}')
    assert visible(store) == list(range(9))
    other.commit(kept, None)
    assert len(store.glob("theirs/*")) == len(kept)
