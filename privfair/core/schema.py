"""Public schemas: what is known about a table before anyone looks at the data."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from privfair.core.exceptions import InvalidTypeError, SchemaError

if TYPE_CHECKING:
    from privfair.core.frames import Table
    from privfair.core.privacy import PrivacyGuarantee

__all__ = ["Categorical", "Numeric", "Schema"]


def _finite(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTypeError(f"{name} must be a number, got {type(value).__name__}.")
    if not math.isfinite(value):
        raise SchemaError(f"{name} must be finite, got {value}.")
    return float(value)


@dataclass(frozen=True)
class Numeric:
    """A numeric column with public bounds.

    Parameters
    ----------
    low, high : float
        Public bounds with ``low < high``; values outside are clipped to them.
    log : bool, default=False
        Whether to work on ``log1p(x - low)``, for long-tailed non-negative columns.
    bins : sequence of float or None, default=None
        Public inner cut points, strictly increasing and inside (low, high): the bin of x is the
        number of cut points <= x.

    Examples
    --------
    >>> Numeric(17, 90, bins=[25, 45, 65]).bins
    (25.0, 45.0, 65.0)
    """

    low: float
    high: float
    log: bool = False
    bins: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        low, high = _finite("low", self.low), _finite("high", self.high)
        if not low < high:
            raise SchemaError(f"low must be below high, got low={low:g}, high={high:g}.")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        if not isinstance(self.log, bool):
            raise InvalidTypeError(f"log must be True or False, got {self.log!r}.")
        if self.bins is not None:
            cuts = tuple(_finite("bins", cut) for cut in self.bins)
            inside = all(low < cut < high for cut in cuts)
            rising = all(a < b for a, b in zip(cuts, cuts[1:], strict=False))
            if not cuts or not inside or not rising:
                raise SchemaError(
                    f"bins must be strictly increasing cut points inside ({low:g}, {high:g}), "
                    f"got {list(cuts)}."
                )
            object.__setattr__(self, "bins", cuts)

    def to_dict(self) -> dict[str, Any]:
        """Return the column as plain data."""
        out: dict[str, Any] = {"kind": "numeric", "low": self.low, "high": self.high}
        if self.log:
            out["log"] = True
        if self.bins is not None:
            out["bins"] = list(self.bins)
        return out


@dataclass(frozen=True)
class Categorical:
    """A categorical column with a public list of values.

    Parameters
    ----------
    values : sequence of str, int or bool
        Public, distinct, at least one.
    other : str or int or None, default=None
        The value to which unknown ones are mapped; added to ``values`` if it is not there.
        With None an unknown value is an error.

    Examples
    --------
    >>> Categorical(["a", "b"], other="other").values
    ('a', 'b', 'other')
    """

    values: tuple[Any, ...]
    other: Any = None

    def __post_init__(self) -> None:
        if isinstance(self.values, str | bytes) or not isinstance(self.values, Iterable):
            raise InvalidTypeError("values must be a list of labels, not a single one.")
        values = tuple(v.item() if hasattr(v, "item") else v for v in self.values)
        if any(isinstance(v, float) and math.isnan(v) or v is None for v in values):
            raise SchemaError(
                "values must not hold NaN or None; give missing values a label of their own, "
                "such as 'missing'."
            )
        if self.other is not None and self.other not in values:
            values = (*values, self.other)
        if not values or len(set(values)) != len(values):
            raise SchemaError("values must hold at least one label and no label twice.")
        object.__setattr__(self, "values", values)

    def to_dict(self) -> dict[str, Any]:
        """Return the column as plain data."""
        out: dict[str, Any] = {"kind": "categorical", "values": list(self.values)}
        if self.other is not None:
            out["other"] = self.other
        return out


class Schema(Mapping[str, "Numeric | Categorical"]):
    """Public knowledge about the columns of a table, in order.

    Parameters
    ----------
    columns : mapping of str to Numeric or Categorical

    Notes
    -----
    A schema is public by declaration: bounds and categories come from documentation, law or
    common knowledge, never from the rows that are to be protected. One that was learnt from the
    rows privately carries the guarantee of that release, ``origin``, through copies, pickles and
    selections; it takes no part in comparisons and is not written to TOML.

    Examples
    --------
    >>> schema = Schema({"age": Numeric(17, 90), "sex": Categorical(["Female", "Male"])})
    >>> schema.numeric, schema.categorical
    (['age'], ['sex'])
    >>> Schema.from_toml(schema.to_toml()) == schema
    True
    """

    def __init__(self, columns: Mapping[str, Numeric | Categorical]) -> None:
        if not isinstance(columns, Mapping) or not columns:
            raise SchemaError("a schema needs at least one column: {name: Numeric(...) or ...}.")
        for name, column in columns.items():
            if not isinstance(name, str):
                raise InvalidTypeError(f"column names must be strings, got {name!r}.")
            if not isinstance(column, Numeric | Categorical):
                raise InvalidTypeError(
                    f"column {name!r} must be Numeric or Categorical, got {type(column).__name__}."
                )
        self._columns = dict(columns)
        self._origin: PrivacyGuarantee | None = getattr(columns, "origin", None)

    def __getitem__(self, name: str) -> Numeric | Categorical:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and list(self.items()) == list(other.items())

    def __hash__(self) -> int:
        return hash(tuple(self._columns.items()))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name!r}: {column!r}" for name, column in self.items())
        return f"Schema({{{inner}}})"

    @property
    def names(self) -> list[str]:
        """Column names in order."""
        return list(self._columns)

    @property
    def origin(self) -> PrivacyGuarantee | None:
        """Guarantee of the release that this schema is, None where it was declared."""
        return getattr(self, "_origin", None)  # schemas pickled earlier have no such field

    def released_under(self, guarantee: PrivacyGuarantee) -> Schema:
        """Return this schema, marked as learnt from the data under a guarantee."""
        marked = Schema(self._columns)
        marked._origin = guarantee
        return marked

    @property
    def numeric(self) -> list[str]:
        """Names of the numeric columns."""
        return [n for n, c in self.items() if isinstance(c, Numeric)]

    @property
    def categorical(self) -> list[str]:
        """Names of the categorical columns."""
        return [n for n, c in self.items() if isinstance(c, Categorical)]

    def select(self, names: Iterable[str]) -> Schema:
        """Return the schema of these columns, in the order given."""
        wanted = list(names)
        absent = [name for name in wanted if name not in self._columns]
        if absent:
            raise SchemaError(f"the schema has no column {absent}; it has {self.names}.")
        chosen = Schema({name: self._columns[name] for name in wanted})
        chosen._origin = self.origin
        return chosen

    def drop(self, names: Iterable[str]) -> Schema:
        """Return the schema without these columns."""
        gone = set(names)
        return self.select([name for name in self._columns if name not in gone])

    def validate(self, table: Table) -> None:
        """Raise if a column is absent, has missing numbers or an undeclared category.

        The message names the column and never a value: values are private.
        """
        import numpy as np

        from privfair.core.frames import missing_mask

        absent = [name for name in self if name not in table.columns]
        if absent:
            raise SchemaError(
                f"columns {absent} are in the schema and not in the table (it has "
                f"{list(table.columns)})."
            )
        for name, column in self.items():
            values = table.column(name)
            if isinstance(column, Numeric):
                if not np.issubdtype(values.dtype, np.number) and values.dtype != bool:
                    raise SchemaError(f"column {name!r} is declared Numeric and is not numeric.")
                if missing_mask(values).any():
                    raise SchemaError(
                        f"column {name!r} has missing or NaN values, which Numeric does not "
                        "allow. Impute a public constant before fitting."
                    )
            elif column.other is None and not set(values.tolist()) <= set(column.values):
                raise SchemaError(
                    f"column {name!r} has a value outside its declared list. Add it to the "
                    "schema, or declare Categorical(values, other=...) to pool unknown values."
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as plain data."""
        return {name: column.to_dict() for name, column in self.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schema:
        """Read a schema from plain data."""
        return cls({name: _column(name, entry) for name, entry in data.items()})

    def to_toml(self) -> str:
        """Return the schema as TOML text."""
        lines: list[str] = []
        for name, entry in self.to_dict().items():
            lines.append(f"[columns.{_toml(name)}]")
            lines += [f"{key} = {_toml(value)}" for key, value in entry.items()]
            lines.append("")
        return "\n".join(lines)

    @classmethod
    def from_toml(cls, text: str) -> Schema:
        """Read a schema from TOML text."""
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SchemaError(f"the schema is not valid TOML: {error}.") from error
        unknown = set(data) - {"columns"}
        if unknown or not isinstance(data.get("columns"), dict):
            raise SchemaError(
                'a schema file holds one table per column, [columns."name"], and nothing else; '
                f"unknown keys: {sorted(unknown)}."
            )
        return cls.from_dict(data["columns"])


def _column(name: str, entry: Any) -> Numeric | Categorical:
    if not isinstance(entry, Mapping) or "kind" not in entry:
        raise SchemaError(f"column {name!r} needs kind = 'numeric' or 'categorical'.")
    fields = {key: value for key, value in entry.items() if key != "kind"}
    kinds = {"numeric": Numeric, "categorical": Categorical}
    allowed = {"numeric": {"low", "high", "log", "bins"}, "categorical": {"values", "other"}}
    kind = entry["kind"]
    if kind not in kinds:
        raise SchemaError(f"column {name!r}: kind must be numeric or categorical, got {kind!r}.")
    unknown = set(fields) - allowed[kind]
    if unknown:
        raise SchemaError(
            f"column {name!r}: unknown keys {sorted(unknown)}; allowed: {sorted(allowed[kind])}."
        )
    try:
        column: Numeric | Categorical = kinds[kind](**fields)
        return column
    except TypeError as error:
        raise SchemaError(f"column {name!r}: {error}.") from error


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return repr(value)
