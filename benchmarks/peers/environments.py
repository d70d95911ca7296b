"""An environment for each peer, made on demand from the package index, with pinned versions."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Environment"]

SDK_VERSION = "0.54.9"


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment.

    Attributes:
        name: of its folder.
        packages: requirements, each with its version.
    """

    name: str
    packages: tuple[str, ...]

    def folder(self, root: Path) -> Path:
        """Where it is."""
        return root / self.name

    def make(self, root: Path) -> None:
        """Make it, unless it is there with the same packages.

        Raises:
            subprocess.CalledProcessError: a package does not install.
        """
        folder, wanted = self.folder(root), "\n".join(self.packages)
        stamp = folder / "packages.txt"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *self.packages], check=True)
        stamp.write_text(wanted)


SDK = Environment("singer-sdk", (f"singer-sdk=={SDK_VERSION}", "pyarrow==26.0.1"))
JSONL = Environment("target-jsonl", ("target-jsonl==0.1.4",))
CSV = Environment("meltanolabs-target-csv", ("meltanolabs-target-csv==0.5.0",))
# With duckdb 1.4.1 and 2.0.0 this target loses the first row.
DUCKDB = Environment("target-duckdb", ("target-duckdb==0.8.0", "duckdb==1.1.3"))
DLT = Environment("dlt", ("dlt[parquet]==1.31.0",))
MELTANO_POSTGRES = Environment("meltanolabs-tap-postgres", ("meltanolabs-tap-postgres==0.10.0",))
PIPELINEWISE_POSTGRES = Environment("pipelinewise-tap-postgres", ("pipelinewise-tap-postgres==1.8.4",))
DLT_SQL = Environment(
    "dlt-sql",
    ("dlt[parquet]==1.31.0", "connectorx==0.4.6", "psycopg2-binary==2.9.13", "pyarrow==26.0.1", "sqlalchemy==2.0.54"),
)
# The last versions that the package index has whole: newer ones fetch their program from elsewhere when they start.
INGESTR = Environment("ingestr", ("ingestr==0.14.155",))
SLING = Environment("sling", ("sling-linux-amd64==1.4.11",))
