"""ArrowStream on singer-sdk: blocks where it can, records where it must, and STATE only where it is safe."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.ipc
import pytest
from singer_sdk.io_base import SingerReader

from melisma.errors import ConfigError
from melisma.tap import ArrowStream, ArrowTap, Progress

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": ["integer"]},
        "price": {"type": ["number", "null"], "precision": 9, "scale": 2},
        "at": {"type": ["string", "null"], "format": "date-time"},
        "who": {
            "type": ["object", "null"],
            "properties": {"name": {"type": ["string", "null"]}, "age": {"type": "integer"}},
        },
    },
}


def batch(first: int, count: int) -> pa.RecordBatch:
    """Rows numbered from `first`."""
    numbers = range(first, first + count)
    return pa.record_batch(
        {
            "id": list(numbers),
            "price": pa.array([Decimal(n) / 4 for n in numbers], pa.decimal128(9, 2)),
            "at": pa.array([n * 1_000_000 for n in numbers], pa.timestamp("us", "UTC")),
            "who": pa.array([{"name": f"n{n}", "age": n} if n % 3 else None for n in numbers]),
            "extra": ["not in the schema"] * count,
        }
    )


class Numbers(ArrowStream):
    """Three batches with a position after each."""

    name = "numbers"
    schema = SCHEMA
    primary_keys = ("id",)

    def read_batches(self, context: Mapping[str, Any] | None) -> Iterable[pa.RecordBatch | Progress]:
        """Rows 0 to 29, or those after the bookmark."""
        assert context is None
        start = self.stream_state.get("done", 0)
        for first in range(start, 30, 10):
            yield batch(first, 10)
            yield Progress(lambda done=first + 10: {"done": done})


class TapNumbers(ArrowTap):
    """A tap of numbers."""

    name = "tap-numbers"
    config_jsonschema: ClassVar[dict[str, Any]] = {"type": "object", "properties": {}}

    def discover_streams(self) -> list[ArrowStream]:
        """One stream."""
        return [Numbers(self)]


def run(tap: TapNumbers, *, test: bool = False) -> list[dict[str, Any]]:
    """What a sync writes."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(output):
        if test:
            tap.run_sync_dry_run(dry_run_record_limit=12)
        else:
            tap.sync_all()
    output.seek(0)
    return [json.loads(line, parse_float=Decimal) for line in output]


def records(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records."""
    return [message["record"] for message in messages if message["type"] == "RECORD"]


def states(messages: list[dict[str, Any]]) -> list[Any]:
    """What each STATE says of the stream."""
    return [m["value"]["bookmarks"]["numbers"].get("done") for m in messages if m["type"] == "STATE"]


def test_blocks_are_records_as_the_schema_has_them() -> None:
    """Columns in order, undeclared ones gone, exact decimals, UTC times with Z."""
    messages = run(TapNumbers())
    assert messages[0]["type"] == "SCHEMA"
    assert len(records(messages)) == 30
    assert records(messages)[1] == {
        "id": 1,
        "price": Decimal("0.25"),
        "at": "1970-01-01T00:00:01Z",
        "who": {"name": "n1", "age": 1},
    }
    assert all(set(m) == {"type", "stream", "record", "time_extracted"} for m in messages if m["type"] == "RECORD")


@pytest.mark.parametrize(
    "config",
    [
        {"stream_maps": {"numbers": {"id": "id"}}},
        {"flattening_enabled": True, "flattening_max_depth": 0},
        {"stream_maps": {"__else__": None, "numbers": {"__alias__": "numbers"}}},
    ],
)
def test_the_record_path_writes_the_same_values(config: dict[str, Any]) -> None:
    """With maps or flattening records go through singer-sdk, with the values of the block path."""
    mapped = records(run(TapNumbers(config=config)))
    plain = records(run(TapNumbers()))
    assert [{k: v for k, v in r.items() if k in mapped[0]} for r in plain] == mapped


def test_stream_maps_and_flattening_work() -> None:
    """A computed column, and members as columns."""
    config = {"stream_maps": {"numbers": {"twice": "id * 2"}}}
    assert [r["twice"] for r in records(run(TapNumbers(config=config)))] == [2 * n for n in range(30)]
    config = {"flattening_enabled": True, "flattening_max_depth": 2}
    assert records(run(TapNumbers(config=config)))[1]["who__name"] == "n1"


def test_third_party_readers_take_every_line() -> None:
    """singer-sdk's own reader, as any SDK target uses it, accepts schema, records and state."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(output):
        TapNumbers().sync_all()
    output.seek(0)
    seen: list[str] = []
    note = {kind: (lambda message: seen.append(message["type"])) for kind in ("SCHEMA", "RECORD", "STATE")}
    SingerReader().process_lines(output, note)
    assert seen.count("RECORD") == 30


def test_a_state_never_runs_ahead_of_its_records() -> None:
    """Wherever the output is cut, the last STATE says what came before it, and a run from there sends the rest."""
    Numbers.STATE_MSG_FREQUENCY, before = 10, Numbers.STATE_MSG_FREQUENCY
    try:
        for config in ({}, {"stream_maps": {"numbers": {"id": "id"}}}):
            messages = run(TapNumbers(config=config))
            assert states(messages)[-1] == 30
            for cut in range(len(messages) + 1):
                kept = messages[:cut]
                last = max((i for i, m in enumerate(kept) if m["type"] == "STATE"), default=-1)
                settled = [r["id"] for r in records(kept[: last + 1])]
                state = kept[last]["value"] if last >= 0 else {}
                again = run(TapNumbers(config=config, state=state))
                assert [*settled, *(r["id"] for r in records(again))] == list(range(30))
    finally:
        Numbers.STATE_MSG_FREQUENCY = before


def test_a_run_without_news_still_ends_with_its_state() -> None:
    """Starting STATE, SCHEMA, the same STATE again: the target knows that the tap came to its end."""
    state = {"bookmarks": {"numbers": {"done": 30}}}
    messages = run(TapNumbers(state=state))
    assert [m["type"] for m in messages] == ["STATE", "SCHEMA", "STATE"]
    assert messages[0]["value"] == messages[-1]["value"] == state


def test_a_run_from_nothing_prints_no_state_before_its_schema() -> None:
    """The schema says that a starting STATE would have been announced, so silence means none."""
    messages = run(TapNumbers())
    assert messages[0]["type"] == "SCHEMA"
    assert messages[0]["melisma"] == {"announces_state": True}
    assert messages[-1]["type"] == "STATE"


def test_selection_drops_columns_and_members() -> None:
    """What is not selected is in neither schema nor records, at any depth."""
    tap = TapNumbers()
    catalog = json.loads(tap.catalog_json_text)
    for entry in catalog["streams"][0]["metadata"]:
        if entry["breadcrumb"] in (["properties", "price"], ["properties", "who", "properties", "age"]):
            entry["metadata"]["selected"] = False
        elif not entry["breadcrumb"]:
            entry["metadata"]["selected"] = True
    messages = run(TapNumbers(catalog=catalog))
    schema = next(m for m in messages if m["type"] == "SCHEMA")["schema"]["properties"]
    assert list(schema) == ["id", "at", "who"]
    assert list(schema["who"]["properties"]) == ["name"]
    assert records(messages)[1] == {"id": 1, "at": "1970-01-01T00:00:01Z", "who": {"name": "n1"}}
    assert records(messages)[0]["who"] is None


def test_the_catalog_keeps_keywords_that_singer_sdk_drops() -> None:
    """Digits of decimals survive discovery, the catalog and the schema message."""
    catalog = json.loads(TapNumbers().catalog_json_text)
    for entry in catalog["streams"][0]["metadata"]:
        if not entry["breadcrumb"]:
            entry["metadata"]["selected"] = True
    assert catalog["streams"][0]["schema"] == SCHEMA
    schema = next(m for m in run(TapNumbers(catalog=catalog)) if m["type"] == "SCHEMA")["schema"]
    assert schema["properties"]["price"] == SCHEMA["properties"]["price"]


def test_the_record_limit_is_kept() -> None:
    """A dry run of 12 sends 12 rows, and no position beyond them."""
    messages = run(TapNumbers(), test=True)
    assert [r["id"] for r in records(messages)] == list(range(12))
    assert states(messages)[-1] in {None, 10}


def test_full_table_streams_carry_their_version() -> None:
    """With ACTIVATE_VERSION switched on, each record has the version that was announced."""
    messages = run(TapNumbers(config={"emit_activate_version_messages": True}))
    version = next(m["version"] for m in messages if m["type"] == "ACTIVATE_VERSION")
    assert {m["version"] for m in messages if m["type"] == "RECORD"} == {version}


def test_batch_files_hold_the_same_records(tmp_path: Any) -> None:
    """singer-sdk's BATCH mode, fed from the same batches."""
    config = {
        "batch_config": {
            "encoding": {"format": "jsonl", "compression": "gzip"},
            "storage": {"root": tmp_path.as_uri()},
            "batch_size": 7,
        }
    }
    messages = run(TapNumbers(config=config))
    found = []
    for message in messages:
        if message["type"] == "BATCH":
            for uri in message["manifest"]:
                with gzip.open(uri.removeprefix("file://"), "rt", encoding="utf-8") as file:
                    found += [json.loads(line, parse_float=Decimal) for line in file]
    assert found == records(run(TapNumbers()))


@pytest.mark.parametrize("size", [1, 7, 10, 13, 29, 30, 31, 1000])
def test_batch_files_end_where_the_setting_says(size: int, tmp_path: Any) -> None:
    """No file holds more than `batch_size` rows, all rows are there, and each STATE covers the files before it."""
    config = {
        "batch_config": {
            "encoding": {"format": "arrow", "compression": "zstd"},
            "storage": {"root": str(tmp_path)},
            "batch_size": size,
        }
    }
    seen: list[int] = []
    for message in run(TapNumbers(config=config)):
        if message["type"] == "BATCH":
            assert message["encoding"] == {"format": "arrow", "compression": "zstd"}
            [uri] = message["manifest"]
            with pa.memory_map(uri.removeprefix("file://")) as file, pa.ipc.open_file(file) as reader:
                found = reader.read_all().column("id").to_pylist()
            assert 0 < len(found) <= size
            seen += found
        elif message["type"] == "STATE":
            assert message["value"]["bookmarks"]["numbers"].get("done", 0) == len(seen)
    assert seen == list(range(30))


def test_mapped_records_are_sent_as_records(tmp_path: Any) -> None:
    """With stream maps the records are RECORD messages: files would hold them as they were before."""
    config = {
        "batch_config": {"encoding": {"format": "jsonl"}, "storage": {"root": str(tmp_path)}},
        "stream_maps": {"numbers": {"id": "id", "__else__": None}},
    }
    messages = run(TapNumbers(config=config))
    assert [each["record"] for each in messages if each["type"] == "RECORD"] == [{"id": n} for n in range(30)]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("encoding", "says"),
    [({}, "batch_config.encoding.format"), ({"format": "arrow", "compression": "gzip"}, "Valid values: zstd, none")],
)
def test_a_batch_encoding_that_cannot_be_is_refused(encoding: dict[str, str], says: str) -> None:
    """What does not go together is a fault of the configuration."""
    with pytest.raises(ConfigError, match=says):
        run(TapNumbers(config={"batch_config": {"encoding": encoding}}))
