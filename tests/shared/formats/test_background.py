"""Row groups are encoded on other threads: small ones of several files at once, and what fails there is raised."""

from __future__ import annotations

import gc
import io
import threading
import time
import weakref
from typing import Any

import pyarrow as pa
import pytest

from melisma.formats.writers import background
from melisma.formats.writers.background import BackgroundWriter

SMALL = pa.record_batch({"a": pa.array([1, 2, 3])})
LARGE = pa.record_batch({"a": pa.nulls(3 << 20, pa.int64())})
TIMEOUT = 60


class _Writer(BackgroundWriter):
    """Writes a line for each row group, and a last one."""

    def __init__(
        self, meet: threading.Barrier | None = None, fail: str = "", alone: threading.Lock | None = None
    ) -> None:
        super().__init__(io.BytesIO(), pa.schema([("a", pa.int64())]))
        self._meet, self._fail, self._alone = meet, fail, alone

    @property
    def lines(self) -> list[str]:
        return self._sink.getvalue().decode().splitlines()

    def _encode(self, table: pa.Table) -> None:
        if self._meet is not None:
            self._meet.wait(TIMEOUT)
        if self._alone is not None:
            assert self._alone.acquire(blocking=False)
            time.sleep(0.05)
            self._alone.release()
        if self._fail == "encode":
            raise OSError("encode")
        self._sink.write(b"%d\n" % table.num_rows)

    def _finish(self) -> None:
        if self._fail == "finish":
            raise OSError("finish")
        self._sink.write(b"end\n")


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two threads, whatever the machine has."""
    made = background._Encoder(2)
    monkeypatch.setattr(background, "_ENCODER", made)
    return made


@pytest.mark.usefixtures("encoder")
def test_small_row_groups_of_two_files_are_encoded_at_once() -> None:
    """Each waits in the middle for the other: one after the other they would never end."""
    meet = threading.Barrier(2)
    writers = [_Writer(meet), _Writer(meet)]
    for writer in writers:
        writer.write_row_group([SMALL])
    for writer in writers:
        writer.close()
    assert [writer.lines for writer in writers] == [["3", "end"]] * 2


@pytest.mark.usefixtures("encoder")
def test_large_row_groups_are_encoded_one_at_a_time() -> None:
    """So that memory holds one of them, whatever the number of files."""
    alone = threading.Lock()
    writers = [_Writer(alone=alone) for _ in range(5)]
    for writer in writers:
        writer.write_row_group([LARGE])
    for writer in writers:
        writer.close()
    assert [writer.lines for writer in writers] == [[str(LARGE.num_rows), "end"]] * 5


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize("finish", [False, True])
@pytest.mark.parametrize("groups", [0, 1, 3])
def test_the_end_comes_behind_the_last_row_group(groups: int, finish: bool) -> None:
    """Once, whether it was asked for ahead or not."""
    writer = _Writer()
    for _ in range(groups):
        writer.write_row_group([SMALL])
    if finish:
        writer.finish()
    writer.close()
    assert writer.lines == ["3"] * groups + ["end"]


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize("finish", [False, True])
@pytest.mark.parametrize("fail", ["encode", "finish"])
def test_what_fails_on_the_other_thread_is_raised_by_close(fail: str, finish: bool) -> None:
    """And an end is never written behind a row group that was not."""
    writer = _Writer(fail=fail)
    writer.write_row_group([SMALL])
    if finish:
        writer.finish()
    with pytest.raises(OSError, match=fail):
        writer.close()
    assert "end" not in writer.lines


@pytest.mark.usefixtures("encoder")
def test_a_file_that_is_being_finished_can_be_given_up() -> None:
    """Even when what was under way fails."""
    writer = _Writer(fail="encode")
    writer.write_row_group([SMALL])
    writer.finish()
    writer.abandon()


@pytest.mark.usefixtures("encoder")
def test_nothing_holds_a_file_that_was_written() -> None:
    """A writer is gone when its last user is: what it holds is not left to the end of the process."""
    writer = _Writer()
    writer.write_row_group([SMALL])
    writer.finish()
    writer.close()
    gone = weakref.ref(writer)
    del writer
    gc.collect()
    assert gone() is None
