"""A tap and a target in one process, on disk, to be killed: `lake_worker.py LAKE ROWS STATE [S3]`.

Prints each STATE that is released as a line, as a target does. Exits 0 when all is done.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

from lake_doubles import DiskFiles, Outcome, SdkTap, load

from melisma.lake import journal
from melisma.lake.objects import Objects, ObjectsInStore, ObjectsOnDisk


class Printed(list[dict[str, Any]]):
    """STATEs go out as they come in."""

    def append(self, state: dict[str, Any]) -> None:
        """Print it, at once."""
        sys.stdout.write(json.dumps(state) + "\n")
        sys.stdout.flush()


def main(root: str, rows: str, state: str, endpoint: str = "") -> None:
    """One run."""
    journal.CHECKPOINT_EVERY = 8  # so that checkpoints and pruning happen within a few runs
    journal.KEEP = 0
    files = DiskFiles(Path(root))
    objects: Objects = ObjectsOnDisk(root)
    if endpoint:
        from obstore.store import S3Store

        options: dict[str, Any] = {"allow_http": True}
        store = S3Store(
            "bucket",
            endpoint=endpoint,
            region="us-east-1",
            access_key_id="a",
            secret_access_key="b",  # noqa: S106 - the server takes any
            client_options=options,
        )
        objects = ObjectsInStore(store, Path(root).name)
    keys = [number // 2 for number in range(int(rows))]
    tap = SdkTap({"a": list(zip(keys, range(int(rows)), strict=True)), "u": [(n, n) for n in range(int(rows))]})
    outcome = Outcome(printed=Printed())
    messages = tap.messages(json.loads(state), ["a", "u"])
    load(objects, files, files.stage, messages, uuid.uuid4().hex, announces=True, outcome=outcome)


if __name__ == "__main__":
    main(*sys.argv[1:])
