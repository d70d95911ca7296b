"""What only one format has to say, from the command line: uuids in Avro, a lone column in CSV, codecs of Arrow."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from forking import ForkedTarget, Outcome
from harness import lines, record, schema, state

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
COLUMNS = {"id": {"type": "integer"}, "uid": {"type": ["string", "null"], "format": "uuid"}}


@pytest.fixture(scope="module")
def avro() -> Iterator[ForkedTarget]:
    """target-avro."""
    with ForkedTarget("melisma_target_avro.target:TargetAvro") as target:
        yield target


@pytest.fixture(scope="module")
def files() -> Iterator[ForkedTarget]:
    """target-files."""
    with ForkedTarget("melisma_target_files.target:TargetFiles") as target:
        yield target


def run(target: ForkedTarget, folder: Path, messages: list[dict[str, Any]], **settings: Any) -> Outcome:
    """A run into `lake` in a folder."""
    (folder / "config.json").write_text(json.dumps({"destination_path": "lake", **settings}))
    return target.run(folder, "--config", "config.json", data=lines(messages))


def type_of_uid(folder: Path) -> Any:
    """The column's type in the newest file."""
    newest = max((folder / "lake/s").glob("*.avro"), key=lambda path: path.name)
    with newest.open("rb") as file:
        fields = fastavro.reader(file).writer_schema["fields"]
    return next(field["type"] for field in fields if field["name"] == "uid")


def test_a_uuid_is_marked_only_where_its_values_are_held_to_it(avro: ForkedTarget, tmp_path: Path) -> None:
    """Readers refuse other values: not without validation, and not where column_types takes the format away."""
    marked = ["null", {"type": "string", "logicalType": "uuid"}]
    good = [schema(properties=COLUMNS), record({"id": 1, "uid": UID}), record({"id": 2, "uid": None}), state({})]
    free = [schema(properties=COLUMNS), record({"id": 3, "uid": "anything"}), state({})]
    assert run(avro, tmp_path, good).exit_code == 0
    assert type_of_uid(tmp_path) == marked
    assert run(avro, tmp_path, free).exit_code == 3
    assert run(avro, tmp_path, free, validate_records=False).exit_code == 0
    assert type_of_uid(tmp_path) == ["null", "string"]
    assert run(avro, tmp_path, free, column_types={"s": {"uid": "string"}}).exit_code == 0
    assert type_of_uid(tmp_path) == ["null", "string"]
    assert run(avro, tmp_path, good).exit_code == 0
    assert type_of_uid(tmp_path) == marked


def test_a_lone_column_in_csv_is_refused_at_its_schema(files: ForkedTarget, tmp_path: Path) -> None:
    """Exit code 3, one line with the way out; with a word for null it lands."""
    messages = [schema(), record(1), state({})]
    outcome = run(files, tmp_path, messages, format="csv")
    assert outcome.exit_code == 3
    [error] = outcome.log("ERROR")
    assert 'stream "s", column "n"' in error
    assert "Set csv.null_value" in error
    assert run(files, tmp_path, messages, format="csv", csv={"null_value": "NULL"}).exit_code == 0
    [path] = (tmp_path / "lake/s").glob("*.csv")
    assert path.read_text() == "n\n1\n"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"format": "arrow", "compression": "gzip"}, "Valid values: none, lz4, zstd"),
        ({"format": "jsonl", "csv": {"delimiter": ";"}}, 'setting "csv"'),
        ({"format": "csv", "compression": "xz", "compression_level": 11}, "from 0 to 9"),
        ({"format": "avro"}, "format"),
    ],
)
def test_a_format_that_cannot_be_is_refused_at_start(
    files: ForkedTarget, tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    """Exit code 2, one line, and nothing is written."""
    outcome = run(files, tmp_path, [schema(), record(1)], **settings)
    assert outcome.exit_code == 2
    [error] = outcome.log("ERROR")
    assert says in error
    assert not (tmp_path / "lake").exists()
