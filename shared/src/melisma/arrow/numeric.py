"""Which Arrow type holds the numbers that a JSON Schema node allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa

from melisma.arrow.column_types import MAX_PRECISION

__all__ = ["DECIMAL_FORMATS", "decimal_digits", "fit_decimal", "integer_type", "stored_digits"]

DECIMAL_FORMATS = ("decimal", "singer.decimal", "x-singer.decimal")
"""Formats under which taps send decimals, mostly as strings: the SDK and PipelineWise write `singer.decimal`, the
SDK's targets read `x-singer.decimal`."""

_WIDE_SCALE = 18
"""Digits after the point where a decimal is wider than 38 digits or its digits are not known."""

_MIN_WHOLE_DIGITS = 10
"""A scale without a precision is kept while this many digits stay before the point."""

_BEYOND = 10 ** (MAX_PRECISION + 2)
"""Bounds past this say no more; a bound of 1e999999 is not worked out to its last digit."""

_INT64 = (-(2**63), 2**63 - 1)
_UINT64 = (0, 2**64 - 1)


def integer_type(keywords: Mapping[str, Any]) -> pa.DataType:
    """int64, unless the bounds say that it is too small: then uint64 or decimal128(38, 0)."""
    low, high = _whole_bound(keywords, "inimum", 1), _whole_bound(keywords, "aximum", -1)
    if (low is None or low >= _INT64[0]) and (high is None or high <= _INT64[1]):
        return pa.int64()
    if low is not None and high is not None and low >= 0 and high <= _UINT64[1]:
        return pa.uint64()
    return pa.decimal128(MAX_PRECISION, 0)


def decimal_digits(keywords: Mapping[str, Any]) -> tuple[int, int] | None:
    """Precision and scale of the decimal that a number (or a string with a decimal format) is; None for a double.

    The digits come from `precision` and `scale` (also in an object `decimal`, as PipelineWise writes them), else
    from `multipleOf` and the bounds.
    """
    stated = {**keywords, **keywords.get("decimal", {})}
    precision, scale = _digits(stated.get("precision"), 1), _digits(stated.get("scale"), -MAX_PRECISION)
    if scale is None:
        scale = _decimals(keywords.get("multipleOf"))
    if scale is None:
        known = precision is not None or keywords.get("format") in DECIMAL_FORMATS
        return (MAX_PRECISION, _WIDE_SCALE) if known else None
    if precision is None:
        whole = _whole_digits(keywords)
        if whole is None:
            kept = scale <= MAX_PRECISION - _MIN_WHOLE_DIGITS
            return MAX_PRECISION, max(scale, 0) if kept else _WIDE_SCALE
        precision = whole + scale
    return fit_decimal(precision, scale)


def stored_digits(precision: int, scale: int) -> tuple[int, int]:
    """A decimal's digits with a scale of 0 to precision, as Parquet wants it (Oracle and Arrow allow others)."""
    if scale < 0:
        precision, scale = precision - scale, 0
    return max(precision, scale, 1), scale


def fit_decimal(precision: int, scale: int) -> tuple[int, int]:
    """A decimal's digits as decimal128 holds them.

    A decimal wider than 38 digits keeps 38, at most 18 of them after the point.
    """
    precision, scale = stored_digits(precision, scale)
    return (precision, scale) if precision <= MAX_PRECISION else (MAX_PRECISION, min(scale, _WIDE_SCALE))


def _whole_bound(keywords: Mapping[str, Any], ending: str, step: int) -> int | None:
    """The outermost integer that the bounds on one side allow; `step` points inwards."""
    found: list[int] = []
    for key, exclusive in ((f"m{ending}", False), (f"exclusiveM{ending}", True)):
        if (limit := keywords.get(key)) is None:
            continue
        limit = max(-_BEYOND, min(_BEYOND, limit))
        whole = int(math.ceil(limit) if step > 0 else math.floor(limit))
        if exclusive and whole == limit:
            whole += step
        elif isinstance(limit, float) and limit in (2.0**63, 2.0**64):
            whole -= 1  # 2^63-1 and 2^64-1 that went through a double on their way
        found.append(whole)
    if not found:
        return None
    return max(found) if step > 0 else min(found)


def _whole_digits(keywords: Mapping[str, Any]) -> int | None:
    """Digits before the point that the bounds leave; None where a side is open."""
    sides = []
    for ending in ("inimum", "aximum"):
        counts = [
            _count_whole_digits(keywords[key], exclusive=exclusive)
            for key, exclusive in ((f"m{ending}", False), (f"exclusiveM{ending}", True))
            if key in keywords
        ]
        if not counts:
            return None
        sides.append(min(counts))
    return max(sides)


def _count_whole_digits(limit: float | Decimal, *, exclusive: bool) -> int:
    exact = _exact(limit)
    if abs(exact) < 1:
        return 0
    _sign, digits, _exponent = exact.as_tuple()
    is_power_of_ten = digits[0] == 1 and not any(digits[1:])
    return exact.adjusted() + (0 if exclusive and is_power_of_ten else 1)


def _decimals(step: object) -> int | None:
    """Digits after the point of a multiple of `step`; None if there is no usable step."""
    if not isinstance(step, int | float | Decimal) or step <= 0:
        return None
    exact = _exact(step)
    if isinstance(step, float):
        # 10 ** -23 computed in doubles may come out as 9.999999999999999e-24.
        nearest = Decimal(1).scaleb(round(math.log10(step)))
        if abs(exact / nearest - 1) < Decimal("1e-9"):
            exact = nearest
    _sign, digits, exponent = exact.as_tuple()
    zeros = next((n for n, digit in enumerate(reversed(digits)) if digit), 0)
    return max(0, -(int(exponent) + zeros))


def _exact(value: float | Decimal) -> Decimal:
    """A number as it was written: 0.1 is one tenth, not the double next to it."""
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _digits(value: object, least: int) -> int | None:
    """A count of digits, if that is what a tap's own keyword holds."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= least else None
