"""A schema learnt from the data, for a price that is known before the data are read."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.core.events import Event
from privfair.core.exceptions import SchemaError
from privfair.core.frames import Table
from privfair.core.schema import Categorical, Numeric, Schema
from privfair.mechanisms import DPQuantile, DPSetDiscovery

__all__ = ["SchemaDiscovery"]

OTHER = "other"
_TAIL = 0.1  # far enough from the ends to be found with a small share of a small budget
_HALF_OCTAVES = np.exp2(np.arange(-20, 81) / 2.0)
_GRID = np.concatenate([-_HALF_OCTAVES[::-1], [0.0], _HALF_OCTAVES])
_LIMIT = float(_GRID[-1])


class SchemaDiscovery:
    """Private bounds for numeric columns, private lists of values for categorical ones.

    Column names and dtypes are taken as public and decide the kind: numbers are numeric,
    booleans have two known values, everything else is categorical. The budget is split evenly
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
        epsilon: float,
        delta: float,
        neighboring: str,
        noise_random_state: int | None,
    ) -> None:
        self.kinds = {name: _kind(name, table.column(name)) for name in table.columns}
        read = [name for name, kind in self.kinds.items() if kind != "boolean"]
        lists = [name for name in read if self.kinds[name] == "categorical"]
        self.mechanisms: dict[str, DPQuantile | DPSetDiscovery] = {}
        for position, name in enumerate(read):
            seed = None if noise_random_state is None else noise_random_state + position
            share = Fraction(epsilon) / len(read)
            if self.kinds[name] == "numeric":
                self.mechanisms[name] = DPQuantile(
                    [_TAIL, 1.0 - _TAIL],
                    -_LIMIT,
                    _LIMIT,
                    share,
                    grid=_GRID.tolist(),
                    neighboring=neighboring,
                    noise_random_state=seed,
                )
            else:
                part = float(Fraction(delta) / len(lists)) * (1.0 - 2.0**-50)
                self.mechanisms[name] = DPSetDiscovery(
                    share, part, neighboring=neighboring, noise_random_state=seed
                )

    def cost(self) -> tuple[Event, ...]:
        """Return one event per column that is read."""
        return tuple(mechanism.cost() for mechanism in self.mechanisms.values())

    def learn(self, table: Table) -> Schema:
        """Return the schema; the cost must have been charged before."""
        return Schema({name: self._column(name, table.column(name)) for name in table.columns})

    def _column(self, name: str, values: NDArray[Any]) -> Numeric | Categorical:
        mechanism = self.mechanisms.get(name)
        if mechanism is None:
            return Categorical((False, True))
        released = mechanism.release(values)
        if isinstance(mechanism, DPQuantile):
            return _bounds(float(released[0]), float(released[1]))
        return Categorical(tuple(released), other=OTHER)


def _kind(name: str, values: NDArray[Any]) -> str:
    kind = values.dtype.kind
    if kind == "b":
        return "boolean"
    if kind in "iuf":
        return "numeric"
    if kind in "OUST":
        return "categorical"
    raise SchemaError(
        f"column {name!r} has dtype {values.dtype}, which is neither a number nor a category. "
        "Convert it first."
    )


def _bounds(low: float, high: float) -> Numeric:
    """Return bounds around the private tail quantiles: post-processing."""
    if low == high:
        reach = max(1.0, abs(low))
        return Numeric(low - reach, high + reach)
    margin = (high - low) / 4.0
    return Numeric(low - margin, high + margin)
