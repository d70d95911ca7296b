"""Random histories of a lake against a model: every row exactly once, whatever dies, wherever."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from lake_doubles import (
    Crash,
    Faults,
    FaultyFiles,
    FaultyObjects,
    MemoryFiles,
    MemoryObjects,
    Outcome,
    Row,
    SdkTap,
    load,
)

from melisma.lake.journal import Fenced, Journal
from melisma.lake.liveness import PipelineBusy
from melisma.lake.maintenance import Overtaken, can_compact, compact
from melisma.lake.records import FileEntry
from melisma.lake.recover import Staged

STREAMS = ["a", "b", "u"]
chosen = st.lists(st.sampled_from(STREAMS), min_size=1, max_size=3, unique=True)


class Lake(RuleBasedStateMachine):
    """A tap of our own (it announces and says so), a runner that keeps or loses STATEs, and a lake."""

    def __init__(self) -> None:
        super().__init__()
        self.objects, self.files = MemoryObjects(), MemoryFiles()
        self.source: dict[str, list[Row]] = {stream: [] for stream in STREAMS}
        self.tap = SdkTap(self.source)
        self.kept: dict[str, Any] = {}  # the runner's STATE
        self.runs, self.rows = itertools.count(1), itertools.count()

    @initialize()
    def some_rows(self) -> None:
        """Every stream has a few."""
        for stream in STREAMS:
            self.more(stream, [0, 1, 1])

    @rule(stream=st.sampled_from(STREAMS), steps=st.lists(st.integers(0, 1), min_size=1, max_size=5))
    def more(self, stream: str, steps: list[int]) -> None:
        """New rows at the source, some at the highest key that there is, some alike."""
        rows = self.source[stream]
        for step in steps:
            key = (rows[-1][0] if rows else 0) + step
            again = step == 0 and rows and next(self.rows) % 4 == 0
            rows.append(rows[-1] if again else (key, next(self.rows)))

    @rule(streams=chosen, commit_every=st.integers(1, 4))
    def run(self, streams: list[str], commit_every: int) -> None:
        """A run that ends well holds every row of its streams exactly once."""
        outcome = self._load(streams, commit_every, Faults())
        assert not outcome.crashed
        self._keep(outcome, len(outcome.printed))
        self._check(streams)

    @rule(
        streams=chosen,
        commit_every=st.integers(1, 3),
        at=st.integers(1, 70),
        after=st.booleans(),
        kept=st.integers(0, 9),
    )
    def crash(self, streams: list[str], commit_every: int, at: int, after: bool, kept: int) -> None:
        """The target dies at any operation; the runner has seen the STATEs that were printed, or only some."""
        outcome = self._load(streams, commit_every, Faults(at, "after" if after else "before"))
        note(f"{outcome.cases} printed {len(outcome.printed)}")
        history = Journal.load(self.objects, "p").history
        ended = not outcome.crashed or (bool(history.last_run) and history.runs[history.last_run].clean)
        # A run that said its end and whose every STATE is lost is a reset; from nothing a tap does not announce it.
        self._keep(outcome, len(outcome.printed) if ended else kept)

    @rule(streams=chosen, commit_every=st.integers(1, 3), at=st.integers(1, 70))
    def lost_reply(self, streams: list[str], commit_every: int, at: int) -> None:
        """The store does what it is told and its answer is lost: nobody notices."""
        outcome = self._load(streams, commit_every, Faults(at, "lost"))
        assert not outcome.crashed
        self._keep(outcome, len(outcome.printed))
        self._check(streams)

    @rule(streams=chosen, messages=st.integers(1, 20), commit_every=st.integers(1, 3), kept=st.integers(0, 9))
    def tap_dies(self, streams: list[str], messages: int, commit_every: int, kept: int) -> None:
        """The tap dies on a line boundary, which looks like the end of its input."""
        before = self.kept
        outcome = self._load(streams, commit_every, Faults(), messages)
        # The runner keeps what it saw of a run that ended, or it is a reset that the tap does not announce.
        self._keep(outcome, kept if before.get("bookmarks") else len(outcome.printed))

    @rule(first=chosen, second=chosen, at=st.integers(1, 70), commit_every=st.integers(1, 3), kept=st.integers(0, 9))
    def zombie(self, first: list[str], second: list[str], at: int, commit_every: int, kept: int) -> None:
        """A run is stopped anywhere, another one takes over, then the first wakes up."""
        if not self.kept:
            return  # two taps from the very beginning: the second says nothing, which is case i and not promised
        inner = Outcome()

        def take_over() -> None:
            nonlocal inner
            self._keep(outcome, kept)
            inner = self._load(second, commit_every, Faults())

        outcome = Outcome()
        self._load(first, commit_every, Faults(at, "call", take_over), outcome=outcome)
        # Who wrote last is whom the runner believes.
        last = inner if outcome.crashed else outcome
        self._keep(last, len(last.printed))

    @rule(stream=st.sampled_from(STREAMS), at=st.integers(0, 40), after=st.booleans())
    def compaction(self, stream: str, at: int, after: bool) -> None:
        """Compaction changes no row, and may die anywhere."""
        journal = Journal.load(self.objects, "p")
        inputs = [file for file in journal.live_files(stream) if can_compact(journal, file)]
        if len(inputs) < 2:
            return
        before = sum((Counter(self.files.visible[file.path]) for file in inputs), Counter[Row]())
        run = f"c{next(self.runs)}"
        staged = self._stage(f"{stream}/p-{run}-0.jsonl", stream, list(before.elements()))
        faults = Faults(at or -1, "after" if after else "before")
        with contextlib.suppress(Crash, Overtaken):
            compact(FaultyObjects(self.objects, faults), FaultyFiles(self.files, faults), "p", run, inputs, [staged])

    def teardown(self) -> None:
        """At the end of any history one good run puts everything right."""
        self.run(STREAMS, 2)

    def _load(
        self,
        streams: list[str],
        commit_every: int,
        faults: Faults,
        messages: int | None = None,
        outcome: Outcome | None = None,
    ) -> Outcome:
        outcome = outcome or Outcome()
        said = itertools.islice(self.tap.messages(self.kept, streams), messages)
        objects, files = FaultyObjects(self.objects, faults), FaultyFiles(self.files, faults)
        try:
            load(
                objects,
                files,
                self._stage,
                said,
                f"r{next(self.runs)}",
                announces=True,
                commit_every=commit_every,
                outcome=outcome,
            )
        except (Crash, Fenced, PipelineBusy):
            outcome.crashed = True
        return outcome

    def _stage(self, path: str, stream: str, rows: list[Row]) -> Staged:
        return self.files.stage(path, stream, rows)

    def _keep(self, outcome: Outcome, number: int) -> None:
        if outcome.printed[:number]:
            self.kept = outcome.printed[:number][-1]

    def _check(self, streams: list[str]) -> None:
        for stream in streams:
            lake, source = self.files.rows(stream), Counter(self.source[stream])
            assert not source - lake, f"{stream}: lost {source - lake}"
            assert not lake - source, f"{stream}: doubled {lake - source}"
        journal = Journal.load(self.objects, "p")
        live: list[FileEntry] = list(journal.live_files())
        assert {file.path for file in live} == set(self.files.visible)


Lake.TestCase.settings = settings(
    max_examples=60, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLake = Lake.TestCase
