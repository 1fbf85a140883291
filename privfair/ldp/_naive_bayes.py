"""Naive Bayes from rows and labels that never left their devices as they are."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from privfair.core import _validation as check
from privfair.core.estimators import PrivateEstimatorMixin
from privfair.core.exceptions import InvalidParameterError, LabelError
from privfair.core.frames import as_vector, check_aligned, missing_mask
from privfair.core.privacy import PrivacyGuarantee
from privfair.core.randomness import secret_stream
from privfair.core.schema import Categorical, Numeric, Schema
from privfair.ldp import _saved
from privfair.ldp._columns import Columns, as_frame, public_columns
from privfair.ldp._postprocess import postprocess
from privfair.ldp._protocol import Floats, Ints
from privfair.ldp._release import certified, charging, checked_epsilon, cost_of
from privfair.ldp._sent_rows import PROTOCOLS, RowRandomiser, attributes_per_row, share

__all__ = ["LDPNaiveBayes"]


class LDPNaiveBayes(ClassifierMixin, PrivateEstimatorMixin, BaseEstimator):
    r"""Learn naive Bayes from locally randomised (attribute, label) pairs.

    A device joins each attribute with the label to one value of a domain of k times the number
    of classes and reports it through a local randomiser. The server estimates the joint table
    of every attribute without bias, shrinks it towards independence as far as its known noise
    asks for, makes it a distribution, and smooths it.

    Parameters
    ----------
    epsilon : float, default=1.0
        Of everything that a row reports, label included, in (0, 20] (up to 50 with
        ``allow_weak``); ``inf`` is the non-private twin.
    protocol : {"grr", "oue", "sue", "ss", "olh", "blh", "hr", "pgr", "auto"}, default="auto"
        Randomiser of every pair; ``"auto"`` takes the one of least variance for each.
    strategy : {"smp", "spl"} or int, default="smp"
        Pairs that a row reports: one at random with all of epsilon, all with a share each, or a
        number m of them with epsilon / m each.
    schema : Schema, mapping, Numeric or Categorical, default=None
        Public domain of every column, needed; a single Numeric or Categorical stands for all
        columns.
    bins : int, default=8
        Bins of equal width of numeric columns for which the schema declares none; at least 2.
    classes : sequence or None, default=None
        Public list of at least two labels; None takes those that occur, which are then public.
    shrinkage : {"james_stein", None}, default="james_stein"
        Whether associations below the noise of the reports are shrunk to none.
    smoothing : float, default=1.0
        Counts added to every cell of a table, above 0 (Laplace).
    ledger : Ledger or None, default=None
        Charged before the rows are read.
    allow_weak : bool, default=False
        Whether an epsilon above 20 is meant.
    noise_random_state : int or None, default=None
        For tests and benchmarks only: makes reports repeatable, marks the guarantee SEEDED.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    schema_ : Schema
        With the bins of every numeric column.
    tables_raw_ : list of ndarray, shape (k, n_classes)
        Unbiased joint frequencies of each attribute and the label; may be negative.
    feature_log_prob_ : list of ndarray, shape (k, n_classes)
        Logarithms of P(value | class).
    class_log_prior_ : ndarray, shape (n_classes,)
    privacy_ : PrivacyGuarantee
        Covers attributes and label. ``privacy_.details`` has ``eps_tuple`` (any two rows) and
        ``eps_attr`` (rows that differ in one attribute, labels being equal).
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if the input named its columns.

    Raises
    ------
    InvalidParameterError, InvalidTypeError, SchemaError, LabelError
        By ``fit``, before a row is randomised; nothing is spent.
    BudgetExceededError
        By ``fit``, before the rows are read.

    Notes
    -----
    *Complexity.* O(n d) reports of the devices, O(sum of k times classes) afterwards.

    *Privacy.* Unit: record, one row a user. Relation: replace one row and its label by any
    other, at the user's side. Mechanism: one pure randomiser for each reported pair; everything
    after the reports is post-processing. Composition: m reports of epsilon / m each. Changing
    the label changes all pairs, so that it is protected by epsilon, not by a share of it. Known
    limits: rows to predict are taken as they are: a device evaluates the published model itself;
    for rows that must be randomised, too, use :class:`LDPTransformer`.

    With S the squared distance of a raw table from the product of its margins and v the noise
    variance of a cell, the association is multiplied by :math:`\max(0, 1 - (k-1)(c-1) v / S)`.

    References
    ----------
    Yilmaz, Al-Rubaie, Chang 2020, "Naive Bayes Classification under Local Differential Privacy",
    IEEE DSAA. James, Stein 1961. Wang et al. 2020, arXiv:1905.08320.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.accounting import Ledger
    >>> X = {"smokes": ["yes", "no"] * 2000, "pet": ["cat", "cat", "dog", "dog"] * 1000}
    >>> y = np.array([1, 0] * 2000)
    >>> schema = {"smokes": Categorical(["yes", "no"]), "pet": Categorical(["cat", "dog"])}
    >>> model = LDPNaiveBayes(schema=schema, ledger=Ledger(), noise_random_state=0).fit(X, y)
    >>> model.predict({"smokes": ["yes", "no"], "pet": ["cat", "cat"]})
    array([1, 0])
    >>> model.privacy_.epsilon
    1.0
    """

    def __init__(
        self,
        *,
        epsilon: float = 1.0,
        protocol: str = "auto",
        strategy: str | int = "smp",
        schema: Schema | Mapping[str, Any] | Numeric | Categorical | None = None,
        bins: int = 8,
        classes: Sequence[Any] | None = None,
        shrinkage: str | None = "james_stein",
        smoothing: float = 1.0,
        ledger: Any = None,
        allow_weak: bool = False,
        noise_random_state: int | None = None,
    ) -> None:
        self.epsilon = epsilon
        self.protocol = protocol
        self.strategy = strategy
        self.schema = schema
        self.bins = bins
        self.classes = classes
        self.shrinkage = shrinkage
        self.smoothing = smoothing
        self.ledger = ledger
        self.allow_weak = allow_weak
        self.noise_random_state = noise_random_state

    def cost(self) -> tuple[Any, ...]:
        """Return the events that ``fit`` will charge."""
        return cost_of(self._checked())

    def _checked(self) -> float:
        check.one_of(PROTOCOLS, protocol=self.protocol)
        check.one_of(("james_stein", None), shrinkage=self.shrinkage)
        check.positive(smoothing=self.smoothing)
        secret_stream(self.noise_random_state)
        return checked_epsilon(self)

    # -- fit ----------------------------------------------------------------------------------
    def fit(self, X: Any, y: Any) -> Self:
        """Randomise every row and its label, once, and learn from the reports.

        Parameters
        ----------
        X : data frame, mapping of columns or array, shape (n_rows, n_columns)
        y : array-like, shape (n_rows,)
        """
        epsilon = self._checked()
        if y is None:
            raise InvalidParameterError("fit requires y to be passed, but the target y is None.")
        y = y if hasattr(y, "shape") or hasattr(y, "__len__") else np.asarray(y)
        frame = as_frame(X)
        columns = public_columns(self.schema, self.bins, frame)
        per_row = attributes_per_row(self.strategy, len(columns.schema))
        check_aligned(X=frame, y=y)
        with charging(self, epsilon, "randomised rows and labels") as charge:
            with charge.reading():
                codes = columns.codes(frame)
                classes, labels = self._labels(y)
                validate_data(self, frame, skip_check_array=True)
            tables, variances = self._tables(codes, labels, columns.sizes, len(classes), epsilon)
            notes = charge.note()
        self.classes_, self.schema_, self._uniform = classes, columns.schema, columns.uniform
        self.tables_raw_ = tables
        self._seeded = self.noise_random_state is not None and math.isfinite(epsilon)
        self._learn(variances, len(codes))
        public = "the list of labels is public" if self.classes is None else "classes is public"
        self.privacy_: PrivacyGuarantee = certified(
            epsilon,
            1,
            seeded=self._seeded,
            assumptions=("the schema (bounds, bins and categories) is public", public, *notes),
            details={
                "eps_tuple": epsilon,
                "eps_attr": share(epsilon, per_row) if math.isfinite(epsilon) else epsilon,
                "releases": 1,
            },
        )
        return self

    def _labels(self, y: Any) -> tuple[NDArray[Any], Ints]:
        wide = getattr(y, "ndim", 1) == 2 and hasattr(y, "dtype")
        values = np.asarray(column_or_1d(y, warn=True)) if wide else as_vector(y, name="y")
        if missing_mask(values).any():
            raise LabelError("y contains NaN or missing labels. Drop those rows before fitting.")
        if values.dtype.kind == "f" and np.isinf(values).any():
            raise LabelError("y contains infinity (inf), which is no label.")
        check_classification_targets(values)
        if self.classes is None:
            found, codes = np.unique(values, return_inverse=True)
            if len(found) < 2:
                raise LabelError(
                    "y has one class: with less than 2 classes there is nothing to tell apart. "
                    "Pass classes=, the public list of labels, if another one may occur."
                )
            return found, codes.astype(np.int64)
        listed = np.array(list(self.classes))
        if listed.ndim != 1 or len(listed) < 2 or len(np.unique(listed)) != len(listed):
            raise LabelError("classes must list at least two labels and none twice.")
        listed = np.sort(listed)
        if not np.isin(values, listed).all():
            raise LabelError("y has a label that is not in classes; add it there.")
        return listed, np.searchsorted(listed, values).astype(np.int64)

    def _tables(
        self, codes: Ints, labels: Ints, sizes: list[int], c: int, epsilon: float
    ) -> tuple[list[Floats], list[float]]:
        """Return unbiased joint tables and the noise variance of one cell of each."""
        pairs = codes * c + labels[:, None]
        widths = [k * c for k in sizes]
        if math.isinf(epsilon):
            exact = [
                np.bincount(pairs[:, j], minlength=w).reshape(-1, c) / len(pairs)
                for j, w in enumerate(widths)
            ]
            return exact, [0.0] * len(exact)
        randomiser = RowRandomiser.make(widths, epsilon, self.protocol, self.strategy)
        sent = randomiser.draw(pairs, secret_stream(self.noise_random_state))
        tables, variances = [], []
        for reports in sent.reports:
            n = len(reports)
            if not n:  # nobody drew this attribute: nothing is known about it
                tables.append(np.full((reports.protocol.k // c, c), 1 / reports.protocol.k))
                variances.append(math.inf)
                continue
            counts = reports.protocol.support(reports.payload)
            tables.append(reports.protocol.frequencies(counts, n).reshape(-1, c))
            variances.append(float(reports.protocol.variance(0.0, n)))
        return tables, variances

    def _learn(self, variances: list[float], n: int) -> None:
        # A margin adds up k cells: the tables with less noise in it say more about the classes.
        noise = np.array([v * len(t) for v, t in zip(variances, self.tables_raw_, strict=True)])
        weights = 1 / (noise + 1 / n)
        margins = np.array([table.sum(axis=0) for table in self.tables_raw_])
        prior = _distribution(weights @ margins / weights.sum())
        prior = (prior + self.smoothing / n) / (prior + self.smoothing / n).sum()
        self.class_log_prior_ = np.log(prior)
        self.feature_log_prob_ = []
        for raw, variance in zip(self.tables_raw_, variances, strict=True):
            table = self._shrunk(raw, variance, prior)
            table = _distribution(table.ravel()).reshape(raw.shape) + self.smoothing / n
            self.feature_log_prob_.append(np.log(table / table.sum(axis=0)))

    def _shrunk(self, raw: Floats, variance: float, prior: Floats) -> Floats:
        if self.shrinkage is None or variance == 0:
            return raw
        apart = np.outer(_distribution(raw.sum(axis=1)), prior)
        if math.isinf(variance):
            return apart
        freedom = (raw.shape[0] - 1) * (raw.shape[1] - 1)
        distance = float(((raw - apart) ** 2).sum())
        kept = max(0.0, 1 - freedom * variance / distance) if distance > 0 else 0.0
        return apart + kept * (raw - apart)

    # -- after fit ----------------------------------------------------------------------------
    def _scores(self, X: Any) -> Floats:
        check_is_fitted(self, "class_log_prior_")
        frame = as_frame(X)
        validate_data(self, frame, skip_check_array=True, reset=False)
        codes = Columns(self.schema_, self._uniform).codes(frame)
        out = np.tile(self.class_log_prior_, (len(codes), 1))
        for j, table in enumerate(self.feature_log_prob_):
            out += table[codes[:, j]]
        return out

    def predict_log_proba(self, X: Any) -> Floats:
        """Return logarithms of class probabilities, shape (n_rows, n_classes)."""
        scores = self._scores(X)
        top = scores.max(axis=1, keepdims=True)
        return np.asarray(scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True)))

    def predict_proba(self, X: Any) -> Floats:
        """Return class probabilities, shape (n_rows, n_classes)."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of rows that are taken as they are, shape (n_rows,)."""
        best = self._scores(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    # -- saving -------------------------------------------------------------------------------
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to a JSON file: released quantities and the guarantee."""
        check_is_fitted(self, "feature_log_prob_")
        _saved.write(
            path,
            self,
            {
                "classes": self.classes_.tolist(),
                "class_log_prior": self.class_log_prior_.tolist(),
                "feature_log_prob": [table.tolist() for table in self.feature_log_prob_],
                "tables_raw": [table.tolist() for table in self.tables_raw_],
                "assumptions": list(self.privacy_.assumptions),
            },
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a model that :meth:`save` wrote; nothing in the file is executed."""
        made, columns, seeded, more = _saved.read(path, cls)
        epsilon = made._checked()
        made.classes_ = np.array(more["classes"])
        made.schema_, made._uniform, made._seeded = columns.schema, columns.uniform, seeded
        made.class_log_prior_ = np.array(more["class_log_prior"])
        made.feature_log_prob_ = [np.array(table) for table in more["feature_log_prob"]]
        made.tables_raw_ = [np.array(table) for table in more["tables_raw"]]
        per_row = attributes_per_row(made.strategy, len(columns.schema))
        each = share(epsilon, per_row) if math.isfinite(epsilon) else epsilon
        made.privacy_ = certified(
            epsilon, 1, seeded=seeded, assumptions=tuple(more["assumptions"]),
            details={"eps_tuple": epsilon, "eps_attr": each, "releases": 1},
        )  # fmt: skip
        return made

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        text = not isinstance(self.schema, Numeric)
        tags.input_tags.categorical = text
        tags.input_tags.string = text
        tags.non_deterministic = self.noise_random_state is None and self.epsilon != math.inf
        return tags


def _distribution(values: Floats) -> Floats:
    return np.asarray(postprocess(values, "norm_sub"))
