"""The servers' character sets in the log, where texts stand as they are stored.

Python's codecs of the same names differ from the servers' in some characters, so the server is asked: once for all
characters of a set of one byte, for each text in a set of several.
"""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from melisma.errors import MelismaError
from melisma_tap_mysql.server import Server

__all__ = ["CharacterSets", "is_same"]

_UTF8 = {"utf8mb4", "utf8mb3", "utf8", "ascii"}
_AS_IT_IS = _UTF8 | {"binary"}
_UNICODE = {"ucs2": "utf-16-be", "utf16": "utf-16-be", "utf16le": "utf-16-le", "utf32": "utf-32-be"}
_REMEMBERED = 16_384


class CharacterSets:
    """Makes UTF-8 of texts."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._readers: dict[str, Callable[[bytes], bytes]] = {}
        self._collations: dict[int, str] = {}

    def of_collation(self, number: int | None) -> str | None:
        """The character set of a collation, as the server names it; None if it has no such collation."""
        if not self._collations:
            self._collations = {row["id"]: row["name"] for row in self._list_collations()}
        return None if number is None else self._collations.get(number)

    def reader(self, name: str | None) -> Callable[[bytes], bytes]:
        """What makes UTF-8 of a text in a character set, as the server itself would."""
        if name is None or name in _AS_IT_IS:
            return _same
        if name not in self._readers:
            self._readers[name] = self._make(name)
        return self._readers[name]

    def _list_collations(self) -> list[dict[str, Any]]:
        text = "SELECT t.id AS id, t.character_set_name AS name FROM information_schema.{} t WHERE t.id IS NOT NULL"
        if self._server.is_mariadb:  # a collation that goes with several sets has a number for each of them
            with contextlib.suppress(MelismaError):  # before 10.10
                return self._server.rows(text.format("collation_character_set_applicability"))
        return self._server.rows(text.format("collations"))

    def _make(self, name: str) -> Callable[[bytes], bytes]:
        if name in _UNICODE:
            codec = _UNICODE[name]
            return lambda text: text.decode(codec).encode()
        sql = f"SELECT maxlen AS width FROM information_schema.character_sets WHERE character_set_name = '{name}'"  # noqa: S608
        if self._server.rows(sql)[0]["width"] == 1:
            every = ", ".join(f"CONVERT(_{name} x'{number:02x}' USING utf8mb4) AS c{number}" for number in range(256))
            [row] = self._server.rows(f"SELECT {every}")
            table = "".join(row[f"c{number}"] for number in range(256))
            return lambda text: codecs.charmap_decode(text, "strict", table)[0].encode()

        @lru_cache(_REMEMBERED)
        def ask(text: bytes) -> bytes:
            if text.isascii() and not {0x5C, 0x7E} & {*text}:  # which some sets have other signs for
                return text
            [row] = self._server.rows(f"SELECT CONVERT(_{name} x'{text.hex()}' USING utf8mb4) AS text")
            return str(row["text"]).encode()

        return ask


def is_same(one: str | None, other: str | None) -> bool:
    """Whether a text's bytes mean the same in both character sets."""
    return one == other or {one, other} <= _UTF8


def _same(text: bytes) -> bytes:
    return text
