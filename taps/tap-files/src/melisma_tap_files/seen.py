"""Which files were read, in one short string: what the bookmark holds under `files`.

Each file takes about eleven bytes whatever its name: the difference between its path's hash and the one before it, a
hash of its version, its size, and for the newest ones a hash of its last bytes. 100,000 files make 1.4 MB of state.
A clash of two paths' hashes (one in some thousands, at 100,000 files) makes a file be read again, never left out: its
version would have to clash as well.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from dataclasses import dataclass

from melisma.errors import ConfigError

__all__ = ["NEWEST", "TAIL_BYTES", "Known", "SeenFiles", "path_hash", "tail_hash", "version_hash"]

NEWEST = 1_000
"""Of so many files, the newest, the last bytes are remembered."""

TAIL_BYTES = 1_024

_PREFIX = "1:"
_PATH_BITS = 44
_VERSION_BYTES = 3
_TAIL_HASH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Known:
    """A file that was read.

    Attributes:
        version: `version_hash` at that time.
        size: its size then, in bytes as stored.
        tail: `tail_hash` of its last bytes then; None if that was not taken.
    """

    version: int
    size: int
    tail: int | None = None


def path_hash(location: str) -> int:
    """The short name of a path or URL."""
    return _hash(location.encode("utf-8", "surrogateescape"), 6) >> (48 - _PATH_BITS)


def version_hash(mtime_ns: int, etag: str | None) -> int:
    """What tells one version of a file from the next: the store's own mark, or the time it was changed."""
    return _hash((etag or str(mtime_ns)).encode(), _VERSION_BYTES)


def tail_hash(data: bytes) -> int:
    """A hash of the last bytes of a file, or of the part of it that was read."""
    return _hash(data[-TAIL_BYTES:], _TAIL_HASH_BYTES)


class SeenFiles(dict[int, Known]):
    """Path hash -> what is known of the file."""

    def pack(self) -> str:
        """As one string that JSON need not escape."""
        data = bytearray()
        previous = 0
        for path, known in sorted(self.items()):
            _append(data, path - previous)
            previous = path
            data += known.version.to_bytes(_VERSION_BYTES)
            _append(data, known.size << 1 | (known.tail is not None))
            if known.tail is not None:
                data += known.tail.to_bytes(_TAIL_HASH_BYTES)
        data += zlib.crc32(data).to_bytes(4)
        return _PREFIX + base64.b85encode(data).decode()

    @classmethod
    def unpack(cls, text: str, stream: str) -> SeenFiles:
        """Read what `pack` wrote.

        Raises:
            ConfigError: it is not that.
        """
        setting = f"state, bookmarks.{stream}.files"
        if not isinstance(text, str) or not text.startswith(_PREFIX):
            fix = "Use the version of tap-files that wrote it, or remove the stream's bookmark to read all files again"
            raise ConfigError(setting, "is not of a kind that this version of tap-files knows", fix)
        try:
            data = base64.b85decode(text.removeprefix(_PREFIX))
            if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:]) or len(data) < 4:
                raise ValueError("checksum")
            return cls._parse(data[:-4])
        except (ValueError, IndexError, binascii.Error):
            fix = "Restore the state from a copy, or remove the stream's bookmark to read all files again"
            raise ConfigError(setting, "is damaged", fix) from None

    @classmethod
    def _parse(cls, data: bytes) -> SeenFiles:
        seen, path, at = cls(), 0, 0
        while at < len(data):
            delta, at = _take(data, at)
            path += delta
            version = int.from_bytes(data[at : at + _VERSION_BYTES])
            size, at = _take(data, at + _VERSION_BYTES)
            tail = None
            if size & 1:
                tail, at = int.from_bytes(data[at : at + _TAIL_HASH_BYTES]), at + _TAIL_HASH_BYTES
            seen[path] = Known(version, size >> 1, tail)
        return seen


def _hash(data: bytes, size: int) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=size).digest())


def _append(data: bytearray, number: int) -> None:
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)


def _take(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
