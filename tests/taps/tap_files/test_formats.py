"""The formats: every type of each one's own writer, what others write, and what damaged files come to."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import msgpack
import msgspec
import openpyxl
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import zstandard
from tests.taps.tap_files import samples

from melisma.errors import BadFile, ConfigError

GOLDEN = Path(__file__).parents[2] / "golden" / "formats"

FORMATS: dict[str, tuple[str, Callable[[Path], None], dict[str, Any]]] = {
    "parquet": ("a.parquet", samples.write_parquet, {}),
    "arrow-file": ("a.arrow", samples.write_arrow_file, {}),
    "arrow-stream": ("a.arrows", samples.write_arrow_stream, {}),
    "avro": ("a.avro", samples.write_avro, {}),
    "msgpack": ("a.msgpack", samples.write_msgpack, {}),
    "json": ("a.json", samples.write_json, {}),
    "excel": ("a.xlsx", samples.write_excel, {"excel": {"sheet": "All"}}),
    "protobuf": ("a.pb", lambda path: _write_protobuf(path), {}),
}


def _write_protobuf(path: Path, messages: list[bytes] | None = None) -> None:
    path.write_bytes(samples.delimited(messages or samples.protobuf_messages()))
    path.with_name("all.desc").write_bytes(samples.descriptors().SerializeToString())


def stream(name: str, folder: Path) -> dict[str, Any]:
    """The stream's settings beside its path."""
    if name == "protobuf":
        return {
            "format": "protobuf",
            "protobuf": {"descriptor_set": str(folder / "all.desc"), "message": "shop.v1.All"},
        }
    return FORMATS[name][2]


@pytest.mark.parametrize("name", FORMATS)
def test_every_type_is_mapped_as_the_golden_says(files: Any, name: str) -> None:
    """Column by column: its JSON Schema, then the values as they stand in the records."""
    file, write, _ = FORMATS[name]
    write(files.folder / file)
    output = files.sync(files.config(file, stream(name, files.folder)))
    lines = []
    encode = msgspec.json.Encoder(decimal_format="number").encode
    for column, node in output.schema.items():
        lines.append(f"{column}: {json.dumps(node)}")
        lines += [f"    {encode(record[column]).decode()}" for record in output.records]
    found = "\n".join(lines) + "\n"
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("MELISMA_WRITE_GOLDENS"):
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


# Selection and resume.


def _rows(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "text": f"row {number}" * 20, "at": samples.MOMENT} for number in range(count)]


def _write_rows(name: str, path: Path, count: int) -> None:
    rows = _rows(count)
    table = pa.Table.from_pylist(rows)
    if name == "parquet":
        pa.parquet.write_table(table, path, row_group_size=1000)
    elif name == "arrow-file":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=1000)
    elif name == "arrow-stream":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=1000)
    elif name == "avro":
        schema = {
            "type": "record",
            "name": "R",
            "fields": [
                {"name": "id", "type": "long"},
                {"name": "text", "type": "string"},
                {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            ],
        }
        with path.open("wb") as file:
            fastavro.writer(file, schema, rows)
    elif name == "msgpack":
        path.write_bytes(b"".join(msgpack.packb(row, datetime=True) for row in rows))
    elif name == "json":
        path.write_text(json.dumps(rows, default=str, indent=1))
    elif name == "excel":
        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet()
        sheet.append(["id", "text", "at"])
        for row in rows:
            sheet.append([row["id"], row["text"], row["at"].replace(tzinfo=None)])
        book.save(path)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "protobuf"])
def test_a_run_that_ended_within_a_file_goes_on_where_it_was(files: Any, name: str) -> None:
    """From the first STATE that a run wrote within the file: the rows that came after it, no more and no less."""
    count = 20_000
    file = FORMATS[name][0]
    _write_rows(name, files.folder / file, count)
    config = files.config(file)
    output = files.sync(config)
    assert [record["id"] for record in output.records] == list(range(count))
    within = [
        m["value"] for m in output.messages if m["type"] == "STATE" and m["value"]["bookmarks"]["s"].get("partial")
    ]
    place = [m.get("value") for m in output.messages].index(within[0])
    before = sum(message["type"] == "RECORD" for message in output.messages[:place])
    assert 0 < before < count
    assert [record["id"] for record in files.sync(config, within[0]).records] == list(range(before, count))


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "protobuf"])
def test_columns_that_are_not_selected_are_left_out(files: Any, name: str) -> None:
    """And what the catalog does not know is, too."""
    file = FORMATS[name][0]
    _write_rows(name, files.folder / file, 10)
    config = files.config(file, add_file_metadata=True)
    catalog = files.catalog(config)
    entry = catalog["streams"][0]
    for each in entry["metadata"]:
        if each["breadcrumb"] == ["properties", "text"]:
            each["metadata"]["selected"] = False
    del entry["schema"]["properties"]["at"]
    found = files.sync(config, catalog=catalog).records
    assert [record["id"] for record in found] == list(range(10))
    assert set(found[0]) == {"id", "_sdc_source_file", "_sdc_source_lineno", "_sdc_source_mtime"}
    first = 2 if name == "excel" else 1
    numbers = list(range(first, first + 10))
    assert [record["_sdc_source_lineno"] for record in found] == numbers
    for each in entry["metadata"]:
        if each["breadcrumb"] and each["breadcrumb"] != ["properties", "_sdc_source_lineno"]:
            each["metadata"].update(selected=False, inclusion="available")
    assert files.sync(config, catalog=catalog).records == [{"_sdc_source_lineno": number} for number in numbers]


# Damage.


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_an_error_that_names_it_or_its_rows_are_right(files: Any, name: str) -> None:
    """Cut off or with bytes changed, anywhere: one plain error with the file's name, or the rows that were there.

    Formats without checksums cannot tell a changed value; those are left out of the second half.
    """
    file, write, _ = FORMATS[name]
    path = files.folder / file
    write(path)
    config = files.config(file, stream(name, files.folder))
    catalog = files.catalog(config)
    whole = path.read_bytes()
    rows = files.sync(config, catalog=catalog).records
    source = random.Random(name)
    for cut in sorted(source.sample(range(1, len(whole)), min(len(whole) - 1, 25))):
        path.write_bytes(whole[:cut])
        try:
            assert files.sync(config, catalog=catalog).records == rows[:1], cut
        except (BadFile, ConfigError) as error:
            assert file in str(error), cut
    for place in sorted(source.sample(range(len(whole)), min(len(whole), 25))):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            files.sync(config, catalog=catalog)
        except (BadFile, ConfigError) as error:
            assert file in str(error), place


def test_a_fault_says_where_it_is(files: Any) -> None:
    """Byte and record, as far as the format has them; never the value."""
    good = msgpack.packb({"a": 1})
    cases: list[tuple[str, bytes, str]] = [
        ("a.msgpack", good + good[:-1], r"record 2, after byte 4, is cut off"),
        ("a.msgpack", good + b"\xc1", r"record 2, after byte 4, is not MessagePack"),
        ("a.msgpack", good + b"\x01", r"record 2, after byte 5, is not a map"),
        ("a.json", b'[{"a":1},{"a":', r"at byte \d+: it is cut off within a record"),
        ("a.json", b'[{"a":1} {"a":2}]', r"neither a comma nor the array's end"),
        ("a.json", b'[{"a":1},5]', r"record 2 of the array is not an object"),
        ("a.json", b'{"a":1}', r"no array of records"),
        ("a.json", b'[{"a":1},{"a":tru}]', r"record 2.*is not JSON"),
        ("a.arrow", b"ARROW1\0\0 no", r"not an Arrow IPC file"),
        ("a.avro", b"Obj\x01 no", r"not an Avro file"),
        ("a.xlsx", b"PK no", r"not an Excel workbook"),
    ]
    for name, data, message in cases:
        files.write(name, data)
        with pytest.raises(BadFile, match=message) as caught:
            files.sync(files.config(name))
        assert name in str(caught.value)


# JSON documents.


def test_a_records_path_leads_to_the_array(files: Any) -> None:
    """Through objects, past anything else; escapes, braces within strings and any layout do no harm."""
    document = {
        "meta": {"items": [1, {"x": "]}"}], "n": 1.5e3},
        "d\u00e4ta": {"items": [{"id": 1, "t": 'a"}]\\'}, {"id": 2}]},
    }
    for text in (
        json.dumps(document),
        json.dumps(document, indent=3),
        "\ufeff" + json.dumps(document, ensure_ascii=False),
    ):
        files.write("a.json", text)
        found = files.sync(files.config("a.json", {"json": {"records_path": "däta.items"}})).records
        assert found == [{"id": 1, "t": 'a"}]\\'}, {"id": 2, "t": None}]
    with pytest.raises(BadFile, match='names "none", which the document does not have'):
        files.sync(files.config("a.json", {"json": {"records_path": "meta.none"}}))


def test_a_document_is_read_in_pieces_of_any_size(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cutting of elements does not depend on where the reads end."""
    rows = [{"id": n, "t": '}{"][\\' * n, "o": {"a": [{"b": "x,"}, {"b": "]"}]}} for n in range(6)]
    files.write("a.json", json.dumps({"skip": ['"', [1]], "r": rows}, indent=1))
    config = files.config("a.json", {"json": {"records_path": "r"}})
    for size in range(1, 40):
        monkeypatch.setattr("melisma.formats.json_document._READ_BYTES", size)
        assert files.sync(config).records == rows


# What others write.


def frame() -> dict[str, list[Any]]:
    """What every library is given."""
    return {"id": [1, 2], "name": ["ä", None], "price": [0.1, 2.5], "at": [dt.datetime(2024, 2, 29, 12), None]}


WANTED = [
    {"id": 1, "name": "ä", "price": Decimal("0.1"), "at": "2024-02-29T12:00:00Z"},
    {"id": 2, "name": None, "price": Decimal("2.5"), "at": None},
]


def _duckdb(path: Path, options: str) -> None:
    duckdb.from_arrow(pa.table(frame())).query("t", f"COPY (SELECT * FROM t) TO '{path}' ({options})")


OTHERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "pandas parquet": ("a.parquet", lambda path: pd.DataFrame(frame()).to_parquet(path)),
    "pandas feather": ("a.feather", lambda path: pd.DataFrame(frame()).to_feather(path)),
    "pandas json": ("a.json", lambda path: pd.DataFrame(frame()).to_json(path, orient="records", date_format="iso")),
    "pandas excel": ("a.xlsx", lambda path: pd.DataFrame(frame()).to_excel(path, index=False)),
    "pandas csv": ("a.csv", lambda path: pd.DataFrame(frame()).to_csv(path, index=False)),
    "polars parquet": ("a.parquet", lambda path: pl.DataFrame(frame()).write_parquet(path)),
    "polars ipc": ("a.arrow", lambda path: pl.DataFrame(frame()).write_ipc(path, compression="zstd")),
    "polars ipc stream": ("a.arrows", lambda path: pl.DataFrame(frame()).write_ipc_stream(path, compression="lz4")),
    "polars avro": ("a.avro", lambda path: pl.DataFrame(frame()).write_avro(path, compression="deflate")),
    "polars json": ("a.json", lambda path: pl.DataFrame(frame()).write_json(path)),
    "polars csv": ("a.csv", lambda path: pl.DataFrame(frame()).write_csv(path)),
    "duckdb parquet": ("a.parquet", lambda path: _duckdb(path, "FORMAT parquet, COMPRESSION zstd")),
    "duckdb json": ("a.json", lambda path: _duckdb(path, "FORMAT json, ARRAY true")),
    "duckdb tsv": ("a.tsv", lambda path: _duckdb(path, "FORMAT csv, HEADER, DELIMITER '\t'")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_others_write_is_read_right(files: Any, name: str) -> None:
    """pandas, Polars and DuckDB, each with the formats that it writes."""
    file, write = OTHERS[name]
    write(files.folder / file)
    found = files.sync(files.config(file)).records

    def plain(record: dict[str, Any]) -> dict[str, Any]:
        at = record["at"]
        return record | {"at": at and dt.datetime.fromisoformat(at).strftime("%Y-%m-%dT%H:%M:%SZ")}

    assert [plain(record) for record in found] == WANTED


def test_a_compressed_arrow_stream_is_read(files: Any) -> None:
    """A stream goes through a codec; a file, which is read from its end, does not."""
    samples.write_arrow_stream(files.folder / "a")
    data = (files.folder / "a").read_bytes()
    files.write("b.arrows.zst", zstandard.compress(data))
    assert files.sync(files.config("b.arrows.zst")).records[0]["uint64"] == 2**64 - 1
    samples.write_arrow_file(files.folder / "a")
    files.write("c.arrow.zst", zstandard.compress((files.folder / "a").read_bytes()))
    with pytest.raises(BadFile, match="cannot be read through another compression"):
        files.sync(files.config("c.arrow.zst"))


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz", "zstandard", "snappy", "lz4"])
def test_avro_codecs_and_nanoseconds(files: Any, codec: str) -> None:
    """Every codec of the specification; what Python's times cannot hold comes through as well."""
    kind = {"type": "long", "logicalType": "timestamp-nanos"}
    schema = {"type": "record", "name": "R", "fields": [{"name": "at", "type": ["null", kind]}]}
    with (files.folder / "a.avro").open("wb") as file:
        fastavro.writer(file, schema, [{"at": 1_500_000_123}, {"at": None}], codec=codec)
    found = files.sync(files.config("a.avro")).records
    assert found == [{"at": "1970-01-01T00:00:01.500000123Z"}, {"at": None}]


def test_avro_names_of_ours_are_the_sources_own_again(files: Any) -> None:
    """target-avro changes names that Avro cannot have, and says so in the schema; also within records."""
    inner = {"type": "record", "name": "I", "fields": [{"name": "c_d", "melisma.name": "c d", "type": "int"}]}
    fields = [{"name": "a_b", "melisma.name": "a b", "type": "int"}, {"name": "o", "type": inner}]
    with (files.folder / "a.avro").open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "R", "fields": fields}, [{"a_b": 1, "o": {"c_d": 2}}])
    assert files.sync(files.config("a.avro")).records == [{"a b": 1, "o": {"c d": 2}}]


# Excel.


def test_sheets_rows_and_columns_of_text(files: Any) -> None:
    """By name or number; numbers in a column of text are text; what does not fit is an error of its row."""
    book = openpyxl.Workbook()
    book.active.append(["skipped"])
    second = book.create_sheet("Zweites")
    for row in (["title"], ["id", None, "code"], [1, 2.5, "A"], [None, None, None], [2, None, 7]):
        second.append(row)
    book.save(files.folder / "a.xlsx")
    config = files.config("a.xlsx", {"excel": {"sheet": 2, "skip_rows": 1}}, add_file_metadata=True)
    found = files.sync(config).records
    assert [(r["id"], r["column_2"], r["code"], r["_sdc_source_lineno"]) for r in found] == [
        (1, Decimal("2.5"), "A", 3),
        (2, None, "7", 5),
    ]
    catalog = files.catalog(config)
    second["A5"] = 2.5
    book.save(files.folder / "a.xlsx")
    with pytest.raises(BadFile, match=r'a\.xlsx", column "id": row 5: the value'):
        files.sync(config, catalog=catalog)
    with pytest.raises(ConfigError, match=r"names no sheet.*Its sheets are: Sheet, Zweites"):
        files.sync(files.config("a.xlsx", {"excel": {"sheet": "Drittes"}}))


def test_a_workbook_that_was_made_to_fill_the_memory_is_refused(files: Any) -> None:
    """Before anything of it is unpacked: a megabyte stands for a gigabyte of blanks."""
    book = openpyxl.Workbook()
    book.active.append(["id"])
    book.save(files.folder / "a.xlsx")
    with (
        zipfile.ZipFile(files.folder / "a.xlsx", "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("xl/bomb.xml", "w", force_zip64=True) as file,
    ):
        for _ in range(1_025):
            file.write(bytes(1 << 20))
    assert (files.folder / "a.xlsx").stat().st_size < 2 << 20
    with pytest.raises(BadFile, match=r"a\.xlsx.*the workbook unpacks to 107\d{7} bytes"):
        files.sync(files.config("a.xlsx"))


def test_times_without_an_offset_in_excel_are_in_the_time_zone(files: Any) -> None:
    """As in CSV."""
    book = openpyxl.Workbook()
    book.active.append(["at"])
    book.active.append([dt.datetime(2024, 7, 1, 12)])
    book.save(files.folder / "a.xlsx")
    found = files.sync(files.config("a.xlsx", timezone="Europe/Vienna")).records
    assert found == [{"at": "2024-07-01T10:00:00Z"}]


# Protobuf.


def test_protobuf_resumes_and_says_where_a_message_is_damaged(files: Any) -> None:
    """A message count is the place; a time beyond microseconds is refused, not cut."""
    messages = samples.protobuf_messages(20_000)
    _write_protobuf(files.folder / "a.pb", messages)
    config = files.config("a.pb", stream("protobuf", files.folder))
    output = files.sync(config)
    assert len(output.records) == 20_000
    partial = [m["value"] for m in output.messages if m["type"] == "STATE" and m["value"]["bookmarks"]["s"]["partial"]]
    position = partial[0]["bookmarks"]["s"]["partial"]["position"]
    assert len(files.sync(config, partial[0]).records) == 20_000 - position
    data = samples.delimited(messages[:1])
    (files.folder / "a.pb").write_bytes(data + data[:-1])
    with pytest.raises(BadFile, match=rf"message 2, at byte {len(data) + 2}, is cut off"):
        files.sync(config)
    with pytest.raises(ConfigError, match=r"is not in the descriptor set.*shop\.v1\.All"):
        wrong = stream("protobuf", files.folder)
        wrong["protobuf"]["message"] = "shop.v1.None"
        files.sync(files.config("a.pb", wrong))


# Hive partitions.


def test_partitions_are_columns_and_only_new_ones_are_read(files: Any) -> None:
    """Typed as in CSV; null by Hive's own name; the folder's value goes before the file's; names are decoded."""
    table = pa.table(
        {"id": [1, 2, 3], "day": [dt.date(2024, 1, 1), dt.date(2024, 1, 2), None], "code": ["007", "a b/c", "x"]}
    )
    copy = f"COPY (SELECT * FROM t) TO '{files.folder}' (FORMAT parquet, PARTITION_BY (day, code))"
    duckdb.from_arrow(table).query("t", copy)
    config = files.config("**/*.parquet", {"hive_partitions": True})
    output = files.sync(config)
    assert output.schema["day"] == {"type": ["string", "null"], "format": "date"}
    assert sorted(output.records, key=lambda r: r["id"]) == [
        {"id": 1, "day": "2024-01-01", "code": "007"},
        {"id": 2, "day": "2024-01-02", "code": "a b/c"},
        {"id": 3, "day": None, "code": "x"},
    ]
    catalog = files.catalog(config)
    new = files.folder / "day=2024-01-03" / "code=z"
    new.mkdir(parents=True)
    pa.parquet.write_table(pa.table({"id": [4], "code": ["in the file"]}), new / "n.parquet")
    assert files.sync(config, output.state, catalog).records == [{"id": 4, "day": "2024-01-03", "code": "z"}]
    new = files.folder / "day=soon" / "code=z"
    new.mkdir(parents=True)
    pa.parquet.write_table(pa.table({"id": [5]}), new / "n.parquet")
    with pytest.raises(BadFile, match=r'day=soon.*column "day": the value in the folder\'s name does not fit'):
        files.sync(config, output.state, catalog)


def test_partition_columns_take_a_set_type(files: Any) -> None:
    """Also in formats whose files say their own; and without selection they cost nothing."""
    files.write("y=2024/a.csv", "id\n1\n")
    config = files.config("*/a.csv", {"hive_partitions": True, "column_types": {"y": "string"}})
    assert files.sync(config).records == [{"id": 1, "y": "2024"}]
    assert files.sync(files.config("*/a.csv", {"hive_partitions": True})).records == [{"id": 1, "y": 2024}]
    assert files.sync(files.config("*/a.csv")).records == [{"id": 1}]


# Settings.


def test_an_option_of_another_format_is_refused(files: Any) -> None:
    """It would have no effect."""
    files.write("a.csv", "id\n1\n")
    with pytest.raises(ConfigError, match=r"streams\[0\]\.excel.*is for files of that format"):
        files.sync(files.config("a.csv", {"excel": {"sheet": 1}}))


def test_a_missing_part_says_what_to_install(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the extra's name, of this distribution."""
    import sys

    files.write("a.xlsx", b"")
    for module in ("melisma_tap_files.formats.excel", "melisma.formats.excel"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(ConfigError.__mro__[1], match=r"melisma-tap-files\[excel\]"):
        files.sync(files.config("a.xlsx"))


def test_memory_of_a_document_does_not_grow_with_it(files: Any) -> None:
    """A block of records at a time is held, whatever the document's size: what is not read yet is not loaded."""
    from melisma.formats.blocks import Place
    from melisma.formats.json_document import JsonDocumentReader

    data = b"[" + b",".join(b'{"id":%d,"t":"%s"}' % (n, b"x" * 1000) for n in range(20_000)) + b"]"
    file = io.BytesIO(data)
    blocks = JsonDocumentReader(file, (), where="a.json", stream="s").blocks(Place(), 1 << 20)
    next(blocks)
    assert file.tell() < 4 << 20
