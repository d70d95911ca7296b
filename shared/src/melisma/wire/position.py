"""The position of a stream: what a STATE says about it once everything that does not last is taken out.

A tap does not announce its starting STATE byte for byte as the target printed it (singer-sdk 0.54.9,
`Tap._reset_state_progress_markers`, `Tap.load_state`): progress markers, empty bookmarks and top-level keys
other than `bookmarks` are gone. Two STATEs from which a tap would go on at the same place have equal positions.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

__all__ = ["Position", "bookmarks", "has_progress_markers", "is_empty_bookmark", "load_state", "positions"]

State = dict[str, Any]

# The SDK's keys for a sync that is under way; wiped or rewritten when the tap starts again.
_TRANSIENT = frozenset({"progress_markers", "starting_replication_value", "replication_key_signpost"})
_MARKERS = "progress_markers"


@dataclass(frozen=True, slots=True)
class Position:
    """Where every stream of one STATE stands, as short digests that can be compared and stored.

    Attributes:
        streams: the digest of each stream that the STATE names with a bookmark that is not empty.
        whole: the digest of the whole STATE: the position of every stream that it does not name. Empty when
            nothing is left of the STATE, which is as good as no STATE.
    """

    streams: dict[str, str]
    whole: str

    def of(self, stream: str) -> str:
        """The digest for `stream`: its own, or that of the whole STATE where it is not named."""
        return self.streams.get(stream, self.whole)


def load_state(text: str | bytes) -> State:
    """A STATE's value from its JSON text, with every integer exact. Raises ValueError if it is not an object."""
    state = json.loads(text)
    if not isinstance(state, dict):
        msg = "a STATE's value is a JSON object"
        raise ValueError(msg)  # noqa: TRY004 - callers handle one kind of bad STATE, not two
    return state


def bookmarks(state: State) -> dict[str, Any]:
    """The bookmarks by stream as they stand; empty for a STATE of another shape."""
    found = state.get("bookmarks")
    return found if isinstance(found, dict) else {}


def positions(state: State) -> Position:
    """The positions of all streams in `state`."""
    if isinstance(state.get("bookmarks"), dict):
        named = {name: _lasting(bookmark) for name, bookmark in bookmarks(state).items()}
        named = {name: bookmark for name, bookmark in named.items() if bookmark}
        return Position({name: _digest(bookmark) for name, bookmark in named.items()}, _digest(named))
    # Not the usual shape, so nothing is known of streams: the STATE is one position for all of them.
    return Position({}, _digest({key: value for key, value in state.items() if key != "currently_syncing"}))


def has_progress_markers(state: State, stream: str) -> bool:
    """Whether the tap would forget its progress on `stream` and send again what came since the last bookmark.

    Rows of a stream must not be committed at such a STATE: nothing in it tells them from rows that are to come.
    """
    bookmark = bookmarks(state).get(stream)
    if not isinstance(bookmark, dict):
        return False
    partitions = bookmark.get("partitions")
    parts = [part for part in partitions if isinstance(part, dict)] if isinstance(partitions, list) else []
    return any(_MARKERS in part for part in [bookmark, *parts])


def is_empty_bookmark(state: State, stream: str) -> bool:
    """Whether the STATE names `stream` with nothing in it: an SDK tap's word for a full-table stream."""
    found = bookmarks(state)
    return stream in found and found[stream] == {}


def _lasting(bookmark: Any) -> Any:
    if not isinstance(bookmark, dict):
        return bookmark
    lasting = {key: value for key, value in bookmark.items() if key not in _TRANSIENT}
    partitions = lasting.get("partitions")
    if isinstance(partitions, list):
        kept = [_lasting(partition) for partition in partitions]
        # A partition that says no more than its context is where an unknown one would be too: at its start.
        kept = [part for part in kept if part and not (isinstance(part, dict) and part.keys() == {"context"})]
        lasting["partitions"] = sorted(kept, key=_canonical)  # a set: their order says nothing
        if not kept:
            del lasting["partitions"]
    return lasting


def _digest(value: Any) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()[:24] if value else ""


def _canonical(value: Any) -> str:
    return json.dumps(_plain_numbers(value), sort_keys=True, separators=(",", ":"))


def _plain_numbers(value: Any) -> Any:
    """Integral floats as integers: stores between the runs may turn 1 into 1.0 and back."""
    if isinstance(value, dict):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
