"""Fairness penalties for training, and the form in which a private trainer accepts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from privfair.core.exceptions import AccountingAssumptionError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BoundedPenalty", "Penalty", "check_dp_compatible"]


@runtime_checkable
class Penalty(Protocol):
    """A differentiable measure of dependence between scores and sensitive features.

    Attributes
    ----------
    decomposable : bool
        Whether the penalty is a sum of per-record terms, so that clipping bounds one record's
        influence on it. A batch-level penalty has ``decomposable=False`` and is refused by
        private trainers.
    requires : frozenset of str
        Columns needed besides scores and sensitive features, e.g. ``{"y"}``.
    """

    decomposable: bool
    requires: frozenset[str]

    def __call__(
        self,
        scores: Tensor,
        sensitive: Tensor,
        *,
        y: Tensor | None = None,
        sample_weight: Tensor | None = None,
        **columns: Any,
    ) -> Tensor:
        """Return the penalty of a batch as a 0-d tensor."""
        ...


@runtime_checkable
class BoundedPenalty(Penalty, Protocol):
    """A penalty with a per-record surrogate of bounded contribution.

    At each step the trainer releases the noisy sum of ``features`` (accounted on the same batch
    as the gradient), hands it to ``absorb`` divided by the public batch constant, and adds
    ``strength * weights_i * scores_i`` to record i's loss. The weights depend on released
    aggregates only, so that per-record clipping bounds one record's influence.

    Attributes
    ----------
    n_features : int
        Width of the statistic.
    feature_bound : float
        Largest L2 norm of one record's row of ``features``.
    """

    n_features: int
    feature_bound: float

    def features(
        self, scores: Tensor, sensitive: Tensor, *, y: Tensor | None = None, **columns: Any
    ) -> Tensor:
        """Return the statistic of each record, shape (batch, n_features)."""
        ...

    def absorb(self, noisy_sum_over_B: Tensor) -> None:
        """Take in the released aggregate, shape (n_features,)."""
        ...

    def weights(
        self, scores: Tensor, sensitive: Tensor, *, y: Tensor | None = None, **columns: Any
    ) -> Tensor:
        """Return the weight of each record's score, shape (batch,), without gradient."""
        ...


def check_dp_compatible(penalty: Any) -> BoundedPenalty:
    """Return the penalty if a private trainer may use it, else say why it may not.

    Raises
    ------
    AccountingAssumptionError
        If the penalty has no bounded per-record form. A batch-level penalty couples the records
        of a batch: clipping each record's gradient does not bound how one record moves the
        others' terms, so that no epsilon would be valid.

    Examples
    --------
    >>> check_dp_compatible(abs)
    Traceback (most recent call last):
        ...
    privfair.core.exceptions.AccountingAssumptionError: abs cannot be trained ...
    """
    name = getattr(penalty, "__name__", type(penalty).__name__)
    if isinstance(penalty, BoundedPenalty) and penalty.decomposable:
        return penalty
    raise AccountingAssumptionError(
        f"{name} cannot be trained under differential privacy: it is a batch-level penalty "
        "(decomposable=False, or without features / absorb / weights), and clipping per-record "
        "gradients does not bound one record's influence on it. Use a penalty that implements "
        "privfair.core.BoundedPenalty, or epsilon=float('inf')."
    )
