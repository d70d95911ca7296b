"""What a run of a tap wrote, for the tests of each tap."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from melisma.tap.tap import ArrowTap


@dataclass
class Output:
    """Its messages, in order; numbers with a point are decimals."""

    messages: list[dict[str, Any]]

    def records(self, stream: str | None = None) -> list[dict[str, Any]]:
        """The records of a stream, or of all."""
        return [m["record"] for m in self.messages if m["type"] == "RECORD" and stream in {None, m["stream"]}]

    def properties(self, stream: str | None = None) -> dict[str, Any]:
        """The columns that a stream's SCHEMA names, or the first stream's."""
        schemas = (m for m in self.messages if m["type"] == "SCHEMA" and stream in {None, m["stream"]})
        found: dict[str, Any] = next(schemas)["schema"]["properties"]
        return found

    @property
    def state(self) -> dict[str, Any]:
        """The last STATE."""
        found: dict[str, Any] = [m["value"] for m in self.messages if m["type"] == "STATE"][-1]
        return found


def sync(make: Callable[[], ArrowTap], output: Output | None = None) -> Output:
    """Run a tap in this process; `output` gets what it wrote, also if it fails."""
    output = Output([]) if output is None else output
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(stdout):
            tap = make()
            try:
                tap.sync_all()
            finally:
                getattr(tap, "close", lambda: None)()
    finally:
        stdout.seek(0)
        output.messages += [json.loads(line, parse_float=Decimal) for line in stdout]
    return output
