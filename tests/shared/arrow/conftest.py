"""The strategies lie beside the tests that share them; the pure path is tested also where the native one is built."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the native decoder unused; tests of it override this."""
    monkeypatch.setenv("MELISMA_NATIVE", "0")
