"""docs/resume.md: its transcripts, and running them in a shell."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

__all__ = ["PAGE", "check", "make_orders", "transcript"]

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/resume.md"
ORDERS = 400_000
FILES = 40
_COUNT = re.compile(r"([\d,]+) rows, ([\d,]+) of them twice, ([\d,]+) missing")


def transcript(heading: str) -> list[tuple[str, str]]:
    """The commands under a heading of the page, each with what it prints."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")
    blocks = re.findall(r"^```console\n(.*?)^```", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL)
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE) if part]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def make_orders(folder: Path) -> None:
    """The files below `in/`, and those that the page shows with `cat`."""
    (folder / "in").mkdir()
    for number in range(FILES):
        first = number * ORDERS // FILES + 1
        rows = "".join(f"{order},order {order}\n" for order in range(first, first + ORDERS // FILES))
        (folder / f"in/{number + 1:02}.csv").write_text(f"id,text\n{rows}")
    for command, output in transcript("In a shell, without a state file"):
        if command.startswith("cat "):
            (folder / command.removeprefix("cat ")).write_text(output)


def run(commands: list[str], folder: Path, path: list[str]) -> list[str]:
    """What each command prints, in one shell with job control as in a terminal."""
    script = "set -m\nexec 2>&1\n"
    script += "".join(f"printf '\\1'\n{command}\n" for command in commands) + "printf '\\1'\n"
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("VIRTUAL_ENV", "MELTANO"))}
    quiet = {"MELTANO_SEND_ANONYMOUS_USAGE_STATS": "false", "NO_COLOR": "1"}
    environment = {**outside, **quiet, "PATH": os.pathsep.join([*path, outside["PATH"]])}
    done = subprocess.run(
        ["bash"], input=script, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    return done.stdout.split("\1")[1:-1]


def check(heading: str, folder: Path, path: list[str], attempt: int = 0) -> bool:
    """Run a transcript and compare; False if it was too quick to be killed.

    Args:
        heading: whose transcript.
        folder: where it runs.
        path: where executables are looked for first.
        attempt: after a first one, the Meltano environment is `orders1` and so on.
    """
    name = f"orders{attempt or ''}"
    steps = [
        (command.replace("ENVIRONMENT=orders", f"ENVIRONMENT={name}"), output.replace("orders-tap", f"{name}-tap"))
        for command, output in transcript(heading)
    ]
    printed = run([command for command, _ in steps], folder, path)
    assert len(printed) == len(steps), printed
    killed = next(at for at, (command, _) in enumerate(steps) if "kill -9" in command)
    if "no such job" in printed[killed]:
        return False
    for at, ((command, output), found) in enumerate(zip(steps, printed, strict=True)):
        shown = re.sub(r"^bash: line .* Killed .*\n", "", found, flags=re.MULTILINE)
        count = _COUNT.search(shown)
        if count:
            rows, twice, missing = (int(each.replace(",", "")) for each in count.groups())
            assert (twice, rows + missing) == (0, ORDERS), command
        if killed < at <= killed + 3:  # how far the run had come
            shown, output = (re.sub(r"[\d,]+", "N", text) for text in (shown, output))
        assert shown == output, command
    return True
