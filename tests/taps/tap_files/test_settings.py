"""Settings, discovery, selection and errors, as a user meets them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import subprocess
import zipfile
from decimal import Decimal
from typing import Any

import brotli
import cramjam
import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from melisma.errors import BadFile, CatalogError, ConfigError
from melisma.storage.codecs import COMPRESSIONS
from melisma_tap_files.settings import CONFIG


def zipped(text: bytes) -> bytes:
    """A zip archive of one file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.csv", text)
    return buffer.getvalue()


def test_types_are_inferred_once_and_fixed_by_the_catalog(files: Any) -> None:
    """A value that does not fit later is an error; with the catalog as it was, though discovery would now differ."""
    files.write("a.csv", "id,zip\n1,12345\n")
    config = files.config("*.csv")
    catalog = files.catalog(config)
    files.write("b.csv", "id,zip\n2,01234\n")
    with pytest.raises(BadFile, match=r'b\.csv", column "zip", line 2: the value is not an integer'):
        files.sync(config, catalog=catalog)
    assert files.sync(config).records == [{"id": 1, "zip": "12345"}, {"id": 2, "zip": "01234"}]


def test_discovery_looks_at_the_first_file_and_the_newest(files: Any) -> None:
    """Columns and types of both count; with infer_rows 0 those of every file and row."""
    files.write("a.csv", "id,x\n1,5\n", mtime=1000)
    files.write("b.csv", "id,x\n2,half\n", mtime=2000)
    files.write("c.csv", "id,x,y\n3,0.5,true\n", mtime=3000)
    found = files.catalog(files.config("*.csv"))["streams"][0]["schema"]["properties"]
    assert found["x"]["type"] == ["number", "null"]
    assert found["y"]["type"] == ["boolean", "null"]
    found = files.catalog(files.config("*.csv", infer_rows=0))["streams"][0]["schema"]["properties"]
    assert found["x"]["type"] == ["string", "null"]


def test_column_types_override_what_is_inferred(files: Any) -> None:
    """In CSV and JSON Lines, members of objects by their path."""
    files.write("a.csv", "id,total,code\n1,1.10,5\n")
    types = {"total": "decimal(9,2)", "code": "string"}
    output = files.sync(files.config("*.csv", {"column_types": types}))
    assert output.records == [{"id": 1, "total": Decimal("1.10"), "code": "5"}]
    assert output.schema["total"] == {"type": ["number", "null"], "precision": 9, "scale": 2}
    files.write("a.jsonl", '{"o":{"n":5,"m":1},"any":1}\n{"o":{"n":6.5},"any":"x"}\n')
    output = files.sync(files.config("*.jsonl", {"column_types": {"o.n": "decimal(9,1)"}}))
    assert output.records == [
        {"o": {"n": Decimal("5.0"), "m": 1}, "any": "1"},
        {"o": {"n": Decimal("6.5"), "m": None}, "any": '"x"'},
    ]
    assert output.schema["any"]["contentMediaType"] == "application/json"
    with pytest.raises(ConfigError, match="nothing"):
        files.sync(files.config("*.csv", {"column_types": {"nothing": "string"}}))


def test_parquet_types_are_kept_exactly(files: Any) -> None:
    """Decimals, nested values and times; a later file may lack a column, one more is left out with a warning."""
    first = pa.table(
        {
            "d": pa.array([Decimal("12345678901234567890.12")], pa.decimal128(38, 2)),
            "l": [[{"a": 1}]],
            "t": pa.array([1_500_000], pa.timestamp("us")),
            "u": pa.array([2**64 - 1], pa.uint64()),
        }
    )
    pq.write_table(first, files.folder / "a.parquet")
    config = files.config("*.parquet", timezone="Europe/Vienna")
    catalog = files.catalog(config)
    pq.write_table(first.drop_columns(["u"]).append_column("new", [["x"]]), files.folder / "b.parquet")
    records = files.sync(config, catalog=catalog).records
    wanted = {"d": Decimal("12345678901234567890.12"), "l": [{"a": 1}], "t": "1969-12-31T23:00:01.500Z"}
    assert records == [{**wanted, "u": 2**64 - 1}, {**wanted, "u": None}]
    pq.write_table(pa.table({"d": ["text"]}), files.folder / "c.parquet")
    with pytest.raises(BadFile, match=r'c\.parquet", column "d": its type is string, which is not what the catalog'):
        files.sync(config, catalog=catalog)


def test_selection_leaves_columns_unread(files: Any) -> None:
    """A deselected CSV column is not even parsed: what does not fit in it does no harm."""
    files.write("a.csv", "id,x\n1,5\n")
    config = files.config("*.csv")
    catalog = files.catalog(config)
    files.write("a.csv", "id,x\n1,five\n")
    for entry in catalog["streams"][0]["metadata"]:
        if entry["breadcrumb"] == ["properties", "x"]:
            entry["metadata"]["selected"] = False
    output = files.sync(config, catalog=catalog)
    assert output.records == [{"id": 1}]
    assert list(output.schema) == ["id"]
    for entry in catalog["streams"][0]["metadata"]:
        if not entry["breadcrumb"]:
            entry["metadata"]["selected"] = False
    assert files.sync(config, catalog=catalog).messages == []


def test_each_record_can_say_where_it_comes_from(files: Any) -> None:
    """File, line and time of change, in every format."""
    path = files.write("a.csv", "id\n1\n2\n", mtime=1000.5)
    output = files.sync(files.config("*.csv", add_file_metadata=True))
    assert output.records[1] == {
        "id": 2,
        "_sdc_source_file": str(path),
        "_sdc_source_lineno": 3,
        "_sdc_source_mtime": "1970-01-01T00:16:40.500Z",
    }


PACKED = {
    "a.csv.gz": ("gzip", gzip.compress),
    "a.csv.zst": ("zstd", zstandard.compress),
    "a.csv.lz4": ("lz4", lz4.frame.compress),
    "a.csv.br": ("brotli", brotli.compress),
    "a.csv.sz": ("snappy", lambda text: bytes(cramjam.snappy.compress(text))),
    "a.csv.bz2": ("bz2", bz2.compress),
    "a.csv.xz": ("xz", lzma.compress),
    "a.csv.zip": ("zip", zipped),
}


@pytest.mark.parametrize("name", PACKED)
def test_compressed_files_are_read_as_they_are(files: Any, name: str) -> None:
    """Every codec by the name's ending, the format too, and by its own name; once, until the file changes."""
    codec, pack = PACKED[name]
    text = b"id\n1\n"
    files.write(name, pack(text))
    files.write("plain", pack(text))
    assert set(COMPRESSIONS) == {"infer", "none", *(codec for codec, _ in PACKED.values())}
    output = files.sync(files.config(name))
    assert output.records == [{"id": 1}]
    assert files.sync(files.config(name), state=output.state).records == []
    entry = {"path": str(files.folder / "plain"), "name": "s", "format": "csv", "compression": codec}
    assert files.sync({"streams": [entry]}).records == [{"id": 1}]


def test_a_compressed_file_that_is_cut_off_is_one_error(files: Any) -> None:
    """With the file, and where it ends."""
    files.write("a.csv.gz", gzip.compress(b"id\n" + b"1\n" * 9999)[:40])
    with pytest.raises(BadFile, match=r'file ".*a.csv.gz": the gzip data is cut off: the file ends after 40 bytes'):
        files.sync(files.config("a.csv.gz"))


def test_a_decompression_bomb_is_refused(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the setting `max_expansion`; at its discovery already."""
    monkeypatch.setattr("melisma.storage.decoding._FREE_EXPANSION", 1 << 20)
    files.write("a.csv.gz", gzip.compress(b"id\n" + b"1\n" * (1 << 20)))
    with pytest.raises(BadFile, match="expands to over 20 times its size"):
        files.sync(files.config("a.csv.gz", max_expansion=20))
    assert len(files.sync(files.config("a.csv.gz", max_expansion=0)).records) == 1 << 20


def test_a_column_that_only_some_files_have(files: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Absent: null. Not in the catalog: left out, counted, and said."""
    files.write("a.csv", "id,x\n1,a\n")
    config = files.config("*.csv")
    catalog = files.catalog(config)
    files.write("b.csv", "id,new\n2,b\n3,c\n")
    output = files.sync(config, catalog=catalog)
    assert output.records == [{"id": 1, "x": "a"}, {"id": 2, "x": None}, {"id": 3, "x": None}]
    assert 'column "new": is in the files (2 rows of this run) but not in the catalog' in caplog.text


def test_no_file_is_an_error_in_discovery_and_a_warning_in_a_sync(files: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The pattern is shown."""
    files.write("a.csv", "id\n1\n")
    catalog = files.catalog(files.config("*.csv"))
    with pytest.raises(ConfigError, match=r'setting "streams\[0\].path": no file matches ".*none/\*.csv"'):
        files.catalog(files.config("none/*.csv"))
    assert files.sync(files.config("none/*.csv"), catalog=catalog).records == []
    assert "no file matches its path" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replication_key": "id"}, "it has a replication key, but files have none"),
        ({"replication_method": "LOG_BASED"}, "files cannot be replicated by LOG_BASED"),
    ],
)
def test_a_catalog_that_asks_for_what_files_do_not_have(files: Any, change: Any, message: str) -> None:
    """A replication key is refused, since it would have no effect."""
    files.write("a.csv", "id\n1\n")
    config = files.config("*.csv")
    catalog = files.catalog(config)
    catalog["streams"][0].update(change)
    with pytest.raises(CatalogError, match=message):
        files.sync(config, catalog=catalog)


@pytest.mark.parametrize(
    ("stream", "settings", "message"),
    [
        ({"path": "data"}, {}, r'"streams\[0\].format": is not set, and the path\'s ending does not tell it'),
        ({"key_properties": ["no"]}, {}, 'names "no", which is no column'),
        ({"csv": {"encoding": "klingon"}}, {}, "is not a known encoding"),
        ({"csv": {"delimiter": '"'}}, {}, "uses one character for two of"),
        ({"column_types": {"id": "money"}}, {}, "unknown type name"),
        ({}, {"timezone": "Mars/Olympus"}, "is not a known time zone"),
    ],
)
def test_settings_that_cannot_work(files: Any, stream: Any, settings: Any, message: str) -> None:
    """Each is named, with what to do."""
    files.write("a.csv", "id\n1\n")
    with pytest.raises(ConfigError, match=message):
        files.sync(files.config("*.csv", stream, **settings))


def test_the_executable_says_in_one_line_what_is_wrong(files: Any) -> None:
    """Exit code 3 for a bad file, 2 for a bad setting; no traceback and no value."""
    files.write("a.csv", "id,x\n1,secret\n2\n")
    done = files.execute(files.config("*.csv"))
    assert done.returncode == 3
    assert "line 3: the row has 1 fields where the header has 2" in done.stderr
    assert done.stderr.count("| ERROR") == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert "secret" not in done.stderr
    done = files.execute({"streams": [{"name": "s"}]})
    assert done.returncode == 2
    assert 'setting "streams[0]": "path" must be set' in done.stderr


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--state", "", "--state: the file is empty. Did the command that should write it fail?"),
        ("--state", '{"bookmarks"', "--state: the file is not JSON"),
        ("--state", "[1]", "--state: the file does not hold a JSON object"),
        ("--state", '{"orders": 5}', 'setting "state": has no "bookmarks", so it is not of this tap'),
        ("--state", '{"bookmarks": 5}', 'setting "state, bookmarks": must be of type "object"'),
        ("--state", '{"bookmarks": {"s": 5}}', 'setting "state, bookmarks.s": must be of type "object"'),
        ("--catalog", "", "--catalog: the file is empty"),
        ("--catalog", "{}", 'setting "catalog": "streams" must be set'),
        ("--catalog", '{"streams": [{"stream": "s"}]}', '"tap_stream_id" and "schema" must be set'),
        ("--catalog", '{"streams": [{"tap_stream_id": "s", "schema": 5}]}', 'setting "catalog, streams[0].schema"'),
        (
            "--catalog",
            '{"streams": [{"tap_stream_id": "s", "schema": {}, "metadata": [{"breadcrumb": []}]}]}',
            'setting "catalog, streams[0].metadata[0]": "metadata" must be set',
        ),
    ],
)
def test_a_state_or_catalog_that_is_none(files: Any, option: str, text: str, message: str) -> None:
    """One line, exit code 2, and nothing is sent: a tap that started anew instead would send everything again."""
    files.write("a.csv", "id\n1\n")
    path = files.write("../given.json", text)
    done = files.execute(files.config("*.csv"), option, str(path))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = [line for line in done.stderr.splitlines() if "| ERROR" in line]
    assert message in line


def test_a_stream_that_the_catalog_does_not_have(files: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is not read, and a warning says so."""
    files.write("a.csv", "id\n1\n")
    catalog = files.catalog(files.config("*.csv"))
    catalog["streams"][0]["tap_stream_id"] = "other"
    assert files.sync(files.config("*.csv"), catalog=catalog).messages == []
    assert 'stream "s": is not in the catalog' in caplog.text


@pytest.mark.parametrize(
    ("text", "options", "rows"),
    [
        ('id;n\n1;"x;y"\n2;NA\n', {"delimiter": ";", "null_values": ["NA"]}, [(1, "x;y"), (2, None)]),
        ("id,n\n1,'a,b'\n2,'it''s'\n", {"quote": "'"}, [(1, "a,b"), (2, "it's")]),
        ('id,n\n1,"a\n', {"quote": ""}, [(1, '"a')]),
        ('id,n\n1,"a\\"b"\n', {"escape": "\\"}, [(1, 'a"b')]),
        ("id,n\n1,é\n".encode("latin-1"), {"encoding": "latin-1"}, [(1, "é")]),
        ("id,n\n1,😀\n".encode("utf-16"), {"encoding": "utf-16"}, [(1, "😀")]),
        ("1,x\n2,y\n", {"header": False}, [(1, "x"), (2, "y")]),
        ("1,x\n2,y\n", {"header": ["k", "v"]}, [(1, "x"), (2, "y")]),
        ("# a\n# b\nid,n\n5,x\n", {"skip_rows": 2}, [(5, "x")]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_csv_options(files: Any, text: str | bytes, options: dict[str, Any], rows: list[tuple[Any, ...]]) -> None:
    """Each changes how the file is read, in discovery and in the sync."""
    files.write("a.csv", text)
    output = files.sync(files.config("a.csv", {"csv": options}))
    assert [tuple(record.values()) for record in output.records] == rows
    header = options.get("header", True)
    names = header if isinstance(header, list) else ["id", "n"] if header else ["column_1", "column_2"]
    assert list(output.schema) == names


def test_format_and_compression_can_be_set(files: Any) -> None:
    """For names that do not tell them."""
    files.write("a.data", gzip.compress(b'{"id": 1}\n'))
    stream = {"format": "jsonl", "compression": "gzip"}
    assert files.sync(files.config("a.data", stream)).records == [{"id": 1}]


def test_times_without_an_offset_are_in_the_zone_that_is_set(files: Any) -> None:
    """In CSV and in JSON Lines; those with an offset keep theirs."""
    files.write("a.csv", "at\n2024-01-31 10:00\n2024-07-31T10:00:00+02:00\n")
    files.write("a.jsonl", '{"at": "2024-01-31T10:00:00"}\n{"at": "2024-07-31T10:00:00+02:00"}\n')
    for name in ("a.csv", "a.jsonl"):
        found = files.sync(files.config(name, timezone="Europe/Vienna")).records
        assert [each["at"] for each in found] == ["2024-01-31T09:00:00Z", "2024-07-31T08:00:00Z"]


def test_stream_maps_and_flattening_work_as_in_any_sdk_tap(files: Any) -> None:
    """Rows go through singer-sdk's own path then, with the same values."""
    files.write("a.jsonl", '{"id": 1, "o": {"a": 1, "b": [1]}}\n{"id": 2, "o": {"a": 2, "b": []}}\n')
    flat = files.sync(files.config("a.jsonl", flattening_enabled=True, flattening_max_depth=1))
    assert flat.records == [{"id": 1, "o__a": 1, "o__b": "[1]"}, {"id": 2, "o__a": 2, "o__b": "[]"}]
    maps = {"s": {"__alias__": "t", "__filter__": "id > 1", "double": "int(id * 2)", "o": None}}
    mapped = files.sync(files.config("a.jsonl", stream_maps=maps))
    assert mapped.records == [{"id": 2, "double": 4}]
    assert {message.get("stream") for message in mapped.messages} == {"t", None}
    assert files.sync(files.config("a.jsonl"), mapped.state).records == []


def test_a_signal_ends_the_run_with_its_own_exit_code(files: Any) -> None:
    """143 after SIGTERM, in the middle of a file; whole lines up to there."""
    files.write("a.csv", "id\n" + "".join(f"{n}\n" for n in range(2_000_000)))
    process = subprocess.Popen(
        files.command(files.config("*.csv")), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert '"type":"SCHEMA"' in process.stdout.readline()
    process.terminate()
    process.stdout.read()
    assert process.wait() == 143


def test_naive_times_within_parquet_objects_need_utc(files: Any) -> None:
    """They are refused with another zone, rather than read as something else."""
    times = pa.array([[0]], pa.list_(pa.timestamp("us")))
    pq.write_table(pa.table({"l": times}), files.folder / "a.parquet")
    assert files.sync(files.config("*.parquet")).records == [{"l": ["1970-01-01T00:00:00Z"]}]
    with pytest.raises(BadFile, match='column "l": it holds times without an offset within objects or arrays'):
        files.sync(files.config("*.parquet", timezone="Europe/Vienna"))


def test_the_executable_discovers_tests_and_syncs(files: Any) -> None:
    """Stdout holds the catalog, or messages, and nothing else."""
    files.write("a.csv", "id\n1\n2\n3\n")
    config = files.config("*.csv")
    catalog = files.folder.parent / "catalog.json"
    found = files.execute(config, "--discover")
    catalog.write_text(found.stdout, encoding="utf-8")
    entry = json.loads(found.stdout)["streams"][0]
    assert entry["metadata"][-1]["metadata"]["table-key-properties"] == []
    test = [json.loads(line) for line in files.execute(config, "--test").stdout.splitlines()]
    assert [m["record"] for m in test if m["type"] == "RECORD"] == [{"id": 1}]
    sync = files.execute(config, "--catalog", str(catalog))
    assert sync.returncode == 0
    assert [json.loads(line)["type"] for line in sync.stdout.splitlines()] == ["SCHEMA", *["RECORD"] * 3, "STATE"]


def test_every_setting_has_a_title_and_a_description() -> None:
    """Those of streams and of CSV files too."""

    def check(node: dict[str, Any]) -> None:
        for setting in node.get("properties", {}).values():
            assert setting["title"]
            assert setting["description"]
            check(setting)
            check(setting.get("items", {}))

    check(CONFIG)
