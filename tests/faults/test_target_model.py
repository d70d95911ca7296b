"""Random runs of the real target, in one process, against a model: what the lake holds is what the tap has sent.

SCHEMA, RECORD and STATE of two streams, schemas that widen between and within runs, a crash at any fail point, a tap
that dies at any line, a runner that loses STATEs: after any history a good run makes every row be there once.
"""

from __future__ import annotations

import io
import itertools
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from melisma.errors import MelismaError
from melisma.lake import failpoints
from melisma_target_parquet.target import TargetParquet

STREAMS = ["a", "b"]
SCHEMAS: list[dict[str, Any]] = [
    {},
    {"extra": {"type": ["null", "integer"]}},
    {"extra": {"type": ["null", "number"]}},
]
"""What a stream has besides `key` and `id`, by version; each can be read as the next."""
BOOKMARK = {"a": "replication_key_value", "b": "key"}
"""As singer-sdk writes bookmarks, and as singer-python does."""
Row = tuple[int, int, float | None]  # key, id, extra


class Crash(BaseException):
    """The process is gone."""


class HardTarget(TargetParquet):
    """A target that leaves everything as it is when it crashes, as a process that is killed."""

    def _finish(self, last: Callable[[], None]) -> None:
        def unless_crashed() -> None:
            if not HardTarget.crashed:
                last()

        if not HardTarget.crashed:
            return super()._finish(unless_crashed)
        run = getattr(self._destination, "_run", None)
        if run is not None:
            run.close()  # the lock is the system's to give back, the heartbeat's thread dies with its process
        return None

    crashed = False


class Target(RuleBasedStateMachine):
    """A tap with inclusive keys, a runner, and a lake on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="model-"))
        self.source: dict[str, list[Row]] = {stream: [] for stream in STREAMS}
        self.version = dict.fromkeys(STREAMS, 0)
        self.kept: dict[str, Any] = {}
        self.numbers = itertools.count()

    @initialize()
    def a_good_run(self) -> None:
        """So that the runner has a STATE: a silent first run that crashes is told from a reset by nothing."""
        for stream in STREAMS:
            self.more(stream, [0, 1, 1, 0])
        self.run(STREAMS, 3)

    @rule(stream=st.sampled_from(STREAMS), steps=st.lists(st.integers(0, 1), min_size=1, max_size=6))
    def more(self, stream: str, steps: list[int]) -> None:
        """New rows, some at the highest key that there is."""
        rows = self.source[stream]
        for step in steps:
            number = next(self.numbers)
            extra = None if not self.version[stream] else number + (0.5 if self.version[stream] == 2 else 0)
            rows.append(((rows[-1][0] if rows else 0) + step, number, extra))

    @rule(stream=st.sampled_from(STREAMS))
    def wider(self, stream: str) -> None:
        """A new column, or a wider type."""
        self.version[stream] = min(self.version[stream] + 1, len(SCHEMAS) - 1)

    @rule(streams=st.lists(st.sampled_from(STREAMS), min_size=1, unique=True), every=st.integers(1, 6))
    def run(self, streams: list[str], every: int) -> None:
        """A run that ends well holds every row of its streams exactly once."""
        printed, error = self._load(self._messages(streams, every))
        assert error is None
        self._keep(printed, len(printed))
        self._check(streams)

    @rule(
        streams=st.lists(st.sampled_from(STREAMS), min_size=1, unique=True),
        every=st.integers(1, 6),
        at=st.integers(1, 60),
        kept=st.integers(0, 9),
    )
    def crash(self, streams: list[str], every: int, at: int, kept: int) -> None:
        """The target dies at any fail point; the runner has all STATEs that were printed, or the first few."""
        printed, error = self._load(self._messages(streams, every), at)
        assert error is None
        self._keep(printed, kept)

    @rule(
        streams=st.lists(st.sampled_from(STREAMS), min_size=1, unique=True),
        every=st.integers(1, 6),
        lines=st.integers(0, 20),
        within=st.booleans(),
    )
    def tap_dies(self, streams: list[str], every: int, lines: int, within: bool) -> None:
        """The tap's output ends too early, at a line's end or within a line."""
        messages = list(self._messages(streams, every))
        data = messages[:lines] + ([messages[lines][:15].rstrip()] if within and lines < len(messages) else [])
        printed, error = self._load(iter(data))
        assert not (within and lines < len(messages)) or error is not None
        self._keep(printed, len(printed))

    def teardown(self) -> None:
        """At the end of any history one good run puts everything right."""
        self.run(STREAMS, 2)
        shutil.rmtree(self.folder)

    def _messages(self, streams: list[str], every: int) -> Iterator[str]:
        """As singer-sdk writes them: the starting STATE first, an unchanged final one left out."""
        state: dict[str, Any] = json.loads(json.dumps(self.kept)) or {"bookmarks": {}}
        last = json.dumps(state)
        if state["bookmarks"]:
            yield _line(type="STATE", value=state)
        for stream in streams:
            bookmark = state["bookmarks"].get(stream)
            rows = [row for row in self.source[stream] if bookmark is None or row[0] >= bookmark[BOOKMARK[stream]]]
            first = next((n for n, row in enumerate(rows) if row[2] is not None), len(rows))
            version = self.version[stream]
            yield self._schema(stream, version if not first or first == len(rows) else version - 1)
            for number, row in enumerate(rows):
                if number == first and first:
                    yield self._schema(stream, version)
                record = {"key": row[0], "id": row[1]} | ({"extra": row[2]} if row[2] is not None else {})
                yield _line(type="RECORD", stream=stream, record=record)
                state["bookmarks"][stream] = _bookmark(stream, row[0])
                if number % every == every - 1 and json.dumps(state) != last:
                    last = json.dumps(state)
                    yield _line(type="STATE", value=state)
            if json.dumps(state) != last:
                last = json.dumps(state)
                yield _line(type="STATE", value=state)

    def _schema(self, stream: str, version: int) -> str:
        properties = {"key": {"type": "integer"}, "id": {"type": "integer"}, **SCHEMAS[max(0, version)]}
        schema = {"type": "object", "properties": properties}
        return _line(type="SCHEMA", stream=stream, schema=schema, key_properties=["id"], bookmark_properties=["key"])

    def _load(self, messages: Iterator[str], at: int = 0) -> tuple[list[dict[str, Any]], MelismaError | None]:
        """One run, which crashes at the fail point number `at`; the STATEs printed, and how it failed."""
        config = {"destination_path": str(self.folder / "lake"), "commit_interval_minutes": 0}
        output, error = io.StringIO(), None
        reached = itertools.count(1)

        def reach(name: str) -> None:
            if next(reached) == at:
                note(f"crash at {name}")
                HardTarget.crashed = True
                raise Crash

        HardTarget.crashed = False
        before, failpoints.reach = failpoints.reach, reach
        try:
            with redirect_stdout(output):
                HardTarget(config=config).listen(io.BytesIO("".join(messages).encode()))  # type: ignore[arg-type]
        except Crash:
            pass
        except MelismaError as failed:
            error = failed
        finally:
            failpoints.reach = before
        return [json.loads(line) for line in output.getvalue().splitlines()], error

    def _keep(self, printed: list[dict[str, Any]], number: int) -> None:
        if printed[:number]:
            self.kept = printed[:number][-1]

    def _check(self, streams: list[str]) -> None:
        for stream in streams:
            lake: Counter[Row] = Counter()
            for path in (self.folder / "lake" / stream).rglob("*.parquet"):
                for row in pq.ParquetFile(path).read().to_pylist():
                    lake[row["key"], row["id"], row.get("extra")] += 1
            source = Counter(self.source[stream])
            assert not source - lake, f"{stream}: lost {source - lake}"
            assert not lake - source, f"{stream}: doubled {lake - source}"


def _bookmark(stream: str, key: int) -> dict[str, Any]:
    return ({"replication_key": "key"} if stream == "a" else {}) | {BOOKMARK[stream]: key}


def _line(**message: Any) -> str:
    return json.dumps(message) + "\n"


Target.TestCase.settings = settings(
    max_examples=30, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
TestTarget = Target.TestCase
