"""The SELECT behind a stream, and names in it."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melisma.errors import CatalogError
from melisma.sql.dialect import POSTGRES, SQLITE
from melisma.sql.key import bookmark, bookmark_value, check_key
from melisma.sql.select import Select


def test_a_plain_read_has_neither_condition_nor_order() -> None:
    """The database may send rows as it has them."""
    assert Select(['"a"'], '"s"."t"').text(POSTGRES) == 'SELECT "a"\nFROM "s"."t" AS melisma_source'


def test_a_replication_key_is_inclusive_and_a_primary_key_is_not() -> None:
    """More rows may come at the highest replication key; a primary key is there once."""
    read = Select(['"a"'], "t", ["k"], ["$1"]).text(POSTGRES)
    assert read.endswith('WHERE melisma_source."k" >= $1\nORDER BY melisma_source."k"')
    read = Select(['"a"'], "t", ["k", "l"], ["$1", "$2"], inclusive=False, limit=5).text(POSTGRES)
    assert 'WHERE (melisma_source."k", melisma_source."l") > ($1, $2)\n' in read
    assert read.endswith('ORDER BY melisma_source."k", melisma_source."l"\nLIMIT 5')
    assert Select([], "t", ["k"]).text(POSTGRES).endswith('ORDER BY melisma_source."k" NULLS FIRST')


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_a_quoted_name_is_that_name(name: str) -> None:
    """Whatever is in it: read back from a real database."""
    connection = sqlite3.connect(":memory:")
    cursor = connection.execute(f"SELECT 1 AS {SQLITE.quote(name)}")
    assert [column[0] for column in cursor.description] == [name]
    connection.close()


def test_a_bookmark_of_another_key_says_nothing() -> None:
    """Its value is not one of this column's."""
    assert bookmark_value(bookmark("a", 5), "a") == 5
    assert bookmark_value(bookmark("a", 5), "b") is None
    assert bookmark_value({}, "a") is None


@pytest.mark.parametrize("node", [{"type": "number"}, {"type": "boolean"}, {"type": ["object", "null"]}])
def test_a_key_without_an_exact_order_is_refused(node: dict[str, object]) -> None:
    """A double is not exact in JSON text for everyone who reads a STATE."""
    with pytest.raises(CatalogError, match='replication key "k"'):
        check_key("s", "k", {"k": node})
    check_key("s", "k", {"k": {"type": ["integer", "null"]}})
    check_key("s", "k", {"k": {"type": "number", "precision": 5, "scale": 2}})
