"""Spark in an environment of its own below `.cache/spark`: `spark.py install`, and programs that it runs.

`install` as root also installs Java from Debian's packages where there is none (`make test-spark`). One process
holds Spark for a whole test session: starting it takes longer than most of what the tests ask of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache" / "spark"
PYSPARK = "pyspark==4.3.0"
JAVA = "openjdk-17-jre-headless"

SERVE = """
import json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what Spark prints is not an answer
from pyspark.sql import SparkSession
builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
builder = builder.config("spark.sql.session.timeZone", "UTC").config("spark.sql.shuffle.partitions", "1")
spark = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1").getOrCreate()
spark.sparkContext.setLogLevel("OFF")
for line in sys.stdin:
    request = json.loads(line)
    names = {"spark": spark, "data": request["data"]}
    try:
        exec(request["program"], names)
        answer = {"result": names["result"]}
    except Exception:
        answer = {"error": traceback.format_exc()}
    answers.write(json.dumps(answer, default=str) + "\\n")
    answers.flush()
"""


class MissingError(Exception):
    """Why there is no Spark."""


class Spark:
    """A process with a Spark session."""

    def __init__(self) -> None:
        command = [str(environment()), "-c", SERVE]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)

    def __call__(self, program: str, data: Any = None) -> Any:
        """Run a program, which finds `spark` and `data`; gives what it leaves in `result`, by way of JSON."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"program": program, "data": data}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "Spark ended"}')
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)


def environment() -> Path:
    """The interpreter of the environment that has Spark; it is made once.

    Raises:
        MissingError: there is no Java, or the environment cannot be made.
    """
    if shutil.which("java") is None:
        raise MissingError(f"Spark needs Java: apt-get install {JAVA}")
    folder = CACHE / PYSPARK.replace("==", "-")
    python, done = folder / "bin" / "python", folder / "installed"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            venv.create(folder, clear=True, with_pip=False)
            command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", PYSPARK]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                last = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise MissingError(f"{PYSPARK} cannot be installed: {last}")
            done.touch()
    return python


def install() -> None:
    """Make the environment, and as root install Java where it is missing."""
    if shutil.which("java") is None and not os.geteuid() and shutil.which("apt-get") is not None:
        settings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", JAVA]):
            subprocess.run(["apt-get", *command], check=True, env=settings, stdout=subprocess.DEVNULL)
    environment()


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit("usage: spark.py install")
    try:
        install()
    except (MissingError, subprocess.CalledProcessError) as error:
        sys.exit(f"spark: {error}")
