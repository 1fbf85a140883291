"""Which batch size: the same budget and the same passes over the data, for several sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from privfair.accounting import _plan
from privfair.accounting import events as ev
from privfair.accounting.calibration import calibrate_noise_multiplier
from privfair.core import _validation as check
from privfair.core._format import json_safe
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError

__all__ = ["BatchPlan", "plan_batch"]

_SMALLEST = 64  # of the batch sizes that are tried when none are given
_MOST_SIZES = 64


@dataclass(frozen=True)
class BatchPlan:
    """One row of :func:`plan_batch`.

    Attributes
    ----------
    batch_size : int
        Expected number of records in a batch, ``B``.
    sample_rate : float
        ``B / n``.
    steps : int
        Number of steps for the passes asked for.
    noise_multiplier : float
        Noise standard deviation in units of the clipping norm.
    effective_noise : float
        ``noise_multiplier / B``: noise on the averaged gradient of one step, in units of the
        clipping norm.
    """

    batch_size: int
    sample_rate: float
    steps: int
    noise_multiplier: float
    effective_noise: float

    def event(self) -> ev.AccountedEvent:
        """Return what training with this row does to the data."""
        step = ev.PoissonSampled(self.sample_rate, ev.Gaussian(self.noise_multiplier))
        return ev.SelfComposed(step, self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as strict JSON data."""
        return {name: json_safe(value) for name, value in asdict(self).items()}


def plan_batch(
    *,
    epsilon: float,
    delta: float,
    dataset_size: int,
    epochs: float,
    batch_sizes: Iterable[int] | None = None,
    neighboring: str = "zero_out",
    extra_events: Any = (),
) -> tuple[BatchPlan, ...]:
    """Return what each batch size costs in noise, at one budget and one number of passes.

    Parameters
    ----------
    epsilon : float
        Above 0 and finite.
    delta : float
        In (0, 1).
    dataset_size : int
        Public number of records, at least 1.
    epochs : float
        Expected number of times that each record is used, above 0. A size gets
        ``round(epochs * n / B)`` steps, at least one.
    batch_sizes : iterable of int or None, default=None
        Expected batch sizes, each between 1 and ``dataset_size``; at most 64 of them. None tries
        64, 256, 1024, ... and the full batch.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        The relation.
    extra_events : event or sequence of events, default=()
        Other charges against the same budget, accounted jointly with each size.

    Returns
    -------
    tuple of BatchPlan
        In ascending order of the batch size.

    Raises
    ------
    InvalidParameterError
        A batch size is above ``dataset_size``, or there are too many.
    InvalidBudgetError
        The extra events leave nothing.

    Notes
    -----
    Reads no data. With the passes fixed, a larger batch means fewer steps and less effective
    noise in each, at the same number of gradients computed; it also means fewer updates, which
    is the price. One calibration for each size (:func:`calibrate_noise_multiplier`).

    References
    ----------
    De, Berrada, Hayes, Smith, Balle 2022, arXiv:2204.13650.

    Examples
    --------
    >>> rows = plan_batch(epsilon=1.0, delta=1e-5, dataset_size=32561, epochs=20,
    ...                   batch_sizes=[1024, 32561])
    >>> [(row.batch_size, row.steps, round(row.noise_multiplier, 2)) for row in rows]
    [(1024, 636, 3.1), (32561, 20, 16.68)]
    """
    epsilon = check.epsilon(epsilon=epsilon)
    delta = check.delta(delta=delta)
    n = check.positive_int(dataset_size=dataset_size)
    passes = check.positive(epochs=epochs)
    extras = _plan.as_events(extra_events) if extra_events else ()
    rows = []
    for size in _sizes(batch_sizes, n):
        steps = max(1, round(passes * n / size))
        sigma = calibrate_noise_multiplier(
            epsilon=epsilon,
            delta=delta,
            sample_rate=size / n,
            steps=steps,
            neighboring=neighboring,
            extra_events=extras,
        )
        rows.append(BatchPlan(size, size / n, steps, sigma, sigma / size))
    return tuple(rows)


def _sizes(given: Iterable[int] | None, n: int) -> list[int]:
    if given is None:
        top = max(0, math.ceil(math.log(n / _SMALLEST, 4))) if n > _SMALLEST else 0
        return sorted({*(_SMALLEST * 4**k for k in range(top)), n})
    if isinstance(given, str | bytes | dict) or not isinstance(given, Iterable):
        raise InvalidTypeError(
            f"batch_sizes must be a sequence of integers, got {type(given).__name__}."
        )
    sizes = sorted({check.positive_int(batch_sizes=size) for size in given})
    if not 0 < len(sizes) <= _MOST_SIZES:
        raise InvalidParameterError(
            f"batch_sizes must hold 1 to {_MOST_SIZES} sizes, got {len(sizes)}: each of them is "
            "a calibration of its own."
        )
    if sizes[-1] > n:
        raise InvalidParameterError(
            f"batch_sizes must be at most dataset_size={n}, got {sizes[-1]}: no more records than "
            "there are can be expected in a batch."
        )
    return sizes
