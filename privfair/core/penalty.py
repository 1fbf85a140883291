"""Fairness penalties for training, and the form in which a private trainer accepts them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from privfair.core.exceptions import AccountingAssumptionError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BoundedPenalty", "Penalty", "check_dp_compatible", "coupled_part"]


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

    Notes
    -----
    Three methods are optional. ``encode_sensitive(sensitive_features) -> ndarray of int64`` turns
    the caller's columns into one number for each record, from declared groups only; without it
    the trainer takes the labels present as public. ``observe_noise(std)`` is told the standard
    deviation of the noise in what ``absorb`` will get, and ``observe_steps(steps)`` how many steps
    the run will have: public constants both.
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


def check_dp_compatible(penalty: Any, *, n_sensitive: int = 1) -> BoundedPenalty:
    """Return the penalty if a private trainer may use it, else say why it may not.

    Parameters
    ----------
    penalty : object
        What the caller gave.
    n_sensitive : int, default=1
        Number of sensitive columns of the made-up rows on which ``decomposable=True`` is put to
        the test (:func:`coupled_part`).

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
        part = coupled_part(penalty, n_sensitive=n_sensitive)
        if part is None:
            return penalty
        raise AccountingAssumptionError(
            f"{name} says decomposable=True, and {name}.{part} of one record depends on another "
            "record of the batch: clipping would not bound one record's influence, and no epsilon "
            "would be valid. Compute each row from that record and from absorbed sums only."
        )
    raise AccountingAssumptionError(
        f"{name} cannot be trained under differential privacy: it is a batch-level penalty "
        "(decomposable=False, or without features / absorb / weights), and clipping per-record "
        "gradients does not bound one record's influence on it. Use a penalty that implements "
        "privfair.core.BoundedPenalty, or epsilon=float('inf')."
    )


def coupled_part(penalty: BoundedPenalty, *, n_sensitive: int = 1) -> str | None:
    """Return which method lets one record move another's row, or None if none was seen to.

    Parameters
    ----------
    penalty : BoundedPenalty
        Used on a copy; left alone if it cannot be copied.
    n_sensitive : int, default=1
        Number of sensitive columns.

    Returns
    -------
    str or None
        ``"features"`` or ``"weights"``, or None. A penalty that raises on the made-up rows is
        not judged.

    Notes
    -----
    A probe, no proof: one record of made-up batches is changed in its score, group and label,
    and left out, before and after a made-up aggregate is absorbed. Whether ``decomposable=True``
    is true of every batch stays an assumption, and certificates list it. Reads no data.
    """
    import torch

    own = copy.deepcopy(penalty)
    if own is penalty:
        return None
    try:
        found = _coupled(own, n_sensitive)
        if found is None:
            size = int(own.n_features)
            own.absorb(torch.linspace(0.1, 0.4, size, dtype=torch.float64))
            found = _coupled(own, n_sensitive)
    except Exception:  # it wants other rows than these (its own groups, say)
        return None
    return found


def _coupled(penalty: BoundedPenalty, n_sensitive: int) -> str | None:
    import torch

    n = 12
    middle = torch.linspace(0.3, 0.7, n, dtype=torch.float64)
    mixed = torch.arange(n) % 2
    for scores, group, label in (
        (middle, mixed, mixed.flip(0)),
        (torch.full_like(middle, 0.05), torch.zeros_like(mixed), torch.zeros_like(mixed)),
        (torch.full_like(middle, 0.95), torch.ones_like(mixed), torch.ones_like(mixed)),
    ):
        changed = [scores.clone(), group.clone(), label.clone()]
        changed[0][0], changed[1][0], changed[2][0] = 1 - scores[0], 1 - group[0], 1 - label[0]
        absent = [scores[1:], group[1:], label[1:]]
        for part in ("features", "weights"):
            rows = _rows(penalty, part, [scores, group, label], n_sensitive)[1:]
            other = _rows(penalty, part, changed, n_sensitive)[1:]
            fewer = _rows(penalty, part, absent, n_sensitive)
            for seen in (other, fewer):
                if not torch.allclose(rows, seen, rtol=1e-6, atol=1e-12, equal_nan=True):
                    return part
    return None


def _rows(penalty: BoundedPenalty, part: str, batch: list[Tensor], n_sensitive: int) -> Tensor:
    scores, group, label = batch
    sensitive = group if n_sensitive == 1 else group[:, None].repeat(1, n_sensitive)
    rows: Tensor = getattr(penalty, part)(scores, sensitive, y=label)
    return rows.detach().double()
