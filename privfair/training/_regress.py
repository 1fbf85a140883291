"""What every regressor that is trained by the engine makes of targets and of outputs."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.core.frames import missing_mask
from privfair.training._base import BasePrivateEstimator, Problem
from privfair.training._losses import SquaredLoss

__all__ = ["RegressorParts"]


class RegressorParts(BasePrivateEstimator):
    """Targets in a public range in, predictions in that range out.

    Attributes
    ----------
    target_range : tuple of two floats
        The estimator's parameter.
    """

    target_range: Any
    _loss: ClassVar[type[SquaredLoss]] = SquaredLoss
    _saved_attributes: ClassVar[tuple[str, ...]] = (
        *BasePrivateEstimator._saved_attributes,
        "target_range_",
    )
    _step_sizes: ClassVar[dict[str, tuple[float, float]]] = {
        "sgd": (0.1, 0.05),
        "adam": (0.1, 0.01),
        "dp_adam_bc": (0.1, 0.01),
    }

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the predicted target of each row, within ``target_range``."""
        scaled = self._outputs(X)[:, 0]
        low, high = self.target_range_
        middle, half = (low + high) / 2.0, (high - low) / 2.0
        return np.clip(middle + half * scaled, low, high)

    @property
    def coef_(self) -> NDArray[np.float64]:
        """Coefficients of the linear model, in units of y per encoded column."""
        low, high = self.target_range_
        return self._linear_module().weight.numpy()[0].astype(np.float64) * (high - low) / 2.0

    @property
    def intercept_(self) -> float:
        """Intercept of the linear model, in units of y."""
        low, high = self.target_range_
        scaled = float(self._linear_module().bias[0])
        return (low + high) / 2.0 + scaled * (high - low) / 2.0

    def _check_model_parameters(self) -> None:
        super()._check_model_parameters()
        _range(self.target_range)

    def _problem(self, y: NDArray[Any]) -> Problem:
        if y.dtype.kind == "O":
            y = _numbers(y)
        if y.dtype.kind not in "fiub":
            raise DataError("y must hold numbers, one per row; it has another kind of entry.")
        if missing_mask(y).any():
            raise DataError("y contains NaN or missing targets. Drop those rows before fitting.")
        if not np.isfinite(y).all():
            raise DataError("y contains infinity (inf). Drop those rows before fitting.")
        low, high = _range(self.target_range)
        self.target_range_ = (low, high)
        half = (high - low) / 2.0
        clipped = np.clip(y.astype(np.float64), low, high)
        scaled = np.clip((clipped - low) / half - 1.0, -1.0, 1.0)
        notes = ("target_range is public; targets outside it count as lying at its nearer end",)
        return Problem(self._loss(), scaled.astype(np.float32), notes)


def _range(given: Any) -> tuple[float, float]:
    if given is None:
        raise InvalidParameterError(
            "target_range must be given: DPRegressor(target_range=(low, high)), the public bounds "
            "of the target in its own unit. Reading them off the data would be a release."
        )
    try:
        low, high = given
    except (TypeError, ValueError):
        raise InvalidTypeError(
            f"target_range must be a pair (low, high), got {type(given).__name__}."
        ) from None
    low, high = check.real(target_range=low), check.real(target_range=high)
    if not (low < high and np.isfinite(high - low)):
        raise InvalidParameterError(
            f"target_range must be (low, high) with low below high, got ({low:g}, {high:g})."
        )
    return low, high


def _numbers(y: NDArray[Any]) -> NDArray[Any]:
    if not all(isinstance(v, int | float | np.number) for v in y):
        raise DataError("y must hold numbers, one per row; it has another kind of entry.")
    return y.astype(np.float64)
