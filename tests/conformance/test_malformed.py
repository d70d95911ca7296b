"""Malformed inputs end in one line, the documented exit code, no traceback, no value, and no row lost before them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from forking import ForkedTarget, Outcome
from malformed import BAD_LINE, LAST, PRIVATE, Case
from malformed.table import CASES, PAGE, message, messages_of, page, run, told

EXECUTABLE = Path(sys.executable).with_name("target-parquet")


def ids(lake: Path) -> tuple[int, ...]:
    """The `id` of every row in a lake, in order, as DuckDB reads them."""
    files = [str(path) for path in lake.rglob("*.parquet")] if lake.is_dir() else []
    if not files:
        return ()
    rows = duckdb.read_parquet(files, union_by_name=True).project("id").order("id").fetchall()
    return tuple(row[0] for row in rows)


def directories(lake: Path) -> list[str]:
    """What a reader finds in a lake."""
    return sorted(path.name for path in lake.iterdir() if path.name != "_melisma") if lake.is_dir() else []


def hold_to_the_rules(case: Case, outcome: Outcome, folder: Path) -> None:
    """What holds for every input, refused or not."""
    output = outcome.stdout.decode() + outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "internal error" not in outcome.stderr
    for hidden in (PRIVATE, *case.hidden):
        assert hidden not in output
    ours = {"config.json", "stdin", "stdout", "stderr", "lake", *case.files}
    assert {path.name for path in folder.iterdir()} <= ours
    assert list(folder.rglob("*.tmp")) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_malformed(case: Case, target_parquet: ForkedTarget, tmp_path: Path) -> None:
    """The exit code, the message, the rows and the STATE are those of the table, and of the page."""
    outcome = run(target_parquet, case, tmp_path)
    said = told(outcome)
    hold_to_the_rules(case, outcome, tmp_path)
    assert outcome.exit_code == case.exit_code, said
    if case.exit_code:
        assert len(said) == case.lines
        assert case.says in said[0]
        assert not case.names_line or re.search(rf"\bline {BAD_LINE}\b", said[0]), said[0]
    else:
        assert outcome.log("ERROR") == []
        assert case.says in "\n".join(said)
        assert case.says or not said
    assert ids(tmp_path / "lake") == case.landed
    assert directories(tmp_path / "lake") == sorted((case.directory or "").split())
    assert outcome.stdout == case.stdout
    written = messages_of(PAGE.read_text(encoding="utf-8"))
    assert message(outcome, tmp_path) == written.get(case.id), "see tests/conformance/write_malformed_page.py"


ALIKE = [case for case in CASES if case.skip is not None and not case.config]


@pytest.mark.parametrize("case", [case for case in CASES if case.skip and case.config], ids=lambda case: case.id)
def test_malformed_skipped(case: Case, target_parquet: ForkedTarget, tmp_path: Path) -> None:
    """With `on_bad_record: skip` the bad record is left out and counted, and everything else is there."""
    outcome = run(target_parquet, case, tmp_path, on_bad_record="skip")
    hold_to_the_rules(case, outcome, tmp_path)
    assert outcome.exit_code == 0, outcome.log("ERROR")
    assert ids(tmp_path / "lake") == case.skip
    assert outcome.stdout == LAST


def test_all_bad_records_skipped_in_one_run(target_parquet: ForkedTarget, tmp_path: Path) -> None:
    """As many streams as there are bad records, in one input: each loses its bad record, is told of it, and no more."""
    streams = {f"t{number}": case for number, case in enumerate(ALIKE)}
    renamed = (case.data.replace(b'"stream": "s"', f'"stream": "{name}"'.encode()) for name, case in streams.items())
    hidden = tuple(hidden for case in ALIKE for hidden in case.hidden)
    whole = Case("all", "", b"".join(renamed), hidden=hidden)
    outcome = run(target_parquet, whole, tmp_path, on_bad_record="skip")
    hold_to_the_rules(whole, outcome, tmp_path)
    assert outcome.exit_code == 0, outcome.log("ERROR")
    landed = {case.id: ids(tmp_path / "lake" / name) for name, case in streams.items()}
    assert landed == {case.id: case.skip for case in ALIKE}
    assert outcome.stdout == LAST
    warnings = "\n".join(told(outcome))
    for name in streams:
        assert re.search(rf'stream "{name}": \d records skipped: column "', warnings)


@pytest.mark.parametrize("case", [case for case in CASES if case.as_executable], ids=lambda case: case.id)
def test_malformed_as_executable(case: Case, tmp_path: Path) -> None:
    """The real executable does what the forked runs do."""

    class Executable(ForkedTarget):
        def __init__(self) -> None:
            pass

        def run(self, folder: Path, *arguments: str, data: bytes = b"", env: dict[str, str] | None = None) -> Outcome:
            done = subprocess.run(
                [EXECUTABLE, *arguments],
                input=data,
                cwd=folder,
                env=os.environ | (env or {}),
                capture_output=True,
                check=False,
            )
            return Outcome(done.returncode, done.stdout, done.stderr.decode())

    outcome = run(Executable(), case, tmp_path)
    hold_to_the_rules(case, outcome, tmp_path)
    assert (outcome.exit_code, outcome.stdout) == (case.exit_code, case.stdout)
    assert message(outcome, tmp_path) == messages_of(PAGE.read_text(encoding="utf-8")).get(case.id)
    assert ids(tmp_path / "lake") == case.landed


def test_the_page_is_in_step() -> None:
    """The page has a line for each case, as the table describes it, and no other."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(messages_of(text)), "run tests/conformance/write_malformed_page.py"
    assert len({case.id for case in CASES}) == len(CASES)
    assert len([case for case in CASES if case.exit_code]) >= 90


TYPES = r"(string|json|number|decimal\(38,0\))"
ADVICE = re.compile(rf'column "([^"]+)", line \d+: .*Set column_types .*?to "?{TYPES}"?(?:,| for|`)')
ADVISED = {
    case.id: match.groups()
    for case in CASES
    if (match := ADVICE.search(messages_of(PAGE.read_text(encoding="utf-8")).get(case.id) or ""))
}


@pytest.mark.parametrize("case", [case for case in CASES if case.id in ADVISED], ids=lambda case: case.id)
def test_the_advice_helps(case: Case, target_parquet: ForkedTarget, tmp_path: Path) -> None:
    """Where a message says which type to set in `column_types`, that makes the input one that is accepted."""
    column, kind = ADVISED[case.id]
    outcome = run(target_parquet, case, tmp_path, column_types={"*": {column: kind}})
    hold_to_the_rules(case, outcome, tmp_path)
    assert outcome.exit_code == 0, outcome.log("ERROR")
