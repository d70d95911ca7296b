"""The lake's Parquet files, read through its store: nothing here knows whether that is a disk or a bucket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from melisma.errors import BadFile, MelismaError
from melisma.formats.parquet import read_batches
from melisma.lake.records import FileEntry

if TYPE_CHECKING:
    from melisma.storage.store import Store

__all__ = ["batches", "codec", "count_rows", "footer", "is_parquet"]


def is_parquet(file: FileEntry) -> bool:
    """Whether rows can be read; files of other formats are moved and counted, not read."""
    return file.path.endswith(".parquet")


@contextlib.contextmanager
def footer(store: Store, path: str) -> Iterator[Any]:
    """A file's reader, with its footer read: `metadata`, `schema_arrow`.

    Raises:
        BadFile: it is not Parquet, or it is damaged.
    """
    with store.open_raw(path) as raw, _damaged(path):
        # Not pre-buffered: memory is bounded by a row group's pages.
        yield pq.ParquetFile(raw, pre_buffer=False, page_checksum_verification=True)


def count_rows(reader: Any, path: str) -> int:
    """Read every page of an open file; the rows that came.

    Raises:
        BadFile: a page is damaged. Without checksums in the file only what breaks its encoding is seen.
    """
    with _damaged(path):
        return sum(batch.num_rows for batch in reader.iter_batches(batch_size=65_536))


def batches(store: Store, path: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A file's rows, in order."""
    with store.open_raw(path) as raw:
        yield from read_batches(raw, columns, name=path)


def codec(reader: Any) -> str:
    """How an open file's pages are compressed, as the setting `compression` says it."""
    metadata = reader.metadata
    if not metadata.num_row_groups or not metadata.num_columns:
        return "zstd"
    name = str(metadata.row_group(0).column(0).compression).lower()
    return {"uncompressed": "none", "lz4_raw": "lz4"}.get(name, name)


@contextlib.contextmanager
def _damaged(path: str) -> Iterator[None]:
    try:
        yield
    except MelismaError:
        raise
    except (pa.ArrowException, OSError) as error:
        rule = "it is not a Parquet file, or it is damaged"
        raise BadFile(rule, file=path, fix="Restore it from a backup, or roll the lake back") from error
