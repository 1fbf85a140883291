"""A fitted classifier's decisions, made fair within and across clients: the estimator."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin
from sklearn.utils import Tags, get_tags
from sklearn.utils.validation import check_is_fitted

from privfair.core.estimators import PrivateEstimatorMixin
from privfair.core.events import LedgerLike
from privfair.core.privacy import Budget, PrivacyGuarantee
from privfair.core.randomness import check_random_state
from privfair.fairness._contingency import ContingencyRelease
from privfair.fairness.aglfop import _fit, _saved
from privfair.fairness.aglfop._bounds import FairnessBound
from privfair.fairness.aglfop._fresh import MeasuredMixin
from privfair.fairness.aglfop._rows import row_codes
from privfair.fairness.aglfop._rule import FairRule

__all__ = ["AGLFOPPostProcessor"]

Array = NDArray[np.float64]


class AGLFOPPostProcessor(  # type: ignore[misc]
    MeasuredMixin, ClassifierMixin, MetaEstimatorMixin, PrivateEstimatorMixin, BaseEstimator
):
    """Redraw a classifier's decisions so that they are fair globally and in every client.

    The scores of ``estimator`` are put into bins; of all randomised rules W(k | z, s, r) that
    see the bin r and what ``access`` allows of group z and client s, the most accurate one
    within the bounds on disparity is computed, and decisions are drawn from it.

    Parameters
    ----------
    estimator : classifier
        Fitted, unless ``prefit=False``; in a search, which clones, as ``FrozenEstimator``.
    criterion : {"demographic_parity", "equalized_odds", "equal_opportunity"}
        What the bounds speak of, default demographic parity.
    eps_global, eps_local : float or None, default=None
        Bounds on the information between group and decision, of all clients together and given
        the client, in bits; None for no bound.
    eps_client : mapping of client to float, or None
        Bounds within single clients, in bits.
    gap_global, gap_local : float or None, default=None
        Bounds on the differences of decision rates between groups, in [0, 1], of all clients
        together and within every client.
    extra_bounds : sequence of FairnessBound, default=()
        Other criteria, bounded at the same time.
    access : {"aware", "client_blind", "group_blind", "blind"}, default="aware"
        What the rule may see beside the score.
    bins : "auto", int, sequence of float or None, default="auto"
        Bins of equal frequency, inner edges, or None for the predicted class alone. With more
        than two classes bins of the top score are crossed with the predicted class. Under
        ``privacy`` a number means equal widths, for quantiles would read the rows. "auto" is
        twice the square root of the rows for each group of each client, at most 64; with
        labels="observed", a criterion that looks at the label, or ``privacy`` their cube root.
    labels : {"shrunk", "observed", "scores"}, default="shrunk"
        What tells the accuracy of a decision: "observed", the labels of the rows in each cell,
        which few rows fit by chance; "scores", the probabilities of ``estimator`` as they are,
        for criteria that look at the label, too; "shrunk", the observed rates of cells drawn
        towards calibrated probabilities, by as much as all cells show to be right.
    cost : array-like, shape (n_classes, n_classes), or None
        Cost of each decision (column) at each label (row); None counts errors.
    client_weight : mapping of client to float, or None
        Importance of each client's cost.
    prefit : bool, default=True
        False fits a clone of ``estimator``; the rule is then made from ``cv``-fold scores.
    cv : int, default=5
        Folds, with ``prefit=False``.
    unseen_client : {"error", "pooled"}, default="error"
        What a rule does with a client that was not in the fit: refuse, or decide by the mean
        rule of the clients by size.
    pos_label : object or None, default=None
        The label that equal opportunity conditions on; None is the last class.
    margin : float, default=0.0
        How many standard errors of each information are taken off its bound, since a rule that
        keeps a bound on its own rows exceeds it on others about every second time.
    groups : list, mapping or None
        Public groups; needed with ``privacy``.
    clients : list or None
        Public clients; needed with ``privacy`` if there is more than one.
    privacy : Budget or None, default=None
        Release the table of group, client, label and bin once under this budget and make the
        rule from it.
    ledger : Ledger or None, default=None
        Charged before the table is released.
    random_state : int, RandomState-like or None
        Seeds the drawing of decisions; never the noise of privacy.
    noise_random_state : int or None, default=None
        For tests and benchmarks only: makes the noise repeatable, marks the guarantee SEEDED.

    Attributes
    ----------
    rule_ : ndarray, shape (n_groups, n_clients, n_bins, n_classes)
        W(k | z, s, r).
    pooled_rule_ : ndarray, shape (n_groups, n_bins, n_classes)
        Mean over the clients by size.
    result_ : FairRule
    accuracy_ : float
        Expected accuracy (one minus cost) of the rule on the table of the fit, by ``labels``.
    accuracy_bound_ : float
        Proven: no rule of this access within the bounds does better on that table.
    price_global_, price_local_ : float
        Accuracy per bit that a larger bound would buy; 0 for no bound, ``inf`` at a bound of 0.
    prices_ : dict
    price_degenerate_ : bool
        Whether only a combination of the prices is determined.
    status_ : str
    achieved_global_, achieved_local_ : float
        Disparities of the rule on the table of the fit, in bits.
    achieved_, gaps_ : dict
        All of them, and the largest differences of rates.
    margin_ : dict
        Bits taken off each bound.
    label_precision_ : float
        How many rows of a cell the calibrated probabilities count for: 0 are the observed
        labels alone, ``inf`` the probabilities alone.
    edges_ : ndarray or None
        Inner edges of the bins.
    classes_, groups_, clients_ : ndarray, tuple, tuple
    estimator_ : classifier
    n_fit_ : int
        Rows of the fit; under ``privacy`` the public number.
    private_ : bool
        Whether the rule comes from a private table; one that does not shows small cells.
    privacy_ : PrivacyGuarantee
        Of the rule and everything else learnt here; not of ``estimator``.
    release_ : ContingencyRelease or None

    Raises
    ------
    SensitiveFeatureError, DataError, LabelError, InvalidParameterError, PrivacyError
        By ``fit``, before anything is spent.
    SolverError
        By ``fit``: no rule, or one that fails its checks.

    Notes
    -----
    *Algorithm.* One convex program with exponential cones; see :func:`fair_rule`. Prediction is
    a look-up and one uniform number per row.

    *Labels.* The rule is the best one within the bounds for the accuracy that ``labels`` tells;
    ``accuracy_``, ``accuracy_bound_`` and prices are about that accuracy. The bounds hold for the
    labels as observed (not with "scores"). "shrunk" takes the rates of cells for Dirichlet draws
    around a calibration with offsets for groups and clients, and their precision from the
    likelihood of all cells; rows of unequal weight count as fewer. Under ``privacy`` all of it is
    computed from the release.

    *Access.* ``aware`` and ``client_blind`` use the group at decision time (disparate treatment,
    illegal in places); ``group_blind`` and ``blind`` do not, and pay for it in accuracy.

    *Privacy.* With ``privacy``: unit record, relation ``zero_out``; one release of the table of
    counts, after which rule, prices and intervals are post-processing; charged once, before the
    draw. Public: groups, clients, classes, bins, number of rows. Known limits: ``estimator`` is
    not covered: train it on other rows or privately. ``docs/proofs/contingency-table.md``.

    References
    ----------
    Hamman and Dutta 2024, arXiv:2307.11333. Hardt, Price and Srebro 2016, arXiv:1610.02413.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> z, s = rng.integers(0, 2, 4000), rng.integers(0, 2, 4000)
    >>> X = rng.normal(size=(4000, 2)) + z[:, None] * 0.8
    >>> y = (X.sum(axis=1) + rng.normal(size=4000) > 1).astype(int)
    >>> base = LogisticRegression().fit(X[:2000], y[:2000])
    >>> fair = AGLFOPPostProcessor(base, eps_global=0.001, eps_local=0.002, random_state=0)
    >>> fair = fair.fit(X[2000:], y[2000:], sensitive_features=z[2000:], client=s[2000:])
    >>> fair.achieved_global_ <= 0.001, fair.achieved_local_ <= 0.002, fair.private_
    (True, True, False)
    >>> fair.predict(X, sensitive_features=z, client=s).shape
    (4000,)
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        criterion: str = "demographic_parity",
        eps_global: float | None = None,
        eps_local: float | None = None,
        eps_client: Mapping[Any, float] | None = None,
        gap_global: float | None = None,
        gap_local: float | None = None,
        extra_bounds: Sequence[FairnessBound] = (),
        access: str = "aware",
        bins: str | int | Sequence[float] | None = "auto",
        labels: str = "shrunk",
        cost: ArrayLike | None = None,
        client_weight: Mapping[Any, float] | None = None,
        prefit: bool = True,
        cv: int = 5,
        unseen_client: str = "error",
        pos_label: Any = None,
        margin: float = 0.0,
        groups: Any = None,
        clients: Sequence[Any] | None = None,
        privacy: Budget | None = None,
        ledger: LedgerLike | None = None,
        random_state: Any = None,
        noise_random_state: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.criterion = criterion
        self.eps_global = eps_global
        self.eps_local = eps_local
        self.eps_client = eps_client
        self.gap_global = gap_global
        self.gap_local = gap_local
        self.extra_bounds = extra_bounds
        self.access = access
        self.bins = bins
        self.labels = labels
        self.cost = cost
        self.client_weight = client_weight
        self.prefit = prefit
        self.cv = cv
        self.unseen_client = unseen_client
        self.pos_label = pos_label
        self.margin = margin
        self.groups = groups
        self.clients = clients
        self.privacy = privacy
        self.ledger = ledger
        self.random_state = random_state
        self.noise_random_state = noise_random_state

    estimator_: Any
    result_: FairRule
    rule_: Array
    pooled_rule_: Array
    classes_: NDArray[Any]
    groups_: tuple[tuple[str, ...], ...]
    clients_: tuple[Any, ...]
    private_: bool
    privacy_: PrivacyGuarantee
    release_: ContingencyRelease | None
    n_fit_: int

    # -- fitting ------------------------------------------------------------------------------
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sensitive_features: Any = None,
        client: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Make the rule from labelled rows.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)
            Rows that ``estimator`` was not trained on, if the rule is to keep its bounds.
        y : array-like, shape (n_rows,)
            Labels, of the classes of ``estimator``.
        sensitive_features : array-like, shape (n_rows,) or (n_rows, n_columns)
            Groups; several columns are crossed.
        client : array-like, shape (n_rows,), or None
            None is one client.
        sample_weight : array-like, shape (n_rows,), or None
            Non-negative; not with ``privacy``.

        Returns
        -------
        self
        """
        plan = _fit.checked(self, X, y, sensitive_features, client, sample_weight)
        _fit.learn(self, plan)
        return self

    # -- deciding -----------------------------------------------------------------------------
    def predict_proba(
        self, X: Any, *, sensitive_features: Any = None, client: Any = None
    ) -> Array:
        """Return the probability of each decision, W of every row.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)
        sensitive_features, client : array-like or None
            Needed where ``access`` sees them.

        Returns
        -------
        ndarray, shape (n_rows, n_classes)

        Raises
        ------
        SensitiveFeatureError
            Groups that are needed and absent, or unknown.
        DataError
            Clients that are needed and absent, or unknown with ``unseen_client="error"``.
        """
        check_is_fitted(self, "rule_")
        z, s, r = row_codes(self, X, sensitive_features, client)
        known = np.maximum(s, 0)
        out = np.where((s < 0)[:, None], self.pooled_rule_[z, r], self.rule_[z, known, r])
        return np.asarray(out, dtype=float)

    def predict(self, X: Any, *, sensitive_features: Any = None, client: Any = None) -> Any:
        """Draw a decision for every row, by ``random_state``.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)
        sensitive_features, client : array-like or None
            Needed where ``access`` sees them.

        Returns
        -------
        ndarray, shape (n_rows,)
        """
        weights = self.predict_proba(X, sensitive_features=sensitive_features, client=client)
        draw = check_random_state(self.random_state).random((len(weights), 1))
        return self.classes_[(draw > np.cumsum(weights, axis=1)[:, :-1]).sum(axis=1)]

    @property
    def edges_(self) -> Array | None:
        """Inner edges of the score bins; None where the rule reads the predicted class."""
        check_is_fitted(self, "rule_")
        edges: Array | None = self._score_bins.edges
        return edges

    # -- files --------------------------------------------------------------------------------
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted rule to a file: JSON, without rows, table or ``estimator``.

        Parameters
        ----------
        path : path-like
            A file's name.
        """
        check_is_fitted(self, "rule_")
        _saved.write(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, estimator: Any) -> Self:
        """Read a rule that :meth:`save` wrote.

        Parameters
        ----------
        path : path-like
        estimator : classifier
            The fitted classifier under the rule; its code and weights are not in the file.
        """
        made: Self = _saved.read(path, cls, estimator)
        return made

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True  # decisions are drawn
        tags.target_tags.required = True
        if hasattr(self.estimator, "__sklearn_tags__"):
            tags.input_tags.sparse = get_tags(self.estimator).input_tags.sparse
        return tags
