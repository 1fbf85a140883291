"""The scikit-learn face of local collection: devices and server over one table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.special import ndtri
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from privfair.core import _validation as check
from privfair.core.estimate import Estimate
from privfair.core.estimators import FrequencyEstimator
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.core.schema import Categorical, Numeric
from privfair.ldp import _estimator_files
from privfair.ldp._choose import Selection, choose
from privfair.ldp._domains import Domain, read_table
from privfair.ldp._estimator_plan import EstimatorPlan
from privfair.ldp._linear import linear_variance
from privfair.ldp._release import Charge
from privfair.ldp._row_aggregator import RowAggregator
from privfair.ldp._row_reports import RowReports, randomize_rows
from privfair.ldp._rows import RowStrategy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LDPFrequencyEstimator"]


class LDPFrequencyEstimator(EstimatorPlan, FrequencyEstimator, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Estimate the frequencies of a table's columns from locally randomised reports.

    ``fit`` plays both parts: every row is randomised as its owner's device would, and only the
    reports reach the server. In a deployment call :meth:`privatize` on the devices and
    :meth:`partial_fit` on the server.

    Parameters
    ----------
    protocol : str or mapping of str to str, default="auto"
        Of all columns or by column: ``"GRR"``, ``"SUE"``, ``"OUE"``, ``"BLH"``, ``"OLH"``,
        ``"SS"``, ``"HR"``, ``"PGR"``, or ``"auto"`` for the least variance. With fake data it
        must stay ``"auto"``; see ``fake``.
    epsilon : float, default=1.0
        In (0, 50]: of one person's whole report.
    strategy : {"smp", "spl", "rsfd", "rsrfd"}, default="smp"
        Each person reports one column at random, or all with a share of epsilon each, or one
        among fake ones (uniform, or from ``priors``).
    schema : Schema, mapping, Categorical or Numeric
        Public domain of each column, or of every column alike. Numeric columns need public
        ``bins``. Never read off the data.
    missing : {"error", "category"}, default="error"
        Whether a missing value is an error or a value of its own, ``"missing"``.
    postprocess : str or None, default="norm_sub"
        Rule of :func:`privfair.ldp.postprocess`, ``"ibu"`` or ``"ibu_marginal"``; None leaves
        raw estimates.
    confidence : float, default=0.95
        Of the intervals, which are always those of the raw estimates.
    simultaneous : bool, default=False
        Whether the intervals of a column hold together (Bonferroni).
    guarantee : {"tuple", "attribute", "published"}, default="tuple"
        What epsilon bounds with fake data, see :class:`RSFD`. What is charged is always the
        epsilon of the whole row.
    fake : {"grr", "ue_zero", "ue_random"}, default="grr"
        Kind of fake data.
    priors : mapping of str to sequence of float, or None, default=None
        Public distribution of each column's fakes, for ``strategy="rsrfd"``.
    unit : {"record", "user", "client"}, default="record"
        Whose report a row is; each may send one.
    random_state : None, int or numpy.random.Generator, default=None
        Unused: nothing here is random but what privacy rests on.
    noise_random_state : int or None, default=None
        For tests and benchmarks only: repeats the reports and marks the guarantee SEEDED.
    ledger : Ledger or None, default=None
        Charged before any value is read. None: the ledger of this process.

    Attributes
    ----------
    domains_ : dict of str to tuple
        Values of each column.
    estimates_ : dict of str to FrequencyEstimate
        Only of columns with a report.
    frequencies_, frequencies_raw_, std_ : dict of str to ndarray, shape (k,)
        Post-processed and raw estimates, standard deviations of the raw ones.
    ci_ : dict of str to ndarray, shape (k, 2)
        Intervals of the raw estimates.
    selection_ : dict of str to Selection
        How the protocol of each column was chosen; empty where it was given.
    strategy_ : RowStrategy
        Client and server agree on it.
    aggregator_ : RowAggregator
    n_reports_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if the input named its columns.
    privacy_ : PrivacyGuarantee
        Under replacement of a whole row; ``details`` has both epsilons.
    privacy_report_ : dict
        The same as JSON data.

    Notes
    -----
    *Complexity.* Linear in rows and columns, plus what the protocols cost the server; no loop
    over rows but to look up categories.

    *Privacy.* Unit: ``unit``. Relation: replace_one. One :class:`LocalDP` event of
    ``strategy_.epsilon_tuple`` is charged before the table's values are read, by every call that
    randomises rows; an unknown category raises before anything is randomised, names the column
    only, and voids the charge. Column names are public. What is computed from
    reports costs nothing. Several calls of ``partial_fit`` on rows are added up, since nobody can
    check that they hold different people.

    A mean of numbers is not collected; :meth:`mean` gives that of a binned histogram.

    References
    ----------
    Wang, Blocki, Li, Jha 2017, USENIX Security. Arcolezi, Couchot, Al Bouna, Xiao 2021,
    arXiv 2109.07269.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.core import Categorical, Numeric
    >>> people = np.arange(4000)
    >>> table = {"sex": np.array(["F", "M"])[people % 2], "age": 18 + people % 60}
    >>> estimator = LDPFrequencyEstimator(
    ...     epsilon=2.0, noise_random_state=0,
    ...     schema={"sex": Categorical(["F", "M"]), "age": Numeric(18, 78, bins=[38, 58])},
    ... ).fit(table)
    >>> frame = estimator.estimate()
    >>> list(frame.columns), len(frame)
    (['attribute', 'value', 'frequency', 'raw', 'low', 'high', 'std'], 5)
    >>> bool(abs(estimator.frequencies_["sex"] - 0.5).max() < 0.05)
    True
    >>> estimator.privacy_.epsilon, estimator.privacy_.details["epsilon_attribute"]
    (2.0, 2.0)
    """

    def __init__(
        self,
        *,
        protocol: Any = "auto",
        epsilon: float = 1.0,
        strategy: str = "smp",
        schema: Any = None,
        missing: str = "error",
        postprocess: str | None = "norm_sub",
        confidence: float = 0.95,
        simultaneous: bool = False,
        guarantee: str = "tuple",
        fake: str = "grr",
        priors: Mapping[str, Any] | None = None,
        unit: str = "record",
        random_state: Any = None,
        noise_random_state: int | None = None,
        ledger: Any = None,
    ) -> None:
        self.protocol = protocol
        self.epsilon = epsilon
        self.strategy = strategy
        self.schema = schema
        self.missing = missing
        self.postprocess = postprocess
        self.confidence = confidence
        self.simultaneous = simultaneous
        self.guarantee = guarantee
        self.fake = fake
        self.priors = priors
        self.unit = unit
        self.random_state = random_state
        self.noise_random_state = noise_random_state
        self.ledger = ledger

    # -- before the data -----------------------------------------------------------------------
    def cost(self, X: Any = None) -> tuple[Any, ...]:
        """Return the event that randomising a table charges; reads the names of X at most.

        Parameters
        ----------
        X : table or None, default=None
            Needed where one column description stands for every column.
        """
        self._check()
        if X is None and isinstance(self.schema, Categorical | Numeric):
            raise InvalidTypeError("cost needs X where the schema is one column for all.")
        names = tuple(self.schema) if X is None else self._read(X)[1].columns
        return (self._strategy_of(self._domains(names, named=X is None or None)).event(),)

    def _read(self, X: Any) -> tuple[Any, Any]:
        return read_table(X, numeric=isinstance(self.schema, Numeric))

    # -- devices -------------------------------------------------------------------------------
    def privatize(self, X: Any) -> RowReports:
        """Return one report per row, as the rows' owners would send them.

        Parameters
        ----------
        X : data frame, mapping of columns or array, shape (n_rows, n_columns)

        Returns
        -------
        RowReports

        Raises
        ------
        SchemaError
            A value outside its column's domain; names the column only. Nothing is randomised, and
            nothing is spent.
        BudgetExceededError
            By the ledger, before any value is read.
        """
        return self._privatize(X)[0]

    def transform(self, X: Any) -> RowReports:
        """Return the same as :meth:`privatize`; needs no fit.

        As an array, the reports say which value each of them supports (1) or not (0).
        """
        return self.privatize(X)

    def _privatize(
        self, X: Any, *, reset: bool = False
    ) -> tuple[RowReports, tuple[Domain, ...], RowStrategy]:
        self._check()
        frame, table = self._read(X)
        if reset or hasattr(self, "n_features_in_"):
            validate_data(self, frame, skip_check_array=True, reset=reset)
        domains = self._domains(table.columns, named=table.has_names)
        strategy = self._strategy_of(domains)
        ledger = self._ledger()
        with ledger.spend(
            strategy.event(),
            purpose=f"{type(self).__name__}: one report of each {self.unit}",
            label=strategy.name,
            neighboring="replace_one",
            unit=self.unit,
            numerics="exact",
            seeded=self.noise_random_state is not None,
        ) as transaction:
            columns = [d.name for d in domains] if table.has_names else list(table.columns)
            with Charge(ledger, transaction).reading():
                rows = np.column_stack(
                    [d.codes(table.column(c)) for d, c in zip(domains, columns, strict=True)]
                )
            reports = randomize_rows(strategy, rows, noise_random_state=self.noise_random_state)
        return reports, domains, strategy

    def _ledger(self) -> Any:
        if self.ledger is not None:
            return self.ledger
        from privfair.accounting import default_ledger

        return default_ledger(unit=self.unit)

    # -- server --------------------------------------------------------------------------------
    def fit(self, X: Any, y: Any = None) -> Self:
        """Randomise the rows of a table, and estimate from their reports.

        Parameters
        ----------
        X : data frame, mapping of columns or array, shape (n_rows, n_columns)
        y : ignored
        """
        self._fit(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> RowReports:
        """Fit, and return the reports that the fit was made from: one charge, not two."""
        return self._fit(X)

    def _fit(self, X: Any) -> RowReports:
        reports, domains, strategy = self._privatize(X, reset=True)
        self._start(domains, strategy)
        self._absorb(reports, rows=True)
        return reports

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Add reports that devices sent, or rows that are randomised here.

        Parameters
        ----------
        X : RowReports, bytes, or a table as in :meth:`fit`
            Reports cost nothing here: their owners' devices have counted them. The first ones
            need a schema that names all columns.
        y : ignored
        """
        self._check()
        first = not hasattr(self, "aggregator_")
        if not isinstance(X, RowReports | bytes | bytearray | memoryview):
            reports, domains, strategy = self._privatize(X, reset=first)
            if first:
                self._start(domains, strategy)
            self._absorb(reports, rows=True)
            return self
        if first:
            if not isinstance(self.schema, Mapping):
                raise InvalidTypeError(
                    "reports need a schema with the name and domain of every column, got "
                    f"{type(self.schema).__name__}."
                )
            domains = self._domains(tuple(self.schema), named=True)
            strategy = self._strategy_of(domains)
            parsed = (
                RowReports.from_bytes(bytes(X), strategy) if not isinstance(X, RowReports) else X
            )
            RowAggregator(strategy).partial_fit(parsed)  # an error starts nothing
            self.n_features_in_ = len(domains)
            self.feature_names_in_ = np.array([d.name for d in domains], dtype=object)
            self._start(domains, strategy)
            self._absorb(parsed, rows=False)
            return self
        self._absorb(X, rows=False)
        return self

    def _start(self, domains: tuple[Domain, ...], strategy: RowStrategy) -> None:
        self._columns = domains
        self.domains_ = {domain.name: domain.values for domain in domains}
        self.strategy_ = strategy
        self.selection_: dict[str, Selection] = {
            d.name: choose(len(d.values), p.epsilon)
            for d, p in zip(domains, strategy.protocols_, strict=True)
            if self.strategy in ("smp", "spl") and self._protocol_of(d.name) == "auto"
        }
        self.aggregator_ = RowAggregator(
            strategy, [d.name for d in domains], [d.values for d in domains]
        )
        self._charges = 0

    def _absorb(self, reports: Any, *, rows: bool) -> None:
        self.aggregator_.partial_fit(reports)
        self._charges += rows
        self._finish()

    def _finish(self) -> None:
        server = self.aggregator_
        self.n_reports_ = server.n_reports_
        self.estimates_ = {
            name: server.estimate(j, self.postprocess, self.confidence, self.simultaneous)
            for j, name in enumerate(server.names)
            if server.attributes_[j].n_reports_
        }
        self.frequencies_ = {name: e.frequencies for name, e in self.estimates_.items()}
        self.frequencies_raw_ = {name: e.frequencies_raw for name, e in self.estimates_.items()}
        self.std_ = {name: e.std for name, e in self.estimates_.items()}
        self.ci_ = {
            name: np.column_stack([e.ci_low, e.ci_high]) for name, e in self.estimates_.items()
        }
        self.privacy_ = self._certificate()
        self.privacy_report_ = self.privacy_.to_dict()

    def estimate(self) -> pd.DataFrame:
        """Return one row per column and value.

        Returns
        -------
        DataFrame
            ``attribute, value, frequency, raw, low, high, std``; the interval and the deviation
            are those of the raw estimate.
        """
        import pandas as pd

        check_is_fitted(self, "aggregator_")
        parts = []
        for name, found in self.estimates_.items():
            part = found.to_frame()
            part.insert(0, "attribute", name)
            parts.append(part.astype({"value": object}))
        return pd.concat(parts, ignore_index=True)

    def to_estimates(self) -> list[Estimate]:
        """Return one :class:`Estimate` per column and value, for reports."""
        check_is_fitted(self, "aggregator_")
        return [e for name, found in self.estimates_.items() for e in found.to_estimates(name)]

    def mean(self, attribute: str, *, confidence: float | None = None) -> Estimate:
        r"""Return the mean of a numeric column from its binned histogram.

        Parameters
        ----------
        attribute : str
            A Numeric column.
        confidence : float or None, default=None
            None takes the estimator's.

        Returns
        -------
        Estimate
            ``value`` puts every person at the middle of their bin. The interval holds whatever
            the positions inside the bins are: it runs from the lower end of the interval of the
            mean of lower edges to the upper end of that of upper edges. Of values clipped to the
            public bounds, and of people whose value is not missing.

        Notes
        -----
        The ratio :math:`\sum_v m_v \hat f_v / \sum_v \hat f_v` with its variance by
        linearisation and normal quantiles; covariances of the estimates are accounted for. Costs
        nothing.
        """
        check_is_fitted(self, "aggregator_")
        level = self.confidence if confidence is None else confidence
        level = check.confidence(confidence=level)
        j = self.aggregator_.index(attribute)
        domain = self._columns[j]
        if domain.edges is None:
            raise InvalidParameterError(
                f"{attribute!r} is Categorical; a mean needs a Numeric column with public bins."
            )
        (low, below), (high, above) = (
            self._ratio(j, domain.edges[:-1]), self._ratio(j, domain.edges[1:])
        )  # fmt: skip
        middle, deviation = self._ratio(j, (domain.edges[:-1] + domain.edges[1:]) / 2)
        z = float(ndtri(0.5 + level / 2))
        return Estimate(
            f"{attribute}.mean", middle, low - z * below, high + z * above, confidence=level,
            n=self.estimates_[domain.name].n,
            method="mean of a binned histogram of local reports; interval over positions in bins",
            details={"std": deviation, "lower_edges": low, "upper_edges": high},
        )  # fmt: skip

    def _ratio(self, j: int, marks: Any) -> tuple[float, float]:
        """Return the mean of marks of the bins, and its standard deviation."""
        raw = self.aggregator_.estimate(j).frequencies_raw
        inside, weights = np.zeros(len(raw)), np.zeros(len(raw))
        inside[: len(marks)], weights[: len(marks)] = 1.0, marks  # the rest: missing values
        total = float(inside @ raw)
        if total <= 0:
            raise DataError(
                "the estimated share of people with a value is not above zero: there are too few "
                "reports for a mean."
            )
        ratio = float(weights @ raw) / total
        slope = inside * (weights - ratio) / total
        return ratio, float(np.sqrt(linear_variance(self.aggregator_, j, slope)))

    # -- saving --------------------------------------------------------------------------------
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a JSON file: parameters and sums, no report."""
        check_is_fitted(self, "aggregator_")
        _estimator_files.write(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an estimator that :meth:`save` wrote; nothing in the file is executed.

        The ledger is not part of the file; what was charged stays charged where it was.
        """
        return _estimator_files.read(path, cls)

    def _restore(self, data: bytes, names: tuple[str, ...], *, named: bool, charges: int) -> None:
        """Take over the sums of a saved estimator."""
        self._check()
        domains = self._domains(names, named=True)
        self.n_features_in_ = len(names)
        if named:
            self.feature_names_in_ = np.array(names, dtype=object)
        self._start(domains, self._strategy_of(domains))
        server = self.aggregator_
        self.aggregator_ = RowAggregator.from_bytes(
            data, self.strategy_, server.names, server.values
        )
        self._charges = charges
        self._finish()

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        numeric = isinstance(self.schema, Numeric)
        tags.input_tags.categorical = not numeric
        tags.input_tags.string = not numeric
        tags.input_tags.allow_nan = self.missing == "category"
        tags.target_tags.required = False
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []
        return tags
