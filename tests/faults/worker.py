"""Runs chains, one after the other: a chain as a line of JSON in, its result as a line out."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from chains import Chain, Result, as_json, run_chain

HERE = Path(__file__).resolve().parent
IMPORTED_LATE = [
    "email.policy",
    "importlib_metadata._text",
    "melisma.arrow.evolve",
    "melisma.formats.parquet",
    "melisma.lake.lake",
    "melisma.lake.writer",
    "melisma.storage.filesystem",
    "melisma.storage.local",
    "melisma.target.file_sink",
    "melisma.target.load",
    "melisma.target.progress",
    "melisma.target.schema_message",
    "melisma_tap_files.discover",
    "melisma_tap_files.read",
    "melisma_tap_files.tap",
    "melisma_target_parquet.target",
    "source_tap",
]
"""What a run would import by itself."""


class Reader:
    """The process that reads lakes back (`readback`)."""

    def __init__(self) -> None:
        self.endpoints: dict[str, str] = {}
        command = [sys.executable, str(HERE / "readback.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, folder: Path, url: str, streams: list[str]) -> dict[str, Any]:
        """See `readback.read_back`."""
        assert self._process.stdin
        assert self._process.stdout
        endpoint = self.endpoints["s3"] if url.startswith("s3://") else ""
        request = {"folder": str(folder), "url": url, "streams": streams, "endpoint": endpoint}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate()


class Servers:
    """The S3 servers (`storm`), started when they are first asked for."""

    def __init__(self, seed: int) -> None:
        command = [sys.executable, str(HERE / "storm.py"), str(seed)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        calm, storm = self._process.stdout.readline().split()
        self.endpoints = {"s3": calm, "storm": storm}
        program = (
            "import boto3, sys\n"
            "keys = dict(aws_access_key_id='testing', aws_secret_access_key='testing', region_name='us-east-1')\n"
            "boto3.client('s3', endpoint_url=sys.argv[1], **keys).create_bucket(Bucket='faults')\n"
        )
        subprocess.run([sys.executable, "-c", program, calm], check=True)

    def close(self) -> None:
        """End them."""
        self._process.communicate()


def main(folder: str) -> None:
    """Serve until the input ends."""
    faulthandler.enable()
    reader, servers = Reader(), None
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    gc.freeze()
    for line in iter(sys.stdin.buffer.readline, b""):
        chain = Chain(**json.loads(line))
        if chain.place != "disk" and servers is None:
            servers = Servers(chain.seed)
            reader.endpoints = servers.endpoints
        try:
            result = run_chain(chain, Path(folder) / f"{os.getpid()}-{chain.number}", reader, reader.endpoints)
        except (OSError, RuntimeError) as error:
            result = Result(chain, wrong=[f"{type(error).__name__}: {error}"])
        sys.stdout.write(as_json(result) + "\n")
        sys.stdout.flush()
    reader.close()
    if servers is not None:
        servers.close()


if __name__ == "__main__":
    main(sys.argv[1])
