"""A chain: some runs that are killed, then runs until one ends well, on one lake; then every row is counted.

What a chain is follows from its number and the seed alone; only the moments of random kills, which are seconds of a
real clock, fall differently each time.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from processes import Blow, Ended, Program, output_of, pipe
from source_tap import Row, rows_of

ReadBack = Callable[[Path, str, list[str]], dict[str, Any]]
BIN = Path(sys.executable).parent
STREAMS = {
    "incremental": {"log": "sorted"},
    "streams": {"log": "sorted", "other": "unsorted"},
    "full-table": {"all": "full-table"},
    "files": {"log": "files"},
}
"""The taps, with their streams and how each is read."""

METHODS = {
    "append-only": [*STREAMS],
    "upsert": ["incremental", "full-table"],
    "overwrite": ["full-table"],
}
"""The taps for each load method: those where its result does not depend on how often and in which order rows come."""

ON_COMMIT = [
    "put:written",
    "put:linked",
    "intent:after",
    "publish:one",
    "commit:before",
    "commit:after",
    "delete:after",
]
EVERY_RUN = ["open:before", "open:after", "open:recovered", *ON_COMMIT, "release:after", "end:before", "end:after"]
LATER = ["checkpoint:written", "prune:one"]
"""Need a journal of some length."""

AFTER = {
    "undo:discarded": ("publish:one",),
    "delete:one": ("commit:after",),
    "redo:one": ("commit:after", "commit:after"),
}
"""Points that are reached only in a run after one that died at another point, or after several of these."""

POINTS = [*EVERY_RUN, *LATER, *AFTER]
OFTEN = {"put:written", "put:linked", *ON_COMMIT}


@dataclass
class Chain:
    """What is done to one lake.

    Attributes:
        number: of the chain; with the seed it decides everything else that is random.
        fault: a fail point's name, or one of `RANDOM`.
        tap: one of `STREAMS`.
        keeps: how STATE is kept: `committed-state` asks the target; `state-file` keeps the last line that the target
            printed; `late-file` sometimes loses the last lines of a killed run, as a runner that dies as well.
        method: the load method.
        kills: how often something is killed before the runs are left in peace.
        forked: whether the target is a fork, or the executable.
        signal: what strikes at a fail point: `KILL` or `TERM`.
        place: `disk`; `s3`; or `storm`, S3 behind a bad connection.
    """

    number: int
    fault: str
    tap: str = "incremental"
    keeps: str = "committed-state"
    method: str = "append-only"
    kills: int = 4
    forked: bool = True
    seed: int = 1
    place: str = "disk"
    signal: str = "KILL"


RANDOM: dict[str, tuple[tuple[str, ...], int]] = {
    "kill target": (("target",), signal.SIGKILL),
    "kill tap": (("tap",), signal.SIGKILL),
    "kill both": (("target", "tap"), signal.SIGKILL),
    "term target": (("target",), signal.SIGTERM),
    "term tap": (("tap",), signal.SIGTERM),
    "term both": (("tap", "target"), signal.SIGTERM),
}
"""Blows at random moments: whom, with what."""

WITHIN = "tap dies within a line"
BETWEEN = "tap dies between lines"
OF_TAPS = {"kill tap", "kill both", "term tap", "term both", WITHIN, BETWEEN}
"""The tap is struck: its output may end at a line's end, or within a line."""

STORM = "bad connection"
"""Nothing is killed; the place is a storm."""


def is_promised(method: str, tap: str, fault: str) -> bool:
    """Half a full table that ends at a line's end looks whole, unless the tap sends its STATE only at the end."""
    return tap != "full-table" or method == "overwrite" or fault not in OF_TAPS - {WITHIN}


def options_of(endpoint: str) -> dict[str, str]:
    """The storage options for a server of ours."""
    keys = {"access_key_id": "testing", "secret_access_key": "testing"}
    return {"endpoint_url": endpoint, "region": "us-east-1", **keys}


@dataclass
class Result:
    """What a chain came to.

    Attributes:
        hits: how often the chain's fault struck.
        kills: how often a process was killed, with those that lead up to the fault.
        lost: rows that are missing in the end.
        doubled: rows that are there too often.
        wrong: anything else that is not as it should be.
    """

    chain: Chain
    hits: int = 0
    kills: int = 0
    runs: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether all is as it should be."""
        return not (self.lost or self.doubled or self.wrong)


class Lake:
    """The folder of a chain, and what runs in it."""

    def __init__(self, chain: Chain, folder: Path, endpoints: dict[str, str]) -> None:
        self.chain, self.folder, self.endpoint = chain, folder, endpoints.get(chain.place, "")
        self.root, self.log, self.state_file = folder / "lake", folder / "log", folder / "state.json"
        self.url = f"s3://faults/{folder.name}" if self.endpoint else str(self.root)
        self.random = random.Random(f"{chain.seed} {chain.number}")
        self.streams = STREAMS[chain.tap]
        self.rows = dict.fromkeys(self.streams, 0)
        self.kept: list[bytes] = []  # the STATEs that the runner has
        self.clean_seconds = 0.3
        self.told_to_end = False  # the target of the last run said that it was sent SIGTERM
        folder.mkdir(parents=True)
        self._config(folder / "target.json", self._target_settings())

    def _target_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "destination_path": self.url,
            "storage_options": options_of(self.endpoint) if self.endpoint else None,
            "commit_interval_minutes": 0,
            "load_method": self.chain.method,
            # A tap whose STATE does not change from its middle on does not say it again at its end.
            "trust_eof": self.chain.method == "overwrite" and not self.ends_with_state,
        }
        return {name: value for name, value in settings.items() if value is not None}

    @property
    def ends_with_state(self) -> bool:
        """Whether a full-table tap prints its STATE only once, at its end."""
        return self.chain.method == "overwrite" and (self.chain.number % 2 == 0 or self.chain.fault in OF_TAPS)

    def calm(self, endpoints: dict[str, str]) -> None:
        """From here on the connection is good."""
        self.endpoint = endpoints["s3"]
        self._config(self.folder / "target.json", self._target_settings())

    def grow(self, few: bool = False) -> None:
        """New entries at the source."""
        for stream, kind in self.streams.items():
            new = self.random.randint(1, 9) if few else self.random.randint(90, 240)
            if kind == "files":
                self._grow_files(stream, new)
            elif kind == "full-table":
                new //= 2
            self.rows[stream] += new

    def _grow_files(self, stream: str, new: int) -> None:
        """Half of the entries go to the end of an old file, the others into new ones."""
        folder = self.folder / "in"
        folder.mkdir(exist_ok=True)
        entries = rows_of(stream, self.chain.seed, self.rows[stream] + new)[self.rows[stream] :]
        parts = [(folder / "grows.csv", entries[: new // 2])]
        for at in range(new // 2, new, 40):
            name = f"{self.rows[stream] + at:06}.csv"
            parts.append((folder / name, entries[at : at + 40]))
        for path, rows in parts:
            fresh = not path.exists()
            with path.open("a") as file:
                if fresh:
                    file.write("id,changed,entry,text\n")
                file.writelines(f"{a},{b},{c},{d}\n" for a, b, c, d in rows)

    def run(
        self, *, point: str = "", blow: Blow | None = None, dies_at: int | None = None, within: bool = False
    ) -> Ended:
        """One run of tap and target, with a fault; the runner keeps what it sees."""
        target = self._target(["--config", str(self.folder / "target.json")])
        if point:
            target.env["MELISMA_FAILPOINT"] = point
        before = self.log.stat().st_size if self.log.exists() else 0
        ended = pipe(self._tap(dies_at, within=within, paced=blow is not None), target, self.log, blow, self.journal)
        with self.log.open("rb") as log:
            log.seek(before)
            self.told_to_end = f"signal {signal.SIGTERM.value}:".encode() in log.read()
        self._keep(ended)
        return ended

    @property
    def journal(self) -> Path:
        """The journal's folder."""
        return self.root / "_melisma/default/journal"

    def _tap(self, dies_at: int | None, *, within: bool, paced: bool) -> Program:
        if self.chain.tap == "files":
            stream: dict[str, Any] = {"name": "log", "path": str(self.folder / "in/*.csv"), "key_properties": ["id"]}
            stream["column_types"] = {"text": "string"}
            settings: dict[str, Any] = {"streams": [stream]}
        else:
            streams = []
            dies_in = self.random.choice([*self.streams])
            for name, kind in self.streams.items():
                each: dict[str, Any] = {"name": name, "kind": kind, "rows": self.rows[name], "seed": self.chain.seed}
                each |= {"state_every": self.chain_state_every, "pause": 0.03 if paced else 0}
                each |= {"dies_at": dies_at if name == dies_in else None, "dies_within_a_line": within}
                streams.append(each)
            settings = {"streams": streams}
        self._config(self.folder / "tap.json", settings)
        arguments = ["--config", str(self.folder / "tap.json")]
        state = self._state()
        if state is not None:
            self.state_file.write_bytes(state)
            arguments += ["--state", str(self.state_file)]
        return tap_program(self.chain.tap, arguments)

    @property
    def chain_state_every(self) -> int:
        """Records between two STATEs."""
        if self.ends_with_state:
            return 1_000_000
        if self.endpoint:
            return 40 + self.chain.number % 40  # an entry costs more there
        return 7 + self.chain.number % 40

    def _state(self) -> bytes | None:
        if self.chain.keeps == "committed-state":
            arguments = ["--config", str(self.folder / "target.json"), "--committed-state"]
            return output_of(self._target(arguments), self.log)
        return self.kept[-1] if self.kept else None

    def _keep(self, ended: Ended) -> None:
        lines = ended.lines
        if self.chain.keeps == "late-file" and ended.target and self.kept and lines:
            lines = lines[: self.random.randint(0, len(lines))]
        self.kept += lines

    def _target(self, arguments: list[str]) -> Program:
        if not self.chain.forked:
            return Program([str(BIN / "target-parquet"), *arguments])
        from melisma_target_parquet.target import TargetParquet

        return Program(["target-parquet", *arguments], lambda: TargetParquet.cli())

    def expected(self) -> dict[str, Counter[Row]]:
        """The rows that each stream has to hold in the end."""
        found = {}
        for stream, count in self.rows.items():
            rows = rows_of(stream, self.chain.seed, count)
            if self.chain.method == "upsert":
                rows = list({row[0]: row for row in rows}.values())
            found[stream] = Counter(rows)
        return found

    def _config(self, path: Path, settings: dict[str, Any]) -> None:
        path.write_text(json.dumps(settings))


def tap_program(tap: str, arguments: list[str]) -> Program:
    """A tap as a fork."""
    if tap == "files":
        from melisma.tap.stream import ArrowStream
        from melisma_tap_files.tap import TapFiles

        def main() -> None:
            ArrowStream.STATE_MSG_FREQUENCY = 20
            TapFiles.cli()

        return Program(["tap-files", *arguments], main)
    from source_tap import SourceTap

    return Program(["source-tap", *arguments], lambda: SourceTap.cli())


def run_chain(chain: Chain, folder: Path, read_back: ReadBack, endpoints: dict[str, str] | None = None) -> Result:
    """Do it, and count. The folder is removed if all is good.

    Args:
        chain: what is to be done.
        folder: where; it must not be there.
        read_back: see `readback.read_back`.
        endpoints: of S3 servers, by the name of the place.
    """
    result = Result(chain)
    lake = Lake(chain, folder, endpoints or {})
    whole = Counter[str]()  # for full tables: how often each stream was sent by a run that came to its end

    def run(**fault: Any) -> Ended:
        before = _last_end(lake.journal)
        ended = lake.run(**fault)
        result.runs += 1
        result.kills += ended.target == -signal.SIGKILL or ended.tap == -signal.SIGKILL
        result.seconds += ended.seconds
        if chain.tap == "full-table" and _last_end(lake.journal) > before:
            whole.update(_counted(lake))
        return ended

    _first_run(chain, lake, run)
    for kill in range(chain.kills):
        lake.grow(few=kill % 3 == 2)
        ended = _hit(chain, lake, run)
        result.hits += _is_hit(chain, ended) or lake.told_to_end
        _check_codes(chain, ended, result)
    for _ in range(4):
        ended = run()
        if ended.target == ended.tap == 0:
            break
    else:
        result.wrong.append(f"the runs do not come to an end: exit {ended.target}")
    if chain.place == "storm":
        # An upload of which only the answer was lost is the next run's to abort.
        lake.calm(endpoints or {})
        run()
    _count(lake, result, whole, read_back)
    if result.good:
        shutil.rmtree(folder)
    return result


def _first_run(chain: Chain, lake: Lake, run: Callable[..., Ended]) -> None:
    """Some chains begin with a good run.

    A tap that says nothing when it starts from nothing is told from one that is silent always by a run that it
    announced (DELIVERY, case i), where the runner and not the lake keeps the STATE.
    """
    silent = chain.tap in {"incremental", "streams"} and chain.keeps != "committed-state"
    silent = silent and chain.fault not in {WITHIN, BETWEEN}  # the target and the runner live on
    later = chain.fault in LATER
    if silent or later or chain.fault in RANDOM:
        # An overwrite puts few entries into the journal.
        for _ in range((8 if chain.method == "overwrite" else 2) if later else 1):
            lake.grow()
            lake.clean_seconds = run().seconds


def _hit(chain: Chain, lake: Lake, run: Callable[..., Ended]) -> Ended:
    """One run with the chain's fault; more if it may not be reached in each."""
    if chain.fault == STORM:
        return run()
    if chain.fault in RANDOM:
        victims, number = RANDOM[chain.fault]
        if lake.random.random() < 0.5 and not lake.endpoint:
            blow = Blow(
                victims, number, lake.random.uniform(0, 0.01), lake.random.randint(1, 4 if "tap" in victims else 9)
            )
        else:
            blow = Blow(victims, number, lake.random.uniform(0, 0.9 * lake.clean_seconds))
        return run(blow=blow)
    if chain.fault in {WITHIN, BETWEEN}:
        return run(dies_at=lake.random.randint(0, 90), within=chain.fault == WITHIN)
    for before in AFTER.get(chain.fault, ()):
        run(point=before)
        lake.grow(few=True)
    nth = lake.random.choice([1, 1, 2, 3, 4, 6]) if chain.fault in OFTEN else 1
    ended = run(point=f"{chain.fault}@{nth}={chain.signal}")
    for _ in range(1 if nth > 1 else 4 if chain.fault in LATER else 0):
        if ended.target or lake.told_to_end:
            break
        lake.grow()
        ended = run(point=f"{chain.fault}={chain.signal}")
    return ended


def _is_hit(chain: Chain, ended: Ended) -> bool:
    if chain.fault == STORM:
        return ended.target == 0
    signals = {-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM}
    if chain.fault in {WITHIN, BETWEEN, "kill tap", "term tap"}:
        return ended.tap in signals
    return ended.target in signals


def _check_codes(chain: Chain, ended: Ended, result: Result) -> None:
    """An exit code of 2 or 3 or an internal error is a defect, whatever the rows say."""
    if ended.tap > 0 and ended.tap != 128 + signal.SIGTERM and ended.target == 0:
        result.wrong.append(f"the tap exits with {ended.tap}: the harness is wrong")
    if chain.fault == WITHIN and ended.tap == -signal.SIGKILL and ended.target == 0:
        result.wrong.append("an input that broke off within a line was taken for whole")
    if ended.target not in {
        0,
        1,
        -signal.SIGKILL,
        -signal.SIGTERM,
        128 + signal.SIGTERM,
        3 if chain.fault in OF_TAPS else 0,
    }:
        result.wrong.append(f"the target exits with {ended.target}")


def _last_end(journal: Path) -> str:
    """The newest end entry of a journal on disk."""
    found = []
    for path in journal.glob("*.json"):
        try:
            if b'"record": "end"' in path.read_bytes():
                found.append(path.name)
        except FileNotFoundError:
            continue
    return max(found, default="")


def _counted(lake: Lake) -> dict[str, int]:
    return {f"{stream} {entry}": 1 for stream, count in lake.rows.items() for entry in range(count)}


def _count(lake: Lake, result: Result, whole: Counter[str], read_back: ReadBack) -> None:
    """Compare the lake with the source."""
    expected = lake.expected()
    found = read_back(lake.folder, lake.url, list(expected))
    result.wrong += found["wrong"]
    for stream, rows in expected.items():
        if lake.chain.tap == "full-table" and lake.chain.method == "append-only":
            rows = Counter({row: whole[f"{stream} {row[2]}"] for row in rows})
        got = Counter({tuple(row): count for *row, count in found["rows"][stream]})
        result.lost += (rows - got).total()
        result.doubled += (got - rows).total()
    if lake.chain.tap != "full-table":
        committed = output_of(
            lake._target(["--config", str(lake.folder / "target.json"), "--committed-state"]), lake.log
        )
        if lake.kept and committed.strip() != lake.kept[-1]:
            result.wrong.append("the last STATE printed is not the one committed")


def as_json(result: Result) -> str:
    """A result as a line."""
    return json.dumps(asdict(result))


def from_json(text: str) -> Result:
    """The result on a line."""
    value = json.loads(text)
    return Result(**{**value, "chain": Chain(**value["chain"])})
