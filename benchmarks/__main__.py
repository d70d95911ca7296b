"""`python -m benchmarks`: run everyone in turn, count what each wrote, print the tables."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import growth, start
from benchmarks.batch import COPIES, input_file
from benchmarks.contestants import NATIVE, Contestant, Job, Work
from benchmarks.contestants import WORKS as FILE_WORKS
from benchmarks.data import SHAPES, csv_file, parquet_file, singer_file
from benchmarks.databases import WORKS as DATABASE_WORKS
from benchmarks.databases import database_growth
from benchmarks.formats import FORMATS
from benchmarks.measure import Cost, RunFailed, run
from benchmarks.peers.environments import SDK
from benchmarks.postgres import Table, table_file
from benchmarks.report import Result, machine, picture, replace_block, table

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "benchmarks"
DOCUMENT = ROOT / "docs" / "performance.md"
WORKS = (*FILE_WORKS, *DATABASE_WORKS)
SLOW_SHARE = 10


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for. Returns the exit code: 1 if a run was void."""
    options = _options(arguments)
    command = shlex.join(["python", "-m", "benchmarks", *arguments])
    failed: list[str] = []
    for work in WORKS:
        if options.only and not {work.name, work.group} & {*options.only}:
            continue
        print(f"{work.title} ...", file=sys.stderr)
        results = _measure(work, options, failed)
        if not results:
            continue
        text = table(work.title, results, results[0].name)
        print(text, flush=True)
        if options.write:
            _write(work, options, results, command, text)
    for name, measure in _MORE.items():
        group = name.partition("-")[0]
        if options.only is None or {name, group} & {*options.only}:
            print(f"{name} ...", file=sys.stderr)
            text = measure(options, failed)
            print(text, flush=True)
            if options.write:
                replace_block(DOCUMENT, name, f"{text}\n`{command}`. {machine()}.")
    for each in failed:
        print(f"VOID: {each}", file=sys.stderr)
    return 1 if failed else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    groups = dict.fromkeys(work.group for work in WORKS if work.group)
    names = [*groups, *(work.name for work in WORKS), *_MORE]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the rows, two rounds: some four minutes")
    parser.add_argument("--rows", type=int, help="rows of every work, instead of each one's own number")
    parser.add_argument("--rounds", type=int, help="how often everyone runs, in turns (3; 2 with --quick)")
    parser.add_argument("--only", action="append", choices=names, help="may be repeated")
    parser.add_argument("--contestant", action="append", help="a part of a contestant's name; may be repeated")
    parser.add_argument("--same-rows", action="store_true", help="slow peers get all the rows, not a tenth")
    parser.add_argument("--write", action="store_true", help="put the tables and pictures into docs/performance.md")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (2 if options.quick else 3)
    return options


def _write(work: Work, options: argparse.Namespace, results: Sequence[Result], command: str, text: str) -> None:
    """Put a work's table and picture into the document."""
    name = f"{work.name}-same-rows" if options.same_rows else work.name
    image = DOCUMENT.with_name(f"performance-{name}.svg")
    image.write_text(picture(work.title, results), encoding="utf-8")
    rounds = min(options.rounds, work.rounds)
    how = f"`{command}`; {rounds} round{'s, medians' if rounds > 1 else ''}. {machine()}."
    replace_block(DOCUMENT, name, f"{text}\n![{work.title}]({image.name})\n\n{how}")


def _measure(work: Work, options: argparse.Namespace, failed: list[str]) -> list[Result]:
    """Everyone's results, in the order of the table; those that fail are left out, and noted."""
    taking_part = []
    for each in work.contestants:
        if options.contestant and not any(part in each.name for part in options.contestant):
            continue
        if each.module and importlib.util.find_spec(each.module) is None:
            print(f"  {each.name}: left out, {each.module} is not installed", file=sys.stderr)
            continue
        try:
            for environment in each.environments:
                environment.make(CACHE / "venvs")
        except subprocess.CalledProcessError:
            failed.append(f"{work.name}: {each.name} does not install")
            continue
        taking_part.append(each)
    costs: dict[str, list[Cost]] = {each.name: [] for each in taking_part}
    inputs = {each.name: _input(work, each, options) for each in taking_part}
    for _ in range(min(options.rounds, work.rounds)):
        for each in list(taking_part):
            source, rows = inputs[each.name]
            try:
                costs[each.name].append(_once(work, each, source, rows))
            except RunFailed as error:
                failed.append(f"{work.name}: {each.name}: {error}")
                taking_part.remove(each)
    return [
        Result(each.name, inputs[each.name][1], _bytes(work, inputs[each.name][0]), costs[each.name])
        for each in taking_part
    ]


def _input(work: Work, contestant: Contestant, options: argparse.Namespace) -> tuple[Path, int]:
    shape = SHAPES[work.shape]
    rows = options.rows or shape.rows // (5 if options.quick else 1)
    if contestant.slow and not options.same_rows:
        rows = max(1, rows // SLOW_SHARE)
    folder = CACHE / "data"
    if work.input == "singer":
        return singer_file(folder, shape, rows), rows
    if work.input == "postgres":
        return table_file(folder, rows), rows
    many, _, kind = work.input.rpartition(".")
    if many:
        return input_file(folder, rows * COPIES, kind), rows * COPIES
    return (csv_file if work.input == "csv" else parquet_file)(folder, rows), rows


def _bytes(work: Work, source: Path) -> int:
    return Table(source).bytes if work.input == "postgres" else source.stat().st_size


def _once(work: Work, contestant: Contestant, source: Path, rows: int) -> Cost:
    """One run, read back and counted.

    Raises:
        RunFailed: it failed, or rows are missing or there twice.
    """
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        output = Path(folder) / "out"
        output.mkdir()
        command = contestant.command(Job(source, output, CACHE / "venvs", work.shape))
        cost = run(command, Path(folder) / "stderr.log")
        _count(contestant.form, output / contestant.within, rows)
    print(f"  {contestant.name}: {cost.cpu:.2f} CPU s, {cost.wall:.2f} s", file=sys.stderr)
    return cost


def _count(form: str, output: Path, rows: int, times: int = 1) -> None:
    command = [sys.executable, "-m", "benchmarks.readback", form, str(output)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    wanted = [str(rows * times), str(rows * (rows + 1) // 2 * times)]
    if found.stdout.split() != wanted:
        told = found.stdout.strip() or found.stderr[-500:]
        raise RunFailed(f"rows and sum of ids should be {' '.join(wanted)}, read back: {told}")


def _formats(options: argparse.Namespace, failed: list[str]) -> str:
    """A table for each format and way; the bytes are those of the input."""
    measured = ((work, _measure(work, options, failed)) for work in FORMATS)
    return "\n".join(table(work.title, results, results[0].name) for work, results in measured if results)


def _growth(options: argparse.Namespace, failed: list[str]) -> str:
    """One run of each case, natively where that is possible, and without."""
    results: dict[bool, list[tuple[growth.Case, Result]]] = {True: [], False: []}
    share = 5 if options.quick else 1
    ways = [True, False] if importlib.util.find_spec(NATIVE) else [False]
    for case in growth.CASES:
        source, rows = case.source(CACHE / "data", share), case.rows(share)
        for native in ways:
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                output = Path(folder) / "out"
                output.mkdir()
                command = growth.command(case, source, Path(folder) / "config.json", output, native=native)
                try:
                    cost = run(command, Path(folder) / "stderr.log")
                    _count("parquet", output, rows, case.times)
                except RunFailed as error:
                    failed.append(f"growth: {case.title}: {error}")
                    continue
            print(f"  {case.title}: {cost.cpu:.2f} CPU s, {cost.rss >> 20} MiB", file=sys.stderr)
            size = source.stat().st_size * case.times
            results[native].append((case, Result(case.title, rows * case.times, size, [cost])))
    named = {"native": results[True], "pure": results[False]}
    return growth.growth_table("Growth: one target-parquet at default settings", named)


def _database_growth(options: argparse.Namespace, failed: list[str]) -> str:
    """One run of each size."""
    rows = (options.rows or SHAPES["events"].rows) // (5 if options.quick else 1)
    results = []
    for case, command in database_growth():
        source = table_file(CACHE / "data", rows, case.times)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            output = Path(folder) / "out"
            output.mkdir()
            try:
                cost = run(command(Job(source, output, CACHE / "venvs", "events")), Path(folder) / "stderr.log")
                _count("singer", output, rows * case.times)
            except RunFailed as error:
                failed.append(f"postgres-growth: {case.title}: {error}")
                continue
        print(f"  {case.title}: {cost.cpu:.2f} CPU s, {cost.rss >> 20} MiB", file=sys.stderr)
        results.append((case, Result(case.title, rows * case.times, Table(source).bytes, [cost])))
    return growth.growth_table("Growth: tap-postgres", {"": results})


def _start(options: argparse.Namespace, failed: list[str]) -> str:  # noqa: ARG001
    """Everyone's start, in turns."""
    SDK.make(CACHE / "venvs")
    commands = start.starts(CACHE / "venvs")
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        for _ in range(start.ROUNDS + 1):
            for name, command in commands.items():
                costs[name].append(run(command, Path(folder) / "stderr.log"))
    return start.starts_table({name: Result(name, 1, 0, found[1:]) for name, found in costs.items()})


_MORE = {"formats": _formats, "growth": _growth, "postgres-growth": _database_growth, "start": _start}
"""What has tables of its own, by name."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
