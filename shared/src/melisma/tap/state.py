"""The state and the catalog that a call names: refused in one line where they are not what they should be.

singer-sdk takes a state without bookmarks for an empty one, from which a tap starts anew: what it has sent already
would be sent again.
"""

from __future__ import annotations

import io
import json
from typing import IO, Any

from melisma.config import hold_to
from melisma.errors import ConfigError, UsageError

__all__ = ["check_state", "read_object"]

_SHAPE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "bookmarks": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": {"partitions": {"type": "array", "items": {"type": "object"}}},
            },
        }
    },
}
_BESIDE_BOOKMARKS = {"currently_syncing"}


def check_state(state: Any) -> None:
    """Refuse a state that no singer-sdk tap can have written.

    Raises:
        ConfigError: it has another shape, or holds something and no bookmarks.
    """
    hold_to(_SHAPE, state, "state")
    if state.keys() - _BESIDE_BOOKMARKS and "bookmarks" not in state:
        fix = "Give the STATE that was printed last for this tap, or {} to start anew"
        raise ConfigError("state", 'has no "bookmarks", so it is not of this tap', fix)


def read_object(file: IO[str], option: str) -> IO[str]:
    """A file that an option names, read whole and known to hold a JSON object.

    Raises:
        UsageError: it holds something else.
    """
    text = file.read()
    if not text.strip():
        raise UsageError(f"{option}: the file is empty. Did the command that should write it fail?")
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:  # names a position, never a value
        raise UsageError(f"{option}: the file is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{option}: the file does not hold a JSON object")
    return io.StringIO(text)
