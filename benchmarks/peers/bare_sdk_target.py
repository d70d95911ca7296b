"""The least that a singer-sdk target can be: what its start costs is the SDK's own.

Run by the Python of a peer's environment.
"""

from __future__ import annotations

from typing import Any

from singer_sdk import typing as th
from singer_sdk.sinks import BatchSink
from singer_sdk.target_base import Target


class BareSink(BatchSink):
    """Writes nothing."""

    def process_batch(self, context: dict[str, Any]) -> None:
        """Drop the batch."""


class BareTarget(Target):
    """The target."""

    name = "bare-sdk-target"
    config_jsonschema = th.PropertiesList(th.Property("destination_path", th.StringType, required=True)).to_dict()
    default_sink_class = BareSink


if __name__ == "__main__":
    BareTarget.cli()
