"""Named places where a test kills the process, as a power cut would.

`MELISMA_FAILPOINT=commit:after` kills with SIGKILL when that place is reached, `commit:after@3` the third time.
The names are listed in docs/delivery.md. Unset, a call is one comparison.
"""

from __future__ import annotations

import os
import signal

__all__ = ["reach"]

_NAME, _, _TIMES = os.environ.get("MELISMA_FAILPOINT", "").partition("@")
_left = int(_TIMES or 1)


def reach(name: str) -> None:
    """Die here if this is the place that the environment names."""
    if not _NAME or name != _NAME:
        return
    global _left
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
