"""A schema learnt from the data, for a price that is known before the data are read."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.exceptions import SchemaError
from privfair.core.frames import Table, missing_mask
from privfair.core.schema import Categorical, Numeric, Schema
from privfair.mechanisms import DPHistogram, DPQuantile, DPSetDiscovery

if TYPE_CHECKING:
    from privfair.accounting.events import AccountedEvent

__all__ = ["SchemaDiscovery"]

OTHER = "other"
_POWERS = np.exp2(np.arange(-10, 41, dtype=float))
_EDGES = np.concatenate([-_POWERS[::-1], _POWERS])
_FALSE_RANGE = 0.02  # probability that noise alone widens a range
_TAIL = 0.05
# Whether a nullable boolean has a missing value is private, so that its place is always there.
_KNOWN = {
    "boolean": Categorical((False, True)),
    "nullable_boolean": Categorical((False, True), other=OTHER),
}


class _Bounds:
    """Bounds of a numeric column that nothing is known about.

    Half of the budget finds the range by a histogram over powers of two, whose noise alone
    rarely passes the threshold; the other half finds two tail quantiles within that range. A
    quantile over all of the numbers at once would not do: beyond the largest record every
    candidate has the same quality.
    """

    def __init__(
        self, epsilon: Fraction, neighboring: str, noise_random_state: int | None
    ) -> None:
        self._seed = noise_random_state
        self._neighboring = neighboring
        self._half = epsilon / 2
        low, high = 2 * _EDGES[0], 2 * _EDGES[-1]
        self._histogram = DPHistogram(
            {"x": Numeric(low, high, bins=_EDGES.tolist())},
            epsilon=self._half,
            neighboring=neighboring,
            noise_random_state=noise_random_state,
        )
        bins = len(_EDGES) + 1
        self._threshold = self._histogram.noise_scale * math.log(bins / _FALSE_RANGE)

    def _quantiles(self, low: float, high: float) -> DPQuantile:
        seed = None if self._seed is None else self._seed + 1
        return DPQuantile(
            [_TAIL, 1.0 - _TAIL],
            low,
            high,
            self._half,
            neighboring=self._neighboring,
            noise_random_state=seed,
        )

    def cost(self) -> tuple[AccountedEvent, ...]:
        """Return the two events."""
        return self._histogram.cost(), self._quantiles(0.0, 1.0).cost()

    def learn(self, values: NDArray[Any]) -> Numeric:
        """Return the column; missing values contribute nothing."""
        present = values[~missing_mask(values)]
        counts = self._histogram.release({"x": present})
        full = np.flatnonzero(counts > self._threshold)
        edges = np.concatenate([[2 * _EDGES[0]], _EDGES, [2 * _EDGES[-1]]])
        if not full.size:  # too few records for this budget
            full = np.array([len(_POWERS)])
        low, high = float(edges[full[0]]), float(edges[full[-1] + 1])
        first, last = self._quantiles(low, high).release(present).tolist()
        margin = (last - first) / 8.0 or (high - low) / 1024.0
        return Numeric(max(low, first - margin), min(high, last + margin))


class _Values:
    """The frequent values of a categorical column."""

    def __init__(
        self, epsilon: Fraction, delta: float, neighboring: str, noise_random_state: int | None
    ) -> None:
        self._mechanism = DPSetDiscovery(
            epsilon, delta, neighboring=neighboring, noise_random_state=noise_random_state
        )

    def cost(self) -> tuple[AccountedEvent, ...]:
        """Return the event."""
        return (self._mechanism.cost(),)

    def learn(self, values: NDArray[Any]) -> Categorical:
        """Return the column; all that is not named is pooled."""
        return Categorical(tuple(self._mechanism.release(values)), other=OTHER)


class SchemaDiscovery:
    """Private bounds for numeric columns, private lists of values for categorical ones.

    Column names and dtypes are taken as public and decide the kind: numbers are numeric,
    booleans have two known values (and a place for missing ones, where the dtype can hold them),
    text and objects are categorical. The budget is split evenly
    over the columns that are read.

    Parameters
    ----------
    table : Table
        Only names and dtypes are read here.
    epsilon, delta : float
        Budget of all columns together; delta goes to the categorical ones.
    neighboring : str
        Relation that the budget is meant under.
    noise_random_state : int or None
        For tests and benchmarks only.
    """

    def __init__(
        self,
        table: Table,
        epsilon: float | Fraction,
        delta: float,
        neighboring: str,
        noise_random_state: int | None,
    ) -> None:
        self.kinds = {name: _kind(name, table) for name in table.columns}
        read = [name for name, kind in self.kinds.items() if kind not in _KNOWN]
        lists = [name for name in read if self.kinds[name] == "categorical"]
        self._parts: dict[str, _Bounds | _Values] = {}
        for position, name in enumerate(read):
            seed = None if noise_random_state is None else noise_random_state + 2 * position
            share = Fraction(epsilon) / len(read)
            if self.kinds[name] == "numeric":
                self._parts[name] = _Bounds(share, neighboring, seed)
            else:
                part = float(Fraction(delta) / len(lists)) * (1.0 - 2.0**-50)
                self._parts[name] = _Values(share, part, neighboring, seed)

    def cost(self) -> tuple[AccountedEvent, ...]:
        """Return what every column that is read costs."""
        return tuple(event for part in self._parts.values() for event in part.cost())

    def learn(self, table: Table) -> Schema:
        """Return the schema; the cost must have been charged before."""
        return Schema(
            {
                name: self._parts[name].learn(table.column(name))
                if name in self._parts
                else _KNOWN[self.kinds[name]]
                for name in table.columns
            }
        )


def _kind(name: str, table: Table) -> str:
    """Return the column's kind, from its declared dtype and no value."""
    kind = table.kind(name)
    if kind == "unknown":
        raise SchemaError(
            f"column {name!r} has a dtype (such as dates) that is neither a number nor a "
            "category. Convert it first."
        )
    return kind
