"""Private selection of one of several public candidates by their scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError, InvalidTypeError, LengthMismatchError
from privfair.core.privacy import NEIGHBORING
from privfair.core.randomness import secret_stream
from privfair.mechanisms._choice import MAX_CANDIDATES, choose, flips
from privfair.mechanisms._discrete import below, fraction
from privfair.mechanisms._grid import check_granularity, grid_steps
from privfair.mechanisms._price import repeated
from privfair.mechanisms._sampling import BitSource
from privfair.mechanisms._tensors import TensorMechanism

if TYPE_CHECKING:
    from privfair.accounting.events import AccountedEvent

__all__ = ["ExponentialMechanism", "PermuteAndFlip"]


class _Selection(TensorMechanism):
    """Scores to whole steps of a public grid, and the rate at which a step loses weight."""

    numerics = "exact"

    def __init__(
        self,
        candidates: int | Sequence[Any],
        epsilon: float | Fraction,
        *,
        sensitivity: float | Fraction = 1,
        monotonic: bool = False,
        granularity: float | None = None,
        neighboring: str = "zero_out",
        noise_random_state: int | None = None,
    ) -> None:
        self.candidates = _names(candidates)
        self.size = len(self.candidates)
        self.monotonic = check.boolean(monotonic=monotonic)
        self.neighboring = check.one_of(NEIGHBORING, neighboring=neighboring)
        self.epsilon = fraction("epsilon", epsilon)
        moved = fraction("sensitivity", sensitivity)
        if granularity is None:
            # The logarithm of a float: off by one step at most, which only moves the grid.
            granularity = 2.0 ** (math.floor(math.log2(moved)) - 20)
        step = check_granularity(granularity)
        self.granularity = float(step)
        # Rounding down moves two scores that are s steps apart to at most ceil(s) apart.
        steps = math.ceil(moved / step)
        self.sensitivity = float(steps * step)
        halved = 2 if self.neighboring == "replace_one" else 1
        self._each = below(self.epsilon / halved)
        self._rate = Fraction(self._each) / (steps * (1 if self.monotonic else 2))
        self._stream = secret_stream(noise_random_state)
        self.seeded = self._stream.seeded

    def _prepare(self, value: Any) -> NDArray[np.int64]:
        scores = np.asarray(value)
        if scores.shape != (self.size,):
            raise LengthMismatchError(
                f"the scores must be one number for each of the {self.size} candidates, got an "
                f"array of shape {scores.shape}."
            )
        if scores.dtype.kind not in "biuf":
            raise InvalidTypeError(f"scores must be real numbers, got dtype {scores.dtype}.")
        steps = grid_steps(scores, self.granularity, down=True)
        return np.asarray(steps.max() - steps)

    def _draw(self, prepared: NDArray[np.int64]) -> Any:
        return self.candidates[self._position(prepared, BitSource(self._stream.uint64))]

    def _position(self, gaps: NDArray[np.int64], source: BitSource) -> int:
        raise NotImplementedError


class ExponentialMechanism(_Selection):
    """Choose a candidate with probability growing exponentially in its score.

    Parameters
    ----------
    candidates : int or sequence
        Public: the candidates themselves, or how many there are (the answer is a position then).
        At most 2^20 + 1.
    epsilon : float or Fraction
        Pure epsilon of one release under ``neighboring``.
    sensitivity : float or Fraction, default=1
        The most that one record that comes or goes moves any score.
    monotonic : bool, default=False
        Whether a record that comes moves no score down (or none up), as with counts. The same
        epsilon then allows twice the rate. It is an assertion about the scores, not checked.
    granularity : float or None, default=None
        Grid step of the scores, a power of two. None takes about ``sensitivity * 2^-20``.
    neighboring : {"zero_out", "add_remove", "replace_one"}, default="zero_out"
        Relation that ``epsilon`` is meant under. Under replacement half of it is the event.
    noise_random_state : int or None, default=None
        For tests and benchmarks only.

    Attributes
    ----------
    sensitivity : float
        That of the rounded scores: the next multiple of ``granularity``.
    numerics : str
        ``"exact"``.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range.
    LengthMismatchError, InvalidTypeError
        By ``release``, for scores that are not one real number a candidate. Nothing is charged.

    Notes
    -----
    ``release`` takes the scores, higher being better, in the order of the candidates.
    *Algorithm.* Scores are rounded down to the grid (saturating at 2^61 steps; NaN is the
    lowest score). Candidate i comes with probability proportional to
    exp(epsilon q_i / (2 sensitivity)), or exp(epsilon q_i / sensitivity) if monotonic, exactly:
    the weights are never rounded. It is the candidate with the largest score plus Gumbel noise.
    O(candidates), one proposal nearly always.

    *Privacy.* epsilon-DP, and its privacy loss has a range of at most epsilon, so that it costs
    epsilon^2 / 8 in zCDP: the event says so. ``docs/proofs/selection.md``.

    References
    ----------
    McSherry, Talwar, 2007. Cesar, Rogers, 2021, arXiv:2004.07223. Ilvento, 2020,
    arXiv:1912.04222 (the attack on floats).

    Examples
    --------
    >>> mechanism = ExponentialMechanism(["bus", "tram", "train"], epsilon=1, monotonic=True)
    >>> mechanism.release([120, 3, 40])
    'bus'
    """

    def cost(self, count: int = 1) -> AccountedEvent:
        """Return ``ExponentialMechanism(epsilon)``, ``count`` times; half of it if replaced."""
        from privfair.accounting import events

        event = events.ExponentialMechanism(self._each, monotonic=self.monotonic)
        return repeated(event, count)

    def _position(self, gaps: NDArray[np.int64], source: BitSource) -> int:
        return choose(gaps, self._rate, source)


class PermuteAndFlip(_Selection):
    """Choose a candidate by coins that the better ones win more often.

    Parameters
    ----------
    candidates, epsilon, sensitivity, monotonic, granularity, neighboring, noise_random_state
        As in :class:`ExponentialMechanism`.

    Attributes
    ----------
    sensitivity, numerics
        As in :class:`ExponentialMechanism`.

    Raises
    ------
    InvalidParameterError, LengthMismatchError, InvalidTypeError
        As :class:`ExponentialMechanism`.

    Notes
    -----
    *Algorithm.* Every candidate flips a coin that shows heads with probability
    exp(-epsilon (q_max - q_i) / (2 sensitivity)), or twice that rate if monotonic, and one of
    those with heads is taken uniformly. That is the published algorithm, which flips in random
    order until the first heads, with the same number of coins each time. It is also the
    candidate with the largest score plus exponential noise (Ding et al. 2021). Exact;
    O(candidates).

    *Privacy.* epsilon-DP: the event is ``PureDP``. Its expected score is never below that of the
    exponential mechanism of the same epsilon, and up to twice as close to the best. But the
    range of its privacy loss is not bounded by epsilon, so that it costs epsilon^2 / 2 in zCDP
    where the other costs epsilon^2 / 8: prefer it for one choice, the other for many.
    ``docs/proofs/selection.md``.

    References
    ----------
    McKenna, Sheldon, 2020, arXiv:2010.12603. Ding, Kifer, Saghaian, Steinke, Wang, Xiao, Zhang,
    2021, arXiv:2105.07260.

    Examples
    --------
    >>> mechanism = PermuteAndFlip(3, epsilon=1, monotonic=True)
    >>> mechanism.release([120, 3, 40])
    0
    """

    def cost(self, count: int = 1) -> AccountedEvent:
        """Return ``PureDP(epsilon)``, ``count`` times; half of it under replacement."""
        from privfair.accounting.events import PureDP

        return repeated(PureDP(self._each), count)

    def _position(self, gaps: NDArray[np.int64], source: BitSource) -> int:
        heads = np.flatnonzero(flips(gaps, self._rate, source))
        return int(heads[source.below(heads.size)])


def _names(candidates: int | Sequence[Any]) -> Sequence[Any]:
    if isinstance(candidates, int | np.integer) or not isinstance(candidates, Sequence):
        if isinstance(candidates, np.ndarray):
            candidates = candidates.tolist()
        else:
            candidates = range(check.positive_int(candidates=candidates))
    if isinstance(candidates, str | bytes):
        raise InvalidTypeError("candidates must be a number or a list, got one text.")
    if not 1 <= len(candidates) <= MAX_CANDIDATES:
        raise InvalidParameterError(
            f"candidates must hold between 1 and {MAX_CANDIDATES} entries, got {len(candidates)}."
        )
    return candidates if isinstance(candidates, range) else tuple(candidates)
