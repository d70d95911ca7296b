"""A tap as one writes it with singer-sdk, whose rows anybody can reckon: `rows_of` says what it sends.

A source is a log of entries. Entry `n` has the key `n // 3`, so that three rows share each key; every fifth entry is
a newer version of an earlier id, so that a load method that merges by key has something to do.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from singer_sdk import Stream, Tap
from singer_sdk import typing as th

Row = tuple[int, int, int, str]  # id, changed, entry, text


def row_of(stream: str, seed: int, entry: int) -> Row:
    """Entry `entry` of a stream."""
    digest = hashlib.sha256(f"{seed} {stream} {entry}".encode()).hexdigest()
    identity = entry if entry % 5 or not entry else int(digest[:8], 16) % entry
    return identity, entry // 3, entry, digest[:40]


def rows_of(stream: str, seed: int, count: int) -> list[Row]:
    """The first `count` entries of a stream's source."""
    return [row_of(stream, seed, entry) for entry in range(count)]


class LogStream(Stream):
    """One stream; its settings are an entry of the tap's `streams`."""

    schema: ClassVar[dict[str, Any]] = th.PropertiesList(
        th.Property("id", th.IntegerType, required=True),
        th.Property("changed", th.IntegerType),
        th.Property("entry", th.IntegerType),
        th.Property("text", th.StringType),
    ).to_dict()
    primary_keys: ClassVar[list[str]] = ["id"]

    def __init__(self, tap: Tap, settings: dict[str, Any]) -> None:
        self._settings = settings
        self.name = settings["name"]
        self.STATE_MSG_FREQUENCY = settings.get("state_every", 50)
        super().__init__(tap)
        if settings["kind"] != "full-table":
            self.replication_key = "changed"

    @property
    def is_sorted(self) -> bool:
        """Whether a STATE in the middle of the stream is a place to go on from."""
        return bool(self._settings["kind"] == "sorted")

    def get_records(self, context: Any) -> Iterable[dict[str, Any]]:
        """Entries from the bookmark's key on, that one included."""
        settings = self._settings
        start = (self.get_starting_replication_key_value(context) or 0) if self.replication_key else 0
        entries = list(range(3 * start, settings["rows"]))
        if settings["kind"] == "unsorted":
            entries.sort(key=lambda entry: (entry % 7, entry))
        for entry in _dying(entries, settings.get("dies_at"), within_a_line=settings.get("dies_within_a_line", False)):
            if settings.get("pause") and entry % self.STATE_MSG_FREQUENCY == 0:
                time.sleep(float(settings["pause"]))
            yield dict(zip(("id", "changed", "entry", "text"), row_of(self.name, settings["seed"], entry), strict=True))


def _dying(entries: list[int], at: int | None, *, within_a_line: bool) -> Iterator[int]:
    """The entries, up to the one before which the tap is killed."""
    for number, entry in enumerate(entries):
        if number == at:
            sys.stdout.flush()
            if within_a_line:
                sys.stdout.buffer.write(b'{"type":"RECORD","stream":')
                sys.stdout.buffer.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        yield entry


class SourceTap(Tap):
    """The tap."""

    name = "source-tap"
    config_jsonschema: ClassVar[dict[str, Any]] = th.PropertiesList(
        th.Property("streams", th.ArrayType(th.ObjectType(additional_properties=True)), required=True)
    ).to_dict()

    def discover_streams(self) -> list[Stream]:
        """One for each entry of `streams`."""
        return [LogStream(self, settings) for settings in self.config["streams"]]


if __name__ == "__main__":
    SourceTap.cli()
