"""Frequencies with their intervals, from counts of supporting reports."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core._format import json_number
from privfair.core.estimate import Estimate
from privfair.ldp._protocol import mapped_interval

if TYPE_CHECKING:
    import pandas as pd

    from privfair.ldp._protocol import FrequencyProtocol

__all__ = ["FrequencyEstimate", "estimate_frequencies", "estimate_from_law"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FrequencyEstimate:
    """Estimated frequencies of a public list of values.

    Attributes
    ----------
    values : tuple
        The values, in the order of the domain.
    frequencies : ndarray, shape (k,)
        As post-processed, or raw.
    frequencies_raw : ndarray, shape (k,)
        Unbiased; may be negative and need not sum to one.
    ci_low, ci_high : ndarray, shape (k,)
        Interval of each raw estimate; never clipped, never made from post-processed values.
    std : ndarray, shape (k,)
        Estimated standard deviation of the raw estimates, for the users who reported.
    n : int
        Number of reports.
    confidence : float
    simultaneous : bool
        Whether all intervals together hold with that confidence.
    postprocess : str or None
    details : dict
        Protocol, and how iterative estimates ended.
    """

    values: tuple[Any, ...]
    frequencies: Floats
    frequencies_raw: Floats
    ci_low: Floats
    ci_high: Floats
    std: Floats
    n: int
    confidence: float
    simultaneous: bool = False
    postprocess: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per value: value, frequency, raw estimate, interval, deviation."""
        import pandas as pd

        return pd.DataFrame(
            {
                "value": list(self.values), "frequency": self.frequencies,
                "raw": self.frequencies_raw, "low": self.ci_low, "high": self.ci_high,
                "std": self.std,
            }
        )  # fmt: skip

    def to_estimates(self, name: str = "frequency") -> list[Estimate]:
        """Return one estimate per value, with the raw value and its interval."""
        method = "Clopper-Pearson on supporting reports, mapped to frequencies"
        return [
            Estimate(
                f"{name}.{v}", float(f), float(a), float(b), confidence=self.confidence, n=self.n,
                method=method,
            )
            for v, f, a, b in zip(
                self.values, self.frequencies_raw, self.ci_low, self.ci_high, strict=True
            )
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""

        def listed(array: Floats) -> list[Any]:
            return [json_number(float(x)) for x in array]

        return {
            "values": [v if isinstance(v, int | float | str | bool) else str(v)
                       for v in self.values],
            "frequencies": listed(self.frequencies),
            "frequencies_raw": listed(self.frequencies_raw),
            "low": listed(self.ci_low),
            "high": listed(self.ci_high),
            "std": listed(self.std),
            "n": self.n,
            "confidence": self.confidence,
            "simultaneous": self.simultaneous,
            "postprocess": self.postprocess,
            "details": dict(self.details),
        }  # fmt: skip

    def _repr_html_(self) -> str:
        cells = "".join(
            f'<tr><th scope="row">{html.escape(str(v))}</th><td>{f:.4g}</td>'
            f"<td>{a:.4g} to {b:.4g}</td></tr>"
            for v, f, a, b in zip(
                self.values, self.frequencies, self.ci_low, self.ci_high, strict=True
            )
        )
        head = '<tr><th scope="col">value</th><th scope="col">frequency</th>'
        head += f'<th scope="col">{100 * self.confidence:g} % interval</th></tr>'
        return f"<table><caption>{self.n:,} reports</caption>{head}{cells}</table>"

    def plot(self, ax: Any = None, *, top: int = 40) -> Any:
        """Draw the most frequent values with their intervals.

        Parameters
        ----------
        ax : matplotlib axes or None
            Where to draw; None makes a figure of its own.
        top : int, default=40
            How many values.

        Returns
        -------
        matplotlib axes
        """
        order = np.argsort(-self.frequencies, kind="stable")[: check.positive_int(top=top)][::-1]
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(7, 1.2 + 0.24 * len(order))).add_subplot()
        at = np.arange(len(order))
        ax.hlines(at, self.ci_low[order], self.ci_high[order], color="#4477aa", linewidth=2)
        ax.plot(self.frequencies[order], at, "o", color="#4477aa", label="estimate")
        ax.plot(self.frequencies_raw[order], at, "|", color="0.3", label="raw")
        ax.set_yticks(at, [str(self.values[i]) for i in order], parse_math=False)
        ax.axvline(0, color="0.6", linewidth=0.8)
        ax.set_xlabel(f"frequency, {100 * self.confidence:g} % intervals")
        ax.legend()
        return ax


def estimate_frequencies(
    protocol: FrequencyProtocol,
    support: NDArray[np.int64],
    n: int,
    *,
    values: Sequence[Any] | None = None,
    confidence: float = 0.95,
    simultaneous: bool = False,
    interval: str = "clopper_pearson",
    trials: NDArray[np.int64] | None = None,
) -> FrequencyEstimate:
    """Return raw estimates with intervals from support counts.

    For given users the count is Poisson-binomial, less dispersed than the binomial that the
    interval assumes, so that it covers at least as often as it says. ``trials`` is how many of
    the n reports say something about each value; None stands for all of them.
    """
    about = np.full(protocol.k, n, dtype=np.int64) if trials is None else trials
    p, q = protocol.p_, protocol.q_
    raw = protocol.frequencies(support, about)
    deviation = np.sqrt(protocol.variance_given(np.clip(raw, 0.0, 1.0), about, n))
    return _with_intervals(
        protocol.interval, support, about, n, raw, np.asarray(deviation), values, confidence,
        simultaneous, interval,
        {"protocol": protocol.name, "epsilon": protocol.epsilon, "p": p, "q": q},
    )  # fmt: skip


def estimate_from_law(
    p: Floats,
    q: Floats,
    support: NDArray[np.int64],
    n: int,
    *,
    values: Sequence[Any] | None = None,
    confidence: float = 0.95,
    simultaneous: bool = False,
    interval: str = "clopper_pearson",
    details: dict[str, Any] | None = None,
) -> FrequencyEstimate:
    """Return raw estimates where a report supports value v with chance p[v] or q[v].

    As :func:`estimate_frequencies`, for laws that differ between values.
    """
    raw = (np.asarray(support, dtype=float) / n - q) / (p - q)
    share = np.clip(raw, 0.0, 1.0)
    spread = share * p * (1 - p) + (1 - share) * q * (1 - q)
    about = np.full(len(support), n, dtype=np.int64)

    def bounds(
        support: NDArray[np.int64], about: NDArray[np.int64], *, confidence: float, method: str
    ) -> tuple[Floats, Floats]:
        return mapped_interval(p, q, support, about, confidence, method)

    return _with_intervals(
        bounds, support, about, n, raw, np.sqrt(spread / (n * (p - q) ** 2)), values, confidence,
        simultaneous, interval, dict(details or {}),
    )  # fmt: skip


def _with_intervals(
    bounds: Callable[..., tuple[Floats, Floats]],
    support: NDArray[np.int64],
    about: NDArray[np.int64],
    n: int,
    raw: Floats,
    deviation: Floats,
    values: Sequence[Any] | None,
    confidence: float,
    simultaneous: bool,
    interval: str,
    details: dict[str, Any],
) -> FrequencyEstimate:
    level = check.confidence(confidence=confidence)
    check.one_of(("clopper_pearson", "wilson"), interval=interval)
    k = len(support)
    # Counts of one report depend on each other: only Bonferroni's bound always holds.
    each = 1.0 - (1.0 - level) / k if simultaneous else level
    low, high = bounds(support, about, confidence=each, method=interval)
    return FrequencyEstimate(
        values=tuple(range(k)) if values is None else tuple(values),
        frequencies=raw,
        frequencies_raw=raw,
        ci_low=low,
        ci_high=high,
        std=deviation,
        n=int(n),
        confidence=level,
        simultaneous=simultaneous,
        details=details,
    )
