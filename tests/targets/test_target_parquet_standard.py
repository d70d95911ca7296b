"""singer-sdk's standard target tests, with what was written read back by DuckDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from singer_sdk.testing import get_target_test_class
from singer_sdk.testing.suites import SingerTestSuite
from singer_sdk.testing.templates import TargetFileTestTemplate

from melisma_target_parquet.target import TargetParquet

LAKE = {"root": Path()}
"""Where the running test's lake is; the suite takes its configuration when the class is made."""


def rows(stream: str, order: str = "ALL") -> list[tuple[Any, ...]]:
    """All rows of a stream, by column name, files of different schemas joined."""
    files = f"{LAKE['root']}/{stream}/**/*.parquet"
    found = duckdb.sql(f"SELECT * FROM read_parquet('{files}', union_by_name=true) ORDER BY {order}").fetchall()  # noqa: S608
    return list(found)


class ReadBack(TargetFileTestTemplate):
    """A standard file test whose rows are read back."""

    stream: str
    expected: list[tuple[Any, ...]]

    def validate(self) -> None:
        """What landed is what was sent."""
        assert rows(self.stream) == self.expected


class DuplicateRecords(ReadBack):
    """Append-only keeps what was sent, in both copies."""

    name = "duplicate_records"
    stream = "test_duplicate_records"
    expected = [(1, 100), (1, 20), (1, 30), (2, 20), (2, 200), (2, 300)]  # noqa: RUF012

    def validate(self) -> None:
        """Every record landed."""
        sent = sorted(
            (record["id"], record["metric"])
            for record in _sent(self.singer_filepath.read_text())  # type: ignore[attr-defined]
        )
        assert rows(self.stream) == sent


class MultipleStateMessages(TargetFileTestTemplate):
    """All records land, and the STATE printed last is the last one sent, as it was sent."""

    name = "multiple_state_messages"

    def validate(self) -> None:
        """Every record is there; the STATE at the end covers them."""
        assert rows("test_multiple_state_messages_a") == [(n, n * 100) for n in range(1, 7)]
        assert rows("test_multiple_state_messages_b") == [(n, n * 110) for n in range(1, 7)]
        states = [line for line in self.runner.state_messages if line]
        assert states[-1] == {"test_multiple_state_messages_a": 5, "test_multiple_state_messages_b": 6} or (
            json.loads(str(states[-1]).replace("'", '"'))
            == {"test_multiple_state_messages_a": 5, "test_multiple_state_messages_b": 6}
        )


class SchemaUpdates(TargetFileTestTemplate):
    """Rows of each schema land, old ones first; columns that came later are null in old rows."""

    name = "schema_updates"

    def validate(self) -> None:
        """As many rows as were sent, and the union of the columns."""
        sent = list(_sent(self.singer_filepath.read_text()))  # type: ignore[attr-defined]
        found = rows("test_schema_updates")
        assert len(found) == len(sent)
        names = {name for record in sent for name in record}
        columns = duckdb.sql(
            f"DESCRIBE SELECT * FROM read_parquet('{LAKE['root']}/test_schema_updates/*.parquet', union_by_name=true)"  # noqa: S608
        ).fetchall()
        assert names <= {column[0] for column in columns}


def _sent(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        message = json.loads(line)
        if message["type"] == "RECORD":
            yield message["record"]


READ_BACK = SingerTestSuite(kind="target", tests=[MultipleStateMessages, DuplicateRecords, SchemaUpdates])

_Standard = get_target_test_class(TargetParquet, config={"destination_path": "{lake}"}, custom_suites=[READ_BACK])


class TestTargetParquetStandard(_Standard):  # type: ignore[valid-type, misc]
    """singer-sdk's own suite."""

    @pytest.fixture(autouse=True)
    def lake(self, tmp_path: Path, runner: Any) -> None:
        """Each test has a lake of its own."""
        LAKE["root"] = tmp_path / "lake"
        runner.config["destination_path"] = str(LAKE["root"])
