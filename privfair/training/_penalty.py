"""From a fairness penalty to the engine's one hook."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privfair.core.exceptions import (
    InvalidParameterError,
    MissingSensitiveFeatureError,
    SensitiveFeatureError,
)
from privfair.core.frames import as_table, missing_mask
from privfair.core.penalty import BoundedPenalty, Penalty, check_dp_compatible
from privfair.training._losses import RecordLoss
from privfair.training._statistic import BatchStatistic, BatchView

__all__ = ["check_penalty", "encode_sensitive", "penalty_statistic"]


PER_RECORD = (
    "the penalty treats records one by one: a record's features and weight depend on that record "
    "and on released sums only"
)
"""What a private run takes the penalty's word for; made-up rows test it before the charge."""

DECLARED = "the groups that the penalty distinguishes are declared, not read off these records"
"""What holds for a penalty that encodes sensitive features by itself, from its own parameters."""


def check_penalty(penalty: Any, *, private: bool, n_sensitive: int = 1) -> None:
    """Refuse what is no penalty, and under privacy what has no bounded per-record form."""
    if private:
        check_dp_compatible(penalty, n_sensitive=n_sensitive)
    elif not isinstance(penalty, Penalty):
        raise InvalidParameterError(
            "fairness_penalty must implement privfair.core.Penalty or BoundedPenalty, got "
            f"{type(penalty).__name__}."
        )


def encode_sensitive(values: Any, penalty: Any = None) -> tuple[NDArray[Any], list[str]]:
    """Return sensitive features as numbers, and the names of those that were labels.

    A column of labels becomes the position of each label in the sorted list of labels; numeric
    columns stay as they are. A penalty with a method ``encode_sensitive`` knows its groups and
    does this itself.

    Parameters
    ----------
    values : array-like, data frame or mapping
    penalty : object or None, default=None

    Returns
    -------
    codes : ndarray, shape (n_rows,) for one column, else (n_rows, n_columns)
        int64 where every column is made of integers or labels, else float32.
    labelled : list of str
        Columns whose list of labels was read from the data.

    Raises
    ------
    MissingSensitiveFeatureError
        If a value is missing.
    """
    if hasattr(penalty, "encode_sensitive"):
        return np.asarray(penalty.encode_sensitive(values)), []
    table = as_table(values, name="sensitive_features", prefix="s")
    columns, labelled = [], []
    for name in table.columns:
        column = table.column(name)
        if missing_mask(column).any():
            raise MissingSensitiveFeatureError(
                f"sensitive feature {name!r} has missing values. Give them a label of their own, "
                "such as 'missing', or drop those rows."
            )
        if column.dtype.kind == "f":
            if not np.isfinite(column).all():
                raise SensitiveFeatureError(f"sensitive feature {name!r} has infinite values.")
            columns.append(column)
        elif column.dtype.kind in "iub":
            columns.append(column.astype(np.int64))
        else:
            columns.append(np.unique(column.astype(str), return_inverse=True)[1])
            labelled.append(name)
    real = any(column.dtype.kind == "f" for column in columns)
    codes = np.stack(columns, axis=1).astype(np.float32 if real else np.int64)
    return (codes[:, 0] if codes.shape[1] == 1 else codes), labelled


def penalty_statistic(
    penalty: Any,
    loss: RecordLoss,
    noise_multiplier: float | None,
    batch: int,
    steps: int | None = None,
) -> BatchStatistic:
    """Return the hook through which a penalty acts on a run.

    Parameters
    ----------
    penalty : BoundedPenalty or Penalty
        The run's own copy: ``absorb`` changes it. A batch-level penalty is accepted without
        privacy only. ``observe_noise``, if it has that, is told the standard deviation of the
        noise in what ``absorb`` gets.
    loss : RecordLoss
        Must have a score.
    noise_multiplier : float or None
        None for a run without privacy.
    batch : int
        The public batch constant.
    steps : int or None, default=None
        The public number of steps, which ``observe_steps``, if the penalty has that, is told.
    """
    if getattr(loss, "n_outputs", 1) != 1:
        raise InvalidParameterError(
            "fairness_penalty needs a single score per record; with more than two classes there "
            "is none. Train one classifier per class, or leave the penalty out."
        )
    own = penalty
    strength = float(getattr(own, "strength", 1.0))
    if isinstance(own, BoundedPenalty) and own.decomposable:
        if hasattr(own, "observe_noise"):
            own.observe_noise((noise_multiplier or 0.0) * float(own.feature_bound) / batch)
        if steps is not None and hasattr(own, "observe_steps"):
            own.observe_steps(steps)
        return BatchStatistic(
            features=lambda view: own.features(view.scores, view.sensitive, y=view.y),
            bound=float(own.feature_bound),
            noise_multiplier=noise_multiplier or float("inf"),
            n_features=int(own.n_features),
            absorb=own.absorb,
            score_weights=lambda scores, s, y: strength * own.weights(scores, s, y=y),
        )

    def slope(scores: Tensor, sensitive: Any, y: Tensor) -> Tensor:
        """Return the derivative of the batch's penalty at each score, in units of 1 / batch."""
        with torch.enable_grad():
            at = scores.detach().requires_grad_(True)
            value = own(at, sensitive, y=y)
            (derivative,) = torch.autograd.grad(value, at)
        return strength * batch * derivative

    def nothing(view: BatchView) -> Tensor:
        return torch.zeros((len(view.y), 1))

    return BatchStatistic(nothing, 1.0, float("inf"), score_weights=slope)
