"""The matrix of what is written, where, and who reads it back: its cells, and the table of them in docs/formats.md.

`test_matrix` does what each cell says; `make docs` writes the table from the same cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CELLS", "FORMATS", "STORAGES", "Cell", "Format", "markdown"]

STORAGES: Mapping[str, str] = {
    "local": "local disk",
    "s3": "S3 (versitygw)",
    "az": "Azure (Azurite)",
    "gs": "Google (fake-gcs-server)",
    "sftp": "SFTP (asyncssh)",
    "http": "web server (http-server)",
}
"""By scheme, with the server that stands for it; those that hold no lake are given the files of a local one."""

WRITTEN = ("local", "s3", "az", "gs")

_DECODERS = {
    "none": "",
    "gzip": "cramjam",
    "zstd": "zstandard",
    "lz4": "pyarrow",
    "brotli": "pyarrow",
    "snappy": "cramjam",
    "bz2": "cramjam",
    "xz": "cramjam",
}
"""The library, other than the one that compressed it, that decompresses a whole file."""

_ENDINGS = {
    "none": "",
    "gzip": ".gz",
    "zstd": ".zst",
    "lz4": ".lz4",
    "brotli": ".br",
    "snappy": ".sz",
    "bz2": ".bz2",
    "xz": ".xz",
}


@dataclass(frozen=True)
class Format:
    """What a target writes.

    Attributes:
        reader: the engine that reads it back, other than the one that wrote it.
        codecs: the values of the target's setting `compression`.
        whole: whether the codec is around the whole file, and not within it.
        tap: tap-files' own name of the format.
        typed: whether the file says its columns' types; if not, tap-files is told some.
        settings: of the target.
    """

    name: str
    target: str
    reader: str
    codecs: tuple[str, ...]
    tap: str
    whole: bool = False
    typed: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)


_AVRO = ("null", "deflate", "snappy", "zstandard", "bzip2", "xz")
_INSIDE_ARROW = ("none", "lz4", "zstd")
_WHOLE = tuple(_DECODERS)

FORMATS = (
    Format("parquet", "target-parquet", "DuckDB", ("none", "snappy", "gzip", "zstd", "lz4", "brotli"), "parquet"),
    Format("avro", "target-avro", "fastavro", _AVRO, "avro"),
    Format("jsonl", "target-files", "Python", _WHOLE, "jsonl", True, False, {"format": "jsonl"}),
    Format("csv", "target-files", "DuckDB", _WHOLE, "csv", True, False, {"format": "csv"}),
    Format("msgpack", "target-files", "msgpack", _WHOLE, "msgpack", True, False, {"format": "msgpack"}),
    Format("arrow", "target-files", "Polars", _INSIDE_ARROW, "arrow", settings={"format": "arrow"}),
    Format("arrow_stream", "target-files", "Polars", _INSIDE_ARROW, "arrow", settings={"format": "arrow_stream"}),
)
"""Without what makes no sense: a codec around files that have one inside, and zip, which is only read."""

_BARE = {"arrow_stream": "arrows"}


@dataclass(frozen=True)
class Cell:
    """One format with one codec in one place."""

    format: Format
    codec: str
    storage: str

    def __str__(self) -> str:
        """As a test's id."""
        return f"{self.format.name}-{self.codec}-{self.storage}"

    @property
    def ending(self) -> str:
        """Of the files' names."""
        outside = _ENDINGS[self.codec] if self.format.whole else ""
        return f".{_BARE.get(self.format.name, self.format.name)}{outside}"

    @property
    def decoder(self) -> str:
        """The library that decompresses the whole file for the engine; empty if there is nothing to do."""
        return _DECODERS[self.codec] if self.format.whole else ""

    @property
    def readers(self) -> str:
        """Who reads the file back, besides tap-files."""
        return f"{self.decoder}, then {self.format.reader}" if self.decoder else self.format.reader


def _cells() -> Iterator[Cell]:
    for each in FORMATS:
        for codec in each.codecs:
            for storage in STORAGES:
                yield Cell(each, codec, storage)


CELLS = tuple(_cells())


def markdown() -> str:
    """The table, one line a cell."""
    lines = [
        "| Format | Codec | Files end in | Place | Written by | Read back by |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for cell in CELLS:
        writer = cell.format.target if cell.storage in WRITTEN else f"{cell.format.target}, and copied there"
        readers = f"{cell.readers}; tap-files" if cell.storage in WRITTEN else "tap-files"
        row = (cell.format.name, cell.codec, f"`{cell.ending}`", STORAGES[cell.storage], writer, readers)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"
