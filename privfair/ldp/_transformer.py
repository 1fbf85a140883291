"""A scikit-learn transformer that stands for the devices of many users, one row each."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from privfair.core import _validation as check
from privfair.core.estimators import PrivateEstimatorMixin
from privfair.core.exceptions import InvalidParameterError, LengthMismatchError
from privfair.core.privacy import PrivacyGuarantee
from privfair.core.randomness import secret_stream
from privfair.core.schema import Categorical, Numeric, Schema
from privfair.ldp import _saved
from privfair.ldp._columns import Columns, as_frame, public_columns
from privfair.ldp._protocol import Ints
from privfair.ldp._release import certified, charging, checked_epsilon, cost_of
from privfair.ldp._sent_rows import PROTOCOLS, RowRandomiser, attributes_per_row, one_hot, share

__all__ = ["LDPTransformer"]

_OUTPUTS = ("codes", "indicators", "debiased")


class LDPTransformer(PrivateEstimatorMixin, TransformerMixin, BaseEstimator):
    r"""Randomise every row of a table by itself, for any classifier behind it.

    Each attribute is a position in a public list (a category, or a bin of a number) and is
    reported through a local randomiser that supports the true position with probability p and
    any other with q. With ``output="debiased"`` a report becomes the indicators
    :math:`\frac{d}{m} \cdot \frac{1[v \in S] - q}{p - q}`, the mean of which is the one-hot
    encoding of the row; m of the d attributes are reported.

    Parameters
    ----------
    epsilon : float, default=1.0
        Of one report of a whole row, in (0, 20] (up to 50 with ``allow_weak``); ``inf`` is the
        non-private twin.
    protocol : {"grr", "oue", "sue", "ss", "olh", "blh", "hr", "pgr", "auto"}, default="grr"
        Randomiser of every attribute; ``"auto"`` takes the one of least variance for each.
        ``output="codes"`` needs ``"grr"``, whose report is a value of the attribute.
    strategy : {"spl", "smp"} or int, default="spl"
        How epsilon is divided: over all attributes (``"spl"``), or all of it on one attribute
        that the row draws at random (``"smp"``); a number m stands for m random attributes of
        epsilon / m each.
    output : {"codes", "indicators", "debiased"}, default="indicators"
        Reported positions, k for "not reported", shape (n, d); which values a report supports,
        0/1, shape (n, sum of k); unbiased indicators, same shape.
    schema : Schema, mapping, Numeric or Categorical, default=None
        Public domain of every column, needed; a single Numeric or Categorical stands for all
        columns.
    bins : int, default=8
        Bins of equal width (on the log scale where the schema says so) of numeric columns for
        which the schema declares none; at least 2.
    ledger : Ledger or None, default=None
        Charged by every ``transform``, before the rows are read.
    allow_weak : bool, default=False
        Whether an epsilon above 20 is meant.
    noise_random_state : int or None, default=None
        For tests and benchmarks only: makes reports repeatable, marks the guarantee SEEDED.

    Attributes
    ----------
    schema_ : Schema
        With the bins of every numeric column.
    categories_ : list of list of str
        Names of the positions of each column.
    randomiser_ : RowRandomiser or None
        The protocol of each attribute; None at ``epsilon=inf``.
    privacy_ : PrivacyGuarantee
        Of all calls of ``transform`` since ``fit``, counted as if about the same rows;
        ``privacy_.details`` has ``eps_tuple`` (any two rows) and ``eps_attr`` (rows that differ
        in one attribute) of one call, and the number of calls.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if the input named its columns.

    Raises
    ------
    InvalidParameterError, InvalidTypeError, SchemaError
        By ``fit``; by ``transform`` for rows that do not fit the schema, which spends nothing.
    BudgetExceededError
        By ``transform``, before the rows are read.

    Notes
    -----
    *Complexity.* O(n times the sum of domain sizes).

    *Privacy.* Unit: record, one row a user. Relation: replace one row by any other, at the
    user's side: whoever sees the output needs not be trusted. Mechanism: one pure randomiser per
    reported attribute; which attributes are reported does not depend on the row. Composition:
    m reports of epsilon / m each are epsilon for any two rows, epsilon / m for rows that differ
    in one attribute. Known limits: labels are not covered, as no transformer sees them: see
    :class:`LDPNaiveBayes`. ``fit`` checks that rows fit the schema and releases nothing. A second
    ``transform`` of the same rows, as ``fit(X).transform(X)`` after ``fit_transform(X)``, is a
    second release and is charged. In a ``Pipeline``, ``fit`` randomises the training rows and
    ``predict`` randomises the rows to predict, as if their devices reported them too; a device
    that evaluates a published model itself uses :meth:`encode`, which adds no noise.

    References
    ----------
    Kairouz, Bonawitz, Ramage 2016, arXiv:1602.07387. Wang, Blocki, Li, Jha 2017, USENIX Security.
    Arcolezi, Couchot, Al Bouna, Xiao 2021, arXiv:2109.07269. Yilmaz, Al-Rubaie, Chang 2020,
    "Naive Bayes Classification under Local Differential Privacy".

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.accounting import Ledger
    >>> from privfair.core import Categorical, Numeric
    >>> rows = {"age": np.array([25, 40] * 500), "sex": ["F", "M"] * 500}
    >>> transformer = LDPTransformer(
    ...     schema={"age": Numeric(0, 100, bins=[30]), "sex": Categorical(["F", "M"])},
    ...     epsilon=2.0, output="debiased", ledger=Ledger(), noise_random_state=0,
    ... )
    >>> transformer.fit_transform(rows).mean(axis=0).round(1)
    array([0.5, 0.5, 0.5, 0.5])
    >>> transformer.privacy_.epsilon, transformer.privacy_.details["eps_attr"]
    (2.0, 1.0)
    """

    def __init__(
        self,
        *,
        epsilon: float = 1.0,
        protocol: str = "grr",
        strategy: str | int = "spl",
        output: str = "indicators",
        schema: Schema | Mapping[str, Any] | Numeric | Categorical | None = None,
        bins: int = 8,
        ledger: Any = None,
        allow_weak: bool = False,
        noise_random_state: int | None = None,
    ) -> None:
        self.epsilon = epsilon
        self.protocol = protocol
        self.strategy = strategy
        self.output = output
        self.schema = schema
        self.bins = bins
        self.ledger = ledger
        self.allow_weak = allow_weak
        self.noise_random_state = noise_random_state

    def cost(self) -> tuple[Any, ...]:
        """Return the events that one ``transform`` will charge."""
        return cost_of(self._checked())

    def _checked(self) -> float:
        check.one_of(PROTOCOLS, protocol=self.protocol)
        check.one_of(_OUTPUTS, output=self.output)
        if self.output == "codes" and self.protocol != "grr":
            raise InvalidParameterError(
                "output='codes' needs protocol='grr': a report of another protocol is a set of "
                "values. Use output='indicators' or 'debiased'."
            )
        secret_stream(self.noise_random_state)
        return checked_epsilon(self)

    # -- fit ----------------------------------------------------------------------------------
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fix the domains and the randomisers; nothing is learnt, released or charged.

        Parameters
        ----------
        X : data frame, mapping of columns or array, shape (n_rows, n_columns)
            Rows that the schema must fit.
        y : ignored
        """
        epsilon = self._checked()
        frame = as_frame(X)
        columns = public_columns(self.schema, self.bins, frame)
        attributes_per_row(self.strategy, len(columns.schema))
        columns.codes(frame)
        validate_data(self, frame, skip_check_array=True)
        self._prepare(columns, epsilon)
        return self

    def _prepare(self, columns: Columns, epsilon: float) -> None:
        private = math.isfinite(epsilon)
        self.schema_ = columns.schema
        self.categories_ = columns.labels()
        self._uniform = columns.uniform
        self.randomiser_: RowRandomiser | None = (
            RowRandomiser.make(columns.sizes, epsilon, self.protocol, self.strategy)
            if private
            else None
        )
        self._epsilon = epsilon
        self._seeded = private and self.noise_random_state is not None
        # Changed in place: a transform leaves the estimator's attributes as they are.
        self._calls: dict[str, Any] = {"releases": 0, "notes": ()}

    # -- after fit ----------------------------------------------------------------------------
    @property
    def privacy_(self) -> PrivacyGuarantee:  # type: ignore[override]
        """Guarantee of all releases since ``fit``."""
        if not hasattr(self, "_calls"):
            raise AttributeError("privacy_ exists after fit.")
        releases = self._calls["releases"]
        each = self._epsilon
        if math.isfinite(each):
            each = share(each, attributes_per_row(self.strategy, len(self.schema_)))
        return certified(
            self._epsilon,
            releases,
            seeded=self._seeded,
            assumptions=(
                "the schema (bounds, bins and categories) is public",
                "labels are not covered",
                f"every call of transform ({releases}) is counted as about the same rows",
                *self._calls["notes"],
            ),
            details={"eps_tuple": self._epsilon, "eps_attr": each, "releases": releases},
        )

    def transform(self, X: Any) -> NDArray[Any]:
        """Randomise rows: one release, charged before they are read.

        Parameters
        ----------
        X : data frame, mapping of columns or array, shape (n_rows, n_columns)

        Returns
        -------
        ndarray, shape (n_rows, n_columns) or (n_rows, sum of domain sizes)
            See ``output``.
        """
        check_is_fitted(self, "schema_")
        with charging(self, self._epsilon, "randomised rows") as charge:
            with charge.reading():
                codes = self._read(X)
            if self.randomiser_ is None:
                return self._plain(codes)
            reports = self.randomiser_.draw(codes, secret_stream(self.noise_random_state))
            self._calls.update(releases=self._calls["releases"] + 1, notes=charge.note())
            make = {
                "codes": reports.codes,
                "indicators": reports.support,
                "debiased": reports.debiased,
            }
            return np.asarray(make[self.output]())

    def encode(self, X: Any) -> NDArray[Any]:
        """Return, without noise, what ``transform`` returns on average; for a user's own device.

        Parameters
        ----------
        X : data frame, mapping of columns or array, shape (n_rows, n_columns)

        Returns
        -------
        ndarray, shape (n_rows, ...)
            Positions, for ``output="codes"``; else the mean over the reports of each row.

        Notes
        -----
        The result reveals the row: it must stay where the row is. A published model is evaluated
        on it there, at no cost.
        """
        check_is_fitted(self, "schema_")
        return self._plain(self._read(X))

    def _read(self, X: Any) -> Ints:
        frame = as_frame(X)
        columns = Columns(self.schema_, self._uniform)
        validate_data(self, frame, skip_check_array=True, reset=False)
        return columns.codes(frame)

    def _plain(self, codes: Ints) -> NDArray[Any]:
        if self.output == "codes":
            return codes
        sizes = Columns(self.schema_, self._uniform).sizes
        exact = one_hot(codes, sizes)
        if self.output == "debiased" or self.randomiser_ is None:
            return exact
        p = np.repeat([r.p_ for r in self.randomiser_.protocols], sizes)
        q = np.repeat([r.q_ for r in self.randomiser_.protocols], sizes)
        return (q + (p - q) * exact) * (self.randomiser_.per_row / len(sizes))

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> NDArray[Any]:
        """Return the names of the output columns."""
        check_is_fitted(self, "schema_")
        named = getattr(self, "feature_names_in_", None)
        names = list(self.schema_) if named is None or not self._uniform else list(named)
        if input_features is not None:
            given = np.asarray(input_features, dtype=object)
            if len(given) != self.n_features_in_:
                raise LengthMismatchError(
                    "input_features should have length equal to number of features "
                    f"({self.n_features_in_}), got {len(given)}."
                )
            if named is not None and not np.array_equal(given, named):
                raise InvalidParameterError("input_features is not equal to feature_names_in_.")
            names = names if named is not None else list(given)
        if self.output == "codes":
            return np.array(names, dtype=object)
        return np.array(
            [
                f"{n}={v}"
                for n, values in zip(names, self.categories_, strict=True)
                for v in values
            ],
            dtype=object,
        )

    # -- saving -------------------------------------------------------------------------------
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted transformer to a JSON file: public quantities and the guarantee."""
        check_is_fitted(self, "schema_")
        _saved.write(
            path, self, {"releases": self._calls["releases"], "notes": list(self._calls["notes"])}
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a transformer that :meth:`save` wrote; nothing in the file is executed."""
        made, columns, seeded, more = _saved.read(path, cls)
        made._prepare(columns, made._checked())
        made._seeded = seeded
        made._calls.update(releases=int(more["releases"]), notes=tuple(more["notes"]))
        return made

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        text = not isinstance(self.schema, Numeric)
        tags.input_tags.categorical = text
        tags.input_tags.string = text
        tags.non_deterministic = self.noise_random_state is None and self.epsilon != math.inf
        tags.transformer_tags.preserves_dtype = []
        tags.no_validation = False
        tags.requires_fit = True
        return tags
