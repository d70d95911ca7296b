"""The file targets besides target-parquet, from their command lines: the promises that all file targets keep."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from avro_rows import read_avro
from file_rows import read_arrow, read_csv, read_json_lines, read_msgpack
from forking import ForkedTarget
from harness import Message, Target, lines, record, schema, state

from melisma.lake_cli.main import commands

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    executable: str
    ending: str
    read: Callable[[Path], Rows]
    settings: dict[str, Any] = field(default_factory=dict)


KINDS = [
    Kind("avro", "target-avro", "avro", read_avro, {"compression": "deflate"}),
    Kind("jsonl", "target-files", "jsonl", read_json_lines),
    Kind(
        "csv",
        "target-files",
        "csv.gz",
        read_csv,
        {"format": "csv", "compression": "gzip", "csv": {"null_value": "NULL"}},
    ),
    Kind("msgpack", "target-files", "msgpack.zst", read_msgpack, {"format": "msgpack", "compression": "zstd"}),
    Kind("arrow", "target-files", "arrow", read_arrow, {"format": "arrow"}),
]
EVERY = KINDS[:2]
"""One of each executable, for what the format has no part in."""


class Lake(Target):
    """A lake of one kind of file. What starts by `start` is the executable; `run` forks a process that has it."""

    def __init__(self, folder: Path, kind: Kind, forked: ForkedTarget) -> None:
        super().__init__(folder, kind.executable)
        self.kind, self._forked = kind, forked

    def run(self, messages: Iterable[Message] | bytes, *arguments: str, **settings: Any) -> tuple[int, list[str], str]:
        """Run it to its end: exit code, the lines on stdout, and stderr."""
        data = messages if isinstance(messages, bytes) else lines(messages)
        outcome = self._forked.run(self.folder, "--config", str(self.config(**settings)), *arguments, data=data)
        assert "Traceback" not in outcome.stderr, outcome.stderr
        return outcome.exit_code, outcome.stdout.decode().splitlines(), outcome.stderr

    def config(self, **settings: Any) -> Path:
        """A configuration file."""
        return super().config(**{**self.kind.settings, **settings})

    def paths(self, stream: str = "s") -> list[Path]:
        """The stream's files, in order of writing."""
        found = [path for path in (self.lake / stream).rglob("*") if path.is_file()]
        assert all(path.name.endswith(f".{self.kind.ending}") for path in found)
        return sorted(found, key=lambda path: path.name)

    def values(self, stream: str = "s", column: str = "n") -> list[Any]:
        """A column, in order of writing."""
        return [row[column] for path in self.paths(stream) for row in self.kind.read(path)]

    def committed(self) -> Any:
        """The STATE that the lake has."""
        code, out, err = self.run(b"", "--committed-state")
        assert code == 0, err
        return json.loads(out[0])

    def ask(self, *arguments: str) -> tuple[int, str]:
        """`melisma lake <arguments> --path <this lake>`: exit code and stdout."""
        result = CliRunner().invoke(commands, ["lake", *arguments, "--path", str(self.lake)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout


@pytest.fixture(scope="module")
def forked() -> Iterator[Callable[[str], ForkedTarget]]:
    """A process for each executable, from which its runs are forked."""
    plugins = {
        "target-avro": "melisma_target_avro.target:TargetAvro",
        "target-files": "melisma_target_files.target:TargetFiles",
    }
    with contextlib.ExitStack() as stack:
        found: dict[str, ForkedTarget] = {}

        def process(executable: str) -> ForkedTarget:
            if executable not in found:
                found[executable] = stack.enter_context(ForkedTarget(plugins[executable]))
            return found[executable]

        yield process


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def lake(request: pytest.FixtureRequest, forked: Callable[[str], ForkedTarget], tmp_path: Path) -> Lake:
    """An empty lake of each kind."""
    return Lake(tmp_path, request.param, forked(request.param.executable))


def bookmark(number: int) -> dict[str, Any]:
    """A STATE at a row."""
    return state({"bookmarks": {"s": {"replication_key": "n", "replication_key_value": number}}})


def tap(start: int, end: int, every: int = 10) -> Iterator[dict[str, Any]]:
    """What a tap sends that goes on after `start`: its STATE, rows, and a STATE after each tenth."""
    if start:
        yield bookmark(start)
    yield {**schema(), "bookmark_properties": ["n"]}
    for number in range(start + 1, end + 1):
        yield record({"n": number})
        if number % every == 0 or number == end:
            yield bookmark(number)


def test_rows_land_states_come_out_and_a_second_run_goes_on(lake: Lake) -> None:
    """The last STATE is printed as it was sent; `--committed-state` prints what the lake has, {} at first."""
    assert lake.committed() == {}
    code, out, _ = lake.run([schema(), record(1), state({"a": 1.5}), record(2)])
    assert (code, out) == (0, ['{"a": 1.5}'])
    assert lake.committed() == {"a": 1.5}
    assert lake.run([schema(), record(3), state({"a": 2})])[0] == 0
    assert lake.values() == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("acknowledged", [True, False], ids=["state kept", "state lost"])
def test_killed_and_run_again_from_the_committed_state_every_row_is_there_once(lake: Lake, acknowledged: bool) -> None:
    """Kill -9 between commits, three times, with rows after the last STATE each time."""
    done = 0
    for until in (30, 60, 90):
        start = lake.committed().get("bookmarks", {}).get("s", {}).get("replication_key_value", 0)
        assert start == done
        with lake.start(commit_interval_minutes=0, max_file_size_mb=0.0005) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(lines([*tap(start, until), record(until + 1), record(until + 2)]))
            process.stdin.flush()
            if acknowledged:
                while json.loads(process.stdout.readline())["bookmarks"]["s"]["replication_key_value"] < until:
                    pass
            else:
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            process.wait()
        if not acknowledged:
            done = lake.committed()["bookmarks"]["s"]["replication_key_value"]
            assert done >= 10
        else:
            done = until
    code, _, err = lake.run(tap(done, 100))
    assert code == 0, err
    assert lake.values() == list(range(1, 101))
    assert lake.ask("verify")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("lake", EVERY, indirect=True, ids=lambda kind: kind.name)
def test_a_signal_leaves_what_a_state_covers(lake: Lake, signum: int) -> None:
    """The rest is dropped, and the run after it brings it; the exit code says which signal it was."""
    with lake.start(commit_interval_minutes=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines([*tap(0, 20), record(21)]))
        process.stdin.flush()
        while json.loads(process.stdout.readline())["bookmarks"]["s"]["replication_key_value"] < 20:
            pass
        process.send_signal(signum)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (128 + signum, b""), err
    assert b"Traceback" not in err
    assert lake.values() == list(range(1, 21))
    assert lake.run(tap(20, 25))[0] == 0
    assert lake.values() == list(range(1, 26))


def test_overwrite_replaces_all_rows(lake: Lake) -> None:
    """In one commit; the old files are gone."""
    assert lake.run([schema(), *map(record, range(5)), state({"a": 1})])[0] == 0
    assert lake.run([schema(), record(7), record(8), state({"a": 2})], load_method="overwrite")[0] == 0
    assert lake.values() == [7, 8]


@pytest.mark.parametrize("lake", EVERY, indirect=True, ids=lambda kind: kind.name)
def test_upsert_is_refused_at_start_with_the_way_out(lake: Lake) -> None:
    """Exit code 2, before anything is read or written."""
    code, out, err = lake.run([schema(keys=["n"]), record(1)], load_method="upsert")
    assert (code, out) == (2, [])
    assert 'setting "load_method"' in err
    assert "Set append-only or overwrite" in err
    assert not lake.lake.exists()


@pytest.mark.parametrize("lake", EVERY, indirect=True, ids=lambda kind: kind.name)
def test_a_new_version_of_a_table_replaces_the_old_one(lake: Lake) -> None:
    """With hard_delete the old rows go; without it they stay, and a warning says how they would go."""

    def version(number: int, *rows: int) -> list[dict[str, Any]]:
        activate = {"type": "ACTIVATE_VERSION", "stream": "s", "version": number}
        return [schema(), activate, *(record(row, version=number) for row in rows), activate, state({"v": number})]

    assert lake.run(version(1, 1, 2), hard_delete=True)[0] == 0
    assert lake.run(version(2, 3), hard_delete=True)[0] == 0
    assert lake.values() == [3]
    code, _, err = lake.run(version(3, 4))
    assert code == 0, err
    assert "set hard_delete to true" in err
    assert "add_record_metadata" not in err
    assert lake.values() == [3, 4]


@pytest.mark.parametrize("lake", EVERY, indirect=True, ids=lambda kind: kind.name)
def test_dead_letters_are_kept_and_replayed(lake: Lake) -> None:
    """A bad record stands aside in the same commit, and becomes a row when nothing forbids it any more."""
    bounded = schema(properties={"n": {"type": "integer", "maximum": 5}})
    code, out, err = lake.run([bounded, record(7), record(1), state({"a": 1})], on_bad_record="dead_letter")
    assert (code, len(out)) == (0, 1), err
    assert lake.values() == [1]
    code, _, err = lake.run(b"", "--replay-dead-letters", validate_records=False)
    assert code == 0, err
    assert lake.values() == [1, 7]


def test_partitions_become_directories_and_leave_the_file(lake: Lake) -> None:
    """As in every lake."""
    columns = {"n": {"type": "integer"}, "p": {"type": ["string", "null"]}}
    rows = [record({"n": n, "p": None if n == 3 else f"a/{n % 2}"}) for n in range(5)]
    assert lake.run([schema(properties=columns), *rows, state({})], partition_by=["p"])[0] == 0
    folders = {path.parent.name for path in lake.paths()}
    assert folders == {"p=a%2F0", "p=a%2F1", "p=__HIVE_DEFAULT_PARTITION__"}
    assert all(set(row) == {"n"} for path in lake.paths() for row in lake.kind.read(path))
    assert sorted(lake.values()) == [0, 1, 2, 3, 4]


def test_files_roll_by_their_size(lake: Lake) -> None:
    """A small limit makes several files; the rows stay in order and are all there."""
    columns = {"n": {"type": "integer"}, "t": {"type": "string"}}
    noise = random.Random(4)
    rows = [record({"n": n, "t": noise.randbytes(150).hex()}) for n in range(4_000)]
    assert lake.run([schema(properties=columns), *rows, state({})], max_file_size_mb=0.05)[0] == 0
    assert len(lake.paths()) > 3
    assert lake.values() == list(range(4_000))


@pytest.mark.parametrize("lake", EVERY, indirect=True, ids=lambda kind: kind.name)
def test_melisma_lake_looks_into_it_and_rolls_it_back(lake: Lake) -> None:
    """files, log, schema, state, verify, vacuum and rollback, as in a lake of Parquet."""
    assert lake.run(tap(0, 10))[0] == 0
    assert lake.run(tap(10, 20))[0] == 0
    code, out = lake.ask("files", "--paths")
    assert (code, out.splitlines()) == (0, [str(path) for path in lake.paths()])
    entries = json.loads(lake.ask("log", "--json")[1])
    assert [entry["rows"] for entry in entries] == [10, 10]
    assert json.loads(lake.ask("state")[1]) == lake.committed() == bookmark(20)["value"]
    assert "integer" in lake.ask("schema")[1]
    assert lake.ask("vacuum", "--older-than", "0s")[0] == 0
    assert lake.ask("rollback", str(entries[-1]["seq"]), "--yes")[0] == 0
    assert lake.values() == list(range(1, 11))
    assert lake.committed() == bookmark(10)["value"]
    assert lake.run(tap(10, 12))[0] == 0
    assert lake.values() == list(range(1, 13))


@pytest.mark.parametrize("lake", EVERY, indirect=True, ids=lambda kind: kind.name)
def test_melisma_lake_says_what_needs_parquet(lake: Lake) -> None:
    """Verify looks at presence and size, and says so; compact and duplicates leave the files alone, and say so."""
    assert lake.run(tap(0, 10))[0] == 0
    assert lake.run(tap(10, 20))[0] == 0
    before = lake.paths()
    code, out = lake.ask("verify", "--deep")
    assert (code, "2 files are not Parquet: their presence and size were checked, not their rows" in out) == (0, True)
    code, out = lake.ask("compact")
    assert (code, "2 files are not Parquet and stay as they are" in out) == (0, True)
    assert json.loads(lake.ask("compact", "--json")[1])["other_files"] == 2
    assert lake.ask("duplicates")[0] == 0
    assert lake.paths() == before
    before[0].write_bytes(b"")
    code, out = lake.ask("verify")
    assert (code, "it has 0 bytes" in out) == (1, True)
