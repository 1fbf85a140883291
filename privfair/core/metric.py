"""The contract of every metric: one call for the value, one for the value with its interval."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from privfair.core.estimate import Estimate
from privfair.core.events import LedgerLike
from privfair.core.privacy import Budget

__all__ = ["Metric"]


class Metric(ABC):
    """Base class of metrics.

    Instances are picklable module constants. They work as plain functions, so that
    :func:`sklearn.metrics.make_scorer` and :class:`fairlearn.metrics.MetricFrame` take them.

    Parameters
    ----------
    name : str
        A stable identifier, a valid Python name.
    optimum : float or None
        The best value, where there is one.
    direction : {"lower", "higher", "none"}
        Which way is better.
    range : tuple of float
        Smallest and largest possible value.
    requires : iterable of str
        Among ``y_true``, ``y_pred``, ``y_score``, ``sensitive_features`` and column names.
    references : tuple of str
        Author, year, identifier.
    """

    together: Callable[..., Sequence[Estimate]] | None = None
    """Estimates several metrics from one result: ``together(metrics, y_true=..., ...)``.

    For metrics that are numbers of one expensive or private computation; None for others.
    """

    options: frozenset[str] = frozenset()
    """Further keywords that ``together`` takes."""

    def __init__(
        self,
        name: str,
        *,
        optimum: float | None = None,
        direction: str = "none",
        range: tuple[float, float] = (0.0, 1.0),
        requires: Sequence[str] = ("y_true", "y_pred"),
        references: Sequence[str] = (),
        definition: str = "",
    ) -> None:
        self.name = name
        self.__name__ = name
        self.optimum = optimum
        self.direction = direction
        self.range = range
        self.requires = frozenset(requires)
        self.references = tuple(references)
        self.definition = definition

    @abstractmethod
    def __call__(
        self,
        y_true: Any,
        y_pred: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
        pos_label: Any = 1,
        **columns: Any,
    ) -> float:
        """Return the value; NaN where the data do not determine it."""

    @abstractmethod
    def estimate(
        self,
        y_true: Any,
        y_pred: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
        pos_label: Any = 1,
        confidence: float = 0.95,
        n_resamples: int = 2000,
        random_state: Any = None,
        privacy: Budget | None = None,
        groups: Any = None,
        ledger: LedgerLike | None = None,
        **columns: Any,
    ) -> Estimate:
        """Return the value with its interval.

        With ``privacy`` the metric is computed from tables released under differential privacy,
        and the interval covers that noise; ``groups`` must then list the groups, as public
        knowledge, and ``ledger`` is charged before the data are read.
        """

    def from_table(self, table: Any, **options: Any) -> Estimate:
        """Return the estimate from a table of group counts, where the metric needs no more."""
        raise TypeError(f"{self.name} needs more than a table of group counts.")

    def __repr__(self) -> str:
        return f"<metric {self.name}>"
