"""The load methods of target-parquet and ACTIVATE_VERSION, from its command line, and killed half-way."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import Message, Target, lines, record, schema, state

from melisma.errors import ConfigError
from melisma_target_parquet.target import TargetParquet

COLUMNS = {"id": {"type": "integer"}, "v": {"type": ["null", "string"]}}
DELETED = {"_sdc_deleted_at": {"type": ["null", "string"], "format": "date-time"}}


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """A target with an empty lake."""
    return Target(tmp_path)


def keyed(stream: str = "s", **more: Message) -> Message:
    """A SCHEMA with the key `id`."""
    return schema(stream, {**COLUMNS, **more}, ["id"])


def rows(values: dict[int, Any] | Iterable[tuple[int, Any]], stream: str = "s", **more: Any) -> list[Message]:
    """RECORDs of `id` and `v`."""
    pairs = values.items() if isinstance(values, dict) else values
    return [record({"id": key, "v": value}, stream, **more) for key, value in pairs]


def version(number: int, stream: str = "s") -> Message:
    """An ACTIVATE_VERSION message."""
    return {"type": "ACTIVATE_VERSION", "stream": stream, "version": number}


def errors(text: str) -> list[str]:
    """The errors on stderr."""
    return [line for line in text.splitlines() if "ERROR" in line]


def read_by_polars(target: Target) -> list[tuple[Any, ...]]:
    """What a stream holds, read by Polars."""
    return sorted(pl.read_parquet(f"{target.lake}/s/**/*.parquet").select("id", "v").rows())


# Upsert

CANNOT_MERGE: dict[str, tuple[list[Message], dict[str, Any], str]] = {
    "a partition that no directory can be named by": (
        [keyed(), *rows({1: "a", 2: "\u6f22" * 85})],
        {"partition_by": ["v"]},
        "too long for a directory's name",
    ),
    "a key that changes between two commits": (
        [keyed(), *rows({1: "a"}), schema("s", COLUMNS, ["id", "v"]), *rows({2: "b"})],
        {},
        "changes its key between two commits",
    ),
}


@pytest.mark.parametrize("where", ["at the end", "on the way"])
@pytest.mark.parametrize("case", CANNOT_MERGE)
def test_no_state_goes_out_when_its_rows_cannot_be_merged(target: Target, case: str, where: str) -> None:
    """The commit fails as a whole: no STATE that covers them, in the lake or for the runner, and the lake as it was."""
    sent, settings, says = CANNOT_MERGE[case]
    settings = {"load_method": "upsert", **settings}
    assert target.run([keyed(), *rows({9: "z"}), keyed("t"), *rows({9: "z"}, "t"), state({"a": 1})], **settings)[0] == 0
    before = target.rows(columns="id, v"), target.rows("t")
    if where == "on the way":  # a commit becomes due at a STATE, before the input's end
        settings["commit_interval_minutes"] = 0
    more = [keyed("t"), *rows({5: "t"}, "t"), state({"a": 2}), *rows({6: "t"}, "t")]
    code, out, err = target.run([*sent, *more], **settings)
    assert code == 3, err
    assert says in err
    assert out == []
    assert (target.rows(columns="id, v"), target.rows("t")) == before
    assert target.run([], "--committed-state", **settings)[1] == ['{"a": 1}']


def test_upsert_keeps_the_latest_of_each_key(target: Target) -> None:
    """Within a batch, across the commits of a run, and across runs the row that came last stays, alone."""
    first = [keyed(), *rows([(1, "a"), (2, "a"), (1, "b")]), state({"a": 1}), *rows({2: "b", 3: "a"}), state({"a": 2})]
    code, out, err = target.run(first, load_method="upsert", commit_interval_minutes=0)
    assert code == 0, err
    assert out == ['{"a": 1}', '{"a": 2}']
    assert target.rows() == [(1, "b"), (2, "b"), (3, "a")]
    assert target.run([keyed(), *rows({3: None, 4: "a"}), state({"a": 3})], load_method="upsert")[0] == 0
    assert target.rows() == [(1, "b"), (2, "b"), (3, None), (4, "a")]
    assert read_by_polars(target) == target.rows()


def test_upsert_of_a_lake_that_was_appended_to(target: Target) -> None:
    """Rows that are there twice are replaced by one."""
    for _ in range(2):
        assert target.run([keyed(), *rows({1: "a", 2: "a"}), state({})])[0] == 0
    assert len(target.rows()) == 4
    assert target.run([keyed(), *rows({1: "b"}), state({})], load_method="upsert")[0] == 0
    assert target.rows() == [(1, "b"), (2, "a"), (2, "a")]


def test_upsert_needs_a_key(target: Target) -> None:
    """A stream without key_properties is refused at its SCHEMA, with the way out; what came before it is kept."""
    messages = [keyed("t"), *rows({1: "a"}, "t"), state({"a": 1}), schema(), record(1), state({"a": 2})]
    code, out, err = target.run(messages, load_method="upsert")
    assert (code, out) == (3, ['{"a": 1}'])
    (line,) = errors(err)
    assert 'stream "s", line 4: has no key' in line
    assert "append-only" in line
    assert target.rows("t") == [(1, "a")]


def test_upsert_in_partitions_moves_rows(target: Target) -> None:
    """A row whose partition changes is in its new one alone."""
    options: dict[str, Any] = {"load_method": "upsert", "partition_by": ["v"]}
    target.run([keyed(), *rows({1: "x", 2: "x"}), state({})], **options)
    assert target.run([keyed(), *rows({1: "y"}), state({})], **options)[0] == 0
    assert target.rows(columns="id, v") == [(1, "y"), (2, "x")]


def test_upsert_when_the_schema_grows(target: Target) -> None:
    """A new column, and a key that widens from integer to number, in the next run and within one."""
    target.run([keyed(), *rows({1: "a", 2: "a"}), state({})], load_method="upsert")
    wider = schema("s", {"id": {"type": "number"}, "v": COLUMNS["v"], "w": {"type": "integer"}}, ["id"])
    sent = [keyed(), *rows({2: "b"}), wider, record({"id": 1, "v": "c", "w": 5}), record({"id": 1.5, "v": "d"})]
    code, _, err = target.run([*sent, state({})], load_method="upsert")
    assert code == 0, err
    assert target.rows(columns="id::DOUBLE, v, w") == [(1.0, "c", 5), (1.5, "d", None), (2.0, "b", None)]


def test_deleted_rows_are_marked_or_removed(target: Target) -> None:
    """`_sdc_deleted_at` marks the row (soft), or removes it (hard_delete), also if the schema does not name it."""
    gone = [record({"id": 1, "v": "a", "_sdc_deleted_at": "2024-01-01T00:00:00Z"})]
    soft: dict[str, Any] = {"load_method": "upsert", "add_record_metadata": True}
    target.run([keyed(**DELETED), *rows({1: "a", 2: "a"}), state({})], **soft)
    target.run([keyed(), *gone, state({})], **soft)
    assert target.rows(columns="id, _sdc_deleted_at IS NULL") == [(1, False), (2, True)]
    assert target.run([keyed(), *gone, state({})], load_method="upsert", hard_delete=True)[0] == 0
    assert target.rows(columns="id") == [(2,)]


def test_a_state_waits_for_its_rows_alone(target: Target) -> None:
    """A signal or an error commits the settled rows by key, and drops the tail."""
    target.run([keyed(), *rows({1: "a"}), state({})], load_method="upsert")
    data = lines([keyed(), *rows({1: "b"}), state({"a": 1}), *rows({1: "c"})]) + b"{"
    code, out, _ = target.run(data, load_method="upsert")
    assert (code, out) == (3, ['{"a": 1}'])
    assert target.rows() == [(1, "b")]


def test_memory_does_not_grow_with_the_rows_or_the_lake(tmp_path: Path) -> None:
    """Replacing four times the rows of a lake four times as large takes about the same memory, in ranges of keys."""
    small: dict[str, Any] = {"row_group_size_rows": 5_000, "max_file_size_mb": 1, "merge_memory_mb": 4}
    peaks = []
    for count in (50_000, 200_000):
        (tmp_path / str(count)).mkdir()
        target = Target(tmp_path / str(count))
        for text in ("old", "new"):
            sent = [keyed(), *rows({n: f"{text} {n:0100d}" for n in range(count)}), state({"text": text})]
            peak = target.peak([lines(sent)], load_method="upsert", **small)
        peaks.append(peak)
        assert target.rows(columns="count(*), count(DISTINCT id), min(v[1:3]), max(v[1:3])") == [
            (count, count, "new", "new")
        ]
    assert peaks[1] < peaks[0] * 1.25


def test_a_format_that_cannot_upsert_says_so_at_start(tmp_path: Path) -> None:
    """A target class says whether its files can be merged by key; the error names what is possible."""

    class Appending(TargetParquet):
        can_upsert = False

    with pytest.raises(ConfigError, match="for upsert load the stream into a lake of Parquet files"):
        Appending(config={"destination_path": str(tmp_path), "load_method": "upsert"})


# Overwrite


def test_overwrite_replaces_everything_at_the_end(target: Target) -> None:
    """Old rows stay until the input has ended; then the new ones are there alone, whatever their schema."""
    assert target.run([keyed(), *rows({1: "a", 2: "a"}), state({"a": 1})])[0] == 0
    with target.start(load_method="overwrite", commit_interval_minutes=0) as process:
        assert process.stdin is not None
        changed = schema("s", {"id": {"type": "string"}}, ["id"])
        process.stdin.write(
            lines([changed, record({"id": "x"}), state({"a": 2}), record({"id": "y", "more": 1}), state({"a": 3})])
        )
        process.stdin.flush()
        assert process.stderr is not None
        while b'"more" is not in the schema' not in process.stderr.readline():
            pass  # said when the records are decoded
        assert target.rows() == [(1, "a"), (2, "a")]
        out, _ = process.communicate(timeout=300)
    assert (process.returncode, out) == (0, b'{"a": 3}\n')
    assert target.rows() == [("x",), ("y",)]


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (lines([keyed(), *rows({9: "x"}), state({"a": 2}), *rows({8: "x"})]) + b'{"type"', 3, "breaks off"),
        (lines([keyed(), *rows({9: "x"}), state({"a": 2}), record({"id": "bad"})]), 3, "not an integer"),
        (lines([keyed(), *rows({9: "x"}), state({"a": 2}), *rows({8: "x"})]), 1, "trust_eof"),
        (lines([keyed(), *rows({9: "x"})]), 1, "trust_eof"),
        (lines([keyed(), state({"a": 2})]), 1, "allow_empty_overwrite"),
        (lines([keyed()]), 1, "trust_eof"),
    ],
    ids=["cut off", "bad record", "rows after the last STATE", "no STATE", "no rows", "nothing but a SCHEMA"],
)
def test_an_overwrite_that_is_not_whole_changes_nothing(target: Target, sent: bytes, code: int, said: str) -> None:
    """The old rows stay, no STATE comes out, and the error says what to do."""
    target.run([keyed(), *rows({1: "a", 2: "a"}), state({"a": 1})])
    found, out, err = target.run(sent, load_method="overwrite")
    assert (found, out) == (code, [])
    assert any(said in line for line in errors(err)), err
    assert target.rows() == [(1, "a"), (2, "a")]


def test_an_overwrite_may_be_allowed_more(target: Target) -> None:
    """trust_eof takes the end for enough, so does ACTIVATE_VERSION; allow_empty_overwrite lets a stream be emptied."""
    target.run([keyed(), *rows({1: "a", 2: "a"}), state({"a": 1})])
    assert target.run([keyed(), *rows({3: "a"})], load_method="overwrite", trust_eof=True)[0] == 0
    assert target.rows() == [(3, "a")]
    assert target.run([keyed(), *rows({4: "a"}), version(7)], load_method="overwrite")[0] == 0
    assert target.rows() == [(4, "a")]
    sent = [keyed(), state({"a": 2})]
    assert target.run(sent, load_method="overwrite", allow_empty_overwrite=True)[:2] == (0, ['{"a": 2}'])
    assert target.rows() == []


def test_an_overwrite_that_shrinks_too_much_is_refused(target: Target) -> None:
    """Less than a tenth of the rows fails by default; max_shrink_percent says how much may go."""
    target.run([keyed(), *rows(dict.fromkeys(range(100), "a")), state({"a": 1})])
    sent = [keyed(), *rows(dict.fromkeys(range(9), "b")), state({"a": 2})]
    code, out, err = target.run(sent, load_method="overwrite")
    assert (code, out) == (1, [])
    assert "9 rows would take the place of 100" in errors(err)[0]
    assert len(target.rows()) == 100
    assert target.run(sent, load_method="overwrite", max_shrink_percent=95)[0] == 0
    assert len(target.rows()) == 9


# ACTIVATE_VERSION


@pytest.mark.parametrize("method", ["append-only", "upsert"])
@pytest.mark.parametrize("order", ["before", "after", "both"])
def test_a_version_takes_the_place_of_older_ones(target: Target, method: str, order: str) -> None:
    """Rows of the newest version stay alone, whether the tap says so before its rows, after them, or both."""
    for number, values in ((1, {1: "a", 2: "a"}), (2, {2: "b", 3: "b"})):
        sent = [keyed()]
        sent += [version(number)] if order != "after" else []
        sent += rows(values, version=number)
        sent += [version(number)] if order != "before" else []
        code, out, err = target.run([*sent, state({"n": number})], load_method=method, hard_delete=True)
        assert (code, out) == (0, [json.dumps({"n": number})]), err
    assert target.rows(columns="id, v") == [(2, "b"), (3, "b")]


@pytest.mark.parametrize("method", ["append-only", "upsert"])
def test_older_versions_are_marked_if_not_removed(target: Target, method: str) -> None:
    """With record metadata and without hard_delete rows of older versions stay, marked once, at the switch."""
    for number, values in ((1, {1: "a", 2: "a"}), (2, {2: "b", 3: "b"}), (3, {3: "c"})):
        sent = [keyed(), version(number), *rows(values, version=number), state({"n": number})]
        assert target.run(sent, load_method=method, add_record_metadata=True)[0] == 0
    old = [(1, "a", 1), (2, "a", 1), (2, "b", 2), (3, "b", 2)]
    if method == "upsert":
        old = [(1, "a", 1), (2, "b", 2)]
    marked = target.rows(columns="id, v, _sdc_table_version, _sdc_deleted_at IS NULL")
    assert marked == sorted([*[(*row, False) for row in old], (3, "c", 3, True)])


def test_without_a_way_to_mark_them_rows_stay(target: Target) -> None:
    """Append-only without hard_delete and record metadata keeps old rows as before, and says what would remove them."""
    for number in (1, 2):
        code, _, err = target.run([keyed(), version(number), *rows({1: "a"}, version=number), state({"n": number})])
        assert code == 0
    assert "hard_delete" in err
    assert target.rows(columns="id, v") == [(1, "a"), (1, "a")]


def test_a_version_waits_for_rows_that_came_under_another_schema(target: Target) -> None:
    """They are settled by no STATE, so the switch waits, whatever else makes the run commit."""
    target.run([keyed(), version(1), *rows({1: "a", 2: "a"}, version=1), state({"n": 1})], hard_delete=True)
    wider = keyed(w={"type": "string"})
    sent = [keyed(), *rows({3: "b"}, version=2), wider, version(2), {"type": "RECORD"}]
    code, out, err = target.run(sent, hard_delete=True)
    assert (code, out) == (3, []), err
    assert target.rows(columns="id, v") == [(1, "a"), (2, "a")]


def test_a_version_never_overtakes_its_rows(target: Target) -> None:
    """While rows of a version that was announced before them come, the old ones stay, and no STATE covers them."""
    load: dict[str, Any] = {"hard_delete": True, "commit_interval_minutes": 0}
    target.run([keyed(), version(1), *rows({1: "a"}, version=1), state({"n": 1})], **load)
    sent = [keyed(), version(2), *rows({2: "b"}, version=2), state({"n": 2}), *rows({3: "b"}, version=2)]
    code, out, _ = target.run(lines(sent) + b'{"type"', **load)
    assert (code, out) == (3, [])
    assert target.rows(columns="id, v") == [(1, "a")]
    assert target.run([*sent, state({"n": 3})], **load)[:2] == (0, ['{"n": 3}'])
    assert target.rows(columns="id, v") == [(2, "b"), (3, "b")]


def test_what_came_before_a_new_version_is_committed_first(target: Target) -> None:
    """A stream that waits for its end does not hold back what other streams had settled before it began."""
    target.run([keyed(), version(1), *rows({1: "a"}, version=1), state({"n": 1})], hard_delete=True)
    sent = [keyed("t"), *rows({1: "t"}, "t"), state({"n": 2}), keyed(), version(2), *rows({2: "b"}, version=2)]
    code, out, _ = target.run(lines(sent) + b'{"type"', hard_delete=True)
    assert (code, out) == (3, ['{"n": 2}'])
    assert (target.rows(), target.rows("t")) == ([(1, "a")], [(1, "t")])


def test_rows_of_a_version_that_came_in_earlier_commits_stay(target: Target) -> None:
    """Announced after its rows, a version keeps those of earlier commits and of an earlier run that was cut off."""
    load: dict[str, Any] = {"hard_delete": True, "commit_interval_minutes": 0}
    target.run([keyed(), *rows({1: "a"}, version=1), version(1), state({"n": 1})], **load)
    sent = [keyed(), *rows({2: "b"}, version=2), state({"n": 2}), *rows({3: "b"}, version=2), state({"n": 3})]
    assert target.run(lines(sent) + b'{"type"', **load)[0] == 3
    assert target.rows(columns="id, v") == [(1, "a"), (2, "b"), (3, "b")]
    sent = [state({"n": 3}), keyed(), *rows({4: "b"}, version=2), state({"n": 4}), version(2), state({"n": 5})]
    assert target.run(sent, **load)[0] == 0
    assert target.rows(columns="id, v") == [(2, "b"), (3, "b"), (4, "b")]


def test_the_same_version_again_changes_nothing(target: Target) -> None:
    """A tap that names its version in every run adds to it."""
    for number in range(3):
        sent = [keyed(), version(1), *rows({number: "a"}, version=1), state({"n": number})]
        assert target.run(sent, hard_delete=True)[0] == 0
    assert target.rows(columns="id, v") == [(0, "a"), (1, "a"), (2, "a")]


def test_the_first_version_that_is_named_keeps_what_is_there(target: Target) -> None:
    """Rows that name no version are taken for the first one that is named, with a warning: nothing is removed."""
    target.run([keyed(), *rows({1: "a"}), state({"n": 1})])
    code, _, err = target.run([keyed(), version(1), *rows({2: "a"}, version=1), state({"n": 2})], hard_delete=True)
    assert code == 0
    assert "name no version" in err
    assert target.rows(columns="id, v") == [(1, "a"), (2, "a")]


def test_a_version_without_rows_empties_nothing_unless_it_may(target: Target) -> None:
    """A new version with no rows fails, and the old rows stay; with allow_empty_overwrite they go."""
    target.run([keyed(), version(1), *rows({1: "a"}, version=1), state({"n": 1})], hard_delete=True)
    sent = [keyed(), version(2), state({"n": 2})]
    code, out, err = target.run(sent, hard_delete=True)
    assert (code, out) == (1, [])
    assert "allow_empty_overwrite" in errors(err)[0]
    assert target.rows(columns="id, v") == [(1, "a")]
    assert target.run(sent, hard_delete=True, allow_empty_overwrite=True)[0] == 0
    assert target.rows(columns="id, v") == []


def test_an_older_version_is_an_error(target: Target) -> None:
    """A version that goes backwards is a clock gone wrong, not a reason to remove rows."""
    target.run([keyed(), version(2), *rows({1: "a"}, version=2), state({"n": 1})], hard_delete=True)
    code, _, err = target.run([keyed(), version(1), *rows({2: "a"}, version=1), state({"n": 2})], hard_delete=True)
    assert code == 3
    assert "older" in errors(err)[0]
    assert target.rows(columns="id, v") == [(1, "a")]


@pytest.mark.parametrize("sent", [version(1, "other"), {"type": "ACTIVATE_VERSION", "stream": "s", "version": "x"}])
def test_a_version_message_that_makes_no_sense_is_refused(target: Target, sent: Message) -> None:
    """One line with its line number."""
    code, _, err = target.run([keyed(), sent])
    assert code == 3
    assert "line 2" in errors(err)[0]


def test_versions_can_be_left_alone(target: Target) -> None:
    """singer-sdk's setting process_activate_version_messages turns all of it off."""
    load: dict[str, Any] = {"hard_delete": True, "process_activate_version_messages": False}
    for number in (1, 2):
        sent = [keyed(), version(number), *rows({number: "a"}, version=number), state({"n": number})]
        assert target.run(sent, **load)[0] == 0
    assert target.rows(columns="id, v") == [(1, "a"), (2, "a")]


# Changing the load method, and dying half-way


def test_appending_after_an_upsert_that_was_not_acknowledged_loses_nothing(target: Target) -> None:
    """Files that an upsert wrote anew hold acknowledged rows: append-only does not take them for its own replay."""
    bookmark = [state({"bookmarks": {"s": {"replication_key_value": n}}}) for n in range(4)]
    target.run([keyed(), *rows({1: "a", 2: "a"}), bookmark[1]], load_method="upsert")
    sent = [bookmark[1], keyed(), *rows({2: "b"}), bookmark[2]]
    target.environment = {"MELISMA_FAILPOINT": "commit:after"}
    assert target.run(sent, load_method="upsert")[0] == -9
    target.environment = {}
    assert target.run(sent)[0] == 0
    assert {1, 2} == {row[0] for row in target.rows()}
    assert (1, "a") in target.rows()


POINTS = [
    "open:after", "intent:after", "publish:one", "commit:before", "commit:after", "delete:one", "delete:after",
    "release:after", "end:before", "end:after",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "point"),
    [
        *[(method, point) for method in ("upsert", "overwrite") for point in POINTS],
        *[("version", point) for point in ("publish:one", "commit:before", "commit:after", "delete:after")],
    ],
)
def test_killed_half_way_and_run_again_every_key_is_there_once(target: Target, method: str, point: str) -> None:
    """A kill -9 at each step, then again until done: each key once with its latest value, read by two engines."""
    load = {"load_method": "append-only" if method == "version" else method, "hard_delete": True}
    old, new = dict.fromkeys(range(6), "old"), dict.fromkeys(range(3, 9), "new")

    def messages(number: int, values: dict[int, str]) -> list[Message]:
        more = {"version": number} if method == "version" else {}
        head = [keyed(), version(number)] if more else [keyed()]
        return [*head, *rows(values, **more), state({"n": number})]

    assert target.run(messages(1, old), **load)[0] == 0
    target.environment = {"MELISMA_FAILPOINT": point}
    assert target.run(messages(2, new), **load)[0] == -9
    target.environment = {}
    expected = {**old, **new} if method == "upsert" else new
    # Readers that list see both generations only between the entry and the deletes.
    if point not in {"publish:one", "commit:before", "commit:after", "delete:one"}:
        whole = expected if point in {"delete:after", "release:after", "end:before", "end:after"} else old
        assert target.rows(columns="id, v") == sorted(whole.items())
    # A tap with versions makes a new one in each run.
    assert target.run(messages(3, new), **load)[:2] == (0, ['{"n": 3}'])
    assert target.rows(columns="id, v") == sorted(expected.items())
    assert read_by_polars(target) == sorted(expected.items())
