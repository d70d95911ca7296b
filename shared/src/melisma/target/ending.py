"""Whether an input that ends at a line's end ended because the tap was done.

When a tap fails, Meltano closes the target's input: that looks like a clean end. Rows after the last STATE tell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from melisma.arrow.types import ColumnType
from melisma.arrow.values import Misfit, Unknown, reader
from melisma.errors import MelismaError, printable
from melisma.wire.position import bookmarks, has_progress_markers, load_state

if TYPE_CHECKING:
    from melisma.target.sink import ArrowSink

__all__ = ["TapDied", "refuse_cut_tail"]


class TapDied(MelismaError):
    """The input ended cleanly, but the tap cannot have been done. What its last STATE covers is committed."""

    def __init__(self, stream: str, rule: str, fix: str = "") -> None:
        self.stream = stream
        super().__init__(
            f'stream "{printable(stream)}": {rule}, so the tap must have failed. '
            f"What its last STATE covers is committed; run it again{fix}"
        )


def refuse_cut_tail(
    tails: Iterable[tuple[str, ArrowSink]],
    state: bytes | None,
    streams: Collection[str],
    *,
    announces: bool,
    trust_eof: bool = False,
) -> None:
    """Raise if the rows after the last STATE show that the tap was not done.

    Args:
        tails: each input stream's name and sink with rows after the last STATE.
        state: the last STATE.
        streams: every stream of the input.
        announces: the tap is one of melisma's, which always end with a STATE.
        trust_eof: the end of the input is evidence enough that an incremental stream without a bookmark is whole.

    Raises:
        TapDied: rows lie beyond their stream's bookmark, an incremental stream has none or progress markers, or a
            melisma tap did not end with a STATE.
    """
    value = load_state(state) if state is not None else {"bookmarks": {}}
    known = bookmarks(value)
    for stream, sink in tails:
        if announces:
            raise TapDied(stream, "rows came after the last STATE, and this tap always ends with one")
        if has_progress_markers(value, stream):
            raise TapDied(stream, "the last STATE still carries progress markers for it")
        if sink.replication_key is None or sink.tail_key is None:
            continue
        bookmark = known.get(stream)
        # An empty bookmark is singer-sdk's word for a full table. A stream that a map has renamed stands in the STATE
        # under a name that is no stream's here: then in doubt.
        stands = "bookmarks" not in value or stream in known
        if not stands and known.keys() <= set(streams) and not trust_eof:
            key = printable(sink.replication_key)
            raise TapDied(
                stream,
                f'its SCHEMA names the bookmark property "{key}", and no STATE says anything of it after its rows',
                "; if this tap ends so, set trust_eof to true",
            )
        covered = _covered(bookmark, sink.replication_key)
        if covered and all(_beyond(sink, each) for each in covered):
            raise TapDied(stream, "the last rows lie beyond the bookmark of the last STATE")


def _covered(bookmark: Any, key: str) -> list[Any]:
    """The highest keys that a bookmark covers, one for each partition that it has; none if it does not say."""
    if not isinstance(bookmark, dict):
        return []
    partitions = bookmark.get("partitions")
    parts = [part for part in partitions if isinstance(part, dict)] if isinstance(partitions, list) else []
    values = [_bookmark_value(part, key) for part in [bookmark, *parts]]
    return [value for value in values if value is not None]


def _bookmark_value(bookmark: dict[str, Any], key: str) -> Any:
    """In singer-sdk's form, or in singer-python's; None if it does not say."""
    if "replication_key_value" not in bookmark:
        return bookmark.get(key)
    return bookmark["replication_key_value"] if bookmark.get("replication_key") in (None, key) else None


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
