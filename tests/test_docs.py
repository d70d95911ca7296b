"""The documentation is in step with the code, and its links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from melisma import errors
from melisma.storage.options import BACKENDS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    {
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*/*/README.md"),
        ROOT / "shared/README.md",
    }
)
EXECUTABLES = sorted(p.parent.name for p in ROOT.glob("ta[pr]*s/*/pyproject.toml"))
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def by_name(path: Path) -> str:
    """A path as a test's id."""
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading)) for heading in headings)
    return {heading.strip().lower().replace(" ", "-") for heading in plain}


def about(executable: str) -> dict[str, Any]:
    """What a connector says of itself."""
    command = [str(Path(sys.executable).parent / executable), "--about", "--format=json"]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def undescribed(schema: dict[str, Any], prefix: str = "") -> list[str]:
    """The settings, nested ones too, that say nothing about themselves."""
    found = []
    for name, node in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        found += [] if str(node.get("description", "")).strip() else [path]
        found += undescribed(node, f"{path}.")
        if isinstance(node.get("items"), dict):
            found += undescribed(node["items"], f"{path}[].")
    return found


def test_what_is_generated_is_in_step() -> None:
    """Settings tables, Meltano Hub definitions and docs/types.md are what `make docs` writes."""
    command = [sys.executable, str(ROOT / "tools" / "reference.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"run `make docs`:\n{result.stdout}{result.stderr}"


@pytest.mark.parametrize("executable", EXECUTABLES)
def test_every_setting_has_a_description(executable: str) -> None:
    """Whoever reads `--about` or the README learns what each setting means."""
    schema = about(executable)["settings"]
    assert schema["properties"]
    from_sdk = {"stream_maps", "faker_config", "batch_config"}
    own = {"properties": {name: node for name, node in schema["properties"].items() if name not in from_sdk}}
    assert undescribed(own) == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_resolve(page: Path) -> None:
    """Every relative link names a file that is there, and a heading that is in it."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_lists_every_connector() -> None:
    """The connector table has each connector once, with a link to its README."""
    rows = re.findall(r"^\| \[([\w-]+)\]\(([^)]+)\) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(name for name, _ in rows) == EXECUTABLES
    assert all(link.endswith(f"/{name}/README.md") for name, link in rows)


def test_the_index_lists_every_page() -> None:
    """docs/README.md leads to every page of the documentation."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


def test_commands_that_pages_name_exist() -> None:
    """Each `make x` that a page tells the reader to run is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
        assert named <= targets, by_name(page)


def names(schema: dict[str, Any], prefix: str = "") -> set[str]:
    """The names of all settings, nested ones as messages and pages write them."""
    found: set[str] = set()
    for name, node in schema.get("properties", {}).items():
        found |= {f"{prefix}{name}"} | names(node, f"{prefix}{name}.")
        if isinstance(node.get("items"), dict):
            found |= names(node["items"], f"{prefix}{name}[].")
    return found


def test_the_migration_page_names_settings_that_exist() -> None:
    """Each name in a column "Ours" is a setting, a connector, or what its row explains."""
    known = set().union(*(names(about(executable)["settings"]) for executable in EXECUTABLES))
    known |= {f"storage_options.{key}" for backend in BACKENDS.values() for key in backend.options}
    known |= {*EXECUTABLES, "__alias__", "TARGET_PARQUET_LOGLEVEL", "..."}
    text = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    rows = [row.split("|") for row in re.findall(r"^\| `.*\|$", text, re.MULTILINE)]
    assert rows
    for _, theirs, ours, *_ in rows:
        named = theirs if ours.strip() == "the same" else ours
        for name in re.findall(r"`([^`]+)`", re.sub(r"\(.*?\)", "", named)):
            assert name in known, f"{theirs} -> {ours}"


def test_make_alone_helps() -> None:
    """Every target that a user may call has a line of help."""
    output = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in ("setup", "demo", "test", "lint", "docs", "clean"):
        assert re.search(rf"^make {name} +[A-Z]\S* ", output, re.MULTILINE), name


def test_exit_codes_are_those_of_the_errors() -> None:
    """The table in docs/contract.md has exactly the codes that the exception tree gives."""
    text = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    raised = {cls.exit_code for cls in classes if issubclass(cls, errors.MelismaError)}
    signals = {errors.Interrupted(number).exit_code for number in (2, 15)}
    assert documented == {0} | raised | signals


def test_the_readme_example_does_what_it_says(tmp_path: Path) -> None:
    """The commands under "A minute of it", in a folder with the demonstration's orders; the second run adds nothing."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    match = re.search(r"<!-- example -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert match
    shutil.copytree(ROOT / "demo" / "orders", tmp_path / "demo" / "orders")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    runs = []
    for _ in range(2):
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", match[1]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        state, *files = result.stdout.splitlines()
        assert json.loads(state)["bookmarks"]["orders"]
        runs.append(sorted(files))
    assert [Path(file).parent.name for file in runs[0]] == ["ordered_at_month=2026-01", "ordered_at_month=2026-02"]
    assert runs[1] == runs[0]
