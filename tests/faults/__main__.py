"""Kills runs a thousand times and counts the rows: `python tests/faults`, or `make faults`.

Prints a table, writes it into docs/faults.md with --write, and exits with 1 if a row is lost or doubled.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from chains import BETWEEN, METHODS, POINTS, RANDOM, STORM, WITHIN, Chain, Result, from_json, is_promised
from tables import fault_table, write_page

HERE = Path(__file__).resolve().parent
KEEPS = ["committed-state", "state-file", "late-file"]
ROUNDS = {
    "kill target": 8,
    "kill tap": 3,
    "kill both": 3,
    "term target": 3,
    "term tap": 2,
    "term both": 2,
    WITHIN: 2,
    BETWEEN: 3,
}
"""On a disk: chains of each kind, for each tap, in a full run."""

ROUNDS_REMOTE = {"kill target": 3, "kill both": 2, "term target": 1}
"""In S3, for each method."""


def plan(seed: int, methods: Iterable[str], share: float = 1.0) -> list[Chain]:
    """The chains of a run; with a share below 1, a part of them."""
    found: list[Chain] = []

    def add(method: str, tap: str, fault: str, kills: int, **more: Any) -> None:
        number = len(found) + 1
        # The ways to keep STATE take turns.
        keeps = KEEPS[number % 3]
        if method == "append-only" and keeps == "committed-state" and fault in {"delete:one", "redo:one"}:
            keeps = "state-file"  # else nothing is ever to be replaced
        found.append(Chain(number, fault, tap, keeps, method, kills, seed=seed, **more))

    for method in methods:
        for tap in METHODS[method]:
            for fault in [*RANDOM, WITHIN, BETWEEN]:
                for _ in range(ROUNDS[fault] if is_promised(method, tap, fault) else 0):
                    add(method, tap, fault, 3)
            for fault in POINTS:
                for _ in range(2 if len(METHODS[method]) > 1 else 3):
                    add(method, tap, fault, 3)
        for number, fault in enumerate(POINTS):
            add(method, METHODS[method][number % len(METHODS[method])], fault, 2, signal="TERM")
        # Some with the executables themselves: they spend most of their time importing, and are hit there.
        for fault in ["kill target"] * 5 + ["commit:before", "commit:after", "release:after"]:
            add(method, METHODS[method][0], fault, 3, forked=False)
        _add_remote(method, add)
    return found if share >= 1 else _part(found, seed, share)


def _add_remote(method: str, add: Callable[..., None]) -> None:
    taps = [tap for tap in METHODS[method] if tap != "full-table" or method == "overwrite"]
    turns = itertools.cycle(taps)
    for fault in POINTS:
        if fault not in {"put:written", "put:linked"}:  # are of local disks
            add(method, next(turns), fault, 2, place="s3")
            add(method, next(turns), fault, 1, place="s3", signal="TERM")
    for fault, rounds in ROUNDS_REMOTE.items():
        for _ in range(rounds):
            add(method, next(turns), fault, 2, place="s3")
    for fault in [STORM] * 4 + ["kill target"] * 3 + ["commit:after", "publish:one"]:
        add(method, next(turns), fault, 2, place="storm")


def _part(chains: list[Chain], seed: int, share: float) -> list[Chain]:
    """Each `1/share`th chain of every method and place; which ones depends on the seed."""
    step = max(1, round(1 / share))
    kinds: Counter[tuple[str, str, str]] = Counter()
    found = []
    for chain in chains:
        kind = (chain.method, chain.place, chain.signal)
        if chain.forked and kinds[kind] % step == seed % step:
            found.append(chain)
        kinds[kind] += chain.forked
    return found


def run(chains: list[Chain], folder: Path, workers: int) -> list[Result]:
    """Run all chains; prints those that are not good as they come."""
    queue: Queue[Chain] = Queue()
    for chain in chains:
        queue.put(chain)
    results: list[Result] = []

    def work() -> None:
        process: subprocess.Popen[str] | None = None
        with suppress(Empty):
            while True:
                chain = queue.get_nowait()
                process = process or _worker(folder)
                assert process.stdin
                assert process.stdout
                with suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(asdict(chain)) + "\n")
                    process.stdin.flush()
                answer = process.stdout.readline()
                if answer:
                    results.append(from_json(answer))
                else:
                    result = Result(chain, wrong=[f"the harness failed, with exit code {process.wait()}"])
                    results.append(result)
                    process = None
                _tell(results)
        if process is not None:
            process.communicate()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(results, key=lambda result: result.chain.number)


def _worker(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "worker.py"), str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _tell(results: list[Result]) -> None:
    result = results[-1]
    if not result.good:
        sys.stdout.write(f"NOT GOOD {json.dumps(asdict(result))}\n")
    elif len(results) % 25 == 0:
        sys.stdout.write(f"{len(results)} chains, {sum(each.kills for each in results)} kills\n")
    sys.stdout.flush()


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="tests/faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--methods", default=",".join(METHODS), help="load methods, separated by commas")
    parser.add_argument("--share", type=float, default=1.0, help="which part of the full run, such as 0.05")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where lakes are made; those that are not good stay there")
    parser.add_argument("--only", help="run the chains of this fault only")
    parser.add_argument("--place", help="run the chains of this place only: disk, s3 or storm")
    parser.add_argument("--number", type=int, help="run this chain only")
    parser.add_argument("--write", action="store_true", help="put the table into docs/faults.md")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    chains = plan(options.seed, options.methods.split(","), options.share)
    chains = [chain for chain in chains if options.only in {None, chain.fault}]
    chains = [chain for chain in chains if options.number in {None, chain.number}]
    chains = [chain for chain in chains if options.place in {None, chain.place}]
    began = time.monotonic()
    results = run(chains, folder, options.workers)
    given = {"share": options.share if options.share < 1 else None, "place": options.place, "only": options.only}
    more = "".join(f" --{name} {value}" for name, value in given.items() if value is not None)
    command = f'make faults ARGS="--seed {options.seed}{more}"'
    table = fault_table(results, command, (time.monotonic() - began) / 60)
    sys.stdout.write(table + "\n")
    if options.write:
        write_page("kills", table)
    bad = [result for result in results if not result.good]
    if bad or not results:
        sys.stdout.write(f"{len(bad)} chains are not good; their lakes: {folder}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
