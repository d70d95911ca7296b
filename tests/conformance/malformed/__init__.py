"""Malformed inputs for target-parquet, and what must come of each.

Every input that is refused stands in the same place: after two records and a STATE that settles them, and one record
after that, which no STATE settles. So the rows 1 and 2 must be there, row 3 must not, the STATE printed must be the
one that stands before the fault, and the message must name line 6. What is accepted although it is odd stands there
too, and then all rows are there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "AFTER",
    "ALL",
    "BAD_LINE",
    "BEFORE",
    "LAST",
    "PRIVATE",
    "STREAM",
    "Case",
    "accepted",
    "line",
    "record",
    "refused",
    "schema",
    "state",
]

PRIVATE = "SECRET-VALUE-123"
"""Stands in every record and every setting whose value may be private; must never come out."""

STREAM = "s"
BAD_LINE = 6


@dataclass(frozen=True)
class Case:
    """One malformed input, or one that is odd and yet accepted.

    Attributes:
        id: unique; the test's name.
        shows: the input in a few words, for the page; Markdown.
        data: the whole input.
        exit_code: what the executable exits with.
        says: a part of the one error line; where the input is accepted, of the warning ("" for none).
        landed: the `id` of every row that must be in the lake, in order.
        stdout: what must have been printed.
        skip: what must be in the lake with `on_bad_record: skip`; None where that makes no difference.
        config: settings besides the destination's path.
        arguments: the command line instead of the usual one.
        files: what lies in the working directory beside the input.
        env: environment variables.
        hidden: more texts that must not come out, besides `PRIVATE`.
        lines: how many error lines there must be.
        names_line: whether the message names line 6.
        directory: the only directory of data that there may be.
        as_executable: run it as the real executable too.
    """

    id: str
    shows: str
    data: bytes
    exit_code: int = 3
    says: str = ""
    landed: tuple[int, ...] = (1, 2)
    stdout: bytes = b'{"at": 2}\n'
    skip: tuple[int, ...] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ("--config", "config.json")
    files: dict[str, bytes] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    lines: int = 1
    names_line: bool = True
    directory: str | None = STREAM
    as_executable: bool = False


def line(message: Any) -> bytes:
    """A message as a tap writes it."""
    return json.dumps(message).encode() + b"\n"


def schema(properties: dict[str, Any] | None = None, stream: str = STREAM, **more: Any) -> bytes:
    """A SCHEMA message: an integer `id`, a text `note`, and what is given."""
    columns = {"id": {"type": "integer"}, "note": {"type": ["null", "string"]}, **(properties or {})}
    rest = {"key_properties": ["id"]} | {key: more.pop(key) for key in [*more] if key == "key_properties"}
    return line(
        {"type": "SCHEMA", "stream": stream, "schema": {"type": "object", "properties": columns, **more}} | rest
    )


def record(number: int, stream: str = STREAM, **members: Any) -> bytes:
    """A RECORD message that holds the secret."""
    return line({"type": "RECORD", "stream": stream, "record": {"id": number, "note": PRIVATE, **members}})


def state(at: int) -> bytes:
    """A STATE message."""
    return line({"type": "STATE", "value": {"at": at}})


BEFORE = schema() + record(1) + record(2) + state(2) + record(3)
"""Lines 1 to 5."""

AFTER = record(4) + state(9)
"""What follows the fault, and is read only where it is none."""

ALL = (1, 2, 3, 4)
"""The rows of `BEFORE` and `AFTER`."""

LAST = b'{"at": 9}\n'
"""The STATE of `AFTER`, as it is printed."""


def refused(id_: str, shows: str, fault: bytes, says: str, **more: Any) -> Case:
    """A line that ends the run, where all faults stand."""
    return Case(id_, shows, BEFORE + fault + AFTER, says=says, **more)


def accepted(id_: str, shows: str, data: bytes, says: str = "", landed: tuple[int, ...] = ALL, **more: Any) -> Case:
    """An input that is odd and yet read."""
    return Case(id_, shows, data, **({"exit_code": 0, "says": says, "landed": landed, "stdout": LAST} | more))
