"""Check that a metric is a well-behaved function of labels, decisions and groups."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np

from privfair.core.estimate import Estimate
from privfair.core.metric import Metric
from privfair.core.randomness import check_random_state

__all__ = ["check_metric"]


def _data(metric: Metric, rng: np.random.Generator, n: int) -> dict[str, Any]:
    y_true = rng.integers(0, 2, n)
    score = np.clip(rng.normal(0.35 + 0.3 * y_true, 0.2), 0, 1)
    data: dict[str, Any] = {"y_true": y_true, "y_pred": (score >= 0.5).astype(int)}
    if "y_score" in metric.requires:
        data["y_pred"] = score
    if "sensitive_features" in metric.requires:
        data["sensitive_features"] = np.array(["a", "b", "c"], dtype=object)[rng.integers(0, 3, n)]
    return data


def _close(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def _rows(data: dict[str, Any], index: Any) -> dict[str, Any]:
    return {key: value[index] for key, value in data.items()}


def check_metric(
    metric: Metric, *, n: int = 400, random_state: Any = 0, data: dict[str, Any] | None = None
) -> None:
    """Check a metric against the contract of :class:`privfair.core.Metric`.

    Parameters
    ----------
    metric : Metric
    n : int, default=400
        Rows of the made-up data.
    random_state : None, int or Generator
    data : dict of arrays or None
        Columns to use instead, keyed by ``y_true``, ``y_pred``, ``sensitive_features``, ...

    Raises
    ------
    AssertionError
        With a sentence on what is wrong.

    Notes
    -----
    ``docs/interface.md`` uses it on a whole third-party package.
    """
    for attribute in ("name", "__name__", "optimum", "direction", "range", "requires"):
        assert hasattr(metric, attribute), f"a metric needs the attribute {attribute!r}."
    name = metric.name
    assert name.isidentifier(), f"the metric's name must be an identifier, got {name!r}."
    assert metric.direction in {"lower", "higher", "none"}, f"{name}.direction is not known."
    rng = check_random_state(random_state)
    columns = _data(metric, rng, n) if data is None else data
    value = float(metric(**columns))
    low, high = metric.range
    assert low - 1e-12 <= value <= high + 1e-12, f"{name} = {value} is outside {metric.range}."

    copy = pickle.loads(pickle.dumps(metric))  # the metric was made in this very process
    assert _close(copy(**columns), value), f"{name} changes when it is pickled."
    order = rng.permutation(len(columns["y_pred"]))
    assert _close(metric(**_rows(columns, order)), value), f"{name} depends on the row order."
    twice = np.concatenate([np.arange(len(order))] * 2)
    assert _close(metric(**_rows(columns, twice)), value), (
        f"{name} changes when every row is there twice."
    )
    if "sensitive_features" in columns:
        renamed = np.array([f"group {g}" for g in columns["sensitive_features"]], dtype=object)
        assert _close(metric(**{**columns, "sensitive_features": renamed}), value), (
            f"{name} depends on the names of the groups."
        )
    _check_estimate(metric, columns, value)


def _check_estimate(metric: Metric, columns: dict[str, Any], value: float) -> None:
    name = metric.name
    estimate = metric.estimate(**columns, n_resamples=200, random_state=0)
    assert isinstance(estimate, Estimate), f"{name}.estimate must return an Estimate."
    assert _close(estimate.value, value), f"{name}.estimate().value differs from the call."
    if estimate.estimable and not math.isnan(estimate.low):
        assert estimate.low - 1e-12 <= estimate.value <= estimate.high + 1e-12, (
            f"the interval of {name} does not hold its value."
        )
        wide = metric.estimate(**columns, n_resamples=200, random_state=0, confidence=0.99)
        assert wide.high - wide.low >= estimate.high - estimate.low - 1e-9, (
            f"the 99 % interval of {name} is narrower than the 95 % interval."
        )
    again = metric.estimate(**columns, n_resamples=200, random_state=0)
    assert _close(again.low, estimate.low) and _close(again.high, estimate.high), (
        f"{name}.estimate is not repeatable under random_state."
    )
