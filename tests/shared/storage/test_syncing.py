"""Files on their way to the disk: all are there when `wait` returns, or it says which is not."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from melisma.errors import StorageError
from melisma.storage.syncing import Syncs


def test_the_first_failure_is_told_and_everything_is_waited_for(tmp_path: Path) -> None:
    """Hole R: a failed fsync fails the attempt, whichever thread it was on."""
    syncs, done = Syncs(), []

    def fails() -> None:
        raise OSError(errno.EIO, "broken")

    syncs.file(tmp_path / "good", lambda: done.append("good"))
    syncs.file(tmp_path / "bad", fails)
    syncs.file(tmp_path / "late", lambda: done.append("late"))
    with pytest.raises(StorageError, match="bad"):
        syncs.wait()
    assert sorted(done) == ["good", "late"]
    syncs.wait()


def test_a_failure_comes_out_even_if_nobody_waits_yet(tmp_path: Path) -> None:
    """Only so many files are on their way; the next one waits for the oldest."""
    syncs = Syncs()

    def fails() -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(StorageError, match="space"):
        for number in range(1_000):
            syncs.file(tmp_path / str(number), fails)


def test_a_folder_above_the_root_may_be_closed_to_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only there; elsewhere it is a failure, as one that is missing is everywhere."""

    def closed(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "closed")

    syncs = Syncs()
    with monkeypatch.context() as patched:
        patched.setattr("os.open", closed)
        syncs.directory(tmp_path, may_fail=True)
        syncs.wait()
        syncs.directory(tmp_path)
        with pytest.raises(StorageError, match=tmp_path.name):
            syncs.wait()
    syncs.directory(tmp_path / "missing", may_fail=True)
    with pytest.raises(StorageError, match="missing"):
        syncs.wait()
