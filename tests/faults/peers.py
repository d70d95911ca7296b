"""The same kills on other targets: `python tests/faults/peers.py` prints how many rows they lose and double.

The tap and the runner are those of the kills: an SDK tap, and a state file that keeps the last line that the target
printed. Each trial is a run that is hit at a random moment after the target has started, and runs until one ends well.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from chains import BIN, tap_program
from processes import Blow, Program, pipe
from source_tap import rows_of
from tables import ROOT, commit, write_page

sys.path.insert(0, str(ROOT))
from benchmarks.peers.environments import DUCKDB, JSONL, SDK, Environment

STATE_EVERY, ROWS, SEED = 100, 2_000, 3
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
QUERIES = {
    "parquet": "FROM read_parquet('{path}')",
    "jsonl": "FROM read_json('{path}', format='newline_delimited', ignore_errors=true)",
    "duckdb": "FROM out.main.log",
}
Result = tuple[bool, int, int, int]


@dataclass(frozen=True)
class Peer:
    """A target.

    Attributes:
        name: in the table.
        command: the command line for a configuration file.
        settings: its configuration for a folder.
        form: how its output is read, one of `QUERIES`.
        environment: where it is installed; None: here.
        merges: it keeps the last row of each key.
    """

    name: str
    command: Callable[[Path], list[str]]
    settings: Callable[[Path], dict[str, object]]
    form: str
    environment: Environment | None = None
    merges: bool = False


def peers(environments: Path) -> list[Peer]:
    """Ours first."""
    python = str(SDK.folder(environments) / "bin/python")
    plain = str(ROOT / "benchmarks/peers/plain_sdk_target.py")

    def there(path: Path) -> dict[str, object]:
        return {"destination_path": str(path)}

    def batches(path: Path) -> dict[str, object]:
        return there(path) | {"batch_size_rows": 250}

    def database(path: Path) -> dict[str, object]:
        return {"path": str(path / "out.duckdb"), "default_target_schema": "main"}

    jsonl = str(JSONL.folder(environments) / "bin/target-jsonl")
    duck = str(DUCKDB.folder(environments) / "bin/target-duckdb")
    ours = [str(BIN / "target-parquet"), "--config"]
    return [
        Peer(
            "target-parquet", lambda c: [*ours, str(c)], lambda p: there(p) | {"commit_interval_minutes": 0}, "parquet"
        ),
        Peer("target-jsonl 0.1.4", lambda c: [jsonl, "--config", str(c)], there, "jsonl", JSONL),
        Peer("plain SDK sink", lambda c: [python, plain, "--config", str(c)], batches, "parquet", SDK),
        Peer("target-duckdb 0.8.0", lambda c: [duck, "--config", str(c)], database, "duckdb", DUCKDB, merges=True),
    ]


def trial(peer: Peer, folder: Path, seed: int, kind: str, window: tuple[float, float]) -> Result:
    """Whether the blow struck; how many rows are lost and doubled in the end; how many files are torn."""
    chance = random.Random(f"{peer.name} {kind} {seed}")
    shutil.rmtree(folder, ignore_errors=True)
    output = folder / "out"
    output.mkdir(parents=True)
    kept: list[bytes] = []
    rows = ROWS // 2
    target_config, tap_config, state = folder / "target.json", folder / "tap.json", folder / "state.json"
    target_config.write_text(json.dumps(peer.settings(output)))
    struck = False
    for attempt in range(6):
        stream = {
            "name": "log",
            "kind": "sorted",
            "rows": rows,
            "seed": SEED,
            "state_every": STATE_EVERY,
            "pause": 0.05,
        }
        tap_config.write_text(json.dumps({"streams": [stream]}))
        arguments = ["--config", str(tap_config)]
        if kept:
            state.write_bytes(kept[-1])
            arguments += ["--state", str(state)]
        blow = Blow(("target",), SIGNALS[kind], chance.uniform(*window)) if attempt == 1 else None
        ended = pipe(tap_program("source", arguments), Program(peer.command(target_config)), folder / "log", blow)
        kept += ended.lines
        if attempt == 0:
            rows = ROWS  # a good run first; the second is hit
        elif attempt == 1:
            struck = ended.target != 0 or (kind == "SIGTERM" and ended.tap != 0)
        elif ended.target == 0:
            break
    else:
        raise RuntimeError(f"the runs do not come to an end: {folder / 'log'}")
    source = rows_of("log", SEED, ROWS)
    expected = Counter({row[0]: row for row in source}.values() if peer.merges else source)
    got, torn = read(peer, output)
    # The rows at the key that a run starts from come twice from an inclusive tap, whether it was hit or not.
    edges = {json.loads(line)["bookmarks"]["log"]["replication_key_value"] for line in kept if b"log" in line}
    doubled = sum(count for row, count in (got - expected).items() if row[1] not in edges)
    return struck, (expected - got).total(), doubled, torn


def read(peer: Peer, output: Path) -> tuple[Counter[tuple[int, int, int, str]], int]:
    """The rows that a peer's output holds, and how many of its files cannot be read."""
    import duckdb

    connection = duckdb.connect()
    if peer.form == "duckdb":
        connection.execute(f"ATTACH '{output}/out.duckdb' AS out (READ_ONLY)")
    rows: Counter[tuple[int, int, int, str]] = Counter()
    torn = 0
    for file in sorted(output.rglob(f"*.{peer.form}")):
        if peer.name == "target-parquet" and "_melisma" in file.parts:
            continue
        try:
            query = f"SELECT id, changed, entry, text {QUERIES[peer.form].format(path=file)}"
            rows.update(connection.execute(query).fetchall())
        except duckdb.InvalidInputException:
            torn += 1
    return rows, torn


def _in_fork(peer: str, environments: Path, folder: Path, seed: int, kind: str, window: tuple[float, float]) -> Result:
    found = next(each for each in peers(environments) if each.name == peer)
    try:
        return trial(found, folder / f"{seed % 2}-{kind}-{peer.split()[0]}", seed, kind, window)
    except (OSError, RuntimeError) as error:
        sys.stdout.write(f"{peer} {seed}: {error}\n")
        return False, 0, 0, 0


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="tests/faults/peers.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=30, help="of each target and signal")
    parser.add_argument("--environments", type=Path, default=ROOT / ".cache/benchmarks/venvs")
    parser.add_argument("--write", action="store_true", help="put the table into docs/faults.md")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="peers-"))
    lines = [
        "| target | signal | runs hit | with rows lost | rows lost | with rows doubled | rows doubled | torn files |"
    ]
    lines.append("|---|---|--:|--:|--:|--:|--:|--:|")
    for peer in peers(options.environments):
        if peer.environment is not None:
            with suppress(OSError):
                peer.environment.make(options.environments)
        for kind in SIGNALS:
            # Each trial in a process of its own: what reads back keeps threads, and who forks must have none.
            with ProcessPoolExecutor(2, get_context("spawn"), max_tasks_per_child=1) as pool:
                jobs = [
                    pool.submit(_in_fork, peer.name, options.environments, folder, seed, kind, (0.4, 2.2))
                    for seed in range(options.trials)
                ]
                results = [job.result() for job in jobs]
            hit = [result for result in results if result[0]]
            lost, doubled = [each[1] for each in hit], [each[2] for each in hit]
            cells = [len(hit), sum(map(bool, lost)), sum(lost), sum(map(bool, doubled)), sum(doubled)]
            cells.append(sum(each[3] for each in hit))
            lines.append(f"| {peer.name} | {kind} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
    foot = f"{options.trials} trials each, {ROWS:,} rows, seed {SEED}, commit {commit()}, {time.strftime('%Y-%m-%d')}."
    table = "\n".join([*lines, "", foot])
    if options.write:
        write_page("peers", table)
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
