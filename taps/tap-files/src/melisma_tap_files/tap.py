"""The tap: which streams there are, and their columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from singer_sdk import Tap

from melisma.tap.tap import ArrowTap
from melisma_tap_files.settings import CONFIG, read_streams

if TYPE_CHECKING:
    from melisma_tap_files.read import FileStream

__all__ = ["TapFiles"]


class TapFiles(ArrowTap):
    """Singer tap for files of many formats, read as Arrow record batches."""

    name = "tap-files"
    package_name = "melisma-tap-files"
    config_jsonschema: ClassVar[dict[str, Any]] = CONFIG
    # What a file was read up to says where to start, not a date.
    capabilities: ClassVar = [each for each in Tap.capabilities if each.name != "START_DATE"]
    dynamic_catalog = True

    def discover_streams(self) -> Sequence[FileStream]:
        """The configured streams; those that a given catalog has are not looked at again."""
        from melisma_tap_files.discover import file_schema
        from melisma_tap_files.read import FileStream

        streams = []
        catalog = self.input_catalog
        for settings in read_streams(self.config):
            if catalog is None:
                schema = file_schema(settings, self.config, self.logger)
            else:
                entry = catalog.get_stream(settings.name)
                if entry is None:
                    self.logger.warning(
                        'stream "%s": is not in the catalog, so it is not read. Discover again', settings.name
                    )
                schema = entry.schema.to_dict() if entry else {"type": "object", "properties": {}}
            streams.append(FileStream(self, settings, schema))
        return streams


if __name__ == "__main__":
    TapFiles.cli()
