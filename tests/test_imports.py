"""Imports run one way, and what every start pays for stays light.

tests -> connectors -> shared; inside shared: tap | target -> lake | sql | formats | storage -> arrow -> wire -> errors.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT / "shared" / "src" / "melisma"
CONNECTORS = sorted(p.parent for p in ROOT.glob("ta[pr]*s/*/pyproject.toml"))

BASE = {"errors"}
COLUMNS = BASE | {"wire", "arrow"}
FILES = COLUMNS | {"storage", "formats"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "wire": BASE,
    "config": BASE,
    "cli": BASE | {"config"},
    "arrow": BASE | {"wire"},
    "storage": COLUMNS,
    "formats": COLUMNS | {"storage"},
    "sql": COLUMNS,
    "lake": FILES,
    "lake_cli": FILES | {"lake", "config", "cli"},
    "tap": FILES | {"lake", "sql", "config", "cli"},
    "target": FILES | {"lake", "sql", "config", "cli"},
}
"""What each part of the library may import besides itself. A new part is entered here on purpose."""

LIGHT = ["melisma.errors", "melisma.config", "melisma.cli", "melisma.tap.tap", "melisma.target.target"]
HEAVY = {"pyarrow", "arro3", "polars", "pandas", "duckdb"}
"""Libraries that take long to import: `--version` and `--help` must not pay for them.

singer-sdk itself imports fsspec at its start, its HTTP library zstandard, and its joblib numpy where that is installed;
that is out of our hands.
"""


def imports(file: Path, package: str) -> Iterator[tuple[str, int]]:
    """Every absolute module name that a file imports, also inside functions, with the line."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node.lineno
            if node.module == package:
                yield from ((f"{package}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            pytest.fail(f"{file.relative_to(ROOT)}:{node.lineno}: relative import; name the module in full")


def part(module: str) -> str:
    """`melisma.lake.writer` belongs to `lake`."""
    return module.split(".")[1] if "." in module else ""


def connector_packages() -> set[str]:
    """The import names of all connectors."""
    return {f"melisma_{folder.name.replace('-', '_')}" for folder in CONNECTORS}


def test_every_part_of_the_library_has_its_place() -> None:
    """A new part must be given its place in the order of imports."""
    found = {p.stem for p in SHARED.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__init__"}
    assert found == set(MAY_IMPORT)


def test_the_order_has_no_circle() -> None:
    """What a part may import may not, by any way, import that part."""
    for name, below in MAY_IMPORT.items():
        assert all(name not in MAY_IMPORT[other] for other in below)
        assert all(MAY_IMPORT[other] <= below for other in below), f"{name} reaches more than it lists"


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_a_part_of_the_library_imports_only_what_is_below_it(name: str) -> None:
    """Direction inside shared."""
    single = SHARED / f"{name}.py"
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in ([single] if single.exists() else sorted((SHARED / name).rglob("*.py")))
        for module, line in imports(file, "melisma")
        if module.startswith("melisma.") and part(module) not in MAY_IMPORT[name] | {name, "__version__"}
    ]
    assert wrong == []


def test_the_library_never_names_a_connector() -> None:
    """A connector's facts reach the library as data: neither imports nor texts name one."""
    names = {name for folder in CONNECTORS for name in (folder.name, f"melisma_{folder.name.replace('-', '_')}")}
    wrong = [
        f"{file.relative_to(ROOT)} names {name}"
        for file in sorted(SHARED.rglob("*.py"))
        for name in sorted(names)
        if name in "".join(_code(file))
    ]
    assert wrong == []


def _code(file: Path) -> Iterator[str]:
    """A module's names and literals; docstrings and comments may give a connector as an example."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = [node for node in ast.walk(tree) if isinstance(node, scopes) and ast.get_docstring(node)]
    docstrings = {id(node.body[0].value) for node in documented if isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield f"{node.value}\n"
        elif isinstance(node, ast.ImportFrom | ast.Import):
            yield from (f"{getattr(node, 'module', '')} {alias.name}\n" for alias in node.names)


@pytest.mark.parametrize("folder", CONNECTORS, ids=lambda path: path.name)
def test_connectors_do_not_import_each_other(folder: Path) -> None:
    """Each connector installs alone."""
    own = f"melisma_{folder.name.replace('-', '_')}"
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in sorted((folder / "src").rglob("*.py"))
        for module, line in imports(file, own)
        if module.split(".")[0] in connector_packages() - {own}
    ]
    assert wrong == []


def entry_modules() -> list[str]:
    """The modules behind the executables."""
    projects = [tomllib.loads((f / "pyproject.toml").read_text(encoding="utf-8"))["project"] for f in CONNECTORS]
    return [target.partition(":")[0] for table in projects for target in table["scripts"].values()]


def wire_modules() -> list[str]:
    """The parts that handle Singer as bytes."""
    return [f"melisma.wire.{file.stem}" for file in sorted((SHARED / "wire").glob("*.py")) if file.stem != "__init__"]


@pytest.mark.parametrize("module", [*LIGHT, *wire_modules(), *entry_modules()])
def test_a_start_does_not_load_heavy_libraries(module: str) -> None:
    """`--version`, `--help` and a configuration error answer before pyarrow and its like are loaded."""
    code = f"import {module}, sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) & HEAVY == set()


def last_words(tmp_path: Path, code: str, **environment: str) -> str:
    """What code says at the end of a run of target-parquet that writes a record."""
    (tmp_path / "c.json").write_text(json.dumps({"destination_path": str(tmp_path / "lake")}), encoding="utf-8")
    schema = {"properties": {"id": {"type": "integer", "minimum": 0}, "name": {"type": "string", "maxLength": 5}}}
    lines = [
        {"type": "SCHEMA", "stream": "s", "schema": schema, "key_properties": []},
        {"type": "RECORD", "stream": "s", "record": {"id": 1, "name": "a"}},
    ]
    code = (
        "import sys; from melisma_target_parquet.target import TargetParquet\n"
        f"try: TargetParquet.cli()\nfinally: print({code}, file=sys.stderr)"
    )
    known = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run(
        [sys.executable, "-c", code, "--config", str(tmp_path / "c.json")],
        input="".join(json.dumps(line) + "\n" for line in lines),
        env=known | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()[-1]


def test_a_run_does_not_load_pandas(tmp_path: Path) -> None:
    """No connector needs it, and pyarrow would load it at the first list that it makes an array of."""
    assert last_words(tmp_path, "sorted({'pandas', 'pyarrow'} & sys.modules.keys())") == "['pyarrow']"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="elsewhere Arrow's own allocator stays")
def test_a_run_takes_its_memory_from_the_c_library(tmp_path: Path) -> None:
    """Which works only before pyarrow is loaded; what the user has set goes before."""
    code = "sys.modules['pyarrow'].default_memory_pool().backend_name"
    assert last_words(tmp_path, code) == "system"
    assert last_words(tmp_path, code, ARROW_DEFAULT_MEMORY_POOL="mimalloc") == "mimalloc"


@pytest.mark.parametrize("folder", [ROOT / "shared", *CONNECTORS], ids=lambda folder: folder.name)
def test_what_a_distribution_imports_is_among_its_dependencies(folder: Path) -> None:
    """Or in one of its extras: what happens to be installed here is not installed everywhere."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shared = tomllib.loads((ROOT / "shared/pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted: set[str] = set()
    for table in (project, shared):
        texts = [
            *table["dependencies"],
            *(each for extra in table.get("optional-dependencies", {}).values() for each in extra),
        ]
        wanted |= {re.split(r"[^A-Za-z0-9_.-]", text)[0].lower().replace("_", "-") for text in texts}
    known = importlib.metadata.packages_distributions()
    own = connector_packages() | {"melisma", "melisma_native"}
    own |= {"compression", "botocore"}  # of Python 3.14's own library; what boto3 is made of
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in sorted((folder / "src").rglob("*.py"))
        for module, line in imports(file, "")
        if (name := module.partition(".")[0]) not in own | sys.stdlib_module_names
        and not wanted & {each.lower().replace("_", "-") for each in known.get(name, [name])}
    ]
    assert wrong == []
