"""Where a stream stands, read from a STATE as different programs write it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from singer_sdk.helpers import _state as sdk

from melisma.wire.position import has_progress_markers, is_empty_bookmark, load_state, positions


def of(bookmark: Any, stream: str = "orders") -> dict[str, Any]:
    return {"bookmarks": {stream: bookmark}}


@pytest.mark.parametrize(
    "same",
    [
        {"replication_key_value": 5, "progress_markers": {"Note": "x", "replication_key_value": 9}},
        {"replication_key_value": 5, "starting_replication_value": 1},
        {"replication_key_value": 5, "replication_key_signpost": 7},
        {"replication_key_value": 5.0},
        {"partitions": [], "replication_key_value": 5},
        {"partitions": [{"context": {"org": 1}, "progress_markers": {}}], "replication_key_value": 5},
    ],
)
def test_what_does_not_last_makes_no_difference(same: dict[str, Any]) -> None:
    assert positions(of(same)) == positions(of({"replication_key_value": 5}))


@pytest.mark.parametrize(
    "other",
    [
        {"replication_key_value": 6},
        {"replication_key_value": "5"},
        {"replication_key_value": 5, "replication_key": "id"},
        {"partitions": [{"context": {"org": 1}, "replication_key_value": 5}]},
    ],
)
def test_anything_else_makes_a_difference(other: dict[str, Any]) -> None:
    assert positions(of(other)).of("orders") != positions(of({"replication_key_value": 5})).of("orders")


def test_partitions_are_a_set() -> None:
    parts = [{"context": {"org": n}, "replication_key_value": n} for n in range(3)]
    assert positions(of({"partitions": parts})) == positions(of({"partitions": parts[::-1]}))
    assert positions(of({"partitions": parts})) != positions(of({"partitions": parts[1:]}))


@pytest.mark.parametrize(
    "nothing", [{}, {"bookmarks": {}}, of({}), of({"progress_markers": {"a": 1}}), {"currently_syncing": "x"}]
)
def test_an_empty_state_has_no_position(nothing: dict[str, Any]) -> None:
    assert positions(nothing).whole == ""
    assert positions(nothing).streams == {}


def test_a_stream_that_is_not_named_stands_where_the_whole_state_does() -> None:
    before, after = positions(of({"replication_key_value": 1}, "a")), positions(of({"replication_key_value": 2}, "a"))
    assert before.of("b") != after.of("b")
    assert before.of("b") == positions({**of({"replication_key_value": 1}, "a"), "version": 3}).of("b")


def test_a_state_of_another_shape_is_one_position() -> None:
    assert positions({"orders": 1}).of("orders") == positions({"currently_syncing": "a", "orders": 1}).of("items")
    assert positions({"orders": 1}).of("orders") != positions({"orders": 2}).of("orders")


def test_integers_beyond_64_bits_are_told_apart() -> None:
    texts = [json.dumps(of({"v": 2**70 + n})) for n in range(2)]
    assert positions(load_state(texts[0])) != positions(load_state(texts[1]))


def test_progress_markers_are_seen_in_a_partition_too() -> None:
    marked = {"context": {"org": 1}, "progress_markers": {"replication_key_value": 2}}
    assert has_progress_markers(of({"partitions": [{"context": {"org": 0}}, marked]}), "orders")
    assert has_progress_markers(of({"progress_markers": {"Note": "x"}}), "orders")
    assert not has_progress_markers(of({"replication_key_value": 2}), "orders")
    assert not has_progress_markers(of({"progress_markers": {"Note": "x"}}), "items")


def test_an_empty_bookmark_is_evidence_only_under_the_streams_own_name() -> None:
    assert is_empty_bookmark(of({}), "orders")
    assert not is_empty_bookmark(of({}), "items")
    assert not is_empty_bookmark(of({"progress_markers": {}}), "orders")


@pytest.mark.parametrize("text", ["[]", "1", "null", "{", b"\xff"])
def test_a_state_that_is_no_object_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        load_state(text)


values = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=4))
plain = st.fixed_dictionaries(
    {},
    optional={
        "replication_key": st.text(max_size=3),
        "replication_key_value": values,
        "starting_replication_value": values,
        "replication_key_signpost": values,
        "progress_markers": st.dictionaries(st.text(max_size=3), values, max_size=2),
    },
)
partition = plain.map(lambda bookmark: {"context": {"n": 1}, **bookmark})
states = st.dictionaries(
    st.text(max_size=3),
    st.one_of(plain, st.builds(lambda bookmark, parts: {**bookmark, "partitions": parts}, plain, st.lists(partition))),
    max_size=3,
).map(lambda bookmarks: {"bookmarks": bookmarks})


@given(states)
def test_what_an_sdk_tap_announces_has_the_position_of_what_it_was_given(state: dict[str, Any]) -> None:
    """The tap's own functions do to the STATE what a start does: `load_state`, then the markers wiped."""
    announced: dict[str, Any] = {}
    for stream, bookmark in copy.deepcopy(state)["bookmarks"].items():
        for key, value in bookmark.items():
            sdk.write_stream_state(announced, stream, key, value)
    for bookmark in announced.get("bookmarks", {}).values():
        sdk.reset_state_progress_markers(bookmark)
        for part in bookmark.get("partitions", []):
            sdk.reset_state_progress_markers(part)
    assert positions(json.loads(json.dumps(announced))) == positions(state)
