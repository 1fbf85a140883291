"""Counts released once under noise; everything trained on them afterwards is free."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from privfair.core import _validation as check
from privfair.core.estimators import PrivateEstimatorMixin
from privfair.core.exceptions import (
    BudgetExceededError,
    DataError,
    InvalidParameterError,
    LengthMismatchError,
    PrivfairError,
)
from privfair.core.frames import row_count
from privfair.core.privacy import NEIGHBORING, PrivacyGuarantee
from privfair.dp.forecasting._pricing import gaussian_epsilon, input_event, least_noise
from privfair.dp.forecasting._windows import read_series
from privfair.mechanisms import DiscreteGaussianMechanism

__all__ = ["GaussianInputPerturber"]

_POST = ("none", "nonneg", "kalman")


class GaussianInputPerturber(PrivateEstimatorMixin, BaseEstimator):
    r"""Release a series of counts under discrete Gaussian noise, for users counted in many rows.

    A user changes at most ``max_cells_per_interval`` cells of a row by at most ``max_change``
    each, in at most m rows: the released rows differ by :math:`\Delta_2 \sqrt{m}` with
    :math:`\Delta_2 = b \sqrt c`. A user who is replaced by another is priced as one taken out and
    one put in, twice that.

    Parameters
    ----------
    epsilon : float, default=1.0
        Of a user over all rows that will ever be released, in (0, 20] (more with
        ``allow_weak``).
    delta : float, default=1e-6
        In (0, 1).
    n_releases : int or None, default=None
        Number of rows that will ever be released, needed: training rows and later ones.
    max_cells_per_interval : int, default=1
        Cells (columns) of one row in which a user is counted at most.
    max_change : int, default=1
        How much of one cell a user is at most.
    max_rows_per_user : int or None, default=None
        Rows in which a user is counted at most, if that is enforced before the counts are made;
        None counts every row.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        A user's counts taken out, or replaced by another user's.
    post : {"none", "nonneg", "kalman"}, default="none"
        Free post-processing: negative counts to zero; a local-level filter that knows the
        noise's variance (it looks back only), then the same.
    allow_weak : bool, default=False
        Whether an epsilon above 20 is meant.
    ledger : Ledger or None, default=None
        Of unit "user"; charged for all ``n_releases`` rows before the first is read.
    noise_random_state : int or None, default=None
        For tests and benchmarks only: marks the guarantee SEEDED.

    Attributes
    ----------
    sigma_ : float
        Scale of the noise, in counts.
    mu_ : float
        :math:`\Delta_2 \sqrt m / \sigma`, twice that for ``"replace_one"``.
    n_released_ : int
    privacy_ : PrivacyGuarantee
        Of all ``n_releases`` rows together, per user.

    Raises
    ------
    InvalidParameterError, DataError
        Before anything is released; the charge is given back.
    BudgetExceededError
        By the row after the last one that was paid for.

    Notes
    -----
    *Complexity.* Linear in the number of cells.

    *Privacy.* Unit: user. Relation: ``neighboring``. Mechanism: exact integer discrete Gaussian
    noise on every cell. Composition: zCDP over the m rows of a user
    (``privacy_.details["gaussian_epsilon"]`` is what continuous noise of the same scale would
    have by its exact composition, a few per cent less). Assumptions: the bounds on what a user
    contributes, which cannot be seen in counts and are taken on trust.

    References
    ----------
    Arcolezi, Couchot, Renaud, Al Bouna, Xiao 2022, arXiv:2205.00436. Canonne, Kamath, Steinke
    2020, arXiv:2004.00010. Dong, Roth, Su 2022, "Gaussian Differential Privacy".

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.accounting import Ledger
    >>> counts = np.full((50, 2), 1000)
    >>> perturber = GaussianInputPerturber(
    ...     epsilon=2.0, n_releases=60, ledger=Ledger(unit="user"), noise_random_state=0
    ... )
    >>> perturber.fit_transform(counts).shape, round(perturber.sigma_)
    ((50, 2), 18)
    >>> perturber.privacy_.unit, perturber.privacy_.epsilon <= 2.0
    ('user', True)
    """

    def __init__(
        self,
        *,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        n_releases: int | None = None,
        max_cells_per_interval: int = 1,
        max_change: int = 1,
        max_rows_per_user: int | None = None,
        neighboring: str = "zero_out",
        post: str = "none",
        allow_weak: bool = False,
        ledger: Any = None,
        noise_random_state: int | None = None,
    ) -> None:
        self.epsilon = epsilon
        self.delta = delta
        self.n_releases = n_releases
        self.max_cells_per_interval = max_cells_per_interval
        self.max_change = max_change
        self.max_rows_per_user = max_rows_per_user
        self.neighboring = neighboring
        self.post = post
        self.allow_weak = allow_weak
        self.ledger = ledger
        self.noise_random_state = noise_random_state

    def _plan(self) -> tuple[float, float, int]:
        """Return noise, L2 sensitivity of one row, and rows of a user."""
        epsilon = check.epsilon(epsilon=self.epsilon)
        delta = check.delta(delta=self.delta)
        check.strong_enough(
            epsilon, delta, None, allow_weak=check.boolean(allow_weak=self.allow_weak)
        )
        check.one_of(NEIGHBORING, neighboring=self.neighboring)
        check.one_of(_POST, post=self.post)
        if self.n_releases is None:
            raise InvalidParameterError(
                "n_releases must be given: the noise depends on how many rows will ever be "
                "released, the rows of the forecasts' inputs included."
            )
        rows = check.positive_int(n_releases=self.n_releases)
        if self.max_rows_per_user is not None:
            rows = min(rows, check.positive_int(max_rows_per_user=self.max_rows_per_user))
        cells = check.positive_int(max_cells_per_interval=self.max_cells_per_interval)
        change = check.positive_int(max_change=self.max_change)
        sensitivity = change * math.nextafter(math.sqrt(cells), math.inf)
        sigma = least_noise(
            lambda s: self._epsilon_of(s, sensitivity, rows), epsilon,
            sensitivity * math.sqrt(rows) / epsilon,
        )  # fmt: skip
        return sigma, sensitivity, rows

    def _epsilon_of(self, sigma: float, sensitivity: float, rows: int) -> float:
        from privfair.accounting import guarantee

        event = input_event(sigma, sensitivity, rows)
        found = guarantee(event, delta=self.delta, neighboring=self.neighboring, unit="user")
        return float(found.epsilon)

    def cost(self) -> tuple[Any, ...]:
        """Return the event that ``fit_transform`` will charge, for all ``n_releases`` rows."""
        return (input_event(*self._plan()),)

    def fit_transform(self, X: Any, y: Any = None, *, timestamps: Any = None) -> NDArray[np.int64]:
        """Charge for all rows that will ever be released, and release the first ones.

        Parameters
        ----------
        X : data frame or array of whole numbers >= 0, shape (n_rows, n_series)
        y : ignored
        timestamps : array-like or None, default=None
            Public; only checked.

        Returns
        -------
        ndarray, shape (n_rows, n_series)
            Integers; numbers with a fraction after ``post="kalman"``.
        """
        from privfair.accounting import default_ledger, guarantee

        sigma, sensitivity, rows = self._plan()
        n_rows = row_count(X)
        if n_rows > int(self.n_releases or 0):
            raise InvalidParameterError(
                f"n_releases = {self.n_releases} is less than the {n_rows} rows to release now."
            )
        event = input_event(sigma, sensitivity, rows)
        seeded = self.noise_random_state is not None
        ledger = self.ledger
        if ledger is None:
            ledger = default_ledger(unit="user", neighboring=self.neighboring)
        with ledger.spend(
            event, purpose="noisy counts", label=type(self).__name__, delta=self.delta,
            neighboring=self.neighboring, null_ignored=True, unit="user", numerics="exact",
            seeded=seeded,
        ) as transaction:  # fmt: skip
            try:
                counts = self._counts(X, timestamps)
            except (PrivfairError, ValueError, TypeError):
                transaction.void(touched_data=False)
                raise
            twice = 2 if self.neighboring == "replace_one" else 1
            self.sigma_, self.mu_ = sigma, twice * sensitivity * math.sqrt(rows) / sigma
            self.n_features_in_, self.n_released_ = counts.shape[1], len(counts)
            self._payer = os.getpid()
            noisy = self._released(counts, self.noise_random_state)
        self.privacy_: PrivacyGuarantee = guarantee(
            event, delta=self.delta, neighboring=self.neighboring, unit="user",
            numerics="exact", seeded=seeded,
            assumptions=(
                f"a user is counted in at most {self.max_cells_per_interval} cells of a row, by "
                f"at most {self.max_change} in each, which is declared and cannot be checked",
                f"at most {self.n_releases} rows are ever released, and a user is in at most "
                f"{rows} of them",
                "time stamps are public",
            ),
            details={
                "rows": int(self.n_releases or 0), "rows_per_user": rows,
                "sensitivity": sensitivity, "sigma": sigma,
                "gaussian_epsilon": gaussian_epsilon(self.mu_, self.delta),
            },
        )  # fmt: skip
        self._filter = None
        if self.post == "kalman":
            self._filter = LocalLevel.fit(noisy, sigma**2)
        return self._processed(noisy)

    def fit(self, X: Any, y: Any = None, *, timestamps: Any = None) -> GaussianInputPerturber:
        """Release, and keep nothing but what is public; ``fit_transform`` returns the rows."""
        self.fit_transform(X, timestamps=timestamps)
        return self

    def release_next(self, x: Any) -> NDArray[Any]:
        """Release one more row, which was paid for by ``fit_transform``.

        Parameters
        ----------
        x : array-like of whole numbers >= 0, shape (n_series,)
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, "privacy_")
        if getattr(self, "_payer", None) != os.getpid():
            raise BudgetExceededError(
                "this perturber is a copy, or of another process: the rows that were paid for are "
                "released by the one that paid, which counts them. Fit anew, which is charged."
            )
        if self.n_released_ >= int(self.n_releases or 0):
            raise BudgetExceededError(
                f"all n_releases = {self.n_releases} rows that were paid for are released. Fit "
                "anew with a larger number, which costs a new guarantee."
            )
        counts = self._counts(np.atleast_2d(np.asarray(x)), None)
        if counts.shape != (1, self.n_features_in_):
            raise LengthMismatchError(
                f"x must have {self.n_features_in_} counts, got {counts.shape[1]}."
            )
        self.n_released_ += 1  # before the draw: what fails afterwards is spent
        seed = self.noise_random_state
        noisy = self._released(counts, None if seed is None else seed + self.n_released_)
        return np.asarray(self._processed(noisy)[0])

    def __getstate__(self) -> dict[str, Any]:
        # Copies of the count would each release all rows that were paid for once.
        state = dict(super().__getstate__())
        state.pop("_payer", None)
        return state

    def _counts(self, X: Any, timestamps: Any) -> NDArray[np.int64]:
        values = read_series(X, timestamps).values
        if (values != np.floor(values)).any() or (values < 0).any():
            raise DataError(
                "counts must be whole numbers of at least 0, to which whole noise is added. "
                "Round them, or shift them by a public constant."
            )
        if (values > 2**53).any():
            raise DataError("counts must be at most 2**53.")
        return values.astype(np.int64)

    def _released(self, counts: NDArray[np.int64], seed: int | None) -> NDArray[np.int64]:
        mechanism = DiscreteGaussianMechanism(
            self.sigma_, size=counts.size, noise_random_state=seed
        )
        return np.asarray(mechanism.release(counts)).reshape(counts.shape)

    def _processed(self, noisy: NDArray[np.int64]) -> NDArray[Any]:
        if self.post == "none":
            return noisy
        if self._filter is not None:
            return np.maximum(self._filter.run(noisy), 0.0)
        return np.maximum(noisy, 0)


class LocalLevel:
    """A random walk seen through noise of known variance: the Kalman filter of each series."""

    def __init__(self, drift: NDArray[np.float64], noise: float) -> None:
        self.drift, self.noise = drift, noise
        self.level: NDArray[np.float64] | None = None
        self.variance = np.full(len(drift), math.inf)

    @classmethod
    def fit(cls, noisy: NDArray[Any], noise: float) -> LocalLevel:
        """Take the walk's variance from that of differences, which holds the noise's twice."""
        steps = np.diff(noisy.astype(float), axis=0)
        drift = np.full(noisy.shape[1], noise) if not len(steps) else (steps**2).mean(axis=0)
        return cls(np.maximum(drift - 2 * noise, 1e-3 * noise), noise)

    def run(self, noisy: NDArray[Any]) -> NDArray[np.float64]:
        """Return the level after each row, given the rows up to it."""
        out = np.empty(noisy.shape)
        for t, row in enumerate(noisy.astype(float)):
            if self.level is None:
                self.level, self.variance = row, np.full(len(row), self.noise)
            else:
                before = self.variance + self.drift
                gain = before / (before + self.noise)
                self.level = self.level + gain * (row - self.level)
                self.variance = (1 - gain) * before
            out[t] = self.level
        return out
