"""Bits about a few buckets, drawn once for life: the memo itself is the report (dBitFlipPM)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import combinations, product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError
from privfair.core.randomness import SecretStream
from privfair.ldp._direct import checked_bits, code_dtype, unpacked
from privfair.ldp._exact import ONE, ByteSampler, below, exp_fraction, threshold
from privfair.ldp._longitudinal import VARIANTS, LongitudinalProtocol, Pair, Public
from privfair.ldp._protocol import Ints, checked_share
from privfair.ldp._unary import bit_rows, unary_bits

__all__ = ["DBitFlipPM"]


@dataclass(frozen=True)
class DBitFlipPM(LongitudinalProtocol):
    r"""A few bits for life: whether the value is in each of d buckets, each bit flipped once.

    Every user is given d of the k buckets at random, for life. The value's bit is kept with
    :math:`p`, the others are 1 with :math:`1 - p`; the d bits are memoised for each bucket and
    for "none of mine", and sent as they are.

    Parameters
    ----------
    k : int
        Number of buckets (values), at least 2.
    eps_perm : float
        In (0, 50]: epsilon of any number of reports about one value.
    d : int, default=1
        Number of buckets per user, in [1, k].
    variant : {"tight", "published"}, default="tight"
        Published is :math:`p = e^{\epsilon/2} / (e^{\epsilon/2} + 1)`. With d = 1 two values
        differ in one bit only, so that this spends half the epsilon; the tight variant then takes
        :math:`e^\epsilon`, with a quarter of the variance at epsilon 1. For d > 1 they are the
        same.

    Attributes
    ----------
    eps_1 : float
        ``eps_perm``: there is no second step.

    Notes
    -----
    A history of any values spends at most min(d + 1, k) eps_perm. **The moment of a change is
    visible to the server**, since the report changes with the memo and only then; use a chain
    (:class:`LOLOHA`) if that matters. Averaging over time gains nothing. Estimates rest on the
    reports about each value, about n d / k. Client and server O(d) per report.

    References
    ----------
    Ding, Kulkarni, Yekhanin 2017, "Collecting telemetry data privately", arXiv 1712.01524.

    Examples
    --------
    >>> protocol = DBitFlipPM(16, 1.0, 4)
    >>> round(protocol.variance(), 4), protocol.epsilon_after(10**6, n_distinct=50)
    (15.6708, 5.0)
    >>> round(DBitFlipPM(16, 1.0, 1).variance(), 4)
    14.7308
    """

    d: int = 1
    variant: str = field(default="tight", kw_only=True)
    name: ClassVar[str] = "DBitFlipPM"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "epsilon", self.eps_perm)
        size = check.positive_int(d=self.d)
        if size > self.k:
            raise InvalidParameterError(f"d must be in [1, k] = [1, {self.k}], got {size}.")
        object.__setattr__(self, "d", size)
        check.one_of(VARIANTS, variant=self.variant)

    @property
    def eps_1(self) -> float:
        """Epsilon of the first report, which is the memo."""
        return self.eps_perm

    @property
    def _encoding(self) -> str:  # type: ignore[override]
        return "direct" if self.d == 1 else "unary"

    @cached_property
    def _t(self) -> int:
        alone = self.d == 1 and self.variant == "tight"
        s = exp_fraction(self.eps_perm if alone else self.eps_perm / 2)
        return threshold(s / (s + 1))

    @property
    def permanent(self) -> Pair:
        """Probabilities (p1, q1) that the value's and another bucket's bit is 1, exactly."""
        p = Fraction(self._t, ONE)
        return p, 1 - p

    @property
    def instantaneous(self) -> Pair:
        """The memo is sent as it is."""
        return Fraction(1), Fraction(0)

    @property
    def max_memos(self) -> int:
        """Number of different memos: the user's buckets and, if there are others, none of them."""
        return min(self.d + 1, self.k)

    @property
    def report_bits(self) -> int:
        """Bits of one report: the numbers of the buckets and their bits."""
        return self.d * (1 + (self.k - 1).bit_length())

    def parameters(self) -> dict[str, Any]:
        """Return what client and server must agree on."""
        return {**super().parameters(), "d": self.d, "variant": self.variant}

    def outputs(self) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Yield buckets and bits; probabilities are conditional on the buckets."""
        for buckets in combinations(range(self.k), self.d):
            for bits in product((0, 1), repeat=self.d):
                yield buckets, bits

    def probability(self, output: tuple[tuple[int, ...], tuple[int, ...]], value: int) -> Fraction:
        """Return the probability of bits given their buckets."""
        chance = Fraction(1)
        for bucket, bit in zip(*output, strict=True):
            one = self.permanent[0 if bucket == value else 1]
            chance *= one if bit else 1 - one
        return chance

    # -- the server ------------------------------------------------------------------------------
    def empty_payload(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of no reports."""
        return {
            "buckets": np.zeros((0, self.d), dtype=code_dtype(self.k)),
            "bits": np.zeros((0, -(-self.d // 8)), dtype=np.uint8),
        }

    def tally(self, payload: dict[str, NDArray[Any]]) -> Ints:
        """Return how many reports set each bucket's bit, then how many have the bucket."""
        buckets = payload["buckets"]
        ones = buckets[unpacked(payload["bits"], self.d)]
        return np.concatenate(
            [np.bincount(part, minlength=self.k) for part in (ones, buckets.reshape(-1))]
        ).astype(np.int64)

    @property
    def tally_size(self) -> int:
        """Two numbers per bucket."""
        return 2 * self.k

    def is_tally(self, tally: Ints, n: int) -> bool:
        """Return whether n reports can have this tally."""
        ones, asked = tally[: self.k], tally[self.k :]
        fits = super().is_tally(tally, n) and int(asked.sum()) == n * self.d
        return fits and bool((ones <= asked).all())

    def support_of(self, tally: Ints, n: int) -> Ints:
        """Return how many reports set each bucket's bit."""
        return tally[: self.k]

    def trials_of(self, tally: Ints, n: int) -> Ints:
        """Return how many reports have each bucket."""
        return tally[self.k :]

    def support_matrix(self, payload: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which report sets which bucket's bit."""
        out = np.zeros((len(payload["bits"]), self.k), dtype=bool)
        np.put_along_axis(
            out, payload["buckets"].astype(np.int64), unpacked(payload["bits"], self.d), axis=1
        )
        return out

    @property
    def likelihood_ratio(self) -> float:
        """Not defined: a report may be for a value, against it, or not about it."""
        raise InvalidParameterError(
            "the likelihood of DBitFlipPM has three levels per value, not two. Use 'norm_sub' or "
            "'ibu_marginal'."
        )

    def check_payload(self, payload: dict[str, NDArray[Any]]) -> int:
        """Return the number of reports."""
        buckets, bits = payload["buckets"], payload["bits"]
        self._check_buckets(buckets)
        n = checked_bits(bits, self.d)
        if len(buckets) != n:
            raise DataError("there must be as many lists of buckets as of bits.")
        return n

    def _check_buckets(self, buckets: NDArray[Any]) -> None:
        if buckets.ndim != 2 or buckets.shape[1] != self.d or buckets.dtype.kind != "u":
            raise DataError(f"reports must have {self.d} buckets each.")
        whole = buckets.astype(np.int64)
        if buckets.size and (int(whole.max()) >= self.k or (np.diff(whole, axis=1) <= 0).any()):
            raise DataError("buckets of a report are not sorted, or outside the domain.")

    def variance(self, f: ArrayLike = 0.0, n: float = 1.0, population: str = "fixed") -> Any:
        """Return the variance of an estimated frequency, to the first order in 1 / n.

        Parameters
        ----------
        f, n, population
            As of the other protocols. Which users are asked about a value is random, which adds
            f (1 - f) (k / d - 1) / n even for given users.
        """
        check.one_of(("fixed", "iid"), population=population)
        share = checked_share(f, n)
        asked = n * self.d / self.k
        rest = n if population == "fixed" else np.inf
        out = self._spread(share) / asked + share * (1 - share) * (1 / asked - 1 / rest)
        return float(out) if out.ndim == 0 else out

    def variance_given(self, f: ArrayLike, trials: Ints, n: int) -> NDArray[np.float64]:
        """Return variances of estimates of which each rests on ``trials`` of the n reports."""
        share = np.asarray(f, dtype=float)
        drawn = share * (1 - share) * (n - trials) / max(n - 1, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((self._spread(share) + drawn) / trials)

    def _spread(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        p, q = self.p_, self.q_
        return np.asarray((share * p * (1 - p) + (1 - share) * q * (1 - q)) / (p - q) ** 2)

    def variance_over_time(
        self, reports: float, f: ArrayLike = 0.0, n: float = 1.0, population: str = "fixed"
    ) -> Any:
        """Return the variance of one report: more reports are copies of it.

        Parameters
        ----------
        reports : int or inf
        f, n, population
            As for ``variance``.
        """
        super().variance_over_time(reports, f, n, population)  # which checks the arguments
        return self.variance(f, n, population)

    # -- the client ------------------------------------------------------------------------------
    @cached_property
    def _sampler(self) -> ByteSampler:
        return ByteSampler(ONE - self._t)

    def _draw_public(self, n: int, stream: SecretStream) -> Public:
        """Draw d of k buckets for each of n users, by Floyd's algorithm over all users at once."""
        chosen = np.empty((n, self.d), dtype=np.int64)
        for step in range(self.d):
            top = self.k - self.d + step
            drawn = below(top + 1, n, stream)
            taken = (chosen[:, :step] == drawn[:, None]).any(axis=1)
            chosen[:, step] = np.where(taken, top, drawn)
        return {"buckets": np.sort(chosen, axis=1).astype(code_dtype(self.k))}

    def _memo_keys(self, values: Ints, public: Public) -> Ints:
        own = public["buckets"] == values[:, None]
        return np.where(own.any(axis=1), own.argmax(axis=1), self.d)

    def _draw_memos(self, keys: Ints, public: Public, stream: SecretStream) -> NDArray[Any]:
        out = bit_rows(len(keys), self.d, self._sampler, stream)
        inside = keys < self.d
        out[inside] = unary_bits(keys[inside], self.d, self._t, self._sampler, stream)
        return out

    def _draw_reports(
        self, memos: NDArray[Any], public: Public, stream: SecretStream
    ) -> dict[str, NDArray[Any]]:
        return {"buckets": public["buckets"], "bits": memos}

    def _check_memos(self, memos: NDArray[Any]) -> None:
        checked_bits(memos, self.d)

    def _check_public(self, public: Public) -> None:
        self._check_buckets(public["buckets"])
