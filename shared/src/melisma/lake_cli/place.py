"""Which lake a command is about: its store, its pipeline, and its journal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from melisma.errors import ConfigError, UsageError, printable
from melisma.lake.journal import Journal, pipeline_folder
from melisma.lake.lake import FileLake
from melisma.lake.layout import DEFAULT_PIPELINE, META, check_pipeline, meta_dir, parse_file_name
from melisma.lake.objects import Objects, objects_of
from melisma.lake.records import FileEntry, Record, decode
from melisma.storage.filesystem import open_store
from melisma.storage.store import FileInfo, Store

__all__ = ["Place", "in_order", "no_stream", "partition_of", "place_options"]

_F = TypeVar("_F", bound=Callable[..., Any])
_DISTRIBUTION = "melisma"


@dataclass(frozen=True)
class Place:
    """A pipeline's side of a lake.

    Attributes:
        config: the target's configuration, as far as a file was given.
    """

    store: Store
    objects: Objects
    pipeline: str
    config: dict[str, Any] = field(default_factory=dict)

    def journal(self) -> Journal:
        """The journal as it is now.

        Raises:
            UsageError: there is none.
            StorageError: it cannot be read.
        """
        journal = Journal.load(self.objects, self.pipeline)
        if journal.history.seq == 0:
            others = pipelines(self.store)
            known = f"Pipelines there: {', '.join(others)}" if others else "Check the path: no lake is there"
            raise UsageError(f'{self.store.display()} holds nothing of pipeline "{self.pipeline}". {known}')
        return journal

    def lake(self) -> FileLake:
        """The lake as a run sees it."""
        return FileLake(self.store, self.pipeline)

    def sequence_numbers(self, journal: Journal) -> list[int]:
        """The numbers of the entries that are not pruned, ascending."""
        folder = f"{pipeline_folder(self.pipeline)}/journal/"
        keys = journal.ask(lambda: list(self.objects.list(folder)))
        return [int(key.rpartition("/")[2].removesuffix(".json")) for key in keys]

    def entry(self, journal: Journal, seq: int) -> Record | None:
        """An entry; None if it was never there, or is pruned."""
        key = journal.key(seq)
        data = journal.ask(lambda: self.objects.get(key))
        if data is None:
            return None
        record: Record = decode(data, Record, key)
        return record

    def entries(self, journal: Journal, *, newest_first: bool = False) -> Iterator[Record]:
        """All entries that are not pruned."""
        numbers = self.sequence_numbers(journal)
        for seq in reversed(numbers) if newest_first else numbers:
            record = self.entry(journal, seq)
            if record is not None:  # a writer may have pruned it meanwhile
                yield record

    def on_disk(self) -> list[FileInfo]:
        """The files of this pipeline, by their names: data that a reader could find, and dead letters."""
        data = [
            info
            for folder in self.store.list_dirs("")
            if folder != META
            for info in self.store.glob(f"{folder}/**")
            if (name := parse_file_name(info.path.rpartition("/")[2])) is not None and name.pipeline == self.pipeline
        ]
        return data + self.store.glob(f"{meta_dir(self.pipeline)}/dead_letters/**")

    def unnamed(self) -> tuple[Journal, list[FileInfo]]:
        """The journal, and this pipeline's files that no entry names and that nobody is about to name.

        A writer's intent stands in the journal before its files are visible, and its commit after that. So the
        files are listed first and the journal is read second: whatever was seen is in flight, or live, or nobody's.
        """
        found = self.on_disk()
        journal = self.journal()
        known = {file.path for file in journal.live_files()}
        known |= {file.path for intent in journal.history.intents.values() for file in intent.staged}
        return journal, [info for info in found if info.path not in known]


def in_order(files: Iterable[FileEntry]) -> list[FileEntry]:
    """Files by stream, and within a stream in the order of their rows."""
    return sorted(files, key=lambda file: (file.stream, file.seq, file.first, file.path))


def partition_of(file: FileEntry) -> str:
    """The directories between the stream's and the file, as they are written."""
    return "/".join(file.path.split("/")[1:-1])


def no_stream(name: str, known: Iterable[str]) -> UsageError:
    """The error for a stream that the journal does not know."""
    streams = ", ".join(printable(each) for each in sorted(known)) or "none"
    return UsageError(f'stream "{printable(name)}" is not in this lake. Streams: {streams}')


def pipelines(store: Store) -> list[str]:
    """The pipelines that have a journal in a lake."""
    return [name for name in store.list_dirs(META) if store.exists(f"{META}/{name}/journal")]


def place_options(command: _F) -> _F:
    """The options that say which lake: the command gets a Place as `place`."""

    def opened(path: str | None, config: str | None, pipeline: str | None, **rest: Any) -> Any:
        return command(place=_open(path, config, pipeline), **rest)

    opened.__name__, opened.__doc__ = command.__name__, command.__doc__
    opened.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
    for option in (
        click.option("--pipeline", metavar="NAME", help="Whose data; may be left out where a lake has only one."),
        click.option("--config", metavar="FILE", help="The target's configuration: path, storage options, pipeline."),
        click.option("--path", metavar="PATH", help="The lake's root, a path or URL (destination_path)."),
    ):
        option(opened)
    return opened  # type: ignore[return-value]


def _open(path: str | None, config: str | None, pipeline: str | None) -> Place:
    settings = _read_config(config) if config is not None else {}
    url = path if path is not None else settings.get("destination_path")
    if not isinstance(url, str):
        raise UsageError("which lake? Give --path, or --config with a target's configuration file")
    store = open_store(url, settings.get("storage_options"), distribution=_DISTRIBUTION)
    objects = objects_of(store)
    name = pipeline if pipeline is not None else settings.get("pipeline")
    if name is None:
        known = pipelines(store)
        # A configuration without one is that of the default pipeline, unless Meltano has named another.
        if len(known) > 1 and (config is None or DEFAULT_PIPELINE not in known):
            raise UsageError(f"this lake has several pipelines. Give --pipeline, one of: {', '.join(known)}")
        name = known[0] if len(known) == 1 else None
    return Place(store, objects, check_pipeline(str(name or DEFAULT_PIPELINE), setting="--pipeline"), settings)


def _read_config(file: str) -> dict[str, Any]:
    try:
        value = json.loads(Path(file).read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file} is not JSON") from error
    if not isinstance(value, dict):
        raise UsageError(f"{file} does not hold a JSON object")
    if not isinstance(value.get("storage_options") or {}, dict):
        raise ConfigError("storage_options", "must be an object")
    return value
