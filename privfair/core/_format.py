"""Directed rounding and JSON-safe numbers, shared by everything that shows a number."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

__all__ = ["format_lower", "format_upper", "json_number", "json_safe", "round_down", "round_up"]


def _directed(value: float, digits: int, rounding: str) -> float:
    if not math.isfinite(value) or value == 0:
        return value
    # The shortest decimal of the float: 0.1 is 0.1, not the 0.1000000000000000055 it is stored as.
    exact = Decimal(repr(float(value)))
    quantum = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    return float(exact.quantize(quantum, rounding=rounding))


def round_up(value: float, digits: int = 4) -> float:
    """Round to ``digits`` significant digits, never below the value.

    Examples
    --------
    >>> round_up(0.99991, 4), round_up(1.23451, 4)
    (1.0, 1.235)
    """
    return _directed(value, digits, ROUND_CEILING)


def round_down(value: float, digits: int = 4) -> float:
    """Round to ``digits`` significant digits, never above the value."""
    return _directed(value, digits, ROUND_FLOOR)


def format_upper(value: float, digits: int = 4) -> str:
    """Text of an upper bound (an epsilon, a noise multiplier): rounded up."""
    return "inf" if math.isinf(value) else f"{round_up(value, digits):.{digits}g}"


def format_lower(value: float, digits: int = 4) -> str:
    """Text of a lower bound: rounded down."""
    return "inf" if math.isinf(value) else f"{round_down(value, digits):.{digits}g}"


def json_number(value: Any) -> Any:
    """Return a number that strict JSON can hold: inf as the string "inf", NaN as None."""
    if value is None or isinstance(value, bool | str):
        return value
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, int):
        return number
    if math.isnan(number):
        return None
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    return float(number)


def json_safe(value: Any) -> Any:
    """Convert nested mappings, sequences, arrays and numbers for ``json.dumps``."""
    if isinstance(value, dict):
        return {str(key): json_safe(item) for key, item in value.items()}
    if hasattr(value, "to_dict") and not hasattr(value, "columns"):
        return json_safe(value.to_dict())
    if hasattr(value, "tolist") and getattr(value, "ndim", 0) > 0:
        return json_safe(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [json_safe(item) for item in items]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float) or hasattr(value, "item"):
        return json_number(value)
    return str(value)
