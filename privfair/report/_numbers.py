"""One rule for numbers on display: three significant digits, intervals in brackets.

The true minus sign and the thin spaces are for people; JSON and CSV keep plain numbers.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Decimal

__all__ = ["MINUS", "count", "interval", "number", "percent", "signed"]

MINUS = "\u2212"


def number(value: float | int | None, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits.

    Examples
    --------
    >>> number(0.17639), number(-0.0891), number(16281.0), number(0.0000123)
    ('0.176', '−0.0891', '16,281', '1.23e−5')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "not estimable"
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if value == 0:
        return "0"
    exact = Decimal(float(value))
    places = digits - 1 - exact.adjusted()
    rounded = exact.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN)
    if rounded.adjusted() > exact.adjusted():
        places -= 1  # 0.9996 becomes 1.00, not 1.000
    size = abs(rounded)
    if size < Decimal("1e-4"):
        mantissa, exponent = f"{size:.{digits - 1}e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    elif places <= 0:
        text = f"{round(abs(float(value))):,}"
    else:
        text = f"{size:,.{max(places, 0)}f}"
    text = text.replace("-", MINUS)
    return f"{MINUS}{text}" if value < 0 else text


def signed(value: float | None, digits: int = 3) -> str:
    """Return a change, with its sign.

    Examples
    --------
    >>> signed(0.012), signed(-0.012), signed(0.0)
    ('+0.0120', '−0.0120', '0')
    """
    text = number(value, digits)
    return f"+{text}" if value is not None and value > 0 else text


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """Return an interval in brackets, or nothing when there is none.

    Examples
    --------
    >>> interval(0.4256, 0.4716), interval(None, 0.2)
    ('[0.426, 0.472]', '')
    """
    ends = (low, high)
    if any(end is None or (isinstance(end, float) and math.isnan(end)) for end in ends):
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def count(value: int | None) -> str:
    """Return a count with thousands separators.

    Examples
    --------
    >>> count(16281)
    '16,281'
    """
    return "" if value is None else f"{int(value):,}".replace("-", MINUS)


def percent(value: float | None, digits: int = 3) -> str:
    """Return a share as a percentage.

    Examples
    --------
    >>> percent(0.23622)
    '23.6 %'
    """
    if value is None or math.isnan(value):
        return "not estimable"
    return f"{number(100 * value, digits)} %"
