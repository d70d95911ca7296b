"""Schemas that change from run to run: one table for every reader, or what the contract says."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melisma.arrow.schema import stream_schema
from melisma.arrow.table import Table
from melisma.target.contract import Contract, plan

Row = dict[str, Any]
Reader = Callable[[list[Path]], list[Row]]

INTEGER = {"type": ["null", "integer"]}
NUMBER = {"type": ["null", "number"]}
STRING = {"type": ["null", "string"]}
DATE = {"type": ["null", "string"], "format": "date"}
MOMENT = {"type": ["null", "string"], "format": "date-time"}
MONEY = {"type": ["null", "number"], "precision": 12, "scale": 2}
FINE = {"type": ["null", "number"], "precision": 12, "scale": 4}


def by_duckdb(files: list[Path]) -> list[Row]:
    """With `union_by_name`, and UTC for dates."""
    names = ", ".join(f"'{file}'" for file in files)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute(f"SELECT * FROM read_parquet([{names}], union_by_name = true)")  # noqa: S608
        columns = [each[0] for each in found.description]
        return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]


def by_polars(files: list[Path]) -> list[Row]:
    """File by file, joined with relaxed types."""
    return pl.concat([pl.scan_parquet(file) for file in files], how="diagonal_relaxed").collect().to_dicts()


def by_arrow(files: list[Path]) -> list[Row]:
    """As a dataset with the newest file's schema, which has every column of the table."""
    names = [str(file) for file in files]
    rows: list[Row] = ds.dataset(names, schema=pq.read_schema(files[-1])).to_table().to_pylist()
    return rows


READERS = [by_duckdb, by_polars, by_arrow]


def at(text: str) -> dt.datetime:
    """A moment in UTC."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def sorted_rows(rows: list[Row]) -> list[Row]:
    """By id; moments in UTC."""
    plain = [{k: v.astimezone(dt.UTC) if isinstance(v, dt.datetime) else v for k, v in row.items()} for row in rows]
    return sorted(plain, key=lambda row: row["id"])


@pytest.mark.parametrize(
    ("before", "after", "old", "new", "expected"),
    [
        (INTEGER, NUMBER, 2**53, 1.5, [2.0**53, 1.5]),
        (INTEGER, MONEY, 2**63 - 1, 1.25, [Decimal(2**63 - 1), Decimal("1.25")]),
        (MONEY, FINE, 1.25, 1.2345, [Decimal("1.25"), Decimal("1.2345")]),
        (DATE, MOMENT, "2020-01-01", "2020-01-02T03:04:05Z", [at("2020-01-01"), at("2020-01-02T03:04:05")]),
        (
            {"type": "object", "properties": {"a": INTEGER}},
            {"type": "object", "properties": {"a": MONEY, "b": STRING}},
            {"a": 1},
            {"a": 0.5, "b": "x"},
            [{"a": Decimal(1), "b": None}, {"a": Decimal("0.5"), "b": "x"}],
        ),
        (
            {"type": "array", "items": INTEGER},
            {"type": "array", "items": NUMBER},
            [1, 2],
            [2.5],
            [[1.0, 2.0], [2.5]],
        ),
    ],
    ids=["integer-number", "integer-decimal", "decimals", "date-timestamp", "object", "array"],
)
def test_wider_types_give_every_reader_one_table(
    lake: Any, before: Row, after: Row, old: Any, new: Any, expected: list[Any]
) -> None:
    """Old rows in old files and new rows in new ones are one column; a narrower schema after that changes nothing."""
    assert lake.load({"id": INTEGER, "c": before}, [{"id": 1, "c": old}])[0] == 0
    code, err = lake.load({"id": INTEGER, "c": after, "added": STRING}, [{"id": 2, "c": new, "added": "y"}])
    assert code == 0
    assert 'column "c": changes its type from' in err
    code, err = lake.load({"id": INTEGER, "c": before}, [{"id": 3, "c": old}])
    assert (code, "changes its type" in err) == (0, False)
    for read in READERS:
        rows = sorted_rows(read(lake.files()))
        assert [row["c"] for row in rows] == [*expected, expected[0]], read.__name__
        assert [row["added"] for row in rows] == [None, "y", None]
    newest = pq.read_schema(lake.files()[-1])
    assert newest == pq.read_schema(lake.files()[-2])


def test_polars_scans_files_of_one_type_with_the_newest_schema(lake: Any) -> None:
    """New columns and members need `missing_columns` and cast options, as docs/evolution.md says."""
    lake.load({"id": INTEGER, "o": {"type": "object", "properties": {"a": INTEGER}}}, [{"id": 1, "o": {"a": 1}}])
    wider = {"type": "object", "properties": {"a": INTEGER, "b": STRING}}
    lake.load({"id": INTEGER, "o": wider, "n": STRING}, [{"id": 2, "o": {"a": 2, "b": "x"}, "n": "y"}])
    found = pl.scan_parquet(
        lake.files(),
        schema=pl.read_parquet_schema(lake.files()[-1]),
        missing_columns="insert",
        cast_options=pl.ScanCastOptions(missing_struct_fields="insert"),
    ).collect()
    assert found.to_dicts() == [
        {"id": 1, "o": {"a": 1, "b": None}, "n": None},
        {"id": 2, "o": {"a": 2, "b": "x"}, "n": "y"},
    ]


def test_duckdb_takes_a_date_for_midnight_of_its_time_zone(lake: Any) -> None:
    """The caveat of docs/evolution.md is true; the day that it is not, the page can drop it."""
    lake.load({"d": DATE}, [{"d": "2020-01-01"}])
    lake.load({"d": MOMENT}, [{"d": "2020-01-01T00:00:00Z"}])
    query = f"SELECT count(DISTINCT d) FROM read_parquet('{lake.root}/s/*.parquet', union_by_name = true)"  # noqa: S608
    for zone, moments in (("UTC", 1), ("America/New_York", 2)):
        with duckdb.connect() as connection:
            connection.execute(f"SET TimeZone = '{zone}'")
            assert connection.execute(query).fetchone() == (moments,)


def test_large_integers_keep_their_column_to_themselves(lake: Any) -> None:
    """Once there was an integer beyond 2^53, numbers go to a variant column; nothing is rounded by any reader."""
    lake.load({"id": INTEGER, "c": INTEGER}, [{"id": 1, "c": 2**53 + 1}])
    code, err = lake.load({"id": INTEGER, "c": NUMBER}, [{"id": 2, "c": 1.5}])
    assert (code, 'new values go to the column "c__number"' in err) == (0, True)
    for read in READERS:
        assert sorted_rows(read(lake.files())) == [
            {"id": 1, "c": 2**53 + 1, "c__number": None},
            {"id": 2, "c": None, "c__number": 1.5},
        ]


def test_an_integer_that_no_double_has_is_a_bad_record(lake: Any) -> None:
    """In a column of numbers an integer beyond 2^53 is refused, not rounded, and the rest of its run is kept."""
    lake.load({"id": INTEGER, "c": NUMBER}, [{"id": 1, "c": 1.5}])
    records = [{"id": 2, "c": 2}, {"id": 3, "c": 2**53 + 1}, {"id": 4, "c": None}]
    code, err = lake.load({"id": INTEGER, "c": INTEGER}, records)
    assert (code, 'column "c", line 3: does not fit the lake\'s number exactly' in err) == (3, True)
    assert str(2**53 + 1) not in err
    assert lake.load({"id": INTEGER, "c": INTEGER}, records, on_bad_record="skip")[0] == 0
    assert [row["id"] for row in sorted_rows(by_duckdb(lake.files()))] == [1, 2, 4]


def test_types_that_cannot_share_a_column_get_one_beside_it(lake: Any) -> None:
    """Each kind of value has its place, also when the types go to and fro, and within one run."""
    first = {"id": INTEGER, "c": INTEGER}
    data = lake.messages(first, [{"id": 1, "c": 1}]) + lake.messages(
        {"id": INTEGER, "c": STRING}, [{"id": 2, "c": "x"}]
    )
    code, _, err = lake.run(data)
    assert (code, 'new values go to the column "c__string"' in err) == (0, True)
    deep = {"type": "object", "properties": {"a": INTEGER}}
    assert lake.load({"id": INTEGER, "c": deep}, [{"id": 3, "c": {"a": 1}}])[0] == 0
    assert lake.load(first, [{"id": 4, "c": 4}])[0] == 0
    code, err = lake.load({"id": INTEGER, "c": MOMENT}, [{"id": 5, "c": "2020-01-01T00:00:00+02:00"}])
    assert (code, "changes its type" in err) == (0, False)
    for read in READERS:
        assert [tuple(row.values()) for row in sorted_rows(read(lake.files()))] == [
            (1, 1, None, None),
            (2, None, "x", None),
            (3, None, None, '{"a":1}'),
            (4, 4, None, None),
            (5, None, "2020-01-01T00:00:00+02:00", None),
        ]


def test_a_date_that_is_kept_as_text_is_held_to_its_pattern(lake: Any) -> None:
    """The lake's column is text, the tap's constraints hold all the same: one alone, too."""
    assert lake.load({"c": STRING}, [{"c": "x"}])[0] == 0
    dated = {"type": "string", "format": "date", "pattern": "^2024"}
    assert lake.load({"c": dated}, [{"c": "2024-01-01"}])[0] == 0
    code, err = lake.load({"c": dated}, [{"c": "1999-01-01"}])
    assert (code, "does not match the schema's pattern" in err) == (3, True)


def test_a_column_that_comes_back_meets_its_old_files(lake: Any) -> None:
    """A column that was not sent for a while is still the table's: text for what was an integer has its own column."""
    lake.load({"id": INTEGER, "c": INTEGER}, [{"id": 1, "c": 1}])
    lake.load({"id": INTEGER}, [{"id": 2}])
    assert lake.load({"id": INTEGER, "c": STRING}, [{"id": 3, "c": "x"}])[0] == 0
    assert [(row["c"], row["c__string"]) for row in sorted_rows(by_polars(lake.files()))] == [
        (1, None),
        (None, None),
        (None, "x"),
    ]


@pytest.mark.parametrize(
    "where",
    [{"keys": ("c",)}, {"bookmark": "c"}, {"partition_by": ["c"]}],
    ids=["key", "replication-key", "partition"],
)
def test_keys_bookmarks_and_partitions_have_no_variant(lake: Any, where: dict[str, Any]) -> None:
    """What rows are found by cannot move; the error says what to do, and nothing is written."""
    assert lake.load({"id": INTEGER, "c": INTEGER}, [{"id": 1, "c": 1}], **where)[0] == 0
    code, err = lake.load({"id": INTEGER, "c": STRING}, [{"id": 2, "c": "x"}], **where)
    assert (code, 'stream "s", column "c", line 1: changes its type from integer to string' in err) == (3, True)
    assert "column_types" in err
    assert len(lake.files()) == 1


def test_a_column_in_other_letters_is_refused(lake: Any) -> None:
    """`Total` beside the lake's `total` would be a table that DuckDB cannot read."""
    lake.load({"total": INTEGER}, [{"total": 1}])
    code, err = lake.load({"Total": INTEGER}, [{"Total": 2}])
    assert (code, 'differs only in letter case from the lake\'s column "total"' in err) == (3, True)


def test_boundary_rows_are_known_after_a_change(lake: Any) -> None:
    """A row that an inclusive tap sends again is dropped although its columns have been widened and added to."""
    first = lake.messages({"k": DATE, "c": INTEGER}, [{"k": "2020-01-01", "c": 5}], bookmark="k")
    assert lake.run(first + lake.state("k", "2020-01-01"))[0] == 0
    again = [{"k": "2020-01-01T00:00:00Z", "c": 5}, {"k": "2020-01-02T00:00:00Z", "c": 6.5}]
    second = lake.messages({"k": MOMENT, "c": NUMBER, "n": STRING}, again, bookmark="k")
    assert lake.run(lake.state("k", "2020-01-01") + second + lake.state("k", "2020-01-02T00:00:00Z"))[0] == 0
    assert sorted(row["c"] for row in by_duckdb(lake.files())) == [5.0, 6.5]


@pytest.mark.parametrize(
    ("properties", "column"),
    [
        ({"id": INTEGER, "c": INTEGER, "new": STRING}, "new"),
        ({"id": INTEGER, "c": NUMBER}, "c"),
        ({"id": INTEGER, "c": STRING}, "c"),
        ({"id": INTEGER}, "c"),
    ],
    ids=["new", "wider", "other", "gone"],
)
def test_freeze_names_the_column(lake: Any, properties: Row, column: str) -> None:
    """Any change ends the run with exit 3, before anything is written; the same schema goes on."""
    frozen = {"schema_contract": "freeze"}
    assert lake.load({"id": INTEGER, "c": INTEGER}, [{"id": 1}], **frozen)[0] == 0
    code, err = lake.load(properties, [{"id": 2}], **frozen)
    assert (code, f'stream "s", column "{column}", line 1' in err, "schema_contract" in err) == (3, True, True)
    assert lake.load({"id": INTEGER, "c": INTEGER}, [{"id": 3}], **frozen)[0] == 0
    assert [row["id"] for row in sorted_rows(by_duckdb(lake.files()))] == [1, 3]


def test_discard_value_leaves_the_table_as_it_is(lake: Any) -> None:
    """Values of new and changed columns are null or not there, and counted; the journal's table is the old one."""
    lake.load({"id": INTEGER, "c": INTEGER}, [{"id": 1, "c": 1}])
    code, err = lake.load(
        {"id": INTEGER, "c": STRING, "n": STRING},
        [{"id": 2, "c": "x", "n": "y"}, {"id": 3, "c": None, "n": "z"}],
        schema_contract={"s": "discard_value"},
    )
    assert code == 0
    assert 'column "n": 2 values not stored' in err
    assert 'column "c": 1 values not stored' in err
    assert sorted_rows(by_polars(lake.files())) == [{"id": 1, "c": 1}, {"id": 2, "c": None}, {"id": 3, "c": None}]


def test_discard_row_leaves_out_records_with_such_values(lake: Any) -> None:
    """Records that have a value there are skipped and counted, whatever on_bad_record says; the others land."""
    lake.load({"id": INTEGER, "c": INTEGER}, [{"id": 1, "c": 1}])
    records = [{"id": 2, "c": 2, "n": "y"}, {"id": 3, "c": 3}, {"id": 4, "c": 4, "n": None}]
    contract = {"*": {"n": "discard_row"}}
    code, err = lake.load({"id": INTEGER, "c": INTEGER, "n": STRING}, records, schema_contract=contract)
    assert (code, "1 records skipped" in err) == (0, True)
    assert [row["id"] for row in sorted_rows(by_duckdb(lake.files()))] == [1, 3, 4]
    counts = [entry["counts"]["s"] for entry in lake.commits() if entry["record"] == "commit"]
    assert counts[-1] == {"read": 3, "written": 2, "skipped": 1}


def test_a_contract_that_is_none_is_refused_at_start(lake: Any) -> None:
    """Exit 2, with the words that there are."""
    for contract in ("strict", {"s": "strict"}, {"s": {"c": "strict"}}):
        code, err = lake.load({"id": INTEGER}, [], schema_contract=contract)
        assert (code, "Valid values: evolve, freeze, discard_value, discard_row" in err) == (2, True)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (None, "evolve"),
        ("freeze", "freeze"),
        ({"*": "freeze"}, "freeze"),
        ({"*": "freeze", "s": "discard_row"}, "discard_row"),
        ({"*": {"c": "freeze"}, "s": {"d": "discard_row"}}, "freeze"),
        ({"*": {"c": "freeze"}, "s": {"*": "discard_row"}}, "discard_row"),
        ({"*": "freeze", "s": {"c": "discard_value", "*": "discard_row"}}, "discard_value"),
    ],
)
def test_the_most_particular_contract_holds(setting: Any, expected: str) -> None:
    """The stream's word goes before the one for all streams, the column's before the one for all columns."""
    assert Contract(setting).mode("s", "c") == expected


STEPS: dict[str, tuple[Row, st.SearchStrategy[Any]]] = {
    "integer": (INTEGER, st.integers(-(2**53), 2**53)),
    "number": (NUMBER, st.floats(-1e300, 1e300)),
    "text": (STRING, st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)),
    "moment": (MOMENT, st.sampled_from(["2020-01-01T00:00:00Z", "1999-12-31T23:59:59.5Z"])),
    "object": (
        {"type": ["null", "object"], "properties": {"a": INTEGER}},
        st.fixed_dictionaries({"a": st.integers(0, 9)}),
    ),
    "wider object": (
        {"type": ["null", "object"], "properties": {"a": NUMBER, "b": STRING}},
        st.fixed_dictionaries({"a": st.sampled_from([1, 2.5]), "b": st.sampled_from(["x", None])}),
    ),
}
COMPATIBLE = {"c": ("integer", "number"), "d": ("object", "wider object"), "e": ("text", "moment")}


@st.composite
def runs(draw: st.DrawFn) -> list[tuple[Row, list[Row]]]:
    """Runs of one stream: each has some of the columns, in one of their types, in any order."""
    found, number = [], 0
    for _ in range(draw(st.integers(1, 6))):
        chosen = draw(
            st.permutations([(n, draw(st.sampled_from(k))) for n, k in COMPATIBLE.items() if draw(st.booleans())])
        )
        properties: Row = {"id": INTEGER, **{name: STEPS[kind][0] for name, kind in chosen}}
        rows = []
        for _ in range(draw(st.integers(1, 3))):
            number += 1
            rows.append({"id": number, **{name: draw(st.none() | STEPS[kind][1]) for name, kind in chosen}})
        found.append((properties, rows))
    return found


def expected_rows(history: list[tuple[Row, list[Row]]]) -> list[Row]:
    """The model: every column that ever came, each value as it came; text starts as the first type that it had."""
    names = list(dict.fromkeys(name for properties, _ in history for name in properties))
    members = {"a", "b"} if any("b" in each[0].get("d", {}).get("properties", {}) for each in history) else {"a"}
    rows: list[Row] = []
    for _, records in history:
        for record in records:
            row = {name: record.get(name) for name in names}
            if row.get("d") is not None:
                row["d"] = {member: row["d"].get(member) for member in members}
            rows.append(row)
    return rows


def comparable(value: Any) -> Any:
    """Moments as text, numbers by value, members without order."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC)
    if isinstance(value, str) and value.endswith("Z") and value[:2] in {"19", "20"}:
        return dt.datetime.fromisoformat(value)
    if isinstance(value, dict):
        return {key: comparable(each) for key, each in sorted(value.items())}
    return value


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=runs())
def test_any_sequence_of_compatible_schemas_is_one_table(
    history: list[tuple[Row, list[Row]]], tmp_path_factory: pytest.TempPathFactory, lake: Any
) -> None:
    """Whatever comes and goes and widens, every reader has every value, in the model's columns."""
    fresh = type(lake)(tmp_path_factory.mktemp("lake"))
    half = len(history) // 2
    for part in (history[:half], history[half:]):
        data = b"".join(fresh.messages(properties, rows) for properties, rows in part)
        code, _, err = fresh.run(data)
        assert code == 0, err
    model = [{key: comparable(value) for key, value in row.items()} for row in expected_rows(history)]
    merged = moments_first(history)
    for read in READERS:
        rows = [merge(row) if merged else row for row in sorted_rows(read(fresh.files()))]
        assert [{key: comparable(value) for key, value in row.items()} for row in rows] == model, read.__name__


def moments_first(history: list[tuple[Row, list[Row]]]) -> bool:
    """Whether `e` began as a moment, so that text has a column of its own, if it came."""
    kinds = [properties["e"] for properties, _ in history if "e" in properties]
    return bool(kinds) and kinds[0] == MOMENT and STRING in kinds


def merge(row: Row) -> Row:
    """As docs/evolution.md says to read a variant."""
    text = row.pop("e__string")
    return {**row, "e": row["e"] if row["e"] is not None else text}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.sampled_from([INTEGER, NUMBER, STRING, MONEY, DATE, MOMENT])),
        min_size=1,
        max_size=8,
    )
)
def test_a_table_only_grows_and_settles(schemas: list[dict[str, Row]]) -> None:
    """After all schemas have come once, each of them fits the table as it is: going to and fro changes nothing more."""
    table: Table | None = None
    for properties in schemas * 2:
        incoming = stream_schema("s", {"properties": {"id": INTEGER, **properties}})
        table = plan(incoming, table, Contract()).table
    settled = json.dumps(table.describe()) if table is not None else ""
    for properties in schemas:
        incoming = stream_schema("s", {"properties": {"id": INTEGER, **properties}})
        evolution = plan(incoming, table, Contract())
        assert [each for each in evolution.changes if each.kind != "dropped"] == []
        assert json.dumps(evolution.table.describe()) == settled
