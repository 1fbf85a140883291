"""Several attributes of one person: splitting the budget, or sampling one attribute."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from hashlib import blake2b
from itertools import product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.core.randomness import SecretStream
from privfair.ldp._choose import choose
from privfair.ldp._direct import GRR, SS
from privfair.ldp._exact import below
from privfair.ldp._hashing import BLH, OLH
from privfair.ldp._protocol import (
    Floats,
    FrequencyProtocol,
    Ints,
    _log_up,
    check_domain,
    check_local_epsilon,
)
from privfair.ldp._structured import HR, PGR
from privfair.ldp._unary import OUE, SUE

__all__ = ["SMP", "SPL", "RowStrategy", "check_rows", "exact_row_epsilons"]

PROTOCOLS: dict[str, type[FrequencyProtocol]] = {
    p.name: p for p in (GRR, SUE, OUE, BLH, OLH, SS, HR, PGR)
}
MAX_ATTRIBUTES = 1 << 16
_MOST_CELLS = 1 << 20  # outputs times rows that an enumeration looks at


def check_rows(rows: ArrayLike, sizes: Sequence[int]) -> Ints:
    """Return rows of codes, shape (n, d), or say why they are none; quotes no value."""
    array = np.asarray(rows)
    if array.dtype.kind not in "iu":
        raise InvalidTypeError(
            "rows must be integers, one column per attribute, each the position of the value in "
            f"the public list of its attribute; got dtype {array.dtype}."
        )
    if array.ndim != 2 or array.shape[1] != len(sizes):
        raise DataError(
            f"rows must have shape (n, {len(sizes)}), one column per attribute, got {array.shape}."
        )
    for j, k in enumerate(sizes):
        column = array[:, j]
        if column.size and (int(column.min()) < 0 or int(column.max()) >= k):
            raise InvalidParameterError(f"column {j} of rows must lie in [0, {k}); some do not.")
    return array.astype(np.int64)


@dataclass(frozen=True)
class RowStrategy(ABC):
    """How a person with several attributes reports under one epsilon.

    Parameters
    ----------
    sizes : sequence of int
        Size of each attribute's domain, each at least 2.
    epsilon : float
        In (0, 50].
    """

    sizes: tuple[int, ...]
    epsilon: float
    name: ClassVar[str] = ""
    samples: ClassVar[bool] = False  # whether each person reports one attribute only

    def __post_init__(self) -> None:
        if isinstance(self.sizes, str | bytes) or not isinstance(
            self.sizes, Sequence | np.ndarray
        ):
            raise InvalidTypeError(
                "sizes must list the size of each attribute's domain, got "
                f"{type(self.sizes).__name__}."
            )
        sizes = tuple(self._size(k) for k in self.sizes)
        if not 1 <= len(sizes) < MAX_ATTRIBUTES:
            raise InvalidParameterError(
                f"sizes must name 1 to {MAX_ATTRIBUTES - 1} attributes, got {len(sizes)}."
            )
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "epsilon", check_local_epsilon(epsilon=self.epsilon))

    @staticmethod
    def _size(k: Any) -> int:
        return check_domain(k)

    @property
    def d(self) -> int:
        """Number of attributes."""
        return len(self.sizes)

    @property
    @abstractmethod
    def protocols_(self) -> tuple[FrequencyProtocol, ...]:
        """The randomiser of each attribute."""

    @property
    @abstractmethod
    def epsilon_tuple(self) -> float:
        """What a report discloses about a whole row: any two rows are neighbours."""

    @property
    @abstractmethod
    def epsilon_attribute(self) -> float:
        """What a report discloses about one attribute, all others being the same."""

    @abstractmethod
    def randomise(
        self, rows: Ints, stream: SecretStream
    ) -> tuple[NDArray[np.uint16] | None, list[dict[str, NDArray[Any]]]]:
        """Return who reports which attribute (None: everyone all), and each one's payload."""

    def column_law(self, j: int) -> tuple[Floats, Floats]:
        """Return, per value, the chance that a report supports it with and without holding it."""
        k = self.sizes[j]
        protocol = self.protocols_[j]
        return np.full(k, protocol.p_), np.full(k, protocol.q_)

    # -- the law, for enumeration ------------------------------------------------------------
    @abstractmethod
    def outputs(self) -> Iterator[Any]:
        """Yield every possible report; for small domains."""

    @abstractmethod
    def chances(self, output: Any) -> Any:
        """Return the exact chance of one report given every row, an object array of the sizes."""

    @cached_property
    def _tables(self) -> list[tuple[list[Any], dict[Any, list[Fraction]]]]:
        """Return per attribute its outputs, and the chance of each given every value."""
        found = []
        for protocol in self.protocols_:
            outputs = list(protocol.outputs())
            chance = {o: [protocol.probability(o, v) for v in range(protocol.k)] for o in outputs}
            found.append((outputs, chance))
        return found

    def _along(self, j: int, chances: Sequence[Fraction]) -> Any:
        """Return numbers of attribute j's values as an array that varies along axis j only."""
        shape = [1] * self.d
        shape[j] = self.sizes[j]
        out = np.empty(self.sizes[j], dtype=object)
        out[:] = list(chances)
        return out.reshape(shape)

    # -- identity ----------------------------------------------------------------------------
    def parameters(self) -> dict[str, Any]:
        """Return everything on which client and server must agree, JSON-able."""
        return {
            "strategy": self.name,
            "sizes": list(self.sizes),
            "epsilon": float(self.epsilon).hex(),
            "protocols": [p.parameters() for p in self.protocols_],
        }

    def fingerprint(self) -> bytes:
        """Return 16 bytes that differ between strategies that must not be mixed."""
        text = json.dumps(self.parameters(), sort_keys=True, separators=(",", ":"))
        return blake2b(text.encode(), digest_size=16).digest()

    def event(self) -> Any:
        """Return what one person's report costs under replacement of the whole row."""
        from privfair.accounting.events import LocalDP

        return LocalDP(self.epsilon_tuple)


@dataclass(frozen=True)
class _PureStrategy(RowStrategy):
    """A strategy of one pure protocol per attribute."""

    protocol: Any = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.protocol
        if isinstance(given, list):
            given = tuple(given)
            object.__setattr__(self, "protocol", given)
        if not isinstance(given, tuple):
            given = (given,) * self.d
        if len(given) != self.d:
            raise InvalidParameterError(
                f"protocol must be one, or one for each of the {self.d} attributes, got "
                f"{len(given)}."
            )
        made = tuple(
            self._made(one, k, self.epsilon_each) for one, k in zip(given, self.sizes, strict=True)
        )
        object.__setattr__(self, "_protocols", made)

    @property
    @abstractmethod
    def epsilon_each(self) -> float:
        """Epsilon of one attribute's report."""

    @staticmethod
    def _made(given: Any, k: int, epsilon: float) -> FrequencyProtocol:
        if isinstance(given, FrequencyProtocol):
            if given.k != k or given.epsilon > epsilon:
                raise InvalidParameterError(
                    f"an attribute with {k} values at epsilon {epsilon:g} cannot use {given!r}."
                )
            return given
        check.one_of(("auto", *PROTOCOLS), protocol=given)
        return choose(k, epsilon).best if given == "auto" else PROTOCOLS[given](k, epsilon)

    @property
    def protocols_(self) -> tuple[FrequencyProtocol, ...]:
        """The randomiser of each attribute."""
        out: tuple[FrequencyProtocol, ...] = self._protocols  # type: ignore[attr-defined]
        return out


@dataclass(frozen=True)
class SPL(_PureStrategy):
    """Splitting: every attribute is reported, each with a share of epsilon.

    Parameters
    ----------
    sizes : sequence of int
        Size of each attribute's domain, each at least 2.
    epsilon : float
        In (0, 50]; each attribute has ``epsilon / d``.
    protocol : str, FrequencyProtocol or tuple of these, default="auto"
        Per attribute or for all; ``"auto"`` takes the one of least variance.

    Notes
    -----
    *Privacy.* ``epsilon_tuple = epsilon`` and ``epsilon_attribute = epsilon / d``. For more than
    one attribute :class:`SMP` has the smaller variance at equal ``epsilon_tuple``; splitting
    pays where attributes must be joined, as in :class:`PairwiseMarginals`.

    Examples
    --------
    >>> strategy = SPL([16, 2], 1.0)
    >>> strategy.epsilon_tuple, strategy.epsilon_attribute
    (1.0, 0.5)
    """

    name: ClassVar[str] = "SPL"

    @cached_property
    def epsilon_each(self) -> float:  # type: ignore[override]
        """Epsilon of one attribute's report: the shares never add up to more than the whole."""
        part = self.epsilon / self.d
        while Fraction(part) * self.d > Fraction(self.epsilon):
            part = math.nextafter(part, 0.0)
        return part

    @property
    def epsilon_tuple(self) -> float:
        """What a report discloses about a whole row."""
        return self.epsilon

    @property
    def epsilon_attribute(self) -> float:
        """What a report discloses about one attribute."""
        return self.epsilon_each

    def randomise(
        self, rows: Ints, stream: SecretStream
    ) -> tuple[None, list[dict[str, NDArray[Any]]]]:
        """Return one report of every attribute per row."""
        return None, [p.randomise(rows[:, j], stream) for j, p in enumerate(self.protocols_)]

    def outputs(self) -> Iterator[Any]:
        """Yield every tuple of reports."""
        yield from product(*(outputs for outputs, _ in self._tables))

    def chances(self, output: Any) -> Any:
        """Return the exact chance of one tuple of reports given every row."""
        out: Any = Fraction(1)
        for j, one in enumerate(output):
            out = out * self._along(j, self._tables[j][1][one])
        return out


@dataclass(frozen=True)
class SMP(_PureStrategy):
    """Sampling: every person reports one attribute, drawn uniformly, with the whole epsilon.

    Parameters
    ----------
    sizes : sequence of int
        Size of each attribute's domain, each at least 2.
    epsilon : float
        In (0, 50].
    protocol : str, FrequencyProtocol or tuple of these, default="auto"
        Per attribute or for all; ``"auto"`` takes the one of least variance.

    Notes
    -----
    *Privacy.* ``epsilon_tuple = epsilon_attribute = epsilon``: the attribute is drawn without
    looking at the row and disclosed, and the report of it is epsilon-LDP. The variance of an
    attribute is that of one with n / d reports.

    References
    ----------
    Nguyen, Xiao, Yang, Hui, Shin, Shin 2016, "Collecting and analyzing data from smart device
    users with local differential privacy", arXiv 1606.05053.

    Examples
    --------
    >>> strategy = SMP([16, 2], 1.0)
    >>> strategy.epsilon_tuple, [p.name for p in strategy.protocols_]
    (1.0, ['SS', 'GRR'])
    """

    name: ClassVar[str] = "SMP"
    samples: ClassVar[bool] = True

    @property
    def epsilon_each(self) -> float:
        """Epsilon of one attribute's report."""
        return self.epsilon

    @property
    def epsilon_tuple(self) -> float:
        """What a report discloses about a whole row."""
        return self.epsilon

    @property
    def epsilon_attribute(self) -> float:
        """What a report discloses about one attribute."""
        return self.epsilon

    def randomise(
        self, rows: Ints, stream: SecretStream
    ) -> tuple[NDArray[np.uint16], list[dict[str, NDArray[Any]]]]:
        """Return who reports which attribute, and each attribute's reports in that order."""
        chosen = below(self.d, len(rows), stream).astype(np.uint16)
        return chosen, [
            p.randomise(rows[chosen == j, j], stream) for j, p in enumerate(self.protocols_)
        ]

    def outputs(self) -> Iterator[Any]:
        """Yield every attribute with every report of it."""
        for j, (outputs, _) in enumerate(self._tables):
            for one in outputs:
                yield j, one

    def chances(self, output: Any) -> Any:
        """Return the exact chance of an attribute and its report given every row."""
        j, one = output
        one_of_d = self._along(j, self._tables[j][1][one]) / self.d
        return np.broadcast_to(one_of_d, self.sizes)


def exact_row_epsilons(strategy: RowStrategy) -> tuple[float, float]:
    """Return both epsilons of a strategy by enumerating every report and every row.

    Parameters
    ----------
    strategy : RowStrategy
        With few, small attributes.

    Returns
    -------
    epsilon_tuple, epsilon_attribute : float
        The largest logarithm of a ratio of chances between any two rows, and between rows that
        differ in one attribute, rounded up.

    Raises
    ------
    InvalidParameterError
        Too many reports to enumerate.

    Notes
    -----
    Chances are exact fractions of the law with 64-bit thresholds. For local hashing they are
    conditional on the public seed.

    Examples
    --------
    >>> both = exact_row_epsilons(SPL([2, 3], 1.0, protocol="GRR"))
    >>> [round(x, 9) for x in both]
    [1.0, 0.5]
    """
    if not isinstance(strategy, RowStrategy):
        raise InvalidTypeError(
            f"strategy must be one such as SMP(sizes, epsilon), got {type(strategy).__name__}."
        )
    if any(k > 8 for k in strategy.sizes):
        raise InvalidParameterError(
            "every attribute must have at most 8 values to enumerate all reports. The law does "
            "not depend on which domain it is: take small ones with the same parameters."
        )
    cells = math.prod(strategy.sizes) * math.prod(len(o) for o, _ in strategy._tables)
    if cells > _MOST_CELLS:
        raise InvalidParameterError(
            f"there are {cells} pairs of a report and a row, more than {_MOST_CELLS}. Take "
            "fewer or smaller attributes."
        )
    worst = [Fraction(1), Fraction(1)]
    for output in strategy.outputs():
        table = np.asarray(strategy.chances(output), dtype=object)
        low, high = table.min(), table.max()
        if high == 0:
            continue
        if low == 0:
            return math.inf, math.inf
        worst[0] = max(worst[0], high / low)
        for axis in range(strategy.d):
            ratios = table.max(axis=axis) / table.min(axis=axis)
            worst[1] = max(worst[1], ratios.max() if strategy.d > 1 else ratios)
    return _log_up(worst[0]), _log_up(worst[1])
