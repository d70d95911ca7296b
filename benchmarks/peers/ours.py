"""Our own environments: each connector of this checkout as pip installs it, with nothing beside it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["executable", "install"]

ROOT = Path(__file__).resolve().parent.parent.parent
_SUFFIXES = {".py", ".toml", ".rs", ".md"}


def executable(environments: Path, connector: str) -> Path:
    """A connector's program, such as `target-parquet`."""
    return environments / f"melisma-{connector}" / "bin" / connector


def install(environments: Path, connector: str) -> None:
    """Make a connector's environment, unless it is there and the checkout as it was.

    The native decoder is in it where Rust is.

    Raises:
        subprocess.CalledProcessError: a package does not install.
    """
    parts = [ROOT / "shared", ROOT / f"{connector.partition('-')[0]}s" / connector]
    if shutil.which("cargo"):
        parts.append(ROOT / "native")
    folder, wanted = executable(environments, connector).parent.parent, _digest(parts)
    stamp = folder / "packages.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), *map(str, parts)], check=True)
    stamp.write_text(wanted)


def _digest(parts: list[Path]) -> str:
    found = hashlib.sha256()
    for part in parts:
        for file in sorted(part.rglob("*")):
            if file.suffix in _SUFFIXES and not {"build", "target"} & {*file.relative_to(part).parts}:
                found.update(f"{file.relative_to(ROOT)}\n".encode())
                found.update(file.read_bytes())
    return found.hexdigest()
