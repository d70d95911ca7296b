"""Targets that write files: a store, a layout and a format put together."""

from __future__ import annotations

import abc
from functools import cached_property
from typing import TYPE_CHECKING, Any

from singer_sdk import typing as th

from melisma.target.target import ArrowTarget

if TYPE_CHECKING:
    from singer_sdk.sinks import Sink

    from melisma.lake.lake import FileLake
    from melisma.lake.replay import Decision, LoadMethod
    from melisma.lake.writer import WriteBudget
    from melisma.target.sink import ArrowSink, Writer

__all__ = ["FILE_SETTINGS", "FileTarget"]

MEGABYTE = 1024 * 1024


class FileTarget(ArrowTarget, metaclass=abc.ABCMeta):
    """A target that writes one kind of file. Write `open_writer`, and the settings of the format."""

    @property
    def default_sink_class(self) -> type[Sink]:  # type: ignore[override]
        """The sink of all streams: it asks the target for its writer."""
        from melisma.target.file_sink import FileSink

        return FileSink

    @abc.abstractmethod
    def open_writer(self, sink: ArrowSink) -> Writer:
        """The writer of the target's format for a sink's stream."""

    @cached_property
    def budget(self) -> WriteBudget:
        """What all writers of a run may hold in memory and keep open together."""
        from melisma.lake.writer import WriteBudget

        return WriteBudget(max_open_files=int(self.config.get("max_open_files", 64)))

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
        from melisma.storage.filesystem import open_store

        store = open_store(
            self.config["destination_path"],
            self.config.get("storage_options"),
            distribution=self.package_name or self.name,
        )
        return FileLake(store, self.config.get("pipeline", "default"))

    def decide(self, stream: str, method: LoadMethod) -> Decision:
        """The lake's decision."""
        return self.lake.decide(stream, method)

    def check_config(self) -> None:
        """Refuse at start what cannot work, without touching the destination."""
        from melisma.lake.partition import parse_partition_by

        super().check_config()
        parse_partition_by(self.config.get("partition_by"), "*")
        self.open_destination()

    @classmethod
    def append_builtin_config(cls, config_jsonschema: dict[str, Any]) -> None:
        """Add the settings of every file target."""
        own = config_jsonschema["properties"]
        settings = FILE_SETTINGS.to_dict()
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
        default="default",
        title="Pipeline",
        description=(
            "Whose data this is. Runs of one pipeline follow one another and own their files; pipelines that write "
            "to one lake need different names. Letters, digits, dots and underscores."
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
)
