"""Where protocol bytes go: stdout, and nothing else goes there.

While a sync runs, `claim_stdout` keeps the real stdout for the protocol and points both `sys.stdout` and file
descriptor 1 at stderr, so that neither a stray `print` nor a chatty C library can corrupt the stream.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO, Protocol, cast

__all__ = ["ProtocolOutput", "claim_stdout", "output_descriptor", "protocol_output"]


class ProtocolOutput(Protocol):
    """What protocol bytes are written to."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Write whole lines."""

    def flush(self) -> None:
        """Hand everything written so far to the reader."""


_claimed: _WholeWrites | None = None


def protocol_output() -> ProtocolOutput:
    """The protocol's output: the claimed stdout, or whatever `sys.stdout` is now (a test's buffer)."""
    return _claimed if _claimed is not None else _TextOutput()


def output_descriptor() -> int | None:
    """The descriptor of the claimed stdout; None where nothing is claimed."""
    return None if _claimed is None else _claimed.fileno()


@contextlib.contextmanager
def claim_stdout() -> Iterator[ProtocolOutput]:
    """Keep stdout for the protocol; what anyone else prints goes to stderr.

    Where `sys.stdout` is not the process's own stdout (a test captures it), nothing is claimed.
    """
    global _claimed
    if _claimed is not None or not _is_process_stdout():
        yield protocol_output()
        return
    sys.stdout.flush()
    kept = os.dup(1)
    previous = sys.stdout
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    output = cast(BinaryIO, os.fdopen(kept, "wb", buffering=0))
    _claimed = _WholeWrites(output)
    try:
        yield _claimed
    finally:
        _claimed = None
        sys.stdout = previous
        os.dup2(output.fileno(), 1)
        output.close()


def _is_process_stdout() -> bool:
    try:
        return sys.stdout.fileno() == 1
    except (OSError, ValueError, AttributeError):
        return False


class _WholeWrites:
    """An unbuffered output whose `write` returns only when all bytes are taken."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw

    def write(self, data: bytes | memoryview, /) -> None:
        view = memoryview(data)
        while view:
            view = view[self._raw.write(view) or 0 :]

    def flush(self) -> None:
        self._raw.flush()

    def fileno(self) -> int:
        return self._raw.fileno()


class _TextOutput:
    """`sys.stdout` as it is now, seen as bytes; text and bytes keep their order."""

    def write(self, data: bytes | memoryview, /) -> None:
        sys.stdout.flush()
        buffer = getattr(sys.stdout, "buffer", None)
        if buffer is None:
            sys.stdout.write(bytes(data).decode())
        else:
            cast(BinaryIO, buffer).write(data)

    def flush(self) -> None:
        buffer = getattr(sys.stdout, "buffer", None)
        if buffer is not None:
            buffer.flush()
        sys.stdout.flush()
