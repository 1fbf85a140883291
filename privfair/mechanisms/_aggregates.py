"""Counts, sums and histograms: aggregates of records, with exact noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.events import LedgerLike
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    SchemaError,
)
from privfair.core.frames import as_table, as_vector, row_count
from privfair.core.privacy import NEIGHBORING
from privfair.core.schema import Categorical, Numeric, Schema
from privfair.mechanisms._codes import column_codes, domain_size
from privfair.mechanisms._discrete import (
    DiscreteGaussianMechanism,
    DiscreteLaplaceMechanism,
    fraction,
)
from privfair.mechanisms._grid import VALUE_LIMIT, check_granularity
from privfair.mechanisms._tensors import TensorMechanism

if TYPE_CHECKING:
    from privfair.accounting.events import AccountedEvent

__all__ = ["DPCount", "DPHistogram", "DPSum"]

_MAX_CELLS = 1 << 26
_EXCESS = 1 + Fraction(1, 1 << 50)


def _rational_root(square: Fraction) -> Fraction:
    """Return a rational of at least the square root, relative excess below 2**-60."""
    shift = 64 + max(0, square.denominator.bit_length() - square.numerator.bit_length())
    return Fraction(
        math.isqrt((square.numerator << 2 * shift) // square.denominator) + 1, 1 << shift
    )


def _noise(
    contribution: Fraction, moved: dict[str, Fraction], budget: dict[str, Any]
) -> tuple[str, Fraction]:
    """Return the kind of noise and its scale for the one budget that was given.

    ``contribution`` is in units of the value; ``moved`` holds the L1 and the squared L2
    sensitivity in units of the contribution.
    """
    given = {name: value for name, value in budget.items() if value is not None}
    if len(given) != 1:
        raise InvalidParameterError(
            f"give exactly one of {', '.join(budget)}; got {sorted(given) or 'none'}. epsilon and "
            "scale mean discrete Laplace noise, rho and sigma discrete Gaussian noise."
        )
    name, raw = next(iter(given.items()))
    value = fraction(name, raw)
    # A budget is spent to its last bit but one: the excess pays for the rounding of the event's
    # own float, so that a price never lies above the budget that it was made for.
    if name == "epsilon":
        exact = contribution * moved["l1"] / value
        return "laplace", exact if contribution == 1 else exact * _EXCESS
    if name == "rho":
        root = _rational_root(moved["l2_squared"] / (2 * value))
        return "gaussian", contribution * root * _EXCESS
    return ("laplace" if name == "scale" else "gaussian"), value


_MOVED = {
    "vector": {  # one cell for a record that comes or goes, two cells for one that changes
        "zero_out": {"l1": Fraction(1), "l2_squared": Fraction(1)},
        "add_remove": {"l1": Fraction(1), "l2_squared": Fraction(1)},
        "replace_one": {"l1": Fraction(2), "l2_squared": Fraction(2)},
    },
    "scalar": {
        "zero_out": {"l1": Fraction(1), "l2_squared": Fraction(1)},
        "add_remove": {"l1": Fraction(1), "l2_squared": Fraction(1)},
        "replace_one": {"l1": Fraction(2), "l2_squared": Fraction(4)},
    },
}

_Integer = DiscreteGaussianMechanism | DiscreteLaplaceMechanism


class _Aggregate(TensorMechanism):
    """What the aggregates share: noise of a budget, the cost, the draw."""

    numerics = "exact"
    _inner: _Integer
    neighboring: str

    def _set_noise(
        self,
        shape: str,
        contribution: Fraction,
        budget: dict[str, Any],
        neighboring: str,
        size: int = 1,
        noise_random_state: int | None = None,
    ) -> None:
        self.neighboring = check.one_of(NEIGHBORING, neighboring=neighboring)
        moved = _MOVED[shape][self.neighboring]
        kind, scale = _noise(contribution, moved, budget)
        make = DiscreteLaplaceMechanism if kind == "laplace" else DiscreteGaussianMechanism
        self._inner = make(scale, contribution, size=size, noise_random_state=noise_random_state)
        self.noise = kind
        self.noise_scale = float(scale)
        self.seeded = self._inner.seeded
        norm = moved["l1"] if kind == "laplace" else _rational_root(moved["l2_squared"])
        self.sensitivity = float(contribution * norm)

    def cost(self, count: int = 1) -> AccountedEvent:
        """Return the event of one unit's contribution; the accountant reads the relation."""
        return self._inner.cost(count)

    def _draw(self, prepared: Any) -> Any:
        return self._inner._draw(prepared)


class DPCount(_Aggregate):
    """Release a number of records.

    Parameters
    ----------
    epsilon : float or None
        Pure epsilon under ``neighboring``: discrete Laplace noise. Give exactly one of epsilon,
        rho, scale and sigma.
    rho : float or None
        zCDP parameter: discrete Gaussian noise.
    scale, sigma : float or None
        The noise parameter itself, of discrete Laplace or discrete Gaussian noise.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        Relation that ``epsilon`` or ``rho`` is meant under.
    noise_random_state : int or None, default=None
        For tests and benchmarks only.

    Attributes
    ----------
    sensitivity : float
        1, or 2 under replace_one (a count of selected records).
    noise : {"laplace", "gaussian"}
    noise_scale : float
        Scale or sigma of the noise.

    Notes
    -----
    ``release`` takes an integer, or a table or array whose rows are counted. *Privacy.* The
    event of :class:`DiscreteLaplaceMechanism` or :class:`DiscreteGaussianMechanism` with a
    contribution of 1; accountants double it under replacement.

    References
    ----------
    Canonne, Kamath, Steinke, 2020, arXiv:2004.00010.

    Examples
    --------
    >>> isinstance(DPCount(epsilon=1).release([0, 0, 0]), int)
    True
    """

    def __init__(
        self,
        *,
        epsilon: float | None = None,
        rho: float | None = None,
        scale: float | None = None,
        sigma: float | None = None,
        neighboring: str = "zero_out",
        noise_random_state: int | None = None,
    ) -> None:
        budget = {"epsilon": epsilon, "rho": rho, "scale": scale, "sigma": sigma}
        self._set_noise(
            "scalar", Fraction(1), budget, neighboring, noise_random_state=noise_random_state
        )

    def _prepare(self, value: Any) -> NDArray[np.int64]:
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            number = int(value)
        else:
            number = row_count(value)
        return np.array(max(-VALUE_LIMIT, min(VALUE_LIMIT, number)), dtype=np.int64)


class DPSum(_Aggregate):
    """Release the sum of a column with public bounds.

    Each value is clipped to the bounds, scaled to the grid and rounded toward zero, so that one
    record's contribution is at most ``max(|low|, |high|)`` exactly; the sum is one of integers.

    Parameters
    ----------
    low, high : float
        Public bounds.
    epsilon, rho, scale, sigma, neighboring, noise_random_state
        As in :class:`DPCount`; scale and sigma are in units of the value.
    granularity : float or None, default=None
        Grid step, a power of two. None takes one of at most ``noise_scale * 2^-10`` and
        ``max(|low|, |high|) * 2^-20``.

    Attributes
    ----------
    sensitivity : float
        In units of the value, under ``neighboring``.
    granularity : float
    noise, noise_scale
        As in :class:`DPCount`.

    Notes
    -----
    *Algorithm.* Linear in the number of rows. Rounding toward zero never lengthens a
    contribution, and integers add in any order and do not wrap, so that nothing has to be added
    to the sensitivity. NaN counts as ``low``. *Privacy.* As :class:`DPCount`, with
    the contribution in grid steps.

    References
    ----------
    Casacuberta, Shoemate, Vadhan, Wagaman, 2022, arXiv:2207.10635.

    Examples
    --------
    >>> isinstance(DPSum(0, 10, epsilon=1).release([1.5, 20.0, float("nan")]), float)
    True
    """

    def __init__(
        self,
        low: float,
        high: float,
        *,
        epsilon: float | None = None,
        rho: float | None = None,
        scale: float | None = None,
        sigma: float | None = None,
        granularity: float | None = None,
        neighboring: str = "zero_out",
        noise_random_state: int | None = None,
    ) -> None:
        self.low, self.high = check.real(low=low), check.real(high=high)
        if not self.low < self.high:
            raise InvalidParameterError(f"low must be below high, got {low!r} and {high!r}.")
        largest = max(abs(self.low), abs(self.high))
        budget = {"epsilon": epsilon, "rho": rho, "scale": scale, "sigma": sigma}
        relation = check.one_of(NEIGHBORING, neighboring=neighboring)
        kind, noise = _noise(Fraction(largest), _MOVED["scalar"][relation], budget)
        if granularity is None:
            coarsest = min(float(noise) * 2.0**-10, largest * 2.0**-20)
            granularity = 2.0 ** math.floor(math.log2(coarsest))
        step = check_granularity(granularity)
        self.granularity = float(step)
        self._contribution = math.floor(Fraction(largest) / step)
        if self._contribution < 1:
            raise InvalidParameterError(
                f"granularity {self.granularity!r} is coarser than the bounds: every "
                "contribution would be rounded to zero. Use a finer one."
            )
        if self._contribution > VALUE_LIMIT >> 8:
            raise InvalidParameterError(
                f"granularity {self.granularity!r} is so fine that one contribution takes more "
                "than 2**53 steps. Use a coarser one."
            )
        in_steps = {"laplace": "scale", "gaussian": "sigma"}[kind]
        self._set_noise(
            "scalar",
            Fraction(self._contribution),
            {"scale": None, "sigma": None, in_steps: noise / step},
            relation,
            noise_random_state=noise_random_state,
        )
        self.noise_scale = float(noise)
        self.sensitivity *= self.granularity

    def _prepare(self, value: Any) -> NDArray[np.int64]:
        column = as_vector(value, name="value")
        if column.dtype.kind not in "biuf":
            raise InvalidTypeError(f"a sum needs numbers, got dtype {column.dtype}.")
        clipped = np.fmin(np.fmax(column.astype(np.float64), self.low), self.high)
        steps = np.trunc(clipped * (1.0 / self.granularity)).astype(np.int64)
        # Exact and saturating: halves of 32 bits cannot overflow for fewer than 2**31 rows.
        total = (int((steps >> 32).sum()) << 32) + int((steps & 0xFFFFFFFF).sum())
        return np.array(max(-VALUE_LIMIT, min(VALUE_LIMIT, total)), dtype=np.int64)

    def _draw(self, prepared: NDArray[np.int64]) -> float:
        return float(self._inner._draw(prepared)) * self.granularity


class _Counts:
    """Marks a table of counts that was made already."""

    def __init__(self, table: NDArray[np.int64]) -> None:
        self.table = table


class DPHistogram(_Aggregate):
    """Release the counts of all cells of a public product domain.

    Parameters
    ----------
    domain : Schema or mapping of str to Categorical, Numeric with bins, or list of values
        Public. The order of the columns and of their values is that of the output's axes.
    epsilon, rho, scale, sigma, neighboring, noise_random_state
        As in :class:`DPCount`; the guarantee is for the whole histogram.

    Attributes
    ----------
    shape : tuple of int
        Cells per column.
    sensitivity : float
        1 under zero_out and add_remove; under replace_one 2 (L1, Laplace) or sqrt(2) (L2,
        Gaussian), since a record that changes leaves one cell and enters another.
    noise, noise_scale
        As in :class:`DPCount`.

    Raises
    ------
    SchemaError
        If the domain is malformed, or by ``release`` if a value is outside the domain and its
        column has no ``other``. Nothing is charged then.

    Notes
    -----
    *Algorithm.* Exact integer counts, exact integer noise in every cell, empty ones included.
    Linear in rows plus cells. The output is an int64 array and may be negative: clipping it is
    post-processing that biases sums. *Privacy.* One record enters one cell, so that the event is
    that of a contribution of 1, ``DiscreteLaplace`` or ``DiscreteGaussian``. The accountants
    double a contribution under replacement, which for Gaussian noise charges twice the rho that
    is spent (L2 is sqrt(2), not 2): over-counted, never under-counted.

    References
    ----------
    Canonne, Kamath, Steinke, 2020, arXiv:2004.00010.

    Examples
    --------
    >>> histogram = DPHistogram({"sex": ["F", "M"], "member": [False, True]}, epsilon=1)
    >>> rows = {"sex": ["F", "M", "M"], "member": [True, True, False]}
    >>> histogram.release(rows).shape
    (2, 2)
    """

    def __init__(
        self,
        domain: Mapping[str, Numeric | Categorical | Sequence[Any]],
        *,
        epsilon: float | None = None,
        rho: float | None = None,
        scale: float | None = None,
        sigma: float | None = None,
        neighboring: str = "zero_out",
        noise_random_state: int | None = None,
    ) -> None:
        self.domain = _as_schema(domain)
        self.shape = tuple(domain_size(column) for column in self.domain.values())
        cells = math.prod(self.shape)
        if cells > _MAX_CELLS:
            raise InvalidParameterError(
                f"the domain has {cells} cells, more than {_MAX_CELLS}; every one of them gets "
                "noise. Use fewer columns or coarser bins."
            )
        budget = {"epsilon": epsilon, "rho": rho, "scale": scale, "sigma": sigma}
        self._set_noise("vector", Fraction(1), budget, neighboring, cells, noise_random_state)

    def release_counts(
        self, counts: Any, *, ledger: LedgerLike | None = None, purpose: str = ""
    ) -> NDArray[np.int64]:
        """Return a private version of counts that were made already.

        Parameters
        ----------
        counts : array of int, shape ``self.shape``
            Each record must have been counted once, in one cell.
        ledger, purpose
            As in ``release``.
        """
        array = np.asarray(counts)
        if array.dtype.kind not in "iu":
            raise InvalidTypeError(f"counts must be integers, got dtype {array.dtype}.")
        if array.shape != self.shape:
            raise LengthMismatchError(
                f"counts must have the domain's shape {self.shape}, got {array.shape}."
            )
        noisy: NDArray[np.int64] = self.release(_Counts(array), ledger=ledger, purpose=purpose)
        return noisy

    def _prepare(self, value: Any) -> NDArray[np.int64]:
        if isinstance(value, _Counts):
            return self._inner._prepare(value.table)
        names = self.domain.names
        table = as_table(value)
        if not table.has_names:
            if len(table.columns) != len(names):
                raise DataError(
                    f"the domain has {len(names)} columns, the data have {len(table.columns)}."
                )
            names = list(table.columns)
        where = [
            column_codes(label, table.column(name), column)
            for name, (label, column) in zip(names, self.domain.items(), strict=True)
        ]
        flat = np.ravel_multi_index(where, self.shape) if where else np.zeros(0, dtype=np.int64)
        counts = np.bincount(flat, minlength=math.prod(self.shape)).astype(np.int64)
        return self._inner._prepare(counts.reshape(self.shape))


def _as_schema(domain: Any) -> Schema:
    if not isinstance(domain, Mapping):
        raise InvalidTypeError(
            "domain must be a Schema or a mapping of column names to values, got "
            f"{type(domain).__name__}. A histogram needs a public domain."
        )
    columns = {
        name: column if isinstance(column, Numeric | Categorical) else Categorical(tuple(column))
        for name, column in domain.items()
    }
    for name, column in columns.items():
        if isinstance(column, Numeric) and column.bins is None:
            raise SchemaError(
                f"column {name!r} is Numeric without bins. Give public cut points, "
                "Numeric(low, high, bins=[...])."
            )
    return Schema(columns)
