"""Categories that may be named: those whose noisy count passes a threshold."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError
from privfair.core.frames import as_vector, missing_mask
from privfair.core.privacy import NEIGHBORING
from privfair.core.randomness import secret_stream
from privfair.mechanisms._discrete import above, below, fraction
from privfair.mechanisms._lattice import exp_bounds
from privfair.mechanisms._price import repeated
from privfair.mechanisms._sampling import discrete_laplace
from privfair.mechanisms._tensors import TensorMechanism

if TYPE_CHECKING:
    from privfair.accounting.events import AccountedEvent

__all__ = ["DPSetDiscovery", "discovery_threshold"]


def discovery_threshold(epsilon: Fraction, delta: Fraction) -> int:
    """Return the smallest threshold at which a lone record shows with probability <= delta.

    With X discrete Laplace, ``P(X = x)`` proportional to ``exp(-epsilon |x|)``, this is the
    smallest integer t >= 1 with P(1 + X > t) = exp(-epsilon t) / (1 + exp(-epsilon)) <= delta.

    Parameters
    ----------
    epsilon, delta : Fraction
        The budget of the release, both above 0.

    Returns
    -------
    int

    Examples
    --------
    >>> discovery_threshold(Fraction(1), Fraction(1, 10**6))
    14
    """
    guess = max(1, math.floor((-math.log(delta) - math.log1p(math.exp(-epsilon))) / epsilon) - 2)
    while not _rare(epsilon, delta, guess):
        guess += 1
    return guess


def _rare(epsilon: Fraction, delta: Fraction, t: int) -> bool:
    """Whether exp(-epsilon t) <= delta (1 + exp(-epsilon)), decided on integer bounds."""
    bits = 256 + delta.denominator.bit_length()
    high = exp_bounds(epsilon.numerator * t, epsilon.denominator, bits)[1]
    low = exp_bounds(epsilon.numerator, epsilon.denominator, bits)[0]
    return high * delta.denominator <= delta.numerator * ((1 << bits) + low)


_Key = tuple[str, Any]  # kind and value; "their order is that of the output


def _items(value: Any) -> list[Any]:
    """Return the records that are not missing, lists as they are: numpy would give them one type.

    With a common type, one record of text would turn all numbers into text.
    """
    if isinstance(value, list | tuple):
        column = np.empty(len(value), dtype=object)
        for position, item in enumerate(value):
            column[position] = item
    else:
        column = as_vector(value, name="value")
    if column.dtype.kind not in "OUSTbiuf":
        raise InvalidTypeError(
            f"categories must be text, bytes, booleans or numbers, got dtype {column.dtype}. "
            "Convert them to text."
        )
    present: list[Any] = column[~missing_mask(column)].tolist()
    return present


def _key(item: Any) -> _Key:
    """Return the kind and the value of one category: a function of this record alone.

    Objects that are equal can look different (1, 1.0 and True; 0.0 and -0.0; text and numpy
    text). Were they counted together under the one that came first, a single record would choose
    the name that is released. Numbers are read as float64 and whole ones named by an int, so that
    the type that a library gives to a whole column, which one missing value can change, is not
    seen either.
    """
    if isinstance(item, str):
        return "text", str.__str__(item) if type(item) is not str else item
    if isinstance(item, bool | np.bool_):
        return "boolean", bool(item)
    if isinstance(item, int | float | np.integer | np.floating):
        try:
            number = float(item)
        except OverflowError:
            number = math.copysign(math.inf, 1 if item > 0 else -1)
        return "number", int(number) if number.is_integer() else number
    if isinstance(item, bytes):
        return "bytes", bytes(item)
    raise InvalidTypeError(
        "a category is neither text, bytes, a boolean nor an int or float; whether two objects of "
        "other types are the same category is not defined. Convert the column to text."
    )


class DPSetDiscovery(TensorMechanism):
    """Release which categories occur, with noisy counts, above a threshold.

    Parameters
    ----------
    epsilon : float or Fraction
        Epsilon of the release under ``neighboring``.
    delta : float
        In (0, 1): the probability with which a category that a single record holds is named.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        Relation that ``epsilon`` and ``delta`` are meant under.
    noise_random_state : int or None, default=None
        For tests and benchmarks only.

    Attributes
    ----------
    threshold : int
        A category is named if its noisy count exceeds this number.
    sensitivity : float
        1: one record adds one to one category's count (2 under replace_one).
    numerics : str
        ``"exact"``.

    Notes
    -----
    *Algorithm.* Exact counts of the categories that occur, discrete Laplace noise of scale
    ``1 / epsilon`` on each, those above ``threshold`` released in the order of their names, so
    that no order of the data shows. Missing values form no category. Whether two records hold the
    same category is decided by the kind (text, bytes, boolean, number) and the value of each;
    numbers are compared as float64 and named by an int where whole. O(n log n).

    *Privacy.* (epsilon, delta)-DP; the event is ``ApproxDP``. A category that both neighbours
    have is protected by the noise, one that only one of them has by the threshold (Korolova,
    Kenthapadi, Mishra, Ntoulas 2009). Known limits: the running time depends on the number of
    categories.

    References
    ----------
    Korolova, Kenthapadi, Mishra, Ntoulas, "Releasing search queries and clicks privately", 2009.

    Examples
    --------
    >>> mechanism = DPSetDiscovery(epsilon=1, delta=1e-6)
    >>> list(mechanism.release(["a"] * 500 + ["b"] * 400 + ["only one"]))
    ['a', 'b']
    """

    numerics = "exact"

    def __init__(
        self,
        epsilon: float | Fraction,
        delta: float,
        *,
        neighboring: str = "zero_out",
        noise_random_state: int | None = None,
    ) -> None:
        self.neighboring = check.one_of(NEIGHBORING, neighboring=neighboring)
        self.epsilon = fraction("epsilon", epsilon)
        self.delta = check.delta(delta=delta)
        moved = self.neighboring == "replace_one"
        # Replacing is removing and adding: (e, d) becomes (2e, d (1 + exp(e))).
        self._each = Fraction(below(self.epsilon / 2 if moved else self.epsilon))
        share = 1.0 + math.exp(float(self._each)) if moved else 1.0
        self._delta_each = self.delta / share * (1 - 2.0**-50 if moved else 1.0)
        if self._each > 700:
            raise InvalidParameterError(f"epsilon must be at most 700, got {float(self.epsilon)}.")
        self.sensitivity = 2.0 if moved else 1.0
        self.threshold = discovery_threshold(self._each, Fraction(self._delta_each))
        self._stream = secret_stream(noise_random_state)
        self.seeded = self._stream.seeded

    def cost(self, count: int = 1) -> AccountedEvent:
        """Return ``ApproxDP(epsilon, delta)``, stated for a record that comes or goes."""
        from privfair.accounting.events import ApproxDP

        event: AccountedEvent = ApproxDP(above(self._each), self._delta_each)
        return repeated(event, count)

    def _prepare(self, value: Any) -> tuple[list[Any], NDArray[np.int64]]:
        counted: dict[_Key, int] = {}
        for item in _items(value):
            key = _key(item)
            counted[key] = counted.get(key, 0) + 1
        keys = sorted(counted)
        return keys, np.array([counted[key] for key in keys], dtype=np.int64)

    def _draw(self, prepared: tuple[list[Any], NDArray[np.int64]]) -> dict[Any, int]:
        keys, counts = prepared
        noisy = counts + discrete_laplace(1 / self._each, len(keys), self._stream)
        released: dict[Any, int] = {}
        for (_, name), count in zip(keys, noisy.tolist(), strict=True):
            if count > self.threshold:
                # True and 1 have counts of their own and one place in a dict: what is released
                # of both is added up, after the noise.
                released[name] = released.get(name, 0) + int(count)
        return released
