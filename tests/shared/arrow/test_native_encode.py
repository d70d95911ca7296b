"""The native encoder writes what arrow-rs writes, byte for byte, or leaves the batch to it."""

from __future__ import annotations

import datetime as dt
import math
import random
import struct
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SETTINGS

from melisma.arrow.encode import RecordEncoder, json_lines
from melisma.errors import BadRecord, BadSchema

melisma_native = pytest.importorskip("melisma_native", reason="melisma-native is not built: make native")

NOW = dt.datetime(2024, 5, 6, 7, 8, 9, 12, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the native encoder, whatever the environment says."""
    monkeypatch.delenv("MELISMA_NATIVE", raising=False)


def natively(batch: pa.RecordBatch) -> tuple[bytes, Counter[str]] | None:
    """The lines by the native encoder itself, and the values that became null."""
    found = melisma_native.Encoder().encode(batch, b"", b"\n")
    if found is None:
        return None
    return bytes(memoryview(found[0])), Counter({batch.schema.names[column]: count for column, count in found[1]})


def purely(batch: pa.RecordBatch) -> tuple[bytes, Counter[str]]:
    """The lines by arrow-rs, and the values that became null."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELISMA_NATIVE", "0")
        counts: Counter[str] = Counter()
        return json_lines(batch, stream="s", not_finite=counts), counts


def same(batch: pa.RecordBatch) -> bytes:
    """The lines, once both ways gave them."""
    found = natively(batch)
    assert found is not None
    assert found == purely(batch)
    return found[0]


# ---------------------------------------------------------------- the law

_SPECIAL = ['"', "\\", "/", "\x00", "\x1f", "\b", "\f", "\n", "\r", "\t", "\x7f", "\u2028", "é", "語", "😀", "a" * 16]
_texts = st.text() | st.lists(st.sampled_from([*_SPECIAL, *"abcdefg"]), max_size=50).map("".join)
_bits = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
_edges = st.sampled_from([0.0, -0.0, 5e-324, 2.2e-308, 1e308, 1.7976931348623157e308, 2.0**53, 1e9, 1e10, 1e-5, 9e-6])
_floats = (
    st.floats()
    | _bits
    | _edges
    | st.integers(-(10**16), 10**16).map(float)
    | st.integers(0, 10**7).map(lambda n: n / 100)
)
_FIRST, _LAST = -62_135_596_800, 253_402_300_799


def _integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    lengths = st.integers(0, bits).map(lambda n: min(1 << n, high))
    return st.integers(low, high) | lengths | (lengths.map(lambda n: max(-n, low)) if signed else st.just(high))


def _decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    digits = st.integers(-most, most) | st.integers(0, precision).map(lambda n: min(10**n, most)) | st.just(-1)
    return digits.map(lambda number: Decimal((int(number < 0), tuple(map(int, str(abs(number)))), -scale)))


def _moments(unit: str, zone: str | None) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    low, high = max(_FIRST * scale, -(2**63)), min((_LAST + 1) * scale, 2**63) - 1
    rounded = st.sampled_from([1, 10**3, 10**6, 10**9])
    values = st.builds(lambda value, to: max(value // to * to, low), st.integers(low, high), rounded)
    return pa.timestamp(unit, zone), values


def _times(kind: pa.DataType, scale: int) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    return kind, st.integers(0, 86_400 * scale - 1) | st.integers(0, 86_399).map(lambda second: second * scale)


def _scalars() -> st.SearchStrategy[tuple[pa.DataType, st.SearchStrategy[Any]]]:
    choices: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
        (pa.null(), st.none()),
        (pa.bool_(), st.booleans()),
        *((getattr(pa, f"int{bits}")(), _integers(bits, signed=True)) for bits in (8, 16, 32, 64)),
        *((getattr(pa, f"uint{bits}")(), _integers(bits, signed=False)) for bits in (8, 16, 32, 64)),
        (pa.float64(), _floats),
        (pa.float32(), st.floats(width=32)),
        (pa.string(), _texts),
        (pa.large_string(), _texts),
        (pa.binary(), st.binary()),
        (pa.large_binary(), st.binary()),
        (pa.binary(5), st.binary(min_size=5, max_size=5)),
        *((pa.decimal128(*each), _decimals(*each)) for each in ((1, 0), (5, 5), (9, 2), (38, 0), (38, 18), (38, 38))),
        *(
            _moments(unit, zone)
            for unit in ("s", "ms", "us", "ns")
            for zone in (None, "UTC", "Europe/Vienna", "+02:00")
        ),
        (pa.date32(), st.integers(_FIRST // 86_400, _LAST // 86_400)),
        _times(pa.time32("s"), 1),
        _times(pa.time32("ms"), 10**3),
        _times(pa.time64("us"), 10**6),
        _times(pa.time64("ns"), 10**9),
        (pa.dictionary(pa.int8(), pa.string()), _texts),
        (pa.dictionary(pa.uint32(), pa.float64()), _floats),
        (pa.uuid(), st.binary(min_size=16, max_size=16)),
    ]
    return st.sampled_from(choices)


@st.composite
def _columns(draw: st.DrawFn, rows: int) -> pa.Array:
    """A column, nested or not, with nulls or not, cut out of a longer one."""
    kind, values = draw(_scalars())
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        shape = draw(st.sampled_from(["list", "large_list", "fixed_list", "struct", "map"]))
        if isinstance(kind, pa.BaseExtensionType) or pa.types.is_dictionary(kind):
            break
        nullable = st.none() | values
        if shape == "struct":
            names = draw(st.lists(_texts.filter(lambda name: "\0" not in name), min_size=2, max_size=2, unique=True))
            kind = pa.struct([(names[0], kind), (names[1], pa.int64())])
            values = st.fixed_dictionaries({names[0]: nullable, names[1]: st.none() | st.integers(0, 9)})
        elif shape == "map":
            kind = pa.map_(pa.string(), kind)
            values = st.dictionaries(_texts, nullable, max_size=3).map(lambda entries: list(entries.items()))
        elif shape == "fixed_list":
            kind, values = pa.list_(kind, 2), st.lists(nullable, min_size=2, max_size=2)
        else:
            kind = pa.list_(kind) if shape == "list" else pa.large_list(kind)
            values = st.lists(nullable, max_size=3)
    before, after = draw(st.integers(0, 9)), draw(st.integers(0, 2))
    size = before + rows + after
    nullable = st.none() | values if draw(st.booleans()) else values
    return pa.array(draw(st.lists(nullable, min_size=size, max_size=size)), kind).slice(before, rows)


@st.composite
def _batches(draw: st.DrawFn) -> pa.RecordBatch:
    """A batch, sometimes itself a part of another."""
    rows = draw(st.integers(0, 12))
    arrays = draw(st.lists(_columns(rows), min_size=1, max_size=4))
    names = draw(
        st.lists(_texts.filter(lambda name: "\0" not in name), min_size=len(arrays), max_size=len(arrays), unique=True)
    )
    start = draw(st.integers(0, rows))
    return pa.record_batch(arrays, names=names).slice(start, draw(st.integers(0, rows - start)))


@given(batch=_batches())
@SETTINGS
def test_both_encoders_write_the_same(batch: pa.RecordBatch) -> None:
    """The same bytes for every type, value, nesting and slice, and the same counts of what became null."""
    same(batch)


@given(batch=_batches(), version=st.none() | st.integers(0, 2**40), stream=_texts)
@settings(SETTINGS, max_examples=50)
def test_both_encoders_write_the_same_messages(batch: pa.RecordBatch, version: int | None, stream: str) -> None:
    """What stands around the records is the same too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELISMA_NATIVE", "0")
        pure = RecordEncoder(stream, version)
        patch.setenv("MELISMA_NATIVE", "1")
        natively = RecordEncoder(stream, version)
        for _ in range(2):
            assert bytes(natively.encode(batch, NOW)) == bytes(pure.encode(batch, NOW))
        assert natively.not_finite == pure.not_finite


def test_many_floats_are_written_the_same() -> None:
    """Shortest texts, and exponents where arrow-rs has them: any bits, and the decimals that people write."""
    chosen = random.Random(4)
    bits = struct.unpack("<40000d", chosen.randbytes(320_000))
    decimals = [chosen.randrange(10 ** chosen.randint(1, 17)) / 10 ** chosen.randint(0, 22) for _ in range(40_000)]
    wholes = [float(2**power + more) for power in range(80) for more in (-1, 0, 1)]
    tens = [float(f"{digits}e{power}") for digits in ("1", "9.99", "-1.5") for power in range(-330, 309)]
    numbers = pa.array([*bits, *decimals, *wholes, *tens], pa.float64())
    same(pa.record_batch({"double": numbers, "single": numbers.cast(pa.float32(), safe=False)}))


def test_every_length_of_text_and_every_byte_in_it() -> None:
    """Text is copied in steps: an escape is found wherever it stands in one."""
    texts = [
        "x" * before + special + "y" * after
        for special in ("", *map(chr, range(0x80)), "é", "😀")
        for before in (*range(18), 31, 32, 33)
        for after in (0, 1, 7, 8, 9, 15, 16, 17, 40)
    ]
    same(pa.record_batch({"text": texts}))


def test_every_day_and_every_second() -> None:
    """All dates that there are, and all times of a day."""
    days = range(_FIRST // 86_400, _LAST // 86_400 + 1)
    same(pa.record_batch({"day": pa.array(days, pa.int32()).view(pa.date32())}))
    same(pa.record_batch({"second": pa.array(range(86_400), pa.int32()).view(pa.time32("s"))}))


def test_a_large_batch_grows_the_buffer() -> None:
    """Long texts, full of escapes or of none, take what room they need."""
    texts = ["a" * 1_000_000, '"' * 1_000_000, "\x01" * 1_000_000, "é\n" * 500_000]
    assert len(same(pa.record_batch({"text": texts}))) > 9_000_000


# ---------------------------------------------------------------- what is left to the other path


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1.5], pa.float16()),
        pa.array(["a"], pa.string_view()),
        pa.array([dt.date(2024, 1, 1)], pa.date64()),
        pa.array([Decimal("1.5")], pa.decimal256(60, 3)),
        pa.array([Decimal("100")], pa.decimal128(5, -2)),
        pa.array([[(1, 2)]], pa.map_(pa.int64(), pa.int64())),
        pa.array([[{"a": [1.5]}]], pa.list_(pa.struct([("a", pa.list_(pa.float16()))]))),
        pa.RunEndEncodedArray.from_arrays([1], ["a"]),
    ],
    ids=lambda array: str(array.type),
)
def test_a_rare_type_is_left_to_arrow_rs(array: pa.Array) -> None:
    """Then both ways are one."""
    batch = pa.record_batch([pa.array([1]), array], names=["id", "x"])
    assert natively(batch) is None
    assert (json_lines(batch, stream="s"), Counter()) == purely(batch)


@pytest.mark.parametrize(
    ("array", "rule"),
    [
        (pa.array([0, 2**62], pa.int64()).view(pa.timestamp("us", "UTC")), "a time lies outside the years 1 to 9999"),
        (pa.array([0, -(2**31)], pa.int32()).view(pa.date32()), "a time lies outside the years 1 to 9999"),
        (pa.array([0, _LAST // 86_400 + 1], pa.int32()).view(pa.date32()), "a time lies outside the years 1 to 9999"),
        (pa.array([0, _FIRST - 1], pa.int64()).view(pa.timestamp("s")), "a time lies outside the years 1 to 9999"),
        (pa.array([0, 86_400_000_000], pa.int64()).view(pa.time64("us")), "a time of day is not before 24:00:00"),
        (pa.array([0, -1], pa.int32()).view(pa.time32("ms")), "a time of day is not before 24:00:00"),
    ],
    ids=lambda given: str(given.type) if isinstance(given, pa.Array) else "",
)
def test_a_time_that_json_cannot_say_is_the_same_error(array: pa.Array, rule: str) -> None:
    """With the column, nested or not; a null that hides such a value is no error."""
    nested = pa.StructArray.from_arrays([array], names=["inner"])
    for each in (array, nested, pa.ListArray.from_arrays([0, 2], array)):
        batch = pa.record_batch([each], names=["x"])
        assert natively(batch) is None
        with pytest.raises(BadRecord, match=f'stream "s", column "x": {rule}'):
            json_lines(batch, stream="s")
    same(pa.record_batch([pa.StructArray.from_arrays([array], names=["i"], mask=pa.array([False, True]))], names=["x"]))


def test_a_type_without_a_json_form_is_the_same_error() -> None:
    """A union is refused by name."""
    array = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["a"])])
    with pytest.raises(BadSchema, match=r'column "x": the Arrow type .* has no JSON form'):
        json_lines(pa.record_batch([array], names=["x"]), stream="s")


def test_hidden_values_are_not_counted() -> None:
    """A NaN under a null object, list or map, or beyond the batch's end, became nothing."""
    nan = pa.array([1.0, math.nan, math.nan, 2.0])
    masked = pa.StructArray.from_arrays([nan], names=["a"], mask=pa.array([False, True, True, False]))
    maps = pa.array(
        [[("a", 1.0)], [("b", math.nan)], [("c", math.nan)], [("d", 2.0)]], pa.map_(pa.string(), pa.float64())
    )
    batch = pa.record_batch({"struct": masked, "map": maps})
    assert natively(batch.slice(0, 2)) == purely(batch.slice(0, 2))
    found = natively(batch.slice(0, 2))
    assert found is not None
    assert found[1] == Counter({"map": 1})


# ---------------------------------------------------------------- its memory


def test_a_block_that_is_looked_at_is_not_written_over() -> None:
    """The buffer goes back to the encoder only when nobody holds the block."""
    encoder = RecordEncoder("s")
    blocks, wholes = [], []
    for number in range(20):
        block = encoder.encode(pa.record_batch({"n": [number] * 1_000}), NOW)
        wholes.append(bytes(block))
        if number % 3:
            blocks.append((number, block))
        del block
    assert all(bytes(block) == wholes[number] for number, block in blocks)


def test_encoders_of_several_threads() -> None:
    """The lock is released meanwhile; one encoder may be asked by several threads."""
    encoder = melisma_native.Encoder()
    batches = [pa.record_batch({"n": [number] * 5_000}) for number in range(16)]

    def written(batch: pa.RecordBatch) -> bytes:
        return bytes(memoryview(encoder.encode(batch, b"", b"\n")[0]))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(written, batches)) == [b'{"n":%d}\n' % number * 5_000 for number in range(16)]


def test_without_the_extension_arrow_rs_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`MELISMA_NATIVE=0` leaves it unused."""
    monkeypatch.setattr(melisma_native, "Encoder", None)
    monkeypatch.setenv("MELISMA_NATIVE", "0")
    assert json_lines(pa.record_batch({"a": [1]}), stream="s") == b'{"a":1}\n'
    assert isinstance(RecordEncoder("s").encode(pa.record_batch({"a": [1]}), NOW), memoryview)
