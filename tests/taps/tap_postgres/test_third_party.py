"""tap-postgres into a target of others, as it comes from the package index."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("third-party")]


def test_into_their_target(
    database: Any, new_environment: Callable[[str], Any], find_python: Callable[[str], str], tmp_path: Path
) -> None:
    """target-jsonl reads and validates what tap-postgres writes; with its STATE the next run sends what is new."""
    environment = new_environment(find_python("3.11"))
    environment.install("target-jsonl==0.1.4")
    database.run(
        "CREATE TABLE items (id bigint PRIMARY KEY, name text, price numeric(9,2), at timestamptz, tags text[])",
        "INSERT INTO items VALUES (1, 'Zoë', 1.50, '2024-02-29 10:00Z', '{a}')",
        "INSERT INTO items VALUES (9007199254740993, NULL, NULL, NULL, NULL)",
    )
    (tmp_path / "target.json").write_text(json.dumps({"destination_path": ".", "do_timestamp_file": False}))
    (tmp_path / "catalog.json").write_text(json.dumps(database.incremental("id")), encoding="utf-8")
    arguments = ["--catalog", str(tmp_path / "catalog.json")]
    first = database.execute(database.config(), *arguments)
    state = environment.run("target-jsonl", "--config", "target.json", data=first.stdout.encode(), cwd=tmp_path)
    lines = (tmp_path / "public-items.jsonl").read_text(encoding="utf-8").splitlines()
    assert [list(json.loads(line).values()) for line in lines] == [
        [1, "Zoë", 1.5, "2024-02-29T10:00:00Z", ["a"]],
        [9007199254740993, None, None, None, None],
    ]
    (tmp_path / "state.json").write_bytes(state.splitlines()[-1])
    database.run("INSERT INTO items VALUES (9007199254740994)")
    again = database.execute(database.config(), *arguments, "--state", str(tmp_path / "state.json"))
    records = [json.loads(line) for line in again.stdout.splitlines() if '"RECORD"' in line]
    assert [record["record"]["id"] for record in records] == [9007199254740993, 9007199254740994]
