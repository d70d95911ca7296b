"""Names in a lake: reversible, injective, inside the root, and read by other engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from melisma.arrow.types import ColumnType, Field, Kind, StreamSchema
from melisma.errors import BadRecord, BadSchema, ConfigError
from melisma.lake import layout
from melisma.lake.partition import Partitioner, PartitionField, parse_partition_by

names = st.text(min_size=1, max_size=300)


@given(names)
def test_a_stream_name_becomes_one_safe_segment(name: str) -> None:
    """Never hidden, never a path, never too long; and it reads back, unless it was cut."""
    segment = layout.stream_segment(name)
    assert 0 < len(segment.encode()) <= 200
    assert segment[0] not in "._"
    assert "/" not in segment
    assert "=" not in segment
    assert segment.isascii()
    assert segment.isprintable()
    assert layout.stream_name(segment) in (name, None)


@given(names, names)
def test_two_streams_never_share_a_segment(one: str, other: str) -> None:
    """The encoding is injective."""
    assume(one != other)
    assert layout.stream_segment(one) != layout.stream_segment(other)


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("orders", "orders"),
        ("public-orders", "public-orders"),
        ("a.b_c", "a.b_c"),
        ("_melisma", "%5Fmelisma"),
        (".hidden", "%2Ehidden"),
        ("..", "%2E."),
        ("a/../../b", "a%2F..%2F..%2Fb"),
        ("é", "%C3%A9"),
        ("x=1", "x%3D1"),
        ("\x00", "%00"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_segments_of_awkward_names(name: str, segment: str) -> None:
    """The names that could do harm, one by one; these are in lakes, so they must not change."""
    assert layout.stream_segment(name) == segment
    assert layout.stream_name(segment) == name


def test_long_names_that_share_their_beginning_stay_apart() -> None:
    """Over 200 bytes, the hash of the whole tells them apart."""
    assert layout.stream_segment("a" * 300) != layout.stream_segment("a" * 301)
    assert layout.stream_name(layout.stream_segment("a" * 300)) is None
    with pytest.raises(BadSchema, match="empty"):
        layout.stream_segment("")


@pytest.mark.parametrize("pipeline", ["default", "dev-tap-files", "a.b_c-20240131T134501Z12345678-000001"])
def test_file_names_parse_back_and_sort_by_run_and_number(pipeline: str) -> None:
    """Also for pipelines with dashes, and with what looks like a run."""
    now = datetime(2024, 1, 31, 13, 45, 1, tzinfo=UTC)
    early, late = layout.new_run_id(now), layout.new_run_id(now + timedelta(seconds=1))
    files = [layout.FileName(pipeline, early, 999_999, "parquet"), layout.FileName(pipeline, late, 1, "parquet")]
    assert [layout.parse_file_name(str(file)) for file in files] == files
    assert sorted(map(str, files)) == [str(file) for file in files]
    assert layout.parse_file_name("part-0000.parquet") is None


@pytest.mark.parametrize("pipeline", ["", "-a", ".a", "_a", "a/b", "a b", "é", "a" * 65, "..", "a\n"])
def test_a_pipeline_that_cannot_be_in_file_names_is_refused(pipeline: str) -> None:
    """The setting is named, its value is not."""
    with pytest.raises(ConfigError, match='setting "pipeline"'):
        layout.check_pipeline(pipeline)


def test_under_meltano_each_extractor_is_a_pipeline() -> None:
    """Two taps in one pipeline would take their STATEs for each other's; names that no file can bear are told apart."""
    tap = {"MELTANO_EXTRACTOR_NAME": "tap-files", "MELTANO_ENVIRONMENT": "dev"}
    assert layout.default_pipeline({}) == layout.DEFAULT_PIPELINE
    assert layout.default_pipeline(tap) == "dev-tap-files"
    odd = [{"MELTANO_EXTRACTOR_NAME": name} for name in ("streams", "a b", "a_b", "é" * 99, "é" * 98)]
    names = [layout.check_pipeline(layout.default_pipeline(each)) for each in odd]
    assert len(set(names)) == len(odd)


def stream(**columns: ColumnType) -> StreamSchema:
    """A stream of these columns."""
    fields = tuple(Field(name, kind) for name, kind in columns.items())
    root = ColumnType(Kind.STRUCT, pa.struct([(f.name, f.type.arrow) for f in fields]), fields=fields)
    return StreamSchema("orders", root, (), {})


ORDERS = stream(
    id=ColumnType(Kind.INTEGER, pa.int64()),
    country=ColumnType(Kind.STRING, pa.string()),
    price=ColumnType(Kind.NUMBER, pa.float64()),
    day=ColumnType(Kind.DATE, pa.date32()),
    at=ColumnType(Kind.TIMESTAMP, pa.timestamp("us", "UTC")),
    AT_Month=ColumnType(Kind.STRING, pa.string()),
    tags=ColumnType(Kind.LIST, pa.list_(pa.string())),
    _sdc_at=ColumnType(Kind.TIMESTAMP, pa.timestamp("us", "UTC")),
    _hidden=ColumnType(Kind.STRING, pa.string()),
    **{"a/b": ColumnType(Kind.STRING, pa.string())},
)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("country", "is not a list"),
        ([3], r'setting "partition_by\[0\]"'),
        ([""], "is not a partition field"),
        ([{"column": "at", "transform": "week"}], "is not a partition field"),
        ([{"column": "at", "by": "day"}], "is not a partition field"),
        (["nation"], 'no column "nation"'),
        (["week(at)"], r'no column "week\(at\)"'),
        (["price"], "of type number"),
        (["tags"], "of type list"),
        (["at"], "Use year, month, day or hour of it"),
        (["month(country)"], "has no month"),
        (["hour(day)"], "has no hour"),
        (["month(at)"], '"at_month" clashes with the column "AT_Month"'),
        (["country", "country"], "given twice"),
        (["_hidden"], "readers cannot read this name"),
        (["a/b"], "readers cannot read this name"),
        ({"orders": ["nation"]}, 'no column "nation"'),
        ({"*": ["nation"]}, 'no column "nation"'),
        ({"orders": "country"}, r'setting "partition_by\.orders"'),
    ],
)
def test_a_partition_that_cannot_work_is_refused_at_start(setting: object, message: str) -> None:
    """One line that names the entry, the rule and what to do."""
    with pytest.raises(ConfigError, match=message):
        Partitioner(ORDERS, parse_partition_by(setting, "orders"))


def test_partition_settings_per_stream() -> None:
    """A mapping names streams; "*" holds for the others; derived names lose the underscore that readers skip."""
    setting = {"orders": ["day(_sdc_at)"], "*": ["country"]}
    [field] = parse_partition_by(setting, "orders")
    assert (field, field.name) == (PartitionField("_sdc_at", "day"), "sdc_at_day")
    assert parse_partition_by(setting, "users") == (PartitionField("country"),)
    assert parse_partition_by({"orders": ["country"]}, "users") == ()
    assert parse_partition_by(None, "users") == ()


values = st.lists(st.tuples(st.sampled_from([None, "", "a", "A", "b/c", "%"]), st.none() | st.integers(-3, 3)))


@given(values)
def test_a_split_keeps_every_row_in_order(rows: list[tuple[str | None, int | None]]) -> None:
    """Two columns: each part holds just the rows of its key, in their order; keys are not repeated."""
    schema = stream(
        s=ColumnType(Kind.STRING, pa.string()),
        n=ColumnType(Kind.INTEGER, pa.int64()),
        row=ColumnType(Kind.INTEGER, pa.int64()),
    )
    columns = [[s for s, _ in rows], [n for _, n in rows], list(range(len(rows)))]
    batch = pa.record_batch(
        [pa.array(c, f.type) for c, f in zip(columns, schema.arrow, strict=True)], schema=schema.arrow
    )
    expected: dict[tuple[str, ...], list[int]] = {}
    for number, (text, integer) in enumerate(rows):
        parts = (("s", text), ("n", None if integer is None else str(integer)))
        key = tuple(layout.partition_segment(name, value) for name, value in parts)
        expected.setdefault(key, []).append(number)
    partitioner = Partitioner(schema, parse_partition_by(["s", "n"], "orders"))
    found = [(key, part.column("row").to_pylist()) for key, part in partitioner.split(batch)]
    assert found == list(expected.items())


@pytest.mark.parametrize(
    ("value", "rule"), [("x" * 300, "too long"), ("é" * 60, "too long"), (layout.HIVE_NULL, "stands for null")]
)
def test_a_value_that_makes_no_directory_is_a_bad_record(value: str, rule: str) -> None:
    """The stream and the column are named, the value is not."""
    partitioner = Partitioner(ORDERS, parse_partition_by(["country"], "orders"))
    columns = [pa.array([value if f.name == "country" else None], f.type) for f in ORDERS.arrow]
    with pytest.raises(BadRecord, match=rule) as error:
        list(partitioner.split(pa.record_batch(columns, schema=ORDERS.arrow)))
    assert value not in str(error.value)
    assert 'column "country"' in str(error.value)


def test_capitals_are_encoded_where_case_is_folded() -> None:
    """`a` and `A` stay two directories on such a file system, and readers decode them alike."""
    assert layout.partition_segment("c", "aA", fold=True) == "c=a%41"
    assert layout.partition_segment("c", "aA") == "c=aA"
