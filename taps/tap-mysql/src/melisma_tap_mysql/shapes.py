"""Geometries, from the servers' own format to well-known text.

Both servers store a number of four bytes, the system of reference (SRID), and then well-known binary. So the text is
the same whether a row comes by a query or from the log, with every digit of a coordinate, and in the order in which
the coordinates are stored, whatever the SRID says of axes.
"""

from __future__ import annotations

import struct

__all__ = ["well_known_text"]

_NAMES = {
    1: "POINT",
    2: "LINESTRING",
    3: "POLYGON",
    4: "MULTIPOINT",
    5: "MULTILINESTRING",
    6: "MULTIPOLYGON",
    7: "GEOMETRYCOLLECTION",
}
_POINT, _LINE, _POLYGON, _COLLECTION = 1, 2, 3, 7


def well_known_text(stored: bytes) -> str:
    """The text of a stored geometry, with `SRID=n;` before it where that is not 0.

    Raises:
        ValueError: it is none.
    """
    try:
        [srid] = struct.unpack_from("<I", stored)
        text, at = _shape(stored, 4, named=True)
    except (struct.error, KeyError, IndexError):
        raise ValueError from None
    if at != len(stored):
        raise ValueError
    return f"SRID={srid};{text}" if srid else text


def _shape(data: bytes, at: int, *, named: bool) -> tuple[str, int]:
    order = "<" if data[at] else ">"
    [kind] = struct.unpack_from(f"{order}I", data, at + 1)
    body, at = _body(data, at + 5, order, kind)
    return (_NAMES[kind] + body if named else body), at


def _body(data: bytes, at: int, order: str, kind: int) -> tuple[str, int]:
    if kind == _POINT:
        text, at = _points(data, at, order, 1)
        return f"({text})", at
    [count] = struct.unpack_from(f"{order}I", data, at)
    at += 4
    if kind == _LINE:
        text, at = _points(data, at, order, count)
        return f"({text})", at
    parts = []
    for _ in range(count):
        if kind == _POLYGON:
            part, at = _body(data, at, order, _LINE)
        else:
            part, at = _shape(data, at, named=kind == _COLLECTION)
            if kind == 4:  # the servers write the points of a MULTIPOINT without brackets
                part = part[1:-1]
        parts.append(part)
    return (f"({','.join(parts)})" if parts else " EMPTY"), at


def _points(data: bytes, at: int, order: str, count: int) -> tuple[str, int]:
    numbers = struct.unpack_from(f"{order}{2 * count}d", data, at)
    texts = [_number(number) for number in numbers]
    pairs = [f"{x} {y}" for x, y in zip(texts[::2], texts[1::2], strict=True)]
    return ",".join(pairs), at + 16 * count


def _number(number: float) -> str:
    """The shortest digits that give the number back."""
    return repr(number).removesuffix(".0").replace("e+", "e")
