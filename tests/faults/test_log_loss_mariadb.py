"""A short form of `python tests/faults/log_loss_mariadb.py`: targets of tap-mysql are killed while it reads the log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from log_loss import one_round
from log_loss_mariadb import mariadb, ours, server_address

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address() -> dict[str, str]:
    """Where the server listens."""
    try:
        return server_address()
    except Exception as error:
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("method", ["append-only", "upsert"])
def test_no_row_is_lost_or_doubled_when_the_target_is_killed(
    tmp_path: Path, address: dict[str, str], method: str
) -> None:
    """The lake has each row of the table once, as it is; by upsert after updates, deletes and changes of keys too."""
    for number in range(2):
        with mariadb(address) as (source, name):
            result = one_round(source, ours(address, name, method), tmp_path / "round", number, 5, least_kills=2)
        assert result.failed == []
        assert (result.lost, result.doubled) == (0, 0)
        assert result.written > 0
