"""What the estimators that are private and fair share: the penalty from their parameters."""

from __future__ import annotations

import copy
from typing import Any, Self

from numpy.typing import ArrayLike

from privfair.core import _validation as check
from privfair.core.penalty import BoundedPenalty, check_dp_compatible
from privfair.fairness.dcov._kernels import KINDS
from privfair.fairness.dcov._surrogate import BoundedDistanceCovariance
from privfair.training import BasePrivateEstimator

__all__ = ["SHOWN", "FairParts"]

SHOWN = (
    "sigma_gradient_",
    "sigma_features_",
    "sigma_effective_",
    "steps_",
    "pooled_cells_",
)
"""Fitted attributes beside those of every private estimator."""


class FairParts(BasePrivateEstimator):
    """The fit, the penalty from the parameters, and what the fit shows of it."""

    unit = "record"
    groups: Any
    lambda_: float
    penalty: Any
    c: float
    group_weighting: float
    n_frequencies: int
    ema: float
    cells: Any
    attribute_weights: Any

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sensitive_features: Any = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train, having charged the ledger first.

        Parameters
        ----------
        X : data frame or array of shape (n_rows, n_columns)
            pandas, polars or numpy.
        y : array-like of shape (n_rows,)
            Labels of two classes for a classifier. For a regressor finite numbers; those outside
            ``target_range`` count as lying at its nearer end.
        sensitive_features : array-like or data frame, default=None
            The declared columns, one row per record; needed unless ``lambda_=0``. Not needed to
            predict.
        sample_weight : array-like of shape (n_rows,), default=None
            Finite, at least 0: factor of each record's loss, applied before clipping. It must
            depend on that record and on public knowledge only.

        Returns
        -------
        self : object

        Raises
        ------
        InvalidParameterError
            A parameter is out of its range, or a regressor's ``target_range`` is missing.
        AccountingAssumptionError
            The penalty has no bounded per-record form, or the groups are not declared.
        BudgetExceededError
            The ledger's cap would be passed; the data were not read.
        SchemaError, DataError
            The data cannot be used. Nothing is spent.
        """
        self._fit(X, y, sensitive_features, sample_weight)
        return self

    def _penalty(self) -> Any:
        """Return the penalty of the fit, or None where its weight is zero."""
        strength = check.non_negative(lambda_=self.lambda_)
        if isinstance(self.penalty, str):
            if strength == 0.0 and self.groups is None:
                check.one_of(KINDS, penalty=self.penalty)
                return None
            made = BoundedDistanceCovariance(
                self.groups,
                kind=check.one_of(KINDS, penalty=self.penalty),
                c=self.c,
                strength=strength,
                group_weighting=self.group_weighting,
                n_frequencies=self.n_frequencies,
                ema=self.ema,
                weights=self.attribute_weights,
                cells=self.cells,
            )
        else:
            made = _scaled(check_dp_compatible(self.penalty), strength)
        return made if strength else None

    def __sklearn_is_fitted__(self) -> bool:
        # The name of the parameter lambda_ ends like that of a fitted attribute.
        return hasattr(self, "module_")

    def _take_from_penalty(self, penalty: Any) -> None:
        self.pooled_cells_ = tuple(getattr(penalty, "pooled_cells", ()))

    def _show(self) -> None:
        plan = self.plan_
        self.sigma_gradient_ = plan.noise_multiplier or 0.0
        statistic = plan.statistic
        self.sigma_features_ = 0.0 if statistic is None else statistic.noise_multiplier
        self.sigma_effective_ = plan.effective_noise_multiplier or 0.0
        self.steps_ = plan.steps
        if not hasattr(self, "pooled_cells_"):
            self.pooled_cells_ = ()

    def _finish(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__.pop("pooled_cells_", None)
        super()._finish(*args, **kwargs)
        self._show()


def _scaled(penalty: BoundedPenalty, factor: float) -> Any:
    """Return a bounded penalty at another strength; the one given stays as it is."""
    made: Any = copy.copy(penalty)
    made.strength = factor * float(getattr(penalty, "strength", 1.0))
    return made
