"""verify and duplicates: what they find, and that they find nothing where there is nothing."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_lake import Lake

from melisma.lake.journal import Journal
from melisma.lake.objects import ObjectsOnDisk
from melisma.lake.records import FileEntry, Intent, StagedFile
from melisma.lake_cli import duplicate_keys
from melisma.lake_cli.place import Place
from melisma.storage.filesystem import open_store


def findings(lake: Lake, *arguments: str) -> list[tuple[str, str]]:
    """Kind and file of what verify finds; its exit code says whether that is nothing."""
    result = lake.run("verify", "--json", *arguments)
    found = [(each["kind"], each["path"].rpartition("/")[2]) for each in result.json["findings"]]
    assert result.code == (1 if found else 0)
    assert len(lake.run("verify", *arguments).out.splitlines()) == max(1, len(found))
    return found


def test_a_sound_lake_has_no_findings(lake: Lake) -> None:
    """Neither at a glance nor page by page, and nothing is changed."""
    before = lake.everything()
    assert findings(lake) == findings(lake, "--deep") == []
    assert lake.everything() == before


def test_verify_finds_what_is_missing_cut_replaced_or_extra(lake: Lake) -> None:
    """A file that is gone, a file that is cut off, one with other rows, one that no entry names."""
    gone, cut, other, _, _, model = lake.files()
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    pq.write_table(pa.table({"id": [1, 2, 3, 4, 5]}), other)
    extra = model.with_name(model.name.replace("-000001", "-000099").replace("-000002", "-000099"))
    shutil.copy(model, extra)
    (model.parent / "notes.txt").write_text("not ours")
    assert sorted(findings(lake)) == sorted(
        [
            ("missing", gone.name),
            ("size", cut.name),
            ("unreadable", cut.name),
            ("size", other.name),
            ("rows", other.name),
            ("unnamed", extra.name),
        ]
    )


def test_only_deep_finds_a_damaged_page(lake: Lake) -> None:
    """The footer is whole and the size is right."""
    path = lake.files()[0]
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)
    assert findings(lake) == []
    assert findings(lake, "--deep") == [("unreadable", path.name)]


def test_what_a_writer_is_about_to_commit_is_no_finding(lake: Lake) -> None:
    """Its intent stands in the journal, and its file is there already."""
    model = lake.files()[0]
    name = model.name.rpartition("-")[0] + "-000077.parquet"
    shutil.copy(model, model.with_name(name))
    assert findings(lake) == [("unnamed", name)]
    journal = Journal.load(ObjectsOnDisk(lake.root), "shop")
    path = str(model.with_name(name).relative_to(lake.root))
    journal.append(Intent(run=journal.history.last_run, staged=[StagedFile(path=path, handle="-")]))
    assert findings(lake) == []


def test_duplicates_are_counted_and_shown(lake: Lake) -> None:
    """Order 8 came twice; with another key others do; a key column may be the name of a directory."""
    result = lake.run("duplicates", "--json")
    [found] = result.json
    assert result.code == 1
    assert (found["rows"], found["duplicate_keys"], found["extra_rows"]) == (11, 1, 1)
    assert found["examples"] == [{"key": [8], "rows": 2}]
    [by_country] = lake.run("duplicates", "--stream", "orders", "--key", "country", "--json").json
    assert by_country["examples"] == [{"key": ["fr"], "rows": 6}, {"key": ["de"], "rows": 5}]
    assert lake.run("duplicates", "--key", "id,total,discount", "--json").code == 0


def test_a_key_that_cannot_be_one_is_refused(lake: Lake) -> None:
    """A column that no file has."""
    result = lake.run("duplicates", "--key", "nothing")
    assert (result.code, len(result.errors)) == (2, 1)
    assert "nothing" in result.errors[0]


_VALUES = st.one_of(st.none(), st.integers(-3, 3))
_TEXTS = st.one_of(st.none(), st.sampled_from(["", "a", "b", "ä"]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.lists(st.tuples(_VALUES, _TEXTS), max_size=12), min_size=1, max_size=3),
    at_once=st.sampled_from([1, 5, 1000]),
)
def test_duplicates_are_those_of_a_count_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[list[tuple[int | None, str | None]]], at_once: int
) -> None:
    """However many rows are counted at once, and however the column's type differs between files."""
    monkeypatch.setattr(duplicate_keys, "ROWS_AT_ONCE", at_once)
    entries = []
    for number, rows in enumerate(files):
        kind = pa.int64() if number % 2 else pa.float64()
        columns = {"a": pa.array([a for a, _ in rows], kind), "b": pa.array([b for _, b in rows], pa.string())}
        path = tmp_path / "s" / f"{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), path)
        entries.append(FileEntry(path=f"s/{number}.parquet", stream="s", rows=len(rows), bytes=path.stat().st_size))
    place = Place(open_store(os.fspath(tmp_path), None, distribution="x"), ObjectsOnDisk(tmp_path), "p")
    found = duplicate_keys.find_duplicates(place, "s", entries, ["a", "b"], examples=100)
    rows = [row for each in files for row in each]
    counts = Counter(row for row in rows if None not in row)
    repeated = {key: count for key, count in counts.items() if count > 1}
    assert {tuple(key): count for key, count in found.examples} == repeated
    assert (found.keys, found.extra_rows) == (len(repeated), sum(repeated.values()) - len(repeated))
    assert (found.rows, found.null_rows) == (len(rows), sum(None in row for row in rows))
