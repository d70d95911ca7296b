"""Each connector installs alone, from the checkout and from wheels, and works with nothing but its dependencies."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "shared" / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    if line.startswith("version")
)
CONNECTORS = sorted(p.parent for p in ROOT.glob("ta[pr]*s/*/pyproject.toml"))
FOLDERS = {folder.name: f"./{folder.relative_to(ROOT)}" for folder in CONNECTORS}
NOT_NEEDED = {
    "duckdb",
    "polars",
    "pandas",
    "numpy",
    "pytest",
    "hypothesis",
    "mypy",
    "ruff",
    "s3fs",
    "boto3",
    "fastavro",
}
"""What development or an extra brings; a plain installation must not."""

OWN_NEEDS = {"target-avro": {"numpy"}}
"""Of these, what a connector cannot do without."""

CSV = "id,name,seen\n1,Ada,2026-01-01T00:00:00Z\n2,Grace,\n3,,2026-01-03T12:00:00Z\n"
COUNTS = {
    "target-parquet": """
import pathlib, pyarrow.parquet
print(sum(pyarrow.parquet.read_metadata(file).num_rows for file in pathlib.Path("lake").rglob("*.parquet")))
""",
    "target-files": """
import pathlib
print(sum(len(file.read_bytes().splitlines()) for file in pathlib.Path("lake").rglob("*.jsonl")))
""",
}
"""Programs that count the rows of a lake with what a plain installation has."""

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.xdist_group("install")]


@pytest.fixture(scope="module")
def wheels(checkout_copy: Callable[[Sequence[str]], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of all distributions, built from a clean copy; by distribution folder's name."""
    checkout = checkout_copy(["LICENSE", "shared", "taps", "targets"])
    output = tmp_path_factory.mktemp("wheels")
    folders = {"shared": "./shared", **FOLDERS}
    # The build backend is a development dependency, so that nothing needs to be fetched for it.
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(output), *folders.values()], cwd=checkout, check=True)
    built = list(output.glob("*.whl"))
    assert len(built) == len(folders)
    names = {name: "melisma" if name == "shared" else f"melisma_{name.replace('-', '_')}" for name in folders}
    return {name: next(w for w in built if w.name.startswith(f"{prefix}-{VERSION}")) for name, prefix in names.items()}


def check_alone(environment: Any, connector: str) -> None:
    """The connector is there with the library, no other connector, and no development tool."""
    packages = environment.packages()
    ours = {name for name in packages if name.startswith("melisma")}
    assert ours == {"melisma", f"melisma-{connector}"}
    assert set(packages) & NOT_NEEDED == OWN_NEEDS.get(connector, set())
    assert VERSION in environment.run(connector, "--version").decode()
    about = json.loads(environment.run(connector, "--about", "--format=json"))
    assert about["version"] == VERSION
    assert about["settings"]["properties"]


def check_tap(environment: Any, folder: Path) -> bytes:
    """The tap reads a file; gives its messages."""
    (folder / "people.csv").write_text(CSV, encoding="utf-8")
    config = {"streams": [{"name": "people", "path": str(folder / "people.csv"), "key_properties": ["id"]}]}
    (folder / "tap.json").write_text(json.dumps(config), encoding="utf-8")
    messages: bytes = environment.run("tap-files", "--config", "tap.json", cwd=folder)
    records = [m["record"] for m in map(json.loads, messages.splitlines()) if m["type"] == "RECORD"]
    assert [(r["id"], r["name"]) for r in records] == [(1, "Ada"), (2, "Grace"), (3, None)]
    return messages


def check_target(environment: Any, folder: Path, messages: bytes, target: str = "target-parquet") -> None:
    """The target lands the messages and acknowledges them."""
    shutil.rmtree(folder / "lake", ignore_errors=True)
    (folder / "target.json").write_text(json.dumps({"destination_path": str(folder / "lake")}), encoding="utf-8")
    state = environment.run(target, "--config", "target.json", data=messages, cwd=folder)
    states = [m["value"] for m in map(json.loads, messages.splitlines()) if m["type"] == "STATE"]
    assert json.loads(state.splitlines()[-1]) == states[-1]
    if target in COUNTS:
        assert environment.run("python", "-c", COUNTS[target], cwd=folder).strip() == b"3"
        return
    import fastavro  # of this environment: there is nothing in the other that reads Avro

    [file] = (folder / "lake/people").glob("*.avro")
    with file.open("rb") as stream:
        assert [row["id"] for row in fastavro.reader(stream)] == [0, 1, 2]


def messages() -> bytes:
    """What any tap might send."""
    schema = {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": ["string", "null"]}}}
    lines: list[dict[str, Any]] = [{"type": "SCHEMA", "stream": "people", "schema": schema, "key_properties": ["id"]}]
    lines += [{"type": "RECORD", "stream": "people", "record": {"id": n, "name": None}} for n in range(3)]
    lines += [{"type": "STATE", "value": {"bookmarks": {"people": {"id": 3}}}}]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def test_the_tap_installs_from_wheels(
    new_environment: Callable[[str], Any], wheels: dict[str, Path], tmp_path: Path
) -> None:
    """tap-files and the library as wheels, in an empty environment: what a user of the package index gets."""
    environment = new_environment(sys.executable)
    environment.install(str(wheels["shared"]), str(wheels["tap-files"]))
    check_alone(environment, "tap-files")
    check_tap(environment, tmp_path)


@pytest.mark.parametrize("target", [name for name in FOLDERS if name.startswith("target-")])
def test_a_target_installs_from_the_checkout(
    new_environment: Callable[[str], Any],
    checkout_copy: Callable[[Sequence[str]], Path],
    tmp_path: Path,
    target: str,
) -> None:
    """`pip install ./shared ./targets/target-parquet`, as the README says; each of the targets."""
    environment = new_environment(sys.executable)
    checkout = checkout_copy(["LICENSE", "shared", "taps", "targets"])
    environment.install("./shared", FOLDERS[target], cwd=checkout)
    check_alone(environment, target)
    check_target(environment, tmp_path, messages(), target)


def test_the_readmes_commands(
    new_environment: Callable[[str], Any], checkout_copy: Callable[[Sequence[str]], Path]
) -> None:
    """`pip install ...` and the example under "A minute of it", as they stand there, in an empty environment."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    installation = re.search(r"^pip install (.*)$", text, re.MULTILINE)
    example = re.search(r"<!-- example -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert installation
    assert example
    environment = new_environment(sys.executable)
    checkout = checkout_copy(["LICENSE", "shared", "taps", "targets", "demo"])
    environment.install(*installation[1].split(), cwd=checkout)
    path = f"{environment.bin}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", example[1]]
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        command, cwd=checkout, env={**outside, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    state, *files = done.stdout.splitlines()
    assert json.loads(state)["bookmarks"]["orders"]
    assert sorted(Path(file).parent.name for file in files) == ["ordered_at_month=2026-01", "ordered_at_month=2026-02"]


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_a_pipe_works_on_other_versions_of_python(
    version: str,
    find_python: Callable[[str], str],
    new_environment: Callable[[str], Any],
    wheels: dict[str, Path],
    tmp_path: Path,
) -> None:
    """Both connectors from wheels, a file into a lake."""
    environment = new_environment(find_python(version))
    environment.install(*map(str, wheels.values()))
    check_target(environment, tmp_path, check_tap(environment, tmp_path))


def test_a_wheel_holds_its_package_and_licence_and_nothing_else(wheels: dict[str, Path]) -> None:
    """No tests, no second package, and the marker for type checkers."""
    import zipfile

    for name, wheel in wheels.items():
        package = "melisma" if name == "shared" else f"melisma_{name.replace('-', '_')}"
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
        assert {entry.split("/")[0] for entry in names} == {package, f"{package}-{VERSION}.dist-info"}
        assert f"{package}/py.typed" in names
        assert any(entry.endswith("/licenses/LICENSE") for entry in names)
