"""Starting again after a crash, with stock runners: what was not acknowledged is replaced, the boundary not doubled."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from harness import Target, record, schema, state

KEYED: dict[str, Any] = {
    "type": "SCHEMA",
    "stream": "s",
    "schema": {"type": "object", "properties": {"n": {"type": "integer"}, "v": {"type": ["null", "string"]}}},
    "key_properties": ["n"],
    "bookmark_properties": ["n"],
}


def bookmark(value: int, **more: Any) -> dict[str, Any]:
    """The STATE of an incremental SDK stream."""
    return state({"bookmarks": {"s": {"replication_key": "n", "replication_key_value": value, **more}}})


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """A target with an empty lake."""
    return Target(tmp_path)


def test_rows_that_the_runner_never_heard_of_are_replaced(target: Target) -> None:
    """A run whose STATE never reached the runner is sent again from the old STATE: its rows are there once."""
    assert target.run([KEYED, record(1), bookmark(1)])[0] == 0
    assert target.run([bookmark(1), KEYED, record(1), record(2), record(3), bookmark(3)])[0] == 0
    # The runner lost the second run's STATE and starts from the first one's again.
    assert target.run([bookmark(1), KEYED, record(1), record(2), record(3), record(4), bookmark(4)])[0] == 0
    assert target.rows(columns="n") == [(1,), (2,), (3,), (4,)]


def test_a_silent_tap_that_goes_on_from_a_released_state_loses_nothing(target: Target) -> None:
    """A tap that never says where it starts: its rows whose STATE went out stay, although the run was killed."""
    target.environment = {"MELISMA_FAILPOINT": "end:before"}
    code, out, _ = target.run([KEYED, record(1), bookmark(1)])
    assert (code, [json.loads(line) for line in out]) == (-9, [bookmark(1)["value"]])
    target.environment = {}
    assert target.run([KEYED, record(2), bookmark(2)])[0] == 0
    assert target.rows(columns="n") == [(1,), (2,)]


def test_boundary_rows_of_inclusive_keys_are_not_doubled(target: Target) -> None:
    """A tap that sends the rows at its bookmark again adds only those that are new or changed."""
    assert target.run([KEYED, record({"n": 5, "v": "a"}), record({"n": 5, "v": "b"}), bookmark(5)])[0] == 0
    again = [record({"n": 5, "v": "b"}), record({"n": 5, "v": "a"}), record({"n": 5, "v": "c"}), record({"n": 6})]
    assert target.run([bookmark(5), KEYED, *again, bookmark(6)])[0] == 0
    assert target.rows(columns="n, v") == [(5, "a"), (5, "b"), (5, "c"), (6, None)]


def test_boundary_rows_survive_a_schema_that_changes(target: Target) -> None:
    """The rows at the highest key may have come under two SCHEMAs; a row that is there twice in the source stays so."""
    wider = {**KEYED, "schema": {**KEYED["schema"], "properties": {**KEYED["schema"]["properties"], "w": {}}}}
    first = [record({"n": 5, "v": "a"}), record({"n": 5, "v": "b"})]
    second = [record({"n": 5, "v": "b"}), record({"n": 5, "v": "c"})]
    assert target.run([KEYED, *first, wider, *second, bookmark(5)])[0] == 0
    assert target.rows(columns="n, v") == [(5, "a"), (5, "b"), (5, "b"), (5, "c")]
    assert target.run([bookmark(5), wider, *first, *second, record({"n": 6}), bookmark(6)])[0] == 0
    assert target.rows(columns="n, v") == [(5, "a"), (5, "b"), (5, "b"), (5, "c"), (6, None)]


WIDER = {**KEYED, "schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}


def test_rows_before_a_schema_that_changed_say_that_the_tap_died(target: Target) -> None:
    """The tail is a tail under whatever SCHEMA it came."""
    code, out, err = target.run([KEYED, record(1), bookmark(1), record(2), WIDER])
    assert (code, [json.loads(line) for line in out]) == (1, [bookmark(1)["value"]])
    assert "the tap must have failed" in err
    assert target.rows(columns="n") == [(1,)]


def test_rows_before_a_schema_that_changed_wait_for_a_state_without_progress_markers(target: Target) -> None:
    """The tap forgets them if it starts from there, under whatever SCHEMA they came."""
    marked = bookmark(1, progress_markers={"replication_key": "n", "replication_key_value": 2})
    sent = [KEYED, record(1), bookmark(1), record(2), WIDER, marked, schema("t"), {"type": "RECORD"}]
    code, out, _ = target.run(sent)
    assert code == 3
    assert [json.loads(line) for line in out] == [marked["value"]]
    assert target.rows(columns="n") == [(1,)]


def test_what_an_earlier_state_settled_is_committed_at_one_with_progress_markers(target: Target) -> None:
    """From there the tap sends what came after the earlier one, and only that."""
    marked = bookmark(1, progress_markers={"replication_key": "n", "replication_key_value": 2})
    sent = [KEYED, record(1), bookmark(1), schema("t"), record(2), marked, schema("u"), {"type": "RECORD"}]
    code, out, err = target.run(sent)
    assert code == 3, err
    assert [json.loads(line) for line in out] == [marked["value"]]
    assert target.rows(columns="n") == [(1,)]
    assert target.run([marked, KEYED, record(1), record(2), bookmark(2)])[0] == 0
    assert target.rows(columns="n") == [(1,), (2,)]


def test_rows_beyond_the_last_bookmark_say_that_the_tap_died(target: Target) -> None:
    """An input that ends cleanly after rows beyond the last bookmark is a dead tap: the tail goes, exit 1."""
    code, out, err = target.run([KEYED, record(1), bookmark(1), record(1), record(2)])
    assert (code, [json.loads(line) for line in out]) == (1, [bookmark(1)["value"]])
    assert "the tap must have failed" in err
    assert target.rows(columns="n") == [(1,)]


def test_an_incremental_stream_without_a_bookmark_says_that_the_tap_died(target: Target) -> None:
    """Before its first STATE a dead tap looks like one that sends none: exit 1 with the way out, which is trust_eof."""
    code, out, err = target.run([KEYED, record(1), record(2)])
    assert (code, out, target.rows()) == (1, [], [])
    assert "set trust_eof to true" in err
    assert target.run([KEYED, record(1), record(2)], trust_eof=True)[:2] == (0, [])
    assert target.rows(columns="n") == [(1,), (2,)]


def test_a_state_of_other_streams_settles_nothing_of_one_that_it_does_not_name(target: Target) -> None:
    """The tap died between a stream's rows and its first STATE; what the STATE does cover is kept."""
    other = {**KEYED, "stream": "t"}
    code, out, _ = target.run([KEYED, record(1), bookmark(1), other, record(1, "t")])
    assert (code, [json.loads(line) for line in out]) == (1, [bookmark(1)["value"]])
    assert (target.rows(columns="n"), target.rows("t")) == ([(1,)], [])


def test_a_full_table_stream_may_end_with_the_state_that_it_has(target: Target) -> None:
    """singer-sdk does not repeat the empty bookmark of a stream that is forced to FULL_TABLE after its last rows."""
    full = state({"bookmarks": {"s": {}}})
    code, out, err = target.run([KEYED, record(1), full, record(2)])
    assert (code, len(out)) == (0, 1), err
    assert target.rows(columns="n") == [(1,), (2,)]


def test_a_bookmark_under_another_name_is_no_sign_of_death(target: Target) -> None:
    """A mapper between tap and target has renamed the stream: then nothing can be said, and its rows count."""
    renamed = state({"bookmarks": {"before_the_mapper": {"replication_key": "n", "replication_key_value": 1}}})
    assert target.run([KEYED, record(1), renamed, record(2)])[0] == 0
    assert target.rows(columns="n") == [(1,), (2,)]


@pytest.mark.parametrize(("last", "code", "rows"), [(7, 1, 1), (5, 0, 2)])
def test_rows_beyond_the_bookmark_of_every_partition_say_that_the_tap_died(
    target: Target, last: int, code: int, rows: int
) -> None:
    """Of a stream in partitions one cannot tell which partition a row is of; beyond all of them it is of none."""
    partitions = [
        {"context": {"shop": shop}, "replication_key": "n", "replication_key_value": key}
        for shop, key in ((1, 6), (2, 5))
    ]
    known = state({"bookmarks": {"s": {"partitions": partitions}}})
    assert target.run([KEYED, record(6), known, record(last)])[0] == code
    assert len(target.rows()) == rows


def test_a_tap_of_ours_always_ends_with_a_state(target: Target) -> None:
    """It says so in its SCHEMA, so rows after the last STATE say that it died, whatever their keys."""
    ours = {**KEYED, "melisma": {"announces_state": True}}
    assert target.run([ours, record(1), bookmark(1), record(1)])[0] == 1
    assert target.rows(columns="n") == [(1,)]


def test_rows_at_the_last_bookmark_are_no_sign_of_death(target: Target) -> None:
    """Boundary rows after an unchanged STATE are a run without news."""
    assert target.run([KEYED, record(1), bookmark(1)])[0] == 0
    code, out, _ = target.run([bookmark(1), KEYED, record(1)])
    assert (code, len(out)) == (0, 1)
    assert target.rows(columns="n") == [(1,)]


def test_rows_are_not_committed_at_a_state_with_progress_markers(target: Target) -> None:
    """An unsorted stream's STATE forgets its progress on restart; its rows wait for a STATE that does not."""
    marked = bookmark(1, progress_markers={"replication_key": "n", "replication_key_value": 3})
    messages = [KEYED, record(1), bookmark(1), record(3), marked, {"type": "RECORD"}]
    code, out, _ = target.run(messages, commit_interval_minutes=0)
    assert code == 3
    assert target.rows(columns="n") == [(1,)]
    assert json.loads(out[-1])["bookmarks"]["s"]["replication_key_value"] == 1
    assert target.run([bookmark(1), KEYED, record(1), record(3), record(2), bookmark(3)])[0] == 0
    assert target.rows(columns="n") == [(1,), (2,), (3,)]


@pytest.mark.parametrize(("on_rewind", "code", "rows"), [("append", 0, 4), ("replace", 0, 3), ("fail", 2, 2)])
def test_a_state_set_back_on_purpose(target: Target, on_rewind: str, code: int, rows: int) -> None:
    """Going back behind acknowledged rows appends with a warning, replaces, or is refused, as on_rewind says."""
    assert target.run([KEYED, record(1), bookmark(1)])[0] == 0
    assert target.run([bookmark(1), KEYED, record(1), record(2), bookmark(2)])[0] == 0
    assert target.run([bookmark(2), KEYED, record(2), bookmark(2)])[0] == 0  # the runner has had that STATE
    found, _, err = target.run([bookmark(1), KEYED, record(1), record(2), record(3), bookmark(3)], on_rewind=on_rewind)
    assert found == code, err
    assert len(target.rows()) == rows


def test_a_state_that_the_lake_has_never_seen_is_pointed_out(target: Target) -> None:
    """A runner whose STATE is not in the journal's history is told once, and what it means."""
    assert target.run([KEYED, record(1), bookmark(1)])[0] == 0
    code, _, err = target.run([bookmark(100), KEYED, record(100), record(101), bookmark(101)])
    assert code == 0
    assert err.count("a STATE that this lake has not seen") == 1


def test_a_shell_pipe_without_a_state_file_resumes(target: Target) -> None:
    """What --committed-state prints is what the tap is started with; nothing else is kept anywhere."""
    assert target.run([KEYED, record(1), record(2), bookmark(2)])[0] == 0
    _, (committed,), _ = target.run(b"", "--committed-state")
    assert json.loads(committed) == bookmark(2)["value"]
    assert target.run([state(json.loads(committed)), KEYED, record(2), record(3), bookmark(3)])[0] == 0
    assert target.rows(columns="n") == [(1,), (2,), (3,)]
    assert schema()["type"] == "SCHEMA"
