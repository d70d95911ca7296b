"""What the state remembers: nothing is read twice, nothing is left out, and a dead run goes on where it was."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melisma.errors import ConfigError
from melisma_tap_files.seen import Known, SeenFiles, path_hash, tail_hash, version_hash


def ids(records: list[dict[str, Any]]) -> list[int]:
    """The column `id`."""
    return [record["id"] for record in records]


def lines(first: int, count: int) -> str:
    """CSV rows numbered from `first`."""
    return "".join(f'{n},"text\n{n}"\n' for n in range(first, first + count))


def test_unchanged_files_are_not_read_again(files: Any) -> None:
    """Nor when the run before is repeated with the same state."""
    files.write("a.csv", "id,t\n" + lines(0, 3))
    files.write("b.csv", "id,t\n" + lines(3, 3))
    config = files.config("*.csv")
    first = files.sync(config)
    assert ids(first.records) == [0, 1, 2, 3, 4, 5]
    again = files.sync(config, first.state)
    assert again.records == []
    assert again.state == first.state


def test_a_late_file_with_an_old_time_is_read(files: Any) -> None:
    """Whatever its name and time say."""
    files.write("b.csv", "id,t\n" + lines(0, 1))
    config = files.config("*.csv")
    state = files.sync(config).state
    files.write("a.csv", "id,t\n" + lines(9, 1), mtime=1)
    assert ids(files.sync(config, state).records) == [9]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_grown_file_is_read_from_its_old_end(files: Any, name: str) -> None:
    """Only the rows that came, with line numbers that count from the file's start."""
    head = "id,t\n" if name == "a.csv" else ""

    def rows(first: int, count: int) -> str:
        if name == "a.csv":
            return lines(first, count)
        return "".join(json.dumps({"id": n, "t": str(n)}) + "\n" for n in range(first, first + count))

    config = files.config(name, add_file_metadata=True)
    files.write(name, head + rows(0, 2), mtime=1000)
    state = files.sync(config).state
    files.write(name, head + rows(0, 5), mtime=2000)
    grown = files.sync(config, state)
    assert ids(grown.records) == [2, 3, 4]
    assert grown.records[0]["_sdc_source_lineno"] == (6 if name == "a.csv" else 3)
    assert files.sync(config, grown.state).records == []


def test_a_file_whose_last_line_was_not_ended_grows_too(files: Any) -> None:
    """If the new text begins with the line end; if not, the last row may have been half, and all is read again."""
    config = files.config("a.csv")
    files.write("a.csv", "id,t\n1,a", mtime=1000)
    state = files.sync(config).state
    files.write("a.csv", "id,t\n1,a\n2,b\n", mtime=2000)
    assert ids(files.sync(config, state).records) == [2]
    files.write("a.csv", "id,t\n1,abc\n2,b\n", mtime=2000)
    assert ids(files.sync(config, state).records) == [1, 2]


def test_any_other_change_is_read_again_with_a_warning(files: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Rewritten, shortened, or compressed and grown: the warning says that appending doubles."""
    config = files.config("a.csv*")
    files.write("a.csv", "id,t\n1,a\n2,b\n", mtime=1000)
    files.write("a.csv.gz", gzip.compress(b"id,t\n5,a\n"), mtime=1000)
    state = files.sync(config).state
    files.write("a.csv", "id,t\n1,a\n3,b\n4,c\n", mtime=2000)
    files.write("a.csv.gz", gzip.compress(b"id,t\n5,a\n6,a\n"), mtime=2000)
    changed = files.sync(config, state)
    assert ids(changed.records) == [1, 3, 4, 5, 6]
    assert caplog.text.count("has changed since it was read") == 2
    files.write("a.csv", "id,t\n7,a\n", mtime=3000)
    assert ids(files.sync(config, changed.state).records) == [7]


def test_absent_files_are_remembered(files: Any) -> None:
    """A folder that is not there for one run does not make everything be read again."""
    path = files.write("a.csv", "id,t\n1,a\n", mtime=1000)
    files.write("b.csv", "id,t\n2,a\n", mtime=1000)
    config = files.config("*.csv")
    catalog = files.catalog(config)
    state = files.sync(config, catalog=catalog).state
    text = path.read_bytes()
    path.unlink()
    state = files.sync(config, state, catalog).state
    (files.folder / "b.csv").unlink()
    nothing = files.sync(config, state, catalog)
    assert nothing.records == []
    files.write("a.csv", text, mtime=1000)
    files.write("b.csv", "id,t\n2,a\n", mtime=1000)
    assert files.sync(config, nothing.state, catalog).records == []


def test_full_table_reads_everything_each_time(files: Any) -> None:
    """And leaves the state of the incremental runs as it is."""
    files.write("a.csv", "id,t\n1,a\n")
    config = files.config("*.csv")
    catalog = files.catalog(config)
    state = files.sync(config, catalog=catalog).state
    catalog["streams"][0]["replication_method"] = "FULL_TABLE"
    full = files.sync(config, state, catalog)
    assert ids(full.records) == [1]
    assert full.state == state


def test_a_bookmark_always_has_the_same_keys(files: Any) -> None:
    """Meltano merges states key by key: what is over must be null, not absent."""
    files.write("a.csv", "id,t\n" + lines(0, 3))
    output = files.sync(files.config("*.csv"))
    assert set(output.state["bookmarks"]["s"]) == {"files", "partial"}
    assert output.state["bookmarks"]["s"]["partial"] is None


@pytest.mark.parametrize(
    ("bookmark", "message"),
    [
        ({"files": "9:abc", "partial": None}, "is not of a kind that this version of tap-files knows"),
        ({"files": "1:abc", "partial": None}, "is damaged"),
        ({"files": SeenFiles({5: Known(1, 2)}).pack()[:-1] + "~", "partial": None}, "is damaged"),
        ({"files": None, "partial": {"path": 1}}, "partial.*is damaged"),
    ],
)
def test_a_damaged_state_is_a_plain_error(files: Any, bookmark: Any, message: str) -> None:
    """It says which bookmark, and what to do."""
    files.write("a.csv", "id,t\n1,a\n")
    with pytest.raises(ConfigError, match=message):
        files.sync(files.config("*.csv"), {"bookmarks": {"s": bookmark}})


known = st.builds(Known, st.integers(0, 2**24 - 1), st.integers(0, 2**50), st.none() | st.integers(0, 2**32 - 1))


@given(st.dictionaries(st.integers(0, 2**44 - 1), known))
def test_packing_loses_nothing(found: dict[int, Known]) -> None:
    """Unpack is the inverse of pack, and JSON leaves the text as it is."""
    text = SeenFiles(found).pack()
    assert SeenFiles.unpack(text, "s") == found
    assert json.dumps(text) == f'"{text}"'


def test_a_hundred_thousand_files_make_less_than_a_megabyte_and_a_half() -> None:
    """With sizes of some megabytes, and last bytes known of the newest thousand."""
    seen = SeenFiles()
    for n in range(100_000):
        tail = tail_hash(b"%d" % n) if n < 1000 else None
        path = path_hash(f"s3://bucket/data/year=2024/part-{n:06}.csv")
        seen[path] = Known(version_hash(n, None), 2_000_000 + 37 * n, tail)
    assert len(seen) == 100_000
    assert len(json.dumps({"files": seen.pack()})) < 1_500_000


def _killed(files: Any, config: dict[str, Any], arguments: list[str], rows: int) -> list[str]:
    """Start the executable and kill it with -9 once it has written so many rows; gives its whole lines."""
    process = subprocess.Popen(
        files.command(config, *arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    found: list[str] = []
    for line in process.stdout:
        found.append(line)
        if len(found) >= rows:
            process.send_signal(signal.SIGKILL)
            break
    found += process.stdout.readlines()
    process.wait()
    return [line for line in found if line.endswith("\n")]


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "parquet"])
def test_a_killed_run_goes_on_within_the_file(files: Any, kind: str) -> None:
    """Rows up to the last STATE of each run, put together, are all rows, each once."""
    total, text = 60_000, "some text, to fill the rows, " * 14
    if kind == "parquet":
        table = pa.table({"id": range(total), "t": [text] * total})
        pq.write_table(table, files.folder / "a.parquet", row_group_size=8_000)
    elif kind == "jsonl":
        files.write("a.jsonl", "".join(f'{{"id":{n},"t":"{text}"}}\n' for n in range(total)))
    else:
        data = ("id,t\n" + "".join(f'{n},"{text}\n"\n' for n in range(total))).encode()
        files.write(f"a.{kind}", gzip.compress(data, 1) if kind.endswith("gz") else data)
    config = files.config(f"a.{kind}")
    settled: list[int] = []
    arguments: list[str] = []
    partials = 0
    for limit in (25_000, 25_000, 10**9):
        found = [json.loads(line) for line in _killed(files, config, arguments, limit)]
        last = max((i for i, m in enumerate(found) if m["type"] == "STATE"), default=-1)
        settled += [m["record"]["id"] for m in found[: last + 1] if m["type"] == "RECORD"]
        state = found[last]["value"]
        partials += state["bookmarks"]["s"]["partial"] is not None
        path = files.write("../state.json", json.dumps(state))
        arguments = ["--state", str(path)]
    assert settled == list(range(total))
    assert partials
