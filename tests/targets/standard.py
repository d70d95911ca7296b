"""singer-sdk's standard target tests on a file target, with what was written read back, value by value."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from singer_sdk.testing import get_target_test_class
from singer_sdk.testing.suites import SingerTestSuite
from singer_sdk.testing.templates import TargetFileTestTemplate

from melisma.lake.layout import stream_segment

__all__ = ["same", "standard_tests"]

Rows = list[dict[str, Any]]

_FILES = [
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


def same(sent: Any, found: Any) -> bool:
    """Whether a cell holds what was sent; a member that was not sent is null."""
    if isinstance(found, dict):
        return isinstance(sent, dict) and all(same(sent.get(key), found.get(key)) for key in {*sent, *found})
    if isinstance(found, list):
        return len(sent) == len(found) and all(map(same, sent, found))
    if isinstance(found, dt.datetime):
        return dt.datetime.fromisoformat(sent).astimezone(dt.UTC) == found
    if isinstance(found, Decimal):
        return Decimal(str(sent)) == found
    if isinstance(found, uuid.UUID):
        return str(found) == sent.lower()
    if isinstance(found, str) and not isinstance(sent, str):
        return bool(json.loads(found) == sent)  # kept as JSON text
    return bool(sent == found)


def standard_tests(
    target: type[Any],
    ending: str,
    read: Callable[[Path], Rows],
    is_same: Callable[[Any, Any], bool] = same,
    **config: Any,
) -> tuple[type[Any], type[Any], type[Any]]:
    """Three classes of tests: singer-sdk's suite as it is; the same files read back; commits at every STATE.

    Args:
        target: the target's class.
        ending: of its files, `.avro`.
        read: reads one of them with another library than the one that wrote it.
        is_same: compares a record that was sent with a row that was read.
        config: settings.
    """

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
                folder = Path(self.runner.config["destination_path"]) / stream_segment(stream)
                files = sorted(folder.rglob(f"*{ending}"), key=lambda path: path.name)
                rows = [row for file in files for row in read(file)]
                assert len(rows) == len(records)
                for record, row in zip(records, rows, strict=True):
                    assert is_same(record, row), (record, row)

    class LastState(ReadBack):
        name = "multiple_state_messages"

        def validate(self) -> None:
            """Every record is there, and the STATE printed last is the last one sent, byte for byte.

            The suite's own expectation is that of one sample target.
            """
            super().validate()
            printed = [line for line in str(self.runner.stdout).splitlines() if line]
            assert printed == ['{"test_multiple_state_messages_a": 5, "test_multiple_state_messages_b": 6}']

    class EachState(ReadBack):
        name = "multiple_state_messages"

        def validate(self) -> None:
            """Every record is there, and each STATE was printed, in order, as it was sent."""
            super().validate()
            printed = [json.loads(line) for line in str(self.runner.stdout).splitlines() if line]
            counts = [
                (state["test_multiple_state_messages_a"], state["test_multiple_state_messages_b"]) for state in printed
            ]
            assert counts == [(1, 0), (2, 1), (3, 2), (5, 3), (5, 6)]

    class OwnLake:
        @pytest.fixture(autouse=True)
        def lake(self, tmp_path: Path, runner: Any) -> None:
            """Each test has a lake of its own."""
            runner.config["destination_path"] = str(tmp_path / "lake")

    settings: dict[str, Any] = {"destination_path": "replaced by the fixture", **config}

    def suite(tests: list[type[Any]], **more: Any) -> type[Any]:
        return get_target_test_class(
            target,
            config={**settings, **more},
            custom_suites=[SingerTestSuite(kind="target", tests=tests)],
            include_target_tests=False,
        )

    stock = get_target_test_class(target, config=settings)
    files = suite([*(type(f"ReadBack_{name}", (ReadBack,), {"name": name}) for name in _FILES), LastState])
    states = suite([EachState], commit_interval_minutes=0)
    made: list[type[Any]] = [
        type(f"Test{name}", (OwnLake, tests), {"__doc__": doc})
        for name, tests, doc in (
            ("Standard", stock, "singer-sdk's own suite, as it is."),
            ("ReadBack", files, "The same files, read back."),
            ("EachState", states, "Commits at every STATE."),
        )
    ]
    return made[0], made[1], made[2]
