"""The holes of docs/delivery.md: for each rule that closes one, an edit that takes it out, and what test fails then.

`test_holes` makes each edit in a copy of the library and holds that the test fails there; docs/delivery.md names the
same tests. So no rule can go, and no test can lose its teeth, without somebody being told.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HOLES", "Hole"]

REPLAY, RECOVER, JOURNAL = (f"tests/shared/lake/test_{name}.py" for name in ("replay", "recover", "journal"))
LAKE = "tests/shared/lake/test_lake.py"
TARGET, METHODS = "tests/targets/test_replay.py", "tests/targets/test_load_methods.py"


@dataclass(frozen=True)
class Hole:
    """A rule.

    Attributes:
        hole: its letter, or its number among those that were found while building.
        rule: what it says.
        file: where it is, below `melisma/`.
        before: the text that does it.
        after: what stands there without it.
        test: what fails then.
    """

    hole: str
    rule: str
    file: str
    before: str
    after: str
    test: str


HOLES = [
    Hole(
        "A",
        "silence removes nothing once a STATE was released",
        "lake/replay.py",
        "if started_silent and not any(run.released for run in chain):",
        "if started_silent:",
        f"{REPLAY}::test_i_silence_after_a_released_state_removes_nothing",
    ),
    Hole(
        "A",
        "the journal says that a STATE goes out before it does",
        "target/load.py",
        "self._destination.release()",
        "",
        f"{TARGET}::test_a_silent_tap_that_goes_on_from_a_released_state_loses_nothing",
    ),
    Hole(
        "B",
        "an announced position is an acknowledgement, and stays one",
        "lake/history.py",
        '"""Take in a replay decision: what is acknowledged now, and what waits to be replaced."""',
        "return",
        f"{REPLAY}::test_e_an_older_position_than_the_acknowledged_one_removes_nothing",
    ),
    Hole(
        "C",
        "a voided position is refused",
        "lake/replay.py",
        "raise StateAhead(stream)",
        "pass",
        f"{REPLAY}::test_d_a_position_that_a_rollback_voided_is_refused",
    ),
    Hole(
        "D",
        "rows at a STATE with progress markers stay staged",
        "target/load.py",
        'if b"progress_markers" not in state.text:',
        "if True:",
        f"{TARGET}::test_rows_are_not_committed_at_a_state_with_progress_markers",
    ),
    Hole(
        "D",
        "the lake refuses such a commit",
        "lake/recover.py",
        "if has_progress_markers(value, stream) and stream not in held:",
        "if False:",
        f"{RECOVER}::test_rows_at_a_state_with_progress_markers_are_refused",
    ),
    Hole(
        "E",
        "the latest of equal positions counts",
        "lake/history.py",
        "marks[-1] = Mark(seq=new.seq, position",
        "marks[-1] = Mark(seq=marks[-1].seq, position",
        f"{REPLAY}::test_c_counts_the_latest_of_equal_positions",
    ),
    Hole(
        "E",
        "a full table's rows of an unclean run are replaced",
        "lake/replay.py",
        "if known.full_table and unclean and not named:",
        "if False:",
        f"{REPLAY}::test_b_a_full_tables_rows_of_an_unclean_run_are_replaced",
    ),
    Hole(
        "E",
        "those of a run that ended well are not",
        "lake/replay.py",
        "if run is None or run.clean:",
        "if run is None:",
        f"{REPLAY}::test_e_a_full_table_that_ended_well_is_appended_again",
    ),
    Hole(
        "F",
        "a stream that the STATE does not name goes by the whole STATE",
        "wire/position.py",
        "self.streams.get(stream, self.whole)",
        'self.streams.get(stream, "")',
        f"{REPLAY}::test_c_a_stream_that_is_not_named_goes_by_the_whole_state",
    ),
    Hole(
        "G",
        "a tail beyond the last bookmark says that the tap died",
        "target/ending.py",
        "if covered and all(",
        "if False and all(",
        f"{TARGET}::test_rows_beyond_the_last_bookmark_say_that_the_tap_died",
    ),
    Hole(
        "G",
        "so does an incremental stream without a bookmark",
        "target/ending.py",
        "if not stands and known.keys()",
        "if False and known.keys()",
        f"{TARGET}::test_an_incremental_stream_without_a_bookmark_says_that_the_tap_died",
    ),
    Hole(
        "G",
        "a tap of ours without a final STATE died",
        "target/ending.py",
        "if announces:",
        "if False:",
        f"{TARGET}::test_a_tap_of_ours_always_ends_with_a_state",
    ),
    Hole(
        "G",
        "our taps repeat their final STATE",
        "tap/stream.py",
        "self._tap.state_writer.repeat_state(self.tap_state)",
        "pass",
        "tests/shared/tap/test_stream.py::test_a_run_without_news_still_ends_with_its_state",
    ),
    Hole(
        "G",
        "an overwrite needs a STATE or ACTIVATE_VERSION after its rows",
        "target/generations.py",
        "if not generation.finished and not trust_eof:",
        "if False:",
        f"{METHODS}::test_an_overwrite_that_is_not_whole_changes_nothing",
    ),
    Hole(
        "G",
        "an overwrite that shrinks too much is refused",
        "lake/generation.py",
        "if new and new * 100 <",
        "if False and new * 100 <",
        f"{METHODS}::test_an_overwrite_that_shrinks_too_much_is_refused",
    ),
    Hole(
        "H",
        "a version that comes before its rows waits for them",
        "target/generations.py",
        "return (self._overwrites or self._opened is not None) and not self._ready",
        "return self._overwrites and not self._ready",
        f"{METHODS}::test_a_version_never_overtakes_its_rows",
    ),
    Hole(
        "H",
        "a version without rows empties nothing",
        "lake/generation.py",
        "if before and not new and not switch.allow_empty:",
        "if False:",
        f"{METHODS}::test_a_version_without_rows_empties_nothing_unless_it_may",
    ),
    Hole(
        "I",
        "boundary rows that come again are dropped",
        "lake/boundary.py",
        "if not self._left:",
        "if True:",
        f"{TARGET}::test_boundary_rows_of_inclusive_keys_are_not_doubled",
    ),
    Hole(
        "I",
        "as often as they are there, not more",
        "lake/boundary.py",
        "self._left[row] -= 1",
        "pass",
        "tests/shared/lake/test_boundary.py",
    ),
    Hole(
        "J",
        "merging and replacing loads are not replayed",
        "lake/replay.py",
        'if method != "append-only":',
        "if False:",
        f"{REPLAY}::test_a_merging_and_replacing_loads_remove_nothing",
    ),
    Hole(
        "J",
        "files that an upsert wrote are not removed by a replay",
        "lake/recover.py",
        "if any(file.replaces for file in decision.remove):",
        "if False:",
        f"{METHODS}::test_appending_after_an_upsert_that_was_not_acknowledged_loses_nothing",
    ),
    Hole(
        "K",
        "streams that do not come in a run are decided too",
        "lake/recover.py",
        "if stream in self._decisions or self._start is None:",
        "if True:",
        f"{REPLAY}::test_pending_rows_wait_through_runs_that_do_not_bring_them",
    ),
    Hole(
        "L",
        "a stream's folder belongs to one pipeline",
        "lake/recover.py",
        "ask(lambda: objects.claim(key, mine)) != mine:",
        "False:",
        f"{RECOVER}::test_a_stream_belongs_to_one_pipeline",
    ),
    Hole(
        "L",
        "under Meltano each extractor is a pipeline",
        "lake/layout.py",
        'extractor = environment.get("MELTANO_EXTRACTOR_NAME")',
        "extractor = None",
        "tests/shared/lake/test_layout.py::test_under_meltano_each_extractor_is_a_pipeline",
    ),
    Hole(
        "L",
        "vacuum and verify look at the pipeline's own files",
        "lake_cli/place.py",
        "and name.pipeline == self.pipeline",
        "",
        "tests/shared/lake_cli/test_mend.py::test_vacuum_removes_what_nothing_refers_to_and_no_more",
    ),
    Hole(
        "M",
        "a writer whose number is taken is fenced",
        "lake/journal.py",
        "if not passes(other):",
        "if False:",
        f"{JOURNAL}::test_a_fenced_writer_creates_nothing",
    ),
    Hole(
        "M",
        "fence first, undo second",
        "lake/recover.py",
        """        record = Open(run=run, process=liveness.this_process(), melisma=__version__)
""",
        """        record = Open(run=run, process=liveness.this_process(), melisma=__version__)
        undo([each for intent in journal.history.intents.values() for each in intent.staged], files)
""",
        f"{RECOVER}::test_a_zombie_is_fenced_before_anything_of_it_is_undone",
    ),
    Hole(
        "M",
        "what is undone is revoked, so that nobody can publish it any more",
        "lake/recover.py",
        """        files.discard(file.handle)
        failpoints""",
        "        failpoints",
        f"{RECOVER}::test_a_zombie_is_fenced_before_anything_of_it_is_undone",
    ),
    Hole(
        "M",
        "files without an entry are removed",
        "lake/recover.py",
        "        files.delete(file.path)\n\n",
        "\n",
        f"{RECOVER}::test_files_are_never_finished_for_a_dead_run",
    ),
    Hole(
        "M",
        "voided intents are undone again by later opens",
        "lake/history.py",
        "self.voided = [*self.voided, *self.intents.values()][-_VOIDED_INTENTS:]",
        "self.voided = [*self.intents.values()]",
        f"{RECOVER}::test_a_zombie_that_dies_awake_is_cleaned_up_by_later_opens",
    ),
    Hole(
        "N",
        "a number that was taken and pruned is known from the checkpoint",
        "lake/journal.py",
        "if later is None or self",
        "if True or self",
        f"{JOURNAL}::test_a_zombie_at_a_pruned_number_is_fenced",
    ),
    Hole(
        "O",
        "only acknowledged files are compacted",
        "lake/maintenance.py",
        "and file.seq <= stream.acked",
        "",
        f"{RECOVER}::test_files_that_a_replay_may_still_remove_are_not_compacted",
    ),
    Hole(
        "O",
        "a compaction gives way to a run that opens",
        "lake/maintenance.py",
        "return not isinstance(record, Open | Rollback)",
        "return True",
        f"{RECOVER}::test_a_compaction_gives_way_to_a_run_that_opens_at_the_last_moment",
    ),
    Hole(
        "O",
        "and to a commit that removes its inputs",
        "lake/maintenance.py",
        "if paths & journal.taken or",
        "if False or",
        f"{RECOVER}::test_a_compaction_gives_way_to_a_commit_that_removes_its_inputs",
    ),
    Hole(
        "O",
        "a commit gives way to a compaction that took what it replaces",
        "lake/recover.py",
        "if file.path in self.journal.taken:",
        "if False:",
        f"{RECOVER}::test_a_commit_gives_way_to_a_compaction_that_took_what_it_replaces",
    ),
    Hole(
        "O",
        "a compaction does not fence the writer",
        "lake/journal.py",
        "return isinstance(record, Compact) or (isinstance(record, Intent) and record.compact)",
        "return False",
        f"{JOURNAL}::test_a_compaction_in_between_fences_nobody",
    ),
    Hole(
        "P",
        "replaced files are deleted before the STATE",
        "lake/recover.py",
        """        for file in record.removes:
            self._files.delete(file.path)
            failpoints""",
        """        for file in record.removes:
            failpoints""",
        f"{METHODS}::test_killed_half_way_and_run_again_every_key_is_there_once[overwrite-delete:after]",
    ),
    Hole(
        "P",
        "deletes that a crash left out are done at the next open",
        "lake/recover.py",
        "            files.delete(path)\n",
        "",
        f"{RECOVER}::test_replaced_files_go_before_the_state_and_a_crash_in_between_is_made_good",
    ),
    Hole(
        "Q",
        "dead letters are replaced as rows are",
        "lake/history.py",
        "            stream.files.append(file)\n",
        '            stream.files += [file] if file.kind == "data" else []\n',
        f"{RECOVER}::test_dead_letters_are_files_of_the_same_entry",
    ),
    Hole(
        "Q",
        "a replay of letters is one entry: rows in, letters out",
        "lake/redelivery.py",
        "adds=adds, removes=inputs,",
        "adds=adds, removes=[],",
        "tests/targets/test_dead_letters.py::test_letters_are_fed_back_after_a_fix",
    ),
    Hole(
        "R",
        "no hard links: refused",
        "lake/objects.py",
        "os.link(temporary, path)",
        "temporary.rename(path)",
        f"{JOURNAL}::test_a_disk_without_hard_links_is_refused",
    ),
    Hole(
        "R",
        "an entry is synced before it has its name",
        "lake/objects.py",
        "        os.fsync(file.fileno())\n",
        "        pass\n",
        f"{JOURNAL}::test_a_new_name_is_synced_with_its_folder_and_new_parents",
    ),
    Hole(
        "R",
        "and its folder after that",
        "lake/objects.py",
        """        with self._refusals("write", path):
            _sync_folder(path.parent)
""",
        "",
        f"{JOURNAL}::test_a_new_name_is_synced_with_its_folder_and_new_parents",
    ),
    Hole(
        "R",
        "a claim's name is on the disk before the next entry",
        "lake/objects.py",
        "                self._unsynced.add(path.parent)\n",
        "",
        f"{JOURNAL}::test_a_claim_is_whole_and_its_name_is_durable_before_the_next_entry",
    ),
    Hole(
        "R",
        "a failed fsync fails the attempt",
        "lake/objects.py",
        "        os.fsync(file.fileno())\n",
        "        with contextlib.suppress(OSError):\n            os.fsync(file.fileno())\n",
        f"{JOURNAL}::test_a_failed_fsync_fails_the_put",
    ),
    Hole(
        "R",
        "so does one of the folder",
        "lake/objects.py",
        "        os.fsync(handle)\n",
        "        with contextlib.suppress(OSError):\n            os.fsync(handle)\n",
        f"{JOURNAL}::test_a_failed_fsync_fails_the_put",
    ),
    Hole(
        "R",
        "data is on the disk before the entry that names it",
        "storage/local.py",
        "            os.fsync(self._raw.fileno())\n",
        "            pass\n",
        f"{LAKE}::test_data_is_on_the_disk_before_the_entry_that_names_it",
    ),
    Hole(
        "R",
        "so are its folders",
        "lake/recover.py",
        "    files.sync()\n",
        "",
        f"{LAKE}::test_data_is_on_the_disk_before_the_entry_that_names_it",
    ),
    Hole(
        "R",
        "of two entries with one number the attempt id says whose it is",
        "lake/journal.py",
        "return None if other.attempt == record.attempt else other",
        "return other",
        f"{JOURNAL}::test_a_lost_reply_is_told_from_a_conflict",
    ),
    Hole(
        "R",
        "a run holds a lock",
        "lake/recover.py",
        "lock = _take_lock(objects, pipeline)",
        "lock = None",
        f"{RECOVER}::test_a_second_run_on_the_same_disk_is_refused",
    ),
    Hole(
        "R",
        "which is believed on one machine only",
        "lake/recover.py",
        "if locked and liveness.same_kernel(history.process):",
        "if locked:",
        f"{RECOVER}::test_a_lock_says_nothing_of_a_run_on_another_machine",
    ),
    Hole(
        "S",
        "a heartbeat that changes while watched is alive",
        "lake/recover.py",
        "if liveness.beats(lambda",
        "if False and liveness.beats(lambda",
        f"{RECOVER}::test_a_run_whose_heartbeat_changes_is_not_taken_over",
    ),
    Hole(
        "S",
        "a version that goes backwards is an error",
        "lake/recover.py",
        "if known is not None and known.version is not None and version < known.version:",
        "if False:",
        f"{RECOVER}::test_a_version_that_goes_backwards_is_refused",
    ),
    Hole(
        "2",
        "a replay voids positions",
        "lake/history.py",
        "stream.void = [*stream.void, *(mark.position for mark in gone)][-_VOID:]",
        "pass",
        f"{REPLAY}::test_d_a_position_whose_rows_a_replay_removed_is_refused",
    ),
    Hole(
        "3",
        "an unknown start is marked",
        "lake/replay.py",
        'return _decision(stream, "f", known, now, position, warning)',
        'return _decision(stream, "f", known, now, "", warning)',
        f"{REPLAY}::test_f_the_retry_of_a_run_from_an_unknown_position_replaces_it",
    ),
    Hole(
        "4",
        "while files are pending, later equal positions count as the old one",
        "lake/replay.py",
        "if known.pending and found[-1].seq >= known.pending_before and position == known.base:",
        "if False:",
        f"{REPLAY}::test_pending_rows_wait_through_runs_that_do_not_bring_them",
    ),
    Hole(
        "6",
        "a boundary stays with its position",
        "lake/history.py",
        "boundary=new.boundary or marks[-1].boundary)",
        "boundary=new.boundary)",
        f"{REPLAY}::test_boundary_rows_outlast_commits_of_other_streams",
    ),
    Hole(
        "6",
        "also where it was acknowledged",
        "lake/history.py",
        "if boundary is None and marks and marks[0].position == position:",
        "if False:",
        f"{REPLAY}::test_boundary_rows_outlast_a_replay_in_between",
    ),
    Hole(
        "7",
        "a tail commits with the STATE that stands",
        "lake/recover.py",
        "            state = self._last_state\n",
        "            pass\n",
        f"{REPLAY}::test_c_counts_the_latest_of_equal_positions",
    ),
    Hole(
        "8",
        "an announced {} is silence",
        "lake/replay.py",
        "return not self.positions.whole",
        "return self.announced is None",
        f"{REPLAY}::test_h_an_empty_state_is_a_silence_that_was_announced",
    ),
    Hole(
        "O",
        "a commit looks for compactions right before its own entry",
        "lake/recover.py",
        "            revalidate()  # a compaction may have come between this run's last two entries\n",
        "",
        f"{RECOVER}::test_a_commit_gives_way_to_a_compaction_that_took_what_it_replaces",
    ),
    Hole(
        "14",
        "a SCHEMA that changes does not hide the tail before it",
        "target/load.py",
        "        yield from self._retired\n",
        "",
        f"{TARGET}::test_rows_before_a_schema_that_changed_say_that_the_tap_died",
    ),
    Hole(
        "17",
        "what no STATE has named is not replaced as a whole",
        "lake/replay.py",
        "if earlier is None and not known.named:",
        "if False:",
        f"{REPLAY}::test_e_a_replacing_rewind_leaves_a_stream_that_no_state_names",
    ),
    Hole(
        "12",
        "after a commit that failed there is no other one",
        "target/load.py",
        "if self._started and not self._committing:",
        "if self._started:",
        f"{METHODS}::test_no_state_goes_out_when_its_rows_cannot_be_merged"
        "[a key that changes between two commits-at the end]",
    ),
]
