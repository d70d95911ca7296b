"""Cutting the input into runs and messages: nothing lost, nothing reordered within a stream, lines numbered right."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melisma.errors import BadMessage
from melisma.wire.blocks import BlockReader
from melisma.wire.framing import Framer, NativeFramer, Run
from melisma.wire.messages import Message, message_dict, state_text

compact = {"separators": (",", ":")}
native = pytest.mark.skipif(importlib.util.find_spec("melisma_native") is None, reason="make native")


def _native() -> Framer:
    return NativeFramer(importlib.import_module("melisma_native"))


both = pytest.mark.parametrize("framer", [Framer, pytest.param(_native, marks=native)], ids=["pure", "native"])


def _record(stream: str, number: int, style: int) -> bytes:
    if style == 0:
        return json.dumps({"type": "RECORD", "stream": stream, "record": {"n": number}}, **compact).encode()  # type: ignore[arg-type]
    if style == 1:
        return json.dumps({"type": "RECORD", "stream": stream, "record": {"n": number}, "version": 3}).encode()
    if style == 2:
        return json.dumps({"record": {"n": number}, "stream": stream, "type": "RECORD"}).encode()
    if style == 3:
        return b'  {"type": "RECORD","version":1,"stream":"%s", "record":{"n":%d}}  \r' % (stream.encode(), number)
    # A record whose text looks like another message's beginning.
    text = '\n{"type":"STATE"} "record": {"type":"RECORD","stream":"b","record"'
    return json.dumps({"type": "RECORD", "stream": stream, "record": {"n": number, "t": text}}, **compact).encode()  # type: ignore[arg-type]


_lines = st.lists(
    st.one_of(
        st.tuples(st.just("RECORD"), st.sampled_from(["a", "b", "é"]), st.integers(0, 4)),
        st.tuples(st.just("RECORD"), st.just("a"), st.just(0)),
        st.tuples(st.just("STATE"), st.just(""), st.just(0)),
        st.tuples(st.just("blank"), st.just(""), st.just(0)),
    ),
    max_size=300,
)


@both
@settings(max_examples=300, deadline=None)
@given(_lines, st.lists(st.integers(1, 4000), max_size=5), st.booleans())
def test_any_cut_of_the_input_gives_the_same_messages(
    framer: Callable[[], Framer], lines: list[tuple[str, str, int]], sizes: list[int], bom: bool
) -> None:
    """However the input is cut into blocks, every record comes once, in its stream's order, between the same STATEs."""
    data, expected = _input(lines, bom=bom)
    cutter = framer()
    found: list[Any] = []
    for block in _blocks(data, sizes):
        for part in cutter.cut(block):
            found += _checked(part)
    assert _by_barrier(found) == _by_barrier(expected)
    assert cutter.line == len(lines)


@both
@settings(max_examples=300, deadline=None)
@given(_lines, st.lists(st.integers(1, 4000), max_size=5))
def test_states_do_not_keep_records_apart_where_they_need_not(
    framer: Callable[[], Framer], lines: list[tuple[str, str, int]], sizes: list[int]
) -> None:
    """Then records may overtake STATEs of their block, never the other way; and not where lines name a version."""
    data, expected = _input(lines, bom=False)
    cutter = framer()
    found: list[Any] = []
    for block in _blocks(data, sizes):
        parts = [each for part in cutter.cut(block, states_apart=False) for each in _checked(part)]
        met: set[int] = set()
        for each in parts:
            if isinstance(each, tuple):
                met.add(each[1])
            else:
                numbers = [number for _, number in [e for e in parts if isinstance(e, tuple)] if number < each]
                assert met.issuperset(numbers)
        if b'"version"' in block:
            begin, end = len(found), len(found) + len(parts)
            assert _by_barrier(parts) == _by_barrier(expected[begin:end])
        found += parts
    assert [each for each in found if isinstance(each, int)] == [each for each in expected if isinstance(each, int)]
    for stream in "abé":
        of_stream = [each for each in found if isinstance(each, tuple) and each[0] == stream]
        assert of_stream == [each for each in expected if isinstance(each, tuple) and each[0] == stream]


@both
def test_streams_that_take_turns_come_in_one_run_each(framer: Callable[[], Framer]) -> None:
    """Whatever STATEs stand between them, if those need not keep them apart; each record keeps its line."""
    lines: list[bytes] = []
    for number in range(1, 301):
        kind = number % 5
        lines.append(b'{"type":"STATE","value":{}}' if kind == 0 else _record("abcd"[kind - 1], number, 0))
    cutter = framer()
    parts = list(cutter.cut(b"".join(line + b"\n" for line in lines), states_apart=False))
    runs = [part for part in parts if isinstance(part, Run)]
    assert [(run.stream, list(run.lines), run.versioned) for run in runs] == [
        (stream, [n for n in range(1, 301) if n % 5 == kind], False) for kind, stream in enumerate("abcd", start=1)
    ]
    assert [part.line for part in parts if isinstance(part, Message)] == list(range(5, 301, 5))


def _input(lines: list[tuple[str, str, int]], *, bom: bool) -> tuple[bytes, list[Any]]:
    """The bytes, and what is to come of them: (stream, line) of each record, the line of each STATE."""
    data = b"\xef\xbb\xbf" if bom and lines else b""
    expected: list[Any] = []
    for number, (kind, stream, style) in enumerate(lines, start=1):
        if kind == "RECORD":
            data += _record(stream, number, style) + b"\n"
            expected.append((stream, number))
        elif kind == "STATE":
            data += b'{"type":"STATE","value":{"n":%d}}\n' % number
            expected.append(number)
        else:
            data += b" \r\n" if style else b"\n"
    return data, expected


def _checked(part: Run | Message) -> list[Any]:
    if not isinstance(part, Run):
        assert json.loads(state_text(part)) == {"n": part.line}
        return [part.line]
    records = [json.loads(line)["record"]["n"] for line in part.data.splitlines()]
    assert records == list(part.lines)
    assert part.closed
    assert part.versioned or b'"version"' not in part.data
    assert all(line[:1] == b"{" and line[-1:] == b"}" for line in part.data.splitlines())
    return [(part.stream, number) for number in records]


def _blocks(data: bytes, sizes: list[int]) -> list[bytes]:
    blocks, start = [], 0
    for size in [*sizes, len(data)]:
        end = data.rfind(b"\n", start, start + size) + 1
        if end > start:
            blocks.append(data[start:end])
            start = end
    return [*blocks, data[start:]] if start < len(data) else blocks


def _by_barrier(found: list[Any]) -> list[Any]:
    """Between two STATEs, each stream's records in order; streams may change places."""
    segments: list[Any] = [{}]
    for each in found:
        if isinstance(each, tuple):
            segments[-1].setdefault(each[0], []).append(each[1])
        else:
            segments += [each, {}]
    return segments


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"not json", "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b"1", "is not a JSON object"),
        (b"{}", 'has no "type"'),
        (b'{"type":1}', '"type" that is not text'),
        (b'{"type":"RECORD","record":{}}', 'without "stream"'),
        (b'{"type":"RECORD","stream":5,"record":{}}', '"stream" that is not text'),
        (b'{"type":"\xff"}', "is not UTF-8"),
    ],
)
@both
def test_a_line_that_is_no_message_is_named_by_its_number(framer: Callable[[], Framer], line: bytes, rule: str) -> None:
    """The error says which line and which rule."""
    good = b'{"type":"RECORD","stream":"a","record":{"n":1}}\n'
    with pytest.raises(BadMessage) as caught:
        list(framer().cut(good * 200 + line + b"\n" + good))
    assert rule in str(caught.value)
    assert caught.value.line == 201


@both
def test_a_few_other_lines_do_not_break_up_a_block(framer: Callable[[], Framer]) -> None:
    """STATE lines among thousands of records leave long runs, with right line numbers."""
    record = b'{"type":"RECORD","stream":"a","record":{"n":1}}\n'
    state = b'{"type":"STATE","value":{}}\n'
    block = record * 1000 + state + record * 1000
    cutter = framer()
    list(cutter.cut(record))
    parts = list(cutter.cut(block))
    assert [len(part.lines) if isinstance(part, Run) else part.line for part in parts] == [1000, 1002, 1000]


def test_state_text_is_kept_byte_for_byte() -> None:
    """Floats, decimals and spaces in a STATE's value come out as the tap wrote them."""
    text = b'{"a": 1.10, "b": 1e5,"c":12345678901234567890.5}'
    message = Message("STATE", b'{"type": "STATE", "value": ' + text + b" }", 1)
    assert state_text(message) == text
    assert str(message_dict(message)["value"]["a"]) == "1.10"


def test_blocks_end_at_lines_and_hold_everything() -> None:
    """A pipe's bytes come out whole, in blocks that end with a newline but for an unterminated last one."""
    data = b"".join(b"x" * (n % 977) + b"\n" for n in range(3000)) + b"tail"
    blocks = list(BlockReader(io.BytesIO(data), block_bytes=10_000))
    assert b"".join(blocks) == data
    assert all(block.endswith(b"\n") for block in blocks[:-1])


def test_a_quiet_pipe_gives_what_is_there() -> None:
    """Lines that have arrived are handed out while the writer pauses, and then empty blocks as a clock."""
    read, write = os.pipe()
    found: list[bytes] = []
    reader = BlockReader(os.fdopen(read, "rb"), idle_seconds=0.05)

    def collect() -> None:
        found.extend(reader)

    thread = threading.Thread(target=collect)
    thread.start()
    os.write(write, b"one\ntw")
    deadline = time.monotonic() + 120
    while b"" not in found and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found[0] == b"one\n"
    os.write(write, b"o\n")
    os.close(write)
    thread.join(timeout=120)
    assert b"".join(found) == b"one\ntwo\n"
