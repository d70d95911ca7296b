"""Whether an input that ends at a line's end ended because the tap was done.

When a tap fails, Meltano closes the target's input: that looks like a clean end. Rows after the last STATE tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from melisma.arrow.types import ColumnType
from melisma.arrow.values import Misfit, Unknown, reader
from melisma.errors import MelismaError, printable
from melisma.wire.position import bookmarks, load_state

if TYPE_CHECKING:
    from melisma.target.sink import ArrowSink

__all__ = ["TapDied", "refuse_cut_tail"]


class TapDied(MelismaError):
    """The input ended cleanly, but the tap cannot have been done. What its last STATE covers is committed."""

    def __init__(self, stream: str, rule: str) -> None:
        self.stream = stream
        super().__init__(
            f'stream "{printable(stream)}": {rule}, so the tap must have failed. '
            "What its last STATE covers is committed; run it again"
        )


def refuse_cut_tail(tails: Iterable[tuple[str, ArrowSink]], state: bytes | None, *, announces: bool) -> None:
    """Raise if the rows after the last STATE show that the tap was not done.

    Args:
        tails: each input stream's name and sink with rows after the last STATE.
        state: the last STATE.
        announces: the tap is one of melisma's, which always end with a STATE.

    Raises:
        TapDied: rows lie beyond their stream's bookmark, or a melisma tap did not end with a STATE.
    """
    known = bookmarks(load_state(state)) if state is not None else {}
    for stream, sink in tails:
        if announces:
            raise TapDied(stream, "rows came after the last STATE, and this tap always ends with one")
        bookmark = known.get(stream)
        if not isinstance(bookmark, dict) or sink.replication_key is None or sink.tail_key is None:
            continue
        if bookmark.get("replication_key") not in (None, sink.replication_key):
            continue
        value = bookmark.get("replication_key_value")
        if value is not None and _beyond(sink, value):
            raise TapDied(stream, "the last rows lie beyond the bookmark of the last STATE")


def _beyond(sink: ArrowSink, value: Any) -> bool:
    """Whether the highest replication key of the tail lies beyond a bookmark's value; in doubt not."""
    column = next(each.type for each in sink.columns.fields if each.name == sink.replication_key)
    bookmark = _as_key(column, value)
    try:
        return bookmark is not None and bool(sink.tail_key > bookmark)
    except TypeError:
        return False


def _as_key(column: ColumnType, value: Any) -> Any:
    import pyarrow as pa

    try:
        found = reader(column, Unknown(forbid=False, hold_closed=False), hold=False)(value)
        return pa.array([found], column.arrow)[0].as_py()
    except (Misfit, pa.ArrowInvalid):
        return None
