"""A regressor with a distance-covariance penalty, without privacy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import d2_tweedie_score, r2_score
from torch import Tensor, nn

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError, LengthMismatchError
from privfair.core.frames import as_vector, missing_mask
from privfair.core.schema import Schema
from privfair.fairness.dcov._network import FairNetwork
from privfair.training import Problem, SquaredLoss

__all__ = ["FairDCovRegressor"]

_MAX_LOG_RATE = 30.0


class _ScaledSquaredLoss(SquaredLoss):
    """Half the squared error of a standardised target, whose prediction is the score."""

    def score(self, output: Tensor) -> Tensor:
        """Return the prediction in units of the target's standard deviation."""
        return output[:, 0]


class _PoissonLoss:
    """Poisson deviance of a rate, whose logarithm the network gives.

    Parameters
    ----------
    unit : float
        The scores that a penalty sees are rates over this one.
    """

    n_outputs = 1

    def __init__(self, unit: float) -> None:
        self._unit = unit

    def per_record(self, output: Tensor, y: Tensor) -> Tensor:
        """Return rate - y log rate, the deviance up to a constant."""
        log_rate = output[:, 0].clamp(max=_MAX_LOG_RATE)
        return torch.exp(log_rate) - y * log_rate

    def score(self, output: Tensor) -> Tensor:
        """Return the rate in its unit."""
        return torch.exp(output[:, 0].clamp(max=_MAX_LOG_RATE)) / self._unit


class FairDCovRegressor(RegressorMixin, FairNetwork):
    r"""A neural or linear regressor whose predictions depend little on protected attributes.

    Minimises squared error, or Poisson deviance for counts with an exposure as in insurance, plus
    ``lambda_`` times the squared distance covariance of the prediction and the sensitive
    features, all of them jointly.

    Parameters
    ----------
    lambda_ : float, default=1.0
        Weight of the penalty, at least 0. It has no unit: its scale depends on the encoding of
        the attributes and on that of the predictions, so look at a grid (1, 3, 10, 30, 100).
        0 trains without a penalty, and then needs no sensitive features.
    penalty : {"ccdcov", "jdcov", "pairwise", "cells"} or Penalty, default="ccdcov"
        Which dependence, see :class:`DistanceCovariancePenalty`; ``"pairwise"`` does not see
        intersections. Any other :class:`privfair.core.Penalty` is taken as it is (``lambda_``
        multiplies its ``strength``).
    c : float, default=1.0
        Above 0; weight of low orders in ``"jdcov"``.
    estimator : {"auto", "u", "v"}, default="auto"
        Of a batch: unbiased, plug-in, or unbiased below 1,024 rows and where it is stratified.
    group_weighting : float, default=0.5
        tau in [0, 1]: cell g weighs ``share_g ** tau``. 1 is distance covariance as published,
        under which a group of 2 % counts 4e-4.
    normalise : {"target_scale", "none", "dcor"}, default="target_scale"
        See :class:`DistanceCovariancePenalty`. Predictions are in units of
        the target's standard deviation (for counts: rates in units of the mean rate), so that
        the penalty does not reward small numbers; ``"none"`` takes y's own unit.
    encoder : AttributeEncoder or None, default=None
        How sensitive features become distances; None gives every attribute mean distance 1.
    hidden_layer_sizes : tuple of int, default=(64,)
        Sizes of hidden layers; () is a linear model.
    activation : {"relu", "tanh"}, default="relu"
        What stands between hidden layers.
    batch_size : int, default=1024
        Rows of a batch. Where a cell would have fewer than 8 on average, batches are stratified:
        every cell is in each of them. Below 20 for each cell a warning says so.
    epochs : int, default=30
        Passes over the rows.
    lr : float or "auto", default="auto"
        Step size of Adam, above 0. ``"auto"`` is 0.005, and 0.05 for a linear model.
    weight_decay : float, default=0.0
        Decoupled weight decay, at least 0.
    schema : Schema, "as_is" or None, default=None
        Bounds and categories of the columns of X; None reads them off the rows, ``"as_is"``
        takes numeric columns as they are.
    loss : {"auto", "squared", "poisson"}, default="auto"
        ``"auto"`` is Poisson where ``fit`` gets an exposure, and squared otherwise.
    device : {"auto", "cpu", "cuda", "cuda:N"}, default="auto"
        Where tensors live.
    random_state : int, Generator, RandomState or None, default=None
        Seeds initial weights and the order of rows.
    verbose : int, default=0
        Above 0 shows a progress bar on a terminal.

    Attributes
    ----------
    loss_ : str
        The loss that was used.
    target_center_, target_scale_ : float
        What the network's output is moved and multiplied by; 0 and 1 for counts.
    module_ : torch.nn.Module
        Predicts the standardised target, or the logarithm of the rate.
    encoding_ : object
        The encoder of the columns of X.
    encoder_ : AttributeEncoder or None
        That of the sensitive features; not saved, for nothing needs it to predict.
    pooled_cells_ : list of tuples
        Labels of cells with fewer than 30 rows, which count as one. Not saved.
    history_ : dict of str to tuple of float
        ``loss`` and ``penalty`` over all training rows after each epoch, and ``jsd``, the
        Jensen-Shannon divergence in bits of the scores' histograms over the cells (where there
        are finitely many).
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X has column names.
    n_steps_ : int
    privacy_ : PrivacyGuarantee
        None: epsilon is infinite and ``unsafe`` says that the training was not private.

    Notes
    -----
    *Algorithm.* Adam on shuffled batches of loss plus ``lambda_`` times the penalty. Sample
    weights enter the loss; the penalty counts each row once. Numeric columns are standardised,
    which the first layer has taken in at the end. O(epochs * n * (parameters + log batch)) with
    finitely many cells.

    *Fairness.* None is guaranteed. The penalty is about the distribution of scores; a threshold
    can bring a gap back, so measure decisions as well, on other rows. Demographic parity ignores
    the labels. A plain penalty on group means can reach a smaller gap at a threshold for the
    same accuracy: distance covariance is worth it for whole distributions, continuous attributes
    and regression.

    *Privacy.* None. For training under differential privacy see :class:`DPFairDCovRegressor`.

    References
    ----------
    Lee, Antonio, Avanzi, Marchi, Zhou (2025), arXiv 2509.08163. Chakraborty, Zhang (2019), JASA
    114(528). Szekely, Rizzo, Bakirov (2007), Annals of Statistics 35(6).

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.fairness.dcov import FairDCovRegressor
    >>> rng = np.random.default_rng(0)
    >>> S = np.where(rng.random(2000) < 0.3, "a", "b")
    >>> X = np.stack([rng.normal(size=2000) + (S == "a"), rng.normal(size=2000)], axis=1)
    >>> y = 3 * X[:, 0] + X[:, 1]
    >>> reg = FairDCovRegressor(lambda_=10.0, hidden_layer_sizes=(), random_state=0)
    >>> p = reg.fit(X, y, sensitive_features=S).predict(X)
    >>> bool(abs(p[S == "a"].mean() - p[S == "b"].mean()) < 0.2 * y.std())
    True
    """

    _saved_attributes: ClassVar[tuple[str, ...]] = (
        *FairNetwork._saved_attributes,
        "loss_",
        "target_center_",
        "target_scale_",
    )

    def __init__(
        self,
        *,
        lambda_: float = 1.0,
        penalty: Any = "ccdcov",
        c: float = 1.0,
        estimator: str = "auto",
        group_weighting: float = 0.5,
        normalise: str = "target_scale",
        encoder: Any = None,
        hidden_layer_sizes: Sequence[int] = (64,),
        activation: str = "relu",
        batch_size: int = 1024,
        epochs: int = 30,
        lr: float | str = "auto",
        weight_decay: float = 0.0,
        schema: Schema | str | None = None,
        loss: str = "auto",
        device: str = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.lambda_ = lambda_
        self.penalty = penalty
        self.c = c
        self.estimator = estimator
        self.group_weighting = group_weighting
        self.normalise = normalise
        self.encoder = encoder
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.batch_size = batch_size
        self.epochs = epochs
        self.lr = lr
        self.weight_decay = weight_decay
        self.schema = schema
        self.loss = loss
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sensitive_features: Any = None,
        sample_weight: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
    ) -> Self:
        """Train.

        Parameters
        ----------
        X : data frame or array of shape (n_rows, n_columns)
            pandas, polars or numpy.
        y : array-like of shape (n_rows,)
            Finite numbers; counts of at least 0 for the Poisson loss.
        sensitive_features : array-like or data frame, default=None
            One row per record, any number of columns; needed unless ``lambda_=0``. Not needed to
            predict.
        sample_weight : array-like of shape (n_rows,), default=None
            Finite, at least 0: factor of each record's loss.
        exposure : array-like of shape (n_rows,), default=None
            Above 0, for the Poisson loss: the time or amount over which y was counted. Rates are
            per unit of it.

        Returns
        -------
        self : FairDCovRegressor

        Raises
        ------
        InvalidParameterError
            An exposure with the squared loss.
        DataError, SensitiveFeatureError
            The data cannot be used.
        """
        chosen = check.one_of(("auto", "squared", "poisson"), loss=self.loss)
        if chosen == "auto":
            chosen = "squared" if exposure is None else "poisson"
        if chosen == "squared" and exposure is not None:
            raise InvalidParameterError(
                "exposure is for counts, and loss='squared' has none. Use loss='poisson', or "
                "leave exposure out."
            )
        if exposure is not None and y is not None:
            # Counts y over exposures e have the likelihood of rates y / e with weights e.
            times = _exposure(exposure)
            counts = _numbers(as_vector(y, name="y"))
            if len(counts) != len(times):
                raise LengthMismatchError(
                    f"exposure has {len(times)} entries for {len(counts)} rows of y."
                )
            if sample_weight is None:
                sample_weight = times
            else:
                sample_weight = _times(sample_weight, times)
            y = counts / times
        self._chosen = chosen
        self._mass = sample_weight if chosen == "poisson" else None
        try:
            self._fit(X, y, sensitive_features, sample_weight)
        finally:
            del self._chosen, self._mass
        return self

    def predict(self, X: Any, *, exposure: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return the predicted target of each row; for counts the rate, or rate times exposure.

        Parameters
        ----------
        X : data frame or array of shape (n_rows, n_columns)
        exposure : array-like of shape (n_rows,), default=None
            For the Poisson loss: multiplies the rates.
        """
        output = self._outputs(X)[:, 0]
        if self.loss_ == "squared":
            if exposure is not None:
                raise InvalidParameterError("exposure is for models with the Poisson loss.")
            return self.target_center_ + self.target_scale_ * output
        rate: NDArray[np.float64] = np.exp(np.minimum(output, _MAX_LOG_RATE))
        if exposure is None:
            return rate
        times = _exposure(exposure)
        if len(times) != len(rate):
            raise LengthMismatchError(f"exposure has {len(times)} entries for {len(rate)} rows.")
        return rate * times

    def score(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
    ) -> float:
        """Return the explained share of the deviance: R^2, or D^2 of Poisson deviance for counts.

        Parameters
        ----------
        X : data frame or array of shape (n_rows, n_columns)
        y : array-like of shape (n_rows,)
            Targets, or counts.
        sample_weight : array-like of shape (n_rows,), default=None
        exposure : array-like of shape (n_rows,), default=None
            For the Poisson loss, as in ``fit``.

        Returns
        -------
        float
            At most 1; 0 for a constant prediction, minus infinity for a rate of 0 where something
            was counted.
        """
        predicted = self.predict(X)
        if self.loss_ == "squared":
            if exposure is not None:
                raise InvalidParameterError("exposure is for models with the Poisson loss.")
            return float(r2_score(y, predicted, sample_weight=sample_weight))
        counts = _numbers(as_vector(y, name="y"))
        if exposure is not None:
            times = _exposure(exposure)
            if len(times) != len(counts):
                raise LengthMismatchError(
                    f"exposure has {len(times)} entries for {len(counts)} rows of y."
                )
            counts = counts / times
            sample_weight = times if sample_weight is None else _times(sample_weight, times)
        if (predicted <= 0).any():
            return -np.inf
        return float(d2_tweedie_score(counts, predicted, sample_weight=sample_weight, power=1))

    def _normalisation(self) -> str:
        # Scores come in the target's unit already, see the losses.
        return "dcor" if self.normalise == "dcor" else "none"

    def _check_model_parameters(self) -> None:
        super()._check_model_parameters()
        check.one_of(("target_scale", "none", "dcor"), normalise=self.normalise)

    def _problem(self, y: NDArray[Any]) -> Problem:
        values = _numbers(y)
        self.loss_ = self._chosen
        self.target_center_, self.target_scale_ = 0.0, 1.0
        if self.loss_ == "poisson":
            if (values < 0).any() or not values.any():
                raise DataError("y must hold counts of at least 0, not all 0, for loss='poisson'.")
            unit = 1.0
            if self.normalise == "target_scale":  # counts over exposures, not the mean of ratios
                unit = _mean_rate(values, self._mass)
            return Problem(_PoissonLoss(unit), values.astype(np.float32))
        spread = float(values.std())
        self.target_center_, self.target_scale_ = float(values.mean()), spread if spread else 1.0
        scaled = (values - self.target_center_) / self.target_scale_
        loss = _ScaledSquaredLoss()
        if self.normalise == "none":
            loss = _OwnUnitLoss(self.target_scale_)
        return Problem(loss, scaled.astype(np.float32))

    def _starting_point(self, module: nn.Module, records: Any) -> None:
        if self.loss_ == "poisson":
            weights = records.weights
            rate = float(np.average(records.problem.targets, weights=weights))
            last = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
            with torch.no_grad():
                last.bias.fill_(float(np.log(max(rate, 1e-12))))


def _times(weights: Any, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sample weights times exposures."""
    values = as_vector(weights, name="sample_weight")
    if values.dtype.kind not in "fiub":
        raise DataError("sample_weight must hold finite numbers of at least 0, one per row.")
    if len(values) != len(times):
        raise LengthMismatchError(
            f"sample_weight has {len(values)} entries for {len(times)} of exposure."
        )
    return np.asarray(values * times, dtype=np.float64)


def _mean_rate(rates: NDArray[np.float64], mass: Any) -> float:
    """Return the mean rate of the weighted rows; of all rows where those have none."""
    if mass is not None:
        weights = np.asarray(as_vector(mass, name="sample_weight"), dtype=np.float64)
        if len(weights) == len(rates) and np.isfinite(weights).all() and (weights >= 0).all():
            counted = float(weights @ rates)
            if counted > 0:
                return counted / float(weights.sum())
    return float(rates.mean())


class _OwnUnitLoss(_ScaledSquaredLoss):
    """The same loss; a penalty sees predictions in the target's own unit."""

    def __init__(self, unit: float) -> None:
        self._unit = unit

    def score(self, output: Tensor) -> Tensor:
        """Return the prediction in the unit of y, up to a shift."""
        return output[:, 0] * self._unit


def _numbers(y: NDArray[Any]) -> NDArray[np.float64]:
    if y.dtype.kind == "O":
        if not all(isinstance(v, int | float | np.number) for v in y):
            raise DataError("y must hold numbers, one per row; it has another kind of entry.")
        y = y.astype(np.float64)
    if y.dtype.kind not in "fiub":
        raise DataError("y must hold numbers, one per row; it has another kind of entry.")
    if missing_mask(y).any():
        raise DataError("y contains NaN or missing targets. Drop those rows before fitting.")
    if not np.isfinite(y).all():
        raise DataError("y contains infinity (inf). Drop those rows before fitting.")
    return y.astype(np.float64)


def _exposure(values: Any) -> NDArray[np.float64]:
    found = as_vector(values, name="exposure")
    if found.dtype.kind not in "fiu" or not np.isfinite(found).all() or (found <= 0).any():
        raise DataError("exposure must hold finite numbers above 0, one per row.")
    return found.astype(np.float64)
