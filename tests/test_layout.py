"""The workspace keeps its shape: one version, typed packages, small modules, nothing of anyone's machine."""

from __future__ import annotations

import ast
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = [ROOT / "shared", *sorted(p.parent for p in ROOT.glob("ta[pr]*s/*/pyproject.toml"))]
CONNECTORS = DISTRIBUTIONS[1:]
MODULES = sorted(file for folder in DISTRIBUTIONS for file in (folder / "src").rglob("*.py"))
LONGEST_MODULE = 600
TEXT = {".md", ".py", ".toml", ".txt", ".yml", ".yaml", ".json", ".jsonl", ".csv", ".sh", ".cfg", ""}

SECRETS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)(?!IOSFODNN7EXAMPLE)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\bgh[pousr]_[0-9A-Za-z]{36}"),
    "a Slack token": re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{20,}"),
    "a PyPI token": re.compile(r"\bpypi-[0-9A-Za-z_-]{50,}"),
}


def project(folder: Path) -> dict[str, Any]:
    """The `project` table of a distribution."""
    table: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def import_package(folder: Path) -> Path:
    """The one package below a distribution's `src`."""
    [package] = [path for path in (folder / "src").iterdir() if (path / "__init__.py").exists()]
    return package


def by_name(path: Path) -> str:
    """A path as a test's id."""
    return str(path.relative_to(ROOT))


def test_there_is_a_shared_library_and_at_least_a_tap_and_a_target() -> None:
    """The lists that the other tests run over are not empty."""
    assert {folder.parent.name for folder in CONNECTORS} == {"taps", "targets"}
    assert len(MODULES) > len(DISTRIBUTIONS)


def test_one_version_everywhere() -> None:
    """All distributions, the library's `__version__` and the changelog name the same version."""
    versions = {project(folder)["version"] for folder in DISTRIBUTIONS}
    assert len(versions) == 1
    [version] = versions
    assert f'__version__ = "{version}"' in (ROOT / "shared/src/melisma/__init__.py").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("folder", CONNECTORS, ids=by_name)
def test_a_connector_pins_the_library_exactly(folder: Path) -> None:
    """Connector and library are released together and only work together."""
    table = project(folder)
    pins = [d for d in table["dependencies"] if re.match(r"melisma(?![-\w])", d)]
    assert [re.sub(r"\[.*\]", "", pin) for pin in pins] == [f"melisma=={table['version']}"]


@pytest.mark.parametrize("folder", CONNECTORS, ids=by_name)
def test_a_connector_is_named_as_its_folder_says(folder: Path) -> None:
    """Folder, distribution, import package and executable follow one rule."""
    table = project(folder)
    assert table["name"] == f"melisma-{folder.name}"
    assert import_package(folder).name == f"melisma_{folder.name.replace('-', '_')}"
    assert list(table["scripts"]) == [folder.name]


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=by_name)
def test_a_distribution_is_typed_licensed_and_described(folder: Path) -> None:
    """Type checkers see its annotations; the licence goes with the wheel; the README is its page on an index."""
    table = project(folder)
    assert (import_package(folder) / "py.typed").exists()
    assert (folder / "LICENSE").read_text(encoding="utf-8") == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert table["license"] == "Apache-2.0"
    assert len((folder / table["readme"]).read_text(encoding="utf-8").splitlines()) > 5
    assert table["requires-python"] == ">=3.11"


def test_dependencies_have_lower_bounds_and_no_caps_but_the_sdks() -> None:
    """A cap makes environments unsolvable for others; singer-sdk breaks with each minor version."""
    for folder in CONNECTORS:
        assert all("<" not in dependency for dependency in project(folder)["dependencies"])
    for dependency in project(ROOT / "shared")["dependencies"]:
        assert ">=" in dependency
        assert "<" not in dependency.partition(";")[0] or dependency.startswith("singer-sdk")


def test_tools_are_configured_at_the_root_only() -> None:
    """One place for ruff, mypy and pytest."""
    for folder in DISTRIBUTIONS:
        tools = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("tool", {})
        assert set(tools) <= {"hatch"}
    strays = {"setup.cfg", "pytest.ini", "mypy.ini", "ruff.toml", ".ruff.toml", "tox.ini", ".flake8"}
    assert not [path for folder in [ROOT, *DISTRIBUTIONS] for path in folder.iterdir() if path.name in strays]


@pytest.mark.parametrize("module", MODULES, ids=by_name)
def test_a_module_is_small_silent_and_documented(module: Path) -> None:
    """At most 600 lines, no call of `print` (stdout is the protocol), a docstring that says what it is."""
    text = module.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= LONGEST_MODULE
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    docstring = ast.get_docstring(tree)
    assert docstring
    assert not docstring.startswith("TODO")


def test_constraints_are_pins_of_names_only() -> None:
    """Names and exact versions: no index, no URL, nothing of this project."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 20
    assert not [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin)]
    assert not [pin for pin in pins if pin.startswith("melisma")]


def test_constraints_pin_what_is_declared() -> None:
    """Every dependency that a pyproject names has its pin, so that `make setup` gives the same everywhere."""
    dev = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]["dev"]
    declared = [*dev, *(d for folder in DISTRIBUTIONS for d in project(folder)["dependencies"])]
    names = {re.split(r"[\[<>=!~; ]", entry)[0].lower().replace("_", "-") for entry in declared} - {"melisma"}
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-")
    pinned = {line.partition("==")[0] for line in text.splitlines()}
    assert names - pinned == set()


def test_no_lock_file_that_names_registry_hosts(project_files: list[Path]) -> None:
    """uv.lock and poetry.lock write down where packages came from: they stay out (docs/decisions)."""
    assert not [file for file in project_files if file.name in {"uv.lock", "poetry.lock", "Pipfile.lock"}]


def test_nothing_of_this_machine_is_in_the_project(project_files: list[Path]) -> None:
    """No path of this checkout or of a home directory, no host name, no address of the package index in use."""
    forbidden = dict.fromkeys(index_hosts(), "the package index")
    for path, what in ((ROOT, "the checkout"), (Path.home(), "the home directory")):
        if len(path.parts) > 2:  # "/root" alone is a word that tests may use
            forbidden[str(path)] = what
    if len(socket.gethostname()) > 8:
        forbidden[socket.gethostname()] = "the host's name"
    found = []
    for file, text in texts(project_files):
        found += [
            f"{by_name(file)}: {what}"
            for value, what in forbidden.items()
            if re.search(rf"(?<![\w.-]){re.escape(value)}(?![\w-])", text)
        ]
    assert found == []


def test_no_secret_is_in_the_project(project_files: list[Path]) -> None:
    """No private key and no token, not even a test's."""
    found = [
        f"{by_name(file)}: {what}"
        for file, text in texts(project_files)
        for what, pattern in SECRETS.items()
        if pattern.search(text)
    ]
    assert found == []


def texts(files: list[Path]) -> list[tuple[Path, str]]:
    """The files that are text."""
    return [(file, file.read_text(encoding="utf-8", errors="replace")) for file in files if file.suffix in TEXT]


def index_hosts() -> set[str]:
    """The hosts of the package indexes that this machine is configured for, without the public one."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, text=True, check=False
    )
    settings = [value for key, value in os.environ.items() if key.startswith(("PIP_", "UV_")) and "://" in value]
    urls = re.findall(r"https?://[^\s'\"]+", "\n".join([listed.stdout, *settings]))
    hosts = {urlsplit(url).hostname or "" for url in urls}
    return hosts - {"", "pypi.org", "files.pythonhosted.org", "localhost", "127.0.0.1"}
