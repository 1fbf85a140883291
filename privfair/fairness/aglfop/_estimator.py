"""``AGLFOP``: the limits of a data set, from its rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.core.estimators import PrivateEstimatorMixin
from privfair.core.exceptions import InvalidParameterError
from privfair.fairness.aglfop._bounds import FairnessBound
from privfair.fairness.aglfop._frontier import AGLFOPSurface, certified_surface
from privfair.fairness.aglfop._measures import CRITERIA
from privfair.fairness.aglfop._oracle import bound_in_nats, result_of
from privfair.fairness.aglfop._program import LN2, OracleProgram
from privfair.fairness.aglfop._result import AGLFOPResult
from privfair.fairness.aglfop._rule import FairRule, fair_rule
from privfair.fairness.aglfop._rule_program import ACCESS, RuleProgram
from privfair.fairness.aglfop._table import read_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AGLFOP"]

MODES = ("oracle", "model")
TIE_BREAKS = (None, "least_disparity")


class AGLFOP(PrivateEstimatorMixin, BaseEstimator):
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
    tie_break : {None, "least_disparity"}, default=None
        With mode="oracle": optimal masses are not unique. "least_disparity" solves a second
        program for those of least global plus local disparity, at an error at most 1e-5 higher.
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

    def __init__(
        self,
        *,
        criterion: str = "demographic_parity",
        mode: str = "oracle",
        access: str = "aware",
        bins: int | Sequence[float] | None = 10,
        pos_label: Any = 1,
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
        table = read_table(self, y, sensitive_features, client, y_score, sample_weight)
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
        if self.mode == "oracle":
            own = range(p.shape[1]) if clients else ()
            return OracleProgram(p, tol=1e-3 * self.tol, clients=own)
        n_y = p.shape[2]
        return RuleProgram(
            p, access=self.access, bounds=(FairnessBound(self.criterion),),
            cost=1.0 - np.eye(n_y), client_weight=np.ones(p.shape[1]),
            positive=self._positive(), tol=1e-3 * self.tol,
        )  # fmt: skip

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

    # -- answers ------------------------------------------------------------------------------
    def solve(
        self,
        eps_global: float | None = None,
        eps_local: float | None = None,
        *,
        eps_client: dict[Any, float] | None = None,
    ) -> AGLFOPResult | FairRule:
        """Return the best under bounds in bits.

        Parameters
        ----------
        eps_global, eps_local : float or None
            As in :func:`privfair.fairness.aglfop.aglfop`.
        eps_client : dict of client to float, or None
            Bounds for single clients: the local bound is a mean, which can hide a small client.

        Returns
        -------
        AGLFOPResult or FairRule
            The second with mode="model".
        """
        check_is_fitted(self, "p_")
        given = FairnessBound(self.criterion, eps_global, eps_local, eps_client)
        places = {name: i for i, name in enumerate(self.clients_)}
        unknown = [name for name in given.eps_client or {} if name not in places]
        if unknown:
            raise InvalidParameterError(
                f"eps_client names {len(unknown)} clients that are not in the fit; see clients_."
            )
        by_place = {places[name]: eps for name, eps in (given.eps_client or {}).items()}
        if self.mode == "model":
            placed = FairnessBound(self.criterion, eps_global, eps_local, by_place or None)
            return fair_rule(
                self.p_, placed, access=self.access, positive=self._positive(), tol=1e-3 * self.tol
            )
        bounds = {
            "global": bound_in_nats("eps_global", eps_global, "bits"),
            "local": bound_in_nats("eps_local", eps_local, "bits"),
        } | {f"client:{i}": eps * LN2 for i, eps in by_place.items()}
        point = self._program.solve(bounds)
        if self.tie_break == "least_disparity":
            from privfair.fairness.aglfop._ties import least_disparity

            point = least_disparity(self._program, point)
        names = {i: name for name, i in places.items()}
        return result_of(
            self._program, point, eps_global=eps_global, eps_local=eps_local, unit="bits",
            price_client={names[i]: point.prices[f"client:{i}"] * LN2 for i in by_place},
        )  # fmt: skip

    def frontier(
        self,
        n: int = 30,
        *,
        grid: tuple[Iterable[float | None], Iterable[float | None]] | None = None,
        tol: float = 1e-3,
    ) -> Self | pd.DataFrame:
        """Compute the surface over both bounds, or a table of given bounds.

        Parameters
        ----------
        n : int, default=30
            Points of the surface's grid along each axis.
        grid : tuple of two sequences, or None
            Global and local bounds in bits; all pairs are solved.
        tol : float, default=1e-3
            Proven distance on the surface's grid, in accuracy.

        Returns
        -------
        self, or DataFrame
            Without ``grid`` self, with ``surface_``. With it a table with one row a pair:
            bounds, accuracy, error_lower, prices, disparities, status.
        """
        check_is_fitted(self, "p_")
        if grid is None:
            if check.positive_int(n=n) < 2:
                raise InvalidParameterError(f"n must be at least 2, got {n}.")
            self.surface_: AGLFOPSurface = certified_surface(
                self._program, n=n, tol=check.positive(tol=tol)
            )
            return self
        import pandas as pd

        rows = []
        for eps_global, eps_local in itertools.product(*grid):
            answer = self.solve(eps_global, eps_local)
            if isinstance(answer, FairRule):
                prices, achieved = answer.prices, answer.achieved
                lower = answer.lower
                found = [prices.get(k, 0.0) for k in ("global", "local")]
                found += [achieved["global"], achieved["local"]]
            else:
                lower = answer.error_lower
                found = [answer.price_global, answer.price_local,
                         answer.global_disparity, answer.local_disparity]  # fmt: skip
            rows.append((eps_global, eps_local, answer.accuracy, lower, *found, answer.status))
        return pd.DataFrame(
            rows,
            columns=["eps_global", "eps_local", "accuracy", "error_lower", "price_global",
                     "price_local", "global_disparity", "local_disparity", "status"],
        )  # fmt: skip

    def estimate(
        self,
        eps_global: float | None = None,
        eps_local: float | None = None,
        *,
        method: str = "delta",
        confidence: float = 0.95,
        n_resamples: int = 200,
        by_client: bool = False,
        random_state: Any = None,
    ) -> Estimate:
        """Return the best accuracy with an interval for the sample that the table comes from.

        Parameters
        ----------
        eps_global, eps_local : float or None
            Bounds in bits.
        method : {"delta", "bootstrap"}, default="delta"
            "delta" uses the multipliers of the cells and solves nothing more. "bootstrap" solves
            resampled tables again; under ``privacy`` with fresh noise.
        confidence : float, default=0.95
        n_resamples : int, default=200
            Tables of the bootstrap.
        by_client : bool, default=False
            Keep the clients' sizes fixed in the bootstrap.
        random_state : int, Generator or None
            Of the bootstrap.

        Returns
        -------
        Estimate

        Notes
        -----
        The best of a sample is biased: a rule fits its noise (too accurate), its labels look more
        unequal than they are (not accurate enough), and repaired noisy counts are biased
        themselves. ``value`` is the table's own and carries this; the interval of the bootstrap
        covers bias that grows with the noise's standard deviation or its square, and is wider
        than quantiles of the resamples (``details["percentile"]``), which carry the bias twice.
        """
        from privfair.fairness.aglfop._uncertainty import accuracy_estimate

        check_is_fitted(self, "p_")
        return accuracy_estimate(
            self, eps_global, eps_local, method=method, confidence=confidence,
            n_resamples=n_resamples, by_client=by_client, random_state=random_state,
        )  # fmt: skip

    # -- pictures -----------------------------------------------------------------------------
    def plot_surface(self, ax: Any = None, *, parts: bool = False, n: int = 8) -> Any:
        """Draw the accuracy over both bounds, and what the disparity of the optimum is made of.

        Parameters
        ----------
        ax : matplotlib axes or None
            Not with ``parts``.
        parts : bool, default=False
            Add panels of the unique, redundant and masked disparity of the optimum (of least
            disparity, for it is not unique). Needs mode="oracle".
        n : int, default=8
            Points of the panels along each axis.

        Returns
        -------
        matplotlib axes, or figure with ``parts``
        """
        from privfair.fairness.aglfop import _plot

        check_is_fitted(self, "p_")
        if not hasattr(self, "surface_"):
            self.frontier()
        oracle = self.mode == "oracle"
        if not parts:
            return _plot.plot_surface(self.surface_, ax=ax, bound_only=oracle)
        if not oracle:
            raise InvalidParameterError("parts=True needs mode='oracle'.")
        return _plot.plot_panels(self._program, self.surface_, n=check.positive_int(n=n))

    def plot_parts(
        self, bounds: Sequence[tuple[float | None, float | None]], ax: Any = None
    ) -> Any:
        """Draw stacked bars of the parts of the disparity of the optimum at some bounds.

        Parameters
        ----------
        bounds : sequence of (eps_global, eps_local)
            In bits.
        ax : matplotlib axes or None

        Returns
        -------
        matplotlib axes
        """
        from privfair.fairness.aglfop import _plot

        check_is_fitted(self, "p_")
        if self.mode != "oracle":
            raise InvalidParameterError("plot_parts needs mode='oracle'.")
        return _plot.plot_bars(self._program, bounds, ax=ax)
