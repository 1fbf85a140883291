"""Models of windows: persistence, a seasonal profile, ridge and boosted trees."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import InvalidParameterError
from privfair.dp.forecasting._windows import Windows

__all__ = ["SIMPLE", "WindowModel", "make_simple"]

Floats = NDArray[np.float64]
SIMPLE = ("persistence", "seasonal", "ridge", "gbdt")
_MOST_SLOTS = 288


class WindowModel(Protocol):
    """What forecasts the targets of windows."""

    def fit(self, windows: Windows) -> None:
        """Learn from windows."""
        ...

    def predict(self, windows: Windows) -> Floats:
        """Return forecasts, shape (n_windows, horizon, n_series)."""
        ...

    def arrays(self) -> dict[str, Floats]:
        """Return what was learnt, to be saved."""
        ...


def slots_of(windows: Windows) -> tuple[NDArray[np.int64], int]:
    """Return each first target's slot of the day, and their number."""
    assert windows.times is not None and windows.step is not None
    step = int(windows.step.astype(np.int64))
    n = max(1, -(-86_400 // step))
    if n > _MOST_SLOTS:
        step, n = 86_400 // _MOST_SLOTS, _MOST_SLOTS
    seconds = windows.times.astype(np.int64) % 86_400
    return (seconds // step).astype(np.int64), n


def weekend(windows: Windows) -> NDArray[np.bool_]:
    """Return which first targets are on a Saturday or Sunday."""
    assert windows.times is not None
    days = windows.times.astype("datetime64[D]").astype(np.int64)
    return np.asarray((days + 3) % 7 >= 5)  # 1970-01-01 was a Thursday


def tabular(windows: Windows) -> Floats:
    """Return lags and calendar of each window as columns."""
    n = len(windows)
    parts: list[NDArray[Any]] = [windows.lags.reshape(n, -1)]
    if windows.times is not None:
        slot, _ = slots_of(windows)
        parts += [windows.calendar[:, -1], slot[:, None], weekend(windows)[:, None]]
    return np.concatenate([np.asarray(p, dtype=float) for p in parts], axis=1)


class Persistence:
    """The last values again."""

    def fit(self, windows: Windows) -> None:
        """Learn nothing."""

    def predict(self, windows: Windows) -> Floats:
        """Return the last values."""
        horizon = windows.targets.shape[1]
        return np.repeat(windows.lags[:, -1:], horizon, axis=1)

    def arrays(self) -> dict[str, Floats]:
        """Return nothing."""
        return {}


class Seasonal:
    """The last values plus the mean change of that slot of the day, weekends apart."""

    def __init__(self) -> None:
        self.profile: Floats = np.zeros(0)

    def fit(self, windows: Windows) -> None:
        """Average the changes of each slot; slots that never occur have none."""
        at, n = self._cells(windows)
        change = windows.targets - windows.lags[:, -1:]
        total = np.zeros((n, *change.shape[1:]))
        np.add.at(total, at, change)
        seen = np.bincount(at, minlength=n)
        self.profile = total / np.maximum(seen, 1)[:, None, None]

    def predict(self, windows: Windows) -> Floats:
        """Add the profile to the last values."""
        return np.asarray(windows.lags[:, -1:] + self.profile[self._cells(windows)[0]])

    @staticmethod
    def _cells(windows: Windows) -> tuple[NDArray[np.int64], int]:
        if windows.times is None:
            raise InvalidParameterError(
                "model='seasonal' needs time stamps: pass a data frame with a DatetimeIndex, or "
                "timestamps."
            )
        slot, n = slots_of(windows)
        return slot + n * weekend(windows), 2 * n

    def arrays(self) -> dict[str, Floats]:
        """Return the profile."""
        return {"profile": self.profile}


class Ridge:
    """Linear regression of the change on lags, calendar and slots of the day."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha
        self.coef: Floats = np.zeros(0)
        self.scale: Floats = np.zeros(0)

    def _features(self, windows: Windows) -> Floats:
        n = len(windows)
        level = windows.lags[:, -1:]
        parts = [(windows.lags[:, :-1] - level).reshape(n, -1), level.reshape(n, -1)]
        if windows.times is not None:
            slot, size = slots_of(windows)
            dummies = np.zeros((n, 2 * size))
            dummies[np.arange(n), slot + size * weekend(windows)] = 1
            parts += [windows.calendar[:, -1], dummies]
        return np.asarray(np.concatenate([*parts, np.ones((n, 1))], axis=1), dtype=float)

    def fit(self, windows: Windows) -> None:
        """Solve the normal equations on columns of unit scale."""
        X = self._features(windows)
        y = (windows.targets - windows.lags[:, -1:]).reshape(len(X), -1)
        self.scale = np.sqrt((X**2).mean(axis=0))
        self.scale[self.scale == 0] = 1.0
        Z = X / self.scale
        gram = Z.T @ Z + self.alpha * np.eye(Z.shape[1])
        self.coef = np.asarray(np.linalg.solve(gram, Z.T @ y), dtype=float)

    def predict(self, windows: Windows) -> Floats:
        """Add the predicted change to the last values."""
        change = (self._features(windows) / self.scale) @ self.coef
        return windows.lags[:, -1:] + change.reshape(len(windows), *windows.targets.shape[1:])

    def arrays(self) -> dict[str, Floats]:
        """Return the coefficients."""
        return {"coef": self.coef, "scale": self.scale}


class Boosted:
    """Gradient-boosted trees of the change, one for each series and step ahead."""

    def __init__(self, random_state: int) -> None:
        self.random_state = random_state
        self.trees: list[Any] = []

    def fit(self, windows: Windows) -> None:
        """Fit one ensemble for each target."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        X = tabular(windows)
        change = (windows.targets - windows.lags[:, -1:]).reshape(len(X), -1)
        self.trees = [
            HistGradientBoostingRegressor(
                loss="absolute_error", random_state=self.random_state, early_stopping=False
            ).fit(X, column)
            for column in change.T
        ]

    def predict(self, windows: Windows) -> Floats:
        """Add the predicted change to the last values."""
        X = tabular(windows)
        change = np.stack([tree.predict(X) for tree in self.trees], axis=1)
        return windows.lags[:, -1:] + change.reshape(len(X), *windows.targets.shape[1:])

    def arrays(self) -> dict[str, Floats]:
        """Refuse: trees are no arrays."""
        raise InvalidParameterError(
            "model='gbdt' cannot be saved as arrays; dump the estimator with skops.io instead."
        )


def make_simple(name: str, random_state: int) -> Any:
    """Return the named model, unfitted."""
    makers: dict[str, Any] = {"persistence": Persistence, "seasonal": Seasonal, "ridge": Ridge}
    return Boosted(random_state) if name == "gbdt" else makers[name]()
