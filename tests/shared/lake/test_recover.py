"""Opening, committing, compacting and rolling back: what is left where, whoever dies or wakes up."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from lake_doubles import QUICK, Crash, DiskFiles, Faults, FaultyFiles, FaultyObjects, MemoryFiles, MemoryObjects, load

from melisma.errors import ConfigError, InputError, MelismaError, StorageError, UsageError
from melisma.lake import liveness, recover
from melisma.lake.journal import Fenced, Journal
from melisma.lake.liveness import PipelineBusy
from melisma.lake.maintenance import Overtaken, compact, rollback
from melisma.lake.objects import Objects, ObjectsOnDisk
from melisma.lake.records import FileEntry, Open, Process, RowCounts
from melisma.lake.recover import DataFiles, Run, committed_state, open_run

STATE = '{"bookmarks": {"a":  {"replication_key_value": 1.50}}}'


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def files() -> MemoryFiles:
    return MemoryFiles()


def begin(objects: Objects, files: DataFiles, run: str, announced: str | None = None) -> Run:
    opened = open_run(objects, files, "p", run, QUICK)
    opened.close()  # no heartbeats needed
    opened.start(announced)
    return opened


def state(value: int) -> str:
    return json.dumps({"bookmarks": {"a": {"replication_key_value": value}}})


# A run


def test_state_is_kept_byte_for_byte(objects: MemoryObjects, files: MemoryFiles) -> None:
    assert committed_state(objects, "p") is None
    begin(objects, files, "r1").commit([], STATE)
    assert committed_state(objects, "p") == STATE


def test_before_the_entry_the_intent_names_what_becomes_visible(objects: MemoryObjects, files: MemoryFiles) -> None:
    faults = Faults()
    run = begin(objects, FaultyFiles(files, faults), "r1")
    staged = files.stage("a/1", "a", [(1, 1)])
    faults.at, faults.kind = faults.count + 1, "before"
    with pytest.raises(Crash):
        run.commit([staged], state(1))
    (intent,) = Journal.load(objects, "p").history.intents.values()
    assert [(file.path, file.handle) for file in intent.staged] == [("a/1", "staged/a/1")]
    assert files.visible == {}


@pytest.mark.parametrize("at", range(1, 30))
@pytest.mark.parametrize("kind", ["before", "after"])
@pytest.mark.parametrize("at_once", [1, 8])
def test_the_next_open_leaves_all_of_a_commit_or_nothing(
    objects: MemoryObjects, files: MemoryFiles, at: int, kind: str, at_once: int
) -> None:
    """Wherever the commit dies, and wherever the open that cleans up dies: the files are those of the journal."""
    begin(objects, files, "r1").commit([files.stage("a/1", "a", [(1, 1)])], state(1))
    run = begin(objects, files, "r2", state(0))
    faults = Faults(at, kind)
    run.journal.objects, run._files = FaultyObjects(objects, faults), FaultyFiles(files, faults, at_once)
    staged = [files.stage(f"a/{n}", "a", [(n, n)]) for n in (2, 3)]
    with contextlib.suppress(Crash):
        run.commit(staged, state(3))
    for dying in range(1, 12):
        again = Faults(dying, kind)
        try:
            open_run(FaultyObjects(objects, again), FaultyFiles(files, again), "p", f"d{dying}", QUICK).close()
        except Crash:
            continue
    begin(objects, files, "r3")
    live = {file.path for file in Journal.load(objects, "p").live_files()}
    assert set(files.visible) == live
    assert files.staged == {} or at == 1
    assert live == ({"a/1", "a/2", "a/3"} if committed_state(objects, "p") == state(3) else {"a/1"})


class FarFiles(MemoryFiles):
    """Files of a store that takes several requests at once; `called` sees each file before it is published."""

    at_once = 8

    def called(self, path: str) -> None:
        """Write it."""

    def publish(self, handle: str, path: str) -> None:
        self.called(path)
        super().publish(handle, path)


def test_files_of_a_store_that_is_far_away_are_published_at_once(objects: MemoryObjects) -> None:
    """Each waits for the three others: one after the other they would never be published."""
    files, meet = FarFiles(), threading.Barrier(4)
    files.called = lambda _: meet.wait(60) and None  # type: ignore[method-assign]
    run = begin(objects, files, "r1")
    run.commit([files.stage(f"a/{n}", "a", [(n, n)]) for n in range(4)], state(1))
    assert sorted(files.visible) == ["a/0", "a/1", "a/2", "a/3"]


def test_when_one_of_several_fails_none_appears_later(objects: MemoryObjects) -> None:
    """What is under way is waited for, and taken back with the rest."""
    files, failed, late = FarFiles(), threading.Event(), threading.Event()

    def called(path: str) -> None:
        if path == "a/2":
            failed.set()
            raise StorageError("write", path, "refused")
        if path == "a/3":
            failed.wait(60)
            time.sleep(0.3)
            late.set()

    files.called = called  # type: ignore[method-assign]
    run = begin(objects, files, "r1")
    with pytest.raises(StorageError, match="refused"):
        run.commit([files.stage(f"a/{n}", "a", [(n, n)]) for n in range(1, 20)], state(1))
    assert late.is_set()
    assert (files.visible, files.staged) == ({}, {})
    assert committed_state(objects, "p") is None


def test_files_are_never_finished_for_a_dead_run(objects: MemoryObjects, files: MemoryFiles) -> None:
    """Hole M: published and without an entry, they go, since no STATE went out for them."""
    run = begin(objects, files, "r1")
    faults = Faults()
    run.journal.objects = FaultyObjects(objects, faults)
    # The first put of a commit with files is the intent and its confirmation; the next is the entry.
    faults.at = 3
    with pytest.raises(Crash):
        run.commit([files.stage("a/1", "a", [(1, 1)])], state(1))
    assert set(files.visible) == {"a/1"}
    begin(objects, files, "r2")
    assert files.visible == {}


def test_a_zombie_is_fenced_before_anything_of_it_is_undone(objects: MemoryObjects, files: MemoryFiles) -> None:
    """Hole M: when the first path is deleted, the number that the zombie would need is taken."""
    zombie = begin(objects, files, "r1")
    faults = Faults()
    zombie._files = FaultyFiles(files, faults)
    faults.at = 1
    with pytest.raises(Crash):
        zombie.commit([files.stage("a/1", "a", [(1, 1)])], state(1))
    seen: list[str] = []

    class Watching(MemoryFiles):
        def discard(self, _handle: str) -> None:
            seen.append(Journal.load(objects, "p").history.last_run)

    begin(objects, Watching(), "r2")
    assert seen == ["r2"]


def test_a_zombie_that_wakes_up_cleans_up_behind_itself(objects: MemoryObjects, files: MemoryFiles) -> None:
    """Stopped after it published; another run has undone its intent before; its late files go as well."""
    faults = Faults()
    zombie = begin(objects, files, "r1")
    zombie._files = FaultyFiles(files, faults)
    staged = files.stage("a/1", "a", [(1, 1)])
    faults.at, faults.kind = 1, "call"

    def take_over() -> None:
        rows = files.staged["staged/a/1"]
        begin(objects, files, "r2")
        files.staged["staged/a/1"] = rows  # a store whose handles cannot be revoked

    faults.call = take_over
    with pytest.raises(Fenced):
        zombie.commit([staged], state(1))
    assert (files.visible, files.staged) == ({}, {})
    assert committed_state(objects, "p") is None


def test_a_zombie_that_dies_awake_is_cleaned_up_by_later_opens(objects: MemoryObjects, files: MemoryFiles) -> None:
    """Voided intents are kept, so every later open removes their paths again."""
    faults = Faults()
    zombie = begin(objects, files, "r1")
    zombie._files = FaultyFiles(files, faults)
    faults.at = 1
    with pytest.raises(Crash):
        zombie.commit([files.stage("a/1", "a", [(1, 1)])], state(1))
    begin(objects, files, "r2").commit([], state(0))
    files.visible["a/1"] = [(1, 1)]  # its publishing, held up in the network until now
    begin(objects, files, "r3")
    assert files.visible == {}


def test_nothing_is_deleted_when_it_is_not_known_whether_the_entry_is_there(
    objects: MemoryObjects, files: MemoryFiles
) -> None:
    """The store falls silent at the entry: it may count, so its files stay until the next open knows."""
    run = begin(objects, files, "r1")

    class Silent(MemoryObjects):
        def put_if_absent(self, key: str, data: bytes) -> None:
            objects.put_if_absent(key, data)
            if b'"commit"' in data:
                self.kept = {}
                raise recover.StorageError("write", key, "gone")

        def get(self, key: str) -> bytes | None:
            return objects.get(key)

        def list(self, prefix: str, after: str = "") -> Any:
            return objects.list(prefix, after)

    run.journal.objects = Silent()
    with pytest.raises(StorageError):
        run.commit([files.stage("a/1", "a", [(1, 1)])], state(1))
    begin(objects, files, "r2")
    assert set(files.visible) == {"a/1"}
    assert committed_state(objects, "p") == state(1)


def test_a_file_of_another_size_than_staged_is_not_committed(objects: MemoryObjects, files: MemoryFiles) -> None:
    run = begin(objects, files, "r1")
    staged = files.stage("a/1", "a", [(1, 1), (2, 2)])
    files.staged[staged.handle].pop()
    with pytest.raises(StorageError, match="1 bytes there"):
        run.commit([staged], state(1))
    assert committed_state(objects, "p") is None


def test_rows_that_are_not_accounted_for_stop_the_commit(objects: MemoryObjects, files: MemoryFiles) -> None:
    run = begin(objects, files, "r1")
    with pytest.raises(MelismaError, match="accounted"):
        run.commit([], state(1), counts={"a": RowCounts(read=3, written=1, dead=1)})
    run.commit([], state(1), counts={"a": RowCounts(read=4, written=1, dead=1, repeated=1, skipped=1)})


def test_rows_at_a_state_with_progress_markers_are_refused(objects: MemoryObjects, files: MemoryFiles) -> None:
    """Hole D: the tap would wipe the markers and send them again."""
    marked = json.dumps({"bookmarks": {"a": {"progress_markers": {"replication_key_value": 3}}}})
    run = begin(objects, files, "r1")
    with pytest.raises(MelismaError, match="progress markers"):
        run.commit([files.stage("a/1", "a", [(1, 1)])], marked)
    run.commit([files.stage("b/1", "b", [(1, 1)])], marked)


def test_a_version_that_goes_backwards_is_refused(objects: MemoryObjects, files: MemoryFiles) -> None:
    """Hole S: versions are clock times of the tap's machine."""
    begin(objects, files, "r1").commit([], state(1), versions={"a": 20})
    with pytest.raises(InputError, match="version"):
        begin(objects, files, "r2").commit([], state(1), versions={"a": 19})


def test_dead_letters_are_files_of_the_same_entry(objects: MemoryObjects, files: MemoryFiles) -> None:
    """Hole Q: they are replaced by a replay as rows are."""
    run = begin(objects, files, "r1", state(0))
    dead = files.stage("a/dead", "a", [(1, 1)])
    letter = recover.Staged(FileEntry(path="a/dead", stream="a", rows=1, bytes=1, kind="dead_letter"), dead.handle)
    run.commit([letter], state(1))
    begin(objects, files, "r2", state(0)).commit([files.stage("a/2", "a", [(1, 1)])], state(1))
    assert set(files.visible) == {"a/2"}


def test_schemas_are_in_an_entry_only_when_they_change(objects: MemoryObjects, files: MemoryFiles) -> None:
    run = begin(objects, files, "r1")
    run.commit([], state(1), schemas={"a": {"type": "object"}})
    run.commit([], state(2), schemas={"a": {"type": "object"}})
    texts = [data for key, data in sorted(objects.kept.items()) if "journal/" in key]
    assert [b"schemas" in text for text in texts] == [False, True, False]
    assert begin(objects, files, "r2").schema("a") == {"type": "object"}


def test_a_stream_belongs_to_one_pipeline(objects: MemoryObjects, files: MemoryFiles) -> None:
    """Hole L."""
    begin(objects, files, "r1").claim("a/..")
    begin(objects, files, "r2").claim("a/..")
    other = open_run(objects, files, "q", "r3", QUICK)
    other.close()
    with pytest.raises(ConfigError, match="in this lake belongs to another pipeline"):
        other.claim("a/..")


def test_a_stream_that_a_state_only_names_is_not_claimed(objects: MemoryObjects, files: MemoryFiles) -> None:
    """A tap that was split goes on with the bookmarks of all its streams, also of those that others read now."""
    with begin(objects, files, "r1") as run:
        run.claim("users")
    other = open_run(objects, files, "q", "r2", QUICK)
    with other:
        other.start(None)
        other.claim("orders")
        both = '{"bookmarks": {"orders": {"replication_key_value": 1}, "users": {"replication_key_value": 1}}}'
        other.commit([files.stage("orders/1", "orders", [(1, 1)])], both, schemas={"orders": {"schema": {}}})
        with pytest.raises(ConfigError, match="in this lake belongs to another pipeline"):
            other.claim("users")
        other.claim("orders")


def test_release_is_put_once_and_before_a_state_goes_out(objects: MemoryObjects, files: MemoryFiles) -> None:
    run = begin(objects, files, "r1")
    run.commit([], state(1))
    assert not Journal.load(objects, "p").history.runs["r1"].released
    for _ in range(2):
        run.release()
    assert Journal.load(objects, "p").history.runs["r1"].released
    assert Journal.load(objects, "p").history.seq == 3


def test_replaced_files_go_before_the_state_and_a_crash_in_between_is_made_good(
    objects: MemoryObjects, files: MemoryFiles
) -> None:
    """Hole P: readers that glob see both for as short as can be, and never for ever."""
    begin(objects, files, "r1", state(0)).commit([files.stage("a/1", "a", [(1, 1)])], state(1))
    run = begin(objects, files, "r2", state(0))
    faults = Faults()
    run._files = FaultyFiles(files, faults)
    faults.at = 4  # publish, sync, size, and the delete
    with pytest.raises(Crash):
        run.commit([files.stage("a/2", "a", [(1, 1)])], state(1))
    assert set(files.visible) == {"a/1", "a/2"}
    begin(objects, files, "r3")
    assert set(files.visible) == {"a/2"}


# Others


def test_a_second_run_on_the_same_disk_is_refused(tmp_path: Path) -> None:
    objects, files = ObjectsOnDisk(tmp_path), DiskFiles(tmp_path)
    with open_run(objects, files, "p", "r1", QUICK), pytest.raises(PipelineBusy):
        open_run(objects, files, "p", "r2", QUICK)
    open_run(objects, files, "p", "r3", QUICK).close()


def test_a_run_whose_heartbeat_changes_is_not_taken_over(objects: MemoryObjects, files: MemoryFiles) -> None:
    """Hole S: no clocks; it changes while we watch."""
    Journal.load(objects, "p").append(Open(run="r1", process=Process(host="elsewhere", boot="x", pid=1)))
    beat = liveness.Heartbeat(objects, "_melisma/p/heartbeat.json", "r1", 0.005)
    beat.start()
    settings = recover.Settings(interval=0.2, pause=lambda seconds: threading.Event().wait(seconds) and None)
    with pytest.raises(PipelineBusy):
        open_run(objects, files, "p", "r2", settings)
    beat.stop()
    open_run(objects, files, "p", "r3", QUICK).close()


def test_a_lock_says_nothing_of_a_run_on_another_machine(tmp_path: Path) -> None:
    """Hole R: over a network file system each machine may get the lock; the heartbeat is looked at all the same."""
    objects = ObjectsOnDisk(tmp_path)
    Journal.load(objects, "p").append(Open(run="r1", process=Process(host="elsewhere", boot="x", pid=1)))
    beat = liveness.Heartbeat(objects, "_melisma/p/heartbeat.json", "r1", 0.005)
    beat.start()
    settings = recover.Settings(interval=0.2, pause=lambda seconds: threading.Event().wait(seconds) and None)
    with pytest.raises(PipelineBusy):
        open_run(objects, DiskFiles(tmp_path), "p", "r2", settings)
    beat.stop()
    open_run(objects, DiskFiles(tmp_path), "p", "r3", QUICK).close()


def test_a_run_whose_process_is_gone_is_taken_over_at_once(objects: MemoryObjects, files: MemoryFiles) -> None:
    gone = liveness.this_process()
    gone = Process(host=gone.host, boot=gone.boot, pid_namespace=gone.pid_namespace, pid=gone.pid, started="1")
    assert liveness.is_gone(gone)
    assert not liveness.is_gone(liveness.this_process())
    assert not liveness.is_gone(Process(host="elsewhere", boot=gone.boot, pid=gone.pid, started="1"))
    Journal.load(objects, "p").append(Open(run="r1", process=gone))

    def pause(seconds: float) -> None:
        assert seconds == 0, "nobody waits for a process that is not there"

    open_run(objects, files, "p", "r2", recover.Settings(pause=pause)).close()


def test_two_taps_at_once_the_loser_says_so_and_the_winner_loses_nothing(
    objects: MemoryObjects, files: MemoryFiles
) -> None:
    first = begin(objects, files, "r1")
    first.commit([files.stage("a/1", "a", [(1, 1)])], state(1))
    second = begin(objects, files, "r2", state(1))
    with pytest.raises(Fenced, match="another run has taken over"):
        first.commit([files.stage("a/2", "a", [(2, 2)])], state(2))
    second.commit([files.stage("a/3", "a", [(2, 2)])], state(2))
    assert set(files.visible) == {"a/1", "a/3"}


# Compaction and rollback


def three(objects: MemoryObjects, files: MemoryFiles) -> list[FileEntry]:
    """Two acknowledged files and one that is not."""
    run = begin(objects, files, "r1")
    for n in (1, 2):
        run.commit([files.stage(f"a/{n}", "a", [(n, n)])], state(n))
    run.end()
    begin(objects, files, "r2", state(2)).commit([files.stage("a/3", "a", [(3, 3)])], state(3))
    return sorted(Journal.load(objects, "p").live_files(), key=lambda file: file.path)


def test_compaction_puts_one_file_in_the_place_of_two(objects: MemoryObjects, files: MemoryFiles) -> None:
    entries = three(objects, files)
    compact(objects, files, "p", "c", entries[:2], [files.stage("a/c", "a", [(1, 1), (2, 2)])])
    assert set(files.visible) == {"a/3", "a/c"}
    assert {file.path for file in Journal.load(objects, "p").live_files()} == {"a/3", "a/c"}


def test_files_that_a_replay_may_still_remove_are_not_compacted(objects: MemoryObjects, files: MemoryFiles) -> None:
    """Hole O."""
    entries = three(objects, files)
    with pytest.raises(Overtaken):
        compact(objects, files, "p", "c", entries[1:], [files.stage("a/c", "a", [(2, 2), (3, 3)])])
    assert set(files.visible) == {"a/1", "a/2", "a/3"}
    assert files.staged == {}


@pytest.mark.parametrize("at", [1, 2])
def test_a_compaction_gives_way_to_a_run_that_opens(objects: MemoryObjects, files: MemoryFiles, at: int) -> None:
    """Hole O: and what it had published is gone."""
    entries = three(objects, files)
    faults = Faults(at, "call", lambda: begin(objects, files, "r9") and None)
    staged = files.stage("a/c", "a", [(1, 1), (2, 2)])
    with pytest.raises(Overtaken):
        compact(objects, FaultyFiles(files, faults), "p", "c", entries[:2], [staged])
    assert set(files.visible) == {"a/1", "a/2", "a/3"}


def test_a_compaction_gives_way_to_a_run_that_opens_at_the_last_moment(
    objects: MemoryObjects, files: MemoryFiles
) -> None:
    """Hole O: its outputs are undone already, so its entry must never be."""
    entries = three(objects, files)

    class Late(MemoryObjects):
        def put_if_absent(self, key: str, data: bytes) -> None:
            if b'"compact"' in data and b'"intent"' not in data and not self.kept.get("opened"):
                self.kept["opened"] = b"once"
                begin(objects, files, "r9")
            objects.put_if_absent(key, data)

        def get(self, key: str) -> bytes | None:
            return objects.get(key)

        def list(self, prefix: str, after: str = "") -> Any:
            return objects.list(prefix, after)

    with pytest.raises(Overtaken):
        compact(Late(), files, "p", "c", entries[:2], [files.stage("a/c", "a", [(1, 1), (2, 2)])])
    assert set(files.visible) == {"a/1", "a/2", "a/3"}
    assert {file.path for file in Journal.load(objects, "p").live_files()} == set(files.visible)


def test_a_compaction_gives_way_to_a_commit_that_removes_its_inputs(objects: MemoryObjects, files: MemoryFiles) -> None:
    """Hole O: revalidated at the very entry."""
    entries = three(objects, files)
    writer = begin(objects, files, "r9", state(3))
    commit_once = [lambda: writer.commit([], state(3), removes=entries[:1])]
    faults = Faults(2, "call", lambda: commit_once.pop()() and None)
    with pytest.raises(Overtaken):
        compact(objects, FaultyFiles(files, faults), "p", "c", entries[:2], [files.stage("a/c", "a", [(1, 1), (2, 2)])])
    assert set(files.visible) == {"a/2", "a/3"}


def test_a_commit_gives_way_to_a_compaction_that_took_what_it_replaces(
    objects: MemoryObjects, files: MemoryFiles
) -> None:
    """Hole O, the other way round; between any two of the writer's entries."""
    entries = three(objects, files)
    writer = begin(objects, files, "r9", state(3))
    compact(objects, files, "p", "c", entries[:2], [files.stage("a/c", "a", [(1, 1), (2, 2)])])
    writer.release()
    with pytest.raises(StorageError, match="compaction"):
        writer.commit([], state(3), removes=entries[:1])
    assert set(files.visible) == {"a/3", "a/c"}


@pytest.mark.parametrize("at", [0, 1, 2, 3], ids=["before the intent", "before publishing", "sync", "size"])
def test_a_commit_gives_way_to_a_compaction_at_any_moment(objects: MemoryObjects, files: MemoryFiles, at: int) -> None:
    """Hole O: also where the compaction's entries come before the intent, or between it and the commit."""
    entries = three(objects, files)
    writer = begin(objects, files, "r9", state(3))
    staged = files.stage("a/r9", "a", [(2, 2), (9, 9)])  # the rows of a/1 that stay, and a new one

    def compaction() -> None:
        compact(objects, files, "p", "c", entries[:2], [files.stage("a/c", "a", [(1, 1), (2, 2)])])

    if at:
        writer._files = FaultyFiles(files, Faults(at, "call", compaction))
    else:
        compaction()
    with pytest.raises(StorageError, match="compaction"):
        writer.commit([staged], state(9), removes=entries[:1])
    assert (set(files.visible), files.staged) == ({"a/3", "a/c"}, {})
    assert committed_state(objects, "p") == state(3)


def test_rollback_brings_files_state_and_schema_back(objects: MemoryObjects, files: MemoryFiles) -> None:
    run = begin(objects, files, "r1")
    seq = run.commit([files.stage("a/1", "a", [(1, 1)])], state(1), schemas={"a": {"v": 1}})
    run.commit([files.stage("a/2", "a", [(2, 2)])], state(2), schemas={"a": {"v": 2}})
    run.end()
    back = begin(objects, files, "r2")
    rollback(back, files, seq)
    assert set(files.visible) == {"a/1"}
    assert (back.committed_state(), back.schema("a")) == (state(1), {"v": 1})
    begin(objects, files, "r3", state(1)).commit([files.stage("a/3", "a", [(2, 2)])], state(2))
    assert set(files.visible) == {"a/1", "a/3"}


def test_rollback_across_a_replacement_is_refused(objects: MemoryObjects, files: MemoryFiles) -> None:
    """The files that it would need are gone."""
    run = begin(objects, files, "r1", state(0))
    seq = run.commit([files.stage("a/1", "a", [(1, 1)])], state(1))
    begin(objects, files, "r2", state(0)).commit([files.stage("a/2", "a", [(1, 1)])], state(1))
    with pytest.raises(UsageError, match="cannot go back"):
        rollback(begin(objects, files, "r3"), files, seq)
    assert set(files.visible) == {"a/2"}


def test_rollback_keeps_what_compaction_made_of_older_files(objects: MemoryObjects, files: MemoryFiles) -> None:
    entries = three(objects, files)
    compact(objects, files, "p", "c", entries[:2], [files.stage("a/c", "a", [(1, 1), (2, 2)])])
    rollback(begin(objects, files, "r9"), files, entries[1].seq)
    assert set(files.visible) == {"a/c"}


def test_a_rollback_fences_a_writer_that_sleeps(objects: MemoryObjects, files: MemoryFiles) -> None:
    run = begin(objects, files, "r1")
    seq = run.commit([files.stage("a/1", "a", [(1, 1)])], state(1))
    rollback(begin(objects, files, "r2"), files, seq)
    with pytest.raises(Fenced):
        run.commit([files.stage("a/2", "a", [(2, 2)])], state(2))
    assert set(files.visible) == {"a/1"}


def test_the_model_target_itself_delivers(objects: MemoryObjects, files: MemoryFiles) -> None:
    """Guards the doubles: without faults they move rows."""
    from lake_doubles import SdkTap

    tap = SdkTap({"a": [(n, n) for n in range(5)]})
    outcome = load(objects, files, files.stage, tap.messages({}, ["a"]), "r1")
    assert sum(files.rows("a").values()) == 5
    assert outcome.printed[-1]["bookmarks"]["a"] == {"replication_key_value": 4}
