"""All cases, running one, and the page about them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from forking import ForkedTarget, Outcome

from malformed import Case, configuration, framing, names, protocol, schemas, values

__all__ = ["AREAS", "CASES", "PAGE", "message", "messages_of", "page", "run", "told"]

AREAS = {
    "Lines and JSON": framing.CASES,
    "The protocol": protocol.CASES,
    "Values": values.CASES,
    "Schemas": schemas.CASES,
    "Names": names.CASES,
    "Configuration and call": configuration.CASES,
}
CASES = [case for cases in AREAS.values() for case in cases]
PAGE = Path(__file__).resolve().parents[3] / "docs" / "malformed-inputs.md"

_ROW = re.compile(r"^\| (?P<id>[a-z0-9-]+) \|.*\| (?P<message>`.*`)? ?\|$", re.MULTILINE)
_LONGEST = 400


def run(target: ForkedTarget, case: Case, folder: Path, **settings: Any) -> Outcome:
    """Run a case in an empty folder; the lake is in `lake` there."""
    config = {"destination_path": "lake", **case.config, **settings}
    config = {name: value for name, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
    return target.run(folder, *case.arguments, data=case.data, env=case.env)


def told(outcome: Outcome) -> list[str]:
    """What the run said that its user must know: its errors, or the warnings of one that went well."""
    return outcome.log("ERROR" if outcome.exit_code else "WARNING")


def message(outcome: Outcome, folder: Path) -> str:
    """That, as it stands on the page."""
    lines = [line.replace(str(folder), "...") for line in told(outcome)]
    if len(lines) > 3:
        lines = [lines[0], f"and {len(lines) - 1} more"]
    text = " / ".join(lines)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"`{text}`".replace("|", r"\|") if text else ""


def page(messages: Mapping[str, str]) -> str:
    """The page, with the message of each case by its id."""
    parts = [_INTRODUCTION.format(count=len(CASES), refused=sum(case.exit_code > 0 for case in CASES))]
    for title, cases in AREAS.items():
        parts += [
            f"\n## {title}\n\n",
            "| Case | Input | Exit | Skip | Message |\n",
            "| --- | --- | --- | --- | --- |\n",
        ]
        parts += _rows(cases, messages)
    return "".join(parts)


def _rows(cases: Iterable[Case], messages: Mapping[str, str]) -> Iterable[str]:
    for case in cases:
        shows = case.shows.replace("|", r"\|")
        skip = "" if case.skip is None else "0"
        yield f"| {case.id} | {shows} | {case.exit_code} | {skip} | {messages.get(case.id, '')} |\n"


def messages_of(text: str) -> dict[str, str]:
    """The message of each case as a page has it."""
    return {match["id"]: match["message"] or "" for match in _ROW.finditer(text)}


_INTRODUCTION = """# Malformed inputs

<!-- Written by tests/conformance/write_malformed_page.py; tests/conformance/test_malformed.py runs every line. -->

What target-parquet makes of {count} inputs, configurations and calls that are malformed ({refused} of them), or odd and
yet legal. Each is a test, which holds for all of them:

- the exit code is the one given: 0 done, 1 the run failed, 2 the configuration or the call is wrong, 3 the input is
  wrong
- an input that is refused gives one line on stderr (the message), with the line of the input; never a traceback
- no value of a record or a setting is in any message
- what the newest STATE before the fault settles is in the lake, and nothing else of the run; that STATE is printed
- an input that is accepted is in the lake as a whole; where there is a message, it is a warning

*Skip* is the exit code with `on_bad_record: skip`, where that makes a difference: the bad record is left out and
counted, all others are in the lake. A line that is no Singer message ends the run all the same.
"""
