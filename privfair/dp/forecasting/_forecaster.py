"""Forecasting aggregated counts: from noisy counts, or by noisy gradients."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from privfair.core import _validation as check
from privfair.core.device import resolve_device
from privfair.core.estimators import PrivateEstimatorMixin
from privfair.core.exceptions import (
    AccountingAssumptionError,
    BudgetExceededError,
    DataError,
    InvalidParameterError,
    NumericsError,
    PrivfairError,
)
from privfair.core.frames import row_count
from privfair.core.privacy import PrivacyGuarantee
from privfair.core.randomness import check_random_state
from privfair.dp.forecasting import _saved
from privfair.dp.forecasting._models import SIMPLE, make_simple
from privfair.dp.forecasting._networks import NETWORKS, RecurrentNetwork
from privfair.dp.forecasting._perturb import GaussianInputPerturber
from privfair.dp.forecasting._pricing import group_cost, plan_gradients
from privfair.dp.forecasting._train import NetworkModel, Scale
from privfair.dp.forecasting._windows import (
    Series,
    Windows,
    WindowTransformer,
    calendar_features,
    read_series,
    read_times,
)
from privfair.training import TrainingPlan

__all__ = ["DPForecaster"]

Floats = NDArray[np.float64]
_MODES = ("input", "gradient", "none")
_UNITS = ("user", "record")


class DPForecaster(PrivateEstimatorMixin, BaseEstimator):
    """Forecast series of aggregated counts under differential privacy.

    ``mode="input"`` releases the counts once under noise and trains on them: training, choosing
    and publishing are free afterwards, and the guarantee is per user. ``mode="gradient"`` trains
    a network on raw counts by DP-SGD; one user is in many windows, all of which count.

    Parameters
    ----------
    mode : {"input", "gradient", "none"}, default="input"
        Where the noise is; ``"none"`` is the non-private twin.
    model : str, default="ridge"
        ``"persistence"``, ``"seasonal"`` (slot-of-day profile), ``"ridge"``, ``"gbdt"``, or a
        network: ``"lstm"``, ``"gru"``, ``"bilstm"``, ``"bigru"``. ``mode="gradient"`` takes
        networks only.
    lags : int, default=6
        Rows that a forecast sees.
    horizon : int, default=1
        Rows that it forecasts.
    epsilon : float, default=1.0
        In (0, 20] (more with ``allow_weak``), for everything that one unit contributes.
    delta : float, default=1e-6
        In (0, 1); a value of at least 1 / n_rows is refused without ``allow_weak``.
    unit : {"user", "record"}, default="user"
        Whose contribution is protected: a person's, who is counted in many rows, or one row's.
        ``mode="input"`` protects users only.
    n_releases : int or None, default=None
        For ``mode="input"``, needed there: rows that will ever be released.
    max_rows_per_user : int or None, default=None
        Rows in which a person is counted at most, enforced before the counts are made. Needed
        by ``mode="gradient"`` with ``unit="user"``; in ``mode="input"`` None counts every row.
    max_cells_per_interval : int, default=1
        For ``mode="input"``: columns of one row in which a person is counted at most.
    max_change : int, default=1
        For ``mode="input"``: how much of one cell a person is at most.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        ``mode="gradient"`` takes ``"zero_out"`` only, where the number of windows is public.
    post : {"none", "nonneg", "kalman"}, default="none"
        For ``mode="input"``: post-processing of the noisy counts.
    value_range : pair of float, or one pair for each series, or None, default=None
        Public range of the counts, to which networks scale; needed by ``mode="gradient"``. None
        takes that of the rows that may be looked at.
    calendar : sequence of {"day", "week"}, default=("day", "week")
        Sine and cosine of time, where there are time stamps.
    freq : str or None, default=None
        Interval between rows, such as ``"30min"``; None takes the shortest one.
    max_grad_norm : float, default=1.0
        For ``mode="gradient"``: L2 bound of one window's gradient.
    hidden_size : int, default=32
        Units of the recurrent layer of networks.
    batch_size : int, default=64
        Expected number of windows in a step of networks.
    epochs : float, default=20
        Expected passes over the windows of networks.
    lr : float, default=2e-3
        Step size of Adam, for networks.
    allow_weak : bool, default=False
        Whether a weak epsilon or delta is meant.
    ledger : Ledger or None, default=None
        Charged before the counts are read; its unit is ``unit``.
    device : str, default="auto"
        ``"auto"``, ``"cpu"`` or ``"cuda"``, for networks.
    random_state : int, Generator or None, default=None
        Seeds initial weights and trees; no guarantee depends on it.
    noise_random_state : int or None, default=None
        For tests and benchmarks only: marks the guarantee SEEDED.

    Attributes
    ----------
    privacy_ : PrivacyGuarantee
        ``privacy_.details`` has the rows and windows that were counted for one unit.
    released_ : ndarray, shape (n_rows, n_series)
        With ``mode="input"``: the noisy counts, which are public.
    perturber_ : GaussianInputPerturber
        With ``mode="input"``: :meth:`GaussianInputPerturber.release_next` goes on with it.
    noise_multiplier_ : float
        With ``mode="gradient"``.
    model_ : object
        What was trained.
    n_features_in_ : int

    Raises
    ------
    InvalidParameterError, AccountingAssumptionError, DataError
        By ``fit``, before a draw; the charge is given back.

    Notes
    -----
    *Algorithm.* Windows of consecutive rows (never over a gap in the time stamps); all models
    forecast the change from the last row. Networks have hand-written cells (those of
    ``torch.nn.GRU`` and ``LSTM``, for which per-record gradients can be had), tanh, mean absolute
    error, and no scaling but that by ``value_range``.

    *Privacy.* Seen by the adversary: the released rows, or all iterates of training. A window is
    no user. ``mode="input"``: see :class:`GaussianInputPerturber`. ``mode="gradient"``: a row is
    in up to ``lags + horizon`` windows. ``unit="record"``: a row that is missing takes all of its
    windows with it, a group of that many. ``unit="user"``: the windows of the user's rows are
    not lost but changed, that is, taken out and put in again: twice the group of ``m (lags +
    horizon)`` windows. Groups are priced as Poisson-sampled Gaussians of several records. Known
    limits: time stamps, the number of rows and windows, and bounds on contributions are taken as
    public; forecasts from raw rows given to ``predict`` reveal those rows.

    References
    ----------
    Arcolezi, Couchot, Renaud, Al Bouna, Xiao 2022, "Differentially private multivariate time
    series forecasting of aggregated human mobility with deep learning", arXiv:2205.00436. Abadi
    et al. 2016, arXiv:1607.00133. Ganesh et al. 2023, arXiv:2310.15526.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.accounting import Ledger
    >>> t = np.arange(400)
    >>> counts = np.stack([1000 + 300 * np.sin(t / 8), 500 + 100 * np.cos(t / 8)], axis=1)
    >>> forecaster = DPForecaster(
    ...     model="ridge", epsilon=4.0, n_releases=400, max_cells_per_interval=2,
    ...     ledger=Ledger(unit="user"),
    ... ).fit(counts.round().astype(int))
    >>> forecaster.predict().shape, forecaster.privacy_.unit
    ((1, 2), 'user')
    """

    def __init__(
        self,
        *,
        mode: str = "input",
        model: str = "ridge",
        lags: int = 6,
        horizon: int = 1,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        unit: str = "user",
        n_releases: int | None = None,
        max_rows_per_user: int | None = None,
        max_cells_per_interval: int = 1,
        max_change: int = 1,
        neighboring: str = "zero_out",
        post: str = "none",
        value_range: Any = None,
        calendar: Sequence[str] = ("day", "week"),
        freq: str | None = None,
        max_grad_norm: float = 1.0,
        hidden_size: int = 32,
        batch_size: int = 64,
        epochs: float = 20,
        lr: float = 2e-3,
        allow_weak: bool = False,
        ledger: Any = None,
        device: str = "auto",
        random_state: Any = None,
        noise_random_state: int | None = None,
    ) -> None:
        self.mode = mode
        self.model = model
        self.lags = lags
        self.horizon = horizon
        self.epsilon = epsilon
        self.delta = delta
        self.unit = unit
        self.n_releases = n_releases
        self.max_rows_per_user = max_rows_per_user
        self.max_cells_per_interval = max_cells_per_interval
        self.max_change = max_change
        self.neighboring = neighboring
        self.post = post
        self.value_range = value_range
        self.calendar = calendar
        self.freq = freq
        self.max_grad_norm = max_grad_norm
        self.hidden_size = hidden_size
        self.batch_size = batch_size
        self.epochs = epochs
        self.lr = lr
        self.allow_weak = allow_weak
        self.ledger = ledger
        self.device = device
        self.random_state = random_state
        self.noise_random_state = noise_random_state

    # -- parameters ---------------------------------------------------------------------------
    def _check(self) -> WindowTransformer:
        check.one_of(_MODES, mode=self.mode)
        check.one_of((*SIMPLE, *NETWORKS), model=self.model)
        check.one_of(_UNITS, unit=self.unit)
        check.boolean(allow_weak=self.allow_weak)
        for name in ("hidden_size", "batch_size"):
            check.positive_int(**{name: getattr(self, name)})
        for name in ("epochs", "lr", "max_grad_norm"):
            check.positive(**{name: getattr(self, name)})
        if self.max_rows_per_user is not None:
            check.positive_int(max_rows_per_user=self.max_rows_per_user)
        if self.noise_random_state is not None:
            check.non_negative_int(noise_random_state=self.noise_random_state)
        if self.mode == "input" and self.unit != "user":
            raise AccountingAssumptionError(
                "mode='input' states what a user contributes to all rows; unit='record' would "
                "say less for the same noise. Use unit='user' with the bounds that hold."
            )
        if self.mode == "gradient":
            self._check_gradient()
        return WindowTransformer(
            lags=self.lags, horizon=self.horizon, calendar=self.calendar, freq=self.freq
        )

    def _cutter(self) -> WindowTransformer:
        """Return what cuts windows as they were cut for training."""
        check_is_fitted(self, "model_")
        cutter = self._check()
        cutter.freq = self._interval
        return cutter

    def _check_gradient(self) -> None:
        if self.model not in NETWORKS:
            raise InvalidParameterError(
                f"mode='gradient' trains a network ({', '.join(NETWORKS)}), got "
                f"model={self.model!r}. Use mode='input' for the other models."
            )
        if self.unit == "user" and self.max_rows_per_user is None:
            raise AccountingAssumptionError(
                "mode='gradient' with unit='user' needs max_rows_per_user: a window is not a "
                "user, and without a bound on how many rows one person is counted in there is "
                "no guarantee for persons. Use mode='input', or unit='record' for single rows."
            )
        if self.neighboring != "zero_out":
            raise AccountingAssumptionError(
                "mode='gradient' is accounted under neighboring='zero_out', where the number of "
                f"windows is public, got {self.neighboring!r}."
            )
        if self.value_range is None:
            raise InvalidParameterError(
                "mode='gradient' needs value_range, a public range of the counts: one taken from "
                "the rows would be a release of its own."
            )

    # -- fit ----------------------------------------------------------------------------------
    def fit(self, X: Any, y: Any = None, *, timestamps: Any = None) -> Self:
        """Charge, release or train.

        Parameters
        ----------
        X : data frame with a DatetimeIndex, or array, shape (n_rows, n_series)
            Counts; no missing values (an imputation learnt from them would be a release).
        y : ignored
        timestamps : array-like, shape (n_rows,), or None
            Of an array. Without any, rows are taken as consecutive.
        """
        cutter = self._check()
        times = read_times(X, timestamps)
        length = cutter.lags + cutter.horizon
        n_windows = len(cutter.starts(row_count(X), times, length))
        if not n_windows:
            raise DataError(
                f"no {length} rows in a row (lags + horizon) are without a gap among "
                f"{row_count(X)}. Pass a longer series, or fewer lags."
            )
        step = cutter.step(times)
        self._interval = None if step is None else f"{int(step.astype(np.int64))}s"
        if self.mode != "none":
            epsilon, delta = check.epsilon(epsilon=self.epsilon), check.delta(delta=self.delta)
            check.strong_enough(epsilon, delta, row_count(X), allow_weak=self.allow_weak)
        rng = check_random_state(self.random_state)
        if self.mode == "gradient":
            self._fit_gradient(X, timestamps, cutter, n_windows, rng)
            return self
        if self.mode == "input":
            self._release(X, timestamps)
            series = Series(self.released_.astype(float), times, None)
        else:
            series = read_series(X, timestamps)
            self.privacy_ = PrivacyGuarantee.none("non_private", unit=self.unit)
        self.n_features_in_ = series.values.shape[1]
        self._learn(cutter.cut(series), series, rng)
        self._last = series if self.mode == "input" else None
        return self

    def _release(self, X: Any, timestamps: Any) -> None:
        self.perturber_ = GaussianInputPerturber(
            epsilon=self.epsilon, delta=self.delta, n_releases=self.n_releases,
            max_cells_per_interval=self.max_cells_per_interval, max_change=self.max_change,
            max_rows_per_user=self.max_rows_per_user, neighboring=self.neighboring,
            post=self.post, allow_weak=self.allow_weak, ledger=self.ledger,
            noise_random_state=self.noise_random_state,
        )  # fmt: skip
        self.released_ = self.perturber_.fit_transform(X, timestamps=timestamps)
        self.privacy_ = self.perturber_.privacy_

    def _learn(self, windows: Windows, series: Series, rng: np.random.Generator) -> None:
        """Train without privacy, on rows that are public or released."""
        seed = int(rng.integers(2**31))
        if self.model in SIMPLE:
            self.model_ = make_simple(self.model, seed)
            self.model_.fit(windows)
            return
        scale = (
            Scale.of(series.values)
            if self.value_range is None
            else Scale.public(self.value_range, self.n_features_in_)
        )
        self.model_ = self._network(windows.calendar.shape[2], scale, rng)
        self.model_.train(windows, self._plan(len(windows)), self.lr, seed)

    def _network(
        self, n_features: int, scale: Scale, rng: np.random.Generator | None
    ) -> NetworkModel:
        module = RecurrentNetwork(
            self.model, self.n_features_in_, n_features, self.hidden_size, self.horizon, rng
        )
        return NetworkModel(module, scale, resolve_device(self.device))

    def _plan(self, n_windows: int) -> TrainingPlan:
        batch = min(self.batch_size, n_windows)
        steps = max(1, round(self.epochs * n_windows / batch))
        return TrainingPlan(n_windows, batch, steps, self.max_grad_norm, None)

    def _fit_gradient(
        self,
        X: Any,
        timestamps: Any,
        cutter: WindowTransformer,
        n_windows: int,
        rng: np.random.Generator,
    ) -> None:
        from privfair.accounting import default_ledger, guarantee
        from privfair.accounting.events import ApproxDP

        self.n_features_in_ = X.shape[1] if hasattr(X, "shape") and len(X.shape) > 1 else 1
        timed = read_times(X, timestamps) is not None
        scale = Scale.public(self.value_range, self.n_features_in_)
        network = self._network(2 * len(cutter.calendar) if timed else 0, scale, rng)
        rows = self.max_rows_per_user if self.unit == "user" else 1
        group = min(n_windows, int(rows or 1) * (cutter.lags + cutter.horizon))
        size = sum(p.numel() for p in network.module.parameters())
        draft = self._plan(n_windows)
        extra = self._generator_delta(draft.steps, size)
        changed = self.unit == "user"
        with warnings.catch_warnings():  # of overflows at noises that are far too small
            warnings.simplefilter("ignore", RuntimeWarning)
            plan = plan_gradients(draft, group, self.epsilon, self.delta - extra, changed=changed)
            epsilon = group_cost(plan, group, self.delta - extra, changed=changed)
        event = ApproxDP(epsilon, self.delta)
        ledger = self.ledger
        if ledger is None:
            ledger = default_ledger(unit=self.unit)
        seeded = self.noise_random_state is not None
        with ledger.spend(
            event, purpose="training", label=type(self).__name__, delta=self.delta,
            neighboring="zero_out", unit=self.unit, numerics="hardened", seeded=seeded,
        ) as transaction:  # fmt: skip
            try:
                windows = cutter.transform(X, timestamps)
            except (PrivfairError, ValueError, TypeError):
                transaction.void(touched_data=False)
                raise
            network.train(windows, plan, self.lr, self.noise_random_state)
        self.model_, self.noise_multiplier_ = network, float(plan.noise_multiplier or 0.0)
        self.plan_, self._last = plan, None
        whose = (
            f"a user is counted in at most {rows} rows, which is declared and not enforced here"
            if changed
            else "a row that is missing takes all of its windows with it"
        )
        self.privacy_ = guarantee(
            event, delta=self.delta, unit=self.unit, numerics="hardened", seeded=seeded,
            assumptions=(
                whose, "value_range is public",
                "time stamps and the number of rows are public",
                "every window enters every batch on its own with the public probability",
            ),
            details={
                "windows": n_windows, "windows_per_unit": group, "changed": changed,
                "noise_multiplier": self.noise_multiplier_, "steps": plan.steps,
                "sample_rate": plan.sample_rate,
            },
        )  # fmt: skip

    def _generator_delta(self, steps: int, size: int) -> float:
        """Return the part of delta that pays for the distance of the noise from a Gaussian."""
        from privfair.mechanisms import hardened_extra_delta

        needed = hardened_extra_delta(min(self.epsilon, 500.0), steps, size)
        if needed > 0.3 * self.delta:
            raise NumericsError(
                f"epsilon = {self.epsilon:g} with delta = {self.delta:g} leaves no room for noise "
                "drawn by a generator. Use a larger delta, fewer epochs or a smaller network."
            )
        return float(max(needed, 1e-3 * self.delta))

    # -- after fit ----------------------------------------------------------------------------
    def predict(self, X: Any = None, *, timestamps: Any = None) -> Floats:
        """Forecast the rows after the last one given.

        Parameters
        ----------
        X : data frame or array, shape (at least lags, n_series), or None
            Recent rows, of which the last ``lags`` count and must have no gap. They are taken as
            they are: the forecast of raw rows reveals them. None, with ``mode="input"``, goes on
            from the last released row.
        timestamps : array-like or None, default=None
            Of an array.

        Returns
        -------
        ndarray, shape (horizon, n_series)
        """
        cutter = self._cutter()
        if X is None:
            if self._last is None:
                raise InvalidParameterError(
                    "predict needs recent rows: only mode='input' has released rows to go on from."
                )
            series = self._last
        else:
            series = read_series(X, timestamps)
        self._check_width(series)
        n, lags = len(series.values), cutter.lags
        times = series.times
        if n < lags or not len(
            cutter.starts(lags, None if times is None else times[-lags:], lags)
        ):
            raise DataError(f"the last {lags} rows (lags) must be there and without a gap.")
        part = slice(n - lags, n)
        step = cutter.step(times)
        features = (
            np.zeros((lags, 0))
            if times is None
            else calendar_features(times[part], cutter.calendar)
        )
        ahead = None if times is None or step is None else times[-1:] + step
        windows = Windows(
            series.values[None, part], features[None],
            np.zeros((1, cutter.horizon, series.values.shape[1])),
            np.array([n]), ahead, step,
        )  # fmt: skip
        return np.asarray(self.model_.predict(windows)[0])

    def _check_width(self, series: Series) -> None:
        if series.values.shape[1] != self.n_features_in_:
            raise DataError(
                f"X has {series.values.shape[1]} series, and the forecaster was fitted on "
                f"{self.n_features_in_}."
            )

    def release_next(self, x: Any, *, timestamp: Any = None) -> NDArray[Any]:
        """Release one more row (``mode="input"``) and go on forecasting from it.

        Parameters
        ----------
        x : array-like of whole numbers, shape (n_series,)
        timestamp : date and time, or None
            Of the row; None is one interval after the last one.
        """
        check_is_fitted(self, "model_")
        if self._last is None:
            raise InvalidParameterError("only mode='input' releases rows.")
        if not hasattr(self, "perturber_"):
            raise BudgetExceededError(
                "a forecaster from a file releases no rows: the one that paid for them counts "
                "them. Fit anew, which is charged."
            )
        times = self._last.times
        if times is not None:
            step = self._cutter().step(times)
            new = times[-1] + step if timestamp is None else np.datetime64(timestamp, "s")
            if new <= times[-1]:
                raise DataError("timestamp must be after the last released row's.")
            times = np.append(times, new)
        row = self.perturber_.release_next(x)
        self.released_ = np.concatenate([self.released_, row[None]])
        self._last = Series(self.released_.astype(float), times, None)
        return row

    def evaluate(
        self,
        X: Any,
        *,
        timestamps: Any = None,
        inputs: Any = None,
        acknowledge_non_private: bool = False,
    ) -> dict[str, Any]:
        """Compare forecasts with raw rows; what comes out is covered by no guarantee.

        Parameters
        ----------
        X : data frame or array, shape (n_rows, n_series)
            Raw rows, the targets.
        timestamps : array-like or None, default=None
            Of an array.
        inputs : data frame or array, shape of X, or None
            Rows from which lags are taken, such as released ones; None takes X.
        acknowledge_non_private : bool, default=False
            Must be True after a private fit: metrics on raw rows are a release of their own.

        Returns
        -------
        dict
            ``rmse`` and ``mae`` per series (ndarray, of the first row ahead and all others
            together), ``mean_rmse``, ``mean_mae``, ``n`` windows.
        """
        check_is_fitted(self, "model_")
        check.boolean(acknowledge_non_private=acknowledge_non_private)
        if self.mode != "none" and not acknowledge_non_private:
            raise AccountingAssumptionError(
                "metrics on raw rows are a release that no guarantee here covers. Pass "
                "acknowledge_non_private=True if these rows may be revealed."
            )
        cutter, series = self._cutter(), read_series(X, timestamps)
        self._check_width(series)
        windows = cutter.cut(series)
        seen = windows
        if inputs is not None:
            given = read_series(inputs).values
            if given.shape != series.values.shape:
                raise DataError("inputs must have the shape of X.")
            seen = replace(cutter.cut(Series(given, series.times, None)), targets=windows.targets)
        error = self.model_.predict(seen) - windows.targets
        rmse, mae = np.sqrt((error**2).mean(axis=(0, 1))), np.abs(error).mean(axis=(0, 1))
        return {
            "rmse": rmse, "mae": mae, "mean_rmse": float(rmse.mean()),
            "mean_mae": float(mae.mean()), "n": len(windows),
        }  # fmt: skip

    def score(
        self,
        X: Any,
        y: Any = None,
        *,
        timestamps: Any = None,
        acknowledge_non_private: bool = False,
    ) -> float:
        """Return minus the mean over series of the root mean squared error; see ``evaluate``."""
        found = self.evaluate(
            X, timestamps=timestamps, acknowledge_non_private=acknowledge_non_private
        )
        return -float(found["mean_rmse"])

    # -- saving -------------------------------------------------------------------------------
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights, released rows and the guarantee to one safetensors file."""
        check_is_fitted(self, "model_")
        _saved.write(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a forecaster that :meth:`save` wrote; nothing in the file is executed."""
        return _saved.read(path, cls)
