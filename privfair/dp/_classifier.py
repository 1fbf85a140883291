"""A scikit-learn classifier trained by DP-SGD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from torch import nn

from privfair.core.exceptions import InvalidParameterError
from privfair.core.schema import Schema
from privfair.training import ClassifierParts

__all__ = ["DPClassifier"]


class DPClassifier(ClassifierMixin, ClassifierParts):
    r"""Logistic regression or a neural network, trained under differential privacy.

    Minimises the sum of per-record cross-entropies by DP-SGD: each step draws every record with
    one public probability, clips each record's gradient to ``max_grad_norm``, adds Gaussian
    noise and divides by a public constant. Everything that is learnt from the data, bounds and
    categories of the columns included, is paid for out of ``epsilon``.

    Parameters
    ----------
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
    fairness_penalty : BoundedPenalty or None, default=None
        A penalty with a bounded per-record form; see :class:`privfair.core.BoundedPenalty`. Its
        ``strength`` attribute (1 if absent) scales it. Binary targets only.
    fairness_share : float, default=0.1
        Part of each step's privacy, in (0, 1), that the penalty's statistic takes.
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
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (1 or n_classes, n_encoded_features)
        Of the linear model, in encoded columns (``encoding_.feature_names``).
    intercept_ : ndarray of shape (1 or n_classes,)
    module_ : torch.nn.Module
    encoding_ : object
        The encoder of the columns.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X has column names.
    noise_multiplier_ : float
        Noise of a step in units of ``max_grad_norm`` (gradient and statistic together); 0 for
        the non-private twin.
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
    O(epochs * n * parameters); a logistic model of 100 features on 30,000 rows takes well under
    a second.

    *Privacy.* Unit: one row. Neighbouring relation: ``neighboring``. Seen by the adversary: all
    iterates of the run, the encoder, every hyper-parameter. Mechanism: Poisson-subsampled
    Gaussian steps (``docs/proofs/dp-sgd.md``), composed by privacy-loss distributions with what
    the encoder spends. Assumptions: ``privacy_.assumptions``. Not covered: hyper-parameters that
    were chosen by looking at the same data; evaluation on the same data.

    References
    ----------
    Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang (2016), "Deep Learning with
    Differential Privacy", arXiv 1607.00133.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.dp import DPClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(2000, 2))
    >>> y = np.where(X[:, 0] > 0, "yes", "no")
    >>> clf = DPClassifier(epsilon=1.0, schema="as_is", epochs=5).fit(X, y)
    >>> clf.score(X, y) > 0.9
    True
    >>> clf.privacy_.certified, clf.privacy_.epsilon <= 1.0
    (True, True)
    """

    def __init__(
        self,
        *,
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
        classes: ArrayLike | None = None,
        fairness_penalty: Any = None,
        fairness_share: float = 0.1,
        allow_weak: bool = False,
        allow_idealized: bool = False,
        ledger: Any = None,
        device: str = "auto",
        random_state: Any = None,
        noise_random_state: int | None = None,
        verbose: int = 0,
    ) -> None:
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
        self.classes = classes
        self.fairness_penalty = fairness_penalty
        self.fairness_share = fairness_share
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
            Labels.
        sensitive_features : array-like or data frame, default=None
            One row per record. Checked, and used by ``fairness_penalty`` only.
        sample_weight : array-like of shape (n_rows,), default=None
            Finite, at least 0: factor of each record's loss, applied before clipping. It must
            depend on that record and on public knowledge only; weights computed from the other
            records (class frequencies, say) are a release of their own.
        user_ids : array-like of shape (n_rows,), default=None
            Who each row belongs to, for ``unit="user"`` and only then: labels or numbers, none
            missing. Under ``neighboring="zero_out"`` their number is public.

        Returns
        -------
        self : DPClassifier

        Raises
        ------
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
        classes: ArrayLike | None = None,
        sensitive_features: Any = None,
        sample_weight: ArrayLike | None = None,
        user_ids: ArrayLike | None = None,
    ) -> Self:
        """Train on from the present weights, at the price of one more fit.

        Parameters
        ----------
        X, y, sensitive_features, sample_weight, user_ids
            As in :meth:`fit`.
        classes : array-like or None, default=None
            All labels that can occur, public. Needed in the first call, unless the constructor
            has them; later ones may repeat them.

        Returns
        -------
        self : DPClassifier

        Notes
        -----
        Every call is a whole run of ``epochs`` over the rows given, with a new optimiser, and
        charges ``epsilon`` and ``delta`` of the constructor anew. ``privacy_`` is the
        composition of all calls as if all had seen the same records, and grows. It is the price
        of a number of calls fixed beforehand: whoever goes on until a model is good enough needs
        a ledger with a cap, whose sums hold for that too. The columns' encoding is that of the
        first call, also where it was learnt.
        """
        if hasattr(self, "module_"):
            if classes is not None and not np.array_equal(
                self._class_list(classes), self.classes_
            ):
                raise InvalidParameterError(
                    "classes are not those of the first call of partial_fit or of fit, and a "
                    "model cannot change them. Leave classes out, or start again with fit."
                )
            self._label_set: Any = self.classes_
        else:
            self._label_set = self.classes if classes is None else classes
            if self._label_set is None:
                raise InvalidParameterError(
                    "classes must be given in the first call of partial_fit: rows that come later "
                    "may have labels that these have not."
                )
        try:
            self._fit(X, y, sensitive_features, sample_weight, user_ids, go_on=True)
        finally:
            self.__dict__.pop("_label_set", None)
        return self
