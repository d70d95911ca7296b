"""A share of `make faults`: kills at fail points and at random moments, every row counted in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from chains import AFTER, BETWEEN, EVERY_RUN, RANDOM, WITHIN, Chain, from_json

HERE = Path(__file__).resolve().parent


def chains() -> list[Chain]:
    """Each fault once; taps, ways to keep STATE and load methods take turns."""
    found = []
    for number, fault in enumerate([*EVERY_RUN, *AFTER, *RANDOM, WITHIN, BETWEEN], 1):
        tap = ["incremental", "streams", "files"][number % 3]
        keeps = ["state-file", "late-file"][number % 2] if fault in AFTER else "committed-state"
        found.append(Chain(number, fault, tap, keeps, kills=2))
    found += [Chain(90 + n, fault, "full-table", kills=2) for n, fault in enumerate(["commit:after", "end:before"])]
    return found


@pytest.mark.slow
def test_every_row_is_there_once_after_kills(tmp_path: Path) -> None:
    """At each fail point, at random moments, and of the tap: no row lost, none doubled, nothing left over."""
    command = [sys.executable, str(HERE / "worker.py"), str(tmp_path)]
    requests = "".join(json.dumps(asdict(chain)) + "\n" for chain in chains())
    done = subprocess.run(command, input=requests, stdout=subprocess.PIPE, text=True, check=True)
    results = [from_json(line) for line in done.stdout.splitlines()]
    assert len(results) == len(chains())
    assert [asdict(result) for result in results if not result.good] == []
    missed = [result.chain.fault for result in results if ":" in result.chain.fault and not result.hits]
    assert missed == []  # a fail point that is never reached proves nothing


@pytest.mark.slow
def test_entries_read_by_several_threads_at_once() -> None:
    """A target that starts with many entries to read does not crash in the first use of their types."""
    program = (
        "import os, sys\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from melisma.lake.records import Commit, End, Open, Record, decode, encode\n"
        "entries = [encode(kind(run='r', format=1, seq=1)) for kind in (Open, Commit, End)] * 8\n"
        "sys.setswitchinterval(5e-5)\n"
        "for _ in range(250):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        with ThreadPoolExecutor(16) as pool:\n"
        "            list(pool.map(lambda entry: decode(entry, Record, 'key'), entries))\n"
        "        os._exit(0)\n"
        "    if os.waitpid(child, 0)[1]:\n"
        "        sys.exit(1)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
