"""target-parquet from its command line: what lands, what is printed, how it ends."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import EXECUTABLE, Message, Target, lines, record, schema, state, wait_for

from melisma.errors import Interrupted
from melisma_target_parquet.target import TargetParquet


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """A target with an empty lake."""
    return Target(tmp_path)


def test_rows_land_and_the_last_state_is_printed(target: Target) -> None:
    """All rows land, rows after the last STATE too at a clean end; the STATE comes out as it went in."""
    code, out, _ = target.run([schema(), record(1), state({"a": 1.5}), record(2)])
    assert (code, out) == (0, ['{"a": 1.5}'])
    assert target.rows() == [(1,), (2,)]


def test_committed_state_is_what_was_committed(target: Target) -> None:
    """`--committed-state` prints {} for a new lake, then the STATE that was committed, and nothing on failure."""
    assert target.run(b"", "--committed-state")[:2] == (0, ["{}"])
    target.run([schema(), record(1), state({"bookmarks": {"s": {"x": 1.10}}})])
    assert target.run(b"", "--committed-state")[:2] == (0, ['{"bookmarks": {"s": {"x": 1.1}}}'])
    for path in (target.lake / "_melisma").rglob("*.json"):
        path.write_text("{")
    code, out, _ = target.run(b"", "--committed-state")
    assert (code != 0, out) == (True, [])


def test_a_cut_last_line_commits_up_to_the_last_state(target: Target) -> None:
    """When the tap dies in mid-line, what its last STATE covers is kept, the rest is not, and the exit says so."""
    data = lines([schema(), record(1), state({"a": 1}), record(2)]) + b'{"type": "RECORD", "stream": "s", "rec'
    code, out, err = target.run(data)
    assert (code, out) == (3, ['{"a": 1}'])
    assert "line 5" in err
    assert target.rows() == [(1,)]


@pytest.mark.parametrize("native", ["0", "1"])
def test_states_between_streams_that_take_turns_commit_up_to_the_fault(
    target: Target, monkeypatch: pytest.MonkeyPatch, native: str
) -> None:
    """Of streams whose records take turns, what the last STATE before a fault covers lands, and nothing else."""
    monkeypatch.setenv("MELISMA_NATIVE", native)
    turns = [record(n, stream) for n in range(1, 40) for stream in ("a", "b")]
    fault = record(1, "unknown")
    messages = [schema("a"), schema("b"), *turns[:30], state({"n": 1}), *turns[30:50], state({"n": 2}), *turns[50:60]]
    code, out, err = target.run([*messages, fault, *turns[60:], state({"n": 3}), record("no number", "a")])
    assert (code, out) == (3, ['{"n": 2}'])
    assert "line 65" in err
    assert target.rows("a") == target.rows("b") == [(n,) for n in range(1, 26)]


def test_an_unterminated_last_line_that_is_whole_is_taken(target: Target) -> None:
    """A missing last newline is no fault."""
    code, out, _ = target.run(lines([schema(), record(1), state({"a": 1})])[:-1])
    assert (code, out) == (0, ['{"a": 1}'])


def test_a_bad_record_keeps_what_the_state_before_it_covers(target: Target) -> None:
    """One line on stderr names the stream, column, line and rule, and no value; earlier STATEs are honoured exactly."""
    messages = [schema("t"), schema(), record(1), record(5, "t"), state({"a": 1}), record(2), record(6, "t")]
    messages += [state({"a": 2}), record(3), record({"n": "SECRET"}), state({"a": 3}), record(7, "t")]
    code, out, err = target.run(messages)
    assert (code, out) == (3, ['{"a": 2}'])
    (line,) = [line for line in err.splitlines() if "ERROR" in line]
    assert 'stream "s", column "n", line 10: is text, not an integer' in line
    assert "SECRET" not in err
    assert target.rows() == [(1,), (2,)]
    assert target.rows("t") == [(5,), (6,)]


@pytest.mark.parametrize("native", ["0", "1"])
@pytest.mark.parametrize(
    ("between", "last"),
    [
        ([state({"a": 2})], b'{"type": "RECORD", "stream": "s", "record": {"n": }}\n'),
        ([], b'{"type": "RECORD", "stream": "s", "record": {"n": }}\n'),
        ([state({"a": 2}), record({"n": "y"}), state({"a": 3})], b'{"type": "RECORD", "stream": "s"}\n'),
        ([state({"a": 2})], b"[]\n"),
    ],
)
def test_a_fault_does_not_hide_one_before_it(
    target: Target, monkeypatch: pytest.MonkeyPatch, native: str, between: list[Message], last: bytes
) -> None:
    """The first one in the input is reported, and what the STATE before it covers is kept."""
    monkeypatch.setenv("MELISMA_NATIVE", native)
    messages = lines([schema(), record(1), record(2), state({"a": 1}), record({"n": "x"}), *between])
    code, out, err = target.run(messages + last)
    assert (code, out) == (3, ['{"a": 1}'])
    assert "line 5: is text, not an integer" in err
    assert target.rows() == [(1,), (2,)]


def test_a_carriage_return_within_a_record_does_not_move_the_cut(target: Target) -> None:
    """It is white space; the rows before the STATE are whole lines all the same."""
    odd = b'{"type": "RECORD", "stream": "s", "record": {"n":\r2}}\n'
    code, out, _ = target.run(lines([schema(), record(1)]) + odd + lines([state({"a": 1}), record({"n": "x"})]))
    assert (code, out) == (3, ['{"a": 1}'])
    assert target.rows() == [(1,), (2,)]


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "code"), [("fail", 3), ("skip", 0), ("dead_letter", 0)])
def test_very_many_bad_records_take_little_memory(target: Target, policy: str, code: int) -> None:
    """800,000 of them in a row, of 100 streams, which without limits wait in one window: up to 1.4 GB."""
    streams = [f"s{number}" for number in range(100)]
    properties = {"n": {"type": "integer"}, **{f"t{n}": {"type": ["null", "string"]} for n in range(30)}}
    head = lines(schema(stream, properties) for stream in streams)
    block = lines(record({"n": "x"}, stream) for stream in streams) * 500
    assert target.peak([head, *[block] * 16], code=code, on_bad_record=policy) < 400 << 20


def test_bad_records_can_be_skipped(target: Target) -> None:
    """`on_bad_record: skip` leaves bad records out, counts them, and keeps the rest in order."""
    messages = [schema(), record(1), record({"n": "x"}), record(2), record({"n": True}), record(3), state({})]
    code, out, err = target.run(messages, on_bad_record="skip")
    assert (code, out) == (0, ["{}"])
    assert target.rows() == [(1,), (2,), (3,)]
    assert "1 records skipped" in err


def test_unknown_fields_are_counted_or_refused(target: Target) -> None:
    """`warn` says which fields are not stored and how many values; `fail` ends the run; `drop` says nothing."""
    messages = [schema(), record({"n": 1, "x": 5}), record({"n": 2, "x": None}), record({"n": 3, "x": "v"}), state({})]
    code, _, err = target.run(messages)
    assert code == 0
    assert '2 values of "x"' in err
    code, _, err = target.run(messages, on_unknown_field="drop")
    assert (code, "not stored" in err) == (0, False)
    code, _, err = target.run(messages, on_unknown_field="fail")
    assert code == 3
    assert 'column "x", line 2' in err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_commits_what_is_settled(target: Target, signum: int) -> None:
    """SIGTERM and SIGINT commit up to the last STATE, print it, and exit with 128 + the signal's number."""
    with target.start() as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(lines([schema(), record(1), state({"a": 1}), record({"n": 2, "more": 1})]))
        process.stdin.flush()
        while b'"more" is not in the schema' not in process.stderr.readline():
            pass  # said when the records are decoded
        process.send_signal(signum)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 128 + signum
    assert out.decode().splitlines() == ['{"a": 1}']
    assert "Traceback" not in err.decode()
    assert target.rows() == [(1,)]


def test_a_signal_in_the_middle_of_a_log_line_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is said of it goes past the logger, whose stream may not be entered twice."""
    target = TargetParquet(config={"destination_path": str(tmp_path)})
    monkeypatch.setattr(target, "_load", object())
    monkeypatch.setattr(type(target.logger), "handle", lambda *_: pytest.fail("logged"))
    target._handle_termination(signal.SIGTERM, None)
    assert capfd.readouterr().err.splitlines()[-1] == "signal 15: finishing what is being written"
    assert target._signal == signal.SIGTERM


def test_kill_9_leaves_nothing_that_looks_like_data(target: Target) -> None:
    """A run that is killed leaves no file that a reader could take for data; the next run cleans up and goes on."""
    with target.start(row_group_size_rows=10) as process:
        assert process.stdin is not None
        process.stdin.write(lines([schema(), *[record(n) for n in range(1000)], state({"a": 1})]))
        process.stdin.flush()
        wait_for(lambda: list(target.lake.rglob("staging/*/*.tmp")))
        process.kill()
        process.communicate()
    assert target.files() == []
    assert target.run(b"", "--committed-state")[1] == ["{}"]
    assert target.run([schema(), record(1), state({"a": 1})])[0] == 0
    assert target.rows() == [(1,)]
    assert list(target.lake.rglob("staging/*/*.tmp")) == []


def test_states_come_out_at_the_commit_interval(target: Target) -> None:
    """With an interval of nothing each STATE is committed and printed at once, while the input is still open."""
    with target.start(commit_interval_minutes=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in (1, 2):
            process.stdin.write(lines([schema(), record(number), state({"a": number})]))
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == {"a": number}
            assert target.rows() == [(n,) for n in range(1, number + 1)]
        process.communicate()
    assert process.returncode == 0


def test_a_signal_between_the_last_block_and_the_end_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The input ends before the signal is looked at: what was not written is left to the next run, with its STATE."""

    class Ending:
        waiting = False
        block_bytes = 1 << 20

        def __init__(self, source: Any) -> None:
            self._source = source

        def __iter__(self) -> Iterator[bytes]:
            yield self._source.read()
            loading._handle_termination(signal.SIGTERM, None)

    loading = TargetParquet(config={"destination_path": str(tmp_path / "lake")})
    monkeypatch.setattr("melisma.target.target.BlockReader", Ending)
    with pytest.raises(Interrupted):
        loading.listen(io.BytesIO(lines([schema(), record(1), state({"a": 1}), record(2)])))  # type: ignore[arg-type]
    assert not list((tmp_path / "lake").rglob("*.parquet"))


def test_two_runs_of_one_pipeline_do_not_mix(target: Target) -> None:
    """A second live run of a pipeline is refused; another pipeline has streams of its own."""
    with target.start() as first:
        assert first.stdin is not None
        first.stdin.write(lines([schema(), record(1), state({"a": 1})]))
        first.stdin.flush()
        wait_for(lambda: list(target.lake.rglob("lock")))
        code, out, err = target.run([schema(), record(2), state({"a": 2})])
        assert (code, out) == (1, [])
        assert "another run" in err
        code, out, err = target.run([schema(), record(3), state({"a": 3})], pipeline="other")
        assert (code, out) == (2, [])
        assert "belongs to another pipeline" in err
        assert target.run([schema("t"), record(3, "t"), state({"a": 3})], pipeline="other")[0] == 0
        out, _ = first.communicate()
    assert first.returncode == 0
    assert target.rows() == [(1,)]
    assert target.rows("t") == [(3,)]


def test_a_schema_that_changes_keeps_both(target: Target) -> None:
    """Rows before a change land in files of the old schema, rows after it in files of the new one, in order."""
    wider = schema(properties={"n": {"type": "integer"}, "m": {"type": "string"}})
    code, _, _ = target.run([schema(), record(1), wider, record({"n": 2, "m": "x"}), schema(), record(3), state({})])
    assert code == 0
    names = [pq.read_schema(path).names for path in sorted(target.files())]
    assert sorted(names)[0] == ["n"]
    assert all(set(found) <= {"n", "m"} for found in names)
    assert target.rows(columns="n, m") == [(1, None), (2, "x"), (3, None)]


def test_an_incompatible_schema_change_is_refused_where_the_contract_says_so(target: Target) -> None:
    """With `schema_contract: freeze` a column that changes its type is one clear error; earlier rows stay."""
    messages = [schema(), record(1), state({"a": 1}), schema(properties={"n": {"type": "string"}}), record({"n": "x"})]
    code, out, err = target.run(messages, schema_contract="freeze")
    assert (code, out) == (3, ['{"a": 1}'])
    assert 'column "n"' in err
    assert target.rows() == [(1,)]


def test_metadata_columns_are_added(target: Target) -> None:
    """`add_record_metadata` adds singer-sdk's columns, from the envelope where they come from there."""
    sent = record(1, time_extracted="2024-01-01T00:00:00+02:00", version=7)
    assert target.run([schema(), sent, record(2), state({})], add_record_metadata=True)[0] == 0
    (first, second) = target.rows(columns="n, _sdc_extracted_at, _sdc_table_version, _sdc_deleted_at")
    assert first[1].astimezone(dt.UTC) == dt.datetime(2023, 12, 31, 22, tzinfo=dt.UTC)
    assert first[2:] == (7, None)
    assert second[1:] == (None, None, None)
    ((received, sequence),) = target.rows(columns="DISTINCT _sdc_received_at IS NOT NULL, _sdc_sequence > 1.7e12")
    assert (received, sequence) == (True, True)


def test_stream_maps_and_flattening_work_as_in_any_sdk_target(target: Target) -> None:
    """Maps rename, compute, filter and copy streams; flattening makes columns of nested members."""
    properties = {"n": {"type": "integer"}, "o": {"type": "object", "properties": {"p": {"type": "number"}}}}
    sent = [schema(properties=properties), *[record({"n": n, "o": {"p": n / 2}}) for n in range(4)], state({})]
    maps = {
        "s": {"__filter__": "n > 1", "double": "int(n * 2)"},
        "copy": {"__source__": "s", "n": "n", "__else__": None},
    }
    code, _, err = target.run(sent, stream_maps=maps, flattening_enabled=True, flattening_max_depth=1)
    assert code == 0, err
    assert target.rows(columns="n, double, o__p") == [(2, 4, 1.0), (3, 6, 1.5)]
    assert target.rows("copy") == [(0,), (1,), (2,), (3,)]


def test_nested_and_exact_types_are_read_alike_by_two_engines(target: Target) -> None:
    """Structs, lists, maps, decimals, times and dates come out of DuckDB and Polars with the same values."""
    properties = {
        "id": {"type": "integer"},
        "price": {"type": "number", "multipleOf": 0.0001},
        "at": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "o": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": ["integer", "null"]}}}},
        "m": {"type": "object", "additionalProperties": {"type": "integer"}},
        "j": {"type": "object"},
    }
    sent = {
        "id": 1, "price": 1234567890123456.7891, "at": "2024-05-06T07:08:09.123456+02:00", "day": "2024-05-06",
        "o": {"a": [1, None, 3]}, "m": {"k": 5}, "j": {"deep": [1, {"x": None}]},
    }  # fmt: skip
    data = lines([schema(properties=properties, keys=["id"])])
    data += json.dumps(record(sent)).replace("1234567890123456.8", "1234567890123456.7891").encode() + b"\n"
    code, _, err = target.run(data)
    assert code == 0, err
    (row,) = target.rows(columns='price, "at", day, o, m, j')
    assert row[0] == Decimal("1234567890123456.7891")
    assert row[1].astimezone(dt.UTC) == dt.datetime(2024, 5, 6, 5, 8, 9, 123456, dt.UTC)
    assert row[2:] == (dt.date(2024, 5, 6), {"a": [1, None, 3]}, {"k": 5}, '{"deep":[1,{"x":null}]}')
    (other,) = pl.read_parquet(target.files()[0]).rows(named=True)
    assert other["price"] == row[0]
    assert other["at"] == row[1]
    assert (other["day"], other["o"], other["j"]) == (row[2], row[3], row[5])
    metadata = pq.read_metadata(target.files()[0]).metadata
    assert json.loads(metadata[b"melisma.key_properties"]) == ["id"]
    assert json.loads(metadata[b"melisma.json_schema"])["properties"].keys() == properties.keys()


def test_partitions_become_directories(target: Target) -> None:
    """A partition column leaves the file, a derived one is added; readers give both back."""
    properties = {"c": {"type": ["null", "string"]}, "at": {"type": "string", "format": "date-time"}}
    sent = [{"c": c, "at": f"2024-0{m}-03T00:00:00Z"} for c in ("a/b", "é", None) for m in (1, 2)]
    code, _, err = target.run(
        [schema(properties=properties), *map(record, sent), state({})], partition_by=["c", "month(at)"]
    )
    assert code == 0, err
    assert len(target.files()) == 6
    found = target.rows(columns='c, at_month, "at"')
    assert {row[0] for row in found} == {"a/b", "é", None}
    assert {row[1] for row in found} == {"2024-01", "2024-02"}
    assert len(found) == 6


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"load_method": "replace"}, "load_method"),
        ({"on_bad_record": "explode"}, "fail, skip"),
        ({"compression": "lzo"}, "zstd"),
        ({"compression": "zstd", "compression_level": 99}, "1 to 22"),
        ({"max_open_files": 0}, "max_open_files"),
        ({"pipeline": "../x"}, "pipeline"),
        ({"destination_path": "ftp://x/y"}, "ftp"),
        ({"partition_by": "a"}, "partition_by"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_at_start(
    target: Target, settings: dict[str, Any], said: str
) -> None:
    """Exit 2, one line that names the setting or the valid values, nothing printed, nothing written."""
    code, out, err = target.run([schema(), record(1)], **settings)
    assert (code, out) == (2, [])
    assert said in err
    assert not target.lake.exists()


def test_a_misspelt_setting_is_pointed_out(target: Target) -> None:
    """A setting that does not exist is named, with the nearest one that does."""
    _, _, err = target.run(b"", compresion="zstd")
    assert 'Did you mean "compression"?' in err


def test_memory_does_not_grow_with_the_input(target: Target) -> None:
    """Ten times the input, 170 MB, takes about the same memory, with small row groups and a small file size."""
    properties = {"n": {"type": "integer"}, "t": {"type": "string"}}
    block = lines(record({"n": n, "t": f"{n:0100d}"}) for n in range(10_000))
    peaks = []
    for blocks in (10, 100):
        data = [lines([schema(properties=properties)]), *[block] * blocks]
        peaks.append(target.peak(data, row_group_size_rows=5_000, max_file_size_mb=1))
    assert target.rows(columns="count(*)") == [(1_100_000,)]
    assert peaks[1] < peaks[0] * 1.25


@pytest.mark.parametrize("nested", [False, True])
def test_memory_does_not_grow_with_the_members_that_records_leave_out(target: Target, nested: bool) -> None:
    """100,000 records of one member each, of 500 columns or members of an object: 4 KB a row, of lines of 50 bytes."""
    members = {f"c{n}": {"type": ["null", "integer"]} for n in range(500)}
    properties = {"o": {"type": "object", "properties": members}} if nested else members
    rows = ({f"c{n % 500}": n} for n in range(100_000))
    data = lines(record({"o": row} if nested else row) for row in rows)
    assert target.peak([lines([schema(properties=properties)]), data]) < 400 << 20
    where = "o." if nested else ""
    counted = f"count(*), sum(coalesce({where}c0, 0) + coalesce({where}c499, 0))"
    expected = sum(n for n in range(100_000) if n % 500 in (0, 499))
    assert target.rows(columns=counted) == [(100_000, expected)]


def test_nothing_but_states_goes_to_stdout(target: Target) -> None:
    """Whatever is logged, stdout has STATE lines and nothing else."""
    environment = dict(os.environ, TARGET_PARQUET_LOGLEVEL="DEBUG")
    command = [str(EXECUTABLE), "--config", str(target.config())]
    data = lines([schema(), record(1), state({"a": 1})])
    found = subprocess.run(command, input=data, capture_output=True, env=environment, check=True)
    assert found.stdout == b'{"a": 1}\n'
