"""BATCH messages on their way into the stream's writer, as its RECORDs go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from melisma.arrow.metadata import METADATA_COLUMNS
from melisma.errors import BadFile, InputError
from melisma.storage.codecs import open_decoded
from melisma.target.batch_columns import ColumnDecoder, as_run
from melisma.target.batch_files import BatchFile, BatchFiles
from melisma.target.batch_lines import Wrapping, read_runs

if TYPE_CHECKING:
    from melisma.arrow.decode import Decoded
    from melisma.target.route import Route
    from melisma.target.sink import ArrowSink
    from melisma.target.target import ArrowTarget
    from melisma.wire.batch import Batch
    from melisma.wire.framing import Run

    Results = list[tuple[ArrowSink, Decoded, Sequence[int]]]

__all__ = ["Batches", "Piece"]

_MEGABYTE = 1 << 20
_DAMAGED = (pa.ArrowException, OSError, ValueError, TypeError, MemoryError)
_PARQUET_ROWS = 32_768
_AGAIN = "Run the tap again; if it stays so, mend the tap"
_WINDOW = 1 << 27  # zstd's own default: a file that asks for more memory is refused


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of a file's rows, decoded.

    Attributes:
        rows: how many records they were.
        results: as `Route.decode` gives them.
        run: the same records as RECORD lines.
    """

    rows: int
    results: Results
    run: Callable[[], Run]


class Batches:
    """Reads the files of a run's BATCH messages.

    Args:
        target: for its configuration.

    Raises:
        ConfigError: a root is not a path or URL.
    """

    def __init__(self, target: ArrowTarget) -> None:
        self._config = target.config
        self._most_bytes = int(self._config.get("max_batch_file_mb", 2048) * _MEGABYTE)
        self._files = BatchFiles(
            self._config.get("batch_roots", ()),
            self._config.get("storage_options"),
            distribution=target.package_name or target.name,
            most_bytes=self._most_bytes,
        )
        self._decoders: dict[int, tuple[ArrowSink, ColumnDecoder]] = {}

    def read(self, batch: Batch, route: Route) -> Iterator[Piece]:
        """The records of a BATCH message, decoded piece by piece; each file is let go when the next piece is asked for.

        Raises:
            BadMessage: it names a file that may not be read.
            InputError: a file is not what it should be; what was decoded before is to be dropped.
        """
        wrapping = Wrapping(batch.stream, batch.time_extracted, batch.version)
        for url in batch.manifest:
            with self._files.open(url, batch) as file:
                try:
                    if batch.format == "jsonl":
                        yield from self._lines(file, batch, wrapping, route)
                    else:
                        yield from self._columns(file, batch, wrapping, route)
                except InputError as error:
                    raise _located(error, batch, file) from error
            file.remove()

    def leave(self) -> None:
        """The run is over."""
        self._files.leave()

    def _lines(self, file: BatchFile, batch: Batch, wrapping: Wrapping, route: Route) -> Iterator[Piece]:
        decoded = open_decoded(file.file, _codec(file, batch), file.name, file.name, window=_WINDOW)
        for run in read_runs(decoded, wrapping, self._most_bytes, file.name):
            if run is None:
                raise self._files.too_large(batch, file.name)
            yield Piece(len(run.lines), _in_file(route.decode(run), batch, file), lambda r=run: r)  # type: ignore[misc]

    def _columns(self, file: BatchFile, batch: Batch, wrapping: Wrapping, route: Route) -> Iterator[Piece]:
        before = 0
        for rows in self._record_batches(file, batch):
            lines = range(before + 1, before + rows.num_rows + 1)
            before += rows.num_rows

            def run(rows: pa.RecordBatch = rows, lines: range = lines) -> Run:
                return as_run(rows, lines, wrapping)

            if not rows.num_rows:
                continue
            if route.straight:
                [sink] = route.sinks
                decoded = self._decoder(sink).decode(rows, lines, wrapping)
                results: Results = [(sink, sink.evolution.apply(decoded, lines), lines)]
            else:
                results = route.decode(run())
            yield Piece(rows.num_rows, _in_file(results, batch, file), run)

    def _record_batches(self, file: BatchFile, batch: Batch) -> Iterator[pa.RecordBatch]:
        """The file's batches, each known to be valid: hostile offsets would be read as they stand."""
        what = "Parquet" if batch.format == "parquet" else "Arrow IPC"
        size = 0
        try:
            for rows in _parquet(file) if batch.format == "parquet" else _arrow(file):
                size += rows.nbytes
                if size > self._most_bytes:
                    raise self._files.too_large(batch, file.name)
                rows.validate(full=True)
                yield rows
        except InputError:
            raise
        except _DAMAGED as error:
            raise BadFile(f"is not a whole {what} file", fix=_AGAIN) from error

    def _decoder(self, sink: ArrowSink) -> ColumnDecoder:
        known = self._decoders.get(id(sink))
        if known is None:
            decoder = ColumnDecoder(
                sink.decoder,
                validate=self._config.get("validate_records", True),
                on_unknown_field=self._config.get("on_unknown_field", "warn"),
                ignored=METADATA_COLUMNS,
                envelope=sink.include_sdc_metadata_properties,
            )
            known = self._decoders[id(sink)] = (sink, decoder)
        return known[1]


def _arrow(file: BatchFile) -> Iterator[pa.RecordBatch]:
    """The batches of an IPC file. A stream is none: it does not tell that its end is missing."""
    reader: Any = pyarrow.ipc.open_file(file.buffer(), options=pyarrow.ipc.IpcReadOptions(use_threads=False))
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index)


def _parquet(file: BatchFile) -> Iterator[pa.RecordBatch]:
    reader = pq.ParquetFile(file.file, pre_buffer=False)
    yield from reader.iter_batches(batch_size=_PARQUET_ROWS, use_threads=False)


def _codec(file: BatchFile, batch: Batch) -> str:
    """The compression of a JSON Lines file. singer-sdk says none and compresses with gzip all the same."""
    if batch.compression != "none":
        return batch.compression
    start = file.file.read(2)
    file.file.seek(0)
    return "gzip" if start == b"\x1f\x8b" else "none"


def _located(error: InputError, batch: Batch, file: BatchFile) -> InputError:
    """The same error with the file's name; its line is a line of the file, or a row, counted from 1."""
    if error.file is not None and error.stream is not None:
        return error
    stream = error.stream or batch.stream
    line = error.line
    return type(error)(error.rule, stream=stream, column=error.column, line=line, file=file.name, fix=error.fix)


def _in_file(results: Results, batch: Batch, file: BatchFile) -> Results:
    for _, decoded, _ in results:
        decoded.bad = [(row, _located(error, batch, file)) for row, error in decoded.bad]  # type: ignore[misc]
    return results
