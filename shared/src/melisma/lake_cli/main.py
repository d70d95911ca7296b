"""The executable `melisma`: commands that fail as the connectors do, in one line and with their exit codes."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any, ClassVar

import click

from melisma import __version__
from melisma.cli import MelismaCommand
from melisma.errors import UsageError

__all__ = ["LOG", "CommandGroup", "main"]

LOG = logging.getLogger("melisma")


class CommandGroup(MelismaCommand, click.Group):
    """A group of commands."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for; a name that there is not is a usage error of one line."""
        try:
            return click.Group.invoke(self, ctx)
        except click.UsageError as error:
            raise UsageError(f"{error.format_message()} See {ctx.command_path} --help") from error


class LakeCommands(CommandGroup):
    """The commands of `melisma lake`, each imported when it is named: `melisma --version` does not pay for pyarrow."""

    MODULES: ClassVar[dict[str, str]] = {
        "log": "look",
        "show": "look",
        "files": "look",
        "state": "look",
        "schema": "look",
        "verify": "check",
        "duplicates": "check",
        "compact": "mend",
        "vacuum": "mend",
        "rollback": "mend",
        "replay-dead-letters": "dead_letters",
    }
    """Where each command is: `<name>_command` in this module of the package."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """In the order of the documentation."""
        return list(self.MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in self.MODULES:
            return None
        module = importlib.import_module(f"melisma.lake_cli.{self.MODULES[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command


@click.group(cls=CommandGroup, logger=LOG, name="melisma", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="melisma")
def commands() -> None:
    """Commands around melisma's taps and targets."""


@commands.group(cls=LakeCommands, logger=LOG, name="lake")
def lake_commands() -> None:
    """Look into a lake of plain files, and mend it."""


def main() -> None:
    """Run `melisma`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(handlers=[handler], level=os.environ.get("MELISMA_LOGLEVEL", "WARNING").upper())
    commands()


class _Lines(logging.Formatter):
    """`error: what is wrong`: one line, and the traceback only where it was asked for."""

    def format(self, record: logging.LogRecord) -> str:
        record.levelname = record.levelname.lower()
        return super().format(record)

    def __init__(self) -> None:
        super().__init__("%(levelname)s: %(message)s")
