"""target-avro: a lake of Avro files."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from singer_sdk import typing as th

from melisma.target.files import FileTarget

if TYPE_CHECKING:
    from melisma.formats.writers.avro import AvroFormat

__all__ = ["TargetAvro"]


class TargetAvro(FileTarget):
    """Singer target for Avro: typed, compressed, partitioned container files, written from Arrow record batches."""

    name = "target-avro"
    package_name = "melisma-target-avro"
    config_jsonschema = th.PropertiesList(
        th.Property(
            "compression",
            th.StringType(allowed_values=["snappy", "deflate", "zstandard", "bzip2", "xz", "null"]),
            default="snappy",
            title="Compression",
            description="The codec of the files' blocks, as Avro names them. Every reader has deflate and null.",
        ),
        th.Property(
            "compression_level",
            th.IntegerType,
            title="Compression Level",
            description=(
                "deflate 1 to 9 (6 by default), zstandard 1 to 22 (1), bzip2 1 to 9 (9), xz 0 to 9 (6); the others "
                "have none."
            ),
        ),
        th.Property(
            "sync_interval",
            th.IntegerType(minimum=1),
            default=262_144,
            title="Sync Interval",
            description=(
                "After how many bytes of records, before compression, a block ends. Readers hold a block in memory, "
                "and share a file out by blocks."
            ),
        ),
    ).to_dict()

    @cached_property
    def file_format(self) -> AvroFormat:
        """How files are written."""
        from melisma.formats.writers.avro import AvroFormat

        config = self.config
        return AvroFormat(
            compression=config.get("compression", "snappy"),
            compression_level=config.get("compression_level"),
            sync_interval=int(config.get("sync_interval", 262_144)),
            max_file_bytes=self.max_file_bytes,
            row_group_bytes=self.row_group_bytes,
            uuids=bool(config.get("validate_records", True)),
        )
