"""Targets that write files: a store, a layout and a format put together."""

from __future__ import annotations

import abc
import os
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from singer_sdk import typing as th

from melisma.errors import ConfigError
from melisma.target.target import ArrowTarget

if TYPE_CHECKING:
    from singer_sdk.sinks import Sink

    from melisma.formats.writers.file_format import FileFormat
    from melisma.lake.lake import FileLake
    from melisma.lake.replay import Decision, LoadMethod
    from melisma.lake.writer import StreamWriter, WriteBudget
    from melisma.storage.store import Store
    from melisma.target.sink import ArrowSink

__all__ = ["FILE_SETTINGS", "FileTarget"]

MEGABYTE = 1024 * 1024

_ROW_GROUP_BYTES = 8 * MEGABYTE
_LETTER_FILES = 4
_LETTER_BYTES = 8 * MEGABYTE
_UPSERT_SETTINGS = ("merge_memory_mb",)

_PER_KEY_BYTE = 8
"""Bytes that an upsert needs for each byte of keys: to find the last row of each, and to look them up."""


class FileTarget(ArrowTarget, metaclass=abc.ABCMeta):
    """A target that writes one kind of file. Write `file_format`, and the settings that it is made of.

    Attributes:
        can_upsert: whether the lake can read files of the format by key and write them anew, which upsert and the
            marks of soft deletes need. It reads Parquet.
    """

    can_upsert: ClassVar[bool] = False

    @property
    def default_sink_class(self) -> type[Sink]:  # type: ignore[override]
        """The sink of all streams: it asks the target for its writer."""
        from melisma.target.file_sink import FileSink

        return FileSink

    @property
    @abc.abstractmethod
    def file_format(self) -> FileFormat:
        """How files are written, as the configuration says.

        Raises:
            ConfigError: it cannot work.
        """

    def open_writer(self, sink: ArrowSink) -> StreamWriter:
        """A writer for the sink's stream."""
        from melisma.lake.partition import parse_partition_by
        from melisma.lake.writer import StreamWriter

        fields = parse_partition_by(self.config.get("partition_by"), sink.stream_name)
        return StreamWriter(self.lake, sink.columns, self.file_format, self.budget, fields)

    @property
    def max_file_bytes(self) -> int:
        """The setting `max_file_size_mb`, in bytes."""
        return int(self.config.get("max_file_size_mb", 256) * MEGABYTE)

    @property
    def row_group_bytes(self) -> int:
        """What formats without a setting of their own for it take: a file is finished only between two row groups."""
        return max(1, min(_ROW_GROUP_BYTES, self.max_file_bytes))

    @property
    def spill_bytes(self) -> int:
        """How much disk a run may use for what waits."""
        return int(self.config.get("max_spill_mb", 4096) * MEGABYTE)

    @cached_property
    def budget(self) -> WriteBudget:
        """What all writers of a run may hold in memory and keep open together."""
        from melisma.lake.writer import WriteBudget

        return WriteBudget(
            int(self.config.get("max_open_files", 64)),
            spilled_bytes=self.spill_bytes,
            batch_rows=self.config.get("batch_size_rows"),
        )

    @cached_property
    def letter_budget(self) -> WriteBudget:
        """The same for dead letters: few files, since each is as much memory as the codec needs."""
        from melisma.lake.writer import WriteBudget

        return WriteBudget(_LETTER_FILES, _LETTER_BYTES, spilled_bytes=self.spill_bytes)

    @property
    def pipeline(self) -> str:
        """Whose data this is."""
        from melisma.lake.layout import default_pipeline

        named: str | None = self.config.get("pipeline")
        return default_pipeline(os.environ) if named is None else named

    @property
    def lake(self) -> FileLake:
        """The destination."""
        from melisma.lake.lake import FileLake

        destination = self.destination
        if not isinstance(destination, FileLake):
            raise TypeError("the destination of a file target is a lake")
        return destination

    def open_destination(self) -> FileLake:
        """The lake that `destination_path` names."""
        from melisma.lake.lake import FileLake
        from melisma.lake.recover import Settings

        key_bytes = int(self.config.get("merge_memory_mb", 256) * MEGABYTE) // _PER_KEY_BYTE
        return FileLake(
            self._open_store(),
            self.pipeline,
            Settings(on_rewind=self.config.get("on_rewind", "append")),
            key_bytes=max(1, key_bytes),
        )

    def try_destination(self) -> str:
        """Write, list, read and remove a small file there."""
        from melisma.lake.trial import try_place

        store = self._open_store()
        try_place(store, self.pipeline)
        return store.display()

    def replay_dead_letters(self) -> Counter[str]:
        """Feed the lake's dead letters back (`melisma.target.redelivery`)."""
        from melisma.lake.redelivery import RedeliveryLake
        from melisma.target.redelivery import redeliver

        lake = RedeliveryLake(self._open_store(), self.pipeline)
        self._destination = lake
        try:
            lake.recover()
            return redeliver(self, lake)
        finally:
            lake.close()

    def _open_store(self) -> Store:
        from melisma.storage.filesystem import open_store

        return open_store(
            self.config["destination_path"],
            self.config.get("storage_options"),
            distribution=self.package_name or self.name,
        )

    def version(self, stream: str) -> int | None:
        """The lake's."""
        return self.lake.version(stream)

    def live_rows(self, stream: str) -> int:
        """The lake's."""
        return sum(file.rows for file in self.lake.live_files(stream))

    def decide(self, stream: str, method: LoadMethod) -> Decision:
        """The lake's decision."""
        return self.lake.decide(stream, method)

    def check_config(self) -> None:
        """Refuse at start what cannot work, without touching the destination."""
        from melisma.lake.partition import parse_partition_by

        super().check_config()
        if self.config.get("load_method") == "upsert" and not self.can_upsert:
            rule = "upsert is not possible: the lake can find rows by key in Parquet files, and not in these"
            fix = "Set append-only or overwrite; for upsert load the stream into a lake of Parquet files"
            raise ConfigError("load_method", rule, fix)
        _ = self.file_format
        parse_partition_by(self.config.get("partition_by"), "*")
        self.open_destination()

    @classmethod
    def append_builtin_config(cls, config_jsonschema: dict[str, Any]) -> None:
        """Add the settings of every file target."""
        own = config_jsonschema["properties"]
        settings = FILE_SETTINGS.to_dict()
        if not cls.can_upsert:
            for name in _UPSERT_SETTINGS:
                del settings["properties"][name]
        properties = settings["properties"] | own
        own.clear()
        own.update(properties)
        config_jsonschema["required"] = sorted({*config_jsonschema.get("required", []), *settings["required"]})
        super().append_builtin_config(config_jsonschema)


FILE_SETTINGS = th.PropertiesList(
    th.Property(
        "destination_path",
        th.StringType,
        required=True,
        title="Destination Path",
        description="The lake's root: a path, or a URL.",
        examples=["./lake", "/data/lake"],
    ),
    th.Property(
        "storage_options",
        th.ObjectType(additional_properties=th.AnyOf(th.StringType, th.BooleanType, th.NumberType)),
        secret=True,
        title="Storage Options",
        description=(
            "How to reach a remote store, in melisma's own keys whatever the store. Credentials are better left to "
            "the environment, profiles and roles."
        ),
    ),
    th.Property(
        "pipeline",
        th.StringType,
        title="Pipeline",
        description=(
            "Whose data this is: one tap's, with one STATE. Runs of one pipeline follow one another and own their "
            "files; taps that load one lake need pipelines of different names. Letters, digits, dots, dashes and "
            "underscores. By default `default`, and under `meltano run` <environment>-<extractor>."
        ),
    ),
    th.Property(
        "hard_delete",
        th.BooleanType,
        default=False,
        title="Hard Delete",
        description=(
            "Whether rows that the tap marks as deleted (_sdc_deleted_at, with load method upsert), and rows of "
            "earlier versions (ACTIVATE_VERSION), are removed. If not they are kept and marked; see "
            "docs/load-methods.md."
        ),
    ),
    th.Property(
        "allow_empty_overwrite",
        th.BooleanType,
        default=False,
        title="Allow Empty Overwrite",
        description=(
            "Whether a stream that sent no rows may take the place of one that has some, with load method overwrite "
            "or by ACTIVATE_VERSION. If not the run fails, and the old rows stay."
        ),
    ),
    th.Property(
        "max_shrink_percent",
        th.NumberType(minimum=0, maximum=100),
        default=90,
        title="Max Shrink Percent",
        description=(
            "By how much, in percent of the rows, an overwrite or ACTIVATE_VERSION may shrink a stream. If it is more "
            "the run fails, and the old rows stay. 100 allows anything but no rows at all."
        ),
    ),
    th.Property(
        "merge_memory_mb",
        th.NumberType(exclusive_minimum=0),
        default=256,
        title="Merge Memory",
        description=(
            "About how much memory an upsert may take for keys, in MiB. If a commit brings more of them, the lake's "
            "key columns are read more than once."
        ),
    ),
    th.Property(
        "trust_eof",
        th.BooleanType,
        default=False,
        title="Trust EOF",
        description=(
            "Whether the end of the input is enough to take an overwritten stream for whole. If not, a STATE or "
            "ACTIVATE_VERSION must come after its last row, as a tap that fails ends the input too. With other load "
            "methods: whether a stream with a bookmark property may end without a STATE that names it."
        ),
    ),
    th.Property(
        "on_rewind",
        th.StringType(allowed_values=["append", "replace", "fail"]),
        default="append",
        title="On Rewind",
        description=(
            "What to do if the tap starts from a STATE before rows that it was told are safe, as when a state is set "
            "back by hand: append (they will be there twice; a warning says so), replace (the rows after that STATE "
            "go when the new ones come), or fail."
        ),
    ),
    th.Property(
        "partition_by",
        th.CustomType({"type": ["array", "object", "null"]}),
        title="Partition By",
        description=(
            "Columns that become directories (column=value), or year(column), month(column), day(column), "
            'hour(column) of a date or date-time; a list for all streams, or lists by stream ("*" for the others).'
        ),
        examples=[["country", "month(created_at)"]],
    ),
    th.Property(
        "max_file_size_mb",
        th.NumberType(exclusive_minimum=0),
        default=256,
        title="Max File Size",
        description="A file that has reached this size, in MiB as written, is finished and another begun.",
    ),
    th.Property(
        "max_open_files",
        th.IntegerType(minimum=1),
        default=64,
        title="Max Open Files",
        description="How many files may be written at a time; more partitions than that make more, smaller files.",
    ),
    th.Property(
        "max_spill_mb",
        th.NumberType(minimum=0),
        default=4096,
        title="Max Spill",
        description=(
            "How much disk, in MiB, the rows of many streams or partitions that take turns may use in the folder for "
            "temporary files (TMPDIR) while they wait for a row group of their own; on their way there they may take "
            "1536 more, and dead letters as much again. With 0 they are written out when memory runs short, to more "
            "and smaller files."
        ),
    ),
    th.Property(
        "batch_size_rows",
        th.IntegerType(minimum=1),
        title="Batch Size Rows",
        description=(
            "The most rows that wait for a file before they are written. Row groups of Parquet, and record batches of "
            "Arrow, hold no more than that."
        ),
    ),
)
