"""Codecs against other implementations, and against damage: what was written comes back, or an error does."""

from __future__ import annotations

import io
import lzma
import random
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cramjam
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from melisma.errors import BadFile, ConfigError, MissingExtra
from melisma.storage import codecs, decoding
from melisma.storage.codecs import CODECS, ENDINGS, WRITABLE, open_decoded, open_encoded

DATA = b"".join(b"%d,order %d,%d.25\n" % (n, n * 7919, n % 97) for n in range(40_000))
PACKING = [name for name in WRITABLE if name != "none"]
CHECKED = [name for name in PACKING if name != "brotli"]
"""Codecs whose format finds every flipped bit; brotli's has no checksum."""


class Slow(io.BytesIO):
    """A file that gives at most so many bytes a read, as its first and every later one."""

    def __init__(self, content: bytes, most: int) -> None:
        super().__init__(content)
        self.most = most

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.most if size is None or size < 0 else min(size, self.most))


def pack(codec: str, data: bytes, level: int | None = None) -> bytes:
    """`data` as this project writes it."""
    sink = io.BytesIO()
    with open_encoded(sink, codec, level) as writer:
        writer.write(data)
    return sink.getvalue()


def unpack(codec: str, content: bytes, **options: Any) -> bytes:
    """`content` as this project reads it."""
    with open_decoded(io.BytesIO(content), codec, "", "some file", **options) as file:
        return file.read()


def framed_snappy(data: bytes) -> bytes:
    """Snappy's framing format put together from its description, around pyarrow's raw snappy."""
    snappy = pa.Codec("snappy")
    chunks = [b"\xff\x06\x00\x00sNaPpY", b"\xfe\x03\x00\x00pad", b"\x80\x02\x00\x00??"]
    for start in range(0, len(data), 50_000):
        block = data[start : start + 50_000]
        kind, body = (0, snappy.compress(block, asbytes=True)) if start % 100_000 else (1, block)
        crc = crc32c(block)
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        body = masked.to_bytes(4, "little") + body
        chunks.append(bytes([kind]) + len(body).to_bytes(3, "little") + body)
    return b"".join(chunks)


def crc32c(data: bytes) -> int:
    """CRC-32C, bit by bit from its polynomial, by a table."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def by_pyarrow(codec: str, data: bytes) -> bytes:
    """Compressed by pyarrow."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return bytes(sink.getvalue())


OTHERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip of cramjam": ("gzip", lambda data: bytes(cramjam.gzip.compress(data))),
    "zstd of zstandard": ("zstd", zstandard.compress),
    "zstd of pyarrow": ("zstd", lambda data: by_pyarrow("zstd", data)),
    "lz4 of pyarrow": ("lz4", lambda data: by_pyarrow("lz4", data)),
    "lz4 of cramjam": ("lz4", lambda data: bytes(cramjam.lz4.compress(data))),
    "brotli of pyarrow": ("brotli", lambda data: by_pyarrow("brotli", data)),
    "snappy by its description": ("snappy", framed_snappy),
    "bz2 of cramjam": ("bz2", lambda data: bytes(cramjam.bzip2.compress(data))),
    "xz of cramjam": ("xz", lambda data: bytes(cramjam.xz.compress(data))),
    "lzma alone": ("xz", lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE)),
}

READERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda content: bytes(cramjam.gzip.decompress(content)),
    "zstd": lambda content: zstandard.ZstdDecompressor().stream_reader(content).read(),
    "lz4": lambda content: pa.CompressedInputStream(pa.BufferReader(content), "lz4").read(),
    "brotli": lambda content: pa.CompressedInputStream(pa.BufferReader(content), "brotli").read(),
    "snappy": lambda content: bytes(cramjam.snappy.decompress(content)),
    "bz2": lambda content: bytes(cramjam.bzip2.decompress(content)),
    "xz": lambda content: bytes(cramjam.xz.decompress(content)),
}

COMMANDS = {"gzip": "gzip", "zstd": "zstd", "lz4": "lz4", "bz2": "bzip2", "xz": "xz"}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("most", [1 << 20, 997])
def test_what_others_wrote_is_read(name: str, most: int) -> None:
    """Also where the store gives few bytes at a time."""
    codec, write = OTHERS[name]
    with open_decoded(Slow(write(DATA), most), codec, "", "some file") as file:
        assert file.read() == DATA


@pytest.mark.parametrize("codec", PACKING)
def test_others_read_what_is_written(codec: str) -> None:
    """At the codec's lowest, highest and own level, which are not one."""
    levels = CODECS[codec].levels
    packed = [pack(codec, DATA, level) for level in ([*levels, None] if levels else [None])]
    for content in packed:
        assert READERS[codec](content) == DATA
        assert len(content) < len(DATA) * 0.8 or content == packed[0]
    if levels:
        assert packed[0] != packed[1]


@pytest.mark.parametrize("codec", COMMANDS)
def test_the_codecs_own_commands_agree(codec: str, tmp_path: Path) -> None:
    """Each way: two files written by the command one after the other, and ours unpacked by it."""
    command = shutil.which(COMMANDS[codec])
    if command is None:
        pytest.skip(f"the command {COMMANDS[codec]} is not installed")
    packed = [
        subprocess.run([command, "-c"], input=part, check=True, stdout=subprocess.PIPE).stdout
        for part in (DATA[:1000], DATA[1000:])
    ]
    assert unpack(codec, b"".join(packed)) == DATA
    ours = tmp_path / "ours"
    ours.write_bytes(pack(codec, DATA))
    found = subprocess.run([command, "-dc"], stdin=ours.open("rb"), check=True, stdout=subprocess.PIPE).stdout
    assert found == DATA


@pytest.mark.parametrize("codec", WRITABLE)
@settings(deadline=None, max_examples=30)
@given(
    parts=st.lists(st.one_of(st.binary(max_size=300), st.integers(0, 200_000).map(lambda n: bytes(n))), max_size=6),
    most=st.integers(1, 200_000),
    sizes=st.lists(st.integers(1, 150_000), min_size=1, max_size=5),
)
def test_what_is_written_is_read(codec: str, parts: list[bytes], most: int, sizes: list[int]) -> None:
    """However it is cut into writes, as stored, and into reads; nothing at all too."""
    sink = io.BytesIO()
    with open_encoded(sink, codec) as writer:
        for part in parts:
            assert writer.write(part) == len(part)
        assert writer.tell() == sum(map(len, parts))
    assert not sink.closed
    found, turn = [], 0
    with open_decoded(Slow(sink.getvalue(), most), codec, "", "some file") as file:
        while piece := file.read(sizes[turn % len(sizes)]):
            found.append(piece)
            turn += 1
    assert b"".join(found) == b"".join(parts)


@pytest.mark.parametrize("codec", PACKING)
def test_a_file_cut_off_anywhere_is_a_bad_file(codec: str) -> None:
    """It says where the file ends. Only snappy's format does not say where its data ends: there, between two chunks."""
    content = pack(codec, DATA[:100_000])
    step = max(1, len(content) // 80)
    whole = 0
    for end in [*range(0, len(content), step), *range(len(content) - 12, len(content))]:
        try:
            unpack(codec, content[:end])
        except BadFile as error:
            assert 'file "some file"' in str(error)
            assert end == 0 or str(end) in error.rule or "not" in error.rule
        else:
            whole += 1
    assert whole == 0 or codec == "snappy"


@pytest.mark.parametrize("codec", CHECKED)
def test_a_flipped_bit_never_gives_other_data(codec: str) -> None:
    """Wherever it is: an error, or it was in a part of the header that means nothing."""
    data = DATA[:2_000]
    content = pack(codec, data)
    errors = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        try:
            assert unpack(codec, bytes(damaged)) == data
        except BadFile as error:
            errors += 1
            assert "\n" not in str(error)
            assert "order" not in str(error)
    assert errors > len(content) * 0.9


@pytest.mark.parametrize("codec", PACKING)
def test_damage_says_where_it_is(codec: str) -> None:
    """Between which bytes of the file as stored."""
    noise = random.Random(3).randbytes(400_000)
    content = bytearray(pack(codec, noise))
    content[150_000:150_064] = bytes(64)
    try:
        found = unpack(codec, bytes(content))
    except BadFile as error:
        assert "damaged" in error.rule
        assert "between its bytes" in error.rule
    else:
        assert codec == "brotli"
        assert found != noise


@pytest.mark.parametrize("codec", PACKING)
def test_another_codecs_file_is_told_apart(codec: str) -> None:
    """What it is instead is said where its first bytes tell."""
    other = "zstd" if codec == "gzip" else "gzip"
    with pytest.raises(BadFile) as error:
        unpack(codec, pack(other, DATA))
    assert "damaged" in error.value.rule if codec == "brotli" else f"but {other}" in error.value.rule


@pytest.mark.parametrize("codec", PACKING)
def test_something_behind_the_data_is_an_error(codec: str) -> None:
    """Never passed over: half of the rows may be in it."""
    with pytest.raises(BadFile):
        unpack(codec, pack(codec, DATA) + b"1,plain text\n" * 9)


@pytest.mark.parametrize("codec", ["gzip", "xz"])
def test_padding_is_passed_over(codec: str) -> None:
    """Zeros between members and at the end, as tapes leave them."""
    content = pack(codec, DATA[:10]) + bytes(300_000) + pack(codec, DATA[10:]) + bytes(512)
    assert unpack(codec, content) == DATA


@pytest.mark.parametrize("codec", PACKING)
def test_memory_is_flat(codec: str) -> None:
    """64 MiB come out of a small file, a mebibyte at a time, in a few MiB of memory; going in likewise."""
    megabyte = (DATA * 2)[: 1 << 20]
    tracemalloc.start()
    try:
        sink = io.BytesIO()
        with open_encoded(sink, codec, 1 if CODECS[codec].levels else None) as writer:
            for _ in range(64):
                writer.write(bytes(1 << 20))
        content = sink.getvalue()
        sink.close()
        del writer, sink
        tracemalloc.reset_peak()
        count = 0
        with open_decoded(io.BytesIO(content), codec, "", "some file", max_expansion=0) as file:
            while piece := file.read(1 << 20):
                count += len(piece)
        assert count == 64 * len(megabyte)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codec", [*PACKING, "zip"])
def test_a_decompression_bomb_stops(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit, and not where the limit is raised or lifted."""
    monkeypatch.setattr(decoding, "_FREE_EXPANSION", 1 << 20)
    if codec == "zip":
        import zipfile

        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", bytes(20 << 20))
        bomb = buffer.getvalue()
    else:
        bomb = pack(codec, bytes(20 << 20))
    with pytest.raises(BadFile, match=r'expands to over 10 times its size.*raise "max_expansion"'):
        unpack(codec, bomb, max_expansion=10)
    assert len(unpack(codec, bomb, max_expansion=0)) == 20 << 20
    assert len(unpack(codec, bomb, max_expansion=1_000_000)) == 20 << 20


def test_small_files_may_expand_as_they_like() -> None:
    """A gibibyte harms nobody; a file of nothing but zeros is no attack."""
    content = pack("zstd", bytes(64 << 20))
    assert len(content) < 10_000
    assert len(unpack("zstd", content, max_expansion=1)) == 64 << 20


@pytest.mark.parametrize("codec", PACKING)
def test_a_writer_that_is_given_up_completes_nothing(codec: str) -> None:
    """Neither when it is abandoned nor when it is forgotten: what is there reads as cut off."""
    for forget in (False, True):
        sink = io.BytesIO()
        writer = open_encoded(sink, codec)
        writer.write(DATA)
        if forget:
            del writer
        else:
            writer.abandon()
            with pytest.raises(ValueError, match="closed"):
                writer.write(b"x")
        assert len(sink.getvalue()) < len(pack(codec, DATA))


def test_levels_are_checked() -> None:
    """Each codec has its own; what cannot be written is refused, and the message lists what can."""
    for codec, level in (("gzip", 10), ("zstd", 0), ("zstd", 23), ("lz4", 13), ("brotli", 12), ("bz2", 0), ("xz", -1)):
        with pytest.raises(ConfigError, match=r"compression_level.*Set a number from"):
            open_encoded(io.BytesIO(), codec, level)
    for codec in ("snappy", "none"):
        with pytest.raises(ConfigError, match="has no levels"):
            open_encoded(io.BytesIO(), codec, 1)
    with pytest.raises(ConfigError, match="Valid values: none, gzip, zstd"):
        open_encoded(io.BytesIO(), "zip")


@pytest.mark.parametrize("codec", [name for name, codec in CODECS.items() if codec.library])
def test_a_missing_library_says_what_to_install(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connector's own distribution, with the extra."""
    library = CODECS[codec].library
    monkeypatch.setitem(__import__("sys").modules, library, None)
    monkeypatch.setitem(__import__("sys").modules, f"{library}.frame", None)
    with pytest.raises(MissingExtra, match=r'pip install "melisma-tap-x\[codecs\]"'):
        open_encoded(io.BytesIO(), codec, distribution="melisma-tap-x")
    raw = io.BytesIO(b"x")
    with pytest.raises(MissingExtra, match=r'pip install "melisma-tap-x\[codecs\]"'):
        open_decoded(raw, codec, "", "some file", distribution="melisma-tap-x")
    assert raw.closed


def test_endings_go_both_ways() -> None:
    """What is written is found by name."""
    for codec in PACKING:
        assert codecs.infer(f"a.csv{codecs.ending(codec)}") == codec
    assert codecs.ending("none") == ""
    assert all(codecs.without_ending(f"A.CSV{ending.upper()}") == "A.CSV" for ending in ENDINGS)
    assert codecs.without_ending("a.csv") == "a.csv"
