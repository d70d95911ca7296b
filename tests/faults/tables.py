"""The tables of docs/faults.md."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from chains import AFTER, BETWEEN, EVERY_RUN, LATER, RANDOM, STORM, WITHIN, Result

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
WHERE = ["append-only", "append-only, S3", "append-only, S3 in a storm", "upsert", "overwrite"]


def _where(result: Result) -> str:
    return result.chain.method + {"disk": "", "s3": ", S3", "storm": ", S3 in a storm"}[result.chain.place]


def fault_table(results: Iterable[Result], seed: int, minutes: float) -> str:
    """Hits, rows lost and rows doubled, by fault and load method."""
    results = list(results)
    cells: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for result in results:
        cell = cells[result.chain.fault, _where(result)]
        for index, value in enumerate([result.hits, result.lost, result.doubled, bool(result.wrong)]):
            cell[index] += value
    lines = [
        "| struck at | what that is | method, place | hits | rows lost | rows doubled |",
        "|---|---|---|--:|--:|--:|",
    ]
    order = [*EVERY_RUN, *LATER, *AFTER, *RANDOM, WITHIN, BETWEEN, STORM]
    for fault in order:
        for where in WHERE:
            if (fault, where) in cells:
                hits, lost, doubled, _ = cells[fault, where]
                name = f"`{fault}`" if ":" in fault else fault
                lines.append(f"| {name} | {MEANING[fault]} | {where} | {hits:,} | {lost:,} | {doubled:,} |")
    hits, lost, doubled, wrong = (sum(cell[index] for cell in cells.values()) for index in range(4))
    lines.append(f"| **all** | | | **{hits:,}** | **{lost:,}** | **{doubled:,}** |")
    runs, kills = sum(each.runs for each in results), sum(each.kills for each in results)
    executables = sum(each.hits for each in results if not each.chain.forked)
    foot = (
        f"{hits:,} hits ({kills:,} processes killed by SIGKILL, those that lead up to a fail point included) in "
        f"{runs:,} runs on {len(results):,} lakes, {executables:,} of the hits on the installed executable and the "
        f"others on forks of it; {wrong:,} lakes wrong in any other way. "
        f"Seed {seed}, commit {commit()}, {minutes:.0f} minutes."
    )
    return "\n".join([*lines, "", foot])


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
