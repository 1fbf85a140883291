"""A regressor that is private and fair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from sklearn.base import RegressorMixin
from torch import nn

from privfair.core.schema import Schema
from privfair.fairness.dcov._private import SHOWN, FairParts
from privfair.training import RangedSquaredLoss, RegressorParts

__all__ = ["DPFairDCovRegressor"]


class DPFairDCovRegressor(RegressorMixin, FairParts, RegressorParts):
    r"""A regressor trained under differential privacy with a fairness penalty.

    Minimises squared error plus ``lambda_`` times the squared distance covariance of the
    prediction and the declared groups. The penalty sees the prediction's place in the public
    ``target_range``, from 0 to 1; predictions beyond an end count as that end, without gradient.

    Parameters
    ----------
    groups : Schema or mapping of str to Categorical, Numeric or list of labels
        The sensitive columns with their labels, declared and public; needed unless
        ``lambda_=0``. Labels that are not declared form one more cell. A numeric column needs
        public ``bins``.
    lambda_ : float, default=1.0
        Weight of the penalty, at least 0; without units, so look at a few values. 0 trains
        without a penalty, and then needs no sensitive features. Squared errors of the scaled
        target are small, so that values far above 1 drown them.
    penalty : {"ccdcov", "jdcov", "pairwise", "cells"} or BoundedPenalty, default="jdcov"
        Which dependence, see :class:`BoundedDistanceCovariance`; ``"pairwise"`` does not see
        intersections. Another bounded penalty is taken as it is (its own groups; ``lambda_``
        multiplies its ``strength``). A batch-level penalty is refused by name.
    c : float, default=1.0
        Above 0; weight of low orders in ``"jdcov"``.
    group_weighting : float, default=0.5
        tau in [0, 1]: cell g weighs ``share_g ** tau``. Small intersections count more below 1.
    n_frequencies : int, default=8
        Number of cosine terms, at least 1.
    ema : float, default=0.9
        Decay in [0, 1) of the moving average over released sums.
    cells : list of tuples or None, default=None
        Combinations of labels that are cells of their own; None takes all.
    attribute_weights : mapping of str to float or None, default=None
        Largest distance in each sensitive column, public; 1 where not named.
    fairness_share : float, default=0.1
        Part r of each step's privacy, in (0, 1), that the penalty's statistic takes:
        ``sigma_gradient_ = sigma_effective_ / sqrt(1 - r)`` and
        ``sigma_features_ = sigma_effective_ / sqrt(r)``.
    target_range : tuple of two floats
        Public lower and upper bound of the target, finite, the lower one first, in the unit of
        y. It must be given: reading it off the data would be a release. Targets outside count as
        lying at the nearer bound, and predictions are confined to it.
    epsilon : float, default=1.0
        Privacy of the whole fit, above 0. Above 20 needs ``allow_weak=True``. ``float("inf")``
        trains the non-private twin: same sampler, loss and steps, no clipping, no noise, all
        from ``random_state``.
    delta : float or "auto", default="auto"
        In (0, 1). ``"auto"`` is the largest power of ten that is at most 1 / (10 n_public).
    n_public : int or None, default=None
        Public size of the data set. Needed under ``neighboring="add_remove"``; otherwise the
        number of rows is public and taken.
    neighboring : {"zero_out", "add_remove"}, default="zero_out"
        Which data sets count as neighbours: one record replaced by nothing (the number of
        records being public), or one record added or removed.
    schema : Schema, "as_is" or None, default=None
        What is publicly known about the columns: a :class:`privfair.Schema` with bounds and
        categories; ``"as_is"`` for numeric columns that are used as they are (nothing is read
        from them); None learns bounds and categories privately.
    preprocessing_share : float, default=0.2
        Part of epsilon and delta, in (0, 1), that pays for what ``schema=None`` and
        ``binning="dp_quantiles"`` learn.
    max_grad_norm : float, default=1.0
        L2 bound on one record's gradient over all parameters together, above 0, in the units of
        the scaled target.
    batch_size : int or "auto", default="auto"
        Expected batch size, a public constant: ``"auto"`` is 6 sqrt(n_public), at least 256 and
        at most n_public.
    epochs : float, default=20
        Expected number of times that a record is used, above 0.
    clipping : {"flat", "automatic", "per_layer", "adaptive"} or object, default="flat"
        How one record's gradient is bounded, see :func:`privfair.training.make_clipping`; it
        changes no guarantee. ``"adaptive"`` cannot go together with a penalty.
    optimizer : {"adam", "sgd", "dp_adam_bc"}, default="adam"
        Post-processing of the noisy gradients; ``"dp_adam_bc"`` is Adam whose second moment is
        freed of the noise's variance. Adam, since the columns of a regression differ
        more in scale than one step size can serve.
    lr : float or "auto", default="auto"
        Step size, above 0. ``"auto"`` is 0.1 for adam and for sgd (0.01 and 0.05 with
        hidden layers or a module), for sgd divided by the public bound on an encoded record's
        squared norm over 16 where that is above 1.
    hidden_layer_sizes : tuple of int, default=()
        Sizes of hidden layers with tanh; none is linear regression.
    module : torch.nn.Module, callable or None, default=None
        A module (copied) or a callable ``(n_features, 1) -> Module`` instead of
        ``hidden_layer_sizes``. It must treat each record alone: batch normalisation is refused.
    binning : {"public", "dp_quantiles"} or None, default=None
        ``"public"`` adds an indicator feature for each bin that the schema declares,
        ``"dp_quantiles"`` up to 16 bins per numeric column between private quantiles.
    allow_weak : bool, default=False
        Accept epsilon above 20 or delta of at least 1 / n_public, on the record.
    allow_idealized : bool, default=False
        Accept mechanisms whose proof ignores floating point. None is used here by default.
    ledger : Ledger or None, default=None
        Charged before the data are read. None stands for this process's own uncapped ledger.
    device : {"auto", "cpu", "cuda", "cuda:N"}, default="auto"
        Where tensors live; never changes the guarantee's numerical class.
    random_state : int, Generator, RandomState or None, default=None
        Seeds initial weights; no guarantee depends on it.
    noise_random_state : int or None, default=None
        Seeds batches and noise, for tests and benchmarks only: the guarantee is then marked
        ``seeded`` and not certified.
    verbose : int, default=0
        Above 0 shows a progress bar on a terminal: steps and epsilon, never a loss.

    Attributes
    ----------
    privacy_ : PrivacyGuarantee
        What the fit guarantees, with everything that it assumes.
    coef_ : ndarray of shape (n_encoded_features,)
        Of the linear model, in units of y per encoded column.
    intercept_ : float
    target_range_ : tuple of two floats
        The range that the fit used.
    module_ : torch.nn.Module
        Predicts the scaled target.
    encoding_ : object
        The encoder of the columns.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X has column names.
    sigma_gradient_ : float
        Noise of the gradient in units of ``max_grad_norm``; 0 for the non-private twin.
    sigma_features_ : float
        Noise of the penalty's sums in units of its feature bound; 0 without penalty or privacy.
    sigma_effective_ : float
        The one noise multiplier that the certificate rests on:
        ``(sigma_gradient_**-2 + sigma_features_**-2) ** -0.5``.
    steps_ : int
        Steps of the run, as ``n_steps_``.
    sample_rate_ : float
    pooled_cells_ : tuple of tuples
        Labels of cells whose released counts were too small to be told from noise at the end of
        the run; they were pooled, or left alone.
    plan_ : TrainingPlan
        All public constants of the run.
    events_ : tuple
        What was charged.
    ledger_entry_id_ : int or None

    Notes
    -----
    *Algorithm.* A step draws a Poisson batch. Each record's loss gets ``lambda_ * h_i * f_i`` for
    its score f_i, where h_i is the derivative of the penalty at f_i computed from sums released
    at *earlier* steps; its gradient is clipped. From the same batch the sum of bounded features
    (cosines of the score in the place of the record's cell, and a count) is released with noise;
    a moving average of it makes the next steps' h. Cost O(epochs * n * (parameters + cells)).

    *Privacy.* Unit: one row, sensitive features included. Neighbouring relation:
    ``neighboring``. Seen by the adversary: all iterates, all released sums, every
    hyper-parameter. Mechanism: Poisson-subsampled Gaussian steps at the multiplier
    ``sigma_effective_`` (``docs/proofs/private-fairness-penalty.md``). Assumptions:
    ``privacy_.assumptions``; the declared groups are public. Not covered: a ``lambda_`` or
    threshold that was chosen by looking at the same data, fairness numbers computed from them.

    *Fairness.* None is guaranteed: the penalty narrows what it measures, scores' dependence on
    the groups. A threshold can bring a gap back, so measure decisions as well. Demographic parity
    ignores the labels.

    References
    ----------
    Abadi et al. (2016), arXiv 1607.00133. Lee, Antonio, Avanzi, Marchi, Zhou (2025), arXiv
    2509.08163.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.fairness.dcov import DPFairDCovRegressor
    >>> rng = np.random.default_rng(0)
    >>> S = np.where(rng.random(4000) < 0.3, "a", "b")
    >>> X = np.stack([rng.uniform(-1, 1, 4000) + (S == "a"), rng.uniform(-1, 1, 4000)], axis=1)
    >>> y = 10 + X[:, 0] - 2 * X[:, 1]
    >>> reg = DPFairDCovRegressor(
    ...     groups={"s": ["a", "b"]}, target_range=(5, 15), lambda_=30.0, epsilon=10.0,
    ...     schema="as_is",
    ... ).fit(X, y, sensitive_features=S)
    >>> p = reg.predict(X)
    >>> bool(abs(p[S == "a"].mean() - p[S == "b"].mean()) < 0.5 * y.std())
    True
    >>> reg.privacy_.certified, reg.privacy_.epsilon <= 10.0
    (True, True)
    """

    _loss = RangedSquaredLoss
    _saved_attributes: ClassVar[tuple[str, ...]] = (
        *RegressorParts._saved_attributes,
        *SHOWN,
    )

    def __init__(
        self,
        *,
        groups: Schema | Mapping[str, Any] | None = None,
        lambda_: float = 1.0,
        penalty: Any = "jdcov",
        c: float = 1.0,
        group_weighting: float = 0.5,
        n_frequencies: int = 8,
        ema: float = 0.9,
        cells: Iterable[tuple[Any, ...]] | None = None,
        attribute_weights: Mapping[str, float] | None = None,
        fairness_share: float = 0.1,
        target_range: tuple[float, float] | None = None,
        epsilon: float = 1.0,
        delta: float | str = "auto",
        n_public: int | None = None,
        neighboring: str = "zero_out",
        schema: Schema | str | None = None,
        preprocessing_share: float = 0.2,
        max_grad_norm: float = 1.0,
        batch_size: int | str = "auto",
        epochs: float = 20,
        clipping: Any = "flat",
        optimizer: str = "adam",
        lr: float | str = "auto",
        hidden_layer_sizes: Sequence[int] = (),
        module: nn.Module | Callable[[int, int], nn.Module] | None = None,
        binning: str | None = None,
        allow_weak: bool = False,
        allow_idealized: bool = False,
        ledger: Any = None,
        device: str = "auto",
        random_state: Any = None,
        noise_random_state: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.groups = groups
        self.lambda_ = lambda_
        self.penalty = penalty
        self.c = c
        self.group_weighting = group_weighting
        self.n_frequencies = n_frequencies
        self.ema = ema
        self.cells = cells
        self.attribute_weights = attribute_weights
        self.fairness_share = fairness_share
        self.target_range = target_range
        self.epsilon = epsilon
        self.delta = delta
        self.n_public = n_public
        self.neighboring = neighboring
        self.schema = schema
        self.preprocessing_share = preprocessing_share
        self.max_grad_norm = max_grad_norm
        self.batch_size = batch_size
        self.epochs = epochs
        self.clipping = clipping
        self.optimizer = optimizer
        self.lr = lr
        self.hidden_layer_sizes = hidden_layer_sizes
        self.module = module
        self.binning = binning
        self.allow_weak = allow_weak
        self.allow_idealized = allow_idealized
        self.ledger = ledger
        self.device = device
        self.random_state = random_state
        self.noise_random_state = noise_random_state
        self.verbose = verbose
