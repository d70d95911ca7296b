"""Writes record batches of one stream outside its own sync, in the form that its sync would give them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from singer_sdk.helpers._util import utc_now

from melisma.tap.batch_config import BatchSettings
from melisma.tap.stream import slices
from melisma.wire.output import protocol_output

if TYPE_CHECKING:
    import pyarrow as pa

    from melisma.tap.batch import BatchOutput
    from melisma.tap.stream import ArrowStream

__all__ = ["BatchWriter", "batch_writer"]


class BatchWriter(Protocol):
    """Writes one stream's batches."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch; it need not be written before `flush`."""

    def flush(self) -> None:
        """Write all that was taken."""

    def wants_state(self, state_size: int) -> bool:
        """Whether so much was taken that a STATE is due, as far as the form of the output has a say in it."""


@contextlib.contextmanager
def batch_writer(stream: ArrowStream) -> Iterator[BatchWriter]:
    """A writer for a stream: files with `batch_config`, blocks of RECORD lines, or single records for stream maps."""
    if stream.get_batch_config(stream.config) is not None:
        from melisma.tap.batch import BatchOutput

        settings = BatchSettings.read(stream.config["batch_config"])
        alias = stream.stream_maps[0].stream_alias
        with BatchOutput(stream._tap.name, alias, settings, stream._stream_version) as output:
            yield _Files(stream, output)
        stream._warn_not_finite(output.not_finite)
    elif stream._plain_records():
        blocks = _Blocks(stream)
        yield blocks
        stream._warn_not_finite(blocks.encoder.not_finite)
    else:
        yield _Records(stream)


class _Blocks:
    def __init__(self, stream: ArrowStream) -> None:
        from melisma.arrow.encode import RecordEncoder

        self._stream = stream
        self.encoder = RecordEncoder(stream.stream_maps[0].stream_alias, stream._stream_version)

    def write(self, batch: pa.RecordBatch) -> None:
        for block in slices(self._stream._selection.apply(batch)):
            protocol_output().write(self.encoder.encode(block, utc_now()))

    def flush(self) -> None:
        """Nothing was held."""

    def wants_state(self, state_size: int) -> bool:
        del state_size
        return True


class _Records:
    def __init__(self, stream: ArrowStream) -> None:
        self._stream = stream

    def write(self, batch: pa.RecordBatch) -> None:
        for record, _ in self._stream._records(batch):
            processed = self._stream.post_process(record, None)
            if processed is not None:
                self._stream._write_record_message(processed)

    def flush(self) -> None:
        """Nothing was held."""

    def wants_state(self, state_size: int) -> bool:
        del state_size
        return True


class _Files:
    def __init__(self, stream: ArrowStream, output: BatchOutput) -> None:
        self._stream, self._output = stream, output

    def write(self, batch: pa.RecordBatch) -> None:
        self._output.add(self._stream._selection.apply(batch))

    def flush(self) -> None:
        self._output.flush()
        self._output.state_sent()

    def wants_state(self, state_size: int) -> bool:
        return self._output.wants_state(state_size)
