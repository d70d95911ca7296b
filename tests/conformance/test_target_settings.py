"""Every setting of target-parquet does what its README says, and what a user of any singer-sdk target expects."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from forking import ForkedTarget, Outcome

Message = dict[str, Any]

PROPERTIES = {
    "id": {"type": "integer"},
    "at": {"type": ["null", "string"], "format": "date-time"},
    "day": {"type": ["null", "string"], "format": "date"},
    "note": {"type": ["null", "string"]},
}
RECORDS = [
    {"id": 1, "at": "2024-01-01T00:30:00+01:00", "day": "2024-02-29", "note": "x"},
    {"id": 2, "at": None, "day": None, "note": None},
    {"id": 3, "at": "0001-01-01T05:00:00Z", "day": "9999-12-31", "note": ""},
]
NULL = "__HIVE_DEFAULT_PARTITION__"
NESTED = {
    "id": {"type": "integer"},
    "o": {
        "type": "object",
        "properties": {
            "a": {"type": "object", "properties": {"b": {"type": "number"}}},
            "l": {"type": "array", "items": {"type": "integer"}},
        },
    },
}


def messages(records: Iterable[Message], properties: Message, stream: str = "s") -> bytes:
    """SCHEMA, RECORDs and a STATE."""
    schema = {"type": "object", "properties": properties}
    lines: list[Message] = [{"type": "SCHEMA", "stream": stream, "schema": schema, "key_properties": ["id"]}]
    lines += [{"type": "RECORD", "stream": stream, "record": record} for record in records]
    lines += [{"type": "STATE", "value": {"done": True}}]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


class Lake:
    """Runs of target-parquet into one lake, and what DuckDB reads there."""

    def __init__(self, target: ForkedTarget, folder: Path) -> None:
        self._target, self._folder = target, folder
        self.root = folder / "lake"

    def run(self, data: bytes, *arguments: str, env: dict[str, str] | None = None, **settings: Any) -> Outcome:
        """One run."""
        if not arguments:
            (self._folder / "config.json").write_text(json.dumps({"destination_path": "lake", **settings}))
            arguments = ("--config", "config.json")
        return self._target.run(self._folder, *arguments, data=data, env=env)

    def load(self, data: bytes, **settings: Any) -> Outcome:
        """One run that goes well."""
        outcome = self.run(data, **settings)
        assert outcome.exit_code == 0, outcome.stderr
        assert json.loads(outcome.stdout) == {"done": True}
        return outcome

    def files(self, stream: str = "s") -> list[Path]:
        """A stream's files, in order of writing."""
        return sorted((self.root / stream).rglob("*.parquet"), key=lambda path: path.name)

    def groups(self) -> list[list[int]]:
        """The rows of each row group of each file."""
        found = [pq.read_metadata(file) for file in self.files()]
        return [[each.row_group(n).num_rows for n in range(each.num_row_groups)] for each in found]

    def rows(self, columns: str = "*", stream: str = "s") -> list[tuple[Any, ...]]:
        """A stream's rows."""
        files = [str(path) for path in self.files(stream)]
        rows = duckdb.read_parquet(files, hive_partitioning=True, union_by_name=True)
        return rows.project(columns).order("ALL").fetchall()


@pytest.fixture
def lake(target_parquet: ForkedTarget, tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(target_parquet, tmp_path)


@pytest.mark.parametrize(
    ("by", "directories"),
    [
        (["year(at)"], ["at_year=0001", "at_year=2023", f"at_year={NULL}"]),
        (["month(day)"], ["day_month=2024-02", "day_month=9999-12", f"day_month={NULL}"]),
        (["day(at)"], ["at_day=0001-01-01", "at_day=2023-12-31", f"at_day={NULL}"]),
        (["hour(at)"], ["at_hour=0001-01-01-05", "at_hour=2023-12-31-23", f"at_hour={NULL}"]),
        (["day"], ["day=2024-02-29", "day=9999-12-31", f"day={NULL}"]),
        (["id", "note"], ["id=1/note=x", f"id=2/note={NULL}", "id=3/note="]),
        ({"s": ["note"], "*": ["nothing"]}, ["note=", f"note={NULL}", "note=x"]),
        ({"other": ["nothing"]}, ["."]),
    ],
    ids=str,
)
def test_partition_by(lake: Lake, by: Any, directories: list[str]) -> None:
    """Columns, and the year, month, day or hour in UTC of times and dates, for all streams or some; no row is lost."""
    lake.load(messages(RECORDS, PROPERTIES), partition_by=by)
    assert sorted(str(file.parent.relative_to(lake.root / "s")) for file in lake.files()) == directories
    assert lake.rows("id::INTEGER") == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("codec", "level", "named"),
    [
        ("zstd", 19, "ZSTD"),
        ("snappy", None, "SNAPPY"),
        ("gzip", 9, "GZIP"),
        ("lz4", None, "LZ4"),
        ("brotli", 4, "BROTLI"),
        ("none", None, "UNCOMPRESSED"),
    ],
)
def test_compression(lake: Lake, codec: str, level: int | None, named: str) -> None:
    """Each codec is in the file, and DuckDB reads it."""
    lake.load(messages(RECORDS, PROPERTIES), compression=codec, **({"compression_level": level} if level else {}))
    (file,) = lake.files()
    assert {pq.read_metadata(file).row_group(0).column(n).compression for n in range(4)} == {named}
    assert lake.rows("id") == [(1,), (2,), (3,)]


def test_a_higher_compression_level_makes_smaller_files(lake: Lake) -> None:
    """Of the same rows."""
    notes = [f"{n * 2654435761 % 4294967296:x} {n % 7} some words" for n in range(20_000)]
    records = [{"id": n, "note": note} for n, note in enumerate(notes)]
    for stream, level in (("fast", 1), ("small", 19)):
        lake.load(messages(records, PROPERTIES, stream), compression_level=level)
    (fast,), (small,) = lake.files("fast"), lake.files("small")
    assert small.stat().st_size < fast.stat().st_size


@pytest.mark.parametrize(
    ("settings", "groups"),
    [
        ({}, [[20_000]]),
        ({"row_group_size_rows": 6_000}, [[6_000, 6_000, 6_000, 2_000]]),
        ({"batch_size_rows": 6_000}, [[6_000, 6_000, 6_000, 2_000]]),
        ({"batch_size_rows": 6_000, "row_group_size_rows": 15_000}, [[6_000, 6_000, 6_000, 2_000]]),
    ],
    ids=str,
)
def test_row_groups_and_files(lake: Lake, settings: Message, groups: list[list[int]]) -> None:
    """The limits in rows hold exactly; the lower one counts."""
    lake.load(messages(({"id": n, "note": f"{n:0100d}"} for n in range(20_000)), PROPERTIES), **settings)
    assert lake.groups() == groups
    assert lake.rows("count(*), count(DISTINCT id)") == [(20_000, 20_000)]


def test_max_file_size(lake: Lake) -> None:
    """A file that has reached its size is finished; the row group that is being encoded then may still go into it."""
    records = ({"id": n, "note": f"{n:0100d}"} for n in range(20_000))
    lake.load(messages(records, PROPERTIES), row_group_size_rows=2_000, max_file_size_mb=0.001)
    groups = lake.groups()
    assert [rows for file in groups for rows in file] == [2_000] * 10
    assert all(len(file) <= 2 for file in groups)


def test_row_groups_by_size(lake: Lake) -> None:
    """`row_group_size_mb` bounds what a row group holds, in Arrow's bytes: about 120 for each row here."""
    lake.load(messages(({"id": n, "note": f"{n:0100d}"} for n in range(20_000)), PROPERTIES), row_group_size_mb=0.25)
    ((*whole, _),) = lake.groups()
    assert whole
    assert all(1_000 < rows < 4_000 for rows in whole)


def test_max_open_files(lake: Lake) -> None:
    """With one file at a time, rows that take turns between partitions make more files, and none is lost."""
    records = [{"id": n, "note": f"p{n % 4}"} for n in range(40_000)]
    for stream, most in (("many", 64), ("one", 1)):
        settings = {"max_open_files": most, "partition_by": ["note"], "row_group_size_rows": 500}
        lake.load(messages(records, PROPERTIES, stream), **settings)
        assert lake.rows("count(*), count(DISTINCT id)", stream) == [(40_000, 40_000)]
    assert len(lake.files("many")) == 4
    assert len(lake.files("one")) > 4


def test_column_types(lake: Lake) -> None:
    """Overrides for one stream go before those for all; a column that is not there is refused, exit 2."""
    types = {"*": {"id": "string", "note": "string"}, "s": {"id": "decimal(20,2)"}}
    lake.load(messages(RECORDS, PROPERTIES), column_types=types)
    assert lake.rows("typeof(id), typeof(note)") == [("DECIMAL(20,2)", "VARCHAR")] * 3
    outcome = lake.run(messages(RECORDS, PROPERTIES), column_types={"s": {"nothing": "string"}})
    assert outcome.exit_code == 2
    assert outcome.log("ERROR")[0].startswith('setting "column_types.s.nothing": the stream has no such column')


def test_validate_records(lake: Lake) -> None:
    """Without validation bounds do not count; a value that its column cannot hold is still refused."""
    bounded = {**PROPERTIES, "id": {"type": "integer", "minimum": 2}}
    assert lake.run(messages(RECORDS, bounded)).exit_code == 3
    lake.load(messages(RECORDS, bounded), validate_records=False)
    assert lake.rows("id") == [(1,), (2,), (3,)]
    assert lake.run(messages([{"id": "text"}], bounded), validate_records=False).exit_code == 3


@pytest.mark.parametrize(
    ("settings", "row"),
    [
        ({"flattening_max_depth": 1}, {"id": 1, "o__a": '{"b":1.5}', "o__l": "[1,2]"}),
        ({"flattening_max_depth": 2}, {"id": 1, "o__a__b": 1.5, "o__l": "[1,2]"}),
        ({"flattening_max_depth": 2, "flattening_separator": "-"}, {"id": 1, "o-a-b": 1.5, "o-l": "[1,2]"}),
    ],
    ids=str,
)
def test_flattening(lake: Lake, settings: Message, row: Message) -> None:
    """To the depth and with the separator that are set."""
    data = messages([{"id": 1, "o": {"a": {"b": 1.5}, "l": [1, 2]}}], NESTED)
    lake.load(data, flattening_enabled=True, **settings)
    (file,) = lake.files()
    assert pq.read_table(file).to_pylist() == [row]


def test_flattening_needs_a_depth(lake: Lake) -> None:
    """Said in one line that names the setting."""
    outcome = lake.run(b"", flattening_enabled=True)
    assert outcome.exit_code == 2
    (line,) = outcome.log("ERROR")
    assert line.startswith('setting "flattening_max_depth": must be set with flattening_enabled')


def test_stream_maps_with_their_configuration(lake: Lake) -> None:
    """Expressions see `stream_map_config`; a stream gets another name, another key; another stream is left out."""
    maps = {"s": {"__alias__": "t", "shop": "config['shop']", "id": "id", "__else__": None}, "gone": None}
    data = messages(RECORDS, PROPERTIES)[:-1].rpartition(b"\n")[0] + b"\n" + messages(RECORDS, PROPERTIES, "gone")
    lake.load(data, stream_maps=maps, stream_map_config={"shop": "Wien"})
    assert lake.rows("id, shop", "t") == [(1, "Wien"), (2, "Wien"), (3, "Wien")]
    assert {path.name for path in lake.root.iterdir()} == {"_melisma", "t"}


def test_settings_from_the_environment(lake: Lake) -> None:
    """`--config=ENV` reads every kind of setting: text, number, truth, list and object."""
    environment = {
        "TARGET_PARQUET_DESTINATION_PATH": "lake",
        "TARGET_PARQUET_COMMIT_INTERVAL_MINUTES": "0.5",
        "TARGET_PARQUET_COMPRESSION_LEVEL": "7",
        "TARGET_PARQUET_ADD_RECORD_METADATA": "true",
        "TARGET_PARQUET_PARTITION_BY": '["year(at)"]',
        "TARGET_PARQUET_COLUMN_TYPES": '{"s": {"id": "number"}}',
    }
    outcome = lake.run(messages(RECORDS, PROPERTIES), "--config=ENV", env=environment)
    assert outcome.exit_code == 0, outcome.stderr
    assert lake.rows("id, at_year, _sdc_batched_at IS NOT NULL") == [
        (1.0, "2023", True),
        (2.0, None, True),
        (3.0, "0001", True),
    ]


def test_input_from_a_file(lake: Lake, tmp_path: Path) -> None:
    """`--input`, as in any singer-sdk target."""
    (tmp_path / "messages").write_bytes(messages(RECORDS, PROPERTIES))
    (tmp_path / "target.json").write_text('{"destination_path": "lake"}')
    outcome = lake.run(b"", "--config", "target.json", "--input", "messages")
    assert outcome.exit_code == 0, outcome.stderr
    assert lake.rows("id") == [(1,), (2,), (3,)]
