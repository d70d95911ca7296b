"""Run all malformed inputs and write `docs/malformed-inputs.md` anew. Read the difference before it is committed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from forking import ForkedTarget
from malformed.table import CASES, PAGE, message, page, run

if __name__ == "__main__":
    messages = {}
    with ForkedTarget("melisma_target_parquet.target:TargetParquet") as target:
        for case in CASES:
            with tempfile.TemporaryDirectory() as name:
                messages[case.id] = message(run(target, case, Path(name)), Path(name))
    PAGE.write_text(page(messages), encoding="utf-8")
