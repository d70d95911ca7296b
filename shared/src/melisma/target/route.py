"""From one input stream to its sinks: straight through, or by way of stream maps and flattening."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from singer_sdk.mapper import RemoveRecordTransform, SameRecordTransform

from melisma.arrow.rows import decode_lines
from melisma.errors import ConfigError

if TYPE_CHECKING:
    from singer_sdk.mapper import StreamMap

    from melisma.arrow.decode import Decoded
    from melisma.arrow.types import ColumnType
    from melisma.target.sink import ArrowSink
    from melisma.wire.framing import Run

__all__ = ["Route"]


class Route:
    """Where the records of one input stream go.

    Args:
        stream: the input stream's name.
        maps: its stream maps, each with the sink that it feeds (None for a stream that is removed).
        schema_line: the SCHEMA message as it came, to know a repeated one.

    Attributes:
        straight: records go to one sink as they come.
        width: how many columns it feeds, members of objects included.
    """

    def __init__(self, stream: str, maps: Sequence[tuple[StreamMap, ArrowSink | None]], schema_line: bytes) -> None:
        self.stream = stream
        self.schema_line = schema_line
        self._maps = [(each, sink) for each, sink in maps if sink is not None]
        first = self._maps[0][0] if len(self._maps) == 1 else None
        self.width = sum(_columns(sink.columns.root) for sink in self.sinks)
        self.straight = type(first) is SameRecordTransform and not first.flattening_enabled

    @property
    def sinks(self) -> list[ArrowSink]:
        """The sinks that it feeds."""
        return [sink for _, sink in self._maps]

    def decode(self, run: Run) -> list[tuple[ArrowSink, Decoded, Sequence[int]]]:
        """Decode a run for each sink, with the line of each record that went there.

        Raises:
            BadMessage: a line is not a RECORD of this stream.
            ConfigError: a stream map cannot be applied.
        """
        if self.straight:
            sink = self._maps[0][1]
            return [(sink, sink.decode(run), run.lines)]
        messages = decode_lines(run.data, run.stream, run.lines)
        results: list[tuple[ArrowSink, Decoded, Sequence[int]]] = []
        for stream_map, sink in self._maps:
            chosen = []
            for line, message in zip(run.lines, messages, strict=True):
                record = self._transform(stream_map, dict(message.record or {}))
                if record is not None:
                    chosen.append((line, message, record))
            lines = [line for line, _, _ in chosen]
            decoded = sink.decode_records([message for _, message, _ in chosen], [r for _, _, r in chosen], lines)
            results.append((sink, decoded, lines))
        return results

    def _transform(self, stream_map: StreamMap, record: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return stream_map.transform(record)
        except Exception as error:
            # Its text quotes the expression's values.
            raise ConfigError(
                "stream_maps",
                f'an expression failed on a record of stream "{self.stream}" ({type(error).__name__})',
                "Mend the expression, or filter such records out with __filter__",
            ) from error


def _columns(column: ColumnType) -> int:
    return sum(_columns(each.type) for each in column.fields) or 1


def is_removed(stream_map: StreamMap) -> bool:
    """Whether the map takes the whole stream out."""
    return isinstance(stream_map, RemoveRecordTransform)
