"""What the tests of the workspace share: where things are, and environments of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def project_files() -> list[Path]:
    """Every file of the project: tracked, or new and not ignored."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


@pytest.fixture(scope="session")
def find_python() -> Callable[[str], str]:
    """Gives a working interpreter of a version (`3.12`); without one, skips the test, or fails it in CI."""
    return _find_python


def _find_python(version: str) -> str:
    name = f"python{version}"
    candidates = [found for found in [sys.executable, shutil.which(name)] if found]
    pyenv = shutil.which("pyenv")
    if pyenv:  # its shims refuse to start a version that is installed but not activated
        home = subprocess.run([pyenv, "root"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        candidates += map(str, sorted(Path(home).glob(f"versions/{version}*/bin/{name}"), reverse=True))
    for candidate in candidates:
        code = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
        result = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if result.returncode == 0 and result.stdout.strip() == version:
            return candidate
    message = f"Python {version} is not installed"
    if IN_CI:
        pytest.fail(message)
    pytest.skip(message)


class Environment:
    """A virtual environment without pip: packages come in from outside, so that nothing else is in it."""

    def __init__(self, python: str, folder: Path) -> None:
        subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.bin = folder / "bin"
        self.python = str(self.bin / "python")

    def install(self, *arguments: str, cwd: Path | None = None) -> None:
        """`pip install` with this project's pip."""
        command = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", *arguments]
        result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr

    def packages(self) -> dict[str, str]:
        """What is installed: name, normalised, to version."""
        command = [sys.executable, "-m", "pip", "--python", self.python, "list", "--format=freeze"]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        pairs = (line.partition("==") for line in lines if "==" in line)
        return {name.lower().replace("_", "-").replace(".", "-"): version for name, _, version in pairs}

    def run(self, *command: str, data: bytes = b"", cwd: Path | None = None) -> bytes:
        """Run an executable of this environment; gives its stdout. Nothing of the caller's Python leaks in."""
        outside = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        result = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            input=data,
            cwd=cwd,
            env=outside,
            capture_output=True,
            check=False,
        )
        assert result.returncode == 0, f"{command} exits with {result.returncode}: {result.stderr.decode()}{result.stdout.decode()}"
        return result.stdout


@pytest.fixture(scope="session")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """Makes an empty environment with an interpreter."""
    return lambda python: Environment(python, tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture(scope="session")
def checkout_copy(
    project_files: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Sequence[str]], Path]:
    """Copies the project's files below some of its folders, as a fresh clone would have them, to a new place."""

    def copy(folders: Sequence[str]) -> Path:
        target = tmp_path_factory.mktemp("checkout")
        for file in project_files:
            relative = file.relative_to(ROOT)
            if any(relative.is_relative_to(folder) for folder in folders):
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / relative)
        return target

    return copy
