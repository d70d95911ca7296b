"""compact, vacuum, rollback: what they change, and what they never do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_lake import BIN, COLUMNS, Lake, messages, order, state

from melisma.lake.journal import Journal
from melisma.lake.lake import FileLake
from melisma.lake.objects import ObjectsOnDisk
from melisma.lake.records import FileEntry, Intent, StagedFile
from melisma.lake_cli.compaction import choose
from melisma.lake_cli.place import in_order
from melisma.storage.filesystem import open_store


def ids(lake: Lake, country: str) -> list[int]:
    """The orders of a country, in the lake's order, read by Polars."""
    paths = [f["path"] for f in lake.run("files", "--json").json if f["partition"] == f"country={country}"]
    return [n for path in paths for n in pl.read_parquet(lake.root / path, columns=["id"])["id"].to_list()]


def everyone(lake: Lake) -> list[tuple[object, ...]]:
    """All rows, read by DuckDB as any reader would."""
    files = f"read_parquet('{lake.root}/orders/**/*.parquet', union_by_name=true, hive_partitioning=true)"
    return list(duckdb.sql(f"SELECT * FROM {files} ORDER BY ALL").fetchall())  # noqa: S608


def test_compaction_keeps_rows_order_and_soundness(lake: Lake) -> None:
    """Four files become two; the rows that the next run has not acknowledged wait; a second time nothing is left."""
    rows, order_before = everyone(lake), ids(lake, "de")
    result = lake.run("compact", "--json").json
    assert [(g["partition"], g["files"], g["into"], g["rows"]) for g in result["compacted"]] == [
        ("country=de", 2, 1, 4),
        ("country=fr", 2, 1, 4),
    ]
    assert result["waiting_files"] == 2
    assert (len(lake.files()), everyone(lake), ids(lake, "de")) == (4, rows, order_before)
    assert lake.run("verify", "--deep").code == 0
    assert lake.run("compact", "--json").json["compacted"] == []
    assert list((lake.root / "_melisma/shop/staging").iterdir()) == []


def test_the_merged_file_says_of_itself_what_the_files_said(lake: Lake) -> None:
    """Schema, key, stream, codec: as the target wrote them."""
    [before, *_] = lake.run("files", "--json").json
    old = pq.ParquetFile(lake.root / before["path"])
    lake.run("compact")
    [after, *_] = lake.run("files", "--json").json
    new = pq.ParquetFile(lake.root / after["path"])
    assert after["rows"] == 4
    assert new.schema_arrow.equals(old.schema_arrow, check_metadata=True)
    assert new.metadata.row_group(0).column(0).compression == old.metadata.row_group(0).column(0).compression


def test_files_of_other_columns_are_left_apart(lake: Lake) -> None:
    """The commit that added a column keeps its own file, once it may be touched."""
    assert lake.load(messages(10, [order(11, discount=0.2)], 11, {**COLUMNS, "discount": {"type": "number"}}))[0] == 0
    rows = everyone(lake)
    assert {g["files"] for g in lake.run("compact", "--json").json["compacted"]} == {2}
    assert [f["rows"] for f in lake.run("files", "--json").json if f["partition"] == "country=de"] == [4, 1, 1]
    assert everyone(lake) == rows


def test_a_dry_run_changes_nothing(lake: Lake) -> None:
    """Of any of the three."""
    before = lake.everything()
    for command in ("compact --dry-run", "vacuum --dry-run --older-than 0s", "rollback 3 --dry-run"):
        assert lake.run(*command.split()).code == 0
    assert lake.everything() == before


def test_compaction_beside_a_writer_hurts_neither(lake: Lake) -> None:
    """A run is open while files are merged; it commits afterwards, and every row is there once."""
    rows = len(everyone(lake))
    lines = [json.dumps(line) + "\n" for line in messages(10, [order(11)], 11, COLUMNS)]
    command = [str(BIN / "target-parquet"), "--config", str(lake.config())]
    with subprocess.Popen(
        command, cwd=lake.folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin
        assert writer.stderr
        writer.stdin.writelines(lines[:3])
        writer.stdin.flush()
        while not any(record["record"] == "open" for record in _journal(lake)[-1:]):
            assert writer.poll() is None
        assert len(lake.run("compact", "--json").json["compacted"]) == 2
        writer.communicate(lines[3])
        assert writer.returncode == 0
    assert len(everyone(lake)) == rows + 1
    assert lake.run("verify", "--deep").code == 0


def _journal(lake: Lake) -> list[dict[str, object]]:
    paths = sorted((lake.root / "_melisma/shop/journal").glob("*.json"))
    return [json.loads(path.read_bytes()) for path in paths]


def test_a_run_that_begins_meanwhile_stops_a_compaction(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, exit code 1, and the lake is as it was."""
    compact = FileLake.compact

    def overtaken(self: FileLake, *arguments: object) -> int:
        other = FileLake(open_store(os.fspath(lake.root), None, distribution="x"), "shop")
        other.recover()
        other.close()
        return compact(self, *arguments)  # type: ignore[arg-type]

    files, rows = lake.files(), everyone(lake)
    monkeypatch.setattr(FileLake, "compact", overtaken)
    result = lake.run("compact")
    assert (result.code, len(result.errors)) == (1, 1)
    monkeypatch.undo()
    assert (lake.files(), everyone(lake)) == (files, rows)
    assert lake.run("verify").code == 0
    assert len(lake.run("compact", "--json").json["compacted"]) == 2


_FILES = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 120), st.booleans(), st.integers(0, 9)), max_size=14)


@given(files=_FILES)
def test_any_choice_keeps_the_order_of_rows(files: list[tuple[int, int, bool, int]]) -> None:
    """Whatever is merged: put in its place, the rows of a partition stand in the order in which they stood."""
    seq, entries, schemas = 1, [], {}
    for number, (step, size, _, columns) in enumerate(files):
        seq += step
        path = f"s/p-20260101T00000{seq % 10}Z{seq:08d}-{number:06d}.parquet"
        entries.append(FileEntry(path=path, stream="s", rows=1, bytes=size, seq=seq, first=seq))
        schemas[path] = pa.schema([(f"c{columns // 5}", pa.int64())])
    free = {entry.path: free for entry, (_, _, free, _) in zip(entries, files, strict=True)}
    assert in_order(entries) == entries
    plan = choose(entries, 100, lambda file: free[file.path], lambda file: schemas[file.path])
    rows = {entry.path: [entry.path] for entry in entries}
    live = list(entries)
    for group in plan.groups:
        assert group.outputs < len(group.inputs)
        assert len({str(schemas[file.path]) for file in group.inputs}) == 1
        last, first = max(f.seq for f in group.inputs), min(f.first for f in group.inputs)
        path = f"s/p-20270101T000000Z00000000-{len(rows):06d}.parquet"
        rows[path] = [row for file in group.inputs for row in rows[file.path]]
        live = [file for file in live if file not in group.inputs]
        live.append(FileEntry(path=path, stream="s", rows=len(rows[path]), bytes=1, seq=last, first=first))
    assert [row for file in in_order(live) for row in rows[file.path]] == [entry.path for entry in entries]


def test_vacuum_removes_what_nothing_refers_to_and_no_more(lake: Lake) -> None:
    """A file of this pipeline that no entry names goes, and so does a dead run's staging; the rest stays."""
    model = lake.files()[0]
    orphan = model.with_name("shop-20250101T000000Z00000000-000001.parquet")
    other = model.with_name("web-20250101T000000Z00000000-000001.parquet")
    mine = model.with_name("export.parquet")
    for path in (orphan, other, mine):
        shutil.copy(model, path)
    dead = lake.root / "_melisma/shop/staging/20250101T000000Z00000000/000001.tmp"
    dead.parent.mkdir(parents=True)
    dead.write_bytes(b"half")
    young = lake.run("vacuum", "--json").json
    assert (young["removed"], young["young_files"]) == ([], 2)
    before = lake.everything()
    removed = lake.run("vacuum", "--older-than", "0s", "--json").json["removed"]
    assert {(r["kind"], r["path"]) for r in removed} == {
        ("unnamed", str(orphan.relative_to(lake.root))),
        ("staging", str(dead.relative_to(lake.root))),
    }
    assert set(before) - set(lake.everything()) == {r["path"] for r in removed}
    assert not dead.parent.exists()


def test_vacuum_leaves_what_is_being_committed(lake: Lake) -> None:
    """A file that an intent names stays, whatever its age; staging stays while a run holds the pipeline."""
    model = lake.files()[0]
    published = model.with_name("shop-20250101T000000Z00000000-000001.parquet")
    shutil.copy(model, published)
    writer = FileLake(open_store(os.fspath(lake.root), None, distribution="x"), "shop")
    writer.recover()
    staged = writer.stage("orders", [], "parquet")
    journal = Journal.load(ObjectsOnDisk(lake.root), "shop")
    path = str(published.relative_to(lake.root))
    journal.append(Intent(run=writer.run, staged=[StagedFile(path=path, handle="-")]))
    result = lake.run("vacuum", "--older-than", "0s", "--json").json
    assert (result["removed"], result["busy"]) == ([], True)
    assert published.exists()
    writer.discard(staged)
    writer.close()


def test_rollback_brings_back_rows_state_and_schema(lake: Lake) -> None:
    """After it a tap that goes on from the old STATE loads the later rows anew; one from the later STATE is refused."""
    result = lake.run("rollback", "8", "--yes", "--json").json
    assert [file["rows"] for file in result["removed"]] == [1, 2]
    assert [row[0] for row in everyone(lake)] == list(range(1, 9))
    assert json.loads(lake.run("state").out) == state(8)
    assert list(lake.run("schema", "--json").json["orders"]["schema"]["schema"]["properties"]) == list(COLUMNS)
    assert lake.run("verify").code == 0
    code, errors = lake.load(messages(10, [order(11)], 11, COLUMNS))
    assert (code, "--committed-state" in errors) == (2, True)
    assert lake.load(messages(8, [order(9), order(10)], 10, COLUMNS))[0] == 0
    assert [row[0] for row in everyone(lake)] == list(range(1, 11))
    assert lake.run("verify", "--deep").code == 0


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [(["8"], "--yes"), (["5", "--yes"], "not a commit"), (["99", "--yes"], "not in the journal")],
)
def test_a_rollback_that_cannot_be_is_refused(lake: Lake, arguments: list[str], rule: str) -> None:
    """One line, exit code 2, nothing changed."""
    before = lake.everything()
    result = lake.run("rollback", *arguments)
    assert (result.code, len(result.errors)) == (2, 1)
    assert rule in result.errors[0]
    assert lake.everything() == before


def test_a_rollback_into_what_was_compacted_is_refused(lake: Lake) -> None:
    """The files of commit 3 hold rows of commit 8 now; going back to 8 is possible."""
    lake.run("compact")
    result = lake.run("rollback", "3", "--yes")
    assert (result.code, len(result.errors)) == (2, 1)
    assert lake.run("rollback", "8", "--yes").code == 0
    assert len(everyone(lake)) == 8


def test_a_rollback_while_a_run_is_under_way_is_refused(lake: Lake) -> None:
    """The run has the pipeline; one line, exit code 1."""
    script = "import sys; from melisma.lake.lake import FileLake; from melisma.storage.filesystem import open_store\n"
    script += (
        "lake = FileLake(open_store(sys.argv[1], None, distribution='x'), 'shop'); lake.recover(); print('open')\n"
    )
    script += "sys.stdout.flush(); sys.stdin.read(); lake.close()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(lake.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        assert run.stdout.readline() == "open\n"
        result = lake.run("rollback", "8", "--yes")
        run.communicate("")
    assert (result.code, len(result.errors)) == (1, 1)
    assert len(everyone(lake)) == 11


def test_many_small_row_groups_are_merged_in_bounded_pieces(tmp_path: Path) -> None:
    """The target's own settings, from --config, say how large row groups and files become."""
    folder = tmp_path / "big"
    folder.mkdir()
    lake = Lake(folder)
    for start in (0, 2000, 4000):
        rows = [{**order(n), "country": "de"} for n in range(start + 1, start + 2001)]
        assert lake.load(messages(start, rows, start + 2000, COLUMNS))[0] == 0
    config = json.loads((folder / "target.json").read_text())
    settings = {**config, "destination_path": str(lake.root), "row_group_size_rows": 1000, "compression": "gzip"}
    (folder / "big.json").write_text(json.dumps(settings))
    command = [str(BIN / "melisma"), "lake", "compact", "--config", str(folder / "big.json"), "--json"]
    shown = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert [group["rows"] for group in shown["compacted"]] == [4000]
    [merged] = [path for path in lake.files() if pq.read_metadata(path).num_rows == 4000]
    footer = pq.read_metadata(merged)
    assert max(footer.row_group(i).num_rows for i in range(footer.num_row_groups)) <= 2000
    assert footer.row_group(0).column(0).compression == "GZIP"
    assert pq.read_table(merged, partitioning=None)["id"].to_pylist() == list(range(1, 4001))
