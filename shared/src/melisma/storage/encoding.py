"""Writing compressed files as streams."""

from __future__ import annotations

import io
import sys
import zlib
from typing import Any, Protocol

from melisma.storage.codecs import CODECS

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["EncodedWriter", "Sink", "encoder"]

_SNAPPY_BLOCK = 1 << 16  # the most that a chunk of snappy's framing format holds
_SNAPPY_HEADER = 10


class Sink(Protocol):
    """Where compressed bytes go."""

    def write(self, data: bytes, /) -> Any:
        """Take all of them."""


class Encoder(Protocol):
    """What the standard library's compressors have in common."""

    def compress(self, data: Any, /) -> bytes:
        """Take bytes, and give what of the compressed data is ready."""

    def flush(self) -> bytes:
        """Give the rest of it, with what belongs at its end."""


class EncodedWriter(io.RawIOBase):
    """A file that is compressed on its way to another.

    Attributes:
        bytes_taken: bytes written to it, before compression.
    """

    def __init__(self, sink: Sink, encoder: Encoder) -> None:
        self._sink, self._encoder, self.bytes_taken = sink, encoder, 0

    def writable(self) -> bool:
        """It is for writing only."""
        return True

    def tell(self) -> int:
        """The position, which is always the end."""
        return self.bytes_taken

    def write(self, data: Any) -> int:
        """Take all of `data`; errors of the sink pass through."""
        if self.closed:
            raise ValueError("write to closed file")
        view = memoryview(data).cast("B")
        self._put(self._encoder.compress(view))
        self.bytes_taken += len(view)
        return len(view)

    def close(self) -> None:
        """Complete the compressed data. The sink stays open."""
        if not self.closed:
            super().close()
            self._put(self._encoder.flush())

    def abandon(self) -> None:
        """Give it up: nothing more is written."""
        super().close()

    def __del__(self) -> None:
        """Nothing: what was not closed is not whole, and io's own way would complete it."""

    def _put(self, data: bytes) -> None:
        if data:
            self._sink.write(data)


def encoder(compression: str, level: int | None) -> Encoder:
    """A codec's encoder for one file; `compression` and `level` are checked.

    Checksums are written where the format has them. gzip's header carries no name and no time.

    Raises:
        ImportError: its library is not installed.
    """
    if compression == "none":
        return _Plain()
    if level is None:
        level = CODECS[compression].level
    match compression:
        case "gzip":
            return zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        case "zstd":
            key = zstd.CompressionParameter
            return zstd.ZstdCompressor(options={int(key.compression_level): level, int(key.checksum_flag): 1})
        case "bz2":
            import bz2

            return bz2.BZ2Compressor(level)
        case "xz":
            import lzma

            return lzma.LZMACompressor(preset=level)
        case "lz4":
            return _Lz4(level)
        case "brotli":
            return _Brotli(level)
        case _:
            return _Snappy()


class _Plain:
    def compress(self, data: Any, /) -> bytes:
        return bytes(data)

    def flush(self) -> bytes:
        return b""


class _Lz4:
    def __init__(self, level: int) -> None:
        import lz4.frame

        blocks = lz4.frame.BLOCKSIZE_MAX256KB
        self._frame = lz4.frame.LZ4FrameCompressor(compression_level=level, content_checksum=True, block_size=blocks)
        self._begun = False

    def compress(self, data: Any, /) -> bytes:
        head = self._head()
        return head + bytes(self._frame.compress(data))

    def flush(self) -> bytes:
        head = self._head()
        return head + bytes(self._frame.flush())

    def _head(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return bytes(self._frame.begin())


class _Brotli:
    def __init__(self, level: int) -> None:
        import brotli

        self._stream = brotli.Compressor(quality=level)

    def compress(self, data: Any, /) -> bytes:
        return bytes(self._stream.process(data))

    def flush(self) -> bytes:
        return bytes(self._stream.finish())


class _Snappy:
    """Snappy's framing format: chunks of 64 KiB, each with a checksum."""

    def __init__(self) -> None:
        import cramjam

        self._frames = cramjam.snappy
        self._buffer = bytearray()
        self._begun = False

    def compress(self, data: Any, /) -> bytes:
        self._buffer += data
        whole = len(self._buffer) // _SNAPPY_BLOCK * _SNAPPY_BLOCK
        if not whole:
            return b""
        with memoryview(self._buffer) as view:
            found = self._packed(bytes(view[:whole]))
        del self._buffer[:whole]
        return found

    def flush(self) -> bytes:
        found = self._packed(bytes(self._buffer)) if self._buffer or not self._begun else b""
        self._buffer.clear()
        return found

    def _packed(self, data: bytes) -> bytes:
        if not data:
            return CODECS["snappy"].magic[0]
        packed = bytes(self._frames.compress(data))
        start, self._begun = (_SNAPPY_HEADER if self._begun else 0), True
        return packed[start:]
