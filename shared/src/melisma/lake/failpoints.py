"""Named places where a test kills the process, as a power cut or an operator would.

`MELISMA_FAILPOINT=commit:after` kills with SIGKILL when that place is reached, `commit:after@3` the third time;
`commit:after=TERM` sends SIGTERM instead. The names are listed in docs/delivery.md. Unset, a call is one comparison.
"""

from __future__ import annotations

import os
import signal

__all__ = ["aim", "reach"]

_name = ""
_left = 1
_signal = signal.SIGKILL


def aim(at: str) -> None:
    """Choose the place: `<name>[@n][=<signal>]`; nothing for none."""
    global _name, _left, _signal
    place, _, blow = at.partition("=")
    _name, _, times = place.partition("@")
    _left, _signal = int(times or 1), signal.Signals[f"SIG{blow or 'KILL'}"]


def reach(name: str) -> None:
    """Be struck here if this is the place that was chosen."""
    if not _name or name != _name:
        return
    global _left
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), _signal)


aim(os.environ.get("MELISMA_FAILPOINT", ""))
