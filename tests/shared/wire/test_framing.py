"""Cutting the input into runs and messages: nothing lost, nothing reordered within a stream, lines numbered right."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melisma.errors import BadMessage
from melisma.wire.blocks import BlockReader
from melisma.wire.framing import Framer, Run
from melisma.wire.messages import Message, message_dict, state_text

compact = {"separators": (",", ":")}


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


@settings(max_examples=300, deadline=None)
@given(_lines, st.lists(st.integers(1, 4000), max_size=5), st.booleans())
def test_any_cut_of_the_input_gives_the_same_messages(
    lines: list[tuple[str, str, int]], sizes: list[int], bom: bool
) -> None:
    """However the input is cut into blocks, every record comes once, in its stream's order, between the same STATEs."""
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
    framer = Framer()
    found: list[Any] = []
    for block in _blocks(data, sizes):
        for part in framer.cut(block):
            if isinstance(part, Run):
                records = [json.loads(line)["record"]["n"] for line in part.data.splitlines()]
                assert records == list(part.lines)
                assert part.closed
                assert all(line[:1] == b"{" and line[-1:] == b"}" for line in part.data.splitlines())
                found += [(part.stream, number) for number in records]
            else:
                found.append(part.line)
                assert json.loads(state_text(part)) == {"n": part.line}
    assert _by_barrier(found) == _by_barrier(expected)
    assert framer.line == len(lines)


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
def test_a_line_that_is_no_message_is_named_by_its_number(line: bytes, rule: str) -> None:
    """The error says which line and which rule."""
    good = b'{"type":"RECORD","stream":"a","record":{"n":1}}\n'
    with pytest.raises(BadMessage) as caught:
        list(Framer().cut(good * 200 + line + b"\n" + good))
    assert rule in str(caught.value)
    assert caught.value.line == 201


def test_a_few_other_lines_do_not_break_up_a_block() -> None:
    """STATE lines among thousands of records leave long runs, with right line numbers."""
    record = b'{"type":"RECORD","stream":"a","record":{"n":1}}\n'
    state = b'{"type":"STATE","value":{}}\n'
    block = record * 1000 + state + record * 1000
    framer = Framer()
    list(framer.cut(record))
    parts = list(framer.cut(block))
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
