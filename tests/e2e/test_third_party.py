"""Our connectors beside other people's, as they come from the package index: a tap of theirs, a target of theirs."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("third-party")]

BIN = Path(sys.executable).parent
CITIES = [("Köln", "1084831", "405.02", "F", "18150405"), ("Roma", "2755309", "1287.36", "T", "19460602")]
NOWHERE = ("Nowhere", "", "", "?", "")
ITEMS = '''\
id,name,price,day,ok,at
1,"Zoë, ""x""",1.50,2024-02-29,true,2024-02-29T10:00:00Z
2,,,,,
9007199254740993,😀,-0.25,1999-12-31,false,1999-12-31T23:59:59.123456Z
'''


@pytest.fixture(scope="session")
def tap_dbf(new_environment: Callable[[str], Any], find_python: Callable[[str], str]) -> Any:
    """A tap on an older singer-sdk than ours, which reads dBASE files."""
    environment = new_environment(find_python("3.11"))
    environment.install("tap-dbf==0.1.25")
    return environment


@pytest.fixture(scope="session")
def target_jsonl(new_environment: Callable[[str], Any], find_python: Callable[[str], str]) -> Any:
    """A target without singer-sdk: singer-python and jsonschema of 2017."""
    environment = new_environment(find_python("3.11"))
    environment.install("target-jsonl==0.1.4")
    return environment


def ours(executable: str, *arguments: str, cwd: Path, data: bytes = b"") -> bytes:
    """Run a connector of this checkout; gives its stdout."""
    done = subprocess.run([BIN / executable, *arguments], cwd=cwd, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def dbase(rows: list[tuple[str, ...]]) -> bytes:
    """A dBASE III file in Windows-1252."""
    fields = [("NAME", "C", 20, 0), ("PEOPLE", "N", 10, 0), ("AREA", "N", 12, 2), ("CAPITAL", "L", 1, 0)]
    fields += [("FOUNDED", "D", 8, 0)]
    size = 1 + sum(length for _, _, length, _ in fields)
    file = struct.pack("<BBBBIHH17xB2x", 3, 124, 1, 31, len(rows), 32 + 32 * len(fields) + 1, size, 3)
    for name, kind, length, decimals in fields:
        file += struct.pack("<11sc4xBB14x", name.encode(), kind.encode(), length, decimals)
    file += b"\r"
    for row in rows:
        file += b" " + b"".join(
            value.encode("cp1252").rjust(length) if kind == "N" else value.encode("cp1252").ljust(length)
            for value, (_, kind, length, _) in zip(row, fields, strict=True)
        )
    return file + b"\x1a"


def test_their_tap_into_target_parquet(tap_dbf: Any, tmp_path: Path) -> None:
    """What tap-dbf reads is in the lake, typed, and its STATE comes back as it was sent."""
    (tmp_path / "cities.dbf").write_bytes(dbase([*CITIES, NOWHERE]))
    (tmp_path / "tap.json").write_text(json.dumps({"path": str(tmp_path / "cities.dbf")}))
    (tmp_path / "target.json").write_text(json.dumps({"destination_path": "lake"}))
    lines = tap_dbf.run("tap-dbf", "--config", "tap.json", cwd=tmp_path)
    state = ours("target-parquet", "--config", "target.json", cwd=tmp_path, data=lines)
    assert json.loads(state) == json.loads(lines.splitlines()[-1])["value"]
    lake = duckdb.read_parquet(f"{tmp_path}/lake/cities/*.parquet")
    types = dict(zip(lake.columns, map(str, lake.types), strict=True))
    assert {name: kind for name, kind in types.items() if not name.startswith("_sdc_")} == {
        "NAME": "VARCHAR",
        "PEOPLE": "BIGINT",
        "AREA": "DOUBLE",
        "CAPITAL": "BOOLEAN",
        "FOUNDED": "TIMESTAMP WITH TIME ZONE",
    }
    rows = lake.project("NAME, PEOPLE, AREA, CAPITAL, epoch(FOUNDED)").order("NAME").fetchall()
    assert rows == [
        ("Köln", 1084831, 405.02, False, -4883241600.0),
        ("Nowhere", None, None, None, None),
        ("Roma", 2755309, 1287.36, True, -744249600.0),
    ]


def test_tap_files_into_their_target(target_jsonl: Any, tmp_path: Path) -> None:
    """target-jsonl reads and validates what tap-files writes, exactly; with its STATE the next run sends nothing."""
    (tmp_path / "items.csv").write_text(ITEMS, encoding="utf-8")
    stream = {"name": "items", "path": "items.csv", "key_properties": ["id"]}
    (tmp_path / "tap.json").write_text(json.dumps({"streams": [stream]}))
    (tmp_path / "target.json").write_text(json.dumps({"destination_path": ".", "do_timestamp_file": False}))
    lines = ours("tap-files", "--config", "tap.json", cwd=tmp_path)
    state = target_jsonl.run("target-jsonl", "--config", "target.json", data=lines, cwd=tmp_path)
    written = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    names = ["id", "name", "price", "day", "ok", "at"]
    assert [list(row.values()) for row in written] == [
        [1, 'Zoë, "x"', 1.5, "2024-02-29", True, "2024-02-29T10:00:00Z"],
        [2, None, None, None, None, None],
        [9007199254740993, "😀", -0.25, "1999-12-31", False, "1999-12-31T23:59:59.123456Z"],
    ]
    assert [list(row) for row in written] == [names] * 3
    (tmp_path / "state.json").write_bytes(state.splitlines()[-1])
    again = ours("tap-files", "--config", "tap.json", "--state", "state.json", cwd=tmp_path)
    assert b'"RECORD"' not in again
    assert json.loads(again.splitlines()[-1])["value"] == json.loads(state.splitlines()[-1])


@pytest.mark.slow
def test_their_tap_for_postgresql_into_target_parquet(
    new_environment: Callable[[str], Any],
    find_python: Callable[[str], str],
    postgres_database: dict[str, str],
    tmp_path: Path,
) -> None:
    """meltanolabs-tap-postgres by replication key, twice, with the STATE that target-parquet committed."""
    environment = new_environment(find_python("3.11"))
    environment.install("meltanolabs-tap-postgres==0.10.0")
    insert = (
        "INSERT INTO sales SELECT i, timestamptz '2024-01-01 12:00Z' + i * interval '1 minute', i / 4.0, "
        "jsonb_build_object('i', i), ARRAY['a', i::text], i % 2 = 0 FROM generate_series({}, {}) i"
    )
    address = {("database" if name == "dbname" else name): value for name, value in postgres_database.items()}
    config = {**address, "port": int(address["port"]), "filter_schemas": ["public"]}
    (tmp_path / "tap.json").write_text(json.dumps(config))
    (tmp_path / "target.json").write_text(json.dumps({"destination_path": "lake"}))
    rows = "SELECT id, extract(epoch FROM changed)::bigint, total::float8, tags, odd FROM sales ORDER BY id"
    landed = "SELECT id, epoch(changed)::BIGINT, total::DOUBLE, tags, odd FROM read_parquet(?) ORDER BY id"
    with psycopg.connect(**postgres_database, autocommit=True) as database:  # type: ignore[arg-type]
        database.execute(
            "CREATE TABLE sales (id bigint PRIMARY KEY, changed timestamptz NOT NULL, total numeric(9,2), more jsonb, "
            "tags text[], odd boolean)"
        )
        catalog = json.loads(environment.run("tap-postgres", "--config", "tap.json", "--discover", cwd=tmp_path))
        for entry in catalog["streams"][0]["metadata"]:
            entry["metadata"]["selected"] = True
            if not entry["breadcrumb"]:
                entry["metadata"] |= {"replication-method": "INCREMENTAL", "replication-key": "changed"}
        (tmp_path / "catalog.json").write_text(json.dumps(catalog))
        arguments = ["--config", "tap.json", "--catalog", "catalog.json"]
        for first, last in ((1, 500), (501, 510)):
            database.execute(insert.format(first, last))
            lines = environment.run("tap-postgres", *arguments, cwd=tmp_path)
            ours("target-parquet", "--config", "target.json", cwd=tmp_path, data=lines)
            committed = ours("target-parquet", "--config", "target.json", "--committed-state", cwd=tmp_path)
            (tmp_path / "state.json").write_bytes(committed)
            arguments = ["--config", "tap.json", "--catalog", "catalog.json", "--state", "state.json"]
            lake = duckdb.execute(landed, [f"{tmp_path}/lake/*/*.parquet"]).fetchall()
            assert lake == database.execute(rows).fetchall()
