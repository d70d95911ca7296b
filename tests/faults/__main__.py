"""Kills runs a thousand times and counts the rows: `python tests/faults`, or `make faults`.

Prints a table, writes it into docs/faults.md with --write, and exits with 1 if a row is lost or doubled.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty, Queue

from chains import BETWEEN, EVERY_RUN, POINTS, RANDOM, STORM, STREAMS, WITHIN, Chain, Result, from_json
from tables import fault_table, write_page

HERE = Path(__file__).resolve().parent
KEEPS = ["committed-state", "state-file", "late-file"]
TAPS = {"upsert": ["incremental", "full-table"], "overwrite": ["full-table"]}
"""Where the method's result does not depend on how often and in which order a tap sends its rows."""

ROUNDS = {
    "kill target": 8,
    "kill tap": 4,
    "kill both": 4,
    "term target": 3,
    "term tap": 2,
    "term both": 2,
    WITHIN: 2,
    BETWEEN: 4,
}
"""Chains of each kind, for each tap and way of keeping STATE, in a full run; one of each other kind."""


def plan(seed: int, methods: Iterable[str], share: float = 1.0) -> list[Chain]:
    """The chains of a run; with a share below 1, a part of them, with fewer kills each."""
    found: list[Chain] = []
    for method in methods:
        for tap, keeps, fault, rounds in _kinds(method):
            for _ in range(rounds):
                found.append(Chain(len(found) + 1, fault, tap, keeps, method, 3, forked=True, seed=seed))
        # Some with the executables themselves: they spend most of their time importing, and are hit there.
        for fault in ["kill target"] * 6 + ["commit:before", "commit:after", "release:after"]:
            for keeps in KEEPS:
                tap = "full-table" if method == "overwrite" else "incremental"
                found.append(Chain(len(found) + 1, fault, tap, keeps, method, 3, forked=False, seed=seed))
        for tap, keeps, fault, place in _remote() if method == "append-only" else ():
            found.append(Chain(len(found) + 1, fault, tap, keeps, method, 2, seed=seed, place=place))
    if share < 1:
        step = max(1, round(1 / share))
        found = [chain for chain in found if chain.number % step == seed % step and chain.forked]
    return found


def _kinds(method: str) -> Iterator[tuple[str, str, str, int]]:
    for tap in TAPS.get(method, STREAMS):
        for keeps in KEEPS:
            for fault in [*POINTS, *RANDOM, WITHIN, BETWEEN]:
                if tap == "full-table" and fault in {BETWEEN, "kill tap", "term tap", "kill both", "term both"}:
                    continue  # half a table that ends at a line's end looks whole: not promised
                if method == "append-only" and keeps == "committed-state" and fault in {"delete:one", "redo:one"}:
                    continue  # nothing is ever to be replaced then
                yield tap, keeps, fault, ROUNDS.get(fault, 1)


def _remote() -> Iterator[tuple[str, str, str, str]]:
    for tap, keeps in [("incremental", "committed-state"), ("streams", "late-file"), ("files", "state-file")]:
        for fault in [*EVERY_RUN, "undo:discarded", *["kill target"] * 4, "kill both", "term target"]:
            if fault not in {"put:written", "put:linked"}:  # are of local disks
                yield tap, keeps, fault, "s3"
        for fault in [STORM] * 6 + ["kill target"] * 4 + ["commit:after", "publish:one"]:
            yield tap, keeps, fault, "storm"


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
    parser.add_argument("--methods", default="append-only", help="load methods, separated by commas")
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
    table = fault_table(results, options.seed, (time.monotonic() - began) / 60)
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
