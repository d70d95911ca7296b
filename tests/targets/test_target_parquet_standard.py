"""singer-sdk's standard target tests, each with what was written read back by another engine, value by value."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest
from singer_sdk.testing import get_target_test_class
from singer_sdk.testing.suites import SingerTestSuite
from singer_sdk.testing.target_tests import TargetMultipleStateMessages
from singer_sdk.testing.templates import TargetFileTestTemplate

from melisma.lake.layout import stream_segment
from melisma_target_parquet.target import TargetParquet

LAKE = {"root": Path()}
"""Where the running test's lake is; the suite takes its configuration when the class is made."""


def stored(stream: str) -> list[dict[str, Any]]:
    """A stream's rows in order of writing, read by Polars file by file."""
    files = sorted((LAKE["root"] / stream_segment(stream)).rglob("*.parquet"), key=lambda path: path.name)
    return [row for file in files for row in pl.read_parquet(file, hive_partitioning=False).to_dicts()]


def same(sent: Any, found: Any) -> bool:
    """Whether a cell holds what was sent; a member that was not sent is null."""
    if isinstance(found, dict):
        return isinstance(sent, dict) and all(same(sent.get(key), found[key]) for key in {*sent, *found})
    if isinstance(found, list):
        return len(sent) == len(found) and all(map(same, sent, found))
    if isinstance(found, dt.datetime):
        return dt.datetime.fromisoformat(sent).astimezone(dt.UTC) == found
    if isinstance(found, Decimal):
        return Decimal(str(sent)) == found
    if isinstance(found, str) and not isinstance(sent, str):
        return bool(json.loads(found) == sent)  # kept as JSON text
    return bool(sent == found)


class ReadBack(TargetFileTestTemplate):
    """A standard file whose every record is looked for in the lake, in order."""

    def validate(self) -> None:
        """Each stream holds its records, in the order in which they were sent."""
        sent = defaultdict(list)
        named: dict[str, set[str]] = {}
        for line in self.singer_filepath.read_text(encoding="utf-8").splitlines():
            message = json.loads(line)
            if message["type"] == "SCHEMA":
                named[message["stream"]] = set(message["schema"]["properties"])
            if message["type"] == "RECORD":
                known = named[message["stream"]]
                sent[message["stream"]].append({k: v for k, v in message["record"].items() if k in known})
        for stream, records in sent.items():
            rows = stored(stream)
            assert len(rows) == len(records)
            for record, row in zip(records, rows, strict=True):
                assert same(record, row), (record, row)


def _read_back(name: str) -> type[ReadBack]:
    return type(f"ReadBack_{name}", (ReadBack,), {"name": f"{name}"})


class MultipleStateMessages(ReadBack):
    """The suite's own expectation is that of one sample target; what counts: the last STATE covers all rows."""

    name = "multiple_state_messages"

    def validate(self) -> None:
        """Every record is there, and the STATE printed last is the last one sent, byte for byte."""
        super().validate()
        printed = [line for line in str(self.runner.stdout).splitlines() if line]
        assert printed == ['{"test_multiple_state_messages_a": 5, "test_multiple_state_messages_b": 6}']


class EachStateCommits(ReadBack):
    """With a commit at every STATE, each one is printed, in order, as it was sent."""

    name = "multiple_state_messages"
    settings: ClassVar = {"commit_interval_minutes": 0}

    def validate(self) -> None:
        """All STATEs come out."""
        super().validate()
        printed = [json.loads(line) for line in str(self.runner.stdout).splitlines() if line]
        counts = [
            (state["test_multiple_state_messages_a"], state["test_multiple_state_messages_b"]) for state in printed
        ]
        assert counts == [(1, 0), (2, 1), (3, 2), (5, 3), (5, 6)]


FILES = [
    "array_data",
    "camelcase",
    "duplicate_records",
    "encoded_string_data",
    "no_primary_keys",
    "optional_attributes",
    "pk_updates",
    "record_missing_fields",
    "schema_no_properties",
    "schema_updates",
    "special_chars_in_attributes",
    "user_location_data",
]

_Standard = get_target_test_class(TargetParquet, config={"destination_path": "replaced by the fixture"})
_ReadBack = get_target_test_class(
    TargetParquet,
    config={"destination_path": "replaced by the fixture"},
    custom_suites=[SingerTestSuite(kind="target", tests=[*map(_read_back, FILES), MultipleStateMessages])],
    include_target_tests=False,
)
_EachState = get_target_test_class(
    TargetParquet,
    config={"destination_path": "replaced by the fixture", "commit_interval_minutes": 0},
    custom_suites=[SingerTestSuite(kind="target", tests=[EachStateCommits])],
    include_target_tests=False,
)


class _OwnLake:
    @pytest.fixture(autouse=True)
    def lake(self, tmp_path: Path, runner: Any) -> None:
        """Each test has a lake of its own."""
        LAKE["root"] = tmp_path / "lake"
        runner.config["destination_path"] = str(LAKE["root"])


class TestStandard(_OwnLake, _Standard):  # type: ignore[valid-type, misc]
    """singer-sdk's own suite, as it is."""


class TestReadBack(_OwnLake, _ReadBack):  # type: ignore[valid-type, misc]
    """The same files, read back."""


class TestEachState(_OwnLake, _EachState):  # type: ignore[valid-type, misc]
    """Commits at every STATE."""


def test_the_stock_expectation_for_states_is_still_switched_off() -> None:
    """singer-sdk itself leaves its test of several STATEs out; when that changes, ours should take it over."""
    from singer_sdk.testing.suites import target_tests

    assert TargetMultipleStateMessages not in target_tests.tests
