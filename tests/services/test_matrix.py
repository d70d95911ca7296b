"""Every format with every codec in every place: written by the target, read back by another engine and by tap-files.

What is there is fetched by another client than ours, too. The cells are in `matrix`, and so in docs/formats.md.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import cramjam
import duckdb
import fastavro
import msgpack
import polars as pl
import pyarrow as pa
import pytest
import zstandard
from matrix import CELLS, WRITTEN, Cell
from places import Place
from servers import CACHE, SFTP_KNOWN_HOSTS, SFTP_PASSWORD, SFTP_USER

from melisma.errors import BadFile
from melisma_tap_files.tap import TapFiles

sys.path.insert(0, str(Path(__file__).parents[1] / "targets"))
sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from every_type import Row, messages, same
from forking import ForkedTarget
from harness import lines

PLUGINS = {
    "target-parquet": "melisma_target_parquet.target:TargetParquet",
    "target-avro": "melisma_target_avro.target:TargetAvro",
    "target-files": "melisma_target_files.target:TargetFiles",
}
INPUT = lines(messages())

DECODERS: dict[tuple[str, str], Callable[[bytes], bytes]] = {
    ("cramjam", "gzip"): lambda data: bytes(cramjam.gzip.decompress(data)),
    ("zstandard", "zstd"): lambda data: zstandard.ZstdDecompressor().stream_reader(data).read(),
    ("pyarrow", "lz4"): lambda data: pa.CompressedInputStream(pa.BufferReader(data), "lz4").read(),
    ("pyarrow", "brotli"): lambda data: pa.CompressedInputStream(pa.BufferReader(data), "brotli").read(),
    ("cramjam", "snappy"): lambda data: bytes(cramjam.snappy.decompress(data)),
    ("cramjam", "bz2"): lambda data: bytes(cramjam.bzip2.decompress(data)),
    ("cramjam", "xz"): lambda data: bytes(cramjam.xz.decompress(data)),
}


def by_duckdb(query: str) -> Callable[[bytes, Path], list[Row]]:
    """A reader that is a query on a file."""

    def read(data: bytes, folder: Path) -> list[Row]:
        file = folder / "file"
        file.write_bytes(data)
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            relation = connection.sql(query.format(file=file))
            return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]

    return read


READERS: dict[tuple[str, str], Callable[[bytes, Path], list[Row]]] = {
    ("parquet", "DuckDB"): by_duckdb("FROM read_parquet('{file}')"),
    ("avro", "fastavro"): lambda data, _: list(fastavro.reader(io.BytesIO(data))),
    ("jsonl", "Python"): lambda data, _: [json.loads(line, parse_float=Decimal) for line in data.splitlines()],
    ("csv", "DuckDB"): by_duckdb(
        "FROM read_csv('{file}', header = true, all_varchar = true, allow_quoted_nulls = false)"
    ),
    ("msgpack", "msgpack"): lambda data, _: list(msgpack.Unpacker(io.BytesIO(data), timestamp=3)),
    ("arrow", "Polars"): lambda data, _: pl.read_ipc(io.BytesIO(data)).to_dicts(),
    ("arrow_stream", "Polars"): lambda data, _: pl.read_ipc_stream(io.BytesIO(data)).to_dicts(),
}


class Written:
    """A place, what the target of a cell has put there, and how tap-files gets there."""

    def __init__(self, cell: Cell, folder: Path, new_place: Callable[[str], Place]) -> None:
        self.cell, self.folder, self.place = cell, folder, None
        self.url, self.options = str(folder / "lake"), {}
        if cell.storage in WRITTEN and cell.storage != "local":
            self.place = new_place(cell.storage)
            self.url, self.options = self.place.url, self.place.options

    @property
    def environment(self) -> dict[str, str]:
        """Of whoever goes there."""
        return self.place.credentials if self.place else {}

    def write(self, target: ForkedTarget, data: bytes = INPUT) -> None:
        """Run the target."""
        settings = {**self.cell.format.settings, "compression": self.cell.codec, "storage_options": self.options}
        (self.folder / "config.json").write_text(json.dumps({"destination_path": self.url, **settings}))
        outcome = target.run(self.folder, "--config", "config.json", data=data, env=self.environment)
        assert outcome.exit_code == 0, outcome.stderr

    def files(self) -> list[bytes]:
        """The files' bytes, fetched by another client than ours."""
        if self.place is None:
            found = {str(path): path.read_bytes() for path in (self.folder / "lake/s").rglob("*") if path.is_file()}
        else:
            found = {key: data for key, data in self.place.objects().items() if "/lake/s/" in key}
        assert all(name.endswith(self.cell.ending) for name in found)
        return list(found.values())

    def move(self, address: str) -> None:
        """Copy the file to a server that is only read, under a name without wildcards."""
        [data] = self.files()
        name = f"{uuid.uuid4().hex}{self.cell.ending}"
        (CACHE / "data" / self.cell.storage / name).write_bytes(data)
        self.url = f"{address}/{name}"
        if self.cell.storage == "sftp":
            known = {"known_hosts_file": str(SFTP_KNOWN_HOSTS)}
            self.options = {"username": SFTP_USER, "password": SFTP_PASSWORD, **known}

    def by_tap(self) -> list[Row]:
        """What tap-files reads there."""
        path = self.url if self.cell.storage in {"sftp", "http"} else f"{self.url}/s/**/*{self.cell.ending}"
        stream: dict[str, Any] = {"name": "s", "path": path, "format": self.cell.format.tap}
        if not self.cell.format.typed:
            stream["column_types"] = {"big": "uint64", "total": "decimal(38,2)", "counts": "json"}
        config = {"streams": [stream], "storage_options": self.options}
        output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        with contextlib.redirect_stdout(output):
            TapFiles(config=config).sync_all()
        output.seek(0)
        found = (json.loads(line, parse_float=Decimal) for line in output)
        return [message["record"] for message in found if message["type"] == "RECORD"]


@pytest.fixture(scope="module")
def targets() -> Iterator[Callable[[str], ForkedTarget]]:
    """A process for each target, from which its runs are forked."""
    with contextlib.ExitStack() as stack:
        found: dict[str, ForkedTarget] = {}

        def process(name: str) -> ForkedTarget:
            if name not in found:
                found[name] = stack.enter_context(ForkedTarget(PLUGINS[name]))
            return found[name]

        yield process


def cells(*, local: bool) -> list[Cell]:
    """Those of the local disk, or all others."""
    return [cell for cell in CELLS if (cell.storage == "local") is local]


def check(cell: Cell, written: Written, folder: Path) -> None:
    """The file holds the rows, to another engine."""
    [data] = written.files()
    if cell.decoder:
        data = DECODERS[cell.decoder, cell.codec](data)
    same(READERS[cell.format.name, cell.format.reader](data, folder))


@pytest.mark.parametrize("cell", cells(local=True), ids=str)
def test_a_cell_on_the_local_disk(
    cell: Cell, targets: Callable[[str], ForkedTarget], new_place: Callable[[str], Place], tmp_path: Path
) -> None:
    """The rows come back with every type's ends exact, by the engine that the cell names and by tap-files."""
    written = Written(cell, tmp_path, new_place)
    written.write(targets(cell.format.target))
    check(cell, written, tmp_path)
    same(written.by_tap())


@pytest.mark.slow
@pytest.mark.parametrize("cell", cells(local=False), ids=str)
def test_a_cell_on_a_server(
    cell: Cell,
    targets: Callable[[str], ForkedTarget],
    new_place: Callable[[str], Place],
    service: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Likewise; from servers that are only read, by tap-files."""
    written = Written(cell, tmp_path, new_place)
    written.write(targets(cell.format.target))
    if cell.storage in WRITTEN:
        check(cell, written, tmp_path)
    else:
        written.move(service(cell.storage))
    for name, value in written.environment.items():
        monkeypatch.setenv(name, value)
    same(written.by_tap())


def many() -> bytes:
    """Some thousand rows, so that files have more than one block."""
    first, *rows, last = messages()
    copies = [{**row, "record": {**row["record"], "id": number}} for number, row in enumerate(rows * 700)]
    return lines([first, *copies, last])


UNCHECKED = {("avro", "null"), ("avro", "deflate")}
UNCHECKED |= {(name, codec) for name in ("arrow", "arrow_stream") for codec in ("none", "lz4", "zstd")}
UNCHECKED |= {(name, codec) for name in ("jsonl", "csv", "msgpack") for codec in ("none", "brotli")}
"""Without a checksum: a changed value cannot be told from another one (docs/formats.md)."""


@pytest.mark.parametrize("cell", cells(local=True), ids=str)
def test_a_damaged_file_is_an_error_with_its_name_and_place(
    cell: Cell, targets: Callable[[str], ForkedTarget], new_place: Callable[[str], Place], tmp_path: Path
) -> None:
    """Cut off in the middle: an error. Without its last byte, or with one changed: an error, or the rows as they were.

    The place is a byte, a line, a row or a record: a number that is in no path here.
    """
    written = Written(cell, tmp_path, new_place)
    written.write(targets(cell.format.target), many())
    [path] = [path for path in (tmp_path / "lake/s").rglob("*") if path.is_file()]
    whole, rows = path.read_bytes(), written.by_tap()
    assert len(rows) == 2_100

    def read(data: bytes) -> list[Row] | None:
        path.write_bytes(data)
        try:
            return written.by_tap()
        except BadFile as error:
            assert str(path) in str(error)
            assert re.search(r"(byte|bytes|line|rows?|record|batch) \d+|after \d+ bytes", str(error)), error
            return None

    assert read(whole[: len(whole) // 2]) is None
    assert read(whole[:-1]) in (None, rows)
    chance = random.Random(str(cell))
    for place in chance.sample(range(len(whole)), 5):
        found = read(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert found in (None, rows) or (cell.format.name, cell.codec) in UNCHECKED, place
