"""log, show, files, state, schema: what they say about a lake."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest
from small_lake import BIN, Lake, state

ALL = ["log", "show 3", "files", "state", "schema", "verify", "compact --dry-run", "vacuum", "rollback 8 --dry-run"]


def test_log_is_newest_first_and_counts_rows_files_and_bytes(lake: Lake) -> None:
    """Each commit with its run, streams, rows, files, bytes and STATE; `--limit` keeps the newest."""
    rows = lake.run("log", "--json").json
    assert [(r["seq"], r["kind"], r["rows"], r["files"], r["streams"]) for r in rows] == [
        (13, "commit", 3, 2, ["orders"]),
        (8, "commit", 4, 2, ["orders"]),
        (3, "commit", 4, 2, ["orders"]),
    ]
    assert sum(r["bytes"] for r in rows) == sum(path.stat().st_size for path in lake.files())
    assert [json.loads(r["state"]) for r in rows] == [state(10), state(8), state(4)]
    assert [r["seq"] for r in lake.run("log", "--limit", "1", "--json").json] == [13]


def test_show_gives_the_whole_entry(lake: Lake) -> None:
    """As JSON it is the journal's entry, with the STATE as a value; as text it names every file."""
    shown = lake.run("show", "8", "--json").json
    [path] = (lake.root / "_melisma/shop/journal").glob("*8.json")
    stored = json.loads(path.read_bytes())
    assert shown["adds"] == stored["adds"]
    assert shown["state"] == json.loads(stored["state"])
    assert all(added["path"] in lake.run("show", "8").out for added in stored["adds"])


def test_files_are_those_on_disk_in_the_order_of_their_rows(lake: Lake) -> None:
    """Two engines read from `--paths` what is in the lake."""
    files = lake.run("files", "--json").json
    assert [f["commit"] for f in files] == [3, 3, 8, 8, 13, 13]
    assert sum(f["rows"] for f in files) == 11
    paths = lake.run("files", "--paths", "--stream", "orders").out.splitlines()
    assert sorted(map(Path, paths)) == lake.files()
    assert lake.run("files", "--paths", "--json").json == paths
    assert duckdb.read_parquet(paths, union_by_name=True).count("*").fetchall() == [(11,)]
    assert sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in paths) == 11


def test_state_is_what_the_target_says(lake: Lake) -> None:
    """Byte for byte what `--committed-state` prints."""
    command = [str(BIN / "target-parquet"), "--config", str(lake.config()), "--committed-state"]
    told = subprocess.run(command, capture_output=True, check=True, text=True, cwd=lake.folder).stdout
    assert lake.run("state").out == told


def test_schema_says_when_it_changed(lake: Lake) -> None:
    """Columns as they are now, and the commits at which they came."""
    shown = lake.run("schema", "--json").json["orders"]
    assert list(shown["schema"]["schema"]["properties"]) == ["id", "customer", "country", "total", "discount"]
    changes = [(step["seq"], step["change"]) for step in shown["history"]]
    assert changes == [(3, "first seen, 4 columns"), (13, "+discount number")]


def test_a_lake_that_is_not_there_is_a_usage_error(tmp_path: Path, lake: Lake) -> None:
    """One line, exit code 2, and nothing is created."""
    result = lake.call("lake", "log", "--path", str(tmp_path / "nowhere"))
    assert (result.code, len(result.errors)) == (2, 1)
    assert "no lake is there" in result.errors[0]
    assert not (tmp_path / "nowhere").exists()


def test_a_lake_of_several_pipelines_asks_which(lake: Lake) -> None:
    """Without `--pipeline` both are named; with it, each shows its own."""
    schema = {"type": "SCHEMA", "stream": "visits", "schema": {"properties": {"country": {"type": "string"}, "n": {}}}}
    row = {"type": "RECORD", "stream": "visits", "record": {"country": "de", "n": 1}}
    assert lake.load([{**schema, "key_properties": []}, row], pipeline="web")[0] == 0
    result = lake.run("files")
    assert (result.code, "shop, web" in result.errors[0]) == (2, True)
    files = lake.run("files", "--pipeline", "web", "--json").json
    assert [(f["stream"], f["rows"]) for f in files] == [("visits", 1)]
    lake.config("web")
    assert lake.run("files", "--config", str(lake.folder / "target.json"), "--json").json == files


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["log"], "--path"),
        (["log", "--path", "ftp://host/lake"], "not known"),
        (["log", "--config", "nowhere.json"], "cannot read nowhere.json"),
        (["show", "0", "--path", "."], "--help"),
        (["vacuum", "--path", ".", "--older-than", "soon"], "such as 1h"),
        (["log", "--path", ".", "--pipeline", "../x"], "file name"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(lake: Lake, arguments: list[str], rule: str) -> None:
    """The line says what is wrong."""
    result = lake.call("lake", *arguments)
    assert (result.code, len(result.errors)) == (2, 1), result
    assert rule in result.errors[0]


@pytest.mark.parametrize("command", ALL)
def test_every_command_has_text_and_json(lake: Lake, command: str) -> None:
    """Text of short lines, and one JSON document."""
    assert lake.run(*command.split()).out.strip()
    lake.run(*command.split(), "--json").json  # noqa: B018 - raises if it is not JSON


def test_the_executable_fails_in_one_line(tmp_path: Path) -> None:
    """On stderr, with the exit code; `--version` answers without pyarrow."""
    command = [str(BIN / "melisma"), "lake", "log", "--path", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    code = "import melisma.lake_cli.main, sys; print('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_terminal_gets_a_table_and_a_question(lake: Lake) -> None:
    """Rules and colours where a person reads; a rollback asks there, and "no" changes nothing."""
    before = lake.everything()
    shown = in_terminal(lake, "log")
    assert "\x1b[1m" in shown
    assert "─" in shown
    assert "orders=10" in shown
    shown = in_terminal(lake, "rollback", "3", answer="n\n")
    assert "Delete 4 files with 7 rows" in shown
    assert "nothing was changed" in shown
    assert lake.everything() == before


def in_terminal(lake: Lake, *arguments: str, answer: str = "") -> str:
    """What a command shows on a terminal of 120 columns; the answer is typed when it asks."""
    outer, inner = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    environment.pop("NO_COLOR", None)
    command = [str(BIN / "melisma"), "lake", *arguments, "--path", str(lake.root)]
    shown = b""
    with subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=environment) as process:
        while process.poll() is None or select.select([outer], [], [], 0)[0]:
            if select.select([outer], [], [], 0.1)[0]:
                shown += os.read(outer, 65_536)
            if answer and b"[y/N]" in shown:
                os.write(outer, answer.encode())
                answer = ""
    os.close(inner)  # only now: a terminal that nobody has open cannot be read
    os.close(outer)
    return shown.decode()


def test_a_damaged_journal_is_one_line(lake: Lake) -> None:
    """Every command says which entry is damaged, and ends with 1."""
    [path] = (lake.root / "_melisma/shop/journal").glob("*8.json")
    path.write_bytes(path.read_bytes()[:40])
    for command in ("log", "files", "verify"):
        result = lake.run(command)
        assert (result.code, len(result.errors)) == (1, 1)
        assert path.name in result.errors[0]
