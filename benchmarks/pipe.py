"""Two programs as a shell pipe, in a process whose cost is theirs.

`python -m benchmarks.pipe FIRST ... -- SECOND ...`
"""

from __future__ import annotations

import subprocess
import sys

__all__ = ["run_pipe"]


def run_pipe(first: list[str], second: list[str]) -> int:
    """Run them to their ends. Returns 1 if one of them failed."""
    writer = subprocess.Popen(first, stdout=subprocess.PIPE)
    reader = subprocess.Popen(second, stdin=writer.stdout)
    if writer.stdout:
        writer.stdout.close()  # so that the first ends if the second does
    codes = [reader.wait(), writer.wait()]
    return 1 if any(codes) else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    place = arguments.index("--")
    sys.exit(run_pipe(arguments[:place], arguments[place + 1 :]))
