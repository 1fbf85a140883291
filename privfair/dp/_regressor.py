"""A scikit-learn regressor trained by DP-SGD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from torch import nn

from privfair.core.schema import Schema
from privfair.training import RegressorParts

__all__ = ["DPRegressor"]


class DPRegressor(RegressorMixin, RegressorParts):
    r"""Linear regression or a neural network, trained under differential privacy.

    Minimises the sum of squared errors :math:`\frac12 (f(x_i) - t_i)^2` by DP-SGD, where
    :math:`t_i` is the target clipped to the public ``target_range`` and scaled to [-1, 1]. Each
    step draws every record with one public probability, clips each record's gradient to
    ``max_grad_norm``, adds Gaussian noise and divides by a public constant. Everything that is
    learnt from the data, bounds and categories of the columns included, is paid for out of
    ``epsilon``.

    Parameters
    ----------
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
    unit : {"record", "user"}, default="record"
        Whose data are protected: one row, or all rows of one user, who are told apart by
        ``fit(..., user_ids=)``. Then users are drawn, the summed gradient of each is clipped,
        ``n_public``, ``batch_size`` and ``delta="auto"`` count users, and nothing may be learnt
        for the columns (a public ``schema`` or ``"as_is"``).
    max_records_per_user : int or None, default=None
        Public, for ``unit="user"``: as many records of each user are used, drawn once at random.
        None uses all; the guarantee needs no limit.
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
        Of the linear model, in units of y per encoded column (``encoding_.feature_names``).
    intercept_ : float
        In units of y.
    module_ : torch.nn.Module
        Predicts the scaled target.
    encoding_ : object
        The encoder of the columns.
    target_range_ : tuple of two floats
        The range that the fit used.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X has column names.
    noise_multiplier_ : float
        Noise of a step in units of ``max_grad_norm``; 0 for the non-private twin.
    n_steps_ : int
    sample_rate_ : float
    plan_ : TrainingPlan
        All public constants of the run.
    events_ : tuple
        What was charged.
    ledger_entry_id_ : int or None

    Notes
    -----
    *Algorithm.* DP-SGD with Poisson sampling and flat clipping (Abadi et al. 2016); the average
    of the parameters over the last half of the steps is returned, which costs no privacy. Time
    O(epochs * n * parameters).

    *Privacy.* Unit: one row. Neighbouring relation: ``neighboring``. Seen by the adversary: all
    iterates of the run, the encoder, every hyper-parameter. Mechanism: Poisson-subsampled
    Gaussian steps (``docs/proofs/dp-sgd.md``), composed by privacy-loss distributions with what
    the encoder spends. Assumptions: ``privacy_.assumptions``, the public ``target_range`` among
    them. Not covered: hyper-parameters that were chosen by looking at the same data; evaluation
    on the same data.

    References
    ----------
    Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang (2016), "Deep Learning with
    Differential Privacy", arXiv 1607.00133.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.dp import DPRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-1, 1, size=(4000, 2))
    >>> y = 10 + 3 * X[:, 0] - 2 * X[:, 1]
    >>> reg = DPRegressor(target_range=(5, 15), epsilon=1.0, schema="as_is").fit(X, y)
    >>> reg.score(X, y) > 0.9
    True
    >>> reg.privacy_.certified, reg.privacy_.epsilon <= 1.0
    (True, True)
    """

    def __init__(
        self,
        *,
        target_range: tuple[float, float] | None = None,
        epsilon: float = 1.0,
        delta: float | str = "auto",
        n_public: int | None = None,
        neighboring: str = "zero_out",
        unit: str = "record",
        max_records_per_user: int | None = None,
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
        self.target_range = target_range
        self.epsilon = epsilon
        self.delta = delta
        self.n_public = n_public
        self.neighboring = neighboring
        self.unit = unit
        self.max_records_per_user = max_records_per_user
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

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sensitive_features: Any = None,
        sample_weight: ArrayLike | None = None,
        user_ids: ArrayLike | None = None,
    ) -> Self:
        """Train, having charged the ledger first.

        Parameters
        ----------
        X : data frame or array of shape (n_rows, n_columns)
            pandas, polars or numpy.
        y : array-like of shape (n_rows,)
            Finite numbers; those outside ``target_range`` count as lying at its nearer end.
        sensitive_features : array-like or data frame, default=None
            One row per record. Checked, and not used.
        sample_weight : array-like of shape (n_rows,), default=None
            Finite, at least 0: factor of each record's loss, applied before clipping. It must
            depend on that record and on public knowledge only.
        user_ids : array-like of shape (n_rows,), default=None
            Who each row belongs to, for ``unit="user"`` and only then: labels or numbers, none
            missing. Under ``neighboring="zero_out"`` their number is public.

        Returns
        -------
        self : DPRegressor

        Raises
        ------
        InvalidParameterError
            ``target_range`` is missing or no range, or another parameter is out of its own.
        BudgetExceededError
            The ledger's cap would be passed; the data were not read.
        WeakGuaranteeError
            Epsilon above 20 or delta of at least 1 / n_public.
        SchemaError, DataError
            The data cannot be used. Nothing is spent.
        """
        self._fit(X, y, sensitive_features, sample_weight, user_ids)
        return self

    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sensitive_features: Any = None,
        sample_weight: ArrayLike | None = None,
        user_ids: ArrayLike | None = None,
    ) -> Self:
        """Train on from the present weights, at the price of one more fit.

        Parameters
        ----------
        X, y, sensitive_features, sample_weight, user_ids
            As in :meth:`fit`.

        Returns
        -------
        self : DPRegressor

        Notes
        -----
        Every call is a whole run of ``epochs`` over the rows given, with a new optimiser, and
        charges ``epsilon`` and ``delta`` of the constructor anew. ``privacy_`` is the
        composition of all calls as if all had seen the same records, and grows. It is the price
        of a number of calls fixed beforehand: whoever goes on until a model is good enough needs
        a ledger with a cap, whose sums hold for that too. The columns' encoding is that of the
        first call, also where it was learnt.
        """
        self._fit(X, y, sensitive_features, sample_weight, user_ids, go_on=True)
        return self
