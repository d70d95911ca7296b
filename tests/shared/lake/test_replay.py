"""The replay decision, row by row of the table in docs/delivery.md, and the holes that its rules close."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from lake_doubles import QUICK, MemoryFiles, MemoryObjects

from melisma.errors import UsageError
from melisma.lake.maintenance import compact, rollback
from melisma.lake.records import Boundary
from melisma.lake.recover import Run, Settings, open_run
from melisma.lake.replay import Decision, LoadMethod, OnRewind, StateAhead, StateBehind

State = dict[str, Any]


def at(**bookmarks: int | None) -> State:
    """A STATE with these bookmarks; None: an empty one."""
    return {
        "bookmarks": {
            stream: {} if value is None else {"replication_key_value": value} for stream, value in bookmarks.items()
        }
    }


class Story:
    """What happened to a lake so far."""

    def __init__(self) -> None:
        self.objects, self.files = MemoryObjects(), MemoryFiles()
        self.numbers = itertools.count(1)

    def open(self, on_rewind: OnRewind = "append") -> Run:
        settings = Settings(on_rewind=on_rewind, interval=QUICK.interval, pause=QUICK.pause)
        return open_run(self.objects, self.files, "p", f"r{next(self.numbers)}", settings)

    def run(
        self,
        start: State | None,
        *commits: tuple[dict[str, list[int]], State | None],
        end: bool = True,
        release: bool = True,
        announces: bool = False,
        boundary: Boundary | None = None,
        versions: dict[str, int] | None = None,
    ) -> list[str]:
        """A run with these commits (rows by stream, STATE); the paths of its files."""
        paths = []
        with self.open() as run:
            run.start(json.dumps(start) if start is not None else None, announces=announces)
            for rows_by_stream, state in commits:
                staged = []
                for stream, rows in rows_by_stream.items():
                    path = f"{stream}/{run.run}-{next(self.numbers)}"
                    staged.append(self.files.stage(path, stream, [(row, row) for row in rows]))
                    paths.append(path)
                bounds = {stream: boundary for stream in rows_by_stream if boundary is not None}
                text = json.dumps(state) if state is not None else None
                run.commit(staged, text, boundaries=bounds, versions=versions)
                if release:
                    run.release()
            if end:
                run.end()
        return paths

    def decide(
        self,
        start: State | None,
        stream: str = "a",
        *,
        announces: bool = False,
        method: LoadMethod = "append-only",
        on_rewind: OnRewind = "append",
    ) -> Decision:
        """What the next run would decide."""
        with self.open(on_rewind) as run:
            run.start(json.dumps(start) if start is not None else None, announces=announces)
            return run.decide(stream, method)

    def removed(self, *args: Any, **kwargs: Any) -> list[str]:
        return [file.path for file in self.decide(*args, **kwargs).remove]


@pytest.fixture
def story() -> Story:
    return Story()


# The table


@pytest.mark.parametrize("method", ["upsert", "overwrite"])
def test_a_merging_and_replacing_loads_remove_nothing(story: Story, method: LoadMethod) -> None:
    story.run(None, ({"a": [1]}, at(a=1)), end=False, release=False)
    decision = story.decide(None, method=method)
    assert (decision.case, decision.remove) == ("a", ())


def test_b_a_full_tables_rows_of_an_unclean_run_are_replaced(story: Story) -> None:
    story.run(None, ({"a": [1]}, at(a=None)))
    second = story.run(None, ({"a": [1]}, at(a=None)), end=False)
    decision = story.decide(None)
    assert (decision.case, [file.path for file in decision.remove]) == ("b", second)


def test_b_versions_are_evidence_of_a_full_table_too(story: Story) -> None:
    paths = story.run(at(b=1), ({"a": [1]}, at(b=1)), end=False, versions={"a": 7})
    decision = story.decide(at(b=1))
    assert (decision.case, [file.path for file in decision.remove]) == ("b", paths)


def test_e_a_full_table_that_ended_well_is_appended_again(story: Story) -> None:
    story.run(None, ({"a": [1]}, at(a=None)))
    assert story.removed(None) == []
    story.run(at(b=1), ({"a": [1]}, at(a=None, b=1)))
    assert story.removed(at(b=1)) == []


def test_c_rows_after_the_announced_position_are_replaced(story: Story) -> None:
    _, second, third = story.run(None, ({"a": [1]}, at(a=1)), ({"a": [2]}, at(a=2)), ({"a": [3]}, at(a=3)), end=False)
    decision = story.decide(at(a=1))
    assert (decision.case, [file.path for file in decision.remove]) == ("c", [second, third])
    assert story.removed(at(a=3)) == []


def test_c_counts_the_latest_of_equal_positions(story: Story) -> None:
    """Hole E: rows that came without a newer STATE are acknowledged by the STATE that stood."""
    story.run(None, ({"a": [1]}, at(a=1)), ({"a": [1]}, None))
    assert story.removed(at(a=1)) == []


def test_c_a_stream_that_is_not_named_goes_by_the_whole_state(story: Story) -> None:
    """Hole F: a stream renamed by a map has its bookmark under another name."""
    _, second = story.run(None, ({"renamed": [1]}, at(a=1)), ({"renamed": [2]}, at(a=2)), end=False)
    decision = story.decide(at(a=1), "renamed")
    assert (decision.case, [file.path for file in decision.remove]) == ("c", [second])


def test_c_gives_the_boundary_rows_of_the_place_where_it_cuts(story: Story) -> None:
    """Hole I: not those of rows that are about to be removed."""
    early, late = (Boundary(column="key", value=str(n), rows={str(n): 1}) for n in (1, 2))
    story.run(None, ({"a": [1]}, at(a=1)), boundary=early)
    story.run(at(a=1), ({"a": [2]}, at(a=2)), boundary=late, end=False)
    assert story.decide(at(a=1)).boundary == early
    assert story.decide(at(a=2)).boundary == late


def test_d_a_position_that_a_rollback_voided_is_refused(story: Story) -> None:
    """Hole C: going on from it would leave the rows out that were rolled back."""
    story.run(None, ({"a": [1]}, at(a=1)))
    story.run(at(a=1), ({"a": [2]}, at(a=2)))
    with story.open() as run:
        seq = next(seq for seq in range(1, 99) if run.journal.history_at(seq).state == json.dumps(at(a=1)))
        rollback(run, story.files, seq)
        run.end()
    with pytest.raises(StateAhead, match="--committed-state"):
        story.decide(at(a=2))
    assert story.decide(at(a=1)).case == "c"
    assert StateAhead.exit_code == 2


def test_d_a_position_whose_rows_a_replay_removed_is_refused(story: Story) -> None:
    """A hole of the first design: not only rollbacks void positions."""
    story.run(None, ({"a": [1]}, at(a=1)))
    story.run(at(a=1), ({"a": [2]}, at(a=2)), ({"a": [3]}, at(a=3)), end=False)
    story.run(at(a=1), ({"a": [2]}, at(a=2)), end=False)
    with pytest.raises(StateAhead):
        story.decide(at(a=3))
    assert story.decide(at(a=2)).case == "c"


def test_e_an_older_position_than_the_acknowledged_one_removes_nothing(story: Story) -> None:
    """Hole B: a STATE set back to January must not take half a year with it."""
    january = story.run(None, ({"a": [1]}, at(a=1)))
    february = story.run(at(a=1), ({"a": [2]}, at(a=2)))
    march = story.run(at(a=2), ({"a": [3]}, at(a=3)))
    decision = story.decide(at(a=1))
    assert (decision.case, decision.remove) == ("e", ())
    assert "twice" in decision.warning
    assert story.removed(at(a=1), on_rewind="replace") == february + march
    with pytest.raises(StateBehind):
        story.decide(at(a=1), on_rewind="fail")
    assert set(story.files.visible) == {*january, *february, *march}


def test_e_a_stream_that_the_state_no_longer_names_is_rewound(story: Story) -> None:
    story.run(None, ({"a": [1], "b": [1]}, at(a=1, b=1)))
    story.run(at(a=1, b=1), ({"b": [2]}, at(a=1, b=2)))
    decision = story.decide(at(b=2))
    assert (decision.case, decision.remove) == ("e", ())


def test_e_a_replacing_rewind_leaves_a_stream_that_no_state_names(story: Story) -> None:
    """A map's name for a stream never stands in a STATE: a place that is not known says nothing of its rows."""
    story.run(at(b=50), ({"a": [51]}, at(b=51)))
    story.run(at(b=51), ({"a": [52]}, at(b=52)))
    with pytest.raises(StateBehind, match="no STATE has ever named it"):
        story.decide(at(b=40), on_rewind="replace")
    named = story.run(at(b=52), ({"a": [53]}, at(a=53, b=52)))
    assert set(named) < set(story.removed(at(b=40), on_rewind="replace"))


def test_e_a_replacing_rewind_that_dies_still_replaces(story: Story) -> None:
    """It was decided with the first commit of its run; the rows come later, in another run."""
    story.run(None, ({"a": [1]}, at(a=1)))
    february = story.run(at(a=1), ({"a": [2]}, at(a=2)))
    march = story.run(at(a=2), ({"a": [3]}, at(a=3)))
    with story.open("replace") as run:
        run.start(json.dumps(at(a=1)))
        run.decide("a")
        run.commit([], json.dumps(at(a=1)))
    assert story.removed(at(a=1)) == february + march
    story.run(at(a=1), ({"a": [2]}, at(a=2)))
    assert sorted(row for rows in story.files.visible.values() for row, _ in rows) == [1, 2]


def test_e_a_rewind_across_compacted_rows_is_refused(story: Story) -> None:
    one = story.run(None, ({"a": [1]}, at(a=1)))
    two = story.run(at(a=1), ({"a": [2]}, at(a=2)))
    story.run(at(a=2), ({"a": [3]}, at(a=3)))
    with story.open() as run:
        inputs = [file for file in run.journal.live_files() if file.path in {*one, *two}]
        run.end()
    compact(story.objects, story.files, "p", "c", inputs, [story.files.stage("a/c", "a", [(1, 1), (2, 2)])])
    with pytest.raises(StateBehind, match="compaction"):
        story.decide(at(a=1), on_rewind="replace")
    assert story.decide(at(a=1)).case == "e"


def test_f_an_unknown_position_appends_and_warns(story: Story) -> None:
    story.run(None, ({"a": [1]}, at(a=1)), end=False)
    decision = story.decide(at(a=99))
    assert (decision.case, decision.remove) == ("f", ())
    assert "has not seen" in decision.warning


def test_f_the_retry_of_a_run_from_an_unknown_position_replaces_it(story: Story) -> None:
    """A hole of the first design: a lake that takes over from another loader starts at a STATE it never saw."""
    first = story.run(at(a=50), ({"a": [51]}, at(a=51)), end=False)
    decision = story.decide(at(a=50))
    assert (decision.case, [file.path for file in decision.remove]) == ("c", first)


@pytest.mark.parametrize("before", [[], [({"b": [4]}, at(b=5))]], ids=["new lake", "older lake"])
def test_f_the_retry_replaces_a_stream_that_the_state_does_not_name(story: Story, before: list[Any]) -> None:
    """As a stream that is newly selected, or that a map has given its name."""
    if before:
        story.run(None, *before)
    first = story.run(at(b=50), ({"a": [51]}, at(b=50, a=51)), end=False)
    decision = story.decide(at(b=50))
    assert (decision.case, [file.path for file in decision.remove]) == ("c", first)


@pytest.mark.parametrize("after", ["acknowledged", "silent"])
def test_e_a_start_that_was_left_behind_is_a_rewind(story: Story, after: str) -> None:
    """The place where a stream without a name in the STATE began counts while nothing of it is acknowledged."""
    story.run(at(b=50), ({"a": [51]}, at(b=51)))
    story.run(at(b=51) if after == "acknowledged" else None, ({"a": [52]}, at(b=52)))
    decision = story.decide(at(b=50))
    assert (decision.case, decision.remove) == ("e", ())
    assert "twice" in decision.warning
    with pytest.raises(StateBehind):
        story.decide(at(b=50), on_rewind="fail")


@pytest.mark.parametrize("policy", ["fail", "replace"])
def test_e_a_stream_that_is_refused_before_it_comes_has_lost_nothing(story: Story, policy: OnRewind) -> None:
    """None of its rows is missing: the user may choose to have them twice, wherever the tap is by then; not before."""
    story.run(at(b=50), ({"a": [51], "b": [51]}, at(b=51)))
    story.run(at(b=51), ({"a": [52], "b": [52]}, at(b=52)))
    with story.open(policy) as run:
        run.start(json.dumps(at(b=40)))
        if policy == "replace":  # the other stream has its place in the STATE
            run.decide("b")
        run.commit([], json.dumps(at(b=41)))
        with pytest.raises(StateBehind):
            run.decide("a")
    with pytest.raises(StateBehind):
        story.decide(at(b=41), on_rewind=policy)
    decision = story.decide(at(b=41))
    assert (decision.case, decision.remove) == ("e", ())


def test_e_a_named_stream_that_is_refused_before_it_comes_stays_refused(story: Story) -> None:
    """A run of other streams passes by with its old position, which is no better for that."""
    story.run(None, ({"a": [1], "b": [1]}, at(a=1, b=1)))
    story.run(at(a=1, b=1), ({"a": [2], "b": [2]}, at(a=2, b=2)))
    story.run(at(a=2, b=2), ({"b": [3]}, at(a=2, b=3)))
    with story.open("fail") as run:
        run.start(json.dumps(at(a=1, b=3)))
        run.commit([], json.dumps(at(a=1, b=4)))
        with pytest.raises(StateBehind):
            run.decide("a")
    with pytest.raises(StateBehind):
        story.decide(at(a=1, b=4), on_rewind="fail")


def test_c_after_very_many_commits_the_start_still_has_its_boundary(story: Story) -> None:
    """A run that was never acknowledged is sent again from where it began, with the rows at that place."""
    boundary = Boundary(column="n", value="1", rows={"hash": 1})
    story.run(None, ({"a": [1]}, at(a=1)), boundary=boundary)
    story.run(at(a=1), *(({"a": [n]}, at(a=n)) for n in range(2, 130)), end=False)
    decision = story.decide(at(a=1))
    assert (decision.case, len(decision.remove), decision.boundary) == ("c", 128, boundary)


def test_g_a_silent_chain_that_released_nothing_is_replaced(story: Story) -> None:
    first = story.run(None, ({"a": [1]}, at(a=1)), end=False, release=False)
    decision = story.decide(None)
    assert (decision.case, [file.path for file in decision.remove]) == ("g", first)
    second = story.run(None, ({"b": [1]}, at(b=1)), end=False, release=False)  # died before stream a
    assert story.removed(None) == first
    assert story.removed(None, "b") == second


def test_h_silence_of_a_tap_that_announces_means_the_same_start(story: Story) -> None:
    paths = story.run(None, ({"a": [1]}, at(a=1)), end=False)
    assert story.removed(None) == []
    decision = story.decide(None, announces=True)
    assert (decision.case, [file.path for file in decision.remove]) == ("h", paths)


def test_h_a_tap_is_known_to_announce_once_it_has(story: Story) -> None:
    story.run(at(b=5), ({}, at(b=6)))
    paths = story.run(None, ({"a": [1]}, at(a=1)), end=False)
    decision = story.decide(None)
    assert (decision.case, [file.path for file in decision.remove]) == ("h", paths)


def test_h_an_empty_state_is_a_silence_that_was_announced(story: Story) -> None:
    """singer-sdk 0.29 to 0.44 prints `{}`; a full-table tap does so on every run."""
    story.run({}, ({"a": [1]}, at(a=1)))
    assert story.removed({}) == []
    second = story.run({}, ({"a": [1]}, at(a=1)), end=False)
    assert story.removed({}) == second


def test_i_silence_after_a_released_state_removes_nothing(story: Story) -> None:
    """Hole A: a silent tap may resume from the STATE that was released; its acknowledged rows must stay."""
    story.run(None, ({"a": [1]}, at(a=1)), ({"a": [2]}, at(a=2)), end=False)
    decision = story.decide(None)
    assert (decision.case, decision.remove) == ("i", ())
    assert "--committed-state" in decision.warning


def test_i_silence_after_a_clean_run_appends_without_a_word(story: Story) -> None:
    story.run(None, ({"a": [1]}, at(a=1)))
    decision = story.decide(None, announces=True)
    assert (decision.case, decision.remove, decision.warning) == ("i", (), "")


def test_a_new_lake_has_nothing_to_decide(story: Story) -> None:
    decision = story.decide(None)
    assert (decision.case, decision.remove, decision.warning) == ("i", (), "")


# Across several runs


def test_pending_rows_wait_through_runs_that_do_not_bring_them(story: Story) -> None:
    """Hole K, a named stream: the retry dies before b, or deselects it, and a's STATEs go on."""
    story.run(None, ({"a": [1], "b": [1]}, at(a=1, b=1)))
    (pending,) = story.run(at(a=1, b=1), ({"b": [2]}, at(a=1, b=2)), end=False)
    story.run(at(a=1, b=1), ({"a": [2]}, at(a=2, b=1)), end=False)
    story.run(at(a=2, b=1), ({"a": [3]}, at(a=3, b=1)))
    assert story.removed(at(a=3, b=1), "b") == [pending]
    assert story.removed(at(a=1, b=2), "b") == []


def test_pending_rows_of_a_stream_that_is_not_named_wait_too(story: Story) -> None:
    """Hole K: b had no bookmark yet, so its position changes with every STATE of a."""
    _, pending = story.run(None, ({"a": [1]}, at(a=1)), ({"b": [1]}, at(a=1, b=1)), end=False)
    story.run(at(a=1), ({"a": [2]}, at(a=2)), end=False)
    story.run(at(a=2), ({"a": [3]}, at(a=3)))
    assert story.removed(at(a=3), "b") == [pending]
    story.run(at(a=3), ({"b": [1]}, at(a=3, b=1)))
    assert [path for path in story.files.visible if path.startswith("b/")] != [pending]
    assert sum(path.startswith("b/") for path in story.files.visible) == 1


def test_boundary_rows_outlast_commits_of_other_streams(story: Story) -> None:
    """They belong to the position, however many commits repeat it."""
    boundary = Boundary(column="key", value="2", rows={"x": 1})
    commits = ({"a": [1]}, at(a=1)), ({"a": [2]}, at(a=2)), ({"b": [1]}, at(a=2, b=1))
    story.run(None, *commits, boundary=boundary)
    assert story.decide(at(a=2, b=1)).boundary == boundary


def test_boundary_rows_outlast_a_run_that_passes_the_stream_by(story: Story) -> None:
    """Found by the model: another stream's commit must not forget them."""
    boundary = Boundary(column="key", value="1", rows={"x": 1})
    story.run(None, ({"a": [1]}, at(a=1)), boundary=boundary)
    story.run(at(a=1), ({"a": [2]}, at(a=2)), end=False)
    story.run(at(a=1), ({"b": [1]}, at(a=1, b=1)))
    assert story.decide(at(a=1, b=1)).boundary == boundary


def test_boundary_rows_outlast_a_replay_in_between(story: Story) -> None:
    """Found by the model: passed by, replayed, and passed by again."""
    boundary = Boundary(column="key", value="1", rows={"x": 1})
    story.run(None, ({"a": [1]}, at(a=1)), boundary=boundary)
    story.run(at(a=1), ({"a": [2]}, at(a=2)), end=False)
    story.run(at(a=1), ({"b": [1]}, at(a=1, b=1)))
    story.run(at(a=1), ({"a": [2]}, at(a=2)), end=False)
    story.run(at(a=1), ({"b": [2]}, at(a=1, b=2)))
    assert story.decide(at(a=1, b=2)).boundary == boundary


def test_d_holds_for_a_stream_that_is_not_named(story: Story) -> None:
    """Its position is the whole STATE, and the rows that came with that one are gone."""
    story.run(None, ({"a": [1]}, at(a=1)), ({"b": [1]}, at(a=2)), ({"b": [2]}, at(a=3)), end=False)
    story.run(at(a=1), ({"b": [1]}, at(a=9)), end=False)
    with pytest.raises(StateAhead):
        story.decide(at(a=3), "b")
    assert story.decide(at(a=9), "b").case == "c"


def test_an_announced_position_cannot_become_unacknowledged_again(story: Story) -> None:
    """Hole B: what was announced once stays, whatever is announced later."""
    story.run(None, ({"a": [1]}, at(a=1)), ({"a": [2]}, at(a=2)), end=False)
    story.run(at(a=2), ({"a": [3]}, at(a=3)), end=False)
    assert story.removed(at(a=1)) == []


def test_a_refused_stream_that_is_not_in_this_run_does_not_stop_it(story: Story) -> None:
    story.run(None, ({"a": [1]}, at(a=1)))
    story.run(at(a=1), ({"a": [2]}, at(a=2)), end=False)
    story.run(at(a=1), ({"a": [9]}, at(a=9)), end=False)
    story.run(at(a=2, b=1), ({"b": [1]}, at(a=2, b=2)))
    with pytest.raises(UsageError):
        story.decide(at(a=2, b=2), "a")
