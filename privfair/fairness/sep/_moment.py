"""Algorithm B: socio-economic parity as a moment for fairlearn's reductions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from fairlearn.reductions import ClassificationMoment, ErrorRate

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, LabelError
from privfair.core.frames import as_vector
from privfair.fairness.sep._constraints import Constraints, check_sizes
from privfair.fairness.sep._sets import read_sets

__all__ = ["SEPMoment"]


class SEPMoment(ClassificationMoment):
    r"""Socio-economic parity for ``fairlearn.reductions``.

    The constraints :math:`E[h \mid R] - E[h \mid G_j] \le` ``tolerance`` compare each target set
    with a reference set that contains it; fairlearn's own moments compare groups that do not
    overlap. They hold for the randomised classifier's hard decisions, with any base learner that
    takes weights, trees included.

    Parameters
    ----------
    ses : SESRule, CompositeSES or None, default=None
        Who is underprivileged; None takes ``ses_features`` as one boolean for each row.
    effort : EffortRule or None, default=None
        Who shows effort (CSEP); None is SEP.
    tolerance : float, default=0.01
        Largest gap, at least 0.
    one_sided : bool, default=True
        Whether only gaps to the disadvantage of the target set count.
    reference : {"conditional", "overall"}, default="conditional"
    protected : {"groups", "all"}, default="groups"
    floors : mapping or None, default=None
        Smallest selection rate of each target set, by name: no levelling down below those of an
        unconstrained model, say.
    min_group : int, default=30
    label_columns : sequence of str

    Notes
    -----
    ``ExponentiatedGradient(estimator, SEPMoment(...)).fit(X, y, sensitive_features=S,
    ses_features=P, effort_features=E)``; ``GridSearch`` takes it too, and walks along the gaps,
    not along floors. The labels are 0 and 1. For a multiplier :math:`\lambda_j \ge 0` of
    :math:`\gamma_j(h) = \sum_i A_{ji} h_i` the signed weight of row i
    is :math:`-n \sum_j \lambda_j A_{ji}`, added to those of the error.

    References
    ----------
    Agarwal, Beygelzimer, Dudik, Langford, Wallach 2018, arXiv 1803.02453. Roy et al. 2025, arXiv
    2503.23056.

    Examples
    --------
    >>> import numpy as np
    >>> moment = SEPMoment(tolerance=0.05, min_group=1)
    >>> moment.load_data(np.zeros((4, 1)), [1, 1, 0, 0], sensitive_features=list("aabb"),
    ...                  ses_features=[True, False, True, False])
    >>> moment.gamma(lambda X: np.array([1, 1, 0, 0])).round(2).to_dict()
    {('gap', 'a'): -0.5, ('gap', 'b'): 0.5}
    """

    short_name = "SEP"
    default_objective_lambda_vec = None  # no multiplier of a gap is the error rate

    def __init__(
        self,
        *,
        ses: Any = None,
        effort: Any = None,
        tolerance: float = 0.01,
        one_sided: bool = True,
        reference: str = "conditional",
        protected: str = "groups",
        floors: Mapping[str, float] | None = None,
        min_group: int = 30,
        label_columns: Any = (),
    ) -> None:
        super().__init__()
        self.ses = ses
        self.effort = effort
        self.tolerance = check.non_negative(tolerance=tolerance)
        self.one_sided = check.boolean(one_sided=one_sided)
        self.reference = reference
        self.protected = check.one_of(("groups", "all"), protected=protected)
        self.floors = floors
        self.min_group = check.non_negative_int(min_group=min_group)
        self.label_columns = label_columns

    def load_data(
        self,
        X: Any,
        y: Any,
        *,
        sensitive_features: Any = None,
        ses_features: Any = None,
        effort_features: Any = None,
        sample_weight: Any = None,
    ) -> None:
        """Take in the training rows; fairlearn calls this on a copy.

        Parameters
        ----------
        X : array or table
        y : array-like of 0 and 1
        sensitive_features, ses_features, effort_features : array-like or table
        sample_weight : None
            Not supported by the reduction.
        """
        if sample_weight is not None:
            raise InvalidParameterError(
                "sample_weight is not supported: the reduction makes weights of its own. Use "
                "method='auglag', or leave the weights out."
            )
        labels = as_vector(y, name="y")
        if not set(np.unique(labels).tolist()) <= {0, 1}:
            raise LabelError("y must hold 0 and 1 for a reduction.")
        super().load_data(X, pd.Series(labels.astype(int)))
        condition = self.effort
        if condition is None and effort_features is not None:
            condition = effort_features
        sets = read_sets(
            sensitive_features, self.ses, effort=condition, ses_features=ses_features,
            effort_features=effort_features, reference=self.reference,
            everyone=self.protected == "all", y_true=labels, label_columns=self.label_columns,
            rows=labels,
        )  # fmt: skip
        check_sizes(sets, self.min_group, stacklevel=4)
        floor = None
        if self.floors is not None:
            missing = [name for name in sets.names if name not in self.floors]
            if missing:
                raise InvalidParameterError(f"floors has no rate for {', '.join(missing)}.")
            floor = np.array([float(self.floors[name]) for name in sets.names])
        self.constraints_ = Constraints.build(
            sets, np.ones(len(labels)), tolerance=self.tolerance, one_sided=self.one_sided,
            floor=floor,
        )  # fmt: skip
        self._index = pd.MultiIndex.from_tuples(self.constraints_.names, names=["sign", "target"])
        self._basis()

    def _basis(self) -> None:
        """Lay down the directions of multipliers that ``GridSearch`` walks along.

        One for each target set: towards its gap, and the other way towards the reverse gap where
        that is limited too. A floor points the way its gap does.
        """
        at = {name: place for place, name in enumerate(self.constraints_.names)}
        targets = [target for sign, target in self.constraints_.names if sign == "gap"]
        shape = (len(at), len(targets))
        positive, negative = np.zeros(shape), np.zeros(shape)
        for j, target in enumerate(targets):
            positive[at[("gap", target)], j] = 1.0
            if ("reverse", target) in at:
                negative[at[("reverse", target)], j] = 1.0
        self.pos_basis = pd.DataFrame(positive, index=self._index)
        self.neg_basis = pd.DataFrame(negative, index=self._index)
        self.neg_basis_present = pd.Series([not self.one_sided] * len(targets), dtype=bool)

    @property
    def index(self) -> pd.MultiIndex:
        """The constraints: kind and target set."""
        return self._index

    def default_objective(self) -> ErrorRate:
        """Return the error rate."""
        return _Objective()

    def gamma(self, predictor: Callable[[Any], Any]) -> pd.Series:
        """Return ``A h`` for a predictor's decisions.

        Parameters
        ----------
        predictor : callable
        """
        h = np.asarray(predictor(self.X), dtype=float).reshape(-1)
        return pd.Series(self.constraints_.matrix @ h, index=self.index)

    def bound(self) -> pd.Series:
        """Return the bound of every constraint."""
        return pd.Series(self.constraints_.bound, index=self.index)

    def project_lambda(self, lambda_vec: pd.Series) -> pd.Series:
        """Return the multipliers; of a gap and its reverse only the difference is kept."""
        if self.one_sided:
            return lambda_vec
        projected = lambda_vec.astype(float).copy()
        both = np.minimum(projected["gap"], projected["reverse"])
        for sign in ("gap", "reverse"):
            for target, value in both.items():
                projected[(sign, target)] -= value
        return projected

    def signed_weights(self, lambda_vec: pd.Series) -> pd.Series:
        """Return what a positive decision of each row is worth under the multipliers.

        Parameters
        ----------
        lambda_vec : pandas.Series
            Multipliers, indexed by ``index``.
        """
        prices = lambda_vec.reindex(self.index).to_numpy(dtype=float)
        value = -self.total_samples * self.constraints_.gradient(prices)
        return pd.Series(value, index=self.tags.index)


class _Objective(ErrorRate):
    """The error rate; ``GridSearch`` hands it the sensitive features, which it does not need."""

    def load_data(self, X: Any, y: Any, **attributes: Any) -> None:
        ClassificationMoment.load_data(self, X, pd.Series(as_vector(y, name="y").astype(int)))
        self._index = ["all"]
