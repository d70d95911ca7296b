"""The target: singer-sdk's, reading blocks of lines instead of lines."""

from __future__ import annotations

import abc
import contextlib
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import PurePath
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast

import click
from singer_sdk import typing as th
from singer_sdk.exceptions import MissingKeyPropertiesError, RecordsWithoutSchemaException
from singer_sdk.helpers.capabilities import CapabilitiesEnum, PluginCapabilities, TargetCapabilities
from singer_sdk.singerlib.encoding.base import GenericSingerReader
from singer_sdk.target_base import Target

from melisma.cli import MelismaCommand
from melisma.config import CheckedConfig
from melisma.errors import BadRecord, ConfigError, InputError, Interrupted, MelismaError, UsageError, printable
from melisma.wire.blocks import BlockReader
from melisma.wire.output import claim_stdout, protocol_output

if TYPE_CHECKING:
    from singer_sdk.plugin_base import _ConfigInput

    from melisma.lake.replay import Decision, LoadMethod
    from melisma.target.generations import Generations
    from melisma.target.load import Destination, Load
    from melisma.target.route import Route
    from melisma.target.sink import ArrowSink
    from melisma.target.tables import Tables
    from melisma.wire.framing import Run
    from melisma.wire.messages import Message

__all__ = ["ArrowTarget"]


class RecordBeforeSchema(InputError, RecordsWithoutSchemaException):
    """Records came before the SCHEMA of their stream."""


class MissingKey(BadRecord, MissingKeyPropertiesError):
    """A record has no value for a part of its key."""


class ArrowTarget(CheckedConfig, Target, metaclass=abc.ABCMeta):
    """A target that loads record batches. Write `default_sink_class` and `open_destination`."""

    capabilities: ClassVar[list[CapabilitiesEnum]] = [
        PluginCapabilities.ABOUT,
        PluginCapabilities.STREAM_MAPS,
        PluginCapabilities.FLATTENING,
        PluginCapabilities.STRUCTURED_LOGGING,
        PluginCapabilities.ACTIVATE_VERSION,
        PluginCapabilities.BATCH,
        TargetCapabilities.HARD_DELETE,
        TargetCapabilities.VALIDATE_RECORDS,
    ]

    def __init__(
        self,
        *,
        config: dict[str, Any] | PurePath | str | list[PurePath | str] | None = None,
        parse_env_config: bool = False,
        validate_config: bool = True,
        setup_mapper: bool = True,
    ) -> None:
        self._load: Load | None = None
        self._blocks: BlockReader | None = None
        self._signal: int | None = None
        self._destination: Destination | None = None
        self.replication_keys: dict[str, str] = {}
        super().__init__(
            config=config,
            parse_env_config=parse_env_config,
            validate_config=validate_config,
            setup_mapper=False,
            message_reader=_Reader(self),
        )
        if setup_mapper:
            self.setup_mapper()
        if validate_config:
            self.check_config()

    @abc.abstractmethod
    def open_destination(self) -> Destination:
        """The place that the configuration names. Nothing is read or written yet."""

    @property
    def spill_bytes(self) -> int:
        """How much disk a run may use for what waits."""
        return 0

    @abc.abstractmethod
    def try_destination(self) -> str:
        """Do once what the destination must be able to do, and undo it; gives its name for people.

        Raises:
            StorageError: it cannot be written or read.
        """

    def check_config(self) -> None:
        """Refuse at start what cannot work.

        Raises:
            ConfigError: a setting, or two settings together, cannot work.
        """
        from melisma.target.contract import Contract

        Contract(self.config.get("schema_contract"))

    @cached_property
    def tables(self) -> Tables:
        """The tables of the run's streams, and what may change in them."""
        from melisma.target.tables import Tables

        return Tables(self)

    @property
    def destination(self) -> Destination:
        """The opened destination."""
        if self._destination is None:
            self._destination = self.open_destination()
        return self._destination

    def setup_mapper(self) -> None:
        """As singer-sdk does; an expression that cannot be compiled is a fault of the configuration."""
        try:
            super().setup_mapper()
        except MelismaError:
            raise
        except Exception as error:
            fix = "Mend it; at log level DEBUG the traceback says where"  # its text quotes the setting
            raise ConfigError("stream_maps", f"cannot be used ({type(error).__name__})", fix) from error

    def read(self, source: IO[Any]) -> Counter[str]:
        """Read the whole input, committing as it goes; `process_endofpipe` commits the rest.

        Raises:
            InputError: what was read is wrong. What came before the fault is committed up to the STATE before it.
            Interrupted: a signal came; likewise.
        """
        from melisma.target.bad_records import BadRecords
        from melisma.target.batch import Batches
        from melisma.target.load import Load
        from melisma.target.progress import Progress

        self.destination.recover()
        self._load = load = Load(
            self,
            self.destination,
            protocol_output(),
            self.logger,
            commit_seconds=60 * float(self.config.get("commit_interval_minutes", 5)),
            bad=BadRecords(self.config.get("on_bad_record", "fail"), self.config.get("max_bad_records"), self.logger),
            batches=Batches(self),
            sync_started_at=self.initialized_at,
            trust_eof=bool(self.config.get("trust_eof", False)),
            disk_bytes=self.spill_bytes,
        )
        self._blocks = BlockReader(source)
        progress, read = Progress(), 0
        try:
            for block in self._blocks:
                load.feed(block)
                self._blocks.block_bytes = load.block_bytes
                read += len(block)
                progress.show(load.records, read)
                if self._signal is not None:
                    break
            if self._signal is not None:  # also one that came between the last block and the end
                raise Interrupted(self._signal)
        except (InputError, Interrupted) as error:
            progress.clear()
            self._finish(load.stop)
            raise _known_to_sdk(error) from error
        except BaseException:
            progress.clear()
            self._finish(load.abandon)
            raise
        progress.clear()
        return load.counts

    def process_endofpipe(self) -> None:
        """The input has ended: commit everything, and say what was done."""
        from melisma.target.ending import TapDied

        load = self._load
        if load is None:
            return
        try:
            load.end()
        except (InputError, TapDied) as error:
            self._finish(load.stop)
            raise _known_to_sdk(error) from error
        except BaseException:
            self._finish(load.abandon)
            raise
        self._finish(lambda: None)
        self._summarise(load)

    @cached_property
    def generations(self) -> Generations:
        """When rows take the place of others, by stream."""
        from melisma.target.generations import Generations

        return Generations(self)

    def version(self, stream: str) -> int | None:  # noqa: ARG002
        """The version of a stream's table that was last made the current one; None if none was."""
        return None

    def live_rows(self, stream: str) -> int:  # noqa: ARG002
        """How many rows of a stream there are."""
        return 0

    @abc.abstractmethod
    def decide(self, stream: str, method: LoadMethod) -> Decision:
        """What becomes of a stream's rows of earlier runs (`melisma.lake.replay`)."""

    def add_or_replace_sink(self, stream: str, schema: dict[str, Any], keys: list[str]) -> ArrowSink:
        """The sink of an output stream: the one there is, or a new one if the schema or the key has changed.

        Raises:
            BadSchema: the schema cannot be mapped to columns, or `schema_contract` forbids the change.
        """
        sink = cast("ArrowSink", self.get_sink(stream, schema=schema, key_properties=keys))
        self._sinks_to_clear.clear()  # a replaced sink is committed by the load, with what it holds
        return sink

    def route(self, message: Message) -> Route:
        """A SCHEMA message's route, with the sinks that it feeds.

        Raises:
            BadMessage: the message is not whole.
            BadSchema: its schema cannot be mapped to columns.
        """
        from melisma.target.schema_message import route

        return route(self, message)

    def before_schema(self, run: Run) -> InputError:
        """The error for records that come before their SCHEMA."""
        return RecordBeforeSchema(
            "a RECORD comes before the SCHEMA of its stream", stream=run.stream, line=run.lines[0], fix="Mend the tap"
        )

    def replay_dead_letters(self) -> Counter[str]:
        """Feed dead letters back: how many are rows now (`written`) and how many are still bad (`dead`).

        Raises:
            UsageError: the destination has none.
        """
        raise UsageError("this target keeps no dead letters")

    def _finish(self, last: Callable[[], None]) -> None:
        """Do the last thing, and give the destination back whatever happens."""
        load, self._load, self._blocks = self._load, None, None
        try:
            last()
        except BaseException:
            if load is not None:
                load.abandon()
            raise
        finally:
            if load is not None:
                load.batches.leave()
            self.destination.close()
            self._destination = None
            for sink in self._sinks_active.values():
                sink.clean_up()

    def _summarise(self, load: Load) -> None:
        from melisma.target.tables import discarded

        for line in (*load.bad.summary(), *discarded(load.discarded)):
            self.logger.warning(line)
        for (stream, name), count in load.unknown.items():
            what = f'stream "{printable(stream)}": {count} values of "{printable(name)}"'
            self.logger.warning("%s not stored: not in the schema", what)
        self.logger.info(
            "%s in %s committed in %s",
            _counted(load.records - load.bad.met, "record"),
            _counted(load.counts["files"], "file"),
            _counted(load.counts["commits"], "commit"),
        )

    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """End at once where that is safe; else as soon as what is being done is done."""
        if self._load is None or (self._blocks is not None and self._blocks.waiting):
            raise Interrupted(signum)
        if self._signal is None:
            self._signal = signum
            with contextlib.suppress(OSError):  # not by a logger: the signal may have come while it writes a line
                os.write(2, b"signal %d: finishing what is being written\n" % signum)

    @classmethod
    def invoke(  # type: ignore[override]
        cls,
        *,
        about: bool = False,
        about_format: str | None = None,
        config: _ConfigInput | None = None,
        file_input: IO[str] | None = None,
        committed_state: bool = False,
        replay_dead_letters: bool = False,
        test: bool = False,
    ) -> None:
        """Run from the command line."""
        if about:
            cls.print_about(about_format)
            sys.exit(0)
        from melisma.arrow.memory import use_system_pool

        if not committed_state:
            cls.print_version(print_fn=cls.logger.info)
        use_system_pool()
        target = cls(
            config=config.config if config else {},
            parse_env_config=config.parse_env if config else False,
            validate_config=True,
        )
        with claim_stdout() as output:
            if committed_state:
                state = target.destination.committed_state()
                output.write(state + b"\n")
                output.flush()
            elif test:
                cls.logger.info("the destination can be used: %s", target.try_destination())
            elif replay_dead_letters:
                counts = target.replay_dead_letters()
                cls.logger.info("%d dead letters are rows now, %d are still bad", counts["written"], counts["dead"])
            else:
                target.listen(file_input)

    @classmethod
    def get_singer_command(cls) -> click.Command:
        """singer-sdk's command, with `--committed-state`, one line per error, and the documented exit codes."""
        command = super().get_singer_command()
        command.params.append(
            click.Option(
                ["--committed-state"],
                is_flag=True,
                help="Print the STATE that was last committed ({} for a new destination), and read nothing.",
            )
        )
        command.params.append(
            click.Option(
                ["--replay-dead-letters"],
                is_flag=True,
                help="Feed the records that were kept as dead letters back, and read nothing.",
            )
        )
        command.params.append(
            click.Option(
                ["--test"],
                is_flag=True,
                help="Try out whether the destination can be written and read, and read nothing.",
            )
        )
        return MelismaCommand.wrap(command, logging.getLogger(cls.name))

    @classmethod
    def append_builtin_config(cls, config_jsonschema: dict[str, Any]) -> None:
        """Add the settings of every target: singer-sdk's, and melisma's own."""
        properties = config_jsonschema["properties"]
        for name, setting in TARGET_SETTINGS.to_dict()["properties"].items():
            properties.setdefault(name, setting)
        own = "batch_config" in properties
        super().append_builtin_config(config_jsonschema)
        if not own:
            del properties["batch_config"]  # how a tap writes files; what a target may read is `batch_roots`


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


class _Reader(GenericSingerReader[bytes]):
    """singer-sdk's seam for readers: hands the whole input to the target."""

    def __init__(self, target: ArrowTarget) -> None:
        super().__init__()
        self._target = target

    @property
    def default_input(self) -> IO[bytes]:
        return sys.stdin.buffer

    def deserialize_json(self, line: bytes) -> dict[str, Any]:
        raise NotImplementedError

    def process_lines(self, file_input: IO[Any] | None, callbacks: dict[str, Any]) -> Counter[str]:  # noqa: ARG002
        return self._target.read(file_input or self.default_input)


def _known_to_sdk(error: MelismaError) -> MelismaError:
    """The same error, of a class that singer-sdk's own tests and callers look for."""
    from melisma.arrow.validate import MISSING_KEY

    if isinstance(error, BadRecord) and error.rule == MISSING_KEY:
        return MissingKey(error.rule, stream=error.stream, column=error.column, line=error.line, fix=error.fix)
    return error


TARGET_SETTINGS = th.PropertiesList(
    th.Property(
        "commit_interval_minutes",
        th.NumberType(minimum=0),
        default=5,
        title="Commit Interval",
        description="How old uncommitted rows may get, in minutes, before they are committed at the next STATE.",
    ),
    th.Property(
        "on_unknown_field",
        th.StringType(allowed_values=["warn", "fail", "drop"]),
        default="warn",
        title="On Unknown Field",
        description=(
            "What to do with a field that the stream's schema does not name: warn (leave it out, count it and say "
            "so), fail (the record is bad), or drop (leave it out unseen, which is faster)."
        ),
    ),
    th.Property(
        "on_bad_record",
        th.StringType(allowed_values=["fail", "skip", "dead_letter"]),
        default="fail",
        title="On Bad Record",
        description=(
            "What to do with a record that breaks its schema: fail (end the run), skip (leave it out, count it and "
            "say so), or dead_letter (keep it aside with the reason, in the same commit; see docs/evolution.md)."
        ),
    ),
    th.Property(
        "max_bad_records",
        th.IntegerType(minimum=0),
        title="Max Bad Records",
        description="With more bad records than this the run ends with exit code 3. No limit by default.",
    ),
    th.Property(
        "batch_roots",
        th.ArrayType(th.StringType),
        title="Batch Roots",
        description=(
            "Folders (paths or URLs) below which the files of BATCH messages may lie. Without it only files in the "
            "private folder of a melisma tap on this machine are read; see docs/batch.md."
        ),
        examples=[["/data/batches"]],
    ),
    th.Property(
        "max_batch_file_mb",
        th.NumberType(exclusive_minimum=0),
        default=2048,
        title="Max Batch File",
        description="The largest file of a BATCH message that is read, in MiB, as stored and as unpacked.",
    ),
    th.Property(
        "schema_contract",
        th.CustomType({"type": ["string", "object", "null"]}),
        title="Schema Contract",
        description=(
            "What a changed schema may do: evolve (the default: new columns and wider types; a type that cannot share "
            "the column gets a column of its own), freeze (any change ends the run), discard_value or discard_row "
            "(values, or records with values, of new and changed columns are left out and counted). One word, or "
            'words by stream, or by stream and column ("*" for all others).'
        ),
        examples=["freeze", {"orders": {"*": "evolve", "total": "freeze"}}],
    ),
    th.Property(
        "column_types",
        th.ObjectType(additional_properties=th.ObjectType(additional_properties=th.StringType)),
        title="Column Types",
        description=(
            'Column types that override the schema\'s, by stream ("*" for all) and column, for example '
            '{"orders": {"total": "decimal(38,9)"}}. Types: string, integer, uint64, number, boolean, decimal(p,s), '
            "timestamp, date, time, binary, json."
        ),
    ),
)
