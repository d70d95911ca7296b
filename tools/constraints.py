"""Write constraints.txt: resolve everything anew in an empty environment, and note what came out.

Runs with a bare Python; `make constraints` calls it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "constraints.txt"
HEADER = """\
# What development and CI install, pinned. Names and versions only: no index, no URL.
# Written by `make constraints`; valid for Python 3.11 to 3.13. The connectors themselves do not read it.
"""
OUTSIDE = ("meltano",)
"""Tools that run in an environment of their own: only their own version is pinned."""


def main() -> None:
    """Resolve, and write the file."""
    distributions = ["shared", *sorted(f"{p.parent.name}/{p.name}" for p in ROOT.glob("ta[pr]*s/ta*"))]
    editable = [argument for name in distributions for argument in ("--editable", f"./{name}")]
    with tempfile.TemporaryDirectory() as folder:
        python = _environment(Path(folder) / "main")
        _run(python, "-m", "pip", "install", "--quiet", "--group", "dev", *editable)
        pins = [
            line
            for line in _run(python, "-m", "pip", "list", "--format=freeze", "--exclude-editable").splitlines()
            if not line.startswith("setuptools==")
        ]
        for tool in OUTSIDE:
            python = _environment(Path(folder) / tool)
            _run(python, "-m", "pip", "install", "--quiet", tool)
            found = _run(python, "-m", "pip", "list", "--format=freeze").splitlines()
            pins += [line for line in found if line.startswith(f"{tool}==")]
    OUTPUT.write_text(HEADER + "".join(f"{pin}\n" for pin in sorted(pins, key=str.lower)), encoding="utf-8")
    sys.stdout.write(f"{OUTPUT.name}: {len(pins)} pins\n")


def _environment(folder: Path) -> str:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    _run(python, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    return python


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
