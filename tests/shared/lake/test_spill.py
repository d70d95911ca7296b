"""Files without a name: what the disk takes comes back, what it does not take leaves nothing behind."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melisma.errors import StorageError
from melisma.lake import spill as module
from melisma.lake.spill import Spill, SpillFile


@contextmanager
def _no_file_beyond(size: int) -> Iterator[None]:
    """The system refuses to write more, as a full disk would: in the middle of a write, too."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def _stored(file: SpillFile) -> int:
    assert file._file is not None
    return os.fstat(file._file.fileno()).st_size


@given(st.lists(st.lists(st.binary(max_size=40), max_size=5), max_size=8))
def test_what_is_appended_is_read_anywhere(appends: list[list[bytes]]) -> None:
    """In pieces of any size, as one."""
    file, whole = SpillFile(), b""
    before, module._WRITE_BYTES = module._WRITE_BYTES, 16
    try:
        for pieces in appends:
            file.append(iter(pieces))
            whole += b"".join(pieces)
            assert file.size == len(whole)
        for at in range(0, len(whole), 7):
            assert file.read(at, len(whole) - at) == whole[at:]
    finally:
        module._WRITE_BYTES = before
        file.close()


def test_a_refused_write_leaves_what_was_there_and_no_more() -> None:
    """Its first part, which the disk did take, is given back."""
    file = SpillFile()
    file.append([b"a" * 5_000])
    with _no_file_beyond(8_192), pytest.raises(OSError, match="large"):
        file.append([b"b" * 5_000])
    assert file.refused
    assert (file.size, _stored(file)) == (5_000, 5_000)
    file.append([b"c" * 10])
    assert file.read(4_995, 15) == b"a" * 5 + b"c" * 10
    file.clear()
    assert (file.size, _stored(file)) == (0, 0)
    file.close()


def test_what_is_shorter_than_it_was_is_an_error() -> None:
    """Not fewer lines."""
    file = SpillFile()
    file.append([b"a" * 100])
    assert file._file is not None
    os.ftruncate(file._file.fileno(), 50)
    with pytest.raises(StorageError, match="the device failed"):
        file.read(0, 100)
    file.close()


def test_a_disk_that_refuses_the_first_batch_holds_no_file() -> None:
    """Nothing is left that takes a descriptor or room."""
    spill = Spill(1 << 30)
    batch = pa.RecordBatch.from_pydict({"n": [*range(10_000)]})
    with _no_file_beyond(4_096):
        assert spill.put(batch) is None
    assert (spill._file, spill.bytes, spill.has_room) == (None, 0, False)


def test_room_is_given_back_by_reading_and_by_dropping() -> None:
    """When the last batch of a file is gone, so is the file."""
    spill = Spill(1 << 30)
    batch = pa.RecordBatch.from_pydict({"n": [1, 2, 3]})
    first, second = spill.put(batch), spill.put(batch)
    assert first is not None
    assert second is not None
    assert first.read().equals(batch)
    assert spill.bytes > 0
    second.drop()
    assert (spill.bytes, spill._file) == (0, None)
