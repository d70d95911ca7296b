"""The journal's puts: who wins a number, what a lost reply means, what a zombie can do, what a start reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lake_doubles import Faults, FaultyObjects, MemoryObjects
from obstore.store import MemoryStore

from melisma.errors import StorageError
from melisma.lake import journal as journal_module
from melisma.lake.journal import Fenced, Journal
from melisma.lake.objects import (
    Exists,
    NoReply,
    Objects,
    ObjectsInStore,
    ObjectsOnDisk,
    prove_put_if_absent,
)
from melisma.lake.records import Commit, Compact, Damaged, End, FileEntry, Intent, Open, Process, Release


def no_pause(_seconds: float) -> None: ...


@pytest.fixture(scope="session")
def s3() -> Iterator[Callable[[], ObjectsInStore]]:
    """A bucket prefix of its own in an S3 server on this machine."""
    boto3 = pytest.importorskip("boto3")
    server_module = pytest.importorskip("moto.server")
    from obstore.store import S3Store

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url, keys = f"http://{host}:{port}", {"aws_access_key_id": "id", "aws_secret_access_key": "key"}
    boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys).create_bucket(Bucket="bucket")
    count = iter(range(1000))

    def make() -> ObjectsInStore:
        store = S3Store(
            "bucket",
            endpoint=url,
            region="us-east-1",
            access_key_id="id",
            secret_access_key="key",  # noqa: S106 - the server takes any
            client_options={"allow_http": True},
        )
        return ObjectsInStore(store, f"lake{next(count)}", "s3://bucket")

    yield make
    server.stop()


@pytest.fixture(params=["disk", "obstore memory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "disk":
        return ObjectsOnDisk(tmp_path / "lake")
    if request.param == "s3":
        made: Objects = request.getfixturevalue("s3")()
        return made
    return ObjectsInStore(MemoryStore(), "lake")


def load(objects: Objects) -> Journal:
    return Journal.load(objects, "p", no_pause)


def opened(objects: Objects, run: str) -> Journal:
    journal = load(objects)
    journal.append(Open(run=run))
    return journal


def commit(run: str, *paths: str, state: str = "{}") -> Commit:
    return Commit(run=run, adds=[FileEntry(path=path, stream="a", rows=1, bytes=1) for path in paths], state=state)


# Objects


def test_an_object_is_created_only_if_it_is_absent(objects: Objects) -> None:
    objects.put_if_absent("f/a", b"1")
    with pytest.raises(Exists):
        objects.put_if_absent("f/a", b"2")
    assert objects.get("f/a") == b"1"
    prove_put_if_absent(objects, "f/probe")
    assert list(objects.list("f/")) == ["f/a"]


def test_objects_are_listed_in_order_after_a_key(objects: Objects) -> None:
    for name in "cab":
        objects.put_if_absent(f"f/{name}", b"")
    objects.put_if_absent("g/d", b"")
    assert list(objects.list("f/")) == ["f/a", "f/b", "f/c"]
    assert list(objects.list("f/", "f/a")) == ["f/b", "f/c"]
    assert list(objects.list("nothing/")) == []


def test_what_is_not_there_is_none_and_can_be_deleted(objects: Objects) -> None:
    assert objects.get("f/a") is None
    objects.delete("f/a")
    objects.put("f/a", b"1")
    objects.put("f/a", b"2")
    assert objects.get("f/a") == b"2"
    objects.delete("f/a")
    assert objects.get("f/a") is None


def test_a_disk_without_hard_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hole R."""

    def link(source: object, target: object) -> None:
        raise OSError(95, "Operation not supported", str(source), None, str(target))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StorageError, match="no hard links"):
        ObjectsOnDisk(tmp_path).put_if_absent("a", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("of", ["file", "folder"])
def test_a_failed_fsync_fails_the_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str) -> None:
    """Hole R: what may not be durable must not be built on, so no second try finds it and calls it done."""
    journal, sync = load(ObjectsOnDisk(tmp_path)), os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode) == (of == "file"):
            raise OSError(5, "Input/output error")
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="the device failed"):
        journal.append(Open(run="r"))


def test_a_new_name_is_synced_with_its_folder_and_new_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hole R."""
    synced: list[str] = []
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (synced.append(Path(f"/proc/self/fd/{handle}").readlink().name), sync(handle))[1]
    )
    ObjectsOnDisk(tmp_path / "root").put_if_absent("one/two/name", b"")
    assert synced[:3] == [tmp_path.name, "root", "one"]
    assert synced[3].startswith(".name.")
    assert synced[4:] == ["two"]


def test_a_claim_is_whole_and_its_name_is_durable_before_the_next_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second claim of a content is another name of the first, and costs no sync of its own."""
    objects, synced = ObjectsOnDisk(tmp_path), []
    assert objects.claim("claims/a", b"mine") == b"mine"
    objects.put_if_absent("before", b"")
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (synced.append(Path(f"/proc/self/fd/{handle}").readlink().name), sync(handle))[1]
    )
    assert objects.claim("claims/b", b"mine") == b"mine"
    assert synced == []
    objects.put_if_absent("entry", b"")
    assert synced[0] == "claims"
    assert (tmp_path / "claims" / "b").read_bytes() == b"mine"
    other = ObjectsOnDisk(tmp_path)
    assert other.claim("claims/c", b"theirs") == b"theirs"
    assert other.claim("claims/b", b"theirs") == b"mine"
    assert objects.claim("claims/c", b"mine") == b"theirs"


def test_a_disk_lock_is_held_against_others(tmp_path: Path) -> None:
    lock = ObjectsOnDisk(tmp_path).lock("lock")
    assert lock is not None
    with pytest.raises(Exists):
        ObjectsOnDisk(tmp_path).lock("lock")
    lock.release()
    again = ObjectsOnDisk(tmp_path).lock("lock")
    assert again is not None
    again.release()


def test_a_store_that_overwrites_is_refused() -> None:
    """Some servers ignore If-None-Match."""

    class Careless(MemoryObjects):
        def put_if_absent(self, key: str, data: bytes) -> None:
            self.put(key, data)

    with pytest.raises(StorageError, match="create-if-absent"):
        prove_put_if_absent(Careless(), "probe")


def test_a_store_that_does_not_answer_is_not_taken_for_one_that_refuses() -> None:
    from obstore.store import S3Store

    store = S3Store(
        "bucket",
        endpoint="http://127.0.0.1:9",
        region="x",
        access_key_id="a",
        secret_access_key="b",  # noqa: S106
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    with pytest.raises(NoReply) as caught:
        ObjectsInStore(store).put_if_absent("a", b"")
    assert "bucket" not in str(caught.value)


# Puts


def test_what_is_appended_is_read_back(objects: Objects) -> None:
    journal = opened(objects, "r1")
    state = '{"bookmarks": {"a":  {"v": 1.10}}}'
    journal.append(commit("r1", "a/1", state=state))
    journal.append(Release(run="r1"))
    journal.append(End(run="r1"))
    again = load(objects)
    assert again.history.seq == 4
    assert again.history.state == state
    assert again.history.runs["r1"].clean
    assert [file.path for file in again.live_files()] == ["a/1"]


def test_entries_are_text_with_their_kind_and_format(objects: Objects) -> None:
    journal = opened(objects, "r1")
    text = (objects.get(journal.key(1)) or b"").decode()
    assert '"record": "open"' in text
    assert '"format": 1' in text


def test_of_two_openers_one_is_refused(objects: Objects) -> None:
    first, second = load(objects), load(objects)
    first.append(Open(run="r1"))
    with pytest.raises(Fenced):
        second.append(Open(run="r2"))
    assert load(objects).history.last_run == "r1"


def test_a_fenced_writer_creates_nothing(objects: Objects) -> None:
    """Hole M: its number is taken, so its entry can never be."""
    zombie = opened(objects, "r1")
    opened(objects, "r2")
    with pytest.raises(Fenced):
        zombie.append(commit("r1", "a/1"))
    assert load(objects).history.state is None


@pytest.mark.parametrize("at", range(1, 6))
def test_a_lost_reply_is_told_from_a_conflict(at: int) -> None:
    """The put happened, or the get that looks for it is lost as well; the entry is there once."""
    inner = MemoryObjects()
    opened(inner, "r1")
    faults = Faults()
    journal = Journal.load(FaultyObjects(inner, faults), "p", no_pause)
    faults.count, faults.at, faults.kind = 0, at, "lost"
    assert journal.append(commit("r1", "a/1")) == 2
    faults.at = -1
    assert journal.append(End(run="r1")) == 3
    assert sum("journal/" in key for key in inner.kept) == 3


def test_a_put_that_never_arrived_is_done_again() -> None:
    class Deaf(MemoryObjects):
        deaf = 2

        def put_if_absent(self, key: str, data: bytes) -> None:
            self.deaf -= 1
            if self.deaf >= 0:
                raise NoReply
            super().put_if_absent(key, data)

    assert load(Deaf()).append(Open(run="r1")) == 1


def test_a_store_that_stays_silent_is_an_error_and_no_fence() -> None:
    class Dead(MemoryObjects):
        def put_if_absent(self, _key: str, _data: bytes) -> None:
            raise NoReply

    with pytest.raises(StorageError, match="not known whether"):
        load(Dead()).append(Open(run="r1"))


def test_a_compaction_in_between_fences_nobody(objects: Objects) -> None:
    """Hole O."""
    writer = opened(objects, "r1")
    compactor = load(objects)
    compactor.append(Intent(run="c", compact=True))
    compactor.append(Compact(run="c"))
    assert writer.append(commit("r1", "a/1")) == 4
    assert load(objects).history.state == "{}"


def test_an_intent_of_another_writer_fences(objects: Objects) -> None:
    writer, other = opened(objects, "r1"), load(objects)
    other.append(Intent(run="x"))
    with pytest.raises(Fenced):
        writer.append(commit("r1", "a/1"))


# Zombies at pruned numbers


def grown(objects: Objects, number: int, every: int = 10) -> Journal:
    """A journal with that many entries and checkpoints, pruned as far as it goes."""
    journal = opened(objects, "r2")
    for _ in range(number):
        journal.append(commit("r2"))
        if journal.history.seq % every == 0:
            journal.checkpoint()
            journal.prune(keep=0)
    return journal


@pytest.mark.parametrize("first", [True, False])
def test_a_zombie_at_a_pruned_number_is_fenced(first: bool) -> None:
    """Hole N, and its corner: at number 1 there is no entry before it that could be missing."""
    objects = MemoryObjects()
    zombie = load(objects) if first else opened(objects, "r1")
    grown(objects, 40)
    assert objects.get(zombie.key(2)) is None
    with pytest.raises(Fenced):
        zombie.append(Open(run="r1") if first else commit("r1", "a/1"))
    assert objects.get(zombie.key(zombie.history.seq + 1)) is None
    assert load(objects).history.last_run == "r2"


def test_a_zombies_leftover_does_not_vouch_for_the_next_number() -> None:
    """A hole of the first design: an entry at n-1 says nothing if a zombie left it in a pruned stretch."""
    objects = MemoryObjects()
    zombie = opened(objects, "r1")
    grown(objects, 40)
    kept = zombie.history.seq
    objects.kept[zombie.key(kept)] = b"left by another zombie, or by a put that came twice"
    with pytest.raises(Fenced):
        zombie.append(commit("r1", "a/1"))


def test_a_commit_that_was_in_force_and_is_pruned_is_not_taken_for_a_zombies() -> None:
    """A hole of the first design: n-1 is missing there too, but this commit's files are the lake's."""
    objects = MemoryObjects()
    writer = opened(objects, "r1")
    append_confirm = writer._confirm

    def slow(record: Any) -> None:
        grown(objects, 40)  # takes over, goes on, and prunes past this commit, before it is confirmed
        append_confirm(record)

    writer._confirm = slow  # type: ignore[method-assign]
    assert writer.append(commit("r1", "a/1")) == 2
    assert "a/1" in {file.path for file in load(objects).live_files()}


# Checkpoints


def test_a_start_reads_one_checkpoint_and_the_entries_after_it() -> None:
    objects = MemoryObjects()
    journal = grown(objects, 300, every=50)
    for n in range(7):
        journal.append(commit("r2", f"a/{n}"))
    faults = Faults()
    again = Journal.load(FaultyObjects(objects, faults), "p", no_pause)
    assert again.history.seq == journal.history.seq
    assert faults.count <= 20
    assert len({file.path for file in again.live_files()}) == 7


def test_a_checkpoint_is_due_after_a_hundred_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = MemoryObjects()
    journal = opened(objects, "r1")
    for n in range(150):
        journal.append(commit("r1", f"a/{n}"))
        journal.checkpoint_when_due()
    assert journal.history.checkpoint == journal_module.CHECKPOINT_EVERY
    assert len(list(load(objects).live_files("a"))) == 150
    assert load(objects).history == journal.history


@pytest.mark.parametrize("hint", [b"", b"{", b'{"checkpoint": 999}', b'{"checkpoint": 10}'])
def test_a_wrong_hint_costs_time_and_nothing_else(hint: bytes) -> None:
    objects = MemoryObjects()
    grown(objects, 55)
    objects.kept["_melisma/p/checkpoint.hint"] = hint
    assert load(objects).history.seq == 56


@pytest.mark.parametrize("content", [b"", b'{"format": 1, "seq"'])
def test_a_damaged_checkpoint_is_passed_over(content: bytes) -> None:
    objects = MemoryObjects()
    journal = grown(objects, 55)
    objects.kept[f"_melisma/p/checkpoint/{journal.history.checkpoint:020}.json"] = content
    assert load(objects).history.seq == 56


@pytest.mark.parametrize("content", [b"", b'{"record": "comm', b'{"record": "later", "format": 1, "run": "x"}'])
def test_a_half_written_entry_is_an_error_that_names_it(content: bytes) -> None:
    objects = MemoryObjects()
    journal = opened(objects, "r1")
    objects.kept[journal.key(2)] = content
    with pytest.raises(Damaged, match=r"00002\.json"):
        load(objects)
    with pytest.raises(Damaged):
        journal.append(commit("r1"))


def test_a_missing_entry_is_an_error_that_names_it() -> None:
    objects = MemoryObjects()
    journal = grown(objects, 5)
    del objects.kept[journal.key(3)]
    with pytest.raises(StorageError, match=r"00003\.json"):
        load(objects)


def test_a_newer_format_is_refused() -> None:
    objects = MemoryObjects()
    journal = opened(objects, "r1")
    objects.kept[journal.key(2)] = b'{"record": "sing", "format": 2, "run": "x"}'
    with pytest.raises(StorageError, match="newer melisma"):
        load(objects)


def test_an_earlier_history_is_rebuilt_while_its_entries_last() -> None:
    objects = MemoryObjects()
    journal = opened(objects, "r1")
    for n in range(5):
        journal.append(commit("r1", state=str(n)))
    assert journal.history_at(3).state == "1"
    grown(objects, 60)
    with pytest.raises(StorageError, match="pruned"):
        load(objects).history_at(3)


def test_a_process_survives_the_way_through_an_entry() -> None:
    objects = MemoryObjects()
    process = Process(host="h", boot="b", pid=7, started="1")
    load(objects).append(Open(run="r1", process=process))
    assert load(objects).history.process == process
