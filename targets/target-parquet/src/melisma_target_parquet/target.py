"""target-parquet: a lake of Parquet files."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from singer_sdk import typing as th

from melisma.target.files import MEGABYTE, FileTarget

if TYPE_CHECKING:
    from melisma.formats.parquet import ParquetOptions

__all__ = ["TargetParquet"]


class TargetParquet(FileTarget):
    """Singer target for Parquet: typed, compressed, partitioned files, written from Arrow record batches."""

    name = "target-parquet"
    package_name = "melisma-target-parquet"
    config_jsonschema = th.PropertiesList(
        th.Property(
            "compression",
            th.StringType(allowed_values=["zstd", "snappy", "gzip", "lz4", "brotli", "none"]),
            default="zstd",
            title="Compression",
            description="The codec of the files' pages.",
        ),
        th.Property(
            "compression_level",
            th.IntegerType,
            title="Compression Level",
            description="zstd 1 to 22, gzip 1 to 9, brotli 0 to 11; the others have none. The codec's own by default.",
        ),
        th.Property(
            "row_group_size_rows",
            th.IntegerType(minimum=1),
            default=1_000_000,
            title="Row Group Rows",
            description="The most rows of a row group.",
        ),
        th.Property(
            "row_group_size_mb",
            th.NumberType(exclusive_minimum=0),
            default=32,
            title="Row Group Size",
            description="About the most a row group holds, in MiB of Arrow data before encoding.",
        ),
    ).to_dict()

    can_upsert = True

    @cached_property
    def file_format(self) -> ParquetOptions:
        """How files are written."""
        from melisma.formats.parquet import ParquetOptions

        config = self.config
        return ParquetOptions(
            compression=config.get("compression", "zstd"),
            compression_level=config.get("compression_level"),
            row_group_rows=int(config.get("row_group_size_rows", 1_000_000)),
            row_group_bytes=int(config.get("row_group_size_mb", 32) * MEGABYTE),
            max_file_bytes=self.max_file_bytes,
        )
