"""When a stream's rows take the place of those that are there: load method overwrite, and ACTIVATE_VERSION.

A tap says with ACTIVATE_VERSION that only rows of one version of a table count from now on. Some say so before those
rows come (singer-sdk), some after them, some both. In the first case nobody says when they have all come, so the
switch waits for the end of the input, and with it every STATE, since it covers rows that are not committed. In the
second the switch is in the first commit under a STATE that follows. Overwrite is like the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from melisma.errors import BadMessage, InputError, MelismaError, printable
from melisma.lake.generation import Switch, Versioned
from melisma.wire.framing import Run, split_lines
from melisma.wire.messages import Message, message_dict

if TYPE_CHECKING:
    import pyarrow as pa

    from melisma.formats.parquet import ParquetOptions
    from melisma.lake.lake import Facts
    from melisma.target.route import Route
    from melisma.target.sink import ArrowSink, Writer
    from melisma.target.target import ArrowTarget

__all__ = ["Generation", "Generations", "RowVersions", "Unfinished", "VersionedWriter", "activate", "finish"]


class Unfinished(MelismaError):
    """The input ended, but nothing says that a stream's rows have all come. What was there stays whole."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        super().__init__(
            f'stream "{printable(stream)}": no STATE or ACTIVATE_VERSION came after its last rows, so nothing says '
            "that they are all; the rows that were there stay, and nothing since the last commit is kept. "
            "Run it again; if this tap ends without one, set trust_eof to true"
        )


class Generations:
    """The generations of a run's streams, by output stream.

    Args:
        target: its configuration says what becomes of old rows, its destination what there is.
    """

    def __init__(self, target: ArrowTarget) -> None:
        self._target = target
        self._found: dict[str, Generation] = {}

    def of(self, stream: str) -> Generation:
        """That of a stream; sinks that follow one another share it."""
        if stream not in self._found:
            self._found[stream] = Generation(stream, self._target)
        return self._found[stream]


class Generation:
    """What is known of a stream's versions in this run.

    Attributes:
        row_version: of the rows that are being written; None if they name none.
    """

    def __init__(self, stream: str, target: ArrowTarget) -> None:
        self.stream, self._target = stream, target
        self._overwrites = target.config.get("load_method") == "overwrite"
        self.row_version: int | None = None
        self._written = False  # rows of `row_version`
        self._current: int | None = None  # told in this run; else what the destination knows
        self._opened: int | None = None  # the version to switch to
        self._whole = False  # its rows have all been read
        self._ready = False  # and they are settled, or the input has ended
        self._settled = False  # a STATE came after the newest rows
        self._soft = False
        self._options: ParquetOptions | None = None

    @property
    def holding(self) -> bool:
        """Whether no STATE may be committed now: the new generation is not whole."""
        return (self._overwrites or self._opened is not None) and not self._ready

    @property
    def finished(self) -> bool:
        """Whether there is evidence that its rows have all been read."""
        return self._whole or self._settled

    @property
    def current(self) -> int | None:
        """The version that counts; None if none was ever named."""
        return self._current if self._current is not None else self._target.version(self.stream)

    def begin(self, version: int | None) -> None:
        """Rows of this version follow."""
        self.row_version, self._written = version, False

    def wrote(self) -> None:
        """Rows were written."""
        self._written, self._settled = True, False

    def settle(self) -> None:
        """A STATE covers all rows written so far."""
        self._settled = True
        self._ready = self._ready or (self._whole and not self._overwrites)

    def opens(self, version: int) -> bool:
        """Whether ACTIVATE_VERSION of this version begins a generation that is not there."""
        current = self.current
        return not self._overwrites and current is not None and version != current and version != self._opened

    def activate(self, version: int, sink: ArrowSink) -> str | None:
        """Take an ACTIVATE_VERSION; what to warn of, if anything.

        Raises:
            InputError: the version is older than the one that counts.
        """
        self._settled = self._settled and self._written
        if self._overwrites:
            self._whole = self._written
            return None
        current = self.current
        if version == current:
            return None
        if current is not None and version < current:
            raise InputError(
                "the tap's version of this table is older than the one in the lake",
                stream=self.stream,
                fix="Set the clock of the tap's machine right",
            )
        if current is None:
            self._current = version
            if not self._target.live_rows(self.stream):
                return None
            return (
                f'stream "{printable(self.stream)}": the rows that are in the lake name no version, so they are taken '
                "for rows of the one that ACTIVATE_VERSION names now, and stay until the next one"
            )
        config = self._target.config
        self._soft, self._options = not config.get("hard_delete", False), sink.mark_options
        if self._soft and (self._options is None or "_sdc_deleted_at" not in sink.columns.arrow.names):
            self._current = version
            marking = "; to mark them set add_record_metadata to true" if self._options is not None else ""
            return (
                f'stream "{printable(self.stream)}": rows of earlier versions stay as they are. For ACTIVATE_VERSION '
                f"to remove them set hard_delete to true{marking}"
            )
        self._opened = version
        self._whole = self._written and self.row_version == version
        self._ready = self._whole and self._settled and not sink.has_tail
        return None

    def finish(self) -> None:
        """The input has ended as it should."""
        self._whole = self._ready = True

    def describe(self, facts: Facts) -> None:
        """Add to a commit's facts what becomes of this stream's generations."""
        config = self._target.config
        if self._ready and (self._overwrites or self._opened is not None):
            facts.switches[self.stream] = Switch(
                version=self._opened,
                soft=self._soft and not self._overwrites,
                options=self._options,
                allow_empty=bool(config.get("allow_empty_overwrite", False)),
                max_shrink_percent=float(config.get("max_shrink_percent", 90)),
            )
        version = self._opened if self._ready and self._opened is not None else self._current
        if version is not None and version != self._target.version(self.stream):
            facts.versions[self.stream] = version

    def committed(self) -> None:
        """A commit with what `describe` said is in force."""
        if self._ready and self._opened is not None:
            self._current, self._opened, self._ready = self._opened, None, False


class VersionedWriter:
    """A writer whose rows are all of one version.

    Args:
        writer: does the work.
        version: what it is told to the commit.
    """

    def __init__(self, writer: Writer, version: int) -> None:
        self._writer, self._version = writer, version

    def write(self, batch: pa.RecordBatch) -> None:
        """See Writer."""
        self._writer.write(batch)

    def settle(self) -> None:
        """See Writer."""
        self._writer.settle()

    def flush_settled(self) -> None:
        """See Writer."""
        self._writer.flush_settled()

    def take_settled(self) -> Sequence[Any]:
        """See Writer."""
        return [Versioned(item, self._version) for item in self._writer.take_settled()]

    def abandon(self) -> None:
        """See Writer."""
        self._writer.abandon()


class _Line(msgspec.Struct):
    version: Any = None


class RowVersions:
    """Finds where the version that RECORD lines name changes. Looks at a run's first and last line alone."""

    def __init__(self) -> None:
        self._newest: dict[str, int | None] = {}  # of streams whose latest line names one
        self._decode = msgspec.json.Decoder(_Line).decode

    @property
    def named(self) -> bool:
        """Whether some stream's latest line names a version."""
        return any(version is not None for version in self._newest.values())

    def cut(self, run: Run) -> Iterator[tuple[Run, int | None, bool]]:
        """Runs of one version each, with it, and whether it is another than that of the stream's rows before."""
        known = self._newest.get(run.stream)
        if not run.versioned or b'"version"' not in run.data:
            yield run, None, known is not None
            self._newest.pop(run.stream, None)
            return
        end = run.data.rfind(b"\n", 0, len(run.data) - 1) + 1
        first, last = self._version(run.data[: run.data.find(b"\n")]), self._version(run.data[end:])
        if first == last:
            yield run, last, last != known
            self._newest[run.stream] = last
            return
        lines = split_lines(run.data)
        versions = [self._version(line) for line in lines]
        start = 0
        for index in range(1, len(lines) + 1):
            if index == len(lines) or versions[index] != versions[start]:
                part = Run(run.stream, b"".join(lines[start:index]), run.lines[start:index], run.closed)
                yield part, versions[start], versions[start] != self._newest.get(run.stream)
                self._newest[run.stream] = versions[start]
                start = index

    def changes(self, stream: str, version: int | None) -> bool:
        """Take the version of rows that come at once: whether it is another than that of the stream's rows before."""
        known, self._newest[stream] = self._newest.get(stream), version
        return known != version

    def _version(self, line: bytes) -> int | None:
        try:
            found = self._decode(line).version
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None  # the line is refused, with a reason, where it is decoded
        return found if isinstance(found, int) and not isinstance(found, bool) and abs(found) < 2**63 else None


def activate(message: Message, routes: Mapping[str, Route], commit: Callable[[], None]) -> Iterator[str]:
    """Take an ACTIVATE_VERSION message; yields warnings.

    Args:
        message: the message.
        routes: by input stream.
        commit: commits what is settled; called before a generation begins that later commits wait for.

    Raises:
        BadMessage: it is not whole, or its stream has had no SCHEMA.
        InputError: the version is older than the one that counts.
    """
    found = message_dict(message, "stream", "version")
    stream, version = found["stream"], found["version"]
    if not isinstance(version, int) or isinstance(version, bool) or abs(version) >= 2**63:
        rule = 'an ACTIVATE_VERSION message whose "version" is not an integer'
        raise BadMessage(rule, line=message.line, fix="Mend the tap")
    route = routes.get(stream) if isinstance(stream, str) else None
    if route is None:
        rule = "an ACTIVATE_VERSION message comes before the SCHEMA of its stream"
        raise BadMessage(rule, line=message.line, fix="Mend the tap")
    for sink in route.sinks:
        if not sink.process_activate_version_messages:
            continue
        if sink.generation.opens(version):
            commit()
        warning = sink.generation.activate(version, sink)
        if warning is not None:
            yield warning


def finish(sinks: Iterable[ArrowSink], *, trust_eof: bool) -> None:
    """The input has ended as it should: generations that are whole may be committed.

    Raises:
        Unfinished: there is no evidence that one is.
    """
    waiting = {sink.generation.stream: sink.generation for sink in sinks if sink.generation.holding}
    for generation in waiting.values():
        if not generation.finished and not trust_eof:
            raise Unfinished(generation.stream)
        generation.finish()
