"""Run the examples of `docs/lake.md` and write what they print into it. Read the difference before it is committed."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from small_lake import BIN, RUNS, Lake
from test_lake_page import PAGE, examples

if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder))
        for run in RUNS:
            assert lake.load(run)[0] == 0
        for command, output in examples():
            line = ["bash", "-c", f"{BIN}/{command} 2>&1"]
            shown = subprocess.run(line, cwd=folder, capture_output=True, check=False, text=True).stdout
            text = text.replace(f"$ {command}\n{output}", f"$ {command}\n{shown}", 1)
    PAGE.write_text(text, encoding="utf-8")
