"""Seeded Singer streams and CSV files to measure with, made once and kept.

A row depends on nothing but the seed and its place, so every machine makes the same bytes. `id` counts from 1
through the whole input, whatever the stream: a reader can tell lost and doubled rows by the count and the sum.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

__all__ = ["CSV_COLUMNS", "SHAPES", "Shape", "csv_file", "parquet_file", "singer_file"]

ROOT = Path(__file__).resolve().parent.parent
SEED = 20240229
STATE_EVERY = 10_000
STREAMS = 200

_STRING: dict[str, Any] = {"type": "string"}
_INTEGER: dict[str, Any] = {"type": "integer"}
_NUMBER: dict[str, Any] = {"type": "number"}
_BOOLEAN: dict[str, Any] = {"type": "boolean"}
_DATE_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of input.

    Attributes:
        name: as in the tables.
        title: what it is, in a few words.
        rows: of a full run.
        record: a record as JSON text, from a source of randomness and its id.
        properties: of the JSON Schema.
        streams: how many streams take turns, a record each.
    """

    name: str
    title: str
    rows: int
    record: Callable[[Random, int], str]
    properties: dict[str, dict[str, Any]]
    streams: int = 1

    def stream(self, row: int) -> str:
        """The stream of a row."""
        return self.name if self.streams == 1 else f"{self.name}_{row % self.streams:03}"

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of all its streams."""
        return {"type": "object", "properties": self.properties, "required": ["id"]}


_EVENTS = ("page_view", "click", "scroll", "search", "add_to_cart", "checkout", "purchase", "sign_in", "sign_out")
_PATHS = ("products", "search", "cart", "account/orders", "help/returns", "blog/summer-guide", "checkout/payment")
_COUNTRIES = ("DE", "FR", "US", "GB", "PL", "NL", "ES", "IT", "SE", "JP", "BR", "IN", "CA", "AU", "CH")
_TAGS = ("new", "returning", "newsletter", "mobile-app", "beta", "sale", "organic", "paid-search", "partner", "vip")
_SYSTEMS = ("iOS 17.5", "Android 14", "Windows 11", "macOS 14.5", "Ubuntu 24.04")
_SENTENCE = (
    "the order was sent again after the customer called about a delayed parcel which had been left with a neighbour "
    "and the warehouse confirmed that two items were missing from the box so a refund was issued for both of them"
)
_WORDS = _SENTENCE.split()


def _time(source: Random, row: int) -> str:
    second = row * 3 % 86_400
    day = row // 28_800
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.{source.randrange(1_000_000):06}"
    return f"2024-{day // 28 % 12 + 1:02}-{day % 28 + 1:02}T{clock}Z"


def _event(source: Random, row: int) -> str:
    pick, below, bits = source.choice, source.randrange, source.getrandbits
    referrer = "null" if below(3) else f'"https://example.org/{pick(_PATHS)}"'
    tags = ",".join(f'"{pick(_TAGS)}"' for _ in range(below(3)))
    identity = f"{bits(128):032x}"
    return (
        f'{{"id":{row},"event_id":"{identity[:8]}-{identity[8:12]}-4{identity[13:16]}-a{identity[17:20]}-{identity[20:]}"'
        f',"event":"{pick(_EVENTS)}","user_id":{below(2_000_000)},"session":"{bits(64):016x}"'
        f',"occurred_at":"{_time(source, row)}","url":"https://shop.example/{pick(_PATHS)}/{below(100_000)}"'
        f',"referrer":{referrer},"country":"{pick(_COUNTRIES)}","amount":{below(50_000) / 100},"quantity":{below(9)}'
        f',"is_member":{"true" if below(2) else "false"},"score":{round(source.random(), 6)}'
        f',"device":{{"kind":"{"phone" if below(2) else "desktop"}","os":"{pick(_SYSTEMS)}"'
        f',"width":{320 + below(2000)}}}'
        f',"tags":[{tags}]}}'
    )


_EVENT_PROPERTIES = {
    "id": _INTEGER,
    "event_id": _STRING,
    "event": _STRING,
    "user_id": _INTEGER,
    "session": _STRING,
    "occurred_at": _DATE_TIME,
    "url": _STRING,
    "referrer": {"type": ["null", "string"]},
    "country": {"type": "string", "maxLength": 2},
    "amount": {"type": "number", "minimum": 0},
    "quantity": {"type": "integer", "minimum": 0},
    "is_member": _BOOLEAN,
    "score": _NUMBER,
    "device": {"type": "object", "properties": {"kind": _STRING, "os": _STRING, "width": _INTEGER}},
    "tags": {"type": "array", "items": _STRING},
}


def _narrow(source: Random, row: int) -> str:
    return (
        f'{{"id":{row},"at":"{_time(source, row)}","sensor":"{source.choice(_COUNTRIES)}-{source.randrange(40)}"'
        f',"value":{source.random() * 100},"valid":{"true" if source.randrange(9) else "false"}}}'
    )


_NARROW_PROPERTIES = {"id": _INTEGER, "at": _DATE_TIME, "sensor": _STRING, "value": _NUMBER, "valid": _BOOLEAN}


def _wide(source: Random, row: int) -> str:
    members = [f'"id":{row}']
    for column in range(1, 100):
        match column % 5:
            case 0:
                value = f'"{_time(source, row + column)}"'
            case 1:
                value = str(source.randrange(1_000_000))
            case 2:
                value = str(source.random())
            case 3:
                value = f'"{source.choice(_WORDS)}"'
            case _:
                value = f'"{source.getrandbits(48):012x}"' if source.randrange(4) else "null"
        members.append(f'"c{column:02}":{value}')
    return "{" + ",".join(members) + "}"


_WIDE_TYPES = (_DATE_TIME, _INTEGER, _NUMBER, _STRING, {"type": ["null", "string"]})
_WIDE_PROPERTIES = {"id": _INTEGER} | {f"c{column:02}": _WIDE_TYPES[column % 5] for column in range(1, 100)}


def _text(source: Random, row: int) -> str:
    words = source.choices(_WORDS, k=source.randrange(2_000, 8_000))
    return (
        f'{{"id":{row},"at":"{_time(source, row)}","author":"{source.choice(_COUNTRIES)}{source.randrange(9999)}"'
        f',"title":"{" ".join(words[:6])}","body":"{" ".join(words)}"}}'
    )


_TEXT_PROPERTIES = {"id": _INTEGER, "at": _DATE_TIME, "author": _STRING, "title": _STRING, "body": _STRING}

SHAPES = {
    each.name: each
    for each in (
        Shape("events", "15 columns, a nested object, an array", 1_000_000, _event, _EVENT_PROPERTIES),
        Shape("narrow", "5 columns", 2_000_000, _narrow, _NARROW_PROPERTIES),
        Shape("wide", "100 columns", 200_000, _wide, _WIDE_PROPERTIES),
        Shape("turns", f"{STREAMS} streams that take turns", 1_000_000, _event, _EVENT_PROPERTIES, streams=STREAMS),
        Shape("text", "bodies of 10 to 40 KB", 16_000, _text, _TEXT_PROPERTIES),
    )
}
"""By name. The full sizes come to about 450 MB each."""


def singer_file(folder: Path, shape: Shape, rows: int) -> Path:
    """The Singer stream of a shape, as a singer-sdk tap writes it: SCHEMA, RECORD, and STATE every 10,000 records."""
    return _made(folder, f"{shape.name}-{rows}.singer", lambda: _singer_lines(shape, rows))


def csv_file(folder: Path, rows: int) -> Path:
    """The events' plain columns as CSV, with a header."""
    return _made(folder, f"events-{rows}.csv", lambda: _csv_lines(rows))


def parquet_file(folder: Path, rows: int) -> Path:
    """The events as a Parquet file, made of the Singer stream (`benchmarks.parquet_file`)."""
    source = singer_file(folder, SHAPES["events"], rows)
    path = source.with_suffix(".parquet")
    if not path.exists():
        subprocess.run([sys.executable, "-m", "benchmarks.parquet_file", str(source), str(path)], check=True, cwd=ROOT)
    return path


def _made(folder: Path, name: str, lines: Callable[[], Iterator[str]]) -> Path:
    """Keep the file under a name that changes whenever this module does."""
    version = zlib.crc32(Path(__file__).read_bytes())
    path = folder / f"{version:08x}-{name}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8", newline="", buffering=1 << 20) as file:
            file.writelines(lines())
        partial.rename(path)
    return path


def _singer_lines(shape: Shape, rows: int) -> Iterator[str]:
    names = dict.fromkeys(shape.stream(row) for row in range(1, min(rows, shape.streams) + 1))
    for name in names:
        message = {"type": "SCHEMA", "stream": name, "schema": shape.schema, "key_properties": ["id"]}
        yield json.dumps(message, separators=(",", ":")) + "\n"
    source = Random(f"{SEED} {shape.name}")
    extracted = "2024-12-31T23:59:59Z"
    for row in range(1, rows + 1):
        record = shape.record(source, row)
        yield f'{{"type":"RECORD","stream":"{shape.stream(row)}","record":{record},"time_extracted":"{extracted}"}}\n'
        if row % STATE_EVERY == 0 or row == rows:
            bookmark = f'{{"replication_key":"id","replication_key_value":{row}}}'
            yield f'{{"type":"STATE","value":{{"bookmarks":{{"{shape.stream(row)}":{bookmark}}}}}}}\n'


CSV_COLUMNS = [name for name in _EVENT_PROPERTIES if name not in {"device", "tags"}]
"""Of the CSV file, in order."""


def _csv_lines(rows: int) -> Iterator[str]:
    source = Random(f"{SEED} csv")
    lines: list[str] = []
    writer = csv.DictWriter(_Lines(lines), CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()

    def written(row: int) -> list[str]:
        event = json.loads(_event(source, row))
        writer.writerow(event | {"is_member": str(event["is_member"]).lower()})
        taken = lines[:]
        lines.clear()
        return taken

    return chain.from_iterable(written(row) for row in range(1, rows + 1))


class _Lines:
    """What `csv` writes to: a list of lines."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def write(self, line: str) -> int:
        self._lines.append(line)
        return len(line)
