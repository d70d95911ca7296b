"""target-parquet on S3, as the executable that users start: nothing lost, nothing twice, plain errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

EXECUTABLE = Path(sys.executable).with_name("target-parquet")
SECRET = "wJalrXUtnFEMI-testing"  # noqa: S105 - what the fixture's server is given
SCHEMA = {
    "type": "SCHEMA",
    "stream": "s",
    "schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
    "key_properties": ["n"],
    "bookmark_properties": ["n"],
    "melisma": {"announces_state": True},  # so that silence means that there is no STATE to start from
}
UP_TO = 30


class Lake:
    """A lake in a bucket of its own, and a runner that keeps the last STATE that it saw."""

    def __init__(self, server: Any, folder: Path, endpoint: str = "") -> None:
        self.server, self.folder = server, folder
        self.bucket = server.new_bucket()
        self.endpoint = endpoint or server.endpoint
        self.url = f"s3://{self.bucket}/some/lake"
        self.state = -1

    def start(self, *arguments: str, failpoint: str = "", **settings: Any) -> subprocess.Popen[bytes]:
        """Start the target with pipes on all sides; credentials come from the environment only."""
        config = self.folder / "config.json"
        options = {"endpoint_url": self.endpoint, "region": "us-east-1"}
        config.write_text(
            json.dumps(
                {"destination_path": self.url, "storage_options": options, "commit_interval_minutes": 0, **settings}
            )
        )
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        return subprocess.Popen(
            [str(EXECUTABLE), "--config", str(config), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environment, **self.server.credentials, "MELISMA_FAILPOINT": failpoint},
        )

    def run(self, data: bytes, *arguments: str, **settings: Any) -> tuple[int, list[str], str]:
        """Run it to its end: exit code, the lines on stdout, and stderr."""
        with self.start(*arguments, **settings) as process:
            out, err = process.communicate(data, timeout=300)
        text = err.decode()
        assert "Traceback" not in text, text
        assert SECRET not in text
        return process.returncode, out.decode().splitlines(), text

    def load(self, **settings: Any) -> tuple[int, str]:
        """One run of a tap that goes on from the last STATE, announces it, and sends one every ten rows."""
        lines = [{"type": "STATE", "value": bookmark(self.state)}] if self.state >= 0 else []
        lines.append(SCHEMA)
        for number in range(self.state + 1, UP_TO):
            lines.append({"type": "RECORD", "stream": "s", "record": {"n": number}})
            if number % 10 == 9:
                lines.append({"type": "STATE", "value": bookmark(number)})
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        code, out, err = self.run(data, **settings)
        if out:
            self.state = json.loads(out[-1])["bookmarks"]["s"]["replication_key_value"]
        return code, err

    def committed(self) -> Any:
        """What the lake says that it has."""
        code, out, err = self.run(b"", "--committed-state")
        assert code == 0, err
        return json.loads(out[0])

    def objects(self) -> list[str]:
        """All objects."""
        found = self.server.client().list_objects_v2(Bucket=self.bucket)
        return [item["Key"] for item in found.get("Contents", [])]

    def rows(self) -> list[int]:
        """What a reader that globs sees, read by Polars through its own S3 client."""
        if not any(key.endswith(".parquet") for key in self.objects()):
            return []
        options = {
            "aws_endpoint_url": self.server.endpoint,
            "aws_allow_http": "true",
            "aws_region": "us-east-1",
            "aws_access_key_id": self.server.credentials["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": self.server.credentials["AWS_SECRET_ACCESS_KEY"],
        }
        frame = pl.scan_parquet(f"{self.url}/s/*.parquet", storage_options=options).collect()
        return sorted(frame["n"].to_list())

    def uploads(self) -> list[Any]:
        """Unfinished multipart uploads."""
        found: list[Any] = self.server.client().list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return found


def bookmark(number: int) -> dict[str, Any]:
    """A STATE as an SDK tap writes it."""
    return {"bookmarks": {"s": {"replication_key": "n", "replication_key_value": number}}}


@pytest.fixture
def lake(s3_server: Any, tmp_path: Path) -> Lake:
    """An empty lake on a server that works."""
    return Lake(s3_server, tmp_path)


def test_rows_and_state_arrive(lake: Lake) -> None:
    """Rows land below the stream's folder, the STATE comes out and is kept, and nothing else is left behind."""
    assert lake.committed() == {}
    assert lake.load()[0] == 0
    assert lake.state == UP_TO - 1
    assert lake.rows() == list(range(UP_TO))
    assert lake.committed() == bookmark(UP_TO - 1)
    assert lake.uploads() == []
    others = [key for key in lake.objects() if not key.startswith(("some/lake/s/", "some/lake/_melisma/"))]
    assert others == []
    assert not any("/staging/" in key for key in lake.objects())
    assert lake.load()[0] == 0
    assert lake.rows() == list(range(UP_TO))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("runner", "open:after"),
        ("runner", "intent:after"),
        ("runner", "publish:one"),
        ("runner", "commit:before"),
        ("runner", "commit:after"),
        ("runner", "release:after"),
        ("runner", "commit:after@2"),
        ("pipe", "commit:after"),
        ("pipe", "end:before"),
    ],
)
def test_killed_and_run_again_every_row_is_there_once(lake: Lake, source: str, place: str) -> None:
    """Kill -9 at each step; then again, from the runner's STATE or from the lake's own; and no upload stays open."""
    assert lake.load(failpoint=place)[0] == -signal.SIGKILL
    if source == "pipe":
        known = lake.committed()
        lake.state = known["bookmarks"]["s"]["replication_key_value"] if known else -1
    code, err = lake.load()
    assert code == 0, err
    assert lake.rows() == list(range(UP_TO))
    assert lake.uploads() == []
    assert lake.committed() == bookmark(UP_TO - 1)


@pytest.mark.slow
def test_killed_while_it_undoes(lake: Lake) -> None:
    """The second run dies while it removes what the first one left; the third one is whole."""
    assert lake.load(failpoint="publish:one")[0] == -signal.SIGKILL
    assert lake.load(failpoint="undo:discarded")[0] == -signal.SIGKILL
    assert lake.load()[0] == 0
    assert lake.rows() == list(range(UP_TO))


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "request_pattern",
    [
        r"PUT .*/journal/0+2\.json",
        r"PUT .*/journal/0+3\.json",
        r"POST .*\?uploads",
        r"PUT .*partNumber=1",
        r"POST .*uploadId=",
    ],
)
def test_a_lost_answer_changes_nothing(s3_server: Any, faulty_proxy: Any, tmp_path: Path, request_pattern: str) -> None:
    """The server does what it is asked and its answer is lost: every row is there once, and the run ends well."""
    lake = Lake(s3_server, tmp_path, faulty_proxy.endpoint)
    faulty_proxy.lose = request_pattern
    code, err = lake.load()
    assert faulty_proxy.spoiled, "nothing was lost: this test tests nothing"
    if code != 0:
        code, err = lake.load()
    assert code == 0, err
    assert lake.rows() == list(range(UP_TO))
    assert lake.committed() == bookmark(UP_TO - 1)


def test_half_an_answer_to_a_delete_is_asked_for_again(s3_server: Any, faulty_proxy: Any, tmp_path: Path) -> None:
    """A replay removes what the killed run had committed; an answer that makes no sense is no failure of the run."""
    lake = Lake(s3_server, tmp_path, faulty_proxy.endpoint)
    assert lake.load(failpoint="commit:after")[0] == -signal.SIGKILL
    faulty_proxy.answer, faulty_proxy.times = (r"POST .*\?delete", 200, b"<?xml version='1.0'?><DeleteRes"), 1
    code, err = lake.load()
    assert faulty_proxy.spoiled, "nothing was lost: this test tests nothing"
    assert code == 0, err
    assert lake.rows() == list(range(UP_TO))


def test_an_error_of_the_server_is_tried_again(s3_server: Any, faulty_proxy: Any, tmp_path: Path) -> None:
    """A server that is too busy for the first three requests that change something is no failure."""
    lake = Lake(s3_server, tmp_path, faulty_proxy.endpoint)
    faulty_proxy.answer, faulty_proxy.times = ("PUT|POST", 503, b"<Error><Code>SlowDown</Code></Error>"), 3
    code, err = lake.load()
    assert code == 0, err
    assert len(faulty_proxy.spoiled) == 3
    assert lake.rows() == list(range(UP_TO))


def test_credentials_that_expire_on_the_way(s3_server: Any, faulty_proxy: Any, tmp_path: Path) -> None:
    """The run ends in one line, with what was committed before; with new ones the next run brings the rest, once."""
    lake = Lake(s3_server, tmp_path, faulty_proxy.endpoint)
    expired = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
    # The second commit's entry, and all that would change something after it.
    faulty_proxy.lose, faulty_proxy.times = r"PUT .*/journal/0+6\.json", 1_000
    faulty_proxy.answer = ("PUT|POST|DELETE", 403, expired)
    code, err = lake.load()
    assert (code, lake.state) == (1, 9)
    assert "the credentials have expired" in one_line(err)
    faulty_proxy.lose, faulty_proxy.answer = "", None
    code, err = lake.load()
    assert code == 0, err
    assert lake.rows() == list(range(UP_TO))
    assert lake.uploads() == []


def test_dead_letters_are_fed_back_in_a_bucket(lake: Lake) -> None:
    """`melisma lake replay-dead-letters` works there as on a disk: rows in, letters out, in one entry."""
    record: dict[str, Any] = {"type": "RECORD", "stream": "s", "record": {"n": "7"}}
    sent = [SCHEMA, record, {"type": "STATE", "value": bookmark(7)}]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in sent)
    keep = {"on_bad_record": "dead_letter"}
    assert lake.run(data, **keep)[0] == 0
    assert (lake.rows(), sum("dead_letters" in key for key in lake.objects())) == ([], 1)
    lake.run(b"", "--committed-state", column_types={"s": {"n": "decimal(12,0)"}}, **keep)  # writes the configuration
    command = [EXECUTABLE.with_name("melisma"), "lake", "replay-dead-letters", "--config", lake.folder / "config.json"]
    environment = {**os.environ, **lake.server.credentials}
    waiting = subprocess.run([*command, "--dry-run", "--json"], env=environment, capture_output=True, check=True)
    assert json.loads(waiting.stdout) == {"dry_run": True, "waiting": {"s": 1}}
    done = subprocess.run([*command, "--target", "target-parquet"], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ([int(row) for row in lake.rows()], sum("dead_letters" in key for key in lake.objects())) == ([7], 0)


def one_line(err: str) -> str:
    """The one line that an error is."""
    lines = [line for line in err.splitlines() if " | INFO " not in line]
    assert len(lines) == 1, err
    return lines[0]


def test_a_bucket_that_is_not_there(lake: Lake) -> None:
    """Says so."""
    lake.url = "s3://no-such-bucket/lake"
    code, err = lake.load()
    assert code == 1
    assert "there is no such bucket or container" in one_line(err)


def test_an_endpoint_that_is_not_there(lake: Lake) -> None:
    """Says so, after some tries."""
    lake.endpoint = "http://127.0.0.1:1"
    code, err = lake.load()
    assert code == 1
    assert "s3://" in one_line(err)
    assert "the store cannot be reached" in one_line(err)


def test_credentials_that_are_not_accepted(strict_s3_server: Any, tmp_path: Path) -> None:
    """Says so, without them."""
    lake = Lake.__new__(Lake)
    lake.server, lake.folder, lake.endpoint, lake.url, lake.state = (
        strict_s3_server,
        tmp_path,
        strict_s3_server.endpoint,
        "s3://bucket/lake",
        -1,
    )
    code, err = lake.load()
    assert code == 1
    assert "the store does not accept these credentials" in one_line(err)


def test_no_credentials_at_all(lake: Lake) -> None:
    """Says where they may stand."""
    kept = lake.server.credentials
    try:
        lake.server.credentials = {k: v for k, v in kept.items() if "KEY" not in k}
        code, err = lake.load()
    finally:
        lake.server.credentials = kept
    assert code == 2
    assert "no credentials are found" in one_line(err)
