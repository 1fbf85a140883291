"""A private classifier under socio-economic parity that shows its prices and gaps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from torch import nn

from privfair.core.exceptions import InvalidTypeError
from privfair.core.schema import Schema
from privfair.fairness.sep._penalty import SEPPenalty
from privfair.training import BasePrivateEstimator, ClassifierParts

__all__ = ["DPSEPClassifier"]


class DPSEPClassifier(ClassifierMixin, ClassifierParts):
    r"""A binary classifier trained under differential privacy with a price on SEP gaps.

    What ``DPClassifier(fairness_penalty=SEPPenalty(...))`` trains; beside the model it keeps the
    prices and gaps at the end of the run, which are post-processing of what the run released.

    Parameters
    ----------
    fairness_penalty : SEPPenalty or None, default=None
        Groups, rules and tolerance (:class:`SEPPenalty`); left as it is, for the run works on a
        copy. None trains without, and then needs no sensitive features.
    fairness_share : float, default=0.1
        Part of each step's privacy, in (0, 1), that the penalty's statistic takes.
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
        L2 bound on one record's gradient over all parameters together, above 0.
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
        freed of the noise's variance.
    lr : float or "auto", default="auto"
        Step size, above 0. ``"auto"`` is 0.05 for adam and 4 for sgd (0.02 and 2 with hidden
        layers or a module), for sgd divided by the public bound on an encoded record's squared
        norm over 16 where that is above 1.
    hidden_layer_sizes : tuple of int, default=()
        Sizes of hidden layers with tanh; none is logistic regression.
    module : torch.nn.Module, callable or None, default=None
        A module (copied) or a callable ``(n_features, n_outputs) -> Module`` instead of
        ``hidden_layer_sizes``. It must treat each record alone: batch normalisation is refused.
        It has one output for two classes and one per class for more.
    binning : {"public", "dp_quantiles"} or None, default=None
        ``"public"`` adds an indicator feature for each bin that the schema declares,
        ``"dp_quantiles"`` up to 16 bins per numeric column between private quantiles.
    classes : array-like or None, default=None
        All labels that can occur, public. None takes the labels present as public, which
        ``privacy_.assumptions`` then says.
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
    classes_ : ndarray of shape (2,)
    coef_ : ndarray of shape (1, n_encoded_features)
        Of the linear model, in encoded columns.
    intercept_ : ndarray of shape (1,)
    module_ : torch.nn.Module
    encoding_ : object
        The encoder of the columns.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X has column names.
    sigma_effective_ : float
        The one noise multiplier that the certificate rests on, as ``noise_multiplier_``.
    prices_ : dict of str to float
        Price of one unit of each group's gap at the end of the run; below zero where the reverse
        gap is priced. Empty without a penalty.
    gaps_ : dict of str to float or None
        Gaps of the training scores as last released, noise included; None where a set could not
        be told from noise. They are a moving average over the last steps, and the returned model
        is the average of the second half of the run: a guide, no estimate of its gaps.
    base_rates_ : dict of str to float or None
        Rates of target sets before prices began, as released, which the penalty's guard against
        levelling down holds up; None without a guard.
    steps_ : int
        Steps of the run, as ``n_steps_``.
    sample_rate_ : float
    plan_ : TrainingPlan
        All public constants of the run.
    events_ : tuple
        What was charged.
    ledger_entry_id_ : int or None

    Notes
    -----
    *Algorithm.* That of :class:`SEPPenalty` inside DP-SGD: a step releases noisy sums over the
    sets from the batch of its gradient, prices follow the gaps by dual ascent, and each record's
    loss gets its score times a weight from *earlier* releases. Cost O(epochs * n * (parameters +
    groups)).

    *Privacy.* Unit: one row, sensitive features included. Neighbouring relation:
    ``neighboring``. Seen by the adversary: all iterates, all released sums, every
    hyper-parameter. Mechanism: Poisson-subsampled Gaussian steps at the multiplier
    ``sigma_effective_`` (``docs/proofs/socio-economic-parity.md``). Assumptions:
    ``privacy_.assumptions``; groups and thresholds are public. Not covered: tolerances and
    strengths chosen by looking at the same data, gaps measured on it afterwards.

    *Fairness.* None is guaranteed. The guard against levelling down is a price as well.

    References
    ----------
    Roy, Rizou, Papadopoulos, Ntoutsi 2025, arXiv 2503.23056. Abadi et al. 2016, arXiv 1607.00133.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.fairness import DPSEPClassifier, SEPPenalty, SESRule
    >>> rng = np.random.default_rng(0)
    >>> wealth, sex = rng.integers(0, 2, 4000), rng.choice(["f", "m"], 4000)
    >>> X = np.column_stack([rng.normal(wealth), rng.normal(size=4000)])
    >>> y = X.sum(axis=1) + rng.logistic(size=4000) > 0.5
    >>> clf = DPSEPClassifier(
    ...     fairness_penalty=SEPPenalty(["f", "m"], SESRule("wealth", "<", 1)),
    ...     epsilon=3.0, schema="as_is",
    ... ).fit(X, y, sensitive_features={"sex": sex, "wealth": wealth})
    >>> sorted(clf.prices_), all(price > 0 for price in clf.prices_.values())
    (['f', 'm'], True)
    >>> clf.privacy_.certified, clf.privacy_.epsilon <= 3.0
    (True, True)
    """

    unit = "record"
    prices_: dict[str, float]
    gaps_: dict[str, float | None]
    base_rates_: dict[str, float | None]
    _saved_attributes: ClassVar[tuple[str, ...]] = (
        *BasePrivateEstimator._saved_attributes,
        "sigma_effective_",
        "prices_",
        "gaps_",
        "base_rates_",
        "steps_",
    )

    def __init__(
        self,
        *,
        fairness_penalty: SEPPenalty | None = None,
        fairness_share: float = 0.1,
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
        classes: ArrayLike | None = None,
        allow_weak: bool = False,
        allow_idealized: bool = False,
        ledger: Any = None,
        device: str = "auto",
        random_state: Any = None,
        noise_random_state: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.fairness_penalty = fairness_penalty
        self.fairness_share = fairness_share
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
        self.classes = classes
        self.allow_weak = allow_weak
        self.allow_idealized = allow_idealized
        self.ledger = ledger
        self.device = device
        self.random_state = random_state
        self.noise_random_state = noise_random_state
        self.verbose = verbose

    def _penalty(self) -> SEPPenalty | None:
        if self.fairness_penalty is None or isinstance(self.fairness_penalty, SEPPenalty):
            return self.fairness_penalty
        raise InvalidTypeError(
            "fairness_penalty must be a SEPPenalty, whose prices this class shows; got "
            f"{type(self.fairness_penalty).__name__}. DPClassifier takes any bounded penalty."
        )

    def _take_from_penalty(self, penalty: Any) -> None:
        names = penalty.names
        self.prices_ = dict(zip(names, penalty.prices.tolist(), strict=True))
        self.gaps_, self.base_rates_ = (
            {n: None if math.isnan(v) else v for n, v in zip(names, values.tolist(), strict=True)}
            for values in (penalty.gaps, penalty.base_rates)
        )

    def _finish(self, *args: Any, **kwargs: Any) -> None:
        self.prices_ = {}
        self.gaps_ = {}
        self.base_rates_ = {}
        super()._finish(*args, **kwargs)
        self.sigma_effective_ = self.noise_multiplier_
        self.steps_ = self.n_steps_

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sensitive_features: Any = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train, having charged the ledger first.

        Parameters
        ----------
        X : data frame or array of shape (n_rows, n_columns)
            pandas, polars or numpy.
        y : array-like of shape (n_rows,)
            Labels of two classes.
        sensitive_features : array-like or data frame, default=None
            The protected columns and those of the rules by name, one row per record; needed with
            a penalty. Not needed to predict.
        sample_weight : array-like of shape (n_rows,), default=None
            Finite, at least 0: factor of each record's loss, applied before clipping. It must
            depend on that record and on public knowledge only.

        Returns
        -------
        self : DPSEPClassifier

        Raises
        ------
        AccountingAssumptionError
            The penalty has no bounded per-record form.
        BudgetExceededError
            The ledger's cap would be passed; the data were not read.
        SchemaError, DataError
            The data cannot be used. Nothing is spent.
        """
        self._fit(X, y, sensitive_features, sample_weight)
        return self
