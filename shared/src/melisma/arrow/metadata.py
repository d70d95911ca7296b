"""The `_sdc_*` columns, for whole batches.

Names and meaning are singer-sdk's (https://sdk.meltano.com/en/latest/implementation/record_metadata.html);
`_sdc_received_at`, `_sdc_batched_at` and `_sdc_sequence` are the same for all records of a batch.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import pyarrow as pa

__all__ = ["COMPUTED", "METADATA_COLUMNS", "BatchMetadata"]

COMPUTED = frozenset(
    {
        "_sdc_extracted_at",
        "_sdc_received_at",
        "_sdc_batched_at",
        "_sdc_sequence",
        "_sdc_table_version",
        "_sdc_sync_started_at",
    }
)
"""Columns that the target fills in."""

METADATA_COLUMNS = COMPUTED | {"_sdc_deleted_at"}
"""All of them; `_sdc_deleted_at` comes with the record."""

_TIMESTAMP = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True)
class BatchMetadata:
    """What is known of a batch as a whole.

    Attributes:
        received_at: when its records were read.
        batched_at: when the commit that it belongs to was begun.
        sync_started_at: when the run was started, in milliseconds since 1970.
    """

    received_at: dt.datetime
    batched_at: dt.datetime
    sync_started_at: int

    def columns(self, rows: int, extracted: pa.Array | None, versions: pa.Array | None) -> dict[str, pa.Array]:
        """The computed columns for `rows` records; `extracted` and `versions` come from their envelopes."""
        return {
            "_sdc_extracted_at": pa.nulls(rows, _TIMESTAMP) if extracted is None else extracted,
            "_sdc_received_at": _same(pa.scalar(self.received_at, _TIMESTAMP), rows),
            "_sdc_batched_at": _same(pa.scalar(self.batched_at, _TIMESTAMP), rows),
            "_sdc_sequence": _same(pa.scalar(round(self.received_at.timestamp() * 1000), pa.int64()), rows),
            "_sdc_table_version": pa.nulls(rows, pa.int64()) if versions is None else versions,
            "_sdc_sync_started_at": _same(pa.scalar(self.sync_started_at, pa.int64()), rows),
        }


def _same(value: pa.Scalar, rows: int) -> pa.Array:
    return pa.repeat(value, rows)
