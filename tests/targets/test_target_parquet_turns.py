"""target-parquet where many streams take turns: lines and rows wait on the disk, and nothing else is different."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import EXECUTABLE, Target, lines, record, schema, state

_STREAMS = [f"s{number:02}" for number in range(60)]
_TEXT = {f"t{number}": {"type": "string"} for number in range(11)}  # so many columns make a share worth the disk
_ROWS = 4_400  # of each stream, some 90 MB in all: more than memory is good for, as lines and as rows
_EVERY = 13_000  # records to a STATE


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """A target with an empty lake."""
    return Target(tmp_path)


@pytest.fixture(scope="module")
def messages() -> list[bytes]:
    """The lines of 60 streams, a record each in turn, with a STATE now and then and one at the end."""
    found = [lines([schema(stream, {"n": {"type": "integer"}, **_TEXT})]) for stream in _STREAMS]
    sent = 0
    for number in range(_ROWS):
        for stream in _STREAMS:
            texts = {name: f"{name} of {number} in {stream}" for name in _TEXT}
            found.append(lines([record({"n": number, **texts}, stream)]))
            sent += 1
            if sent % _EVERY == 0:
                found.append(lines([state({"n": sent})]))
    return [*found, lines([state({"n": "all"})])]


def _check(target: Target, sent: int) -> None:
    """So many records are there, the first ones, of each stream in one file and in order."""
    for place, stream in enumerate(_STREAMS):
        [file] = (target.lake / stream).rglob("*.parquet")
        rows = sent // len(_STREAMS) + (place < sent % len(_STREAMS))
        query = "SELECT list(n), bool_and(t3 = 't3 of ' || n || ' in ' || ?) FROM read_parquet(?)"
        assert duckdb.execute(query, [stream, str(file)]).fetchall() == [([*range(rows)], True)]


@pytest.mark.parametrize("native", ["0", "1"])
def test_every_row_of_every_stream_lands_in_one_file_each(
    target: Target, messages: list[bytes], monkeypatch: pytest.MonkeyPatch, native: str
) -> None:
    """In order, by the native decoder and without it."""
    monkeypatch.setenv("MELISMA_NATIVE", native)
    code, out, _ = target.run(b"".join(messages))
    assert (code, out) == (0, ['{"n": "all"}'])
    _check(target, _ROWS * len(_STREAMS))


@pytest.mark.parametrize(
    ("bad", "why"), [(b'{"type":"RECORD","stream":"s07","record":{"n":"x"}}\n', "bad record"), (b"{\n", "bad line")]
)
def test_a_fault_among_lines_that_waited_on_the_disk_keeps_what_the_state_before_it_covers(
    target: Target, messages: list[bytes], bad: bytes, why: str
) -> None:
    """All of it, and nothing of what came after that STATE."""
    at = len(messages) * 2 // 3
    code, out, err = target.run(b"".join([*messages[:at], bad, *messages[at:]]))
    sent = (at - len(_STREAMS)) // (_EVERY + 1) * _EVERY
    assert (code, out) == (3, [f'{{"n": {sent}}}']), why
    assert f"line {at + 1}" in err
    _check(target, sent)


def test_a_disk_that_takes_little_costs_files_and_no_rows(target: Target, messages: list[bytes]) -> None:
    """The system refuses files of more than 6 MB, as a full disk would: rows are written out from memory instead."""
    limited = target.folder / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -f {6 * 2048}\nexec {EXECUTABLE} "$@"\n')
    limited.chmod(0o755)
    target.executable = limited
    code, out, _ = target.run(b"".join(messages))
    assert (code, out) == (0, ['{"n": "all"}'])
    query = "SELECT count(*), count(DISTINCT t0), max(n) FROM read_parquet(?)"
    found = duckdb.execute(query, [f"{target.lake}/s*/**/*.parquet"]).fetchall()
    assert found == [(_ROWS * len(_STREAMS), _ROWS * len(_STREAMS), _ROWS - 1)]
