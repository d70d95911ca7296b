"""A process killed with -9 at each named place: run again until done, every row is there once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lake_doubles import DiskFiles

from melisma.lake.journal import Journal
from melisma.lake.objects import Objects, ObjectsInStore, ObjectsOnDisk

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("lake_worker.py")
PLACES = [
    "put:written",
    "put:linked",
    "open:before",
    "open:after",
    "open:recovered",
    "intent:after",
    "publish:one",
    "commit:before",
    "commit:after",
    "delete:after",
    "release:after",
    "checkpoint:written",
    "prune:one",
    "end:before",
    "end:after",
]
# Reached only when a run has something to undo or to replace.
SECOND = ["undo:discarded", "redo:one", "delete:one"]


class Pipeline:
    """A runner that keeps the last STATE that it saw, and a lake."""

    def __init__(self, root: Path, endpoint: str = "") -> None:
        self.root, self.endpoint, self.state, self.rows = root, endpoint, "{}", 6
        self.seen: list[str] = []

    def run(self, place: str = "", *, keeps: bool = True) -> int:
        """One run; its exit code, negative if it was killed."""
        environment = {**os.environ, "MELISMA_FAILPOINT": place}
        command = [sys.executable, str(WORKER), str(self.root), str(self.rows), self.state, self.endpoint]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert result.returncode in {0, -signal.SIGKILL}, result.stderr
        self.seen = result.stdout.splitlines()
        if keeps and self.seen:
            self.state = self.seen[-1]
        return result.returncode

    def check(self, objects: Objects) -> None:
        """Every row once, nothing else, and the journal says the same."""
        files = DiskFiles(self.root)
        expected = {"a": [(n // 2, n) for n in range(self.rows)], "u": [(n, n) for n in range(self.rows)]}
        for stream, rows in expected.items():
            assert files.rows(stream) == Counter(rows)
        on_disk = {str(path.relative_to(self.root)) for path in self.root.glob("[au]/*")}
        assert on_disk == {file.path for file in Journal.load(objects, "p").live_files()}


@pytest.mark.parametrize("place", [*PLACES, "intent:after@2", "publish:one@3", "commit:after@2", "commit:before@3"])
@pytest.mark.parametrize("keeps", [True, False])
def test_killed_anywhere_and_run_again_every_row_is_there_once(tmp_path: Path, place: str, keeps: bool) -> None:
    """Whether or not the runner kept the STATEs that it saw of the killed run."""
    pipeline = Pipeline(tmp_path / "lake")
    if place.startswith(("checkpoint", "prune")):
        assert pipeline.run() == 0
        pipeline.rows = 14  # it takes some entries until one is due
    at_the_end = place.startswith("end:after")
    assert pipeline.run(place, keeps=keeps or at_the_end) == -signal.SIGKILL, f"{place} was not reached"
    pipeline.rows += 3
    assert pipeline.run() == 0
    pipeline.check(ObjectsOnDisk(pipeline.root))
    state = pipeline.state
    assert pipeline.run() == 0
    assert pipeline.state == state
    pipeline.check(ObjectsOnDisk(pipeline.root))


@pytest.mark.parametrize("place", SECOND)
def test_killed_again_while_making_good_the_first_kill(tmp_path: Path, place: str) -> None:
    first = {"undo:discarded": "publish:one", "redo:one": "commit:after@2", "delete:one": "commit:after@2"}[place]
    pipeline = Pipeline(tmp_path / "lake")
    assert pipeline.run() == 0
    pipeline.rows += 4
    assert pipeline.run(first, keeps=False) == -signal.SIGKILL
    if place == "redo:one":
        # The replay replaces files and dies before they are deleted.
        assert pipeline.run("commit:after@2", keeps=False) == -signal.SIGKILL
    assert pipeline.run(place, keeps=False) == -signal.SIGKILL, f"{place} was not reached"
    assert pipeline.run() == 0
    pipeline.check(ObjectsOnDisk(pipeline.root))


def test_a_chain_of_kills_at_random_places(tmp_path: Path) -> None:
    generator, pipeline = random.Random(20), Pipeline(tmp_path / "lake")
    assert pipeline.run() == 0
    for _ in range(12):
        pipeline.rows += generator.randrange(3)
        place = f"{generator.choice(PLACES + SECOND)}@{generator.randrange(1, 4)}"
        pipeline.run(place, keeps=generator.random() < 0.5 and not place.startswith("end:after"))
    assert pipeline.run() == 0
    pipeline.check(ObjectsOnDisk(pipeline.root))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server on this machine with a bucket."""
    boto3 = pytest.importorskip("boto3")
    module = pytest.importorskip("moto.server")
    server = module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys: dict[str, Any] = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys).create_bucket(Bucket="bucket")
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.parametrize("place", ["open:after", "intent:after", "publish:one", "commit:after", "release:after"])
def test_the_same_with_the_journal_in_s3(tmp_path: Path, endpoint: str, place: str) -> None:
    from obstore.store import S3Store

    pipeline = Pipeline(tmp_path / place.replace(":", "-"), endpoint)
    assert pipeline.run(place, keeps=False) == -signal.SIGKILL
    assert pipeline.run() == 0
    options: dict[str, Any] = {"allow_http": True}
    store = S3Store(
        "bucket",
        endpoint=endpoint,
        region="us-east-1",
        access_key_id="a",
        secret_access_key="b",  # noqa: S106 - the server takes any
        client_options=options,
    )
    pipeline.check(ObjectsInStore(store, pipeline.root.name))
    assert json.loads(pipeline.state)["bookmarks"].keys() == {"a", "u"}
