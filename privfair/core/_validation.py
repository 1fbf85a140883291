"""Keyword validators: every message holds the parameter's name, its value and what is allowed.

Each function takes exactly one keyword, ``positive(noise_multiplier=x)``, and returns the value
as a plain Python number. Booleans and strings are never taken for numbers; numpy scalars and
0-d arrays are.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

from privfair.core.exceptions import (
    InvalidBudgetError,
    InvalidParameterError,
    InvalidSampleRateError,
    InvalidStepsError,
    InvalidTypeError,
    WeakGuaranteeError,
)

__all__ = [
    "MAX_EPSILON",
    "boolean",
    "confidence",
    "delta",
    "epsilon",
    "non_negative",
    "non_negative_int",
    "one_of",
    "positive",
    "positive_int",
    "probability",
    "real",
    "sample_rate",
    "steps",
    "strong_enough",
]

MAX_EPSILON = 20.0
"""Above this a finite epsilon is taken for a mistake unless ``allow_weak=True``."""


def _single(kwargs: dict[str, Any]) -> tuple[str, Any]:
    if len(kwargs) != 1:
        raise TypeError(f"exactly one keyword argument is checked at a time, got {list(kwargs)}")
    return next(iter(kwargs.items()))


def _scalar(name: str, value: Any) -> Any:
    if hasattr(value, "ndim") and hasattr(value, "item") and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidTypeError(
            f"{name} must be a real number, got {value!r} of type {type(value).__name__}. "
            "Booleans and strings are not taken for numbers; pass an int or a float."
        )
    return value


def real(**kwargs: Any) -> float:
    """Check for a finite real number."""
    name, raw = _single(kwargs)
    value = float(_scalar(name, raw))
    if not math.isfinite(value):
        raise InvalidParameterError(f"{name} must be a finite number, got {value}.")
    return value


def positive(*, allow_inf: bool = False, **kwargs: Any) -> float:
    """Check for a number above zero."""
    name, raw = _single(kwargs)
    value = float(_scalar(name, raw))
    if math.isnan(value) or value <= 0 or (math.isinf(value) and not allow_inf):
        kind = "positive" if allow_inf else "positive finite"
        raise InvalidParameterError(f"{name} must be a {kind} number, got {value}.")
    return value


def non_negative(*, allow_inf: bool = False, **kwargs: Any) -> float:
    """Check for a number of at least zero."""
    name, raw = _single(kwargs)
    value = float(_scalar(name, raw))
    if math.isnan(value) or value < 0 or (math.isinf(value) and not allow_inf):
        raise InvalidParameterError(f"{name} must be a non-negative finite number, got {value}.")
    return value


def _integer(name: str, raw: Any, error: type[InvalidParameterError]) -> int:
    value = _scalar(name, raw)
    if not float(value).is_integer():
        raise error(f"{name} must be an integer, got {value}.")
    return int(value)


def positive_int(**kwargs: Any) -> int:
    """Check for an integer of at least one."""
    name, raw = _single(kwargs)
    value = _integer(name, raw, InvalidParameterError)
    if value < 1:
        raise InvalidParameterError(f"{name} must be an integer >= 1, got {value}.")
    return value


def non_negative_int(**kwargs: Any) -> int:
    """Check for an integer of at least zero."""
    name, raw = _single(kwargs)
    value = _integer(name, raw, InvalidParameterError)
    if value < 0:
        raise InvalidParameterError(f"{name} must be an integer >= 0, got {value}.")
    return value


def steps(**kwargs: Any) -> int:
    """Check for a number of steps, an integer of at least zero."""
    name, raw = _single(kwargs)
    value = _scalar(name, raw)
    if not float(value).is_integer() or value < 0:
        raise InvalidStepsError(
            f"{name} must be an integer >= 0, got {value}. Privacy is accounted for whole steps; "
            "give --epochs and --batch-size if you do not know the number."
        )
    return int(value)


def probability(**kwargs: Any) -> float:
    """Check for a number in [0, 1]."""
    name, raw = _single(kwargs)
    value = float(_scalar(name, raw))
    if not 0.0 <= value <= 1.0:
        raise InvalidParameterError(f"{name} must be in [0, 1], got {value}.")
    return value


def confidence(**kwargs: Any) -> float:
    """Check for a confidence level in (0, 1)."""
    name, raw = _single(kwargs)
    value = float(_scalar(name, raw))
    if not 0.0 < value < 1.0:
        raise InvalidParameterError(f"{name} must be in (0, 1), e.g. 0.95; got {value}.")
    return value


def sample_rate(**kwargs: Any) -> float:
    """Check for a sampling probability in (0, 1]."""
    name, raw = _single(kwargs)
    value = float(_scalar(name, raw))
    if not 0.0 < value <= 1.0:
        raise InvalidSampleRateError(
            f"{name} must be in (0, 1], got {value}. It is the probability with which each "
            "record enters a batch: expected batch size divided by the public data-set size."
        )
    return value


def epsilon(*, allow_inf: bool = False, allow_zero: bool = False, **kwargs: Any) -> float:
    """Check for a privacy parameter epsilon."""
    name, raw = _single(kwargs)
    value = float(_scalar(name, raw))
    low_ok = value >= 0 if allow_zero else value > 0
    if math.isnan(value) or not low_ok or (math.isinf(value) and not allow_inf):
        tail = " or float('inf') for no privacy" if allow_inf else ""
        raise InvalidBudgetError(
            f"{name} must be a positive finite number{tail}, got {value}. "
            "Smaller is more private; 1 is a common choice."
        )
    return value


def delta(*, allow_zero: bool = False, **kwargs: Any) -> float:
    """Check for a privacy parameter delta in (0, 1), or [0, 1) with ``allow_zero``."""
    name, raw = _single(kwargs)
    value = float(_scalar(name, raw))
    if not (0.0 <= value < 1.0 if allow_zero else 0.0 < value < 1.0):
        allowed = "[0, 1)" if allow_zero else "(0, 1)"
        raise InvalidBudgetError(
            f"{name} must be in {allowed}, got {value}. It bounds the probability that the "
            "epsilon guarantee fails; choose it well below 1 / (number of records)."
        )
    return value


def boolean(**kwargs: Any) -> bool:
    """Check for a boolean."""
    name, value = _single(kwargs)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{name} must be True or False, got {value!r}.")
    return value


def one_of(options: Iterable[Any], **kwargs: Any) -> Any:
    """Check for membership in a list of options; the message suggests the nearest one."""
    import difflib

    name, value = _single(kwargs)
    allowed = list(options)
    if any(
        value is option or (type(value) is type(option) and value == option) for option in allowed
    ):
        return value
    hint = ""
    if isinstance(value, str):
        near = difflib.get_close_matches(value, [o for o in allowed if isinstance(o, str)], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(repr(option) for option in allowed)
    raise InvalidParameterError(f"{name} must be one of {listed}; got {value!r}.{hint}")


def strong_enough(
    epsilon_: float, delta_: float, n_public: int | None, *, allow_weak: bool = False
) -> None:
    """Refuse settings that are almost always mistakes: epsilon > 20, delta >= 1/n.

    An infinite epsilon is the explicit request for no privacy and passes.
    """
    if allow_weak:
        return
    if math.isfinite(epsilon_) and epsilon_ > MAX_EPSILON:
        raise WeakGuaranteeError(
            f"epsilon must be at most {MAX_EPSILON:g}, got {epsilon_:g}. A larger value protects "
            "nobody in practice. Pass allow_weak=True to record that you mean it, or "
            "epsilon=float('inf') for a non-private fit."
        )
    if n_public is not None and delta_ >= 1.0 / n_public:
        raise WeakGuaranteeError(
            f"delta must be below 1/n = {1.0 / n_public:.3g} (n = {n_public}, public), got "
            f"{delta_:g}. Such a delta permits releasing a record outright. Use delta='auto', a "
            "smaller value, or allow_weak=True to record that you mean it."
        )
