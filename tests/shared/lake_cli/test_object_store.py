"""The commands on an object store: in this process's memory, through the same code as a bucket."""

from __future__ import annotations

import json
import uuid

import obstore
import pytest
from small_lake import Lake, Result, state

from melisma.lake.lake import FileLake
from melisma.storage.filesystem import open_store
from melisma.storage.object_store import ObjectStore


class Bucket:
    """A copy of a local lake in an object store, and the commands on it."""

    def __init__(self, lake: Lake) -> None:
        self.url, self._lake = f"memory://{uuid.uuid4().hex}/some/lake", lake
        store = open_store(self.url, None, distribution="x")
        assert isinstance(store, ObjectStore)
        self.store = store
        for path, data in lake.everything().items():
            self.put(path, data)

    def put(self, path: str, data: bytes) -> None:
        """Write an object."""
        obstore.put(self.store.objects, f"{self.store.prefix}/{path}", data)

    def run(self, *arguments: str) -> Result:
        """`melisma lake <arguments> --path memory://...`."""
        return self._lake.call("lake", *arguments, "--path", self.url)

    def data(self) -> list[str]:
        """The data files that are there."""
        return [info.path for info in self.store.glob("orders/**")]


@pytest.fixture
def bucket(lake: Lake) -> Bucket:
    """The lake of eleven orders in a bucket."""
    return Bucket(lake)


def test_looking_says_what_it_says_of_the_same_lake_on_a_disk(bucket: Bucket, lake: Lake) -> None:
    """Word for word."""
    for command in ("log", "show 8", "files", "state", "schema", "verify --deep", "duplicates", "compact --dry-run"):
        local, remote = lake.run(*command.split()), bucket.run(*command.split())
        assert (remote.code, remote.out) == (local.code, local.out), command
    assert bucket.run("files", "--paths").out.splitlines()[0].startswith("memory://")


def test_mending_works_without_folders_and_locks(bucket: Bucket) -> None:
    """Compact, then remove a file that nothing names, then roll back; the lake is sound after each."""
    assert [group["rows"] for group in bucket.run("compact", "--json").json["compacted"]] == [4, 4]
    assert len(bucket.data()) == 4
    assert bucket.run("verify", "--deep").code == 0
    extra = "orders/shop-20250101T000000Z00000000-000001.parquet"
    bucket.put(extra, b"half")
    assert bucket.run("verify").code == 1
    assert [r["path"] for r in bucket.run("vacuum", "--older-than", "0s", "--json").json["removed"]] == [extra]
    assert bucket.run("rollback", "8", "--yes").code == 0
    assert bucket.run("verify", "--deep").code == 0
    assert json.loads(bucket.run("state").out) == state(8)
    assert len(bucket.data()) == 2


def test_vacuum_leaves_the_staging_of_a_live_run_alone(bucket: Bucket) -> None:
    """Without locks, a last run that has not ended and whose process is there is taken for alive."""
    writer = FileLake(bucket.store, "shop")
    writer.recover()
    staged = writer.stage("orders", [], "parquet")
    staged.write(b"rows")
    staged.close()
    result = bucket.run("vacuum", "--older-than", "0s", "--json").json
    assert (result["removed"], result["busy"]) == ([], True)
    writer.discard(staged)
    writer.close()
