"""The command line around a connector: one line per error, the documented exit codes, signals that count.

singer-sdk exits with 1 for a bad configuration and with 0 after SIGTERM, and prints tracebacks; a connector of
melisma exits with 0, 1, 2, 3, 130 or 143 (docs/contract.md) and says in one line what is wrong.
"""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn

import click
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.plugin_base import SingerCommand

from melisma.config import ConfigFaults
from melisma.errors import Interrupted, MelismaError

__all__ = ["MelismaCommand"]

USAGE = 2


class MelismaCommand(SingerCommand):
    """A connector's click command: turns every failure into one line on stderr and an exit code."""

    @classmethod
    def wrap(cls, command: click.Command, logger: logging.Logger) -> MelismaCommand:
        """The same command (name, options, help) with melisma's way of failing."""
        return cls(
            name=command.name,
            callback=command.callback,
            context_settings=command.context_settings,
            params=command.params,
            help=command.help,
            logger=logger,
        )

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command; never lets an exception through as a traceback."""
        try:
            return super().main(*args, **kwargs)
        except ConfigValidationError as error:
            for line in error.errors if isinstance(error, ConfigFaults) else ["the configuration is not valid"]:
                self.logger.error(line)  # noqa: TRY400  one line, no traceback
            self._exit(error, USAGE)
        except Interrupted as error:
            self.logger.warning(str(error))
            self._exit(error, error.exit_code)
        except MelismaError as error:
            self.logger.error(str(error))  # noqa: TRY400
            self._exit(error, error.exit_code)
        except BrokenPipeError as error:
            self.logger.error("the reader of the output has gone: stopped")  # noqa: TRY400
            self._exit(error, 1)
        except KeyboardInterrupt as error:
            self._exit(error, 130)
        except MemoryError as error:
            self.logger.error("out of memory")  # noqa: TRY400
            self._exit(error, 1)
        except Exception as error:
            self.logger.error(  # noqa: TRY400
                "internal error: %s. Set %s_LOGLEVEL=DEBUG to see the traceback, and please report it",
                _place(error),
                str(self.name).upper().replace("-", "_"),
            )
            self._exit(error, 1)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the callback with warnings in the log, and a configuration file that cannot be read as usage error."""
        logging.captureWarnings(capture=True)
        warnings.filterwarnings("once", category=DeprecationWarning)
        return click.Command.invoke(self, ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; an unreadable or malformed configuration, catalog or state file is a usage error."""
        try:
            return super().parse_args(ctx, args)
        except FileNotFoundError as error:
            raise click.UsageError(f"file not found: {error.filename}", ctx) from error
        except (IsADirectoryError, PermissionError) as error:
            raise click.UsageError(f"cannot read {error.filename}: {error.strerror}", ctx) from error
        except UnicodeDecodeError as error:
            raise click.UsageError("a file given on the command line is not UTF-8 text", ctx) from error
        except ValueError as error:  # a JSON decoder's error; its text names a position, never a value
            if type(error).__module__.split(".")[0] not in {"json", "simplejson"}:
                raise
            raise click.UsageError(f"a file given on the command line is not JSON: {error}", ctx) from error

    def _exit(self, error: BaseException, code: int) -> NoReturn:
        if self.logger.isEnabledFor(logging.DEBUG):
            self.logger.debug("traceback", exc_info=error)
        sys.exit(code)


def _place(error: BaseException) -> str:
    """The exception's class and where it was raised; its text may hold a value and is left out."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    frame = frames[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"
