"""Reading a pipe in blocks of whole lines."""

from __future__ import annotations

import contextlib
import io
import os
import select
from collections.abc import Iterator
from typing import IO, Any

__all__ = ["BLOCK_BYTES", "BlockReader"]

BLOCK_BYTES = 512 * 1024
"""Enough that the cost of a call is lost in it, small enough to stay in a processor's cache (docs/performance.md)."""

_PIPE_BYTES = 1024 * 1024
_READ_BYTES = 128 * 1024
"""The least room for a read."""

_FEW_BYTES = 64 * 1024
_BATCH = b'"BATCH"'
_F_SETPIPE_SZ = 1031  # Linux fcntl(2); other systems keep their pipe's size


class BlockReader:
    """Iterate over the input in blocks that end at a line's end.

    A block is handed out when it is full, when a few bytes have come with a BATCH message among them (its tap may wait
    until its files are read), or when nothing more has come for `idle_seconds`. While nothing comes at
    all an empty block is handed out every `idle_seconds`, so that the caller can look at the clock. Only the last
    block may end without a newline: then the input was cut off, or its writer left the last newline out.

    Attributes:
        block_bytes: when a block is full; may be set between two blocks.
        waiting: true while the reader waits for input; a signal handler may raise then, and only then.
    """

    def __init__(self, source: IO[Any], *, block_bytes: int = BLOCK_BYTES, idle_seconds: float = 1.0) -> None:
        self._source = source
        self.block_bytes = block_bytes
        self._idle_seconds = idle_seconds
        self.waiting = False

    def __iter__(self) -> Iterator[bytes]:
        descriptor = _descriptor(self._source)
        return self._from_object() if descriptor is None else self._from_descriptor(descriptor)

    def _from_descriptor(self, descriptor: int) -> Iterator[bytes]:
        """Into one buffer that is kept, so that a block is copied once, when it is handed out."""
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE_BYTES)
        buffer, held = bytearray(), 0
        while True:
            if len(buffer) < max(self.block_bytes, held + _READ_BYTES):
                buffer.extend(bytes(max(self.block_bytes, held + held // 2) + _READ_BYTES - len(buffer)))
            count = self._read(descriptor, memoryview(buffer)[held : held + max(_READ_BYTES, self.block_bytes - held)])
            if count == 0:
                break
            fresh, held = held, held + (count or 0)
            if (
                count is None
                or held >= self.block_bytes
                or (count < _FEW_BYTES and buffer.find(_BATCH, fresh, held) >= 0)
            ):
                cut = buffer.rfind(b"\n", 0 if count is None else fresh, held) + 1
                if cut or count is None:
                    yield bytes(memoryview(buffer)[:cut])
                    held -= cut
                    if len(buffer) > 2 * (self.block_bytes + _READ_BYTES + held):
                        buffer = buffer[cut : cut + held]
                    else:
                        buffer[:held] = buffer[cut : cut + held]
        if held:
            yield bytes(memoryview(buffer)[:held])

    def _read(self, descriptor: int, into: memoryview) -> int | None:
        """How many bytes came, 0 at the end of the input; None if none came for a while."""
        self.waiting = True
        try:
            ready, _, _ = select.select([descriptor], [], [], self._idle_seconds)
            return os.readv(descriptor, [into]) if ready else None
        finally:
            self.waiting = False
            into.release()

    def _from_object(self) -> Iterator[bytes]:
        """A file object without a descriptor (a test's buffer), of bytes or of text."""
        held: list[bytes] = []
        size = 0
        while chunk := self._source.read(self.block_bytes):
            chunk = chunk.encode() if isinstance(chunk, str) else chunk
            held.append(chunk)
            size += len(chunk)
            if (size >= self.block_bytes or (len(chunk) < _FEW_BYTES and _BATCH in chunk)) and (
                cut := chunk.rfind(b"\n") + 1
            ):
                held[-1] = chunk[:cut]
                yield b"".join(held)
                held, size = [chunk[cut:]], len(chunk) - cut
        if rest := b"".join(held):
            yield rest


def _descriptor(source: IO[Any]) -> int | None:
    """The descriptor to read from, if nothing of the source was read already."""
    buffer = getattr(source, "buffer", source)
    if isinstance(buffer, io.BufferedReader) and buffer.seekable() and buffer.tell() != 0:
        return None
    try:
        return source.fileno()
    except (AttributeError, OSError, ValueError):
        return None
