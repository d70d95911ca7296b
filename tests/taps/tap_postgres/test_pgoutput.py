"""The messages of the log, as a real server sends them, whole and cut."""

from __future__ import annotations

from typing import Any

import pytest

from melisma.errors import DatabaseError
from melisma_tap_postgres import pgoutput
from melisma_tap_postgres.slot import SlotConnection


@pytest.fixture
def messages(database: Any) -> list[bytes]:
    """One of every kind."""
    database.run(
        "CREATE TABLE t (id integer PRIMARY KEY, v text)",
        "ALTER TABLE t ALTER v SET STORAGE EXTERNAL",
        "CREATE PUBLICATION everything FOR ALL TABLES",
    )
    connection = SlotConnection(database.config())
    position, _ = connection.create(database.name, temporary=True)
    with database.connect() as other, other.transaction():
        for statement in (
            "INSERT INTO t VALUES (1, repeat('ü', 5000)), (2, NULL)",
            "UPDATE t SET id = 3 WHERE id = 1",
            "UPDATE t SET v = '' WHERE id = 2",
            "DELETE FROM t WHERE id = 2",
            "TRUNCATE t",
        ):
            other.execute(statement)
    connection.start(database.name, position, "everything")
    found = []
    for message in connection.messages():
        if isinstance(message, bytes):
            found.append(message)
            if message[:1] == b"C":
                break
    connection.close()
    return found


def test_messages_say_what_happened(messages: list[bytes]) -> None:
    """In order, in the transaction, with the values as text and what the log leaves out marked."""
    begin, relation, *changes, commit = [pgoutput.parse(message) for message in messages]
    assert isinstance(begin, pgoutput.Begin)
    assert isinstance(relation, pgoutput.Relation)
    assert isinstance(commit, pgoutput.Commit)
    assert begin.lsn < commit.end
    assert (relation.schema, relation.name) == ("public", "t")
    assert [name for name, _ in relation.columns] == ["id", "v"]
    oid = relation.oid
    # A table's Relation message may come again at any time.
    assert [change for change in changes if change != relation] == [
        pgoutput.Insert(oid, [b"1", "ü".encode() * 5000]),
        pgoutput.Insert(oid, [b"2", None]),
        pgoutput.Update(oid, [b"1", None], [b"3", pgoutput.UNCHANGED]),
        pgoutput.Update(oid, None, [b"2", b""]),
        pgoutput.Delete(oid, [b"2", None]),
        pgoutput.Truncate((oid,)),
    ]


def test_a_message_that_is_cut_is_an_error_in_one_line(messages: list[bytes]) -> None:
    """At every place, and never one of Python's own."""
    for message in messages:
        for end in range(min(len(message), 100)):
            with pytest.raises(DatabaseError):
                pgoutput.parse(message[:end])


@pytest.mark.parametrize("text", ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"])
def test_a_position_is_a_number_and_a_text(text: str) -> None:
    """Both ways."""
    assert pgoutput.lsn_text(pgoutput.lsn_number(text)) == text
