"""How commands show what they found: a table on a terminal, aligned text in a pipe, JSON for scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from melisma.errors import printable

__all__ = ["Column", "json_option", "show_json", "show_lines", "show_table", "size", "when"]

_CELL = 4_000


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        text: makes a cell's text from the row's value.
        right: numbers stand on the right.
    """

    name: str
    text: Callable[[Any], str] = str
    right: bool = False


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, with exact numbers, for scripts.")


def show_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2))


def show_lines(lines: Sequence[str]) -> None:
    """Print lines, each of which stays one."""
    for line in lines:
        click.echo(printable(line, _CELL))


def show_table(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows: on a terminal with rules and colours, else aligned by spaces."""
    cells = [[printable(column.text(value), _CELL) for column, value in zip(columns, row, strict=True)] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, cells)
    else:
        _plain_table(columns, cells)


def size(count: int) -> str:
    """Bytes in the unit that suits a person."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def when(at: str) -> str:
    """An entry's time in UTC, to the second."""
    return f"{at[:10]} {at[11:19]}" if at else ""


def _plain_table(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, [column.name, *(row[i] for row in cells)])) for i, column in enumerate(columns)]
    for row in [[column.name for column in columns], *cells]:
        padded = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def _rich_table(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.name, justify="right" if column.right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))  # as Text: brackets in names are not markup
    Console().print(table)
