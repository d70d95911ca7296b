"""Places that fail: a full disk, a folder that cannot be written, half an entry, two writers, clocks that jump."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from source_tap import rows_of

BIN = Path(sys.executable).parent
SEED = 5


def lines(first: int, count: int) -> bytes:
    """What an SDK tap with an inclusive key would send: a STATE after every 25 records and at the end."""
    schema = {"properties": {"id": {"type": "integer"}, "changed": {"type": "integer"}, "entry": {"type": "integer"}}}
    schema["properties"]["text"] = {"type": "string"}
    message = {"type": "SCHEMA", "stream": "log", "schema": schema, "key_properties": ["id"]}
    found = [] if not first else [_state(first - 1)]
    found.append(json.dumps(message | {"bookmark_properties": ["changed"]}))
    for row in rows_of("log", SEED, first + count)[3 * ((first - 1) // 3) if first else 0 :]:
        record = dict(zip(("id", "changed", "entry", "text"), row, strict=True))
        found.append(json.dumps({"type": "RECORD", "stream": "log", "record": record}))
        if row[2] % 25 == 24 or row[2] == first + count - 1:
            found.append(_state(row[2]))
    return "".join(line + "\n" for line in found).encode()


def _state(entry: int) -> str:
    bookmark = {"replication_key": "changed", "replication_key_value": entry // 3}
    return json.dumps({"type": "STATE", "value": {"bookmarks": {"log": bookmark}}})


def load(
    root: Path, data: bytes, *, env: dict[str, str] | None = None, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    """One run of the executable."""
    return subprocess.run(
        [*before, *command(root)], input=data, capture_output=True, env={**os.environ, **(env or {})}, check=False
    )


def command(root: Path) -> list[str]:
    """The executable with a configuration; that lies beside the lake."""
    config = root.parent / f"{root.name}.json"
    if not config.exists():
        config.write_text(json.dumps({"destination_path": str(root), "commit_interval_minutes": 0}))
    return [str(BIN / "target-parquet"), "--config", str(config)]


def rows(root: Path) -> Counter[tuple[int, int, int, str]]:
    """Every row that a reader sees."""
    files = [str(path) for path in (root / "log").glob("*.parquet")]
    if not files:
        return Counter()
    return Counter(duckdb.execute("SELECT id, changed, entry, text FROM read_parquet(?)", [files]).fetchall())


def whole(count: int) -> Counter[tuple[int, int, int, str]]:
    """The first rows of the source, each once."""
    return Counter(rows_of("log", SEED, count))


def one_line(result: subprocess.CompletedProcess[bytes]) -> str:
    """The one error that a failed run reports."""
    errors = [line for line in result.stderr.decode().splitlines() if "| ERROR" in line]
    assert len(errors) == 1, result.stderr.decode()
    assert "Traceback" not in result.stderr.decode()
    return errors[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a megabyte, with a lake on it."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs to be root on Linux")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_one_line_and_the_next_one_goes_on(small_disk: Path, tmp_path: Path) -> None:
    """What is committed stays, no STATE goes out for the rest; with room again every row is there once."""
    root = small_disk / "lake"
    (small_disk / "lake.json").write_text(json.dumps({"destination_path": str(root), "commit_interval_minutes": 0}))
    first = load(root, lines(0, 60))
    assert first.returncode == 0
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - 65536)  # some room, so that it fails in the middle of things
    full = load(root, lines(60, 600))
    assert full.returncode == 1
    assert "no space is left" in one_line(full)
    kept = full.stdout.splitlines() or first.stdout.splitlines()
    reached = json.loads(kept[-1])["bookmarks"]["log"]["replication_key_value"]
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    again = load(root, lines(3 * reached + 1, 660 - 3 * reached - 1))
    assert again.returncode == 0, again.stderr.decode()
    assert rows(root) == whole(660)


def test_a_folder_that_cannot_be_written_is_refused_before_a_row_is_read(tmp_path: Path) -> None:
    """With its path, in one line; exit 1; nothing is printed."""
    place = tmp_path / "place"
    root = place / "lake"
    before: tuple[str, ...] = ()
    place.mkdir()
    command(root)
    if os.geteuid() == 0:
        mounted = subprocess.run(["mount", "--bind", str(place), str(place)], capture_output=True, check=False)
        if mounted.returncode:
            pytest.skip("neither a user who is bound by permissions, nor one who may mount")
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
    else:
        place.chmod(0o555)
    try:
        result = load(root, lines(0, 10), before=before)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(place)], check=True)
        else:
            place.chmod(0o755)
    assert result.returncode == 1
    assert result.stdout == b""
    assert "lake" in one_line(result)


@pytest.mark.slow
def test_of_two_writers_the_second_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    """Nothing of the first is lost, nothing of the second is there."""
    root = tmp_path / "lake"
    data = lines(0, 100)
    cut = data.index(b"\n", len(data) // 2) + 1
    first = subprocess.Popen(command(root), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert first.stdin
    first.stdin.write(data[:cut])
    first.stdin.flush()
    journal = root / "_melisma/default/journal"
    for _ in range(600):
        if journal.exists() and len(list(journal.glob("*.json"))) > 3:
            break
        time.sleep(0.05)
    second = load(root, data)
    assert second.returncode == 1
    assert "another run is under way" in one_line(second)
    assert second.stdout == b""
    printed, _ = first.communicate(data[cut:])
    assert first.returncode == 0
    assert rows(root) == whole(100)
    assert json.loads(printed.splitlines()[-1]) == json.loads(_state(99))["value"]


@pytest.mark.slow
def test_a_stopped_writer_that_wakes_up_after_another_took_over_commits_nothing(tmp_path: Path) -> None:
    """It was taken for dead since it was on another machine; it is fenced, and prints no STATE."""
    root = tmp_path / "lake"
    assert load(root, lines(0, 30)).returncode == 0
    data = lines(30, 60)
    cut = data.index(b"\n", len(data) // 2) + 1
    first = subprocess.Popen(command(root), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert first.stdin
    first.stdin.write(data[:cut])
    first.stdin.flush()
    journal = root / "_melisma/default/journal"
    for _ in range(600):
        if (
            b'"commit"' in max(journal.glob("*.json")).read_bytes()
            or b'"release"' in max(journal.glob("*.json")).read_bytes()
        ):
            break
        time.sleep(0.05)
    first.send_signal(signal.SIGSTOP)
    (root / "_melisma/default/lock").unlink()  # a lock that a file server has dropped
    for path in journal.glob("*.json"):  # ... and a process that nobody here can look for
        path.write_bytes(path.read_bytes().replace(b'"boot": "', b'"boot": "other-'))
    second = load(root, lines(30, 60))
    first.send_signal(signal.SIGCONT)
    _, log = first.communicate(data[cut:])
    assert second.returncode == 0, second.stderr.decode()
    assert first.returncode == 1
    assert b"another run has taken over" in log
    assert rows(root) == whole(90)


@pytest.mark.parametrize("keep", [0, 40, -2])
def test_half_an_entry_is_an_error_that_names_it(tmp_path: Path, keep: int) -> None:
    """Not what a crash can leave, but what a broken disk can: the run stops, and changes nothing."""
    root = tmp_path / "lake"
    assert load(root, lines(0, 30)).returncode == 0
    entry = sorted((root / "_melisma/default/journal").glob("*.json"))[2]
    entry.write_bytes(entry.read_bytes()[:keep])
    files = sorted(path for path in root.rglob("*") if path.is_file())
    result = load(root, lines(30, 30))
    assert result.returncode == 1
    assert entry.name in one_line(result)
    assert result.stdout == b""
    assert sorted(path for path in root.rglob("*") if path.is_file()) == files


def test_what_a_crash_in_the_middle_of_an_entry_leaves_is_passed_over(tmp_path: Path) -> None:
    """Half an entry has no name yet."""
    root = tmp_path / "lake"
    assert load(root, lines(0, 30)).returncode == 0
    journal = root / "_melisma/default/journal"
    last = max(journal.glob("*.json"))
    following = f"{int(last.name[:20]) + 1:020}"
    (journal / f".{following}.json.0123456789abcdef.tmp").write_bytes(last.read_bytes()[:50])
    assert load(root, lines(30, 30)).returncode == 0
    assert rows(root) == whole(60)


JUMPED = """
import datetime, sys, time_machine
from melisma_target_parquet.target import TargetParquet
days = int(sys.argv.pop(1))
with time_machine.travel(datetime.datetime.now(datetime.UTC) + datetime.timedelta(days), tick=True):
    TargetParquet.cli()
"""


@pytest.mark.slow
def test_clocks_that_jump_change_nothing(tmp_path: Path) -> None:
    """Runs a year ahead and two back, killed between; order comes from numbers alone."""
    root = tmp_path / "lake"
    printed = 0
    days = [(365, ""), (-365, "commit:after"), (2, "publish:one"), (-700, ""), (0, "")]
    for number, (day, point) in enumerate(days, 1):
        data = lines(printed, 40 * number - printed)
        environment = {**os.environ, "MELISMA_FAILPOINT": point}
        jumped = [sys.executable, "-c", JUMPED, str(day), *command(root)[1:]]
        result = subprocess.run(jumped, input=data, capture_output=True, env=environment, check=False)
        assert result.returncode == (-signal.SIGKILL if point else 0), result.stderr.decode()
        if result.stdout:
            printed = 3 * json.loads(result.stdout.splitlines()[-1])["bookmarks"]["log"]["replication_key_value"] + 1
    assert rows(root) == whole(200)
    years = {path.name.split("-")[1][:4] for path in (root / "log").iterdir()}
    assert len(years) > 1  # the clocks did jump
