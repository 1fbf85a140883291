"""Heavy hitters of a huge domain: prefixes that grow from group to group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.ldp._estimate import FrequencyEstimate, estimate_from_law
from privfair.ldp._hashing import OLH, bucket_of, hash_parameters
from privfair.ldp._protocol import Ints, check_local_epsilon
from privfair.ldp._row_aggregator import sampled_deviation
from privfair.ldp._row_reports import RowReports, concatenate_rows, randomize_rows
from privfair.ldp._rows import SMP

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PEM", "HeavyHitters", "PrefixStep"]

MAX_BITS = 32  # the hash is pairwise independent for values of up to 32 bits
_BLOCK = 1 << 16


@dataclass(frozen=True)
class PrefixHash(OLH):
    """Local hashing of prefixes, whose domain is too large to go through."""

    name: ClassVar[str] = "PrefixHash"

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", check_local_epsilon(epsilon=self.epsilon))

    def tally(self, payload: dict[str, NDArray[Any]]) -> Ints:
        """Return nothing: supports are counted for candidates only."""
        return np.zeros(0, dtype=np.int64)

    @property
    def tally_size(self) -> int:
        """Nothing is summed up."""
        return 0

    def support_of_candidates(self, payload: dict[str, NDArray[Any]], candidates: Ints) -> Ints:
        """Return how many reports support each candidate."""
        counts = np.zeros(len(candidates), dtype=np.int64)
        for start in range(0, len(payload["seed"]), _BLOCK):
            seeds = payload["seed"][start : start + _BLOCK]
            buckets = payload["bucket"][start : start + _BLOCK]
            drawn = hash_parameters(seeds, self.k)
            for i, value in enumerate(candidates):
                own = bucket_of(*drawn, np.array([value]), self.k, self.g_)
                counts[i] += np.count_nonzero(own == buckets)
        return counts


@dataclass(frozen=True, eq=False)
class PrefixStep:
    """What one group's reports said about prefixes of one length.

    Attributes
    ----------
    length : int
        Bits.
    n_reports : int
    kept, dropped : ndarray of int64
        Candidates that went on, most frequent first, and those that did not.
    smallest_kept : float
        Raw estimate of the last one that went on.
    std : float
        Standard deviation of an estimate at frequency 0.
    """

    length: int
    n_reports: int
    kept: Ints
    dropped: Ints
    smallest_kept: float
    std: float


@dataclass(frozen=True, eq=False)
class HeavyHitters:
    """The most frequent items, and how they were found.

    Attributes
    ----------
    items : ndarray of int64
        Most frequent first.
    estimate : FrequencyEstimate
        Of all candidates of the last step, in the order of their estimates; intervals hold
        together, so that choosing among them does not void them.
    steps : tuple of PrefixStep
    """

    items: Ints
    estimate: FrequencyEstimate
    steps: tuple[PrefixStep, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per item: item, frequency, low, high, std."""
        import pandas as pd

        n, e = len(self.items), self.estimate
        return pd.DataFrame(
            {"item": self.items, "frequency": e.frequencies_raw[:n], "low": e.ci_low[:n],
             "high": e.ci_high[:n], "std": e.std[:n]}
        )  # fmt: skip

    def dropped_at(self, item: int, bits: int) -> int | None:
        """Return the length of the prefix at which an item was lost; None if it was found.

        Parameters
        ----------
        item : int
        bits : int
            Bits of an item.
        """
        for step in self.steps:
            if int(item) >> (bits - step.length) not in set(step.kept.tolist()):
                return step.length
        return None


class PEM:
    """Find frequent items among up to 2^32 by extending prefixes (prefix extending method).

    Each person is put into one of G groups at random, and reports the prefix of their item whose
    length is their group's, with the whole epsilon. The server extends the most frequent
    prefixes of one group by the next bits and looks for these in the next group.

    Parameters
    ----------
    bits : int
        Bits of an item, 2 to 32; items are 0, ..., 2^bits - 1.
    epsilon : float
        In (0, 50].
    start : int, default=8
        Bits of the first prefixes, all of which are candidates; at most 16.
    step : int, default=4
        Bits by which prefixes grow from group to group; at most 8.
    top : int, default=16
        How many prefixes go on, and how many items come out.

    Attributes
    ----------
    lengths_ : tuple of int
        Length of each group's prefixes.
    strategy_ : SMP
        What clients and server agree on: a group is a sampled attribute.

    Notes
    -----
    *Privacy.* Groups are disjoint and drawn without looking at items, so that a report is
    epsilon-LDP in all, by parallel composition. *Complexity.* The server hashes every report with
    at most ``top * 2^step`` candidates. A prefix is dropped for good: an item whose prefix is
    rare, or unlucky, in one group is lost, and :meth:`HeavyHitters.dropped_at` says where.

    References
    ----------
    Wang, Li, Jha 2018, "Locally differentially private heavy hitter identification",
    arXiv 1708.06674.

    Examples
    --------
    >>> import numpy as np
    >>> items = np.repeat([40000, 123, 9999], [6000, 4000, 2000])
    >>> finder = PEM(16, 4.0, top=3)
    >>> reports = finder.privatize(items, noise_random_state=0)
    >>> finder.partial_fit(reports).find().items.tolist()
    [40000, 123, 9999]
    """

    def __init__(
        self, bits: int, epsilon: float, *, start: int = 8, step: int = 4, top: int = 16
    ) -> None:
        self.bits = check.positive_int(bits=bits)
        self.start = min(check.positive_int(start=start), self.bits)
        self.step = check.positive_int(step=step)
        self.top = check.positive_int(top=top)
        self.epsilon = check_local_epsilon(epsilon=epsilon)
        if not 2 <= self.bits <= MAX_BITS:
            raise InvalidParameterError(f"bits must be in [2, {MAX_BITS}], got {self.bits}.")
        if self.start > 16 or self.step > 8 or self.top > 1 << 12:
            raise InvalidParameterError(
                "start must be at most 16, step at most 8 and top at most 4096: the server goes "
                "through all candidates of a group."
            )
        inner = list(range(self.start, self.bits, self.step))
        self.lengths_ = (*inner, self.bits)
        # The size only fixes the hash; outputs are buckets, whatever the domain.
        protocols = tuple(PrefixHash(1 << length, self.epsilon) for length in self.lengths_)
        self.strategy_ = PrefixGroups(
            tuple(1 << length for length in self.lengths_), self.epsilon, protocols
        )
        self._batches: list[RowReports] = []

    @property
    def n_reports_(self) -> int:
        """Number of people who reported."""
        return sum(len(batch) for batch in self._batches)

    def privatize(self, items: ArrayLike, *, noise_random_state: int | None = None) -> RowReports:
        """Return one report per item, each of one person.

        Parameters
        ----------
        items : array-like of int, shape (n,)
            In [0, 2^bits).
        noise_random_state : int or None, default=None
            For tests and benchmarks only.
        """
        array = np.asarray(items)
        if array.dtype.kind not in "iu":
            raise InvalidTypeError(f"items must be integers, got dtype {array.dtype}.")
        if array.ndim != 1:
            raise DataError(f"items must have one dimension, got {array.ndim}.")
        if array.size and (int(array.min()) < 0 or int(array.max()) >= 1 << self.bits):
            raise InvalidParameterError(f"items must lie in [0, 2^{self.bits}); some do not.")
        whole = array.astype(np.int64)
        rows = np.column_stack([whole >> (self.bits - length) for length in self.lengths_])
        return randomize_rows(self.strategy_, rows, noise_random_state=noise_random_state)

    def partial_fit(self, reports: RowReports | bytes) -> PEM:
        """Add reports; they are kept, since which candidates matter is known later."""
        if not isinstance(reports, RowReports):
            reports = RowReports.from_bytes(bytes(reports), self.strategy_)
        if reports.strategy.fingerprint() != self.strategy_.fingerprint():
            raise InvalidParameterError("these reports were made with other parameters.")
        self._batches.append(reports)
        return self

    def merge(self, other: PEM) -> PEM:
        """Return a finder with the reports of both."""
        if other.strategy_.fingerprint() != self.strategy_.fingerprint():
            raise InvalidParameterError("this finder has other parameters.")
        out = PEM(self.bits, self.epsilon, start=self.start, step=self.step, top=self.top)
        out._batches = [*self._batches, *other._batches]
        return out

    def find(self, *, confidence: float = 0.95) -> HeavyHitters:
        """Return the most frequent items.

        Parameters
        ----------
        confidence : float, default=0.95
            Of the intervals, which hold together over all candidates of the last step.

        Returns
        -------
        HeavyHitters

        Raises
        ------
        DataError
            A group has no report yet.
        """
        level = check.confidence(confidence=confidence)
        if not self._batches:
            raise DataError("no report has arrived yet: there is nothing to find.")
        reports = concatenate_rows(self._batches)
        candidates: Ints = np.arange(1 << self.lengths_[0])
        steps: list[PrefixStep] = []
        for at, length in enumerate(self.lengths_):
            if at:
                grown = length - self.lengths_[at - 1]
                candidates = ((steps[-1].kept[:, None] << grown) + np.arange(1 << grown)).reshape(
                    -1
                )
            found = self._estimated(reports, at, candidates, level)
            order = np.argsort(-found.frequencies_raw, kind="stable")
            top = min(self.top, len(order))
            null = float(self.strategy_.protocols_[at].variance(0.0, found.n)) ** 0.5
            steps.append(
                PrefixStep(
                    length, found.n, candidates[order[:top]], candidates[order[top:]],
                    float(found.frequencies_raw[order[top - 1]]), null,
                )
            )  # fmt: skip
        ranked = FrequencyEstimate(
            tuple(candidates[order].tolist()), found.frequencies_raw[order],
            found.frequencies_raw[order], found.ci_low[order], found.ci_high[order],
            found.std[order], found.n, level, True, details=found.details,
        )  # fmt: skip
        return HeavyHitters(steps[-1].kept, ranked, tuple(steps))

    def _estimated(
        self, reports: RowReports, at: int, candidates: Ints, level: float
    ) -> FrequencyEstimate:
        part = reports.parts[at]
        protocol = part.protocol
        assert isinstance(protocol, PrefixHash)
        if len(part) == 0:
            raise DataError("a group has no report yet; more people must report.")
        counts = protocol.support_of_candidates(part.payload, candidates)
        size = len(candidates)
        found = estimate_from_law(
            np.full(size, protocol.p_), np.full(size, protocol.q_), counts, len(part),
            values=candidates.tolist(), confidence=level, simultaneous=True,
            details={"epsilon": self.epsilon, "length": self.lengths_[at]},
        )  # fmt: skip
        return replace(found, std=sampled_deviation(found, len(reports)))


@dataclass(frozen=True)
class PrefixGroups(SMP):
    """Groups of people, each of which reports prefixes of its own length."""

    name: ClassVar[str] = "PEM"

    @staticmethod
    def _size(k: Any) -> int:
        return int(k)
