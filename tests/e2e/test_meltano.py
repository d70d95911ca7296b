"""meltano.yml is a real project: Meltano installs both connectors from this checkout and runs them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import psycopg
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import console_page

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.xdist_group("meltano")]


def pinned(tool: str) -> str:
    """The tool's requirement, as constraints.txt has it."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    match = re.search(rf"^{tool}==.*$", text, re.MULTILINE)
    assert match, f"constraints.txt does not pin {tool}"
    return match[0]


def meltano(project: Path, executable: Path, *arguments: str) -> str:
    """Run Meltano in a project; gives its log.

    Meltano installs with uv, which by default trusts the certificates that it brings and not the system's, as pip
    does: where those differ (a proxy with a certificate of its own), it is told to use the system's.
    """
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment = {**outside, "MELTANO_SEND_ANONYMOUS_USAGE_STATS": "false", "NO_COLOR": "1"}
    environment = {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true", **environment}
    environment["PATH"] = f"{executable.parent}{os.pathsep}{outside['PATH']}"
    result = subprocess.run(
        [str(executable), *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def lake(project: Path) -> dict[str, int]:
    """The data files that the project's target has written, with their time of change."""
    return {str(path): path.stat().st_mtime_ns for path in (project / "output/lake/orders").rglob("*.parquet")}


@pytest.fixture(scope="module")
def installed(
    new_environment: Callable[[str], Any], checkout_copy: Callable[[Sequence[str]], Path]
) -> tuple[Path, Path]:
    """The project after `meltano install`, and Meltano's executable."""
    environment = new_environment(sys.executable)
    environment.install(pinned("meltano"))
    executable: Path = environment.bin / "meltano"
    project = checkout_copy(["meltano.yml", "LICENSE", "shared", "taps", "targets", "demo"])
    meltano(project, executable, "install")
    return project, executable


def test_meltano_runs_the_project_twice_and_the_second_run_moves_nothing(installed: tuple[Path, Path]) -> None:
    """`meltano run tap-files target-parquet` two times, read back with DuckDB."""
    project, executable = installed
    meltano(project, executable, "run", "tap-files", "target-parquet")
    first = lake(project)
    rows = duckdb.execute(
        "SELECT order_id, customer, epoch(ordered_at), total::VARCHAR, ordered_at_month, note FROM read_parquet(?) "
        "ORDER BY order_id",
        [sorted(first)],
    ).fetchall()
    assert rows == [
        (1001, "Ada", 1767431700.0, "19.80", "2026-01", None),
        (1002, "Grace", 1767440412.0, "249.00", "2026-01", 'deliver "by hand", please'),
        (1003, "Alan", 1768662179.0, "5.50", "2026-01", None),
        (1004, "Ada", 1769731199.0, "0.99", "2026-01", "gift 🎁"),
        (1005, "Edsger", 1769904000.0, "42.00", "2026-02", None),
        (1006, "Barbara", 1770798600.0, "1200.00", "2026-02", "two\nlines"),
    ]

    log = meltano(project, executable, "run", "tap-files", "target-parquet")
    assert "0 records in 0 files" in log
    assert lake(project) == first


def test_meltano_reads_a_database_twice_and_the_second_run_moves_what_is_new(
    installed: tuple[Path, Path], postgres_database: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`meltano run tap-postgres target-parquet` by replication key: rows of both runs are in the lake, each once."""
    project, executable = installed
    for name, value in postgres_database.items():
        monkeypatch.setenv(f"TAP_POSTGRES_{'DATABASE' if name == 'dbname' else name.upper()}", value)
    monkeypatch.setenv(
        "TAP_POSTGRES__METADATA",
        json.dumps({"public-sales": {"replication-method": "INCREMENTAL", "replication-key": "ordered_at"}}),
    )
    insert = (
        "INSERT INTO sales SELECT i, timestamptz '2024-01-01Z' + i / 2 * interval '1 hour', i / 4.0 "
        "FROM generate_series({}, {}) i"
    )
    with psycopg.connect(**postgres_database, autocommit=True) as database:  # type: ignore[arg-type]
        database.execute("CREATE TABLE sales (id integer PRIMARY KEY, ordered_at timestamptz, total numeric(9,2))")
        for first, last in ((1, 1000), (1001, 1005)):
            database.execute(insert.format(first, last))
            before = set((project / "output/lake/public-sales").rglob("*.parquet"))
            meltano(project, executable, "run", "tap-postgres", "target-parquet")
            new = sorted(map(str, set((project / "output/lake/public-sales").rglob("*.parquet")) - before))
            ids = duckdb.execute("SELECT id FROM read_parquet(?) ORDER BY id", [new]).fetchall()
            assert ids == [(number,) for number in range(first, last + 1)]
        rows = "SELECT id, extract(epoch FROM ordered_at)::bigint, total::text FROM sales ORDER BY id"
        expected = database.execute(rows).fetchall()
    landed = "SELECT id, epoch(ordered_at)::BIGINT, total::VARCHAR FROM read_parquet(?) ORDER BY id"
    assert duckdb.execute(landed, [f"{project}/output/lake/public-sales/**/*.parquet"]).fetchall() == expected


@pytest.mark.parametrize("loader", ["target-avro", "target-files"])
def test_the_other_file_targets_run_under_meltano(installed: tuple[Path, Path], loader: str) -> None:
    """The same orders, in Avro and as JSON Lines, with a state for each; read back by fastavro and by Python."""
    project, executable = installed
    meltano(project, executable, "run", "tap-files", loader)
    folder = project / "output" / loader.removeprefix("target-") / "orders"
    rows: list[dict[str, Any]] = []
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        data = file.read_bytes()
        avro = loader == "target-avro"
        rows += fastavro.reader(io.BytesIO(data)) if avro else map(json.loads, data.splitlines())
    assert sorted((row["order_id"], row["customer"], Decimal(str(row["total"]))) for row in rows) == [
        (1001, "Ada", Decimal("19.80")),
        (1002, "Grace", Decimal("249.00")),
        (1003, "Alan", Decimal("5.50")),
        (1004, "Ada", Decimal("0.99")),
        (1005, "Edsger", Decimal("42.00")),
        (1006, "Barbara", Decimal("1200.00")),
    ]
    assert "0 records in 0 files" in meltano(project, executable, "run", "tap-files", loader)


def test_a_run_that_is_killed_half_way_is_resumed_from_meltanos_state(installed: tuple[Path, Path]) -> None:
    """docs/resume.md: Meltano, tap and target are killed; no order is missing in the end, and none is there twice."""
    project, executable = installed
    page = console_page.PAGE.read_text(encoding="utf-8")
    [environment] = re.findall(r"^```yaml\n(- name: .*?)^```", page, re.MULTILINE | re.DOTALL)
    file = project / "meltano.yml"
    before = file.read_text(encoding="utf-8")
    console_page.make_orders(project)
    for attempt in range(5):
        # A name of its own each time: Meltano's state belongs to the environment.
        named = environment.replace("name: orders\n  config", f"name: orders{attempt or ''}\n  config")
        file.write_text(before.replace("environments:\n", f"environments:\n{named}"), encoding="utf-8")
        if attempt:
            shutil.rmtree(project / "lake")
        path = [str(Path(sys.executable).parent), str(executable.parent)]
        if console_page.check("Under Meltano, with its own state", project, path, attempt):
            return
    pytest.fail("the run came to its end before it could be killed, five times")


def test_the_project_names_only_settings_that_the_connectors_have() -> None:
    """Each plugin of meltano.yml: its package's folders, its executable, its settings."""
    project = yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8"))
    assert "version" not in project
    plugins = [plugin for kind in project["plugins"].values() for plugin in kind]
    folders = {path.parent.name: path.parent for path in ROOT.glob("ta[pr]*s/*/pyproject.toml")}
    assert {plugin["name"] for plugin in plugins} == set(folders)
    for plugin in plugins:
        folder = folders[plugin["name"]]
        hub = yaml.safe_load((folder / "meltano-hub.yml").read_text(encoding="utf-8"))
        assert plugin["pip_url"] == f"-e ./shared -e ./{folder.relative_to(ROOT)}"
        assert set(plugin["capabilities"]) <= set(hub["capabilities"])
        known = {setting["name"]: setting for setting in hub["settings"]}
        for setting in plugin["settings"]:
            assert setting.get("sensitive", False) == known[setting["name"]].get("sensitive", False)
        assert set(plugin["config"]) <= set(known)
