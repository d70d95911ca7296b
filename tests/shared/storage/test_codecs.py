"""Compressed input: streamed, and a damaged file is one plain error."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import zipfile
from pathlib import Path

import pytest
import zstandard

from melisma.errors import BadFile, ConfigError
from melisma.storage.codecs import infer
from melisma.storage.filesystem import open_store

DATA = random.Random(7).randbytes(300_000) + b"line\n" * 500_000


def zipped(**members: bytes) -> bytes:
    """A zip archive of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("folder")
        for name, content in members.items():
            archive.writestr(f"folder/{name}", content)
    return buffer.getvalue()


def streamed_zstd(data: bytes) -> bytes:
    """A frame that does not say how long it is, as pipes write them."""
    encoder = zstandard.ZstdCompressor().compressobj()
    return encoder.compress(data) + encoder.flush()


PACKED = {
    "plain.csv": DATA,
    "a.csv.gz": gzip.compress(DATA),
    "two.csv.GZ": gzip.compress(DATA[:1_000]) + gzip.compress(DATA[1_000:]),
    "a.csv.zst": zstandard.compress(DATA),
    "streamed.csv.zst": streamed_zstd(DATA),
    "two.csv.zst": zstandard.compress(DATA[:1_000]) + zstandard.compress(b"") + streamed_zstd(DATA[1_000:]),
    "long.csv.zst": zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    ).compress(DATA),
    "a.zip": zipped(a=DATA),
}


def read(directory: Path, name: str, content: bytes, compression: str = "infer") -> bytes:
    """The file's bytes as a store reads them, in uneven pieces."""
    (directory / name).write_bytes(content)
    pieces = []
    with open_store(str(directory), None, distribution="melisma-test").open_input(name, compression) as file:
        while piece := file.read(77_777):
            pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("name", PACKED)
def test_the_bytes_come_back(tmp_path: Path, name: str) -> None:
    """By the name's ending, several members or frames one after the other, and big windows."""
    assert read(tmp_path, name, PACKED[name]) == DATA


def test_the_codec_may_be_named(tmp_path: Path) -> None:
    """`compression` overrules the ending; an unknown one lists the known."""
    assert read(tmp_path, "a.dat", gzip.compress(b"x"), "gzip") == b"x"
    assert read(tmp_path, "a.gz", b"x", "none") == b"x"
    assert infer("dir.gz/a.csv") == "none"
    with pytest.raises(ConfigError, match="Valid values: infer, none, gzip, zstd, lz4"):
        read(tmp_path, "a.bz2", bz2.compress(b"x"), "bzip2")


@pytest.mark.parametrize("name", [name for name in PACKED if name != "plain.csv"])
@pytest.mark.parametrize("keep", [1, 20, 0.5, -1])
def test_a_file_that_is_cut_off_is_a_bad_file(tmp_path: Path, name: str, keep: float) -> None:
    """Wherever it is cut: never a short read that looks whole."""
    content = PACKED[name]
    cut = int(len(content) * keep) if keep == 0.5 else int(keep)
    with pytest.raises(BadFile, match=f'file ".*{name}"') as error:
        read(tmp_path, name, content[:cut])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.zip", "a.csv.zst"])
@pytest.mark.parametrize("content", [b"id,name\n1,secret\n" * 99, None])
def test_what_is_damaged_or_something_else_is_a_bad_file(tmp_path: Path, name: str, content: bytes | None) -> None:
    """Plain text under a wrong name, or a flipped byte: one line, and nothing of the content in it."""
    damaged = bytearray(PACKED[name])
    damaged[200_000] ^= 0xFF
    if name.endswith(".zst"):  # zstandard.compress writes no checksum: damage the frame's header instead
        damaged[4:8] = b"\xff\xff\xff\xff"
    with pytest.raises(BadFile) as error:
        read(tmp_path, name, bytes(damaged) if content is None else content)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("members", "count"), [({}, 0), ({"a": b"1", "b": b"2"}, 2)])
def test_a_zip_of_not_one_file_is_refused(tmp_path: Path, members: dict[str, bytes], count: int) -> None:
    """Which one would be meant cannot be known."""
    with pytest.raises(BadFile, match=f"holds {count} files"):
        read(tmp_path, "a.zip", zipped(**members))


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    """Said so, not taken for damage."""
    content = bytearray(zipped(a=b"x"))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.rfind(signature) + offset] |= 1  # the flag that says "encrypted"
    with pytest.raises(BadFile, match="encrypted"):
        read(tmp_path, "a.zip", bytes(content))
