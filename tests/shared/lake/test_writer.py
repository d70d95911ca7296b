"""The stream writer: the cut at a STATE is exact to the row, whatever the limits; memory and files stay bounded."""

from __future__ import annotations

import errno
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from melisma.arrow.types import ColumnType, Field, Kind, StreamSchema
from melisma.errors import BadSchema, StorageError
from melisma.formats.parquet import ParquetOptions
from melisma.lake.lake import FileLake
from melisma.lake.partition import parse_partition_by
from melisma.lake.writer import StreamWriter, WriteBudget
from melisma.storage.filesystem import open_store

INTEGER = ColumnType(Kind.INTEGER, pa.int64())
STRING = ColumnType(Kind.STRING, pa.string())


def stream(name: str = "orders", **columns: ColumnType) -> StreamSchema:
    """A stream of these columns."""
    fields = tuple(Field(column, kind) for column, kind in (columns or {"id": INTEGER, "p": STRING}).items())
    root = ColumnType(Kind.STRUCT, pa.struct([(f.name, f.type.arrow) for f in fields]), fields=fields)
    return StreamSchema(name, root, (fields[0].name,), {"type": "object"})


def open_lake(root: Path) -> FileLake:
    """A lake that is ready to be written."""
    lake = FileLake(open_store(str(root), None, distribution="melisma-test"))
    lake.recover()
    return lake


def batch(schema: StreamSchema, ids: range, partitions: int = 1) -> pa.RecordBatch:
    """Rows with these ids, spread over so many values of `p`."""
    return pa.record_batch([list(ids), [f"p{i % partitions}" for i in ids]], schema=schema.arrow)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The lake's root; not there yet."""
    return tmp_path / "lake"


def read_partition(directory: Path) -> list[int]:
    """The rows of one directory in order, files by name, read by DuckDB."""
    rows: list[int] = []
    for file in sorted(directory.glob("*.parquet")):
        found = duckdb.execute("select id from read_parquet(?, hive_partitioning=false)", [str(file)]).fetchall()
        rows += [row[0] for row in found]
    return rows


operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 12)),
        st.tuples(st.just("settle"), st.just(0)),
        st.tuples(st.just("close"), st.booleans()),
        st.tuples(st.just("settle_close"), st.booleans()),
        st.tuples(st.just("take"), st.booleans()),
        st.tuples(st.just("settle_take"), st.booleans()),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(
    steps=operations,
    partitions=st.integers(1, 4),
    partitioned=st.booleans(),
    group_rows=st.integers(1, 20),
    group_bytes=st.sampled_from([1, 700, 5_000, 1 << 20]),
    file_bytes=st.sampled_from([1, 3_000, 1 << 20]),
    open_files=st.integers(1, 3),
    buffered=st.sampled_from([1, 2_000, 1 << 20]),
    spilled=st.sampled_from([0, 5_000, 1 << 30]),
)
@example(  # a commit of nothing, while the open file holds the tail
    steps=[("write", 3), ("take", True), ("write", 3), ("settle_take", True)],
    partitions=1,
    partitioned=False,
    group_rows=1,
    group_bytes=1 << 20,
    file_bytes=1 << 20,
    open_files=1,
    buffered=1 << 20,
    spilled=0,
)
def test_rows_read_back_are_those_of_the_model(
    steps, partitions, partitioned, group_rows, group_bytes, file_bytes, open_files, buffered, spilled
) -> None:
    """For any writes, STATEs and commits: what is committed is what a list would hold, in order in each partition."""
    schema = stream()
    options = ParquetOptions(row_group_rows=group_rows, row_group_bytes=group_bytes, max_file_bytes=file_bytes)
    budget = WriteBudget(open_files, buffered, spilled_bytes=spilled)
    with TemporaryDirectory() as directory:
        lake = open_lake(Path(directory))
        fields = parse_partition_by(["p"], "orders") if partitioned else ()
        writer = StreamWriter(lake, schema, options, budget, fields)
        committed: list[int] = []
        settled: list[int] = []
        tail: list[int] = []
        next_id = 0
        for step, argument in [*steps, ("close", False)]:
            if step == "write":
                ids = range(next_id, next_id + argument)
                next_id += argument
                writer.write(batch(schema, ids, partitions))
                tail += ids
            if step.startswith("settle"):
                writer.settle()
                settled, tail = settled + tail, []
            if step in ("close", "settle_close"):
                assert writer.rows_in == len(settled) + len(tail)
                staged = writer.close(tail=argument)
                new = settled + tail if argument else settled
                assert sum(file.rows for file in staged) == len(new)
                assert budget.open_files == 0
                assert budget.buffered == 0
                assert budget.spill.bytes == 0
                lake.commit(staged, None)
                committed += new
                settled, tail = [], []
            if step in ("take", "settle_take"):
                if argument:
                    writer.flush_settled()
                staged = writer.take_settled()
                assert sum(file.rows for file in staged) == len(settled)
                lake.commit(staged, None)
                committed += settled
                settled = []
            assert budget.open_files <= open_files
        for number in range(partitions if partitioned else 1):
            folder = Path(directory, "orders", f"p=p{number}") if partitioned else Path(directory, "orders")
            expected = [i for i in committed if i % partitions == number] if partitioned else committed
            assert read_partition(folder) == expected
        assert not list(Path(directory, "_melisma").rglob("*.tmp"))
        lake.close()


def test_partitions_read_back_by_duckdb_and_polars(root: Path) -> None:
    """Null, empty, unicode, slashes, percent signs and spaces in partition values come back as they went in."""
    values = [None, "", "é/ü", "100%", "a=b c", "%41", "A", "a", "😀", "..", ".", "x\ny", "\x00"]
    schema = stream()
    lake = open_lake(root)
    writer = StreamWriter(lake, schema, ParquetOptions(), WriteBudget(), parse_partition_by(["p"], "orders"))
    writer.write(pa.record_batch([list(range(len(values))), values], schema=schema.arrow))
    lake.commit(writer.close(tail=True), b"{}")
    expected = list(enumerate(values))
    glob = f"{root}/orders/**/*.parquet"
    query = "select id, p from read_parquet(?, hive_partitioning=true) order by id"
    assert duckdb.execute(query, [glob]).fetchall() == expected
    frame = pl.scan_parquet(f"{root}/orders", hive_partitioning=True).sort("id").select("id", "p").collect()
    assert frame.rows() == expected


def test_a_partition_column_leaves_the_file_and_a_derived_one_keeps_its_source(root: Path) -> None:
    """`month(at)` makes at_month=2024-01 and keeps `at`; `p` is in the directory's name only; years 1 and 9999 work."""
    schema = stream(id=INTEGER, p=STRING, at=ColumnType(Kind.TIMESTAMP, pa.timestamp("us", "UTC")))
    lake = open_lake(root)
    fields = parse_partition_by({"*": ["p", {"column": "at", "transform": "month"}]}, "orders")
    writer = StreamWriter(lake, schema, ParquetOptions(), WriteBudget(), fields)
    texts = ["0001-01-01T00:00:00", "9999-12-31T23:59:59", "2024-01-31T23:59:59", None]
    at = pa.array(texts).cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    writer.write(pa.record_batch([pa.array([1, 2, 3, 4]), pa.array(["x"] * 4), at], schema=schema.arrow))
    lake.commit(writer.close(tail=True), None)
    assert sorted(p.name for p in (root / "orders/p=x").iterdir()) == [
        "at_month=0001-01",
        "at_month=2024-01",
        "at_month=9999-12",
        "at_month=__HIVE_DEFAULT_PARTITION__",
    ]
    [file] = (root / "orders/p=x/at_month=2024-01").iterdir()
    assert pl.read_parquet(file, hive_partitioning=False).columns == ["id", "at"]


def test_many_streams_and_partitions_keep_files_and_memory_bounded(root: Path) -> None:
    """300 streams of four partitions, a record at a time: never more open files or buffered bytes than allowed."""
    lake, budget = open_lake(root), WriteBudget(max_open_files=8, buffered_bytes=200_000)
    schemas = [stream(f"s{i}") for i in range(300)]
    fields = parse_partition_by(["p"], "s")
    writers = [StreamWriter(lake, schema, ParquetOptions(), budget, fields) for schema in schemas]
    for round_ in range(4):
        for writer, schema in zip(writers, schemas, strict=True):
            writer.write(batch(schema, range(round_, round_ + 1), 4))
            assert budget.open_files <= 8
            assert budget.buffered <= 200_000
            writer.settle()
    staged = [file for writer in writers for file in writer.close(tail=False)]
    lake.commit(staged, None)
    count = duckdb.execute("select count(*) from read_parquet(?)", [f"{root}/*/*/*.parquet"]).fetchone()
    assert count == (1200,)


def test_streams_that_take_turns_get_one_file_each(root: Path) -> None:
    """Rows that wait are set aside on the disk: memory is as bounded, and 300 streams make 300 files, not thousands."""
    lake, budget = open_lake(root), WriteBudget(max_open_files=8, buffered_bytes=200_000, spilled_bytes=1 << 30)
    schemas = [stream(f"s{i}") for i in range(300)]
    writers = [StreamWriter(lake, schema, ParquetOptions(), budget) for schema in schemas]
    set_aside = 0
    for round_ in range(6):
        for writer, schema in zip(writers, schemas, strict=True):
            writer.write(batch(schema, range(round_ * 20, round_ * 20 + 20)))
            assert budget.buffered <= 200_000
            writer.settle()
        set_aside = max(set_aside, budget.spill.bytes)
    assert set_aside > 0
    staged = [file for writer in writers for file in writer.close(tail=False)]
    assert len(staged) == 300
    assert budget.spill.bytes == 0
    lake.commit(staged, None)
    for name in ("s0", "s299"):
        assert read_partition(root / name) == list(range(120))


def test_a_full_disk_for_what_is_set_aside_is_no_fault(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are written to their files instead."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    lake, budget = open_lake(root), WriteBudget(buffered_bytes=2_000, spilled_bytes=1 << 30)
    writer = StreamWriter(lake, stream(), ParquetOptions(), budget)
    for start in range(0, 200, 10):
        writer.write(batch(stream(), range(start, start + 10)))
    lake.commit(writer.close(tail=True), None)
    assert read_partition(root / "orders") == list(range(200))


def test_small_batches_are_joined(root: Path) -> None:
    """Ten thousand batches of one row, each settled, become one row group."""
    lake, schema = open_lake(root), stream()
    writer = StreamWriter(lake, schema, ParquetOptions(), WriteBudget())
    for i in range(10_000):
        writer.write(batch(schema, range(i, i + 1)))
        writer.settle()
    lake.commit(writer.close(tail=False), None)
    assert read_partition(root / "orders") == list(range(10_000))
    [file] = (root / "orders").iterdir()
    groups = duckdb.execute("select num_row_groups from parquet_file_metadata(?)", [str(file)]).fetchone()
    assert groups == (1,)


def test_files_roll_by_size(root: Path) -> None:
    """A file is finished soon after it has reached its size."""
    lake, schema = open_lake(root), stream()
    options = ParquetOptions(compression="none", row_group_rows=1_000, max_file_bytes=20_000)
    writer = StreamWriter(lake, schema, options, WriteBudget())
    for start in range(0, 20_000, 1_000):
        writer.write(batch(schema, range(start, start + 1_000), 1_000))
    staged = writer.close(tail=True)
    assert len(staged) > 1
    assert all(file.bytes < 60_000 for file in staged)
    lake.commit(staged, None)
    assert [(root / file.path).stat().st_size for file in staged] == [file.bytes for file in staged]
    assert read_partition(root / "orders") == list(range(20_000))


def test_abandon_leaves_nothing(root: Path) -> None:
    """After `abandon` no staged file remains, and the writer may be used again."""
    lake, schema = open_lake(root), stream()
    writer = StreamWriter(lake, schema, ParquetOptions(row_group_rows=2, max_file_bytes=1), WriteBudget())
    writer.write(batch(schema, range(9)))
    assert list(root.rglob("*.tmp"))
    writer.abandon()
    assert not list(root.rglob("*.tmp"))
    writer.write(batch(schema, range(3)))
    lake.commit(writer.close(tail=True), None)
    assert read_partition(root / "orders") == [0, 1, 2]


def test_an_object_without_members_is_refused_at_once(root: Path) -> None:
    """Parquet cannot hold it; the error names the column, and no file is begun."""
    schema = stream(id=INTEGER, o=ColumnType(Kind.STRUCT, pa.struct([])))
    with pytest.raises(BadSchema, match='stream "orders", column "o"'):
        StreamWriter(open_lake(root), schema, ParquetOptions(), WriteBudget())


def test_an_existing_file_is_never_overwritten(root: Path) -> None:
    """If a final path is taken, publishing fails, and of a commit with it nothing is to be seen."""
    lake, schema = open_lake(root), stream()
    writer = StreamWriter(lake, schema, ParquetOptions(row_group_rows=2, max_file_bytes=1), WriteBudget())
    writer.write(batch(schema, range(4)))
    staged = writer.close(tail=True)
    taken = root / staged[-1].path
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"theirs")
    store = open_store(str(root), None, distribution="melisma-test")
    with pytest.raises(StorageError, match="exists already"):
        store.publish(staged[-1].handle)
    assert taken.read_bytes() == b"theirs"
    with pytest.raises(StorageError, match="exists already"):
        lake.commit(staged, b'{"a": 1}')
    # The name bears this run's id: what stands there passes for its own, now and at the next start.
    assert list(taken.parent.iterdir()) == []
    assert lake.committed_state() == b"{}"
