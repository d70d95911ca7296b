"""The command line around a connector: one line per error, the documented exit codes, signals that count.

singer-sdk exits with 1 for a bad configuration and with 0 after SIGTERM, and prints tracebacks; a connector of
melisma exits with 0, 1, 2, 3, 130 or 143 (docs/contract.md) and says in one line what is wrong.
"""

from __future__ import annotations

import atexit
import gc
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
from melisma.errors import Interrupted, MelismaError, UsageError, printable

__all__ = ["MelismaCommand"]

USAGE = 2
_SEE_HELP = "See --help for the options there are."


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
        # Python looks for cycles among all objects once more when it ends: 0.1 s, for memory that is given back anyway.
        atexit.register(gc.freeze)
        sys.meta_path.insert(0, _without_pandas)
        try:
            return super().main(*args, **kwargs)
        except ConfigValidationError as error:
            for line in error.errors if isinstance(error, ConfigFaults) else ["the configuration is not valid"]:
                self.logger.error(_one_line(line))  # noqa: TRY400  one line, no traceback
            self._exit(error, USAGE)
        except Interrupted as error:
            self.logger.warning(str(error))
            self._exit(error, error.exit_code)
        except MelismaError as error:
            self.logger.error(_one_line(str(error)))  # noqa: TRY400
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
        finally:
            sys.meta_path.remove(_without_pandas)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the callback with warnings in the log, and a configuration file that cannot be read as usage error."""
        # Batches are freed by counting references; Python's own threshold of 700 objects costs a run 3% to 5%.
        gc.set_threshold(50_000, 20, 50)
        logging.captureWarnings(capture=True)
        warnings.filterwarnings("once", category=DeprecationWarning)
        return click.Command.invoke(self, ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; what is wrong with the call, or with a file that it names, is a usage error of one line."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise UsageError(f"{error.format_message()} {_SEE_HELP}") from error
        except FileNotFoundError as error:  # singer-sdk's own has no file name and says it in its text
            raise UsageError(str(error) if error.filename is None else f"file not found: {error.filename}") from error
        except OSError as error:
            raise UsageError(f"cannot read {error.filename}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError("a file given on the command line is not UTF-8 text") from error
        except (TypeError, ValueError) as error:
            if type(error).__module__.split(".")[0] in {"json", "simplejson"}:  # names a position, never a value
                raise UsageError(f"a file given on the command line is not JSON: {error}") from error
            raise UsageError("a file given on the command line does not hold a JSON object") from error

    def _exit(self, error: BaseException, code: int) -> NoReturn:
        if self.logger.isEnabledFor(logging.DEBUG):
            self.logger.debug("traceback", exc_info=error)
        sys.exit(code)


class _WithoutPandas:
    """Lets no connector import pandas.

    pyarrow does, where it is installed, only to ask whether a list of values is one of its arrays: 0.2 s and 30 MB.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:  # noqa: ARG002
        """None, so that others look for the module."""
        if name == "pandas":
            raise ModuleNotFoundError("connectors work without pandas", name=name)


_without_pandas = _WithoutPandas()


def _one_line(text: str) -> str:
    """Names in messages are the tap's, and may hold newlines."""
    return printable(text, limit=4_000)


def _place(error: BaseException) -> str:
    """The exception's class and where it was raised; its text may hold a value and is left out."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    frame = frames[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"
