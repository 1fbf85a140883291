"""A classifier trained under socio-economic parity."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from privfair.core.exceptions import InvalidParameterError
from privfair.core.randomness import check_random_state
from privfair.fairness.metrics._inputs import read_weights
from privfair.fairness.sep._constraints import check_sizes
from privfair.fairness.sep._fitting import SEPTraining
from privfair.fairness.sep._post import atoms, mixed_decisions
from privfair.fairness.sep._saved import SavedSEPMixin
from privfair.fairness.sep._sets import Sets

__all__ = ["SEPClassifier"]

Floats = NDArray[np.float64]


class SEPClassifier(SEPTraining, SavedSEPMixin, ClassifierMixin, BaseEstimator):
    r"""Train a binary classifier under socio-economic parity.

    SEP asks that underprivileged members of every protected group be selected as often as
    everybody: :math:`E[h] - E[h \mid s, \text{low status}] \le` ``tolerance``. CSEP asks it among
    people who show effort.

    Parameters
    ----------
    estimator : estimator or None, default=None
        Base learner of ``method="reductions"`` (must take weights) and ``"post"`` (must give
        ``predict_proba``). ``"auglag"`` trains a model of its own and takes None only. None is a
        logistic regression.
    notion : {"SEP", "CSEP"}, default="SEP"
        CSEP needs ``effort``, or ``effort_features`` in ``fit`` as booleans.
    ses : SESRule, CompositeSES or None, default=None
        Who is underprivileged, read from ``ses_features``; None takes ``ses_features`` as one
        boolean for each row.
    effort : EffortRule or None, default=None
        Who shows effort, read from ``effort_features``.
    tolerance : float, default=0.01
        Largest gap allowed, at least 0. (Not a privacy parameter.)
    one_sided : bool, default=True
        Whether only gaps to the disadvantage of target sets are limited (positive action).
    method : {"auglag", "reductions", "post"}, default="auglag"
        Augmented Lagrangian (deterministic, needs no protected attribute when predicting);
        reductions to weighted classification (randomised decisions, any learner); randomised
        thresholds on top of a model (needs the attributes when predicting).
    constrain : {"soft", "hard_surrogate", "post"}, default="soft"
        What ``"auglag"`` limits: scores; a steep sigmoid of them that anneals towards decisions,
        with one threshold refitted at the end; or scores, with randomised thresholds on top.
        A gap of scores says little about a gap of decisions at 0.5: see ``gaps_``.
    no_leveling_down : bool, default=True
        Whether the rates of target sets must not fall below those of the unconstrained model, so
        that the gap is not closed by selecting fewer people of everybody.
    margin : float, default=1.0
        Standard errors of a gap, at least 0, by which randomised thresholds stay below
        ``tolerance`` (and not below 0) on the training rows, which they obey exactly, so that new
        rows, whose gaps scatter, obey more often.
    reference : {"conditional", "overall"}, default="conditional"
        For CSEP: compare with those who show effort, or with everybody.
    protected : {"groups", "all"}, default="groups"
        "all" adds the target set of all underprivileged people.
    hidden_layer_sizes : tuple of int, default=()
        Tanh layers of the model of ``"auglag"``; none is logistic regression.
    alpha : float, default=1e-4
        Ridge penalty on standardised weights, at least 0.
    solver : {"lbfgs", "adam"}, default="lbfgs"
        Minimiser within a round.
    max_iter : int, default=60
        Iterations of the minimiser in each round; for adam its steps, in batches at least as
        many as use each row once.
    learning_rate : float, default=0.02
        Of adam.
    batch_size : int or None, default=None
        Rows of a step of adam at most, for tables of which no standardised copy should be held;
        None takes all. Needs ``method="auglag"`` and ``solver="adam"``; the smallest set should
        have 20 rows in a batch. The rows need not be in memory: a memory map of float64 will do.
    max_rounds : int, default=25
        Rounds of multipliers (iterations of the reduction).
    tol : float, default=1e-3
        Violation at which the rounds end.
    min_group : int, default=30
        Smaller sets are refused.
    min_accuracy : float or None, default=None
        Training accuracy below which the fit is refused.
    max_selection_change : float or None, default=None
        Change of the overall selection rate beyond which the fit is refused.
    label_columns : sequence of str, default=()
        Names of the label and of columns made from it, which no rule may use.
    random_state : int, Generator, RandomState or None, default=None
        Initial weights of hidden layers, and draws of randomised decisions.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
    model_ : object
        Parameters of the own model, or the fitted base learner or reduction.
    gaps_ : pandas.DataFrame
        Training gaps of scores (``soft_gap``) and of decisions (``hard_gap``) by target set.
    multipliers_ : pandas.Series
        Price of one unit of each constraint, in units of the loss.
    violations_ : pandas.Series
        ``matrix @ h - bound`` of every constraint at the end, for what was constrained.
    base_rates_ : pandas.Series
        Rates of target sets under the unconstrained model (empty without the guard).
    threshold_ : float
        Scores from here on are positive decisions.
    n_rounds_, n_iter_ : int
        Rounds, and iterations of the minimiser in all.
    converged_ : bool
    needs_attributes_ : bool
        Whether predicting needs the protected, status and effort columns.
    ses_rule_, effort_rule_ : rule or None
        With what they learnt.
    n_features_in_ : int

    Notes
    -----
    Algorithm A follows the usual augmented Lagrangian with multipliers
    :math:`\lambda_j \leftarrow \max(0, \lambda_j + \rho v_j)`; one gradient costs one product
    with a sparse matrix of n_targets rows. B: exponentiated gradient (Agarwal et al. 2018). C: a
    linear program over randomised thresholds (Hardt et al. 2016).

    *Privacy.* None, also around a private ``estimator``: rates, gaps, multipliers and thresholds
    are exact statistics of the training rows. Randomised thresholds *are* scores of some of these
    rows, and the threshold of ``SESRule.quantile`` is the value of one; both leave with a saved
    model. :class:`SEPPenalty` is for training under differential privacy; it has neither.

    Positive action may conflict with equalised odds where base rates differ; the attribute of
    status may be a legitimate predictor, and then accuracy pays. A fit is evidence for an
    assessment, not legal compliance.

    References
    ----------
    Roy, Rizou, Papadopoulos, Ntoutsi 2025, arXiv 2503.23056. Agarwal et al. 2018, arXiv
    1803.02453. Hardt, Price, Srebro 2016, arXiv 1610.02413.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> low = rng.random(1000) < 0.5
    >>> X = np.column_stack([rng.normal(-0.8 * low), rng.normal(size=1000)])
    >>> y = (X.sum(axis=1) + rng.normal(size=1000) > 0).astype(int)
    >>> s = rng.choice(["F", "M"], 1000)
    >>> model = SEPClassifier(tolerance=0.02).fit(X, y, sensitive_features=s, ses_features=low)
    >>> model.converged_, bool((model.gaps_["soft_gap"] < 0.022).all())
    (True, True)
    """

    def __init__(
        self,
        *,
        estimator: Any = None,
        notion: str = "SEP",
        ses: Any = None,
        effort: Any = None,
        tolerance: float = 0.01,
        one_sided: bool = True,
        method: str = "auglag",
        constrain: str = "soft",
        no_leveling_down: bool = True,
        margin: float = 1.0,
        reference: str = "conditional",
        protected: str = "groups",
        hidden_layer_sizes: tuple[int, ...] = (),
        alpha: float = 1e-4,
        solver: str = "lbfgs",
        max_iter: int = 60,
        learning_rate: float = 0.02,
        batch_size: int | None = None,
        max_rounds: int = 25,
        tol: float = 1e-3,
        min_group: int = 30,
        min_accuracy: float | None = None,
        max_selection_change: float | None = None,
        label_columns: Any = (),
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.notion = notion
        self.ses = ses
        self.effort = effort
        self.tolerance = tolerance
        self.one_sided = one_sided
        self.method = method
        self.constrain = constrain
        self.no_leveling_down = no_leveling_down
        self.margin = margin
        self.reference = reference
        self.protected = protected
        self.hidden_layer_sizes = hidden_layer_sizes
        self.alpha = alpha
        self.solver = solver
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_rounds = max_rounds
        self.tol = tol
        self.min_group = min_group
        self.min_accuracy = min_accuracy
        self.max_selection_change = max_selection_change
        self.label_columns = label_columns
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    # -- fit -------------------------------------------------------------------------------
    def fit(
        self,
        X: Any,
        y: ArrayLike,
        *,
        sensitive_features: Any = None,
        ses_features: Any = None,
        effort_features: Any = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train under the constraints.

        Parameters
        ----------
        X : array or data frame of numbers, shape (n_rows, n_features)
        y : array-like of shape (n_rows,)
            Two labels; the larger one is the positive decision.
        sensitive_features : array-like or table
            Protected attributes; several columns are crossed.
        ses_features : table or array-like
            What ``ses`` reads, or booleans.
        effort_features : table or array-like, default=None
            What ``effort`` reads, or booleans.
        sample_weight : array-like, default=None
            Weights of loss and constraints alike.

        Returns
        -------
        self : SEPClassifier

        Raises
        ------
        SmallGroupError
            A set has fewer than ``min_group`` rows.
        ConvergenceError
            A guard (``min_accuracy``, ``max_selection_change``) is broken.

        Warns
        -----
        UtilityWarning
            The rounds ended before the constraints held; the residuals are named.
        """
        self._check_parameters()
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            kind = type_of_target(y, input_name="y")
            raise InvalidParameterError(
                "Only binary classification is supported. The type of the target is "
                f"{kind} with {len(self.classes_)} class{'es'[: 2 * (len(self.classes_) != 1)]}."
            )
        weight = read_weights(sample_weight, len(labels))
        mass = np.ones(len(labels)) if weight is None else weight
        sets = self._sets(
            sensitive_features, ses_features, effort_features, labels, sample_weight=weight
        )
        if len(set(labels[mass > 0].tolist())) < 2:
            raise InvalidParameterError(
                "only one class has rows of a sample_weight above 0, so that there is nothing to "
                "tell apart. Give rows of both classes weight."
            )
        check_sizes(sets, self.min_group, weight)
        target = labels.astype(float)
        X = np.asarray(X, dtype=float)
        attributes = {
            "sensitive_features": sensitive_features,
            "ses_features": ses_features,
            "effort_features": effort_features,
        }
        self.threshold_ = 0.5
        self.mixes_ = None
        self.model_ = None
        fit = {"auglag": self._fit_auglag, "post": self._fit_post}.get(self.method)
        if fit is None:
            self._fit_reduction(X, labels, sets, mass, weight, attributes)
        else:
            fit(X, target, sets, mass)
        self.needs_attributes_ = self.mixes_ is not None
        self.ses_rule_, self.effort_rule_ = sets.ses_rule, sets.effort_rule
        self.groups_ = sets.groups.labels
        self._report(X, target, sets, mass)
        return self

    # -- prediction ------------------------------------------------------------------------
    def _scores(self, X: Floats) -> Floats:
        if hasattr(self.model_, "predict_proba"):
            return np.asarray(self.model_.predict_proba(X)[:, 1], dtype=float)
        return self.network_.scores(self.model_, X)

    def _decisions(self, scores: Floats, sets: Sets | None) -> Floats:
        """Return the probability of a positive decision."""
        if self.method == "reductions":
            return scores
        if self.mixes_ is None or sets is None:
            return (scores >= self.threshold_).astype(float)
        return mixed_decisions(self.mixes_, scores, atoms(sets))

    def _attributes(
        self, X: Any, sensitive: Any, ses_features: Any, effort_features: Any
    ) -> Sets | None:
        if not self.needs_attributes_:
            return None
        if sensitive is None and self.groups_:
            raise InvalidParameterError(
                "randomised thresholds differ between target sets: pass sensitive_features, "
                "ses_features and, for CSEP, effort_features. method='auglag' with another "
                "constrain needs none of them."
            )
        more: dict[str, Any] = {} if self.ses_rule_ is None else {"ses": self.ses_rule_}
        if self.effort_rule_ is not None:
            more["effort"] = self.effort_rule_
        groups = self.groups_ or None
        rows = np.zeros(len(X))
        return self._sets(
            sensitive, ses_features, effort_features, rows, groups=groups, y_true=None, **more
        )

    def decision_function(self, X: Any) -> Floats:
        """Return scores less the threshold, shape (n_rows,).

        Parameters
        ----------
        X : array or data frame
        """
        check_is_fitted(self, "classes_")
        return self._scores(self._rows(X)) - self.threshold_

    def predict_proba(
        self,
        X: Any,
        *,
        sensitive_features: Any = None,
        ses_features: Any = None,
        effort_features: Any = None,
    ) -> Floats:
        """Return probabilities of both labels, shape (n_rows, 2).

        For randomised decisions (``"reductions"``, randomised thresholds) these are the
        probabilities of the decisions; otherwise the model's scores.

        Parameters
        ----------
        X : array or data frame
        sensitive_features, ses_features, effort_features : array-like or table
            Needed where ``needs_attributes_``.
        """
        check_is_fitted(self, "classes_")
        rows = self._rows(X)
        scores = self._scores(rows)
        if self.needs_attributes_:
            sets = self._attributes(rows, sensitive_features, ses_features, effort_features)
            scores = self._decisions(scores, sets)
        return np.column_stack([1 - scores, scores])

    def predict(
        self,
        X: Any,
        *,
        sensitive_features: Any = None,
        ses_features: Any = None,
        effort_features: Any = None,
        random_state: Any = None,
    ) -> NDArray[Any]:
        """Return decisions as labels; randomised ones are drawn anew with every call.

        Parameters
        ----------
        X : array or data frame
        sensitive_features, ses_features, effort_features : array-like or table
            Needed where ``needs_attributes_``.
        random_state : int, Generator, RandomState or None, default=None
            Of randomised decisions; None takes that of the constructor.
        """
        check_is_fitted(self, "classes_")
        rows = self._rows(X)
        sets = self._attributes(rows, sensitive_features, ses_features, effort_features)
        h = self._decisions(self._scores(rows), sets)
        if ((h > 0) & (h < 1)).any():
            seed = self.random_state if random_state is None else random_state
            h = (check_random_state(seed).random(len(h)) < h).astype(float)
        return np.asarray(self.classes_[h.astype(int)])

    def _rows(self, X: Any) -> Floats:
        return np.asarray(validate_data(self, X, reset=False), dtype=float)
