"""Compressed input files: which codec, and reading through it as a stream.

Every codec finds out that a file is damaged or cut off in its own way, some not at all; here each gives a
BadFile that names the file and the rule.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from typing import Any, BinaryIO

import zstandard

from melisma.errors import BadFile, ConfigError

__all__ = ["COMPRESSIONS", "infer", "open_decoded"]

COMPRESSIONS = ("infer", "none", "gzip", "zstd", "zip")
"""What `compression` may be, where files are read."""

_ENDINGS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".zip": "zip"}
_BLOCK = 1 << 20
LARGEST_WINDOW = 1 << 31
"""What a zstd frame may ask for ("zstd --long=31"); zstd's own default refuses more than 2^27."""

_ZSTD_INPUT = 1 << 12  # four bytes may unpack to 128 KiB, and what is read at once unpacks at once
_FIX = "Fetch or write the file again"


def infer(name: str) -> str:
    """The codec that a file's name tells: `flights.csv.gz` -> `gzip`, and `none` for any other ending."""
    lower = name.lower()
    return next((codec for ending, codec in _ENDINGS.items() if lower.endswith(ending)), "none")


def open_decoded(raw: BinaryIO, compression: str, name: str, where: str, *, window: int = LARGEST_WINDOW) -> BinaryIO:
    """Read `raw` decompressed; closing the result closes `raw`.

    Args:
        raw: the file as stored.
        compression: one of COMPRESSIONS.
        name: the file's name, for `infer`.
        where: the file as messages name it.
        window: the most memory that a zstd frame may ask for, in bytes.

    Raises:
        ConfigError: `compression` is not known.
        BadFile: the file is not what it is said to be; also from every later read.
    """
    codec = infer(name) if compression == "infer" else compression
    if codec == "none":
        return raw
    if codec not in COMPRESSIONS:
        raw.close()
        raise ConfigError("compression", "is not known", f"Valid values: {', '.join(COMPRESSIONS)}")
    try:
        if codec == "gzip":
            decoded: Any = gzip.GzipFile(fileobj=raw, mode="rb")
        elif codec == "zstd":
            decoded = _ZstdFrames(raw, window)
        else:
            decoded = _only_member(raw, where)
    except BaseException:
        raw.close()
        raise
    return io.BufferedReader(_Checked(decoded, raw, codec, where), _BLOCK)


class _Checked(io.RawIOBase):
    """A decompressing stream whose failures are BadFiles."""

    def __init__(self, decoded: Any, raw: BinaryIO, codec: str, where: str) -> None:
        self._decoded, self._raw, self._codec, self._where = decoded, raw, codec, where

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self._decoded.readinto(buffer))
        except EOFError:
            raise BadFile(f"the {self._codec} data is cut off", file=self._where, fix=_FIX) from None
        except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, zstandard.ZstdError):
            # Not from the cause: it may quote bytes of the file.
            rule = f"it is not whole {self._codec} data: a header or checksum is wrong"
            raise BadFile(rule, file=self._where, fix=f'{_FIX}, or set "compression"') from None

    def close(self) -> None:
        if not self.closed:
            try:
                self._decoded.close()
                self._raw.close()
            finally:
                super().close()


class _ZstdFrames(io.RawIOBase):
    """The frames of a zstd file, one after the other.

    zstandard's own reader ends quietly in the middle of a cut-off frame; this one raises EOFError.
    """

    def __init__(self, raw: BinaryIO, window: int) -> None:
        self._raw = raw
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=window)
        self._frame: Any = None
        self._pending = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self._pending:
            data = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
            if self._frame is not None and self._frame.eof:
                self._frame = None
            data = data or self._raw.read(_ZSTD_INPUT)
            if not data:
                if self._frame is not None:
                    raise EOFError
                return 0
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            self._pending = memoryview(self._frame.decompress(data))
        count = min(len(view), len(self._pending))
        view[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count


def _only_member(raw: BinaryIO, where: str) -> Any:
    try:
        archive = zipfile.ZipFile(raw)
        members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
        if len(members) != 1:
            rule = f"the zip archive holds {len(members)} files, and one is expected"
            raise BadFile(rule, file=where, fix="Unpack it, and point the stream's path at the files")
        return archive.open(members[0])
    except (zipfile.BadZipFile, EOFError, ValueError):
        raise BadFile("it is not a whole zip archive", file=where, fix=_FIX) from None
    except NotImplementedError:
        raise BadFile("the zip archive is packed in a way that is not supported", file=where, fix="Unpack it") from None
    except RuntimeError:  # what zipfile raises for a member that needs a password
        raise BadFile("the zip archive is encrypted", file=where, fix="Unpack it") from None
