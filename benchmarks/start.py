"""What a start costs: `--version` and `--about` of ours and of a bare singer-sdk target.

singer-sdk imports joblib, and joblib imports NumPy where it is installed; so the bare target runs in both ways.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.contestants import HERE
from benchmarks.measure import Command
from benchmarks.peers.environments import SDK
from benchmarks.peers.ours import program
from benchmarks.report import Result

__all__ = ["ROUNDS", "starts", "starts_table"]

ROUNDS = 9
_FLAGS = ("--version", "--about")


def starts(environments: Path) -> dict[str, Command]:
    """By their names in the table."""
    script = str(HERE / "peers/bare_sdk_target.py")
    alone = str(SDK.folder(environments) / "bin/python")
    found: dict[str, Command] = {}
    for flag in _FLAGS:
        found[f"melisma target-parquet {flag}"] = Command([program("target-parquet"), flag])
        found[f"bare singer-sdk target {flag}, in the same environment"] = Command([sys.executable, script, flag])
        found[f"bare singer-sdk target {flag}, in one without NumPy"] = Command([alone, script, flag])
    found["python -c pass"] = Command([sys.executable, "-c", "pass"])
    return found


def starts_table(results: Mapping[str, Result]) -> str:
    """A Markdown table."""
    lines = ["### Start", "", "| | CPU ms | wall ms | peak MiB |", "|---|--:|--:|--:|"]
    lines += [
        f"| {name} | {each.cpu * 1000:,.0f} | {each.wall * 1000:,.0f} | {each.rss / 2**20:,.0f} |"
        for name, each in results.items()
    ]
    return "\n".join([*lines, ""])
