"""The tables of docs/faults.md."""

from __future__ import annotations

import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from chains import AFTER, BETWEEN, EVERY_RUN, LATER, METHODS, RANDOM, STORM, WITHIN, Result

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs/faults.md"

MEANING = {
    "open:before": "before the run says that it has begun",
    "open:after": "its predecessor is fenced, nothing is cleaned up",
    "open:recovered": "all is cleaned up, no row is read",
    "put:written": "an entry is written, but has no name",
    "put:linked": "an entry has its name, its folder is not synced",
    "intent:after": "the journal names files that are not there",
    "publish:one": "the first file is visible, without an entry",
    "commit:before": "all files are visible, without an entry",
    "commit:after": "rows and STATE are in, nobody knows",
    "delete:one": "one of several replaced files is deleted",
    "delete:after": "replaced files are gone, STATE is not printed",
    "release:after": "STATE is about to be printed",
    "end:before": "all is printed, the end is not said",
    "end:after": "all is done, the process still there",
    "checkpoint:written": "a checkpoint is there, the hint to it is not",
    "prune:one": "one old entry is deleted",
    "undo:discarded": "cleaning up after a crash: a file is revoked",
    "redo:one": "cleaning up after a crash: a replaced file is deleted",
    "kill target": "SIGKILL to the target at a random moment",
    "kill tap": "SIGKILL to the tap at a random moment",
    "kill both": "SIGKILL to both at a random moment",
    "term target": "SIGTERM to the target at a random moment",
    "term tap": "SIGTERM to the tap at a random moment",
    "term both": "SIGTERM to both at a random moment",
    WITHIN: "SIGKILL to the tap at a random record, half a line written",
    BETWEEN: "SIGKILL to the tap at a random record",
    STORM: "no kill: lost answers, 500, 503, cut and slow connections, one request in seven",
}
PLACES = ["disk", "s3", "storm"]
ORDER = [*EVERY_RUN, *LATER, *AFTER, *RANDOM, WITHIN, BETWEEN, STORM]


def fault_table(results: Iterable[Result], command: str, minutes: float) -> str:
    """Hits by fault, load method and place; rows lost and doubled."""
    results = list(results)
    where = [(method, place) for method in METHODS for place in PLACES]
    where = [each for each in where if any(_where(result) == each for result in results)]
    hits: Counter[tuple[str, str, str, str]] = Counter()
    bad: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for result in results:
        fault, blow = result.chain.fault, result.chain.signal
        hits[(fault, blow, *_where(result))] += result.hits
        bad[fault, blow].update(hits=result.hits, lost=result.lost, doubled=result.doubled)
    titles = [method + {"disk": "", "s3": ", S3", "storm": ", S3 in a storm"}[place] for method, place in where]
    lines = [
        "| struck at | what that is | " + " | ".join(titles) + " | rows lost | rows doubled |",
        "|---|---|" + "--:|" * (len(where) + 2),
    ]
    for blow in ("KILL", "TERM"):
        for fault in ORDER:
            if (fault, blow) in bad:
                name = f"`{fault}`" if ":" in fault else fault
                found = [hits[fault, blow, *each] for each in where]
                cells = [f"{count:,}" if count else "" for count in found]
                cells += [f"{bad[fault, blow][what]:,}" for what in ("lost", "doubled")]
                told = f"{name}, SIGTERM" if blow == "TERM" else name
                lines.append(f"| {told} | {MEANING[fault]} | " + " | ".join(cells) + " |")
    sums = [f"**{sum(result.hits for result in results if _where(result) == each):,}**" for each in where]
    total = sum(bad.values(), Counter[str]())
    sums += [f"**{total[what]:,}**" for what in ("lost", "doubled")]
    lines.append("| **all** | | " + " | ".join(sums) + " |")
    return "\n".join([*lines, "", _foot(results, command, minutes)])


def _where(result: Result) -> tuple[str, str]:
    return result.chain.method, result.chain.place


def _foot(results: Sequence[Result], command: str, minutes: float) -> str:
    """What the table is of: command, seed, version, and how much was done."""
    hits, kills, runs = (sum(getattr(each, what) for each in results) for what in ("hits", "kills", "runs"))
    executables = sum(each.hits for each in results if not each.chain.forked)
    wrong = sum(bool(each.wrong) for each in results)
    return (
        f"{hits:,} hits in {runs:,} runs on {len(results):,} lakes; {kills:,} processes were killed by SIGKILL (with "
        f"those that lead up to a fail point). {executables:,} of the hits were on the installed executable, the "
        f"others on forks of it. Lakes that were wrong in any other way: {wrong:,}.\n\n"
        f"`{command}`, commit {commit()}, {minutes:.0f} minutes."
    )


def commit() -> str:
    """The commit that is checked out."""
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def write_page(section: str, text: str) -> None:
    """Replace what stands between the section's marks in docs/faults.md."""
    page = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {section}: generated -->", f"<!-- {section}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
