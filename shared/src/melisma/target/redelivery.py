"""Feeding dead letters back through the target, after what made them bad was mended."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from msgspec.structs import asdict, replace

from melisma.arrow.metadata import BatchMetadata
from melisma.errors import ConfigError, UsageError, printable
from melisma.lake.dead_letters import LETTERS, Letter
from melisma.lake.records import RowCounts
from melisma.lake.redelivery import Redelivered
from melisma.wire.framing import Run
from melisma.wire.messages import Message

if TYPE_CHECKING:
    from melisma.arrow.decode import Decoded
    from melisma.lake.redelivery import RedeliveryLake
    from melisma.target.files import FileTarget
    from melisma.target.route import Route
    from melisma.target.sink import ArrowSink

__all__ = ["redeliver"]

_AT_A_TIME = 10_000


def redeliver(target: FileTarget, lake: RedeliveryLake) -> Counter[str]:
    """Feed every dead letter back; those that are still bad become new ones. `written` and `dead` are counted.

    Args:
        target: its destination is `lake`.
        lake: open.

    Raises:
        ConfigError: the load method is not append-only: an old record would take the place of a newer one.
        UsageError: the stream maps no longer give a letter's stream.
    """
    if target.config.get("load_method", "append-only") != "append-only":
        fix = "Load the records again from the source, or remove the letters' files with melisma lake"
        raise ConfigError("load_method", "dead letters can be fed back with append-only alone", fix)
    routes = _Routes(target, lake)
    done: list[Redelivered] = []
    counts: dict[str, RowCounts] = {}
    for file in lake.letter_files():
        sink, route = routes.to(file.stream)
        letters = lake.letters(file)
        while chunk := list(islice(letters, _AT_A_TIME)):
            _feed(target, sink, route, chunk)
        sink.settle()
        staged, tally = sink.take_settled()
        done.append(Redelivered(file, staged))
        before = counts.get(file.stream, RowCounts(read=0))
        counts[file.stream] = RowCounts(
            read=before.read + tally.read, written=before.written + tally.written, dead=before.dead + tally.dead
        )
    if done:
        lake.redeliver(done, routes.schemas(), counts)
    return Counter(
        written=sum(count.written for count in counts.values()), dead=sum(count.dead for count in counts.values())
    )


class _Routes:
    """The way of each letter's stream, by the schema that the journal keeps."""

    def __init__(self, target: FileTarget, lake: RedeliveryLake) -> None:
        self._target, self._lake = target, lake
        self._found: dict[str, tuple[ArrowSink, Route]] = {}

    def to(self, stream: str) -> tuple[ArrowSink, Route]:
        if stream not in self._found:
            known: dict[str, Any] = dict(self._lake.schema(stream) or {})
            source = known.get("source") or {"stream": stream, **known}
            line = {
                "type": "SCHEMA",
                "stream": source["stream"],
                "schema": source.get("schema"),
                "key_properties": source.get("key_properties"),
            }
            route = self._target.route(Message("SCHEMA", json.dumps(line).encode(), 0))
            sink = next((each for each in route.sinks if each.stream_name == stream), None)
            if sink is None:
                name, origin = printable(stream), printable(source["stream"])
                rule = f'dead letters of stream "{name}" wait, and stream maps no longer make it of "{origin}"'
                raise UsageError(f"{rule}. Set them as they were")
            self._found[stream] = sink, route
        return self._found[stream]

    def schemas(self) -> dict[str, Any]:
        """What is new of the streams' tables."""
        found = {stream: sink.described for stream, (sink, _) in self._found.items()}
        return {stream: schema for stream, schema in found.items() if schema != self._lake.schema(stream)}


def _feed(target: FileTarget, sink: ArrowSink, route: Route, letters: list[Letter]) -> None:
    now = dt.datetime.now(dt.UTC)
    metadata = BatchMetadata(now, now, target.initialized_at)
    data = b"".join(letter.record.encode() + b"\n" for letter in letters)
    run = Run(route.stream, data, range(1, len(letters) + 1))
    for each, decoded, lines in route.decode(run):
        if each is sink:
            bad = pa.RecordBatch.from_pylist(list(map(asdict, _still_bad(decoded, letters, now))), schema=LETTERS)
            sink.take(decoded, lines, len(letters) + 1, metadata, bad).write_settled()


def _still_bad(decoded: Decoded, letters: list[Letter], now: dt.datetime) -> Iterable[Letter]:
    """As they were, with the new reason."""
    for _, error in decoded.bad:
        letter = letters[(error.line or 1) - 1]
        yield replace(letter, column=error.column, reason=error.rule, at=now.isoformat(timespec="seconds"))
