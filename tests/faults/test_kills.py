"""A share of `make faults`: kills at fail points and at random moments, every row counted in the end."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from chains import AFTER, BETWEEN, EVERY_RUN, METHODS, RANDOM, WITHIN, Chain, from_json, is_promised

HERE = Path(__file__).resolve().parent


def chains(share: str) -> list[Chain]:
    """Each fault once for a load method, or some of each method in S3 and with SIGTERM; all else takes turns."""
    if share in METHODS:
        faults = [*EVERY_RUN, *AFTER, *RANDOM, WITHIN, BETWEEN]
        kinds = [(share, METHODS[share][number % len(METHODS[share])], fault) for number, fault in enumerate(faults)]
        more = {}
    elif share == "S3":
        faults = ["intent:after", "publish:one", "commit:before", "commit:after", "release:after", "kill target"]
        kinds = [(method, METHODS[method][0], fault) for fault, method in zip(faults, itertools.cycle(METHODS))]
        more = {"place": "s3"}
    else:
        kinds = [(method, METHODS[method][0], fault) for fault, method in zip(EVERY_RUN, itertools.cycle(METHODS))]
        more = {"signal": "TERM"}
    kinds = [kind for kind in kinds if is_promised(*kind)]
    keeps = ["state-file", "late-file", "committed-state"]
    return [
        Chain(number, fault, tap, keeps[number % (2 if fault in AFTER else 3)], method, kills=1, **more)
        for number, (method, tap, fault) in enumerate(kinds, 1)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("share", [*METHODS, "S3", "SIGTERM"])
def test_every_row_is_there_once_after_kills(tmp_path: Path, share: str) -> None:
    """At each fail point, at random moments, and of the tap: no row lost, none doubled, nothing left over."""
    command = [sys.executable, str(HERE / "worker.py"), str(tmp_path)]
    requests = "".join(json.dumps(asdict(chain)) + "\n" for chain in chains(share))
    done = subprocess.run(command, input=requests, stdout=subprocess.PIPE, text=True, check=True)
    results = [from_json(line) for line in done.stdout.splitlines()]
    assert len(results) == len(chains(share))
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
