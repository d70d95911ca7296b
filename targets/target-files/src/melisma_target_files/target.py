"""target-files: a lake of JSON Lines, CSV, MsgPack or Arrow IPC files."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from singer_sdk import typing as th

from melisma.target.files import FileTarget

if TYPE_CHECKING:
    from melisma.formats.writers.file_format import FileFormat

__all__ = ["TargetFiles"]


class TargetFiles(FileTarget):
    """Singer target for JSON Lines, CSV, MsgPack and Arrow IPC files, compressed and partitioned."""

    name = "target-files"
    package_name = "melisma-target-files"
    config_jsonschema = th.PropertiesList(
        th.Property(
            "format",
            th.StringType(allowed_values=["jsonl", "csv", "msgpack", "arrow", "arrow_stream"]),
            default="jsonl",
            title="Format",
            description=(
                "What files are: JSON Lines, CSV, MsgPack (a map for each row), Arrow IPC files (Feather) or Arrow IPC "
                "streams. docs/formats.md says how each type is written."
            ),
        ),
        th.Property(
            "compression",
            th.StringType(allowed_values=["none", "gzip", "zstd", "lz4", "brotli", "snappy", "bz2", "xz"]),
            title="Compression",
            description=(
                "The codec of whole files, which names end in (.csv.zst); Arrow is compressed inside, by lz4 or zstd. "
                "By default none, for Arrow zstd. lz4 (but for Arrow), brotli and snappy need the extra codecs."
            ),
        ),
        th.Property(
            "compression_level",
            th.IntegerType,
            title="Compression Level",
            description=(
                "gzip 0 to 9 (6 by default), zstd 1 to 22 (3; for Arrow 1), lz4 0 to 12 (0; for Arrow it has none), "
                "brotli 0 to 11 (5), bz2 1 to 9 (9), xz 0 to 9 (6); snappy has none."
            ),
        ),
        th.Property(
            "csv",
            th.ObjectType(
                th.Property("delimiter", th.StringType, default=",", description="One character between fields."),
                th.Property(
                    "header", th.BooleanType, default=True, description="Whether the first line has the columns' names."
                ),
                th.Property(
                    "quote",
                    th.StringType(allowed_values=["needed", "text"]),
                    default="needed",
                    description="Which values are put in quotes: texts that need it, or all texts.",
                ),
                th.Property(
                    "null_value",
                    th.StringType,
                    default="",
                    description="How null is written, without quotes. Text that is the same is put in quotes.",
                ),
                additional_properties=False,
            ),
            title="CSV",
            description="How CSV files are written.",
        ),
    ).to_dict()

    @cached_property
    def file_format(self) -> FileFormat:
        """How files are written."""
        from melisma.formats.writers.chosen import chosen_format

        config = self.config
        return chosen_format(
            config.get("format", "jsonl"),
            compression=config.get("compression"),
            compression_level=config.get("compression_level"),
            csv=config.get("csv") or {},
            max_file_bytes=self.max_file_bytes,
            row_group_bytes=self.row_group_bytes,
            distribution=self.package_name or self.name,
        )
