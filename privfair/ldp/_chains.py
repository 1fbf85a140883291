"""Longitudinal protocols on symbols: randomised response twice, on values or on hash buckets."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from privfair.core.randomness import SecretStream
from privfair.ldp._direct import DirectProtocol, checked_codes, code_dtype, respond
from privfair.ldp._exact import ONE, exp_fraction
from privfair.ldp._hashing import MAX_BUCKETS, HashingProtocol, check_buckets, hash_bucket
from privfair.ldp._longitudinal import ChainProtocol, Pair, Public, direct_chain
from privfair.ldp._protocol import Ints

__all__ = ["LGRR", "LOLOHA"]


@dataclass(frozen=True)
class _SymbolChain(ChainProtocol):
    """A chain whose memo and report are one of a few symbols."""

    @property
    def _symbols(self) -> int:
        raise NotImplementedError

    @cached_property
    def _steps(self) -> tuple[int, int]:
        return direct_chain(self._symbols, self.eps_perm, self.eps_1, self.variant)

    def _pair(self, t: int) -> Pair:
        keep = Fraction(t, ONE)
        return keep, (1 - keep) / (self._symbols - 1)

    @cached_property
    def permanent(self) -> Pair:  # type: ignore[override]
        """Probabilities (p1, q1) of the true and of another symbol as memo, exactly."""
        return self._pair(self._steps[0])

    @cached_property
    def instantaneous(self) -> Pair:  # type: ignore[override]
        """Probabilities (p2, q2) of the memo and of another symbol as report, exactly."""
        return self._pair(self._steps[1])

    @property
    def max_memos(self) -> int:
        """Number of different memos that one user can have: one per symbol."""
        return self._symbols

    def parameters(self) -> dict[str, Any]:
        """Return what client and server must agree on."""
        return {**super().parameters(), "variant": self.variant}

    def _draw_memos(self, keys: Ints, public: Public, stream: SecretStream) -> NDArray[Any]:
        memos = respond(keys, self._steps[0], self._symbols, stream)
        return memos.astype(code_dtype(self._symbols))

    def _respond(self, memos: NDArray[Any], stream: SecretStream) -> NDArray[Any]:
        codes = respond(memos.astype(np.int64), self._steps[1], self._symbols, stream)
        return codes.astype(code_dtype(self._symbols))

    def _check_memos(self, memos: NDArray[Any]) -> None:
        checked_codes(memos, self._symbols)


@dataclass(frozen=True)
class LGRR(_SymbolChain, DirectProtocol):
    r"""Longitudinal randomised response: GRR once for life, GRR of that for every report.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    eps_perm : float
        In (0, 50]: epsilon of any number of reports about one value.
    eps_1 : float
        In (0, eps_perm): epsilon of the first report.
    variant : {"tight", "published"}, default="tight"
        The published second step forgets memos that are neither the true value nor the reported
        one. It is safe, but for more than two values its first report has a smaller epsilon than
        declared and a much larger variance: k = 16, (2, 1): 0.573, 4.65 times the variance.

    Notes
    -----
    With contrasts :math:`\lambda = (e^\epsilon - 1)/(e^\epsilon + k - 1)` the two steps multiply,
    and :math:`\lambda_2 = \lambda(\epsilon_1) / \lambda(\epsilon_\infty)` makes the first report
    exactly GRR(eps_1): the memo costs no accuracy. Privacy: see ``epsilon_after``; a user with m
    different values spends at most m eps_perm, and when the value changes is not protected.
    Client O(1) per report, server O(n + k).

    References
    ----------
    Arcolezi, Couchot, Al Bouna, Xiao 2022, "Improving the utility of locally differentially
    private protocols for longitudinal and multidimensional frequency estimates",
    arXiv 2111.04636.

    Examples
    --------
    >>> round(LGRR(16, 2.0, 1.0).variance(), 2)
    5.66
    >>> published = LGRR(16, 2.0, 1.0, variant="published")
    >>> round(published.variance(), 2), round(published.epsilon_after(1), 3)
    (26.33, 0.573)
    """

    name: ClassVar[str] = "LGRR"

    @property
    def _symbols(self) -> int:
        return self.k

    def empty_payload(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of no reports."""
        return {"code": np.zeros(0, dtype=code_dtype(self.k))}

    def _draw_reports(
        self, memos: NDArray[Any], public: Public, stream: SecretStream
    ) -> dict[str, NDArray[Any]]:
        return {"code": self._respond(memos, stream)}


@lru_cache(maxsize=256)
def _best_buckets(k: int, eps_perm: float, eps_1: float, variant: str) -> int:
    """Return the number of buckets of least variance for rare values."""
    if variant == "tight":  # then the first report is OLH(eps_1)
        best = round(float(exp_fraction(min(eps_1, 10.0)))) + 1
        return min(max(2, best), MAX_BUCKETS)
    sizes = range(2, MAX_BUCKETS + 1)

    def variance(g: int) -> float:
        made = LOLOHA(k, eps_perm, eps_1, g, variant=variant)
        return float(made.variance())

    return min(sizes, key=variance)


@dataclass(frozen=True)
class LOLOHA(_SymbolChain, HashingProtocol):
    r"""Longitudinal local hashing: one hash function for life, the chain of LGRR on its buckets.

    Values that share a bucket share a memo, so that a user whose value changes all the time
    spends at most g eps_perm, not k eps_perm.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    eps_perm : float
        In (0, 50]: epsilon of any number of reports about one value.
    eps_1 : float
        In (0, eps_perm): epsilon of the first report.
    g : int or None, default=None
        Number of buckets, in [2, 256]. None takes the least variance, which for the tight variant
        is :math:`round(e^{\epsilon_1}) + 1`; 2 (BiLOLOHA) the least that a user can ever spend.
    variant : {"tight", "published"}, default="tight"
        As of :class:`LGRR`, on buckets; for two buckets they are the same.

    Notes
    -----
    With the tight variant a first report is exactly OLH(eps_1, g). The seed of the hash is drawn
    without looking at a value, kept with the memos and sent along with every report; a new one
    for each report would destroy the guarantee. Privacy: see ``epsilon_after``; when the bucket
    changes is not protected. Client O(1) per report, server O(n k).

    References
    ----------
    Arcolezi, Pinzon, Palamidessi, Gambs 2023, "Frequency estimation of evolving data under local
    differential privacy", EDBT.

    Examples
    --------
    >>> protocol = LOLOHA(1000, 2.0, 1.0)
    >>> protocol.g_, round(protocol.variance(), 4), protocol.epsilon_after(10**6, n_distinct=50)
    (4, 3.6917, 8.0)
    >>> LOLOHA(1000, 2.0, 1.0, g=2).epsilon_after(10**6, n_distinct=50)
    4.0
    """

    g: int | None = None
    name: ClassVar[str] = "LOLOHA"

    def __post_init__(self) -> None:
        check_buckets(self.g)
        super().__post_init__()

    @cached_property
    def g_(self) -> int:  # type: ignore[override]
        """Number of buckets in use."""
        if self.g is not None:
            return int(self.g)
        return _best_buckets(self.k, self.eps_perm, self.eps_1, self.variant)

    @property
    def _symbols(self) -> int:
        return self.g_

    @property
    def _memo_support(self) -> Pair:
        # Over seeds another value is in the memo's bucket as often as in any other.
        return self.permanent[0], Fraction(1, self.g_)

    def empty_payload(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of no reports."""
        return {"seed": np.zeros(0, dtype=np.uint64), "bucket": np.zeros(0, dtype=np.uint8)}

    def _draw_public(self, n: int, stream: SecretStream) -> Public:
        return {"seed": stream.uint64(n)}

    def _memo_keys(self, values: Ints, public: Public) -> Ints:
        return hash_bucket(public["seed"], values, self.k, self.g_)

    def _draw_reports(
        self, memos: NDArray[Any], public: Public, stream: SecretStream
    ) -> dict[str, NDArray[Any]]:
        return {"seed": public["seed"], "bucket": self._respond(memos, stream)}
