"""Boundary rows: what an inclusive tap sends again is dropped, once for each that is there, and nothing else."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melisma.lake.boundary import BoundaryRows, row_hashes
from melisma.lake.records import Boundary


def batch(rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> pa.RecordBatch:
    """Rows as a record batch."""
    return pa.RecordBatch.from_pylist(rows, schema=schema or pa.schema([("k", pa.int64()), ("v", pa.string())]))


rows = st.lists(
    st.fixed_dictionaries({"k": st.one_of(st.none(), st.integers(0, 4)), "v": st.sampled_from(["x", "y", None])}),
    max_size=12,
)


@given(rows, rows, st.integers(1, 4))
def test_two_runs_hold_each_row_as_often_as_the_source(
    old: list[dict[str, Any]], new: list[dict[str, Any]], size: int
) -> None:
    """The second run sends the old rows at the highest key again, and then new ones, in batches of any size."""
    first = BoundaryRows("k")
    assert first.take(batch(old))[1] == 0
    keys = [row["k"] for row in old if row["k"] is not None]
    again = [row for row in old if keys and row["k"] == max(keys)]
    second = BoundaryRows("k", first.boundary)
    kept: list[dict[str, Any]] = []
    dropped = 0
    sent = again + new
    for start in range(0, len(sent), size):
        part, repeated = second.take(batch(sent[start : start + size]))
        kept += part.to_pylist()
        dropped += repeated
    assert dropped == len(again)
    assert Counter((row["k"], row["v"]) for row in kept) == Counter((row["k"], row["v"]) for row in new)


@given(rows, rows)
def test_a_run_of_nothing_but_repeats_keeps_the_boundary(old: list[dict[str, Any]], more: list[dict[str, Any]]) -> None:
    """So that the third run drops them too, together with what came at that key since."""
    first = BoundaryRows("k")
    first.take(batch(old))
    second = BoundaryRows("k", first.boundary)
    second.take(batch(old[:0]))
    assert second.boundary == first.boundary
    everything = BoundaryRows("k")
    everything.take(batch(old + more))
    continued = BoundaryRows("k", first.boundary)
    highest = [row for row in old if first.boundary and str(row["k"]) == first.boundary.value]
    continued.take(batch(highest + more))
    assert continued.boundary == everything.boundary


@pytest.mark.parametrize(
    ("arrow_type", "key"),
    [
        (pa.int64(), 2**62),
        (pa.uint64(), 2**64 - 1),
        (pa.float64(), 0.1 + 0.2),
        (pa.decimal128(38, 9), Decimal("12345678901234567890.123456789")),
        (pa.string(), "2024-01-01T00:00:00Z"),
        (pa.date32(), dt.date(2024, 2, 29)),
        (pa.timestamp("us", "UTC"), dt.datetime(2024, 2, 29, 1, 2, 3, 456789, tzinfo=dt.UTC)),
        (pa.timestamp("us"), dt.datetime(1, 1, 1)),
    ],
)
def test_a_key_of_any_type_is_found_again(arrow_type: pa.DataType, key: Any) -> None:
    """Its text in the journal casts back to the same key."""
    schema = pa.schema([("k", arrow_type), ("v", pa.string())])
    first = BoundaryRows("k")
    first.take(batch([{"k": key, "v": "x"}], schema))
    assert first.boundary is not None
    assert BoundaryRows("k", first.boundary).take(batch([{"k": key, "v": "x"}], schema))[1] == 1
    assert BoundaryRows("k", first.boundary).take(batch([{"k": key, "v": "y"}], schema))[1] == 0


def test_a_row_that_changed_without_its_key_is_kept() -> None:
    """It is another row."""
    first = BoundaryRows("k")
    first.take(batch([{"k": 1, "v": "x"}]))
    assert BoundaryRows("k", first.boundary).take(batch([{"k": 1, "v": "z"}]))[1] == 0


def test_more_rows_at_one_key_than_the_cap_are_not_kept() -> None:
    """Nothing is dropped then, so nothing is lost."""
    first = BoundaryRows("k", cap=3)
    first.take(batch([{"k": 1, "v": str(n)} for n in range(4)]))
    assert first.boundary == Boundary(column="k", value="1", rows={})
    assert BoundaryRows("k", first.boundary).take(batch([{"k": 1, "v": "0"}]))[1] == 0
    first.take(batch([{"k": 2, "v": "x"}]))
    assert first.boundary is not None
    assert len(first.boundary.rows) == 1


def test_a_boundary_of_another_column_or_type_drops_nothing() -> None:
    """A replication key that changed says nothing of the rows that are there."""
    boundary = Boundary(column="other", value="1", rows=dict.fromkeys(row_hashes(batch([{"k": 1, "v": "x"}])), 1))
    assert BoundaryRows("k", boundary).take(batch([{"k": 1, "v": "x"}]))[1] == 0
    words = Boundary(column="k", value="one", rows=boundary.rows)
    tracker = BoundaryRows("k", words)
    assert tracker.take(batch([{"k": 1, "v": "x"}]))[1] == 0
    assert tracker.boundary is not None
    assert tracker.boundary.value == "1"


def test_a_key_that_no_text_can_be_cast_to_drops_nothing() -> None:
    """Arrow reads no times of day from text; nobody replicates by one."""
    schema = pa.schema([("k", pa.time64("us"))])
    first = BoundaryRows("k")
    first.take(batch([{"k": dt.time(1)}], schema))
    assert BoundaryRows("k", first.boundary).take(batch([{"k": dt.time(1)}], schema))[1] == 0


def test_a_batch_without_the_key_is_left_alone() -> None:
    """The column may be deselected."""
    assert BoundaryRows("nothing").take(batch([{"k": 1, "v": "x"}]))[1] == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": None}, {"a": 1}),
        ({"a": 1, "b": "x"}, {"b": "x", "a": 1}),
        ({"a": 1, "_sdc_extracted_at": "x"}, {"a": 1, "_sdc_extracted_at": "y"}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": Decimal("1.50")}, {"a": Decimal("1.5")}),
    ],
)
def test_what_is_the_same_row_has_the_same_hash(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Also after a column was added or widened."""
    assert row_hashes(pa.RecordBatch.from_pylist([one])) == row_hashes(pa.RecordBatch.from_pylist([other]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": "1"}),
        ({"a": True}, {"a": 1}),
        ({"a": None}, {"a": float("nan")}),
        ({"a": float("nan")}, {"a": "nan"}),
        ({"a": b"x"}, {"a": "78"}),
        ({"a": [1, None]}, {"a": [1]}),
        ({"a": {"b": 1}}, {"a": {"b": 2}}),
        ({"a": dt.date(2024, 1, 1)}, {"a": dt.datetime(2024, 1, 1)}),
        ({"a": "", "b": None}, {"b": "", "a": None}),
    ],
)
def test_what_is_another_row_has_another_hash(one: dict[str, Any], other: dict[str, Any]) -> None:
    """A row that is wrongly dropped would be lost."""
    assert row_hashes(pa.RecordBatch.from_pylist([one])) != row_hashes(pa.RecordBatch.from_pylist([other]))
