"""``AGLFOP``: the limits of a data set, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from privfair.core import _validation as check
from privfair.core.estimators import PrivateEstimatorMixin
from privfair.core.exceptions import InvalidParameterError
from privfair.fairness.aglfop._answers import AnswersMixin
from privfair.fairness.aglfop._bounds import FairnessBound
from privfair.fairness.aglfop._frontier import AGLFOPSurface
from privfair.fairness.aglfop._inputs import checked_cost, checked_weight
from privfair.fairness.aglfop._measures import CRITERIA
from privfair.fairness.aglfop._pictures import PicturesMixin
from privfair.fairness.aglfop._program import LN2, OracleProgram
from privfair.fairness.aglfop._rows import client_weights
from privfair.fairness.aglfop._rule_program import ACCESS, RuleProgram
from privfair.fairness.aglfop._table import read_table

if TYPE_CHECKING:
    pass

__all__ = ["AGLFOP"]

Array = NDArray[np.float64]

MODES = ("oracle", "model")
TIE_BREAKS = (None, "least_disparity")


class AGLFOP(AnswersMixin, PicturesMixin, PrivateEstimatorMixin, BaseEstimator):
    """How accurate decisions can be under bounds on global and local disparity.

    Fit on labelled rows; then ask for single answers, for the whole surface over both bounds
    with a proof, or for intervals.

    Parameters
    ----------
    criterion : {"demographic_parity", "equalized_odds", "equal_opportunity"}, \
default="demographic_parity"
        What disparity is: I(Z; K), I(Z; K | Y) or I(Z; K | Y = positive). The last two need
        ``mode="model"``: the labels themselves keep them, so that an oracle loses nothing.
    mode : {"oracle", "model"}, default="oracle"
        "oracle" bounds every classifier on these data. "model" is the best that randomised
        decisions on top of one classifier's scores achieve; ``fit`` then needs ``y_score``.
    access : {"aware", "client_blind", "group_blind", "blind"}, default="aware"
        With mode="model", what the decision may see beside the score.
    bins : int, sequence of float or None, default=10
        With mode="model", score bins of equal frequency, or inner edges; None if ``y_score``
        holds predicted classes.
    pos_label : object, default=1
        The label that "equal_opportunity" looks at.
    cost : array-like of shape (n_labels, n_decisions), or None, default=None
        Cost of each decision (column) at each label (row); None counts errors. "Accuracy" is
        then one minus the expected cost, and an oracle's answer a rule that sees the label.
    client_weight : mapping of client to float, or None, default=None
        Importance of each client's cost; scaled so that its mean over people is 1.
    tie_break : {None, "least_disparity"}, default=None
        With mode="oracle" and no ``cost``: optimal masses are not unique. "least_disparity"
        solves a second program for those of least global plus local disparity, at an error at
        most 1e-5 higher.
    groups, clients, classes : sequence or None, default=None
        All groups, clients and labels that could occur. None: those of the rows. Needed with
        ``privacy``.
    tol : float, default=1e-8
        As in :func:`privfair.fairness.aglfop.aglfop`.
    privacy : Budget or None, default=None
        Release one noisy table under differential privacy and compute everything from it.
    ledger : Ledger or None, default=None
        Charged before the rows are counted.
    noise_random_state : int or None, default=None
        For tests only: seeds the noise, and voids the certificate.

    Attributes
    ----------
    p_ : ndarray of shape (n_groups, n_clients, n_labels[, n_bins])
        The joint distribution.
    groups_, clients_ : tuple
    classes_ : ndarray
    edges_ : ndarray or None
        Inner edges of the score bins.
    label_global_disparity_, label_local_disparity_ : float
        I(Z; Y) and I(Z; Y | S) of the labels, bits: bounds beyond both cost nothing.
    surface_ : AGLFOPSurface
        After :meth:`frontier`.
    n_fit_ : int
    private_ : bool
    privacy_ : PrivacyGuarantee

    Notes
    -----
    Answers hold for the table of these rows, and not for the population: see :meth:`estimate`.

    Privacy: without ``privacy`` the table is exact, and nothing that is computed from it is
    private. With it one record counts for one cell of one released table, charged once; answers,
    surface and intervals are post-processing. See :func:`privfair.fairness.release_contingency`.

    References
    ----------
    .. [1] F. Hamman, S. Dutta. Demystifying local and global fairness trade-offs in federated
       learning using partial information decomposition. ICLR 2024. arXiv:2307.11333.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> sex, site = rng.integers(0, 2, 2000), rng.integers(0, 2, 2000)
    >>> y = rng.random(2000) < 0.3 + 0.2 * sex
    >>> limits = AGLFOP().fit(y, sensitive_features=sex, client=site)
    >>> limits.solve(eps_global=0.0).error > limits.solve(eps_global=0.01).error
    True
    >>> limits.frontier(tol=1e-3).surface_.gap <= 1e-3
    True
    """

    surface_: AGLFOPSurface

    def __init__(
        self,
        *,
        criterion: str = "demographic_parity",
        mode: str = "oracle",
        access: str = "aware",
        bins: int | Sequence[float] | None = 10,
        pos_label: Any = 1,
        cost: ArrayLike | None = None,
        client_weight: Mapping[Any, float] | None = None,
        tie_break: str | None = None,
        groups: Sequence[Any] | None = None,
        clients: Sequence[Any] | None = None,
        classes: Sequence[Any] | None = None,
        tol: float = 1e-8,
        privacy: Any = None,
        ledger: Any = None,
        noise_random_state: int | None = None,
    ) -> None:
        self.criterion = criterion
        self.mode = mode
        self.access = access
        self.bins = bins
        self.pos_label = pos_label
        self.cost = cost
        self.client_weight = client_weight
        self.tie_break = tie_break
        self.groups = groups
        self.clients = clients
        self.classes = classes
        self.tol = tol
        self.privacy = privacy
        self.ledger = ledger
        self.noise_random_state = noise_random_state

    def fit(
        self,
        y: Any,
        *,
        sensitive_features: Any = None,
        client: Any = None,
        y_score: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Tabulate labelled rows.

        Parameters
        ----------
        y : array-like of shape (n_rows,)
            Labels.
        sensitive_features : array-like of shape (n_rows,) or (n_rows, n_columns)
            Groups; several columns are crossed.
        client : array-like of shape (n_rows,) or None
            None is one client, for which global and local disparity are the same.
        y_score : array-like of shape (n_rows,) or None
            With mode="model": scores of the positive class, or with bins=None predicted classes.
        sample_weight : array-like of shape (n_rows,) or None

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, InvalidTypeError
            An option outside its range; criterion and mode that do not go together.
        DataError
            Rows that cannot be used; its subclasses say why.
        """
        self._check_parameters(y_score)
        if self.privacy is not None:  # what can be told beforehand is not charged for
            if self.classes is not None:
                self._checked_cost(len(self.classes))
            client_weights(self.client_weight, tuple(self.clients or ("all",)))
        table = read_table(self, y, sensitive_features, client, y_score, sample_weight)
        self._checked_cost(len(table.classes))
        self._client_weight = client_weights(self.client_weight, table.clients)
        self._table = table
        self.p_, self.n_fit_ = table.p, table.n
        self.groups_, self.clients_, self.classes_ = table.groups, table.clients, table.classes
        self.edges_, self.privacy_ = table.edges, table.privacy
        self.private_ = table.release is not None
        if hasattr(self, "surface_"):
            del self.surface_
        self._program = self._program_of(table.p, clients=True)
        labels = table.p if table.p.ndim == 3 else table.p.sum(axis=3)
        of_labels = OracleProgram(labels).of_labels
        self.label_global_disparity_ = of_labels["global"] / LN2
        self.label_local_disparity_ = of_labels["local"] / LN2
        return self

    def _check_parameters(self, y_score: Any) -> None:
        check.one_of(CRITERIA, criterion=self.criterion)
        check.one_of(MODES, mode=self.mode)
        check.one_of(ACCESS, access=self.access)
        check.one_of(TIE_BREAKS, tie_break=self.tie_break)
        check.positive(tol=self.tol)
        if self.mode == "oracle":
            if self.criterion != "demographic_parity":
                raise InvalidParameterError(
                    f"criterion={self.criterion!r} says nothing with mode='oracle': the perfect "
                    "decision keeps it at error 0. Pass mode='model' and y_score, for what a "
                    "given classifier can achieve."
                )
            if self.cost is not None and self.tie_break is not None:
                raise InvalidParameterError(
                    "tie_break with cost= is refused: it chooses among masses of decisions, and "
                    "the answer under a cost is a rule."
                )
            if y_score is not None:
                raise InvalidParameterError(
                    "y_score was given and mode='oracle' does not use it. Pass mode='model'."
                )
        else:
            if y_score is None:
                raise InvalidParameterError(
                    "mode='model' needs y_score: the scores, or with bins=None the predicted "
                    "classes, of the classifier."
                )
            if self.tie_break is not None:
                raise InvalidParameterError(
                    "tie_break is for mode='oracle'; the rules of mode='model' are as solved."
                )

    def _program_of(self, p: Any, *, clients: bool = False) -> Any:
        """Return the program of a table, with bounds on single clients if asked for."""
        table = self._rule_table(p)
        weight = checked_weight(self._client_weight, table)
        if not self._by_rule:
            own = range(p.shape[1]) if clients else ()
            return OracleProgram(p, tol=1e-3 * self.tol, clients=own, flip_cost=weight)
        return RuleProgram(
            table, access=self._sees, bounds=(FairnessBound(self.criterion),),
            cost=self._checked_cost(p.shape[2]), client_weight=weight,
            positive=self._positive(), tol=1e-3 * self.tol,
        )  # fmt: skip

    @property
    def _by_rule(self) -> bool:
        """Whether answers are rules: of a model, or of an oracle whose errors differ."""
        return self.mode == "model" or self.cost is not None

    @property
    def _sees(self) -> str:
        return self.access if self.mode == "model" else "aware"

    def _rule_table(self, p: Array) -> Array:
        """Return p(z, s, y, r); what an oracle sees is the label itself."""
        return p if p.ndim == 4 else p[..., None] * np.eye(p.shape[2])

    def _checked_cost(self, n_y: int) -> Array:
        return checked_cost(self.cost, n_y)

    def _positive(self) -> int:
        found = np.flatnonzero(self._table.classes == self.pos_label)
        if found.size:
            return int(found[0])
        if self.criterion == "equal_opportunity":
            raise InvalidParameterError(
                f"pos_label={self.pos_label!r} is not among the labels. Pass the label that "
                "equal opportunity looks at."
            )
        return 0
