"""docs/resume.md: the transcript of a run that is killed half way and resumed without a state file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import console_page

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


def test_killed_half_way_and_resumed_without_a_state_file(tmp_path: Path) -> None:
    """Every command prints what the page says; no order is missing in the end, and none is there twice at any time."""
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        console_page.make_orders(folder)
        if console_page.check("In a shell, without a state file", folder, [str(BIN)]):
            return
    pytest.fail("the run came to its end before it could be killed, five times")
