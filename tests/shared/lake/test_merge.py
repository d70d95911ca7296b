"""Merging by key: readers see what a dictionary would hold, whatever the types, files, partitions and crashes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melisma.arrow.types import ColumnType, Field, Kind, StreamSchema
from melisma.errors import BadSchema
from melisma.formats.parquet import ParquetOptions
from melisma.lake import merge
from melisma.lake.changes import UpsertWriter
from melisma.lake.keys import KeySet
from melisma.lake.lake import FileLake
from melisma.lake.partition import PartitionField, parse_partition_by
from melisma.lake.writer import StreamWriter, WriteBudget
from melisma.storage.filesystem import open_store

MOMENT = pa.timestamp("us", "UTC")
KINDS = {
    "integer": ColumnType(Kind.INTEGER, pa.int64()),
    "uint64": ColumnType(Kind.INTEGER, pa.uint64()),
    "number": ColumnType(Kind.NUMBER, pa.float64()),
    "decimal": ColumnType(Kind.DECIMAL, pa.decimal128(20, 4)),
    "string": ColumnType(Kind.STRING, pa.string()),
    "boolean": ColumnType(Kind.BOOLEAN, pa.bool_()),
    "timestamp": ColumnType(Kind.TIMESTAMP, MOMENT),
    "date": ColumnType(Kind.DATE, pa.date32()),
    "time": ColumnType(Kind.TIME, pa.time64("us")),
    "binary": ColumnType(Kind.BINARY, pa.binary()),
}


def stream(keys: Sequence[str] = ("id",), **columns: str) -> StreamSchema:
    """A stream whose columns are of these kinds."""
    fields = tuple(Field(name, KINDS[kind]) for name, kind in columns.items())
    root = ColumnType(Kind.STRUCT, pa.struct([(f.name, f.type.arrow) for f in fields]), fields=fields)
    return StreamSchema("orders", root, tuple(keys), {"type": "object"})


def open_lake(root: Path, key_bytes: int = merge.KEY_BYTES) -> FileLake:
    """A run that upserts the stream."""
    lake = FileLake(open_store(str(root), None, distribution="melisma-test"), key_bytes=key_bytes)
    lake.recover()
    lake.start(None, announces=False)
    lake.decide("orders", "upsert")
    return lake


class Lake:
    """A lake, run by run; `upsert` is a whole run with one commit."""

    def __init__(self, root: Path, key_bytes: int = merge.KEY_BYTES, **options: int) -> None:
        self.root, self._key_bytes = root, key_bytes
        self._options = ParquetOptions(**options)

    def upsert(
        self,
        *batches: tuple[StreamSchema, list[dict[str, Any]]],
        partition_by: Sequence[PartitionField] = (),
        hard_delete: bool = False,
    ) -> None:
        """Merge rows in one commit; a schema that differs from the one before has a writer of its own."""
        lake = open_lake(self.root, self._key_bytes)
        budget, staged = WriteBudget(), []
        for schema, rows in batches:

            def open_writer(schema: StreamSchema = schema) -> StreamWriter:
                return StreamWriter(lake, schema, self._options, budget, partition_by)

            writer = UpsertWriter(schema, budget, open_writer, hard_delete=hard_delete)
            for start in range(0, len(rows), 3):
                writer.write(pa.RecordBatch.from_pylist(rows[start : start + 3], schema=schema.arrow))
            writer.settle()
            staged += writer.take_settled()
        lake.commit(staged, b'{"a": 1}')
        assert budget.buffered == 0
        lake.end()
        lake.close()

    def files(self) -> list[Path]:
        """The data files, by name."""
        return sorted(self.root.glob("orders/**/*.parquet"))

    def rows(self, columns: str = "*") -> list[tuple[Any, ...]]:
        """What DuckDB reads."""
        if not self.files():
            return []
        query = f"SELECT {columns} FROM read_parquet(?, union_by_name=true, hive_partitioning=true) ORDER BY ALL"  # noqa: S608
        return list(duckdb.execute(query, [f"{self.root}/orders/**/*.parquet"]).fetchall())


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(tmp_path / "lake")


VALUES: dict[str, list[Any]] = {
    "integer": [-(2**63), -1, 0, 1, 2**63 - 1],
    "uint64": [0, 1, 2**64 - 1],
    "number": [-1e300, -0.5, 0.0, 1.5, 1e300],
    "decimal": [Decimal("-1.0000"), Decimal("0.0001"), Decimal("1234567890123456.7891")],
    "string": ["", "a", "A", "ä", "a\x00b", "x" * 5000, "0b8c3f3a-6d5e-4f57-9d0f-3f5b0a8a1c11"],
    "boolean": [True, False],
    "timestamp": [dt.datetime(1, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 2, 29, 1, 2, 3, 4, dt.UTC)],
    "date": [dt.date(1, 1, 1), dt.date(2024, 2, 29), dt.date(9999, 12, 31)],
    "time": [dt.time(0), dt.time(23, 59, 59, 999999)],
    "binary": [b"", b"\x00", b"\xff\x00"],
}


@pytest.mark.parametrize("kind", VALUES)
def test_keys_of_every_type_replace_their_own_rows_only(lake: Lake, kind: str) -> None:
    """Each value is its own key: the second write of every other one replaces that row, and leaves the rest."""
    schema = stream(id=kind, v="integer")
    values = VALUES[kind]
    lake.upsert((schema, [{"id": value, "v": number} for number, value in enumerate(values)]))
    lake.upsert((schema, [{"id": value, "v": 100 + number} for number, value in enumerate(values)][::2]))
    expected = [100 + number if number % 2 == 0 else number for number in range(len(values))]
    assert [row[0] for row in lake.rows("v")] == sorted(expected)
    frame = pl.read_parquet(f"{lake.root}/orders/*.parquet")
    assert dict(zip(frame["v"].to_list(), frame["id"].to_list(), strict=True)) == dict(
        zip(expected, values, strict=True)
    )


def test_the_last_of_duplicate_keys_wins_within_a_batch_and_across_schemas(lake: Lake) -> None:
    """Order of arrival decides, also when the schema changes between two rows of one commit."""
    schema, wider = stream(id="integer", v="integer"), stream(id="integer", v="integer", w="string")
    rows = [{"id": number % 4, "v": number} for number in range(40)]
    lake.upsert((schema, rows), (wider, [{"id": 1, "v": 50, "w": "x"}]), (schema, [{"id": 2, "v": 60}]))
    assert lake.rows("id, v, w") == [(0, 36, None), (1, 50, "x"), (2, 60, None), (3, 39, None)]


def test_negative_zero_is_zero(lake: Lake) -> None:
    """The two zeros of a number are one key, within a batch and against the lake."""
    schema = stream(id="number", v="integer")
    lake.upsert((schema, [{"id": 0.0, "v": 1}, {"id": -0.0, "v": 2}]))
    assert lake.rows("v") == [(2,)]
    lake.upsert((schema, [{"id": 0.0, "v": 3}]))
    assert lake.rows("v") == [(3,)]


def test_composite_keys_are_told_apart(lake: Lake) -> None:
    """("a", "bc") and ("ab", "c") are two keys; each part counts."""
    schema = stream(("a", "b", "c"), a="string", b="string", c="integer", v="integer")
    rows = [{"a": a, "b": b, "c": c, "v": 0} for a, b in (("a", "bc"), ("ab", "c"), ("", "abc")) for c in (1, 2)]
    lake.upsert((schema, rows))
    lake.upsert((schema, [{"a": "ab", "b": "c", "c": 2, "v": 1}, {"a": "ab", "b": "bc", "c": 1, "v": 2}]))
    assert len(lake.rows()) == 7
    assert {row for row in lake.rows("a, b, c, v") if row[3]} == {("ab", "c", 2, 1), ("ab", "bc", 1, 2)}


@pytest.mark.parametrize(
    ("old", "new", "before", "after"),
    [
        ("integer", "number", [1, 2, -3], [1.0, 2.5, -3.0]),
        ("integer", "decimal", [1, 2, -3], [Decimal("1.0000"), Decimal("2.5000"), Decimal("-3.0000")]),
        ("uint64", "decimal", [1, 2, 3], [Decimal("1.0000"), Decimal("2.5000"), Decimal("3.0000")]),
        ("integer", "uint64", [1, 2, 3], [1, 5, 3]),
        ("number", "decimal", [0.1, 2.0, 3.0], [Decimal("0.1000"), Decimal("2.5000"), Decimal("3.0000")]),
        ("date", "timestamp", [dt.date(2024, 1, n) for n in (1, 2, 3)], [
            dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
            dt.datetime(2024, 1, 2, 12, tzinfo=dt.UTC),
            dt.datetime(2024, 1, 3, tzinfo=dt.UTC),
        ]),
    ],
)  # fmt: skip
def test_a_key_whose_type_widened_meets_its_old_rows(
    lake: Lake, old: str, new: str, before: list[Any], after: list[Any]
) -> None:
    """Keys are compared in the wider type: the first and third replace their rows, the second is a new key."""
    lake.upsert((stream(id=old, v="integer"), [{"id": value, "v": n} for n, value in enumerate(before)]))
    lake.upsert((stream(id=new, v="integer"), [{"id": value, "v": 10 + n} for n, value in enumerate(after)]))
    found = sorted(
        v for path in lake.files() for (v,) in duckdb.execute("SELECT v FROM read_parquet(?)", [str(path)]).fetchall()
    )
    assert found == [1, 10, 11, 12]


def test_a_key_whose_type_cannot_be_compared_is_refused(lake: Lake) -> None:
    """Nothing is changed, and the error names the stream, the column and both types."""
    lake.upsert((stream(id="integer", v="integer"), [{"id": 1, "v": 1}]))
    with pytest.raises(BadSchema, match=r'stream "orders", column "id": .*from string to int64'):
        lake.upsert((stream(id="string", v="integer"), [{"id": "1", "v": 2}]))
    assert lake.rows("id, v") == [(1, 1)]
    assert not list(lake.root.rglob("*.tmp"))


def test_only_files_that_hold_a_key_are_written_anew(lake: Lake) -> None:
    """A file whose range does not touch, or touches but lacks the keys, stays as it is; an emptied one goes."""
    schema = stream(id="integer", v="integer")
    before: list[Path] = []
    for ids in ([1, 2], [10, 20], [100]):
        lake.upsert((schema, [{"id": number, "v": 0} for number in ids]))
        before += [path for path in lake.files() if path not in before]
    first, second, third = before
    lake.upsert((schema, [{"id": 15, "v": 1}, {"id": 2, "v": 1}, {"id": 100, "v": 1}]))
    assert second in lake.files()
    assert first not in lake.files()
    assert third not in lake.files()
    assert lake.rows("id, v") == [(1, 0), (2, 1), (10, 0), (15, 1), (20, 0), (100, 1)]


def test_a_row_moves_when_its_partition_changes(lake: Lake) -> None:
    """The old row goes from its partition; the key may itself be a partition column, with any text in it."""
    schema = stream(id="integer", p="string")
    by_p = parse_partition_by(["p"], "orders")
    lake.upsert((schema, [{"id": 1, "p": "a/b"}, {"id": 2, "p": "a/b"}]), partition_by=by_p)
    lake.upsert((schema, [{"id": 1, "p": None}]), partition_by=by_p)
    assert lake.rows("id, p") == [(1, None), (2, "a/b")]


@pytest.mark.parametrize("kind", ["string", "integer", "boolean", "decimal", "date"])
def test_a_partition_column_may_be_part_of_the_key(lake: Lake, kind: str) -> None:
    """Its value stands in the path only, and is compared all the same."""
    schema = stream(("p", "id"), p=kind, id="integer", v="integer")
    values = [value for value in VALUES[kind] if not isinstance(value, str) or len(value) < 100]
    by_p = parse_partition_by(["p"], "orders")
    lake.upsert((schema, [{"p": value, "id": n, "v": 0} for value in values for n in (1, 2)]), partition_by=by_p)
    lake.upsert((schema, [{"p": value, "id": 1, "v": 1} for value in values]), partition_by=by_p)
    assert [row[0] for row in lake.rows("v")] == [0] * len(values) + [1] * len(values)


def test_old_files_keep_their_columns(lake: Lake) -> None:
    """A file that is written anew has the columns that it had, nested ones too, and so have readers of both."""
    old = stream(id="integer", gone="string")
    lake.upsert((old, [{"id": n, "gone": f"g{n}"} for n in range(3)]))
    lake.upsert((stream(id="integer", new="decimal"), [{"id": 1, "new": Decimal("1.5000")}]))
    assert lake.rows("id, gone, new") == [(0, "g0", None), (1, None, Decimal("1.5000")), (2, "g2", None)]


def test_deletes_are_soft_or_hard(lake: Lake) -> None:
    """A row with `_sdc_deleted_at` replaces the old one and keeps the mark, or removes it and is not stored."""
    schema = stream(id="integer", v="integer", _sdc_deleted_at="timestamp")
    gone = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    lake.upsert((schema, [{"id": n, "v": n} for n in range(3)]))
    lake.upsert((schema, [{"id": 1, "v": 1, "_sdc_deleted_at": gone}]))
    assert lake.rows("id, _sdc_deleted_at IS NULL") == [(0, True), (1, False), (2, True)]
    rows = [{"id": 0, "_sdc_deleted_at": gone}, {"id": 1, "_sdc_deleted_at": gone}, {"id": 1, "v": 9}]
    lake.upsert((schema, rows), hard_delete=True)
    assert lake.rows("id, v") == [(1, 9), (2, 2)]
    lake.upsert((schema, [{"id": n, "_sdc_deleted_at": gone} for n in (1, 2)]), hard_delete=True)
    assert lake.files() == []


keys = st.tuples(st.integers(0, 6), st.sampled_from(["a", "b", "ab", ""]))
changes = st.lists(
    st.tuples(keys, st.one_of(st.none(), st.integers(0, 99)), st.sampled_from(["p", "q", None])), max_size=14
)


@settings(max_examples=25, deadline=None)
@given(
    runs=st.lists(st.tuples(changes, changes, st.booleans()), min_size=1, max_size=4),
    key_bytes=st.sampled_from([40, 200, merge.KEY_BYTES]),
    partitioned=st.booleans(),
    file_bytes=st.sampled_from([1, 1 << 20]),
)
def test_the_lake_holds_what_a_dictionary_would(runs, key_bytes, partitioned, file_bytes) -> None:
    """Random batches, deletes, cuts at a STATE and runs that die uncommitted, in ranges of a few keys at a time."""
    schema = stream(("a", "b"), a="integer", b="string", v="integer", p="string", _sdc_deleted_at="timestamp")
    gone = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    fields = parse_partition_by(["p"], "orders") if partitioned else ()
    options = ParquetOptions(row_group_rows=4, max_file_bytes=file_bytes)
    model: dict[tuple[int, str], tuple[int, str | None]] = {}
    with TemporaryDirectory() as directory:
        for settled, tail, dies in runs:
            lake = open_lake(Path(directory), key_bytes)
            budget = WriteBudget(buffered_bytes=2_000)
            writer = UpsertWriter(
                schema,
                budget,
                lambda lake=lake, budget=budget: StreamWriter(lake, schema, options, budget, fields),
                hard_delete=True,
            )
            for part in (settled, tail):
                for (a, b), v, p in part:
                    row = {"a": a, "b": b, "v": v, "p": p, "_sdc_deleted_at": gone if v is None else None}
                    writer.write(pa.RecordBatch.from_pylist([row], schema=schema.arrow))
                if not dies:
                    # The tail of the first part is settled by the second: two commits, each cut exactly.
                    if part is settled:
                        writer.settle()
                        continue
                    lake.commit(writer.take_settled(), b'{"a": 1}')
                    writer.settle()
                    lake.commit(writer.take_settled(), b'{"a": 2}')
                    for key, v, p in settled + tail:
                        model.pop(key, None)
                        if v is not None:
                            model[key] = (v, p)
            lake.close()
            assert writer.rows == 0 or dies
        found = Lake(Path(directory)).rows("a, b, v, p")
        assert sorted(found, key=str) == sorted(((*key, *value) for key, value in model.items()), key=str)


def test_a_set_of_keys_knows_its_members() -> None:
    """Exactly the members match, also where the parts of others are all there, and a null matches nothing."""
    keys = KeySet("s", ["a", "b"], [pa.array([1, 2, 3]), pa.array(["x", "y", "x"])])
    found = keys.matches([pa.array([1, 1, 2, 3, 4, None]), pa.array(["x", "y", "y", "x", "x", "x"])])
    assert found.to_pylist() == [True, False, True, True, False, False]
    assert keys.may_touch({"a": pa.array([3, 9])})
    assert not keys.may_touch({"a": pa.array([4, 9])})
    assert not keys.may_touch({"a": pa.array([1, 9]), "b": pa.array(["a", "w"])})


def test_files_on_an_object_store_are_merged_too(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On S3 files are read by ranges and written anew as objects; those that they replace are gone."""
    for name, value in s3_server.credentials.items():
        monkeypatch.setenv(name, value)
    url, options = f"s3://{s3_server.new_bucket()}/some/lake", {"endpoint_url": s3_server.endpoint}
    schema = stream(id="integer", v="integer")
    found: list[tuple[int, int]] = []
    for run in range(3):
        lake = FileLake(open_store(url, options, distribution="melisma-test"))
        lake.recover()
        lake.start(None, announces=False)
        lake.decide("orders", "upsert")
        budget = WriteBudget()

        def open_writer(lake: FileLake = lake, budget: WriteBudget = budget) -> StreamWriter:
            return StreamWriter(lake, schema, ParquetOptions(), budget)

        writer = UpsertWriter(schema, budget, open_writer, hard_delete=False)
        rows = [{"id": number, "v": run} for number in range(run, run + 3)]
        writer.write(pa.RecordBatch.from_pylist(rows, schema=schema.arrow))
        writer.settle()
        lake.commit(writer.take_settled(), b'{"a": 1}')
        store = open_store(url, options, distribution="melisma-test")
        listed = {file.path for file in store.glob("orders/*.parquet")}
        assert listed == {file.path for file in lake.live_files("orders")}
        found = [row for path in listed for row in pl.read_parquet(store.read_bytes(path)).select("id", "v").rows()]
        lake.end()
        lake.close()
    assert sorted(found) == [(0, 0), (1, 1), (2, 2), (3, 2), (4, 2)]
