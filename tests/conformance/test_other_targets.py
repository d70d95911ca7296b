"""A share of the malformed inputs, on the file targets that write other formats: what is said of them is the same."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "targets"))

from avro_rows import read_avro
from file_rows import read_json_lines
from forking import ForkedTarget
from malformed import Case
from malformed.table import CASES, PAGE, message, messages_of, run

TARGETS = {
    "avro": ("melisma_target_avro.target:TargetAvro", "*.avro", read_avro, {"compression": "deflate"}),
    "jsonl": ("melisma_target_files.target:TargetFiles", "*.jsonl", read_json_lines, {}),
}
MESSAGES = messages_of(PAGE.read_text(encoding="utf-8"))
COMMON = [case for case in CASES if not (case.config or case.files or case.env) and "Parquet" not in MESSAGES[case.id]]
COMMON = [case for case in COMMON if case.arguments == ("--config", "config.json")]
SHARE = random.Random(5).sample(COMMON, 25)


@pytest.fixture(scope="module", params=TARGETS)
def other(request: pytest.FixtureRequest) -> Iterator[tuple[str, ForkedTarget]]:
    """A target's name in TARGETS, and its runs."""
    with ForkedTarget(TARGETS[request.param][0]) as target:
        yield request.param, target


@pytest.mark.parametrize("case", SHARE, ids=lambda case: case.id)
def test_malformed(case: Case, other: tuple[str, ForkedTarget], tmp_path: Path) -> None:
    """Exit code, message, rows and STATE are those of target-parquet."""
    name, target = other
    _, pattern, read, settings = TARGETS[name]
    outcome = run(target, case, tmp_path, **settings)
    assert outcome.exit_code == case.exit_code
    assert message(outcome, tmp_path) == MESSAGES[case.id]
    rows = [row for path in (tmp_path / "lake").rglob(pattern) for row in read(path)]
    assert tuple(sorted(row["id"] for row in rows)) == case.landed
    assert outcome.stdout == case.stdout
