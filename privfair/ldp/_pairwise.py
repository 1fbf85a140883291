"""Joint frequencies of pairs of attributes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError
from privfair.ldp._estimate import FrequencyEstimate
from privfair.ldp._protocol import FrequencyProtocol, Ints
from privfair.ldp._row_aggregator import RowAggregator
from privfair.ldp._row_reports import RowReports, randomize_rows
from privfair.ldp._rows import SMP, SPL, RowStrategy, check_rows

__all__ = ["PairwiseMarginals"]

_PIECE = 1 << 14
Pair = tuple[int, int]


class PairwiseMarginals:
    r"""Estimate the joint distribution of pairs of attributes.

    Parameters
    ----------
    sizes : sequence of int
        Size of each attribute's domain, each at least 2.
    epsilon : float
        In (0, 50], of one person's whole report.
    method : {"auto", "product", "split"}, default="auto"
        ``"product"``: each person draws a pair and reports its product domain as one attribute
        with the whole epsilon. ``"split"``: each person reports every attribute with a share of
        epsilon, and one set of reports serves all pairs. ``"auto"`` takes the one of less
        variance, summed over all cells of all pairs under uniform data; public either way.
    pairs : sequence of pairs of int, or None, default=None
        Which pairs; None takes all.
    protocol : str, default="auto"
        As in :class:`SMP`.

    Attributes
    ----------
    method_ : str
        The one in use.
    variances_ : dict of str to float
        Average variance of a cell with one person, under uniform data, by method.
    strategy_ : RowStrategy
        What clients and server agree on.
    n_reports_ : int

    Notes
    -----
    With :math:`t_u = (1[u \in S] - q) / (p - q)` of one report, which has the expectation 1 where
    the person holds u and 0 elsewhere, independent reports of two attributes give the unbiased
    joint :math:`\overline{t^a_u t^b_v}`: the inverse of the Kronecker product of both channels,
    computed from counts. Intervals of ``"split"`` are normal with the sample variance of these
    products, those of ``"product"`` are Clopper-Pearson.

    *Privacy.* ``strategy_.epsilon_tuple = epsilon``. *Complexity.* ``"split"`` keeps a table per
    pair and costs the server n times the sizes' product for each.

    References
    ----------
    Fanti, Pihur, Erlingsson 2016, "Building a RAPPOR with the unknown: privacy-preserving
    learning of associations and data dictionaries", arXiv 1503.01214.

    Examples
    --------
    >>> import numpy as np
    >>> marginals = PairwiseMarginals([2, 3], 4.0)
    >>> rows = np.column_stack([np.arange(6000) % 2, np.arange(6000) % 2])
    >>> reports = marginals.privatize(rows, noise_random_state=0)
    >>> joint = marginals.partial_fit(reports).table(0, 1)
    >>> joint.shape, bool(abs(joint - [[0.5, 0, 0], [0, 0.5, 0]]).max() < 0.06)
    ((2, 3), True)
    """

    def __init__(
        self,
        sizes: Sequence[int],
        epsilon: float,
        *,
        method: str = "auto",
        pairs: Sequence[Pair] | None = None,
        protocol: str = "auto",
    ) -> None:
        check.one_of(("auto", "product", "split"), method=method)
        split = SPL(tuple(sizes), epsilon, protocol)
        if split.d < 2:
            raise InvalidParameterError("sizes must name at least two attributes to pair.")
        self.sizes, self.epsilon = split.sizes, split.epsilon
        self.pairs = self._checked(pairs)
        products = tuple(self.sizes[a] * self.sizes[b] for a, b in self.pairs)
        joint = SMP(products, epsilon, protocol)
        cells = sum(products)
        self.variances_ = {
            "product": len(self.pairs)
            * sum(
                k * p.variance(1 / k, 1, "iid")
                for k, p in zip(products, joint.protocols_, strict=True)
            )
            / cells,
            "split": sum(
                k * (_second(split.protocols_[a]) * _second(split.protocols_[b]) - 1 / k**2)
                for k, (a, b) in zip(products, self.pairs, strict=True)
            )
            / cells,
        }
        best = min(self.variances_, key=lambda name: self.variances_[name])
        self.method_ = best if method == "auto" else method
        self.strategy_: RowStrategy = joint if self.method_ == "product" else split
        self._server = RowAggregator(self.strategy_)
        self._both = {pair: self._empty(pair) for pair in self.pairs}

    def _checked(self, pairs: Sequence[Pair] | None) -> tuple[Pair, ...]:
        d = len(self.sizes)
        found = list(combinations(range(d), 2)) if pairs is None else [tuple(p) for p in pairs]
        for pair in found:
            if len(pair) != 2 or not 0 <= pair[0] < pair[1] < d:
                raise InvalidParameterError(
                    f"pairs must hold positions (a, b) with 0 <= a < b < {d}."
                )
        if not found or len(set(found)) != len(found):
            raise InvalidParameterError("pairs must name at least one pair and none twice.")
        return tuple((int(a), int(b)) for a, b in found)

    def _empty(self, pair: Pair) -> Ints:
        return np.zeros((self.sizes[pair[0]], self.sizes[pair[1]]), dtype=np.int64)

    @property
    def n_reports_(self) -> int:
        """Number of people who reported."""
        return self._server.n_reports_

    # -- devices -------------------------------------------------------------------------------
    def privatize(self, rows: ArrayLike, *, noise_random_state: int | None = None) -> RowReports:
        """Return one report per row.

        Parameters
        ----------
        rows : array-like of int, shape (n, d)
        noise_random_state : int or None, default=None
            For tests and benchmarks only.
        """
        codes = check_rows(rows, self.sizes)
        if self.method_ == "product":
            codes = np.column_stack(
                [codes[:, a] * self.sizes[b] + codes[:, b] for a, b in self.pairs]
            )
        return randomize_rows(self.strategy_, codes, noise_random_state=noise_random_state)

    # -- server --------------------------------------------------------------------------------
    def partial_fit(self, reports: RowReports | bytes) -> PairwiseMarginals:
        """Add reports, as objects or in wire format."""
        if not isinstance(reports, RowReports):
            reports = RowReports.from_bytes(bytes(reports), self.strategy_)
        self._server.partial_fit(reports)
        if self.method_ == "split":
            for start in range(0, len(reports), _PIECE):
                part = reports[start : start + _PIECE]
                held = [
                    p.protocol.support_matrix(p.payload).astype(np.float32) for p in part.parts
                ]
                for a, b in self.pairs:  # whole numbers below 2^24: exact
                    self._both[a, b] += np.rint(held[a].T @ held[b]).astype(np.int64)
        return self

    def merge(self, other: PairwiseMarginals) -> PairwiseMarginals:
        """Return the sums of both; equal bit for bit to one pass."""
        if (self.pairs, self.strategy_.fingerprint()) != (
            other.pairs, other.strategy_.fingerprint()
        ):  # fmt: skip
            raise InvalidParameterError("these marginals have other parameters.")
        out = PairwiseMarginals(self.sizes, self.epsilon, method=self.method_, pairs=self.pairs)
        out.strategy_, out.variances_ = self.strategy_, self.variances_
        out._server = self._server + other._server
        out._both = {pair: self._both[pair] + other._both[pair] for pair in self.pairs}
        return out

    def estimate(
        self, a: int, b: int, *, confidence: float = 0.95, simultaneous: bool = False
    ) -> FrequencyEstimate:
        """Return the joint frequencies of two attributes, values (u, v) in row-major order.

        Parameters
        ----------
        a, b : int
            Positions, a < b, of a pair that was asked for.
        confidence : float, default=0.95
        simultaneous : bool, default=False
            Whether the intervals of the pair hold together (Bonferroni).

        Returns
        -------
        FrequencyEstimate

        Raises
        ------
        DataError
            There is no report yet.
        """
        if (a, b) not in self._both:
            raise InvalidParameterError(f"the pair must be one of {list(self.pairs)}.")
        level = check.confidence(confidence=confidence)
        values = tuple((u, v) for u in range(self.sizes[a]) for v in range(self.sizes[b]))
        if self.method_ == "product":
            j = self.pairs.index((a, b))
            found = self._server.estimate(j, None, level, simultaneous)
            object.__setattr__(found, "values", values)
            return found
        n = self.n_reports_
        if n == 0:
            raise DataError("no report has arrived yet: there is nothing to estimate from.")
        first, second = self._server.attributes_[a], self._server.attributes_[b]
        both = self._both[a, b] / n
        left, right = first.counts_[:, None] / n, second.counts_[None, :] / n
        mean: Any = 0.0
        square: Any = 0.0
        # The four cases: the reports support u or not, and v or not.
        for inside, other in ((1, 1), (1, 0), (0, 1), (0, 0)):
            share = {
                (1, 1): both, (1, 0): left - both, (0, 1): right - both,
                (0, 0): 1 - left - right + both,
            }[inside, other]  # fmt: skip
            value = _level(first.protocol, inside) * _level(second.protocol, other)
            mean, square = mean + share * value, square + share * value**2
        raw = np.asarray(mean).reshape(-1)
        std = np.sqrt(np.maximum(np.asarray(square).reshape(-1) - raw**2, 0.0) / n)
        each = 1 - (1 - level) / raw.size if simultaneous else level
        z = float(ndtri(0.5 + each / 2))
        return FrequencyEstimate(
            values, raw, raw, raw - z * std, raw + z * std, std, n, level, simultaneous,
            details={"method": "split", "epsilon": self.epsilon},
        )  # fmt: skip

    def table(self, a: int, b: int) -> Any:
        """Return the raw joint frequencies of two attributes, shape (size of a, size of b)."""
        found = self.estimate(a, b).frequencies_raw
        return found.reshape(self.sizes[a], self.sizes[b])


def _level(protocol: FrequencyProtocol, inside: int) -> float:
    return (inside - protocol.q_) / (protocol.p_ - protocol.q_)


def _second(protocol: FrequencyProtocol) -> float:
    """Return the second moment of one report's t, averaged over its values under uniform data."""
    p, q, k = protocol.p_, protocol.q_, protocol.k
    share = (p + (k - 1) * q) / k
    return math.fsum([share * _level(protocol, 1) ** 2, (1 - share) * _level(protocol, 0) ** 2])
