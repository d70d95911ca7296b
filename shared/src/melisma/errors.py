"""Every error that melisma raises on purpose, grouped by what should happen next.

::

    MelismaError                  exit 1   the run failed; nothing that was committed is lost
    ├── UsageError                exit 2   the configuration or the call is wrong: change it
    │   ├── ConfigError                    a setting has a value that cannot work
    │   ├── CatalogError                   the catalog asks for what the source cannot give
    │   └── MissingExtra                   an optional part is not installed
    ├── InputError                exit 3   what was read is wrong: mend the source or the tap
    │   ├── BadMessage                     a line is not a Singer message
    │   ├── BadSchema                      a stream's JSON Schema cannot be mapped
    │   ├── BadRecord                      a record breaks its schema (`on_bad_record` decides)
    │   ├── BadFile                        a source file cannot be read as what it is said to be
    │   └── TruncatedInput                 the input ends in the middle of a line: the tap died
    ├── StorageError              exit 1   a store refused or failed
    ├── DatabaseError             exit 1   a database refused or failed
    ├── (the lake's own)          exit 1   Fenced, PipelineBusy, Overtaken, TapDied; see docs/delivery.md
    └── Interrupted               exit 128 + signal number

A constructor takes fields and builds the sentence, so that every message says what, where, which rule, and
what to do, in one line, and never a value of a record or of a setting.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BadFile",
    "BadMessage",
    "BadRecord",
    "BadSchema",
    "CatalogError",
    "ConfigError",
    "DatabaseError",
    "InputError",
    "Interrupted",
    "MelismaError",
    "MissingExtra",
    "StorageError",
    "TruncatedInput",
    "UsageError",
]


class MelismaError(Exception):
    """The run failed. `exit_code` is what the executable exits with."""

    exit_code = 1


class UsageError(MelismaError):
    """The configuration or the call is wrong; the same call fails again."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting has a value that cannot work.

    Args:
        setting: the setting's name, nested ones with dots (`streams[0].path`).
        rule: what is wrong, without the value.
        fix: what to set instead; lists the valid values where there are few.
    """

    def __init__(self, setting: str, rule: str, fix: str = "") -> None:
        self.setting = setting
        super().__init__(_sentence([f'setting "{setting}"'], rule, fix))


class CatalogError(UsageError):
    """The catalog asks for what the source cannot give."""

    def __init__(self, stream: str, rule: str, fix: str = "") -> None:
        self.stream = stream
        super().__init__(_sentence([f'catalog, stream "{stream}"'], rule, fix))


class MissingExtra(UsageError):
    """An optional part is not installed.

    Args:
        what: what the user wanted, in the user's words (`reading from s3://`).
        distribution: the connector's own distribution, for example `melisma-tap-files`.
        extra: the extra of that distribution which brings it.
    """

    def __init__(self, what: str, distribution: str, extra: str) -> None:
        super().__init__(f'{what} is not installed. Install it with: pip install "{distribution}[{extra}]"')


class InputError(MelismaError):
    """What was read is wrong.

    Args:
        rule: what is wrong, without any value of a record.
        stream: the stream's name.
        column: the column, nested ones with dots.
        line: the line of the input, counted from 1.
        file: the source file, for taps.
        fix: what to do about it.
    """

    __slots__ = ("column", "file", "fix", "line", "rule", "stream")  # very many wait together
    exit_code = 3

    def __init__(
        self,
        rule: str,
        *,
        stream: str | None = None,
        column: str | None = None,
        line: int | None = None,
        file: str | None = None,
        fix: str = "",
    ) -> None:
        self.rule, self.stream, self.column, self.line, self.file, self.fix = rule, stream, column, line, file, fix

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles have what the slots hold."""
        return _again, (type(self), {name: getattr(self, name) for name in InputError.__slots__})

    def __str__(self) -> str:
        where = []
        if self.stream is not None:
            where.append(f'stream "{printable(self.stream)}"')
        if self.file is not None:
            where.append(f'file "{printable(self.file)}"')
        if self.column is not None:
            where.append(f'column "{printable(self.column)}"')
        if self.line is not None:
            where.append(f"line {self.line}")
        return _sentence(where, self.rule, self.fix)


def _again(kind: type[InputError], said: dict[str, Any]) -> InputError:
    return kind(**said)


class BadMessage(InputError):
    """A line is not a Singer message, or comes where the protocol does not allow it."""


class BadSchema(InputError):
    """A stream's JSON Schema cannot be mapped to columns."""


class BadRecord(InputError):
    """A record breaks its stream's schema. `on_bad_record` decides what happens to it."""


class BadFile(InputError):
    """A source file cannot be read as what it is said to be."""


class TruncatedInput(InputError):
    """The input ends in the middle of a line: the tap died. What came before its last STATE is kept."""


class StorageError(MelismaError):
    """A store refused or failed.

    Args:
        action: what was tried (`write`, `read`, `list`).
        url: where, without credentials.
        rule: the reason in plain words.
        fix: what to do about it.
    """

    def __init__(self, action: str, url: str, rule: str, fix: str = "") -> None:
        self.action, self.url = action, url
        super().__init__(_sentence([f"cannot {action} {url}"], rule, fix))


class DatabaseError(MelismaError):
    """A database refused or failed.

    Args:
        database: which one, without credentials.
        rule: the reason in plain words, without any value of a row.
        stream: the stream that was read.
        fix: what to do about it.
    """

    def __init__(self, database: str, rule: str, *, stream: str | None = None, fix: str = "") -> None:
        where = [] if stream is None else [f'stream "{printable(stream)}"']
        super().__init__(_sentence([*where, database], rule, fix))


class Interrupted(MelismaError):
    """A signal ended the run."""

    def __init__(self, signal_number: int) -> None:
        self.exit_code = 128 + signal_number
        super().__init__(f"ended by signal {signal_number}")


def printable(name: str, limit: int = 200) -> str:
    """A name as one printable line: control characters escaped, cut at `limit` characters."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in name)
    return text if len(text) <= limit else f"{text[:limit]}..."


def _sentence(where: list[str], rule: str, fix: str) -> str:
    text = f"{', '.join(where)}: {rule}" if where else rule
    return f"{text}. {fix}" if fix else text
