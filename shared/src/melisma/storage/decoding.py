"""Reading compressed files as streams.

Every codec finds out in its own way that a file is damaged or cut off, some not at all; here each gives a BadFile that
names the file, the place in it and the rule. What a decoder says itself may quote the file, and is not passed on.
"""

from __future__ import annotations

import bz2
import io
import lzma
import sys
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, cast

from melisma.errors import BadFile, MelismaError
from melisma.storage.codecs import CODECS, LARGEST_WINDOW

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["decoded"]

_PIECE = 128 << 10  # bytes that are read at a time, and to which the place of damage is known
_OUTPUT = 1 << 20  # bytes that are decompressed at a time
_FREE_EXPANSION = 1 << 30  # bytes up to which the limit does not count: small files may expand as they like
_FIX = "Fetch or write the file again"


def decoded(raw: BinaryIO, codec: str, where: str, max_expansion: int, window: int = LARGEST_WINDOW) -> BinaryIO:
    """See `codecs.open_decoded`; `codec` is one of CODECS, and `raw` is left open if this fails."""
    limit = _Limit(max_expansion, where)
    if codec == "zip":
        return io.BufferedReader(_Member(raw, where, limit), _OUTPUT)
    return io.BufferedReader(_Stream(raw, codec, where, limit, window), _OUTPUT)


class _Limit:
    """Stops a decompression bomb."""

    def __init__(self, expansion: int, where: str) -> None:
        self._expansion, self._where, self._bytes = expansion, where, 0

    def add(self, count: int, stored: int) -> None:
        """Note `count` more decompressed bytes, which `stored` bytes of the file, from its start, have given."""
        self._bytes += count
        if self._bytes > _FREE_EXPANSION and self._expansion and self._bytes > self._expansion * max(stored, 1):
            rule = f"it expands to over {self._expansion} times its size: its first {stored} bytes give {self._bytes}"
            raise BadFile(rule, file=self._where, fix='If that is right, raise "max_expansion"')


class _Decoder(Protocol):
    """What the standard library's decompressors have in common: one member or frame of a file."""

    @property
    def eof(self) -> bool:
        """Whether the end of the member was reached."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing comes without more data."""

    @property
    def unused_data(self) -> bytes:
        """What was given beyond the end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Give at most about `max_length` bytes; with `needs_input` False, `data` is empty."""


class _Stream(io.RawIOBase):
    """The members or frames of a file, decompressed one after the other."""

    def __init__(self, raw: BinaryIO, codec: str, where: str, limit: _Limit, window: int) -> None:
        self._raw, self._codec, self._where, self._limit = raw, codec, where, limit
        self._new = _decoders(codec, window)
        self._decoder: _Decoder | None = None
        self._piece = b""  # read, but given to no decoder yet
        self._stored = 0  # bytes of the file that were read
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self._output:
            if self._decoder is None and not self._next_member():
                return 0
            assert self._decoder is not None  # noqa: S101 - for mypy
            self._output = memoryview(self._decode(self._decoder))
            self._limit.add(len(self._output), self._stored)
        count = min(len(view), len(self._output))
        view[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            try:
                self._raw.close()
            finally:
                super().close()

    def _next_member(self) -> bool:
        """Begin the next member or frame; False at the file's end."""
        first = not self._stored
        if not first:
            self._skip_padding()
        while not self._piece and self._read():
            if not first:
                self._skip_padding()
        if self._piece:
            if first:
                self._check_magic()
            self._decoder = self._new()
            return True
        if first:
            rule = f"it is empty, which {self._codec} data never is"
            raise BadFile(rule, file=self._where, fix=f'{_FIX}, or set "compression"')
        return False

    def _skip_padding(self) -> None:
        if self._codec in {"gzip", "xz"}:  # both allow zeros after a member, as tapes need them
            self._piece = self._piece.lstrip(b"\0")

    def _check_magic(self) -> None:
        begins = CODECS[self._codec].magic
        if not begins or any(each.startswith(self._piece[: len(each)]) for each in begins):
            return
        others = [name for name, codec in CODECS.items() for magic in codec.magic if self._piece.startswith(magic)]
        but = f", but {others[0]} by its first bytes" if others else ""
        raise BadFile(f"it is not {self._codec} data{but}", file=self._where, fix=f'{_FIX}, or set "compression"')

    def _decode(self, decoder: _Decoder) -> bytes:
        if decoder.needs_input and not self._piece and not self._read():
            rule = f"the {self._codec} data is cut off: the file ends after {self._stored} bytes"
            raise BadFile(rule, file=self._where, fix=_FIX)
        piece, self._piece = (self._piece, b"") if decoder.needs_input else (b"", self._piece)
        try:
            found = decoder.decompress(piece, _OUTPUT)
        except Exception:  # each has its own kinds; this reads nothing and writes nothing
            start = max(self._stored - _PIECE, 0)
            raise BadFile(
                f"the {self._codec} data is damaged, or goes on with something else, between its bytes {start} and "
                f"{self._stored}",
                file=self._where,
                fix=_FIX,
            ) from None
        if decoder.eof:
            self._piece = bytes(decoder.unused_data or b"") + self._piece
            self._decoder = None
        return found

    def _read(self) -> bool:
        self._piece = self._raw.read(_PIECE) or b""
        self._stored += len(self._piece)
        return bool(self._piece)


def _decoders(codec: str, window: int) -> Callable[[], _Decoder]:
    """What makes the decoder of a file's next member or frame.

    Raises:
        ImportError: its library is not installed.
    """
    match codec:
        case "gzip":
            return _Gzip
        case "zstd":
            options = {int(zstd.DecompressionParameter.window_log_max): window.bit_length() - 1}
            return lambda: zstd.ZstdDecompressor(options=options)
        case "bz2":
            return bz2.BZ2Decompressor
        case "xz":
            return lzma.LZMADecompressor
        case "lz4":
            import lz4.frame

            return lz4.frame.LZ4FrameDecompressor  # type: ignore[no-any-return]
        case "brotli":
            import brotli

            return lambda: _Brotli(brotli.Decompressor())
        case _:
            import cramjam

            return lambda: _Snappy(cramjam.snappy)


class _Gzip:
    def __init__(self) -> None:
        self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._member.decompress(self._member.unconsumed_tail or data, max_length)
        # A full output may have left something behind, also where all input was taken.
        self.needs_input = not self._member.unconsumed_tail and len(found) < max_length
        return found


class _Brotli:
    """A brotli file is one stream; what follows its end is an error of the library's."""

    unused_data = b""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.eof, self.needs_input = False, True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = bytes(self._stream.process(data, output_buffer_limit=max_length))
        self.eof = self._stream.is_finished()
        # Input may be taken while output waits; only an empty answer says that none does.
        self.needs_input = not found and self._stream.can_accept_more_data()
        return found


class _Snappy:
    """Whole chunks of snappy's framing format; where its data ends cannot be told from the data.

    A chunk has a byte for its kind, three for its length, and at most 64 KiB of data decompressed.
    """

    def __init__(self, snappy: Any) -> None:
        self._snappy = snappy
        self._data = bytearray()
        self.eof, self.needs_input, self.unused_data = False, True, b""

    def decompress(self, data: bytes, max_length: int) -> bytes:  # noqa: ARG002 - bounded by the format, 21 to 1
        self._data += data
        end = 0
        while end + 4 <= len(self._data):
            chunk = 4 + int.from_bytes(self._data[end + 1 : end + 4], "little")
            if end + chunk > len(self._data):
                break
            end += chunk
        if not end:
            return b""
        chunks = bytes(self._data[:end])
        head = CODECS["snappy"].magic[0]
        found = bytes(self._snappy.decompress(chunks if chunks.startswith(head) else head + chunks))
        self.eof, self.unused_data = True, bytes(self._data[end:])
        return found


class _Member(io.RawIOBase):
    """The only file of a zip archive."""

    def __init__(self, raw: BinaryIO, where: str, limit: _Limit) -> None:
        self._raw, self._where, self._limit = raw, where, limit
        self._begin = 0
        try:
            archive = zipfile.ZipFile(raw)
            members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
            if len(members) != 1:
                rule = f"the zip archive holds {len(members)} files, and one is expected"
                raise BadFile(rule, file=where, fix="Unpack it, and point the stream's path at the files")
            self._begin, self._member = members[0].header_offset, cast("Any", archive.open(members[0]))
        except (zipfile.BadZipFile, EOFError, ValueError):
            raise BadFile("it is not a whole zip archive", file=where, fix=_FIX) from None
        except NotImplementedError:
            rule = "the zip archive is packed in a way that is not supported"
            raise BadFile(rule, file=where, fix="Unpack it") from None
        except RuntimeError:  # what zipfile raises for a member that needs a password
            raise BadFile("the zip archive is encrypted", file=where, fix="Unpack it") from None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = self._member.readinto(buffer)
        except MelismaError:
            raise
        except EOFError:
            rule = f"the zip data is cut off: its file ends at byte {self._raw.tell()} of the archive"
            raise BadFile(rule, file=self._where, fix=_FIX) from None
        except Exception:  # each way of packing has its own kinds
            rule = f"the zip data is damaged before byte {self._raw.tell()} of the archive"
            raise BadFile(rule, file=self._where, fix=_FIX) from None
        self._limit.add(count, self._raw.tell() - self._begin)
        return int(count)

    def close(self) -> None:
        if not self.closed:
            try:
                self._member.close()
                self._raw.close()
            finally:
                super().close()
