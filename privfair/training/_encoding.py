"""From a table to the numbers that a module sees, and what that costs."""

from __future__ import annotations

from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.arrays import quiet_array
from privfair.core.exceptions import InvalidTypeError, SchemaError
from privfair.core.frames import Table, as_table, is_dataframe, missing_mask
from privfair.core.privacy import PrivacyGuarantee
from privfair.core.schema import Categorical, Numeric, Schema
from privfair.preprocessing import PrivateTableEncoder, with_exact_cuts
from privfair.training._budget import FitBudget

__all__ = ["Encoding", "table_like"]

_EXACT = PrivacyGuarantee.none(
    "non_private",
    assumptions=("bounds and categories were read off the data exactly, without privacy",),
)
"""What holds for an encoder that a fit without privacy learnt."""


_NAMED = (str, bytes, bool, int, float, np.bool_, np.integer, np.floating)


class Encoding:
    """How records become rows of float32, around a :class:`PrivateTableEncoder`.

    Parameters
    ----------
    schema : Schema, "as_is" or None
        As in the estimator. None is learnt: privately out of the budget, or for an infinite
        epsilon exactly.
    binning : str or None
        As in the estimator.

    Attributes
    ----------
    learns : bool
        Whether anything is learnt from the data, and so has to be paid for.
    encoder : PrivateTableEncoder
    """

    def __init__(self, schema: Schema | str | None, binning: str | None) -> None:
        self._cuts = binning == "dp_quantiles"
        self.learns = schema is None or self._cuts
        self._exact = False
        self._encoded: NDArray[np.float32] | None = None
        self.encoder = PrivateTableEncoder(schema=schema, binning=binning, dtype="float32")
        if schema is not None:  # checks parameters; the price of cuts is set by plan()
            self.encoder.set_params(epsilon=1.0 if self._cuts else None).cost()

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What is taken as public about the columns."""
        found: tuple[str, ...] = self.encoder.privacy_.assumptions
        return found

    @property
    def feature_names(self) -> list[str]:
        """Names of the encoded columns."""
        return [str(name) for name in self.encoder.get_feature_names_out()]

    @property
    def width(self) -> int:
        """Number of encoded columns."""
        return int(self.encoder.n_features_out_)

    @property
    def square_norm(self) -> float | None:
        """Public bound on the squared L2 norm of an encoded record, None where there is none."""
        bound = float(self.encoder.max_row_norm_)
        return bound * bound if np.isfinite(bound) else None

    def plan(self, X: Any, budget: FitBudget, noise_random_state: int | None) -> Any:
        """Return the event of what will be learnt, or None; no value of X enters it."""
        if not self.learns:
            return None
        if budget.preprocessing is None:
            self._exact = True
            return None
        from privfair.accounting.events import Composed

        epsilon, delta = budget.preprocessing
        self.encoder.set_params(
            epsilon=epsilon,
            delta=None if self.encoder.schema is not None else delta,
            neighboring=budget.neighboring,
            noise_random_state=noise_random_state,
        )
        events = self.encoder.cost(table_like(X))
        return Composed(events) if events else None

    def check(self, X: Any) -> int:
        """Raise if the rows cannot be encoded; learn nothing and return their number."""
        data = table_like(X)
        if not self.learns:
            self.encoder.fit(data)
            self._encoded = self.transform(data)
            return len(self._encoded)
        table = _checked(data)
        if self.encoder.schema is None:
            _check_labels(table)
        else:  # only cut points are learnt: the rest must fit
            PrivateTableEncoder(schema=self.encoder.schema, dtype="float32").fit_transform(data)
        return table.n_rows

    def fit_transform(self, X: Any) -> NDArray[np.float32]:
        """Learn what the plan says and encode."""
        if self._encoded is not None:
            encoded, self._encoded = self._encoded, None
            return encoded
        data = table_like(X)
        if self._exact:
            self._fit_exactly(data)
        else:
            self.encoder.fit_charged(data)
        return self.transform(X)

    def _fit_exactly(self, data: Any) -> None:
        """Learn without noise, for the twin."""
        table = as_table(data)
        schema = self.encoder.schema
        if schema is None:
            schema = _exact_schema(table)
        if self._cuts:
            schema = with_exact_cuts(table, schema)
        binning = "public" if self._cuts else self.encoder.binning
        self.encoder.set_params(schema=schema, binning=binning, epsilon=None, delta=None)
        self.encoder.fit(data)
        self.encoder.privacy_ = _EXACT

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Encode rows."""
        data = table_like(X)
        _checked(data)
        encoded = self.encoder.transform(data)
        return np.ascontiguousarray(encoded, dtype=np.float32)

    def fixed(self) -> Encoding:
        """Return a copy that learns nothing more, for another run on other rows."""
        made = Encoding.from_dict(self.to_dict())
        made.learns = False
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return the encoder as JSON data; released and public quantities only."""
        return {"learns": self.learns, "encoder": self.encoder.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Encoding:
        """Return the encoder that :meth:`to_dict` described."""
        made = cls.__new__(cls)
        made.learns, made._exact, made._encoded = bool(data["learns"]), False, None
        made._cuts = False
        made.encoder = PrivateTableEncoder.from_dict(data["encoder"])
        return made


def table_like(X: Any) -> Any:
    """Return data frames as they are, and anything else as a two-dimensional array."""
    if is_dataframe(X):
        return X
    return quiet_array(X, dtype=None, ensure_all_finite=False)


def _checked(data: Any) -> Table:
    """Return the table, or raise for what no column can hold; the message shows no value."""
    table = as_table(data)
    for name in table.columns:
        _check_column(name, table.column(name))
    return table


def _check_column(name: str, values: NDArray[Any]) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise SchemaError(
            f"column {name!r} has missing (NaN) or infinite (inf) values. Impute a public "
            "constant before fitting."
        )
    if values.dtype.kind not in "fiubO":
        raise SchemaError(
            f"column {name!r} has dtype {values.dtype}, which is neither numeric nor a label. "
            "Convert it to numbers or text."
        )
    if values.dtype.kind == "O" and not all(_is_label(v) for v in values):
        raise InvalidTypeError(
            f"argument must be a string or a number: column {name!r} has entries that are "
            "neither. Convert the column."
        )


def _check_labels(table: Table) -> None:
    """Raise for an entry that no private list of categories can name; no value is shown."""
    for name in table.columns:
        values = table.column(name)
        if values.dtype.kind != "O":
            continue
        known = values[~missing_mask(values)]
        if not all(isinstance(v, _NAMED) for v in known):
            raise InvalidTypeError(
                f"column {name!r} has entries that are neither text, bytes, booleans nor ints or "
                "floats (decimal or date objects, say). Convert the column to float or to text."
            )


def _is_label(value: Any) -> bool:
    return value is None or isinstance(value, str | bytes | Number | np.generic)


def _exact_schema(table: Table) -> Schema:
    """Read bounds and categories off the data, for a fit without privacy."""
    columns: dict[str, Numeric | Categorical] = {}
    for name in table.columns:
        values = table.column(name)
        if values.dtype.kind in "fiu":
            low, high = float(values.min()), float(values.max())
            columns[name] = Numeric(low, high if high > low else low + max(1.0, abs(low)))
        else:
            known = values[~missing_mask(values)]
            labels = sorted({v.item() if hasattr(v, "item") else v for v in known}, key=str)
            columns[name] = Categorical(tuple(labels) or ("other",), other="other")
    return Schema(columns)
