"""What MySQL's log has and MariaDB's has not: sequences of the library's events, since there is no MySQL to write them.

The events' order and words are those that MySQL documents; the bytes of their rows are not gone into.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pymysqlreplication import event as events
from pymysqlreplication import row_event as rows

from melisma.errors import DatabaseError
from melisma.tap.log import Boundary
from melisma_tap_mysql.binlog import BinaryLog, _Reader

START = {"file": "log.000001", "place": 4, "server": 1}
END = {"file": "log.000001", "place": 10**6, "server": 1}


class Stream:
    """The stream of the table d.t."""

    log_position = START


class Feed(_Reader):
    """The reader with events of the test's in place of a connection: each with the place behind it."""

    def __init__(self, fed: Sequence[tuple[int, Any]]) -> None:
        self.fed = list(fed)
        self.log_pos, self.log_file = START["place"], START["file"]

    def fetchone(self) -> Any:
        """The next event that is not passed over, as the library does it."""
        while self.fed:
            place, event = self.fed.pop(0)
            if isinstance(event, events.RotateEvent):
                self.log_pos, self.log_file = event.position, event.next_binlog
            else:
                self.log_pos = place
            if event is not None:
                return event
        return None


class Log(BinaryLog):
    """The log, with the number of a rows event in place of its rows."""

    def __init__(self, *fed: Any, places: Sequence[int] = ()) -> None:
        self._reader = Feed(list(zip(places or range(100, 10**6, 100), fed, strict=False)))
        self._streams: Any = {("d", "t"): Stream()}
        self._end, self._number = END, 1

    def _rows(self, event: Any, stream: Any) -> Any:
        assert stream is self._streams[event.schema, event.table]
        yield event.table_id

    def given(self) -> list[Any]:
        """The rows, and for each boundary its place."""
        return [entry.position["place"] if isinstance(entry, Boundary) else entry for entry in self._changes()]


def made(kind: type[Any], **attributes: Any) -> Any:
    """An event of the library with these attributes."""
    event = kind.__new__(kind)
    event.__dict__.update(attributes)
    return event


def query(text: str) -> Any:
    """A statement in the log."""
    return made(events.QueryEvent, query=text, schema=b"d")


def written(number: int, table: str = "t") -> Any:
    """Rows of a table."""
    return made(rows.WriteRowsEvent, schema="d", table=table, table_id=-number)


def gtid() -> Any:
    """What stands before a transaction."""
    return made(events.GtidEvent)


def prepared(*, one_phase: bool = False) -> Any:
    """The end of a transaction's first phase, or of the only one."""
    return made(events.XAPrepareEvent, one_phase=one_phase)


XID = "X'78',X'',1"


def in_phases(number: int, table: str = "t", *, one_phase: bool = False) -> list[Any]:
    """A transaction of XA."""
    begin, end = query(f"XA START {XID}"), query(f"XA END {XID}")
    return [gtid(), begin, written(number, table), end, prepared(one_phase=one_phase)]


@pytest.mark.parametrize("outcome", ["COMMIT", "ROLLBACK"])
def test_a_transaction_in_two_phases_is_an_error(outcome: str) -> None:
    """No boundary stands within it, whatever becomes of it later."""
    log = Log(*in_phases(1), gtid(), query(f"XA {outcome} {XID}"))
    found = []
    with pytest.raises(DatabaseError, match=r"a transaction in two phases \(XA\), whose outcome is not known"):
        for entry in log._changes():
            found.append(entry)  # noqa: PERF402  what comes before the error
    assert found == [-1]


def test_a_transaction_in_one_phase_is_committed() -> None:
    """XA COMMIT ... ONE PHASE: there is one boundary, at its end."""
    log = Log(*in_phases(1, one_phase=True), gtid(), query("BEGIN"), written(2), made(events.XidEvent))
    assert log.given() == [-1, 500, -2, 900, END["place"]]


def test_a_transaction_in_two_phases_of_others_is_passed_over() -> None:
    """Boundaries stand before and behind it only."""
    log = Log(
        *(gtid(), query("BEGIN"), written(1), made(events.XidEvent)),
        *in_phases(2, "other"),
        *(gtid(), query(f"XA ROLLBACK {XID}")),
    )
    assert log.given() == [-1, 400, 1100, END["place"]]


def test_places_that_begin_anew_are_an_error() -> None:
    """A transaction beyond 4 GB in one file, also if nobody wants its rows."""
    top = 1 << 32
    fed = [gtid(), query("BEGIN"), written(1), None, made(events.XidEvent)]
    with pytest.raises(DatabaseError, match=r"goes beyond 4 GB in one file.*bookmark of the log-based streams"):
        Log(*fed, places=[200, 300, top - 5_000, 3_000, 5_000]).given()
    with pytest.raises(DatabaseError, match="goes beyond 4 GB in one file"):
        Log(
            gtid(),
            query("BEGIN"),
            *[None] * 5,
            made(events.XidEvent),
            places=[200, 300, *range(10**9, top, 10**9), 700, 900],
        ).given()


def test_places_begin_anew_in_another_file() -> None:
    """Which is as it should be."""
    rotation = made(events.RotateEvent, position=4, next_binlog="log.000002")
    fed = [gtid(), query("BEGIN"), written(1), made(events.XidEvent), rotation]
    fed += [gtid(), query("BEGIN"), written(2), made(events.XidEvent)]
    log = Log(*fed, places=[200, 300, 3 << 30, 4_000_000_000, 4_000_000_100, 200, 300, 400, 500])
    log._end = END | {"file": "log.000002", "place": 500}
    assert log.given() == [-1, 4_000_000_000, -2, 500]
