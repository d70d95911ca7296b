"""How cost and memory grow: with the number of records and of streams, with columns and with large values.

Every input comes through a pipe (`python -m benchmarks.growth FILE TIMES`), the records as often as they are wanted, so
that ten million of them need no more disk than one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.contestants import target
from benchmarks.data import SHAPES, Shape, singer_file
from benchmarks.measure import Command
from benchmarks.report import Result

__all__ = ["CASES", "Case", "growth_table"]

_EVENTS = SHAPES["events"]
_COLUMNS = 5_000
_MANY = 500
_LONG = 1 << 20


def _columns(source: Random, row: int) -> str:
    numbers = ",".join(f'"c{column:04}":{source.randrange(1_000_000)}' for column in range(1, _COLUMNS))
    return f'{{"id":{row},{numbers}}}'


def _sparse(source: Random, row: int) -> str:
    return f'{{"id":{row},"c{source.randrange(1, _MANY):03}":{source.randrange(1_000_000)}}}'


def _value(source: Random, row: int) -> str:
    words = " ".join(f"{source.getrandbits(64):016x}" for _ in range(4_096))
    return f'{{"id":{row},"body":"{(words * (1 + _LONG // len(words)))[:_LONG]}"}}'


_INTEGER = {"type": "integer"}
_COLUMN_PROPERTIES = {"id": _INTEGER} | {f"c{column:04}": _INTEGER for column in range(1, _COLUMNS)}
_SPARSE_PROPERTIES = {"id": _INTEGER} | {f"c{column:03}": _INTEGER for column in range(1, _MANY)}


@dataclass(frozen=True, slots=True)
class Case:
    """One input.

    Attributes:
        title: as in the table.
        shape: of the records.
        times: how often they come.
        base: the title of the case that it is compared with, for CPU seconds per record and for memory.
    """

    title: str
    shape: Shape
    times: int = 1
    base: str = ""

    def rows(self, share: int) -> int:
        """Records of the input file, a share of the full number."""
        return max(1, self.shape.rows // share)

    def source(self, folder: Path, share: int) -> Path:
        """The input file."""
        return singer_file(folder, self.shape, self.rows(share))

    def feeder(self, source: Path) -> list[str]:
        """What writes it into the pipe."""
        return [sys.executable, "-m", "benchmarks.growth", str(source), str(self.times)]


_ONE = "one stream"
CASES = (
    Case(_ONE, _EVENTS),
    Case("one stream, ten times the records", _EVENTS, times=10, base=_ONE),
    Case("200 streams that take turns", SHAPES["turns"], base=_ONE),
    Case(
        "1,000 streams that take turns",
        Shape("thousand", "1,000 streams", 1_000_000, _EVENTS.record, _EVENTS.properties, streams=1_000),
        base=_ONE,
    ),
    Case(
        f"{_COLUMNS:,} columns",
        Shape("columns", f"{_COLUMNS:,} columns", 3_000, _columns, _COLUMN_PROPERTIES),  # type: ignore[arg-type]
    ),
    Case(
        f"{_MANY} columns, of which a record has two",
        Shape("sparse", f"{_MANY} columns", 300_000, _sparse, _SPARSE_PROPERTIES),
    ),
    Case(
        "values of 1 MB",
        Shape("values", "values of 1 MB", 300, _value, {"id": _INTEGER, "body": {"type": "string"}}),
    ),
)
"""In the table's order; a case comes after what it is compared with."""


def command(case: Case, source: Path, config: Path, output: Path, *, native: bool) -> Command:
    """The target, reading a case from a pipe."""
    made = target(config, output, native=native)
    return Command(made.argv, environment=made.environment, feeder=case.feeder(source))


def growth_table(title: str, ways: Mapping[str, Sequence[tuple[Case, Result]]]) -> str:
    """A Markdown table of the cases, done in each of the ways."""
    lines = [
        f"### {title}",
        "",
        "| | records | MB | CPU s | CPU µs per record | against the first | peak MiB | against the first |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, results in ways.items():
        known = {case.title: result for case, result in results}
        for case, result in results:
            base = known.get(case.base)
            cost = result.cpu / result.rows * 1e6
            times = f"{cost / (base.cpu / base.rows * 1e6):.2f}x" if base else ""
            memory = f"{result.rss / base.rss:.2f}x" if base else ""
            lines.append(
                f"| {', '.join(filter(None, [case.title, name]))} | {result.rows:,} | {result.bytes / 1e6:,.0f} "
                f"| {result.cpu:.2f} | {cost:,.2f} | {times} | {result.rss / 2**20:,.0f} | {memory} |"
            )
    return "\n".join([*lines, ""])


def feed(source: str, times: str) -> None:
    """Write the SCHEMA messages, and then everything else so many times."""
    out = sys.stdout.buffer
    for time in range(int(times)):
        with Path(source).open("rb") as file:
            for line in file:
                if not line.startswith(b'{"type": "SCHEMA"') and not line.startswith(b'{"type":"SCHEMA"'):
                    break
                if time == 0:
                    out.write(line)
            out.write(line)
            while block := file.read(1 << 20):
                out.write(block)
    out.flush()


if __name__ == "__main__":
    feed(*sys.argv[1:])
