"""Results as a Markdown table and as a picture."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.measure import Cost

__all__ = ["Result", "machine", "picture", "replace_block", "table"]

_COLOURS = {"melisma": "#2f6f8f", "limit": "#9aa5b1"}
BEGIN, END = "<!-- begin {name}: written by make bench -->", "<!-- end {name} -->"


@dataclass(frozen=True, slots=True)
class Result:
    """What a contestant's rounds came to.

    Attributes:
        name: the contestant.
        rows: that it was given.
        bytes: of its input.
        costs: of each round.
    """

    name: str
    rows: int
    bytes: int
    costs: Sequence[Cost]

    @property
    def cpu(self) -> float:
        """Median CPU seconds."""
        return median(cost.cpu for cost in self.costs)

    @property
    def wall(self) -> float:
        """Median wall seconds."""
        return median(cost.wall for cost in self.costs)

    @property
    def rss(self) -> float:
        """Median peak memory, bytes."""
        return median(cost.rss for cost in self.costs)

    @property
    def rate(self) -> float:
        """Rows per CPU second."""
        return self.rows / self.cpu


def table(title: str, results: Sequence[Result], ours: str) -> str:
    """A Markdown table; the last column compares everyone with `ours`, by name, if that is among the results."""
    compared = next((each.rate for each in results if each.name == ours), None)
    lines = [
        f"### {title}",
        "",
        "| | rows | CPU s | wall s | rows per CPU s | MB per CPU s | peak MiB | ours does |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {each.name} | {each.rows:,} | {each.cpu:.2f} | {each.wall:.2f} | {each.rate:,.0f} "
        f"| {each.bytes / each.cpu / 1e6:,.1f} | {each.rss / 2**20:,.0f} "
        f"| {f'{compared / each.rate:.2f}x' if compared else ''} |"
        for each in results
    ]
    return "\n".join([*lines, ""])


def picture(title: str, results: Sequence[Result]) -> str:
    """A bar for each contestant's rows per CPU second, as SVG."""
    bar, gap, label, width = 22, 8, 330, 430
    most = max(each.rate for each in results)
    height = 44 + len(results) * (bar + gap)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{label + width + 100}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="#fff"/><text x="10" y="24" font-weight="bold">{escape(title)}, '
        "rows per CPU second</text>",
    ]
    for index, each in enumerate(results):
        top = 40 + index * (bar + gap)
        colour = next((colour for start, colour in _COLOURS.items() if each.name.startswith(start)), "#d08a3c")
        long = max(1.0, width * each.rate / most)
        middle = top + bar * 0.7
        parts.append(f'<text x="{label - 8}" y="{middle:.0f}" text-anchor="end">{escape(each.name)}</text>')
        parts.append(f'<rect x="{label}" y="{top}" width="{long:.0f}" height="{bar}" fill="{colour}"/>')
        parts.append(f'<text x="{label + long + 6:.0f}" y="{middle:.0f}">{each.rate:,.0f}</text>')
    return "\n".join([*parts, "</svg>", ""])


def machine() -> str:
    """What the figures depend on: processor, cores, versions. No names of hosts."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists() and (found := re.search(r"model name\s*: (.*)", information.read_text())):
        cpu = found[1]
    cores = len(_affinity())
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("melisma", "singer-sdk", "pyarrow", "duckdb", "polars")
    )
    return f"{cpu}, {cores} cores; {platform.system()}; Python {platform.python_version()}; {libraries}"


def _affinity() -> Sequence[int]:
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else range(os.cpu_count() or 1)


def replace_block(document: Path, name: str, text: str) -> None:
    """Put the text between the marks of a name in a document.

    Raises:
        ValueError: the document has no marks.
    """
    first, last = BEGIN.format(name=name), END.format(name=name)
    before, begin, rest = document.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{document.name} has no block between {first} and {last}")
    document.write_text(f"{before}{first}\n\n{text.strip()}\n\n{last}{after}", encoding="utf-8")
