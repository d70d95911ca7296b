"""Where lines and rows wait makes no difference: the same input, with limits that send them to the disk and without.

The disk, how much of it there is and the sizes of blocks and windows decide what is decoded together; what lands, what
is printed and which fault is reported do not depend on it.
"""

from __future__ import annotations

import errno
import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal
from unittest.mock import patch

import pyarrow.parquet as pq
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melisma.errors import MelismaError
from melisma.lake import spill
from melisma.lake.spill import Spill, SpillFile
from melisma.target import bad_records, decoding, files, load, window
from melisma.target import target as module
from melisma.target.window import Window
from melisma.wire.blocks import BlockReader
from melisma_target_parquet.target import TargetParquet

_BROKEN = [b"{\n", b'{"type": "RECORD", "stream": "a", "record": {"n": }}\n', b'{"type": "RECORD", "stream": "b"}\n']
_SCHEMAS: list[dict[str, Any]] = [
    {"n": {"type": "integer"}},
    {"n": {"type": "integer"}, "t": {"type": ["null", "string"]}},
]


Limits = Literal["large", "small", "full"]


@contextmanager
def _limits(which: Limits, writes: int = 0) -> Iterator[None]:
    """With small ones some dozen bytes are a block, some hundred a window in memory, and every row goes to the disk.

    A full disk has the same ones, and takes only so many writes.
    """
    if which == "large":
        yield
        return
    write, done = spill._write, 0

    def count(*arguments: Any) -> int:
        nonlocal done
        done += 1
        if which == "full" and done > writes:
            raise OSError(errno.ENOSPC, "full")
        return write(*arguments)

    with (
        patch.object(spill, "_write", count),
        patch.object(files, "_LETTER_BYTES", 16_000),
        patch.multiple(window, _IN_MEMORY=300, _ON_DISK=6_000, _ROOM=0, _BLOCK=500, _LEAST_BLOCK=64, _PER_COLUMN=800),
        patch.object(window, "BLOCK_BYTES", 128),
        patch.object(load, "BLOCK_BYTES", 200),
        patch.object(decoding, "_IN_MEMORY", 1),
        patch.object(bad_records, "_MOST_LINES", 30),
        patch.object(module, "BlockReader", partial(BlockReader, block_bytes=200)),
    ):
        yield


def _lines(source: Random, bad: float, broken: bytes) -> bytes:
    """Four streams that take turns, with STATEs, a SCHEMA now and then, bad records, and a broken line near the end."""

    def line(**message: Any) -> bytes:
        return json.dumps(message).encode() + b"\n"

    def schema(stream: str, version: int) -> bytes:
        properties = {"type": "object", "properties": _SCHEMAS[version]}
        return line(type="SCHEMA", stream=stream, schema=properties, key_properties=[])

    found = [schema(stream, 0) for stream in "abcd"]
    for number in range(source.randrange(400)):
        match source.choices(["RECORD", "STATE", "SCHEMA"], [96, 3, 1])[0]:
            case "STATE":
                found.append(line(type="STATE", value={"n": number}))
            case "SCHEMA":
                found.append(schema(source.choice("abcd"), 1))
            case _:
                record: dict[str, Any] = {"n": "x" if source.random() < bad else number}
                if source.random() < 0.3:
                    record["t"] = "é" * source.randrange(60)
                found.append(line(type="RECORD", stream=source.choice("abcd"), record=record))
    found.insert(source.randrange(len(found) * 3 // 4, len(found)) + 1, broken)
    return b"".join(found)


Outcome = tuple[list[str], str | None, dict[str, list[str]], dict[str, list[tuple[int, str]]]]


def _run(data: bytes, config: dict[str, Any]) -> Outcome:
    """The STATEs printed, the error, each stream's rows, and its dead letters in order: line and record."""
    output, error = io.StringIO(), None
    with tempfile.TemporaryDirectory(prefix="melisma-test-") as folder:
        try:
            with redirect_stdout(output):
                target = TargetParquet(config={"destination_path": folder, **config})
                target.listen(io.BytesIO(data))  # type: ignore[arg-type]
        except MelismaError as failed:
            error = str(failed)
        rows = {
            path.name: sorted(
                repr(sorted(row.items()))
                for file in path.rglob("*.parquet")
                for row in pq.ParquetFile(file).read().to_pylist()
            )
            for path in Path(folder).iterdir()
            if path.name in "abcd"
        }
        letters: dict[str, list[tuple[int, str]]] = {}
        for file in sorted(Path(folder).glob("_melisma/default/dead_letters/*/*"), key=lambda each: each.name):
            with zstandard.ZstdDecompressor().stream_reader(file.read_bytes()) as stream:
                found = map(json.loads, stream.read().splitlines())
                letters.setdefault(file.parent.name, []).extend((each["line"], each["record"]) for each in found)
    return output.getvalue().splitlines(), error, {name: each for name, each in rows.items() if each}, letters


def _bad(data: bytes, printed: list[str], error: str | None) -> dict[str, list[tuple[int, str]]]:
    """The bad records of each stream that are to be kept: of a run that failed, those before its last STATE."""
    found: dict[str, list[tuple[int, str]]] = {}
    kept: dict[str, list[tuple[int, str]]] = {}
    for number, line in enumerate(data.decode().splitlines(), 1):
        if '"n": "x"' in line:
            found.setdefault(json.loads(line)["stream"], []).append((number, line))
        elif printed and line == json.dumps({"type": "STATE", "value": json.loads(printed[-1])}):
            kept = {stream: list(each) for stream, each in found.items()}
    return found if error is None else kept


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 2**32),
    st.sampled_from([0, 0.005, 0.05, 0.6]),
    st.sampled_from([b"", b"", *_BROKEN]),
    st.sampled_from(["fail", "skip", "dead_letter"]),
    st.sampled_from([None, None, 0, 2, 6]),
    st.sampled_from(["small", "small", "full"]),
)
def test_what_lands_does_not_depend_on_where_it_waited(
    seed: int, bad: float, broken: bytes, policy: str, most: int | None, limits: Limits
) -> None:
    """Rows, STATEs, dead letters, each on its side of the STATE, and the fault that is reported."""
    data = _lines(Random(seed), bad, broken)
    config = {"on_bad_record": policy} | ({} if most is None else {"max_bad_records": most})
    outcomes = []
    for each in ("large", limits):
        with _limits(each, seed % 20):
            outcomes.append(_run(data, config))
    assert outcomes[0] == outcomes[1]
    printed, error, _, letters = outcomes[0]
    assert letters == (_bad(data, printed, error) if policy == "dead_letter" else {})


def test_small_limits_do_send_lines_and_rows_to_the_disk() -> None:
    """Else the other test would compare nothing; and without them nothing goes there."""
    data = _lines(Random(1), 0.3, b"")
    for small in (False, True):
        with (
            _limits("small" if small else "large"),
            patch.object(Window, "relieve", autospec=True, side_effect=Window.relieve) as relieved,
            patch.object(SpillFile, "append", autospec=True, side_effect=SpillFile.append) as lines,
            patch.object(Spill, "put", autospec=True, side_effect=Spill.put) as rows,
        ):
            _run(data, {"on_bad_record": "dead_letter"})
        assert relieved.called
        assert {"reason" in each.args[1].schema.names for each in rows.mock_calls} == (
            {True, False} if small else set()
        )
        assert (lines.call_count > rows.call_count) == small
