"""The file targets on real servers and emulators, as the executables that users start: nothing lost, nothing twice.

All of it with target-parquet; with the others what has to do with how a file is written and published.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro
import polars as pl
import pytest
from places import SERVICES, Place


@dataclass(frozen=True)
class Kind:
    """A target and what it writes; `read` gives the column `n` of a file, by another library."""

    executable: str
    read: Callable[[bytes], list[int]]
    settings: dict[str, Any] = field(default_factory=dict)


def in_avro(data: bytes) -> list[int]:
    """By fastavro."""
    return [row["n"] for row in fastavro.reader(io.BytesIO(data))]


def in_json_lines(data: bytes) -> list[int]:
    """By Python."""
    return [json.loads(line)["n"] for line in gzip.decompress(data).splitlines()]


PARQUET = Kind("target-parquet", lambda data: pl.read_parquet(io.BytesIO(data))["n"].to_list())
AVRO = Kind("target-avro", in_avro)
JSON_LINES = Kind("target-files", in_json_lines, {"format": "jsonl", "compression": "gzip"})
ARROW = Kind("target-files", lambda data: pl.read_ipc(io.BytesIO(data))["n"].to_list(), {"format": "arrow"})
KINDS = {"parquet": PARQUET, "avro": AVRO, "jsonl.gz": JSON_LINES, "arrow": ARROW}
SCHEMA = {
    "type": "SCHEMA",
    "stream": "s",
    "schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
    "key_properties": ["n"],
    "bookmark_properties": ["n"],
    "melisma": {"announces_state": True},  # so that silence means that there is no STATE to start from
}
UP_TO = 30


def bookmark(number: int) -> dict[str, Any]:
    """A STATE as an SDK tap writes it."""
    return {"bookmarks": {"s": {"replication_key": "n", "replication_key_value": number}}}


class Lake:
    """A lake in a place of its own, and a runner that keeps the last STATE that it saw."""

    def __init__(self, place: Place, folder: Path, endpoint: str = "", kind: Kind = PARQUET) -> None:
        self.place, self.folder, self.url, self.kind = place, folder, place.url, kind
        self.options = Place(place.scheme, endpoint or place.endpoint, place.bucket).options
        self.state = -1

    def start(self, *arguments: str, failpoint: str = "") -> subprocess.Popen[bytes]:
        """Start the target with pipes on all sides; credentials come from the environment only."""
        config = self.folder / "config.json"
        settings = {"destination_path": self.url, "storage_options": self.options, "commit_interval_minutes": 0}
        settings |= self.kind.settings
        config.write_text(json.dumps(settings))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "AZURE_", "GOOGLE_"))}
        return subprocess.Popen(
            [str(Path(sys.executable).with_name(self.kind.executable)), "--config", str(config), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**kept, **self.place.credentials, "MELISMA_FAILPOINT": failpoint},
        )

    def run(self, data: bytes, *arguments: str, failpoint: str = "") -> tuple[int, list[str], str]:
        """Run it to its end: exit code, the lines on stdout, and stderr."""
        with self.start(*arguments, failpoint=failpoint) as process:
            out, err = process.communicate(data, timeout=300)
        text = err.decode()
        assert "Traceback" not in text, text
        assert not any(value in text for name, value in self.place.credentials.items() if "KEY" in name and value)
        return process.returncode, out.decode().splitlines(), text

    def load(self, failpoint: str = "") -> tuple[int, str]:
        """One run of a tap that goes on from the last STATE, announces it, and sends one every ten rows."""
        lines = [{"type": "STATE", "value": bookmark(self.state)}] if self.state >= 0 else []
        lines.append(SCHEMA)
        for number in range(self.state + 1, UP_TO):
            lines.append({"type": "RECORD", "stream": "s", "record": {"n": number}})
            if number % 10 == 9:
                lines.append({"type": "STATE", "value": bookmark(number)})
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        code, out, err = self.run(data, failpoint=failpoint)
        if out:
            self.state = json.loads(out[-1])["bookmarks"]["s"]["replication_key_value"]
        return code, err

    def committed(self) -> Any:
        """What the lake says that it has."""
        code, out, err = self.run(b"", "--committed-state")
        assert code == 0, err
        return json.loads(out[0])

    def rows(self) -> list[int]:
        """What a reader that globs sees, fetched by another client and read by another library."""
        files = [data for key, data in self.place.objects().items() if key.startswith("some/lake/s/")]
        return sorted(n for data in files for n in self.kind.read(data))

    def assert_whole(self) -> None:
        """Every row once, the last STATE, and nothing left behind."""
        assert self.rows() == list(range(UP_TO))
        assert self.committed() == bookmark(UP_TO - 1)
        assert self.place.uploads() == []
        assert not [key for key in self.place.objects() if "/staging/" in key]


@pytest.fixture(params=SERVICES)
def lake(request: pytest.FixtureRequest, new_place: Callable[[str], Place], tmp_path: Path) -> Lake:
    """An empty lake on each server, of Parquet files unless the test has a parameter `kind`."""
    kind = KINDS[request.node.callspec.params.get("kind", "parquet")]
    return Lake(new_place(request.param), tmp_path, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_state_arrive(lake: Lake, kind: str) -> None:
    """Rows land below the stream's folder, the STATE comes out and is kept, and a second run adds nothing."""
    assert lake.committed() == {}
    code, err = lake.load()
    assert code == 0, err
    assert lake.state == UP_TO - 1
    lake.assert_whole()
    others = [key for key in lake.place.objects() if not key.startswith(("some/lake/s/", "some/lake/_melisma/"))]
    assert others == []
    assert lake.load()[0] == 0
    lake.assert_whole()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "step", "kind"),
    [
        ("runner", "intent:after", "parquet"),
        ("runner", "publish:one", "parquet"),
        ("runner", "commit:before", "parquet"),
        ("runner", "commit:after", "parquet"),
        ("runner", "release:after", "parquet"),
        ("runner", "commit:after@2", "parquet"),
        ("pipe", "commit:after", "parquet"),
        ("runner", "publish:one", "avro"),
        ("pipe", "commit:after", "avro"),
        ("runner", "publish:one", "jsonl.gz"),
        ("runner", "commit:after", "arrow"),
    ],
)
def test_killed_and_run_again_every_row_is_there_once(lake: Lake, source: str, step: str, kind: str) -> None:
    """Kill -9 at each step; then again, from the runner's STATE or from the lake's own."""
    code, err = lake.load(failpoint=step)
    assert code == -signal.SIGKILL, err
    if source == "pipe":
        known = lake.committed()
        lake.state = known["bookmarks"]["s"]["replication_key_value"] if known else -1
    code, err = lake.load()
    assert code == 0, err
    lake.assert_whole()


@pytest.mark.slow
def test_killed_while_it_undoes(lake: Lake) -> None:
    """The second run dies while it removes what the first one left; the third one is whole."""
    assert lake.load(failpoint="publish:one")[0] == -signal.SIGKILL
    assert lake.load(failpoint="undo:discarded")[0] == -signal.SIGKILL
    code, err = lake.load()
    assert code == 0, err
    lake.assert_whole()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "request_pattern", "kind"),
    [
        ("s3", r"PUT .*/journal/0+2\.json", "parquet"),
        ("s3", r"PUT .*/journal/0+3\.json", "parquet"),
        ("s3", r"POST .*\?uploads", "parquet"),
        ("s3", r"PUT .*partNumber=1", "parquet"),
        ("s3", r"POST .*uploadId=", "parquet"),
        ("az", r"PUT .*/journal/0+2\.json", "parquet"),
        ("az", r"PUT .*/journal/0+3\.json", "parquet"),
        ("az", r"PUT .*/staging/", "parquet"),
        ("az", r"PUT .*/lake/s/", "parquet"),
        ("az", r"DELETE .*/staging/|POST .*comp=batch", "parquet"),
        ("gs", r"PUT .*journal(/|%2F)0+2(\.|%2E)json", "parquet"),
        ("gs", r"PUT .*journal(/|%2F)0+3(\.|%2E)json", "parquet"),
        ("gs", r"PUT .*staging(/|%2F)", "parquet"),
        ("gs", r"PUT .*lake(/|%2F)s(/|%2F)", "parquet"),
        ("gs", r"DELETE .*staging(/|%2F)", "parquet"),
        ("s3", r"POST .*uploadId=", "avro"),
        ("az", r"PUT .*/lake/s/", "avro"),
        ("gs", r"PUT .*lake(/|%2F)s(/|%2F)", "avro"),
        ("s3", r"PUT .*partNumber=1", "jsonl.gz"),
        ("az", r"PUT .*/staging/", "jsonl.gz"),
        ("gs", r"PUT .*staging(/|%2F)", "jsonl.gz"),
    ],
)
def test_a_lost_answer_changes_nothing(
    new_place: Callable[[str], Place],
    new_proxy: Callable[[str], Any],
    tmp_path: Path,
    scheme: str,
    request_pattern: str,
    kind: str,
) -> None:
    """The server does what it is asked and its answer is lost: every row is there once, and the run ends well.

    An upload whose own beginning was lost is known to nobody; the next run finds it in the listing.
    """
    place = new_place(scheme)
    proxy = new_proxy(place.endpoint)
    lake = Lake(place, tmp_path, proxy.endpoint, KINDS[kind])
    proxy.lose = request_pattern
    code, err = lake.load()
    assert proxy.spoiled, "nothing was lost: this test tests nothing"
    if code != 0 or "uploads" in request_pattern:
        code, err = lake.load()
    assert code == 0, err
    lake.assert_whole()


@pytest.mark.slow
def test_the_second_of_two_runs_is_refused(lake: Lake) -> None:
    """While one is alive the other is told so and changes nothing; the first ends as if nothing had been."""
    with lake.start() as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write(json.dumps(SCHEMA).encode() + b"\n")
        first.stdin.write(b'{"type": "RECORD", "stream": "s", "record": {"n": 0}}\n')
        first.stdin.write(json.dumps({"type": "STATE", "value": bookmark(0)}).encode() + b"\n")
        first.stdin.flush()
        assert first.stdout.readline(), "the first run has committed"
        code, err = lake.load()
        assert code == 1
        assert "another run is under way" in err
        first.stdin.write(b'{"type": "RECORD", "stream": "s", "record": {"n": 1}}\n')
        first.stdin.write(json.dumps({"type": "STATE", "value": bookmark(1)}).encode() + b"\n")
        first.stdin.close()
        assert json.loads(first.stdout.read()) == bookmark(1)
        assert first.wait() == 0
    assert lake.rows() == [0, 1]


def one_line(err: str) -> str:
    """The one line that an error is."""
    lines = [line for line in err.splitlines() if " | INFO " not in line]
    assert len(lines) == 1, err
    return lines[0]


@pytest.mark.parametrize("kind", ["parquet", "avro"])
def test_a_bucket_that_is_not_there(lake: Lake, kind: str) -> None:
    """Says so, with the URL; `--test` too."""
    lake.url = f"{lake.place.scheme}://no-such-bucket/lake"
    code, err = lake.load()
    tried, _, trial = lake.run(b"", "--test")
    assert (code, tried) == (1, 1)
    for text in (err, trial):
        assert f"{lake.place.scheme}://no-such-bucket/lake" in one_line(text)
        assert "there is no such bucket or container" in one_line(text)


@pytest.mark.parametrize("kind", ["parquet", "jsonl.gz"])
def test_a_place_is_tried_out(lake: Lake, new_proxy: Callable[[str], Any], kind: str) -> None:
    """`--test` says that it can be used and leaves nothing behind; if it cannot, why, before anything runs."""
    code, out, err = lake.run(b"", "--test")
    assert (code, out) == (0, []), err
    assert f"the destination can be used: {lake.url}" in err
    assert lake.place.objects() == {}
    assert lake.place.uploads() == []
    proxy = new_proxy(lake.place.endpoint)
    proxy.answer, proxy.times = ("^(PUT|POST)", 403, b"<Error><Code>AccessDenied</Code></Error>"), 100
    lake.options = Place(lake.place.scheme, proxy.endpoint, lake.place.bucket).options
    code, out, err = lake.run(b"", "--test")
    assert (code, out) == (1, [])
    assert "the store denies access" in one_line(err)
