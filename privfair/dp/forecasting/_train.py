"""A recurrent network as a model of windows: scaling by public ranges, training by the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError
from privfair.dp.forecasting._networks import AbsoluteLoss, RecurrentNetwork
from privfair.dp.forecasting._windows import Windows
from privfair.training import DPEngine, TrainingPlan, make_optimizer

__all__ = ["NetworkModel", "Scale"]

Floats = NDArray[np.float64]
_AVERAGE = 0.5


@dataclass(frozen=True, eq=False)
class Scale:
    """Ranges of the series, which become [-1, 1].

    Attributes
    ----------
    low, high : ndarray, shape (n_series,)
    clip : bool
        Whether values outside are cut to the range: needed where it is public, not learnt.
    """

    low: Floats
    high: Floats
    clip: bool

    @classmethod
    def public(cls, value_range: Any, n_series: int) -> Scale:
        """Read a (low, high) pair for all series, or one for each."""
        pairs = np.asarray(value_range, dtype=float)
        if pairs.shape == (2,):
            pairs = np.tile(pairs, (n_series, 1))
        if pairs.shape != (n_series, 2) or not np.isfinite(pairs).all():
            raise InvalidParameterError(
                f"value_range must be a pair (low, high) of finite numbers, or {n_series} of them."
            )
        if not (pairs[:, 0] < pairs[:, 1]).all():
            raise InvalidParameterError("value_range needs low below high.")
        return cls(pairs[:, 0], pairs[:, 1], clip=True)

    @classmethod
    def of(cls, values: Floats) -> Scale:
        """Take the range of rows that are public, or released."""
        low, high = values.min(axis=0), values.max(axis=0)
        return cls(low, np.where(high > low, high, low + 1.0), clip=False)

    def inward(self, values: Floats) -> Floats:
        """Return scaled values."""
        share = (values - self.low) / (self.high - self.low)
        return 2.0 * (np.clip(share, 0.0, 1.0) if self.clip else share) - 1.0

    def outward(self, scaled: Floats) -> Floats:
        """Return values in their own units."""
        return self.low + (scaled + 1.0) / 2.0 * (self.high - self.low)


class NetworkModel:
    """A :class:`RecurrentNetwork` between windows and forecasts."""

    def __init__(self, module: RecurrentNetwork, scale: Scale, device: Any) -> None:
        self.module, self.scale, self.device = module, scale, device

    def _tensors(self, windows: Windows) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = np.concatenate([self.scale.inward(windows.lags), windows.calendar], axis=2)
        targets = self.scale.inward(windows.targets).reshape(len(windows), -1)
        X = torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32)).to(self.device)
        y = torch.from_numpy(np.ascontiguousarray(targets, dtype=np.float32)).to(self.device)
        return X, y

    def train(self, windows: Windows, plan: TrainingPlan, lr: float, seed: int | None) -> None:
        """Train under a plan, which the caller has charged."""
        check.positive(lr=lr)
        X, y = self._tensors(windows)
        self.module.to(self.device)
        DPEngine(
            self.module,
            AbsoluteLoss(y.shape[1]),
            plan,
            optimizer=make_optimizer("adam", lr),
            noise_random_state=seed,
            average=_AVERAGE,
        ).run(X, y)
        self.module.to("cpu").requires_grad_(False)
        self.device = torch.device("cpu")

    @torch.no_grad()
    def predict(self, windows: Windows) -> Floats:
        """Return forecasts, shape (n_windows, horizon, n_series)."""
        X, _ = self._tensors(windows)
        out = self.module.eval()(X).numpy().astype(float)
        return self.scale.outward(out.reshape(windows.targets.shape))

    def arrays(self) -> dict[str, Any]:
        """Return weights and ranges."""
        weights = {f"module.{n}": p.numpy() for n, p in self.module.state_dict().items()}
        return {**weights, "low": self.scale.low, "high": self.scale.high}
