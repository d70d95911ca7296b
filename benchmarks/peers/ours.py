"""Our own environments: each connector of this checkout as pip installs it, with nothing beside it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

__all__ = ["program"]

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENTS = ROOT / ".cache" / "benchmarks" / "venvs"
_SUFFIXES = {".py", ".toml", ".rs", ".md"}


@cache
def program(connector: str, *extras: str) -> str:
    """A connector's program, such as `target-parquet`, in an environment that is made anew if the checkout has changed.

    The native extension is in it where Rust is.

    Raises:
        subprocess.CalledProcessError: a package does not install.
    """
    folder = ENVIRONMENTS / "-".join(["melisma", connector, *extras])
    parts = [ROOT / "shared", ROOT / f"{connector.partition('-')[0]}s" / connector]
    if shutil.which("cargo"):
        parts.append(ROOT / "native")
    requirements = [f"{part}[{','.join(extras)}]" if part.name == connector and extras else str(part) for part in parts]
    stamp, wanted = folder / "packages.txt", _digest(parts)
    if not (stamp.exists() and stamp.read_text() == wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), *requirements], check=True)
        stamp.write_text(wanted)
    return str(folder / "bin" / connector)


def _digest(parts: list[Path]) -> str:
    found = hashlib.sha256()
    for part in parts:
        for file in sorted(part.rglob("*")):
            if file.suffix in _SUFFIXES and not {"build", "target"} & {*file.relative_to(part).parts}:
                found.update(f"{file.relative_to(ROOT)}\n".encode())
                found.update(file.read_bytes())
    return found.hexdigest()
