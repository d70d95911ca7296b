"""Streams that one log feeds: read whole once, then by the log; a STATE stands only at a transaction's end."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.ipc
import pytest

from melisma.tap import follow
from melisma.tap.follow import LogTap
from melisma.tap.log import Boundary, Change, ChangeLog, LogStream, NewSchema, Snapshot, Truncation
from melisma.tap.stream import Progress

NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
PLAIN: dict[str, Any] = {
    "type": "object",
    "properties": {"id": {"type": ["integer"]}, "text": {"type": ["string", "null"]}},
}
Row = tuple[str, str, int, str | None]  # what happened, stream, key, text


@dataclass
class Source:
    """A database in memory: transactions in the order of their commits, numbered from 1."""

    transactions: list[list[Row]] = field(default_factory=list)
    dies_at: tuple[int, int] | None = None  # transaction, row
    snapshot_dies: str | None = None
    opened: list[list[Any]] = field(default_factory=list)

    def table(self, stream: str, upto: int) -> dict[int, str | None]:
        """A table after so many transactions."""
        rows: dict[int, str | None] = {}
        for transaction in self.transactions[:upto]:
            for what, name, key, text in transaction:
                if name == stream and what == "put":
                    rows[key] = text
                elif name == stream and what == "delete":
                    rows.pop(key, None)
                elif name == stream and what == "truncate":
                    rows.clear()
        return rows


class Died(Exception):
    """The tap was killed."""


class Table(LogStream):
    """A table of the source."""

    primary_keys = ("id",)
    order_columns: ClassVar[Mapping[str, Any]] = {
        "_sdc_commit": {"type": ["integer", "null"]},
        "_sdc_place": {"type": ["integer", "null"]},
    }
    _tap: TapLog

    def read_rows(self) -> Iterator[pa.RecordBatch | Progress]:
        """The table, with positions that only FULL_TABLE may use."""
        source = self._tap.source
        rows = source.table(self.name, len(source.transactions))
        yield pa.record_batch({"id": pa.array([*rows], pa.int64()), "text": pa.array([*rows.values()], pa.string())})
        yield Progress({"resume_after": 1})
        if source.snapshot_dies == self.name:
            raise Died

    def batch_of(self, changes: Sequence[Change]) -> pa.RecordBatch:
        """Key and text."""
        batch = pa.record_batch(
            {
                name: pa.array([change.values[name] for change in changes], kind)
                for name, kind in [("id", pa.int64()), ("text", pa.string()), ("more", pa.int64())]
                if name in self.schema["properties"]
            }
        )
        return self.with_order(batch, changes)


class Log(ChangeLog):
    """The source's transactions."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def open(self, streams: Sequence[LogStream]) -> Snapshot | None:
        """The snapshot is taken at the last transaction that there is."""
        self._streams = {stream.name: stream for stream in streams}
        self._source.opened.append([stream.log_position for stream in streams])
        now = len(self._source.transactions)
        return None if all(stream.log_position is not None for stream in streams) else Snapshot(now, (now, 0))

    def is_before(self, position: Any, other: Any) -> bool:
        """By number."""
        return bool(position < other)

    def snapshot_taken(self) -> None:
        """Nothing held it."""

    def close(self) -> None:
        """Nothing is open."""

    def entries(self) -> Iterator[Any]:
        """From the earliest of the positions on."""
        start = min(stream.log_position for stream in self._streams.values())
        for number, transaction in enumerate(self._source.transactions, 1):
            if number <= start:
                continue
            for place, (what, name, key, text) in enumerate(transaction):
                if self._source.dies_at == (number, place):
                    raise Died
                stream = self._streams.get(name)
                if stream is None or number <= stream.log_position:
                    continue
                if what == "truncate":
                    yield Truncation(stream)
                elif what == "alter":
                    yield NewSchema(
                        stream, {**PLAIN, "properties": {**PLAIN["properties"], "more": {"type": "integer"}}}
                    )
                else:
                    gone = NOON if what == "delete" else None
                    values = {"id": key, "text": text, "more": 7}
                    yield Change(stream, values, (number, place), 100 + len(text or ""), gone)
            yield Boundary(number)


class TapLog(LogTap):
    """A tap of two tables by one log."""

    name = "tap-log"
    config_jsonschema: ClassVar[dict[str, Any]] = {"type": "object", "properties": {}}
    source: ClassVar[Source]

    def discover_streams(self) -> list[Table]:
        """Two."""
        streams = [Table(self, PLAIN, name) for name in ("a", "b")]
        for stream in streams:
            stream.forced_replication_method = "LOG_BASED"
        return streams

    def change_log(self) -> Log:
        """The source's."""
        return Log(self.source)


def run(source: Source, state: dict[str, Any] | None = None, **config: Any) -> list[dict[str, Any]]:
    """What a run writes, also one that dies."""
    TapLog.source = source
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(output), contextlib.suppress(Died):
        TapLog(config=config, state=state).sync_all()
    output.seek(0)
    return [json.loads(line) for line in output]


def states(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The positions of the STATEs, in order."""
    return [
        {name: bookmark.get("log_position") for name, bookmark in m["value"]["bookmarks"].items()}
        for m in messages
        if m["type"] == "STATE"
    ]


def last_state(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The last STATE."""
    found: dict[str, Any] = [m["value"] for m in messages if m["type"] == "STATE"][-1]
    return found


def records(messages: list[dict[str, Any]], stream: str) -> list[tuple[Any, ...]]:
    """Key, text, order and mark of a stream's records."""
    return [
        (r["id"], r["text"], r["_sdc_commit"], r["_sdc_place"], r["_sdc_deleted_at"])
        for r in (m["record"] for m in messages if m["type"] == "RECORD" and m["stream"] == stream)
    ]


@pytest.fixture
def source() -> Source:
    """Two transactions over two tables."""
    return Source(
        [
            [("put", "a", 1, "one"), ("put", "b", 1, "eins")],
            [("put", "a", 2, "two"), ("put", "a", 1, "uno"), ("delete", "b", 1, None)],
        ]
    )


def test_a_stream_is_read_whole_once_and_then_by_the_log(source: Source) -> None:
    """The first run gives the tables, the second what came since, in order, with the deletes marked."""
    first = run(source)
    assert records(first, "a") == [(1, "uno", 2, 0, None), (2, "two", 2, 0, None)]
    assert records(first, "b") == []
    assert states(first)[-1] == {"a": 2, "b": 2}
    source.transactions.append([("put", "b", 5, "fünf"), ("delete", "a", 2, None), ("put", "a", 3, "three")])
    second = run(source, last_state(first))
    assert records(second, "a") == [(2, None, 3, 1, "2024-05-01T12:00:00Z"), (3, "three", 3, 2, None)]
    assert records(second, "b") == [(5, "fünf", 3, 0, None)]
    assert states(second)[-1] == {"a": 3, "b": 3}


def test_the_columns_of_the_log_stand_in_the_schema_and_not_in_the_catalog(source: Source) -> None:
    """So the same catalog serves another method."""
    TapLog.source = source
    tap = TapLog(config={})
    assert set(tap.streams["a"].schema["properties"]) == {"id", "text"}
    assert "_sdc_commit" not in tap.catalog_json_text
    schema = next(m for m in run(source) if m["type"] == "SCHEMA")
    assert list(schema["schema"]["properties"]) == ["id", "text", "_sdc_commit", "_sdc_place", "_sdc_deleted_at"]


def test_a_catalog_serves_as_well(source: Source) -> None:
    """Method and selection come from it; the log's columns are there whatever it selects."""
    TapLog.source = source
    catalog = json.loads(TapLog(config={}).catalog_json_text)
    for entry in catalog["streams"]:
        for each in entry["metadata"]:
            if each["breadcrumb"] == ["properties", "text"]:
                each["metadata"]["selected"] = False
            elif not each["breadcrumb"]:
                each["metadata"]["selected"] = entry["stream"] == "a"
        entry["replication_key"] = "id"
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(output):
        TapLog(config={}, catalog=catalog).sync_all()
    output.seek(0)
    messages = [json.loads(line) for line in output]
    assert {m["stream"] for m in messages if "stream" in m} == {"a"}
    record = next(m["record"] for m in messages if m["type"] == "RECORD")
    assert record == {"id": 1, "_sdc_commit": 2, "_sdc_place": 0, "_sdc_deleted_at": None}


@pytest.mark.parametrize("at", [(3, 0), (3, 2), (4, 1)])
def test_a_transaction_that_is_cut_off_is_in_no_state(
    source: Source, at: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its records may have gone out; the last STATE is from before it, and the next run sends it whole."""
    monkeypatch.setattr(Table, "STATE_MSG_FREQUENCY", 1)
    monkeypatch.setattr(follow, "_ROWS_OF_ONE", 1)
    state = last_state(run(source))
    for number in (3, 4):
        source.transactions.append([("put", "a", 10 * number + n, "x" * 2000) for n in range(3)])
    source.dies_at = at
    cut = run(source, state)
    assert len(records(cut, "a")) == (at[0] - 3) * 3 + at[1]
    assert states(cut)[-1] == {"a": at[0] - 1, "b": at[0] - 1}
    source.dies_at = None
    rest = run(source, last_state(cut))
    assert [r[2:4] for r in records(rest, "a")] == [(n, place) for n in range(at[0], 5) for place in range(3)]


def test_what_was_gathered_is_written_before_the_state_that_covers_it(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two STATEs stand exactly the records of the transactions between them, of all streams."""
    monkeypatch.setattr(Table, "STATE_MSG_FREQUENCY", 1)
    state = last_state(run(source))
    source.transactions += [[("put", "ab"[n % 2], n, "x" * 3000)] for n in range(20)]
    seen, reached = [], 2
    for message in run(source, state):
        if message["type"] == "RECORD":
            seen.append(message["record"]["_sdc_commit"])
        elif message["type"] == "STATE":
            [position] = {b["log_position"] for b in message["value"]["bookmarks"].values()}
            assert sorted(seen) == list(range(reached + 1, position + 1))
            seen, reached = [], position
    assert reached == 22


def test_a_huge_transaction_is_written_as_it_comes(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gathered has bounds by rows and by bytes, for one stream and for all, within a transaction too."""
    most: list[int] = []
    taken = Table.batch_of
    monkeypatch.setattr(follow, "_BYTES_OF_ALL", 100 * 50)
    monkeypatch.setattr(Table, "batch_of", lambda self, changes: most.append(len(changes)) or taken(self, changes))
    state = last_state(run(source))
    source.transactions.append([("put", "ab"[n % 2], n, "") for n in range(1000)])
    assert len(records(run(source, state), "a")) == 500
    assert max(most) <= 50
    assert sum(most) == 1000


def test_a_snapshot_that_is_cut_off_begins_again(source: Source) -> None:
    """No position of the table's own read comes into the bookmark; a stream that was read whole is not read again."""
    source.snapshot_dies = "b"
    cut = run(source)
    assert last_state(cut)["bookmarks"]["a"] == {"log_position": 2, "log_version": None}
    assert "resume_after" not in json.dumps(cut)
    source.snapshot_dies = None
    source.transactions.append([("put", "a", 3, "three"), ("put", "b", 3, "drei")])
    rest = run(source, last_state(cut))
    assert [r[0] for r in records(rest, "a")] == [3]
    assert [r[:3] for r in records(rest, "b")] == [(3, "drei", 3)]
    assert states(rest)[-1] == {"a": 3, "b": 3}


def test_a_snapshot_of_a_new_stream_is_never_set_back(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an older stream catches up, the new one's bookmark stays at its snapshot."""
    monkeypatch.setattr(Table, "STATE_MSG_FREQUENCY", 1)
    state = last_state(run(source))
    source.transactions += [[("put", "a", n, "x" * 2000), ("put", "b", n, "x" * 2000)] for n in range(5)]
    del state["bookmarks"]["b"]
    messages = run(source, state)
    assert [r[2] for r in records(messages, "a")] == [3, 4, 5, 6, 7]
    assert {r[2] for r in records(messages, "b")} == {7}
    found = states(messages)
    assert {at.get("b") for at in found} <= {None, 7}
    assert [at["a"] for at in found] == sorted(at["a"] for at in found)
    assert len({at["a"] for at in found}) > 3


def test_stream_maps_see_what_the_log_adds(source: Source) -> None:
    """Records go one by one then, snapshot and log alike."""
    maps = {"a": {"id": "id", "loud": "text.upper()", "at": "_sdc_commit", "__else__": None}}
    state = last_state(run(source))
    source.transactions.append([("put", "a", 9, "nine"), ("put", "b", 9, "neun")])
    for start in (None, state):
        messages = run(source, start, stream_maps=maps)
        assert {"id": 9, "loud": "NINE", "at": 3} in [
            m["record"] for m in messages if m.get("stream") == "a" and "record" in m
        ]
        assert [r for r in records(messages, "b") if r[0] == 9] == [(9, "neun", 3, 0 if start is None else 1, None)]


def test_changes_go_out_as_files_too(source: Source, tmp_path: Path) -> None:
    """With batch_config, and the STATE comes after the message that names their file."""
    state = last_state(run(source))
    source.transactions.append([("put", "a", 9, "nine"), ("delete", "a", 1, None)])
    storage = {"encoding": {"format": "arrow"}, "storage": {"root": tmp_path.as_uri()}}
    messages = run(source, state, batch_config=storage)
    kinds = [m["type"] for m in messages]
    assert kinds[-2:] == ["BATCH", "STATE"]
    [name] = messages[-2]["manifest"]
    rows = pyarrow.ipc.open_file(name.removeprefix("file://")).read_all().to_pylist()
    assert [(r["id"], r["_sdc_deleted_at"]) for r in rows] == [(9, None), (1, NOON)]


def test_a_truncation_is_a_new_version_or_a_warning(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    """With versions, the old rows go; what comes after bears the new one, also in later runs."""
    state = last_state(run(source))
    versions = run(source, emit_activate_version_messages=True)
    assert [m["type"] for m in versions if m.get("stream") == "a"] == ["SCHEMA", "RECORD", "RECORD", "ACTIVATE_VERSION"]
    source.transactions.append([("put", "a", 8, "gone"), ("truncate", "a", 0, None), ("put", "a", 9, "nine")])
    assert [r[0] for r in records(run(source, state), "a")] == [8, 9]
    assert "was truncated" in caplog.text
    messages = run(source, last_state(versions), emit_activate_version_messages=True)
    old, activate, new = [m for m in messages if m.get("stream") == "a" and m["type"] != "SCHEMA"]
    assert old["version"] == next(m["version"] for m in versions if m["type"] == "ACTIVATE_VERSION")
    assert activate["type"] == "ACTIVATE_VERSION"
    assert old["version"] < activate["version"] == new["version"]
    source.transactions.append([("put", "a", 10, "ten")])
    [later] = [
        m for m in run(source, last_state(messages), emit_activate_version_messages=True) if m["type"] == "RECORD"
    ]
    assert later["version"] == new["version"]


def test_a_new_column_is_announced_before_its_rows(source: Source) -> None:
    """What was gathered before has the old schema, what comes after the new one."""
    state = last_state(run(source))
    source.transactions.append([("put", "a", 8, "old"), ("alter", "a", 0, None), ("put", "a", 9, "new")])
    mine = [m for m in run(source, state) if m.get("stream") == "a"]
    assert [m["type"] for m in mine] == ["SCHEMA", "RECORD", "SCHEMA", "RECORD"]
    assert "more" not in mine[1]["record"]
    assert "more" in mine[2]["schema"]["properties"]
    assert mine[3]["record"]["more"] == 7


def test_a_run_without_news_repeats_its_state(source: Source) -> None:
    """So that a target can tell a whole run from a dead tap."""
    state = last_state(run(source))
    messages = run(source, state)
    assert messages[-1] == {"type": "STATE", "value": state}
    assert not [m for m in messages if m["type"] == "RECORD"]
