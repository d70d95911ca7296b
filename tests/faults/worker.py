"""Runs chains, one after the other: a chain as a line of JSON in, its result as a line out."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from chains import Chain, Result, as_json, run_chain

IMPORTED_LATE = [
    "email.policy",
    "importlib_metadata._text",
    "melisma.arrow.evolve",
    "melisma.formats.parquet",
    "melisma.lake.lake",
    "melisma.lake.writer",
    "melisma.storage.filesystem",
    "melisma.storage.local",
    "melisma.target.file_sink",
    "melisma.target.load",
    "melisma.target.progress",
    "melisma.target.schema_message",
    "melisma_tap_files.discover",
    "melisma_tap_files.read",
    "melisma_tap_files.tap",
    "melisma_target_parquet.target",
    "source_tap",
]
"""What a run would import by itself."""


class Reader:
    """The process that reads lakes back (`readback`)."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("readback.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, root: Path, streams: list[str]) -> dict[str, Any]:
        """See `readback.read_back`."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"root": str(root), "streams": streams}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def main(folder: str) -> None:
    """Serve until the input ends."""
    faulthandler.enable()
    reader = Reader()
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    gc.freeze()
    for line in iter(sys.stdin.buffer.readline, b""):
        chain = Chain(**json.loads(line))
        try:
            result = run_chain(chain, Path(folder) / f"{os.getpid()}-{chain.number}", reader)
        except (OSError, RuntimeError) as error:
            result = Result(chain, wrong=[f"{type(error).__name__}: {error}"])
        sys.stdout.write(as_json(result) + "\n")
        sys.stdout.flush()
    reader.close()


if __name__ == "__main__":
    main(sys.argv[1])
