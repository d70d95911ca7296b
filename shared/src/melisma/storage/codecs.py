"""Compression of whole files: which codec, by which name and ending, at which level; reading and writing through it.

Light to import: the codecs' own libraries are loaded when a file is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from melisma.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from melisma.storage.encoding import EncodedWriter, Sink

__all__ = [
    "CODECS",
    "COMPRESSIONS",
    "ENDINGS",
    "EXTRA",
    "LARGEST_WINDOW",
    "MAX_EXPANSION",
    "WRITABLE",
    "Codec",
    "check_level",
    "ending",
    "infer",
    "open_decoded",
    "open_encoded",
    "without_ending",
]

EXTRA = "codecs"
"""The extra of a connector that installs the codecs which are not always there."""

MAX_EXPANSION = 1000
"""How many times its stored size a file may have when it is decompressed; checked once it is over 1 GiB."""

LARGEST_WINDOW = 1 << 31
"""What a zstd frame may ask for ("zstd --long=31"); by itself zstd refuses windows over 2^27."""


@dataclass(frozen=True, slots=True)
class Codec:
    """One codec.

    Attributes:
        endings: of files' names; the first is what is written.
        levels: the lowest and the highest; None where there are none.
        level: what is taken when none is given.
        magic: how a file begins; several where there are several, none where the format has none.
        library: the import that it needs, of the extra `codecs`; empty for one that is always there.
        writable: whether files can be written with it.
    """

    endings: tuple[str, ...]
    levels: tuple[int, int] | None = None
    level: int = 0
    magic: tuple[bytes, ...] = ()
    library: str = ""
    writable: bool = True


_SKIPPABLE = tuple(bytes([0x50 + n, 0x2A, 0x4D, 0x18]) for n in range(16))  # frames of zstd and lz4 for others' data

CODECS: Mapping[str, Codec] = {
    "gzip": Codec((".gz", ".gzip"), (0, 9), 6, (b"\x1f\x8b",)),
    "zstd": Codec((".zst", ".zstd"), (1, 22), 3, (b"\x28\xb5\x2f\xfd", *_SKIPPABLE)),
    "lz4": Codec((".lz4",), (0, 12), 0, (b"\x04\x22\x4d\x18", *_SKIPPABLE), "lz4"),
    "brotli": Codec((".br",), (0, 11), 5, (), "brotli"),
    "snappy": Codec((".sz", ".snappy"), None, 0, (b"\xff\x06\x00\x00sNaPpY",), "cramjam"),
    "bz2": Codec((".bz2",), (1, 9), 9, (b"BZh",)),
    "xz": Codec((".xz", ".lzma"), (0, 9), 6, (b"\xfd7zXZ\x00", b"\x5d\x00\x00")),
    "zip": Codec((".zip",), magic=(b"PK\x03\x04", b"PK\x05\x06"), writable=False),
}
"""All codecs. snappy is in its framing format, lz4 in its frame format; the second beginning of xz is that of .lzma."""

COMPRESSIONS = ("infer", "none", *CODECS)
"""What `compression` may be where files are read; `infer` goes by the name's ending."""

WRITABLE = ("none", *(name for name, codec in CODECS.items() if codec.writable))
"""What `compression` may be where files are written."""

ENDINGS: Mapping[str, str] = {ending: name for name, codec in CODECS.items() for ending in codec.endings}
"""Endings of names, with their dot, to codecs."""


def infer(name: str) -> str:
    """The codec that a file's name tells: `flights.csv.gz` -> `gzip`, and `none` for any other ending."""
    lower = name.lower()
    return next((codec for ending, codec in ENDINGS.items() if lower.endswith(ending)), "none")


def without_ending(name: str) -> str:
    """A name without its codec's ending: `flights.csv.gz` -> `flights.csv`."""
    lower = name.lower()
    return next((name[: -len(ending)] for ending in ENDINGS if lower.endswith(ending)), name)


def ending(compression: str) -> str:
    """What a codec appends to the names of the files that it writes: `gzip` -> `.gz`, `none` -> nothing."""
    return CODECS[compression].endings[0] if compression != "none" else ""


def check_level(compression: str, level: int | None, setting: str = "compression") -> None:
    """Refuse what cannot be written with.

    Args:
        compression: to be one of WRITABLE.
        level: to be one of the codec's; None for the codec's own choice.
        setting: the name of the setting that both come from; the level's is `<setting>_level`.

    Raises:
        ConfigError: one of them is not.
    """
    if compression not in WRITABLE:
        raise ConfigError(setting, "is not a codec that files are written with", f"Valid values: {', '.join(WRITABLE)}")
    if level is None:
        return
    levels = CODECS[compression].levels if compression != "none" else None
    if levels is None:
        raise ConfigError(f"{setting}_level", f"{compression} has no levels", "Remove the setting")
    if not levels[0] <= level <= levels[1]:
        rule = f"is not a level of {compression}"
        raise ConfigError(f"{setting}_level", rule, f"Set a number from {levels[0]} to {levels[1]}")


def open_decoded(
    raw: BinaryIO,
    compression: str,
    name: str,
    where: str,
    *,
    max_expansion: int = MAX_EXPANSION,
    window: int = LARGEST_WINDOW,
    distribution: str = "melisma",
) -> BinaryIO:
    """Read `raw` decompressed, as a buffered stream; closing the result closes `raw`. Memory is flat.

    Files of several members or frames, one after the other, are read whole.

    Args:
        raw: the file as stored, from its start.
        compression: one of COMPRESSIONS.
        name: the file's name, for `infer`.
        where: the file as messages name it.
        max_expansion: see MAX_EXPANSION; 0 for no limit.
        window: the most memory that a zstd frame may ask for, in bytes; a power of two.
        distribution: what a missing extra is to be installed with.

    Raises:
        ConfigError: `compression` is not known.
        MissingExtra: the codec's library is not installed.
        BadFile: the file is not what it is said to be, is damaged, cut off or grows beyond the limit; also from
            every later read.
    """
    codec = infer(name) if compression == "infer" else compression
    if codec == "none":
        return raw
    try:
        if codec not in CODECS:
            raise ConfigError("compression", "is not known", f"Valid values: {', '.join(COMPRESSIONS)}")
        try:
            from melisma.storage.decoding import decoded

            return decoded(raw, codec, where, max_expansion, window)
        except ImportError:
            raise MissingExtra(f"reading {codec} files", distribution, EXTRA) from None
    except BaseException:
        raw.close()
        raise


def open_encoded(
    sink: Sink, compression: str, level: int | None = None, *, distribution: str = "melisma"
) -> EncodedWriter:
    """Write to `sink` compressed: a file with `write`, `close` and `abandon`. Memory is flat.

    `close` completes the compressed data and leaves `sink` open; a writer that is given up without it writes nothing
    more. With `none` the bytes pass as they are.

    Args:
        sink: open for writing.
        compression: one of WRITABLE.
        level: one of the codec's; None for the codec's own choice (`CODECS[...].level`).
        distribution: what a missing extra is to be installed with.

    Raises:
        ConfigError: codec or level are not possible.
        MissingExtra: the codec's library is not installed.
    """
    check_level(compression, level)
    try:
        from melisma.storage.encoding import EncodedWriter, encoder

        return EncodedWriter(sink, encoder(compression, level))
    except ImportError:
        raise MissingExtra(f"writing {compression} files", distribution, EXTRA) from None
