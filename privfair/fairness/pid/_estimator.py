"""The decomposition of decisions over clients, as an estimator."""

from __future__ import annotations

import warnings
from typing import Any

from privfair.core import _validation as check
from privfair.core.exceptions import (
    ConvergenceWarning,
    InvalidParameterError,
    SmallSampleWarning,
    UtilityWarning,
)
from privfair.fairness.pid._analysis import Analysis, Settings, analyse, p_value_of
from privfair.fairness.pid._codes import check_unsmoothed
from privfair.fairness.pid._data import PIDTable, tabulate
from privfair.fairness.pid._fitted import FittedParts
from privfair.fairness.pid._private import analyse_release, release_rows, table_of_release

__all__ = ["PIDDisparity"]

FEW_ROWS = 30


class PIDDisparity(FittedParts):
    """Say where a disparity over several clients comes from.

    With Z the sensitive attribute, S the client and Yhat the decision, the global disparity
    I(Z;Yhat) is unique + redundant, and the local disparity I(Z;Yhat|S) is unique + masked:

    1. *unique*: in the decision itself, and not explained by the client;
    2. *redundant*: carried by the client too, and seen only over all clients together (a group
       concentrated in a client that rejects);
    3. *masked*: opposite in different clients, so that it cancels over all and is seen only
       within clients.

    Parameters
    ----------
    bins : int, sequence of float or None, default=None
        Decompose scores in this many bins of equal frequency over all rows, or between these
        edges. None takes classes as they are and scores in [0, 1] at the threshold 0.5.
    condition : {"y"} or None, default=None
        ``"y"`` decomposes within each value of ``y_true`` and reports the mean over the strata
        (equalised odds); None is demographic parity.
    ci : {"influence", "bootstrap"} or None, default="influence"
        How intervals are made. A part that may be zero gets a one-sided bound from subsamples
        of n^0.7 rows instead, under either.
    confidence : float, in (0, 1), default=0.95
        Level of intervals and bounds.
    n_resamples : int, default=1000
        Bootstrap tables, subsamples and permutations; 0 leaves the permutation tests out, and
        below 100 standard errors are of first order only.
    bias_correction : bool, default=True
        Compute values corrected for the first-order bias beside the plug-in ones, and centre
        the intervals there.
    stratify_by_client : bool, default=False
        Whether the clients' numbers of rows are fixed by design.
    random_state : None, int or Generator, default=None
        Of resampling only; never of privacy noise.
    device : str or None, default=None
        ``"cpu"``, ``"cuda"`` or ``"auto"`` computes with torch in double precision; None with
        numpy.
    tol : float > 0, default=1e-7
        Largest accepted certificate gap, in bits.
    min_cell : int, default=10
        Several sensitive columns are crossed; a crossed group with fewer rows is refused.
    allow_small : bool, default=False
        Take such groups as they are.
    merge_clients_below : int or None, default=None
        Put clients with fewer rows together into one.
    smoothing : float >= 0, default=0.0
        Rows added to each cell (a Dirichlet prior), of each stratum that has rows. It draws the
        parts towards 0 and takes the place of the bias correction. Tables by client and G-tests
        stay those of the rows. Refused for released tables.
    cuts : mapping of column to numbers, or None
        Declared cuts of numeric sensitive columns.
    missing_group : str or None
        Name of the group of missing values; None makes them an error.
    groups, clients, decisions, labels : list or None, default=None
        Every value that could occur, as public knowledge (``groups`` of several columns: a list
        of tuples, or a mapping of column to values; ``labels`` are those of ``y_true``). None
        reads them from the rows, which is refused with ``privacy``.
    privacy : Budget or None, default=None
        Compute everything from one table released under differential privacy.
    ledger : Ledger or None, default=None
        Charged once, before the noise is drawn; its neighbouring relation is used. None takes
        the process's default ledger.
    noise_random_state : int or None, default=None
        For tests and benchmarks only: makes the noise repeatable and the guarantee SEEDED.

    Attributes
    ----------
    unique_, redundant_, masked_, global_disparity_, local_disparity_ : float
        Plug-in values in bits, for which the sums above hold exactly.
    unique_client_ : float
        Information on Z in the client that the decision has not, in bits.
    coinformation_ : float
        Global less local disparity, which is redundant less masked, in bits.
    corrected_ : dict of str to float, or None
        The same parts less their first-order bias, floored at 0; None with ``smoothing``.
    se_ : dict of str to float, or None
        Standard errors of the plug-in values in bits, to second order; of little meaning where
        ``boundary_``.
    ci_ : dict of str to (float, float), or None
        Intervals; one-sided (from 0) where ``boundary_``.
    boundary_ : dict of str to bool
        Whether a part is below two standard errors, so that it may be zero, or so near zero
        that its law is not normal.
    p_value_global_, p_value_local_ : float
        Permutation tests: groups permuted over all rows, and within clients. From the released
        table's own noise in private mode; NaN without resamples.
    local_by_client_ : ndarray of shape (n_clients,)
        I(Z;Yhat|S=s) in bits.
    client_table_ : pandas.DataFrame
        One row per client: share, local disparity, gap of rates and its bound, reasons.
    by_attribute_ : dict of str to dict
        Each of several sensitive columns alone: its parts in bits.
    certificate_gap_ : float
        Proven bound on the error of the optimisation, in bits.
    counts_ : ndarray of int, shape (n_groups, n_decisions, n_clients)
        Rows; with ``condition`` a leading axis of strata. Noisy with ``privacy``.
    classes_ : dict
        Labels of the axes: ``"z"``, ``"yhat"``, ``"s"`` and, conditioned, ``"y"``.
    edges_ : tuple of float or None
        Cuts of the scores.
    n_ : int
        Number of rows.
    method_ : str
        How the optimum was found: ``"exact"``, ``"newton"`` or ``"cone"``.
    privacy_ : PrivacyGuarantee or None
        The guarantee of the released table, with ``privacy``.

    Raises
    ------
    LengthMismatchError, LabelError, DataError, InvalidTypeError
        By ``fit``, for arrays that do not belong together, missing values, negative weights.
    SensitiveFeatureError
        A quantity as a sensitive column, without declared cuts.
    SingleGroupError
        One group only.
    SmallGroupError
        A crossed group below ``min_cell``.
    InvalidParameterError
        A setting outside its range, or undeclared categories with ``privacy``.

    Warns
    -----
    UtilityWarning
        One decision only: all parts are zero.
    SmallSampleWarning
        A group of fewer than 30 rows.
    ConvergenceWarning
        The optimum is certified less closely than ``tol``.

    Notes
    -----
    One pass over the rows; afterwards nothing depends on their number (unless weighted). With
    two groups all resamples are decomposed at once, O((m + K) log(m + K)) each.

    *Privacy.* Without ``privacy`` nothing is: the parts of a small client say much about its
    people. With it: unit one row, relation the ledger's, discrete Laplace noise in every declared
    cell, one charge; parts, intervals, tests and tables by client are post-processing. Public:
    the declared categories, edges and (but under ``add_remove``) the number of rows.

    References
    ----------
    Hamman and Dutta 2024, arXiv:2307.11333. Bertschinger, Rauh, Olbrich, Jost, Ay 2014, Entropy
    16. Miller 1955 (bias of informations). Politis, Romano, Wolf 1999, "Subsampling".

    Examples
    --------
    Decisions follow the group, in opposite directions in two clients:

    >>> z = ["f", "m"] * 200
    >>> site = ["north"] * 200 + ["south"] * 200
    >>> d = [0, 1, 0, 1, 0, 1, 1, 0] * 25 + [1, 0, 1, 0, 1, 0, 0, 1] * 25
    >>> fit = PIDDisparity(random_state=0).fit(d, sensitive_features=z, client=site)
    >>> print(f"{fit.global_disparity_:.3f} {fit.local_disparity_:.3f} {fit.masked_:.3f}")
    0.000 0.189 0.189
    """

    def __init__(
        self,
        *,
        bins: Any = None,
        condition: str | None = None,
        ci: str | None = "influence",
        confidence: float = 0.95,
        n_resamples: int = 1000,
        bias_correction: bool = True,
        stratify_by_client: bool = False,
        random_state: Any = None,
        device: str | None = None,
        tol: float = 1e-7,
        min_cell: int = 10,
        allow_small: bool = False,
        merge_clients_below: int | None = None,
        smoothing: float = 0.0,
        cuts: Any = None,
        missing_group: str | None = None,
        groups: Any = None,
        clients: Any = None,
        decisions: Any = None,
        labels: Any = None,
        privacy: Any = None,
        ledger: Any = None,
        noise_random_state: int | None = None,
    ) -> None:
        self.bins = bins
        self.condition = condition
        self.ci = ci
        self.confidence = confidence
        self.n_resamples = n_resamples
        self.bias_correction = bias_correction
        self.stratify_by_client = stratify_by_client
        self.random_state = random_state
        self.device = device
        self.tol = tol
        self.min_cell = min_cell
        self.allow_small = allow_small
        self.merge_clients_below = merge_clients_below
        self.smoothing = smoothing
        self.cuts = cuts
        self.missing_group = missing_group
        self.groups = groups
        self.clients = clients
        self.decisions = decisions
        self.labels = labels
        self.privacy = privacy
        self.ledger = ledger
        self.noise_random_state = noise_random_state

    # --- fitting ----------------------------------------------------------------------------

    def fit(
        self,
        y_pred: Any,
        *,
        sensitive_features: Any,
        client: Any,
        sample_weight: Any = None,
        y_true: Any = None,
    ) -> PIDDisparity:
        """Decompose the decisions.

        Parameters
        ----------
        y_pred : array-like of shape (n_rows,)
            Decisions: classes, or scores (see ``bins``).
        sensitive_features : array-like, series or data frame
            One or more columns; several are crossed.
        client : array-like of shape (n_rows,)
            Who decided; a constant column for a single client.
        sample_weight : array-like or None
            Non-negative; a repeated row is more data, a larger weight is not.
        y_true : array-like or None
            Labels, for ``condition="y"``.

        Returns
        -------
        PIDDisparity
        """
        settings = self._settings()
        rows = {
            "sensitive_features": sensitive_features,
            "client": client,
            "sample_weight": sample_weight,
            "y_true": y_true if self.condition is not None else None,
        }
        names = (
            "bins", "condition", "min_cell", "allow_small", "merge_clients_below", "smoothing",
            "cuts", "missing_group", "groups", "clients", "decisions", "labels",
        )  # fmt: skip
        options = {name: getattr(self, name) for name in names}
        if self.privacy is None:
            table = tabulate(y_pred, **rows, **options)
            _warn(table)
            return self._set(table, analyse(table, settings), settings)
        if settings.by_client:
            raise InvalidParameterError(
                "stratify_by_client under privacy= is not available: the clients' numbers of "
                "rows are not known there. Leave it out; intervals then let them vary."
            )
        release, table = release_rows(
            y_pred,
            **rows,
            **options,
            privacy=self.privacy,
            ledger=self.ledger,
            noise_random_state=self.noise_random_state,
        )
        return self._set(table, analyse_release(release, table, settings), settings)

    def fit_release(self, release: Any) -> PIDDisparity:
        """Decompose a table that was released under differential privacy before.

        Parameters
        ----------
        release : ContingencyRelease
            With the axes ``"z"``, ``"yhat"`` and ``"s"`` in any order, and ``"y"`` to condition
            on it; from :func:`privfair.fairness.release_contingency`, or from the clients' own
            releases by :func:`privfair.fairness.join_clients` with ``axis="s"``.

        Returns
        -------
        PIDDisparity
            Nothing is charged: this is post-processing.
        """
        settings = self._settings()
        check_unsmoothed(self.smoothing)
        table = table_of_release(release)
        return self._set(table, analyse_release(release, table, settings), settings)

    def _settings(self) -> Settings:
        check.boolean(stratify_by_client=self.stratify_by_client)
        return Settings(
            ci=self.ci,
            confidence=self.confidence,
            n_resamples=self.n_resamples,
            bias_correction=self.bias_correction,
            by_client=self.stratify_by_client,
            random_state=self.random_state,
            device=self.device,
            tol=self.tol,
        )

    def _set(self, table: PIDTable, analysis: Analysis, settings: Settings) -> PIDDisparity:
        import pandas as pd

        if not analysis.converged:
            warnings.warn(
                f"the optimum is certified to {analysis.gap:.1e} bits only, above tol="
                f"{settings.tol:.1e}; the parts are marked.",
                ConvergenceWarning,
                stacklevel=3,
            )
        self._table, self._analysis = table, analysis
        self._alone: dict[str, Analysis] = {}
        if len(table.features) > 1:
            for position, name in enumerate(table.features):
                self._alone[name] = self._one(position, settings)
        for name, value in analysis.values.items():
            setattr(self, f"{name}_", value)
        self.corrected_ = analysis.corrected
        self.se_ = analysis.se
        self.ci_ = analysis.intervals
        self.boundary_ = analysis.boundary
        self.p_value_global_ = p_value_of(analysis.nulls["global_disparity"])
        self.p_value_local_ = p_value_of(analysis.nulls["local_disparity"])
        self.local_by_client_ = analysis.clients.information
        sizes = None if analysis.privacy is not None else table.counts.sum(axis=(0, 1, 2))
        self.client_table_ = pd.DataFrame(analysis.clients.rows(table.clients, sizes)).set_index(
            "client"
        )
        self.by_attribute_ = {name: dict(a.values) for name, a in self._alone.items()}
        self.certificate_gap_ = analysis.gap
        self.counts_ = table.counts if self._conditioned else table.counts[0]
        self.classes_ = {"z": table.names, "yhat": table.decisions, "s": table.clients}
        if self._conditioned:
            self.classes_["y"] = table.strata
        self.edges_ = table.edges
        self.n_ = analysis.n
        self.method_ = analysis.method
        self.privacy_ = analysis.privacy
        return self

    @property
    def _conditioned(self) -> bool:
        return bool(self._table.strata != ("all",))

    def _one(self, position: int, settings: Settings) -> Analysis:
        """Return the analysis of one sensitive column; of released rows by post-processing."""
        release = self._analysis.release
        if release is not None:
            return analyse_release(release, self._table, settings, position=position)
        return analyse(self._table.attribute(position), settings)


def _warn(table: PIDTable) -> None:
    if int((table.sums.sum(axis=(0, 1, 3)) > 0).sum()) < 2:
        warnings.warn(
            "y_pred holds one decision only, so that all parts are zero. Were the scores "
            "thresholded too high or too low?",
            UtilityWarning,
            stacklevel=3,
        )
    sizes = table.counts.sum(axis=(0, 2, 3))
    few = int(((sizes > 0) & (sizes < FEW_ROWS)).sum())
    if few:
        warnings.warn(
            f"{few} groups have fewer than {FEW_ROWS} rows; what is said about them is mostly "
            "chance.",
            SmallSampleWarning,
            stacklevel=3,
        )
