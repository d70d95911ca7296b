"""Bad records kept aside: in the same commit as the rows, counted, limited, and fed back."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
import zstandard

INTEGER = {"type": ["null", "integer"]}
STRING = {"type": ["null", "string"]}
KEEP = {"on_bad_record": "dead_letter"}


def record(value: Any, stream: str = "s") -> dict[str, Any]:
    """A RECORD with an id and a column `c`."""
    return {"type": "RECORD", "stream": stream, "record": {"c": value}}


def state(value: Any) -> dict[str, Any]:
    """A STATE."""
    return {"type": "STATE", "value": value}


def schema(stream: str = "s") -> dict[str, Any]:
    """A SCHEMA with an integer `c`."""
    return {"type": "SCHEMA", "stream": stream, "schema": {"properties": {"c": INTEGER}}, "key_properties": []}


def lines(*messages: dict[str, Any]) -> bytes:
    """Messages as a tap writes them."""
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def values(lake: Any, stream: str = "s", column: str = "c") -> list[Any]:
    """A column, read by Polars, in order of its files."""
    found: list[Any] = []
    for file in lake.files(stream):
        frame = pl.read_parquet(file)
        found += frame[column].to_list() if column in frame.columns else [None] * len(frame)
    return found


def letters(path: Path) -> list[dict[str, Any]]:
    """A file of dead letters, read as anyone could."""
    with zstandard.ZstdDecompressor().stream_reader(path.read_bytes()) as stream:
        return [json.loads(line) for line in io.TextIOWrapper(stream, encoding="utf-8")]


def last_commit(lake: Any) -> dict[str, Any]:
    """The newest entry that changed the lake."""
    found: dict[str, Any] = [each for each in lake.commits() if each["record"] in {"commit", "compact"}][-1]
    return found


def test_each_bad_record_is_one_letter_on_both_sides_of_a_state(lake: Any) -> None:
    """Those before the newest STATE and those after it: each once, with its own line and record."""
    data = lines(schema(), record("a"), record(1), record("b"), state({"a": 1}), record("c"), record(2), record("d"))
    assert lake.run(data, **KEEP)[0] == 0
    kept = [letter for file in lake.letters() for letter in letters(file)]
    assert [(each["line"], json.loads(each["record"])["record"]["c"]) for each in kept] == [
        (2, "a"),
        (4, "b"),
        (6, "c"),
        (8, "d"),
    ]
    assert values(lake) == [1, 2]


def test_bad_records_are_kept_with_the_reason(lake: Any) -> None:
    """The line as it came, where it stood and what was wrong; good rows land, and both are counted in one entry."""
    bad = '{"type": "RECORD", "stream": "s", "record": {"c": "naïve"}, "time_extracted": "2024-01-01T00:00:00Z"}'
    data = lines(schema(), record(1)) + bad.encode() + b"\n" + lines(record(2), state({"a": 1}))
    code, out, err = lake.run(data, **KEEP)
    assert (code, out) == (0, ['{"a": 1}'])
    assert "1 records kept as dead letters" in err
    assert "naïve" not in err
    (file,) = lake.letters()
    (letter,) = letters(file)
    entry = last_commit(lake)
    assert letter.pop("at").endswith("+00:00")
    assert letter == {
        "stream": "s",
        "line": 3,
        "column": "c",
        "reason": "is text, not an integer",
        "record": bad,
        "run": entry["run"],
    }
    assert entry["counts"]["s"] == {"read": 3, "written": 2, "dead": 1}
    assert {each.get("kind", "data"): each["rows"] for each in entry["adds"]} == {"data": 2, "dead_letter": 1}
    assert values(lake) == [1, 2]
    query = f"SELECT reason FROM read_json('{lake.root}/_melisma/*/dead_letters/*/*.jsonl.zst')"  # noqa: S608
    assert duckdb.sql(query).fetchall() == [("is text, not an integer",)]


def test_a_letter_is_text_whatever_its_line_is(lake: Any) -> None:
    """Bytes in a member that nobody reads may be no UTF-8: they are replaced, in that line alone."""
    odd = b'{"type": "RECORD", "stream": "s", "record": {"c": "a"}, "x": "\xff\xe2\x82"}\n'
    other = {**record('\u00e9"\x01'), "x": "\U0001f600"}
    data = lines(schema()) + odd + json.dumps(other, ensure_ascii=False).encode() + b"\n" + lines(state({}))
    assert lake.run(data, **KEEP)[0] == 0
    (file,) = lake.letters()
    assert [each["record"] for each in letters(file)] == [
        odd.decode("utf-8", "replace").rstrip("\n"),
        json.dumps(other, ensure_ascii=False),
    ]


def test_letters_are_cut_where_the_rows_are(lake: Any) -> None:
    """A run that is cut off keeps the letters that its last STATE covers, and no later ones."""
    data = lines(schema(), record("a"), record(1), state({"a": 1}), record("b"), record(2)) + b'{"type": "RECO'
    code, out, _ = lake.run(data, **KEEP)
    assert (code, out) == (3, ['{"a": 1}'])
    assert [json.loads(each["record"])["record"]["c"] for file in lake.letters() for each in letters(file)] == ["a"]
    assert values(lake) == [1]


def test_letters_alone_are_a_commit(lake: Any) -> None:
    """A run in which every record is bad commits them with its STATE."""
    code, out, _ = lake.run(lines(schema(), record("a"), record("b"), state({"a": 1})), **KEEP)
    assert (code, out, len(lake.files())) == (0, ['{"a": 1}'], 0)
    assert [len(letters(file)) for file in lake.letters()] == [2]


def test_a_line_that_is_no_message_still_ends_the_run(lake: Any) -> None:
    """Dead letters are for records; broken framing is an error."""
    code, _, err = lake.run(lines(schema(), record(1)) + b"not json\n" + lines(state({})), **KEEP)
    assert (code, "line 3" in err) == (3, True)


@pytest.mark.parametrize("policy", ["skip", "dead_letter"])
def test_too_many_bad_records_end_the_run(lake: Any, policy: str) -> None:
    """The one too many ends it with exit 3; what the STATE before it settles is committed."""
    data = lines(
        schema(), record(1), record("a"), state({"a": 1}), record(2), record("b"), record("c"), state({"a": 2})
    )
    code, out, err = lake.run(data, on_bad_record=policy, max_bad_records=1)
    assert (code, out) == (3, ['{"a": 1}'])
    assert "line 6: the run has met more than 1 bad records" in err
    assert values(lake) == [1]
    assert len(lake.letters()) == (policy == "dead_letter")
    assert lake.run(data, on_bad_record=policy, max_bad_records=3)[0] == 0


def test_letters_of_mapped_streams_hold_the_input(lake: Any) -> None:
    """With stream maps the letter is of the stream that comes out, and its record is the line that went in."""
    mapped = {"stream_maps": {"s": {"__alias__": "t", "c": "c", "d": "'x'"}}}
    data = lines(schema(), record(1), record("a"), state({}))
    assert lake.run(data, **KEEP, **mapped)[0] == 0
    (letter,) = letters(lake.letters("t")[0])
    assert (letter["stream"], letter["line"], json.loads(letter["record"])) == ("t", 3, record("a"))
    overridden = {**mapped, "column_types": {"t": {"c": "string"}}}
    assert lake.run(b"", "--replay-dead-letters", **KEEP, **overridden)[0] == 0
    assert (values(lake, "t"), values(lake, "t", "c__string"), values(lake, "t", "d")) == (
        [1, None],
        [None, "a"],
        ["x", "x"],
    )


def test_letters_are_fed_back_after_a_fix(lake: Any) -> None:
    """Good ones become rows, bad ones new letters with the new reason; one entry; STATE stays as it is."""
    lake.run(lines(schema(), record(1), record("2.5"), record("x"), state({"a": 1})), **KEEP)
    before = letters(lake.letters()[0])
    code, out, err = lake.run(b"", "--replay-dead-letters", column_types={"s": {"c": "decimal(12,2)"}}, **KEEP)
    assert (code, out, "1 dead letters are rows now, 1 are still bad" in err) == (0, [], True)
    assert [str(value) for value in values(lake)] == ["1", "2.50"]
    (file,) = lake.letters()
    (letter,) = letters(file)
    assert {key: letter[key] for key in ("line", "run", "record")} == {
        key: before[1][key] for key in ("line", "run", "record")
    }
    assert letter["reason"] == "is text that is not a number"
    entry = last_commit(lake)
    assert (entry["counts"]["s"], len(entry["removes"])) == ({"read": 2, "written": 1, "dead": 1}, 1)
    assert lake.run(b"", "--committed-state")[1] == ['{"a": 1}']
    code, _, err = lake.run(b"", "--replay-dead-letters", column_types={"s": {"c": "string"}}, **KEEP)
    assert (code, "1 dead letters are rows now, 0 are still bad" in err, lake.letters()) == (0, True, [])
    assert values(lake, column="c__string") == [None, None, "x"]
    code, _, err = lake.run(b"", "--replay-dead-letters", **KEEP)
    assert (code, "0 dead letters are rows now" in err) == (0, True)


def test_what_was_fed_back_goes_with_its_commit(lake: Any) -> None:
    """A tap that starts before the letters' commit sends the records again: their rows are replaced, not doubled."""
    first = lines(state({"bookmarks": {"s": {"at": 1}}}), schema(), record(1), state({"bookmarks": {"s": {"at": 2}}}))
    assert lake.run(first, **KEEP)[0] == 0
    later = [record("3"), record(4), state({"bookmarks": {"s": {"at": 3}}})]
    assert lake.run(lines(state({"bookmarks": {"s": {"at": 2}}}), schema(), *later), **KEEP)[0] == 0
    numbers = {"column_types": {"s": {"c": "decimal(12,0)"}}}
    assert lake.run(b"", "--replay-dead-letters", **numbers, **KEEP)[0] == 0
    assert sorted(map(int, values(lake))) == [1, 3, 4]
    again = lake.run(lines(state({"bookmarks": {"s": {"at": 2}}}), schema(), *later), **numbers, **KEEP)
    assert again[0] == 0
    assert sorted(map(int, values(lake))) == [1, 3, 4]
    assert lake.letters() == []


def test_melisma_lake_feeds_letters_back(lake: Any) -> None:
    """`melisma lake replay-dead-letters` shows what waits, and has the target do it."""
    lake.run(lines(schema(), record("2"), record("x"), state({})), column_types={"s": {"c": "integer"}}, **KEEP)
    config = lake.folder / "config.json"
    settings = {"destination_path": str(lake.root), "column_types": {"s": {"c": "decimal(12,0)"}}, **KEEP}
    config.write_text(json.dumps(settings))
    command = [str(Path(sys.executable).with_name("melisma")), "lake", "replay-dead-letters", "--config", str(config)]

    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run([*command, *arguments], capture_output=True, timeout=120, check=False)
        return done.returncode, done.stdout.decode()

    code, out = run("--dry-run", "--json")
    assert (code, json.loads(out)) == (0, {"dry_run": True, "waiting": {"s": 2}})
    assert run()[0] == 2
    code, out = run("--target", "target-parquet", "--json")
    assert (code, json.loads(out)) == (0, {"dry_run": False, "replayed": {"s": 2}})
    assert (list(map(int, values(lake))), len(lake.letters())) == ([2], 1)


def test_a_replay_finds_the_pipeline_that_meltano_named(lake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration names no pipeline: the target had it from Meltano, and the command from the lake."""
    monkeypatch.setenv("MELTANO_EXTRACTOR_NAME", "tap-x")
    assert lake.run(lines(schema(), record("2"), state({})), **KEEP)[0] == 0
    monkeypatch.delenv("MELTANO_EXTRACTOR_NAME")
    config = lake.folder / "config.json"
    settings = {"destination_path": str(lake.root), "column_types": {"s": {"c": "decimal(12,0)"}}, **KEEP}
    config.write_text(json.dumps(settings))
    command = [str(Path(sys.executable).with_name("melisma")), "lake", "replay-dead-letters", "--config", str(config)]
    done = subprocess.run([*command, "--target", "target-parquet"], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert list(map(int, values(lake))) == [2]
    assert list((lake.root / "_melisma").glob("*/journal")) == [lake.root / "_melisma/tap-x/journal"]


def test_upsert_has_no_replay(lake: Any) -> None:
    """An old record would take the place of a newer one: refused with the way out, and nothing is changed."""
    lake.run(lines(schema(), record("a"), state({})), **KEEP)
    code, _, err = lake.run(b"", "--replay-dead-letters", load_method="upsert", **KEEP)
    assert (code, "load_method" in err, len(lake.letters())) == (2, True, 1)


@pytest.mark.parametrize("place", ["redelivery:published", "redelivery:after"])
def test_a_replay_that_dies_doubles_nothing(lake: Any, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before its entry it has changed nothing, after it everything; the next run tidies up."""
    lake.run(lines(schema(), record(1), record("2"), state({"a": 1})), **KEEP)
    fix = {"column_types": {"s": {"c": "decimal(12,0)"}}}
    monkeypatch.setenv("MELISMA_FAILPOINT", place)
    assert lake.run(b"", "--replay-dead-letters", **fix, **KEEP)[0] != 0
    monkeypatch.delenv("MELISMA_FAILPOINT")
    assert lake.run(b"", "--replay-dead-letters", **fix, **KEEP)[0] == 0
    assert lake.run(lines(state({"a": 1}), schema(), state({"a": 1})), **fix, **KEEP)[0] == 0
    assert sorted(map(int, values(lake))) == [1, 2]
    assert lake.letters() == []
