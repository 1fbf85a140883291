"""A scikit-learn transformer from tables to numbers that never reads the data silently."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from privfair.core import _validation as check
from privfair.core.arrays import number_matrix
from privfair.core.estimators import PrivateEstimatorMixin
from privfair.core.exceptions import (
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    SchemaError,
    SchemaVersionError,
)
from privfair.core.frames import Table, as_table
from privfair.core.privacy import NEIGHBORING, PrivacyGuarantee
from privfair.core.schema import Schema
from privfair.preprocessing import _saved
from privfair.preprocessing._cuts import CutDiscovery
from privfair.preprocessing._discovery import SchemaDiscovery
from privfair.preprocessing._layout import Layout, columns_of

if TYPE_CHECKING:
    from privfair.accounting.events import AccountedEvent

__all__ = ["PrivateTableEncoder"]

_VERSION = 1
_RANGES = ("symmetric", "unit")
_MISSING = ("error", "middle")


class PrivateTableEncoder(PrivateEstimatorMixin, TransformerMixin, BaseEstimator):
    """Encode a table as numbers, from a public schema or for a stated privacy budget.

    1. Numbers are clipped to their public bounds (after ``log1p`` of the distance to the lower
       one, if the schema says so) and scaled to [-1, 1] or [0, 1].
    2. Categories become one indicator column for each declared value.
    3. With ``binning="public"`` the bins that the schema declares add indicator columns, with
       ``binning="dp_quantiles"`` bins of about equal weight, learnt privately.

    Parameters
    ----------
    schema : Schema, mapping, "as_is" or None, default=None
        Public bounds and categories, in the order of the output. ``"as_is"`` takes numeric
        columns unscaled and reads nothing. None learns bounds (private quantiles) and categories
        (those above a noisy threshold, the rest pooled as ``"other"``) for ``epsilon`` and
        ``delta``.
    epsilon : float or None, default=None
        Budget of learning; needed with ``schema=None`` or ``binning="dp_quantiles"`` and only
        there.
    delta : float or None, default=None
        Needed with ``schema=None``; used by categorical columns only.
    numeric_range : {"symmetric", "unit"}, default="symmetric"
        [-1, 1] or [0, 1].
    binning : {None, "public", "dp_quantiles"}, default=None
        Whether bins add indicator columns: the schema's own, or up to 16 bins per numeric column
        between private quantiles (bins that the schema declares are then left aside).
    missing : {"error", "middle"}, default="error"
        A missing number is an error, or the middle of the public range. A missing category is an
        undeclared value: it goes to the column's ``other``, or is an error.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        Relation of the guarantee, when something is learnt.
    ledger : Ledger or None, default=None
        Charged before the data are read. Needed where something is learnt.
    dtype : {"float64", "float32"}, default="float64"
        Of the output.
    noise_random_state : int or None, default=None
        For tests and benchmarks only: marks the guarantee SEEDED.

    Attributes
    ----------
    schema_ : Schema or None
        The schema used; None for ``"as_is"``.
    max_row_norm_ : float
        Public bound on the L2 norm of an encoded record; infinite for ``"as_is"``.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if the input named its columns.
    n_features_out_ : int
    privacy_ : PrivacyGuarantee
        Epsilon is 0 where nothing was learnt; that of its release for a schema learnt earlier.
    events_ : tuple of Event
        What was charged, now or when the schema was learnt.

    Raises
    ------
    InvalidParameterError
        By ``fit``, before anything is read or charged.
    SchemaError
        If data and schema do not fit each other.

    Notes
    -----
    *Complexity.* Linear in the size of the output, for learning n log n per column.

    *Privacy.* Unit: record. Relation: ``neighboring``. With a schema, encoding is a function of
    one record and of public knowledge, and costs nothing. Without, each column has an even share
    of the budget: a numeric one spends half on a noisy histogram over powers of two and half on
    two quantiles within the range found, a categorical one all of it on thresholded noisy counts.
    Private bins take half of the budget then, and all of it with a schema: four levels of private
    medians per column, each of which a record enters once (``docs/proofs/quantile.md``).
    Column names and dtypes are taken as public. ``transform`` is a function of the record and of
    ``schema_``. Known limits: an error about undeclared or missing values reveals that there is
    one.

    References
    ----------
    Smith, 2011. Korolova, Kenthapadi, Mishra, Ntoulas, 2009. Kaplan, Schnapp, Stemmer,
    "Differentially Private Approximate Quantiles", 2022, arXiv:2110.05429.

    Examples
    --------
    >>> from privfair.core import Categorical, Numeric
    >>> encoder = PrivateTableEncoder(
    ...     schema={"age": Numeric(0, 100), "sex": Categorical(["F", "M"])}
    ... )
    >>> encoder.fit_transform({"age": [25, 50, 300], "sex": ["F", "M", "M"]})
    array([[-0.5,  1. ,  0. ],
           [ 0. ,  0. ,  1. ],
           [ 1. ,  0. ,  1. ]])
    >>> encoder.get_feature_names_out().tolist()
    ['age', 'sex=F', 'sex=M']
    >>> encoder.privacy_.epsilon
    0.0
    """

    def __init__(
        self,
        *,
        schema: Schema | Mapping[str, Any] | str | None = None,
        epsilon: float | None = None,
        delta: float | None = None,
        numeric_range: str = "symmetric",
        binning: str | None = None,
        missing: str = "error",
        neighboring: str = "zero_out",
        ledger: Any = None,
        dtype: str = "float64",
        noise_random_state: int | None = None,
    ) -> None:
        self.schema = schema
        self.epsilon = epsilon
        self.delta = delta
        self.numeric_range = numeric_range
        self.binning = binning
        self.missing = missing
        self.neighboring = neighboring
        self.ledger = ledger
        self.dtype = dtype
        self.noise_random_state = noise_random_state

    # -- before the data ----------------------------------------------------------------------
    def cost(self, X: Any = None) -> tuple[AccountedEvent, ...]:
        """Return the events that ``fit`` will charge; reads names and dtypes of X at most.

        Parameters
        ----------
        X : table or None, default=None
            Needed with ``schema=None``, where the number of columns of each kind decides how the
            budget is split. No value is read.
        """
        mode = self._mode()
        if mode == "cuts":
            return self._cuts(_as_schema(self.schema).numeric).cost()
        if mode != "private":
            return ()
        if X is None:
            raise InvalidTypeError(
                "cost needs X with schema=None: the names and dtypes of its columns, which are "
                "taken as public, decide how the budget is split. No value is read."
            )
        return self._priced(as_table(X))[2]

    def _mode(self) -> str:
        """Check every parameter and say how the schema is known."""
        check.one_of(_RANGES, numeric_range=self.numeric_range)
        check.one_of(_MISSING, missing=self.missing)
        check.one_of(NEIGHBORING, neighboring=self.neighboring)
        check.one_of(("float64", "float32"), dtype=self.dtype)
        check.one_of((None, "public", "dp_quantiles"), binning=self.binning)
        if self.schema is None:
            self._check_budget()
            return "private"
        if isinstance(self.schema, str):
            check.one_of(("as_is",), schema=self.schema)
        elif not isinstance(self.schema, Mapping):
            raise InvalidTypeError(
                "schema must be a Schema, a mapping of column names to Numeric or Categorical, "
                f"'as_is' or None, got {type(self.schema).__name__}."
            )
        if self.binning == "dp_quantiles":
            if isinstance(self.schema, str):
                raise InvalidParameterError(
                    "binning='dp_quantiles' needs bounds to look between, and schema='as_is' has "
                    "none. Pass a public schema, or schema=None."
                )
            self._check_epsilon()
            return "cuts"
        if self.epsilon is not None or self.delta is not None:
            raise InvalidParameterError(
                "epsilon and delta are the price of learning a schema, and nothing is learnt when "
                "one is given. Leave them out, or pass schema=None."
            )
        return "as_is" if isinstance(self.schema, str) else "public"

    def _check_budget(self) -> tuple[float, float]:
        if self.epsilon is None or self.delta is None:
            raise InvalidParameterError(
                "schema=None learns bounds and categories from the data, which has a price: pass "
                "epsilon=, delta= and a shared ledger=, or give a public schema= (nothing is "
                "learnt), or schema='as_is' (numeric columns, unscaled)."
            )
        epsilon = check.epsilon(epsilon=self.epsilon)
        delta = check.delta(delta=self.delta)
        check.strong_enough(epsilon, delta, None)
        return epsilon, delta

    def _check_epsilon(self) -> float:
        if self.epsilon is None:
            raise InvalidParameterError(
                "binning='dp_quantiles' learns cut points from the data, which has a price: pass "
                "epsilon= and a shared ledger=, or declare public cut points and pass "
                "binning='public'."
            )
        epsilon = check.epsilon(epsilon=self.epsilon)
        if self.delta is not None:
            check.delta(delta=self.delta)
        check.strong_enough(epsilon, self.delta or 0.0, None)
        return epsilon

    def _priced(
        self, table: Table
    ) -> tuple[SchemaDiscovery, CutDiscovery | None, tuple[AccountedEvent, ...]]:
        """Return what learns a whole schema, and the price of it."""
        epsilon, delta = self._check_budget()
        part = Fraction(epsilon) / (2 if self.binning == "dp_quantiles" else 1)
        discovery = SchemaDiscovery(table, part, delta, self.neighboring, self.noise_random_state)
        numeric = [name for name, kind in discovery.kinds.items() if kind == "numeric"]
        if self.binning != "dp_quantiles" or not numeric:
            return discovery, None, discovery.cost()
        cuts = CutDiscovery(numeric, part, self.neighboring, self.noise_random_state)
        return discovery, cuts, (*discovery.cost(), *cuts.cost())

    def _cuts(self, columns: list[str]) -> CutDiscovery:
        return CutDiscovery(
            columns, self._check_epsilon(), self.neighboring, self.noise_random_state
        )

    # -- fit ----------------------------------------------------------------------------------
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fix the encoding, charging the ledger before anything is read.

        Parameters
        ----------
        X : data frame, mapping of columns or array, shape (n_rows, n_columns)
        y : ignored
        """
        mode = self._mode()
        if mode in ("private", "cuts") and self.ledger is None:
            raise InvalidParameterError(
                "a PrivateTableEncoder that learns something needs an explicit ledger=, shared "
                "with whatever else uses these data: else its price would be counted nowhere. "
                "Pass ledger=Ledger(...), or a public schema."
            )
        return self._fit(X, mode, charge=True)

    def fit_charged(self, X: Any) -> Self:
        """Fix the encoding for a caller that has charged ``cost(X)`` itself.

        An estimator that encodes, trains and certifies as one charges the sum of its costs in
        one reservation; this method then spends nothing.
        """
        return self._fit(X, self._mode(), charge=False)

    def _fit(self, X: Any, mode: str, *, charge: bool) -> Self:
        if mode == "as_is":
            frame = _as_frame(X)
            number_matrix(frame, self.dtype)
            validate_data(self, frame, skip_check_array=True)
            self.schema_: Schema | None = None
            self._layout: Layout | None = None
            self.events_: tuple[AccountedEvent, ...] = ()
            self.n_features_out_, self.max_row_norm_ = self.n_features_in_, math.inf
            self.privacy_ = self._public_guarantee("columns are used as they are")
            return self
        frame = _as_frame(X)
        table = as_table(frame)
        events: tuple[AccountedEvent, ...]
        if mode == "public":
            schema = _as_schema(self.schema)
            layout = self._make_layout(schema)
            layout.check(table, columns_of(table, schema))
            # A schema that was learnt, here or before this encoder was saved, stays learnt.
            privacy = schema.origin or self._public_guarantee(
                "the schema (bounds and categories) is public"
            )
            events = privacy.events
        else:
            schema, events = self._learn(table, mode, charge=charge)
            layout = self._make_layout(schema)
            privacy = self._learnt_guarantee(events, mode)
            earlier = self.schema.origin if isinstance(self.schema, Schema) else None
            schema = schema.released_under(
                privacy if earlier is None else privacy.compose(earlier)
            )
            privacy = schema.origin or privacy
            events = privacy.events
        validate_data(self, frame, skip_check_array=True)
        self.schema_, self._layout, self.events_, self.privacy_ = schema, layout, events, privacy
        self.n_features_out_ = sum(layout.widths())
        self.max_row_norm_ = layout.max_row_norm()
        return self

    def _learn(
        self, table: Table, mode: str, *, charge: bool
    ) -> tuple[Schema, tuple[AccountedEvent, ...]]:
        learn: Callable[[], Schema]
        if mode == "cuts":
            declared = _as_schema(self.schema)
            self._make_layout(declared).check(table, columns_of(table, declared))
            cuts = self._cuts(declared.numeric)
            events = cuts.cost()

            def learn() -> Schema:
                return cuts.learn(table, declared)
        else:
            discovery, more, events = self._priced(table)
            if self.missing == "error":
                _refuse_missing(table)

            def learn() -> Schema:
                schema = discovery.learn(table)
                return schema if more is None else more.learn(table, schema)

        if not charge:
            return learn(), events
        from privfair.accounting.events import Composed

        with self.ledger.spend(
            Composed(events),
            purpose="PrivateTableEncoder: schema" if mode == "private" else "PrivateTableEncoder",
            numerics="exact",
            seeded=self.noise_random_state is not None,
        ):
            return learn(), events

    def _make_layout(self, schema: Schema) -> Layout:
        bins = self.binning is not None
        return Layout(schema, self.numeric_range == "unit", bins, self.missing)

    def _public_guarantee(self, assumption: str) -> PrivacyGuarantee:
        return PrivacyGuarantee(
            0.0,
            0.0,
            neighboring=self.neighboring,
            accountant="basic",
            assumptions=(f"{assumption}; nothing was learnt from the data",),
        )

    def _learnt_guarantee(self, events: tuple[AccountedEvent, ...], mode: str) -> PrivacyGuarantee:
        from privfair.accounting import guarantee

        return guarantee(
            events,
            delta=self.delta or 0.0,
            neighboring=self.neighboring,
            numerics="exact",
            seeded=self.noise_random_state is not None,
            assumptions=(
                "the names and dtypes of the columns are public"
                if mode == "private"
                else "the schema (bounds and categories) is public; its cut points were learnt",
            ),
        )

    # -- after fit ----------------------------------------------------------------------------
    def transform(self, X: Any) -> NDArray[np.floating[Any]]:
        """Encode a table.

        Parameters
        ----------
        X : data frame, mapping of columns or array, shape (n_rows, n_columns)

        Returns
        -------
        ndarray, shape (n_rows, ``n_features_out_``)
        """
        check_is_fitted(self, "max_row_norm_")
        if self._layout is None:
            frame = _as_frame(X)
            values = number_matrix(frame, self.dtype)
            validate_data(self, frame, skip_check_array=True, reset=False)
            return values
        frame = _as_frame(X)
        table = as_table(frame)
        columns = columns_of(table, self._layout.schema)
        validate_data(self, frame, skip_check_array=True, reset=False)
        return self._layout.encode(table, columns, np.dtype(self.dtype))

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> NDArray[Any]:
        """Return the names of the output columns."""
        check_is_fitted(self, "max_row_norm_")
        named = getattr(self, "feature_names_in_", None)
        if input_features is not None:
            given = np.asarray(input_features, dtype=object)
            if len(given) != self.n_features_in_:
                raise LengthMismatchError(
                    "input_features should have length equal to number of features "
                    f"({self.n_features_in_}), got {len(given)}."
                )
            if named is not None and not np.array_equal(given, named):
                raise InvalidParameterError("input_features is not equal to feature_names_in_.")
        if self._layout is not None:
            return np.array(self._layout.names(), dtype=object)
        if input_features is not None:
            return given
        if named is not None:
            return np.asarray(named, dtype=object)
        return np.array([f"x{i}" for i in range(self.n_features_in_)], dtype=object)

    # -- saving -------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Return the fitted encoder as JSON data: public or released quantities only."""
        check_is_fitted(self, "max_row_norm_")
        named = getattr(self, "feature_names_in_", None)
        return {
            "version": _VERSION,
            # A list of pairs: the order of the columns must survive writers that sort keys.
            "schema": None
            if self.schema_ is None
            else [[name, entry] for name, entry in self.schema_.to_dict().items()],
            "numeric_range": self.numeric_range,
            "binning": self.binning,
            "missing": self.missing,
            "dtype": self.dtype,
            "n_features_in": int(self.n_features_in_),
            "feature_names_in": None if named is None else [str(name) for name in named],
            "privacy": self.privacy_.to_dict(),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted encoder to a JSON file."""
        _saved.write(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an encoder that :meth:`save` wrote; nothing in the file is executed."""
        return cls.from_dict(_saved.read(path))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the fitted encoder that :meth:`to_dict` described.

        Its schema is fixed: fitting the result again learns nothing and charges nothing. One
        that was learnt keeps the guarantee, and the seed's mark, of the release that it is.
        """
        if data.get("version") != _VERSION:
            raise SchemaVersionError(
                f"the encoder was saved in version {data.get('version')!r} of its format, and "
                f"this package reads version {_VERSION}. Use a newer privfair."
            )
        schema = None if data["schema"] is None else Schema.from_dict(dict(data["schema"]))
        privacy = _saved.guarantee_from(data["privacy"])
        if schema is not None and (privacy.events or privacy.epsilon > 0 or privacy.seeded):
            schema = schema.released_under(privacy)
        made = cls(
            schema="as_is" if schema is None else schema,
            numeric_range=data["numeric_range"],
            # Cut points learnt then are the schema's own now.
            binning=data["binning"] and "public",
            missing=data["missing"],
            dtype=data["dtype"],
            neighboring=data["privacy"]["neighboring"],
        )
        made._mode()
        made.n_features_in_ = int(data["n_features_in"])
        if data["feature_names_in"] is not None:
            made.feature_names_in_ = np.array(data["feature_names_in"], dtype=object)
        made.privacy_ = privacy
        made.events_ = made.privacy_.events
        made.schema_ = schema
        made._layout = None if schema is None else made._make_layout(schema)
        if made._layout is None:
            made.n_features_out_, made.max_row_norm_ = made.n_features_in_, math.inf
        else:
            made.n_features_out_ = sum(made._layout.widths())
            made.max_row_norm_ = made._layout.max_row_norm()
        return made

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        as_is = self.schema == "as_is" if isinstance(self.schema, str) else False
        tags.input_tags.categorical = not as_is
        tags.input_tags.string = not as_is
        tags.input_tags.allow_nan = not as_is and self.missing == "middle"
        tags.no_validation = False
        tags.requires_fit = True
        return tags


def _as_frame(X: Any) -> Any:
    """Return mappings and lists as something that scikit-learn can count and name."""
    if isinstance(X, Mapping) and not hasattr(X, "toarray"):  # a sparse matrix may be a mapping
        return as_table(X).to_pandas()
    return X


def _as_schema(schema: Any) -> Schema:
    return schema if isinstance(schema, Schema) else Schema(schema)


def _refuse_missing(table: Table) -> None:
    """Raise for a missing number before anything is charged."""
    for name in table.columns:
        values = table.column(name)
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise SchemaError(
                f"column {name!r} has missing or NaN values. Impute a public constant, or pass "
                "missing='middle'."
            )
